"""Image to image: a residual generator, SRResNet, and the discriminator that judges patches."""
from typing import NamedTuple

import numpy as np

from refimpl.ops._check import require

from .blocks import conv, layer
from .initial import conv_shapes, norm_shapes
from .layers import batch_norm, gaussian, statistics


class TranslateConfig(NamedTuple):
    """inputs, outputs: channels; width: of the features; blocks: residual ones; factor: of SRResNet, a power of 2."""

    inputs: int = 1
    outputs: int = 1
    width: int = 32
    blocks: int = 4
    factor: int = 2


def _instance(params, name, x, ops):
    return layer(ops.instance_norm, ops.instance_norm_vjp, params, name, x)


def translator(params, x, *, ops):
    r"""Residual generator at the image's own resolution, with instance norm: pix2pix's and CycleGAN's map.

    $$h_0 = \mathrm{relu}(\mathrm{IN}(W x)), \;
      h_{k+1} = h_k + \mathrm{IN}(W_2\,\mathrm{relu}(\mathrm{IN}(W_1 h_k))), \; y = \tanh(W h_K)$$

    Shapes: x (N, inputs, H, W); as many blocks as params hold. Returns y (N, outputs, H, W), pullback(dy) -> grads, dx.
    Source: Johnson et al. 2016, arXiv:1603.08155; Zhu et al. 2017, arXiv:1703.10593, sec. 7 (without its strides).
    """
    m, first = conv(params, "input", x, ops, padding=1)
    n, norm_in = _instance(params, "norm", m, ops)
    h, steps, k = ops.relu(n), [], 0
    while f"blocks.{k}.conv1.weight" in params:
        m1, conv1 = conv(params, f"blocks.{k}.conv1", h, ops, padding=1)
        n1, norm1 = _instance(params, f"blocks.{k}.norm1", m1, ops)
        m2, conv2 = conv(params, f"blocks.{k}.conv2", ops.relu(n1), ops, padding=1)
        n2, norm2 = _instance(params, f"blocks.{k}.norm2", m2, ops)
        h = h + n2
        steps.append((conv1, norm1, n1, conv2, norm2))
        k += 1
    m, last = conv(params, "output", h, ops, padding=1)

    def pullback(dy):
        grads, dh = last(ops.tanh_vjp(dy, m))
        for conv1, norm1, n1, conv2, norm2 in reversed(steps):
            g_n2, d = norm2(dh)
            g_c2, d = conv2(d)
            g_n1, d = norm1(ops.relu_vjp(d, n1))
            g_c1, d = conv1(d)
            grads, dh = grads | g_n2 | g_c2 | g_n1 | g_c1, dh + d
        g_norm, dh = norm_in(ops.relu_vjp(dh, n))
        g_first, dx = first(dh)
        return grads | g_norm | g_first, dx

    return ops.tanh(m), pullback


def srresnet(params, state, x, *, ops, train=True):
    r"""Super-resolution: residual blocks at the small size, then pixel shuffling.

    $$h_0 = \mathrm{prelu}(W x), \; h_{k+1} = h_k + \mathrm{BN}(W_2\,\mathrm{prelu}(\mathrm{BN}(W_1 h_k))), \;
      u = \mathrm{prelu}(\mathrm{shuffle}(W(h_0 + \mathrm{BN}(W h_K)))), \; y = W u$$

    Shapes: x (N, inputs, H, W). Returns y (N, outputs, factor H, factor W), pullback(dy) -> grads, dx, and state.
    Source: Ledig et al. 2017, arXiv:1609.04802, fig. 4.
    """
    state, steps, ups = dict(state), [], []

    def prelu(name, m):
        slope = params[f"{name}.slope"]

        def back(dy):
            dm, dslope = ops.prelu_vjp(dy, m, slope)
            return {f"{name}.slope": dslope}, dm

        return ops.prelu(m, slope), back

    def normed(name, h):
        m, conv_back = conv(params, f"{name}.conv", h, ops, padding=1)
        n, norm_back, running = batch_norm(params, state, f"{name}.norm", m, ops, train)
        state.update(running)

        def back(dn):
            g_norm, dm = norm_back(dn)
            g_conv, dh = conv_back(dm)
            return g_norm | g_conv, dh

        return n, back

    m, first = conv(params, "input", x, ops, padding=1)
    start, act_in = prelu("input", m)
    h, k = start, 0
    while f"blocks.{k}.0.conv.weight" in params:
        n, one = normed(f"blocks.{k}.0", h)
        a, act = prelu(f"blocks.{k}", n)
        r, two = normed(f"blocks.{k}.1", a)
        h = h + r
        steps.append((one, act, two))
        k += 1
    n, joint = normed("joint", h)
    h, k = start + n, 0
    while f"ups.{k}.weight" in params:
        m, conv_back = conv(params, f"ups.{k}", h, ops, padding=1)
        h, act = prelu(f"ups.{k}", ops.pixel_shuffle(m, 2))
        ups.append((conv_back, m, act))
        k += 1
    y, last = conv(params, "output", h, ops, padding=1)

    def pullback(dy):
        grads, dh = last(dy)
        for conv_back, m, act in reversed(ups):
            g_act, dh = act(dh)
            g_conv, dh = conv_back(ops.pixel_shuffle_vjp(dh, m, 2))
            grads |= g_act | g_conv
        dstart = dh
        g, dh = joint(dh)
        grads |= g
        for one, act, two in reversed(steps):
            g2, d = two(dh)
            g_act, d = act(d)
            g1, d = one(d)
            grads, dh = grads | g2 | g_act | g1, dh + d
        g_act, dm = act_in(dh + dstart)
        g_first, dx = first(dm)
        return grads | g_act | g_first, dx

    return y, pullback, state


def patch_discriminator(params, x, *, ops, slope=0.2):
    r"""PatchGAN: a logit for every overlapping patch, by convolutions alone; each sees only its receptive field.

    $$h_{k+1} = \mathrm{lrelu}(\mathrm{IN}(\mathrm{conv}_{4,2}(h_k))), \qquad l = \mathrm{conv}_{3}(h_K)$$

    The first layer has no norm. As many layers as params hold: each halves the map and doubles the patch.

    Shapes: x (N, C, H, W), a condition being channels of x. Returns logits (N, 1, H', W'), pullback(dl) -> grads, dx.
    Source: Isola et al. 2017, arXiv:1611.07004, app. 6.1.2.
    """
    h, steps, k = x, [], 0
    while f"convs.{k}.weight" in params:
        m, conv_back = conv(params, f"convs.{k}", h, ops, stride=2, padding=1)
        n, norm_back = _instance(params, f"norms.{k}", m, ops) if f"norms.{k}.weight" in params else (
            m, lambda dy: ({}, dy))
        steps.append((conv_back, norm_back, n))
        h = ops.leaky_relu(n, slope)
        k += 1
    l, output = conv(params, "output", h, ops, padding=1)

    def pullback(dl):
        grads, dh = output(dl)
        for conv_back, norm_back, n in reversed(steps):
            g_norm, dm = norm_back(ops.leaky_relu_vjp(dh, n, slope))
            g_conv, dh = conv_back(dm)
            grads |= g_norm | g_conv
        return grads, dh

    return l, pullback


def translator_init(key, config, dtype=np.float32):
    """Weights with He's deviation, norms 1 and 0.

    Shapes: returns params, a flat dict of arrays of the dtype.
    Source: He et al. 2015, arXiv:1502.01852.
    """
    c, w = config, config.width
    shapes = conv_shapes("input", c.inputs, w) | norm_shapes("norm", w) | conv_shapes("output", w, c.outputs)
    for k in range(c.blocks):
        for i in "12":
            shapes |= conv_shapes(f"blocks.{k}.conv{i}", w, w) | norm_shapes(f"blocks.{k}.norm{i}", w)
    return gaussian(key, shapes, dtype=dtype)


def srresnet_init(key, config, dtype=np.float32):
    """Weights with He's deviation, slopes .25, norms 1 and 0; running statistics 0 and 1.

    Shapes: returns params and state, flat dicts of arrays of the dtype.
    Raises: ValueError when the factor is no power of two.
    Source: Ledig et al. 2017, arXiv:1609.04802; He et al. 2015, arXiv:1502.01852 (slopes).
    """
    c, w = config, config.width
    require(c.factor >= 2 and c.factor & (c.factor - 1) == 0, f"SRResNet: factor must be 2, 4, 8, ..., got {c.factor}")
    doublings = c.factor.bit_length() - 1
    shapes = conv_shapes("input", c.inputs, w) | conv_shapes("output", w, c.outputs)
    normed = [f"blocks.{k}.{i}" for k in range(c.blocks) for i in "01"] + ["joint"]
    for name in normed:
        shapes |= {f"{name}.conv.weight": (w, w, 3, 3)} | norm_shapes(f"{name}.norm", w)
    for k in range(doublings):
        shapes |= conv_shapes(f"ups.{k}", w, 4 * w)
    slopes = ["input"] + [f"blocks.{k}" for k in range(c.blocks)] + [f"ups.{k}" for k in range(doublings)]
    params = gaussian(key, shapes, dtype=dtype) | {f"{name}.slope": np.full(w, 0.25, dtype) for name in slopes}
    return params, statistics({f"{name}.norm": w for name in normed}, dtype)


def patch_discriminator_init(key, inputs, widths, dtype=np.float32):
    """Weights from N(0, .02^2), norms 1 and 0; one halving for each width.

    Shapes: inputs an int, widths ints. Returns params, a flat dict of arrays of the dtype.
    Source: Isola et al. 2017, arXiv:1611.07004, app. 6.2.
    """
    shapes = conv_shapes("output", widths[-1], 1)
    for k, (i, o) in enumerate(zip([inputs, *widths], widths)):
        shapes |= conv_shapes(f"convs.{k}", i, o, 4) | (norm_shapes(f"norms.{k}", o) if k else {})
    return gaussian(key, shapes, 0.02, dtype)
