"""The blocks that U-Nets and autoencoders are made of, each returning its output and its pullback.

Parameters live in one flat dict; a block reads those under its own dotted name, and its pullback returns their
gradients under the same names, then the cotangents of its array inputs. Read a pullback beside the forward code above
it: the same steps in reverse order. Names are diffusers', so that public weights are a file to open.
"""
from typing import NamedTuple

import numpy as np


class Form(NamedTuple):
    """What the blocks of one network, or of one part of it, have in common.

    groups, stabiliser: of every group norm; attention_groups: of the one before attention, None for the same;
    head_dim: channels per attention head, None for all in one head; adaptive: the embedding scales and shifts (ADM)
    instead of being added (DDPM); scale: what a block's output is divided by; rate: dropout.
    """

    groups: int = 32
    stabiliser: float = 1e-5
    head_dim: int | None = None
    attention_groups: int | None = None
    adaptive: bool = False
    scale: float = 1.0
    rate: float = 0.0


def layer(f, f_vjp, params, name, x, *args, **options):
    """Apply f(x, weight, bias, ...) with the weight and the bias, if there is one, under name.

    Shapes: those of f, which is linear, conv2d or group_norm of a backend. pullback(dy) -> grads, dx.
    Source: the project's own form of a layer.
    """
    w, b = params[f"{name}.weight"], params.get(f"{name}.bias")

    def pullback(dy):
        dx, dw, db = f_vjp(dy, x, w, b, *args, **options)
        return {f"{name}.weight": dw} | ({} if b is None else {f"{name}.bias": db}), dx

    return f(x, w, b, *args, **options), pullback


def linear(params, name, x, ops):
    """y = x W^T + b. Shapes: x (..., I), y (..., O). Source: see layer."""
    return layer(ops.linear, ops.linear_vjp, params, name, x)


def conv(params, name, x, ops, **options):
    """Convolution, the options being conv2d's. Shapes: x (N, I, H, W), y (N, O, H', W'). Source: see layer."""
    return layer(ops.conv2d, ops.conv2d_vjp, params, name, x, **options)


def norm(params, name, x, ops, groups, stabiliser, silu=False):
    """Group norm, optionally followed by SiLU. Shapes: x, y (N, C, H, W). Source: see layer."""
    return layer(ops.group_norm, ops.group_norm_vjp, params, name, x, groups, stabiliser, silu=silu)


def residual(params, name, x, act, form, ops, key=None):
    r"""Residual block with group norm, SiLU and a conditioning vector.

    $$h = W_1 * \mathrm{silu}(\mathrm{GN}(x)) + U a, \qquad y = \frac{S x + W_2 * \mathrm{silu}(\mathrm{GN}(h))}{c}$$

    S is a 1x1 convolution where the channels differ, else 1. In the adaptive form (s, b) = U a enters after the second
    norm instead: GN(h) (1 + s) + b. Dropout, when the form has a rate and a key is given, stands before W_2.

    Shapes: x (N, I, H, W); act (N, E), the embedding after its SiLU, or None; y (N, O, H, W).
    pullback(dy) -> grads, dx, dact.
    Source: Ho et al. 2020, arXiv:2006.11239, app. B; adaptive: Dhariwal and Nichol 2021, arXiv:2105.05233.
    """
    drop = form.rate > 0 and key is not None
    identity = lambda dy: ({}, dy)
    carried, shortcut, project = x, identity, identity
    if act is not None:
        e, project = linear(params, f"{name}.time_emb_proj", act, ops)
        e = e[:, :, None, None]
    if f"{name}.conv_shortcut.weight" in params:
        carried, shortcut = conv(params, f"{name}.conv_shortcut", x, ops)

    a, norm1 = norm(params, f"{name}.norm1", x, ops, form.groups, form.stabiliser, silu=True)
    h, conv1 = conv(params, f"{name}.conv1", a, ops, padding=1)
    if form.adaptive:
        n, norm2 = norm(params, f"{name}.norm2", h, ops, form.groups, form.stabiliser)
        gain, shift = 1 + e[:, :n.shape[1]], e[:, n.shape[1]:]
        m = n * gain + shift
        b = ops.silu(m)
    else:
        h = h if act is None else h + e
        b, norm2 = norm(params, f"{name}.norm2", h, ops, form.groups, form.stabiliser, silu=True)
    d = ops.dropout(b, form.rate, key) if drop else b
    r, conv2 = conv(params, f"{name}.conv2", d, ops, padding=1)
    y = (carried + r) / form.scale if form.scale != 1 else carried + r

    def pullback(dy):
        dy = dy / form.scale if form.scale != 1 else dy
        g_conv2, dd = conv2(dy)
        db = ops.dropout_vjp(dd, b, form.rate, key) if drop else dd
        if form.adaptive:
            dm = ops.silu_vjp(db, m)
            g_norm2, dh = norm2(dm * gain)
            de = np.concatenate([np.sum(dm * n, axis=(2, 3)), np.sum(dm, axis=(2, 3))], axis=1)
        else:
            g_norm2, dh = norm2(db)
            de = 0.0 if act is None else np.sum(dh, axis=(2, 3))
        g_conv1, da = conv1(dh)
        g_norm1, dx = norm1(da)
        g_shortcut, dx_carried = shortcut(dy)
        g_project, dact = project(de)
        return g_norm1 | g_conv1 | g_project | g_norm2 | g_conv2 | g_shortcut, dx + dx_carried, dact

    return y, pullback


def attention(params, name, x, form, ops):
    r"""Self-attention over the pixels, group norm before it and a residual around it.

    $$y = \frac1c\left(x + W_o\,\mathrm{softmax}\left(\frac{q k^T}{\sqrt d}\right) v\right), \qquad
      q, k, v = W_q n, W_k n, W_v n, \quad n = \mathrm{GN}(x)$$

    Shapes: x, y (N, C, H, W); tokens L = H W; C / head_dim heads. pullback(dy) -> grads, dx.
    Source: Ho et al. 2020, arXiv:2006.11239, app. B; Vaswani et al. 2017, arXiv:1706.03762.
    """
    N, C, H, W = x.shape
    d = form.head_dim or C
    tokens = lambda a: a.reshape(N, C, H * W).swapaxes(1, 2)  # (N, L, C)
    pixels = lambda a: a.swapaxes(1, 2).reshape(N, C, H, W)
    split = lambda a: a.reshape(N, H * W, C // d, d).swapaxes(1, 2)  # (N, h, L, d)
    join = lambda a: a.swapaxes(1, 2).reshape(N, H * W, C)

    n, normalise = x, lambda dy: ({}, dy)
    if f"{name}.group_norm.weight" in params:
        n, normalise = norm(params, f"{name}.group_norm", x, ops, form.attention_groups or form.groups, form.stabiliser)
    n = tokens(n)
    q, to_q = linear(params, f"{name}.to_q", n, ops)
    k, to_k = linear(params, f"{name}.to_k", n, ops)
    v, to_v = linear(params, f"{name}.to_v", n, ops)
    q, k, v = split(q), split(k), split(v)
    o, to_out = linear(params, f"{name}.to_out.0", join(ops.attention(q, k, v)), ops)
    y = x + pixels(o)
    y = y / form.scale if form.scale != 1 else y

    def pullback(dy):
        dy = dy / form.scale if form.scale != 1 else dy
        g_out, do = to_out(tokens(dy))
        dq, dk, dv = ops.attention_vjp(split(do), q, k, v)
        g_v, dn_v = to_v(join(dv))
        g_k, dn_k = to_k(join(dk))
        g_q, dn_q = to_q(join(dq))
        g_norm, dx = normalise(pixels(dn_q + dn_k + dn_v))
        return g_norm | g_q | g_k | g_v | g_out, dy + dx

    return y, pullback


def residual_attention(params, name, j, x, act, form, ops, key=None):
    """Residual block j of a stage, then attention j where params have one.

    Shapes: as residual. pullback(dy) -> grads, dx, dact.
    Source: Ho et al. 2020, arXiv:2006.11239, app. B.
    """
    y, resnet = residual(params, f"{name}.resnets.{j}", x, act, form, ops, None if key is None else ops.fold(key, j))
    attend = lambda dy: ({}, dy)
    if f"{name}.attentions.{j}.to_q.weight" in params:
        y, attend = attention(params, f"{name}.attentions.{j}", y, form, ops)

    def pullback(dy):
        g_attention, dh = attend(dy)
        g, dx, dact = resnet(dh)
        return g | g_attention, dx, dact

    return y, pullback


def mid_stage(params, name, x, act, form, ops, key=None):
    """Residual block, attention where params have one, residual block.

    Shapes: x, y (N, C, H, W). pullback(dy) -> grads, dx, dact.
    Source: Ho et al. 2020, arXiv:2006.11239, app. B.
    """
    h, first = residual_attention(params, name, 0, x, act, form, ops, key)
    y, second = residual_attention(params, name, 1, h, act, form, ops, key)

    def pullback(dy):
        g2, dh, dact2 = second(dy)
        g1, dx, dact1 = first(dh)
        return g1 | g2, dx, dact1 + dact2

    return y, pullback


def down_stage(params, name, x, act, form, ops, padding, key=None):
    """The residual blocks that params have under name, then a stride-2 convolution if they have one.

    padding of that convolution: 0 means a row below and a column to the right only, as DDPM's TensorFlow.

    Shapes: x (N, I, H, W). Returns the output of every step, the last being the stage's; pullback(douts), their
    cotangents -> grads, dx, dact.
    Source: Ho et al. 2020, arXiv:2006.11239, app. B.
    """
    outputs, backs = [], []
    while f"{name}.resnets.{len(outputs)}.conv1.weight" in params:
        x, back = residual_attention(params, name, len(outputs), x, act, form, ops, key)
        outputs.append(x)
        backs.append(back)
    if f"{name}.downsamplers.0.conv.weight" in params:
        x, down = conv(params, f"{name}.downsamplers.0.conv", x, ops, stride=2, padding=padding or ((0, 1), (0, 1)))
        outputs.append(x)
        backs.append(lambda dy: (*down(dy), 0.0))

    def pullback(douts):
        grads, dx, dact = {}, 0.0, 0.0
        for back, dy in zip(reversed(backs), reversed(douts)):
            g, dx, da = back(dx + dy)
            grads, dact = grads | g, dact + da
        return grads, dx, dact

    return outputs, pullback


def up_stage(params, name, x, skips, act, form, ops, key=None):
    """The residual blocks under name, each fed the last skip left if there are any; then, where params have it, a
    nearest-neighbour doubling and a 3x3 convolution.

    Shapes: x (N, I, H, W); skips, a list of (N, ., H, W). pullback(dy) -> grads, dx, dskips, dact.
    Source: Ho et al. 2020, arXiv:2006.11239, app. B.
    """
    backs, skips, j = [], list(skips), 0
    while f"{name}.resnets.{j}.conv1.weight" in params:
        pair = [x, skips.pop()] if skips else [x]
        x = ops.concatenate(pair, axis=1) if len(pair) > 1 else x
        x, back = residual_attention(params, name, j, x, act, form, ops, key)
        backs.append((pair, back))
        j += 1
    up = None
    if f"{name}.upsamplers.0.conv.weight" in params:
        small = x
        x, up = conv(params, f"{name}.upsamplers.0.conv", ops.upsample_nearest(small, 2), ops, padding=1)

    def pullback(dx):
        grads, dskips, dact = {}, [], 0.0
        if up:
            grads, dx = up(dx)
            dx = ops.upsample_nearest_vjp(dx, small, 2)
        for pair, back in reversed(backs):
            g, dx, da = back(dx)
            dx, *dskip = ops.concatenate_vjp(dx, pair, axis=1) if len(pair) > 1 else [dx]
            grads, dskips, dact = grads | g, dskips + dskip, dact + da
        return grads, dx, dskips, dact

    return x, pullback
