"""SAGAN and BigGAN: residual blocks, self-attention, class-conditional batch norm, a projection discriminator.

Run both networks on `reparametrise.spectral` weights. SAGAN: split=False, the class alone conditions the batch norms;
BigGAN: split=True, each block also sees its own part of z.
"""
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from refimpl.ops._check import require

from .blocks import conv, linear
from .initial import conv_shapes, linear_shapes, norm_shapes
from .layers import batch_norm, gaussian, statistics


class BigGANConfig(NamedTuple):
    """widths: the generator's channels at sizes base, 2 base, ..., size; attention: the size at which it stands, 0 for
    nowhere; embedding: of the class, shared by the generator's blocks."""

    base: int = 4
    widths: tuple = (64, 64)
    channels: int = 1
    latent: int = 64
    classes: int = 10
    embedding: int = 32
    attention: int = 8
    split: bool = True


def self_attention(params, name, x, ops):
    r"""Self-attention over the pixels, switched on gradually by a learnt gain.

    $$y = x + \gamma\,W_o\,\mathrm{softmax}(q\,k^T)\,v, \qquad q, k, v = W_q x,\, W_k x,\, W_v x, \quad \gamma_0 = 0$$

    Shapes: x, y (N, C, H, W); q and k have C/8 channels (at least 1), v half of C. pullback(dy) -> grads, dx.
    Source: Zhang et al. 2019, arXiv:1805.08318, sec. 3 (v's width: its code); logits are not scaled.
    """
    n, _, h, w = x.shape
    tokens = lambda a: a.reshape(n, 1, -1, h * w).swapaxes(2, 3)  # (N, 1, L, .)
    pixels = lambda a: a.swapaxes(2, 3).reshape(n, -1, h, w)
    q, to_q = conv(params, f"{name}.query", x, ops)
    k, to_k = conv(params, f"{name}.key", x, ops)
    v, to_v = conv(params, f"{name}.value", x, ops)
    q, k, v = tokens(q), tokens(k), tokens(v)
    o, to_o = conv(params, f"{name}.out", pixels(ops.attention(q, k, v, scale=1.0)), ops)
    gamma = params[f"{name}.gamma"]

    def pullback(dy):
        g_o, da = to_o(dy * gamma)
        dq, dk, dv = ops.attention_vjp(tokens(da), q, k, v, scale=1.0)
        (g_q, dx_q), (g_k, dx_k), (g_v, dx_v) = to_q(pixels(dq)), to_k(pixels(dk)), to_v(pixels(dv))
        return g_q | g_k | g_v | g_o | {f"{name}.gamma": np.sum(dy * o).reshape(1)}, dy + dx_q + dx_k + dx_v

    return x + gamma * o, pullback


def _attention_shapes(name, c):
    narrow, half = max(c // 8, 1), max(c // 2, 1)
    return {f"{name}.query.weight": (narrow, c, 1, 1), f"{name}.key.weight": (narrow, c, 1, 1),
            f"{name}.value.weight": (half, c, 1, 1), f"{name}.out.weight": (c, half, 1, 1), f"{name}.gamma": (1,)}


def conditional_batch_norm(params, state, name, x, y, ops, train):
    r"""Batch norm whose scale and shift are linear in a condition.

    $$h = \mathrm{BN}(x)\,(1 + U y) + V y$$

    Shapes: x (N, C, H, W), y (N, E). Returns h, pullback(dh) -> grads, dx, dy, and the new entries of state.
    Source: Dumoulin et al. 2017, arXiv:1610.07629; Brock et al. 2019, arXiv:1809.11096, app. B.
    """
    n, normalise, running = batch_norm(params, state, name, x, ops, train)
    gain, to_gain = linear(params, f"{name}.gain", y, ops)
    shift, to_shift = linear(params, f"{name}.shift", y, ops)
    gain, shift = 1 + gain[:, :, None, None], shift[:, :, None, None]

    def pullback(dh):
        _, dx = normalise(dh * gain)
        g_gain, dy_gain = to_gain(np.sum(dh * n, axis=(2, 3)))
        g_shift, dy_shift = to_shift(np.sum(dh, axis=(2, 3)))
        return g_gain | g_shift, dx, dy_gain + dy_shift

    return n * gain + shift, pullback, running


def up_block(params, state, name, x, y, ops, train):
    r"""Residual block that doubles the size, conditioned through its batch norms.

    $$h = W_1 * \mathrm{up}(\mathrm{relu}(\mathrm{CBN}(x, y))), \qquad
      \mathrm{out} = W_2 * \mathrm{relu}(\mathrm{CBN}(h, y)) + W_s * \mathrm{up}(x)$$

    Shapes: x (N, I, H, W), y (N, E), out (N, O, 2H, 2W). Returns out, pullback -> grads, dx, dy, and state's entries.
    Source: Brock et al. 2019, arXiv:1809.11096, fig. 15.
    """
    n1, norm1, running1 = conditional_batch_norm(params, state, f"{name}.norm1", x, y, ops, train)
    a1 = ops.relu(n1)
    h, conv1 = conv(params, f"{name}.conv1", ops.upsample_nearest(a1, 2), ops, padding=1)
    n2, norm2, running2 = conditional_batch_norm(params, state, f"{name}.norm2", h, y, ops, train)
    r, conv2 = conv(params, f"{name}.conv2", ops.relu(n2), ops, padding=1)
    s, shortcut = conv(params, f"{name}.shortcut", ops.upsample_nearest(x, 2), ops)

    def pullback(dout):
        g_c2, da2 = conv2(dout)
        g_n2, dh, dy2 = norm2(ops.relu_vjp(da2, n2))
        g_c1, du = conv1(dh)
        g_n1, dx, dy1 = norm1(ops.relu_vjp(ops.upsample_nearest_vjp(du, a1, 2), n1))
        g_s, ds = shortcut(dout)
        return g_n1 | g_c1 | g_n2 | g_c2 | g_s, dx + ops.upsample_nearest_vjp(ds, x, 2), dy1 + dy2

    return r + s, pullback, running1 | running2


def down_block(params, name, x, ops, first=False, down=True):
    r"""Residual block of the discriminator, optionally halving the size; the first one takes the image as it is.

    $$\mathrm{out} = \mathrm{pool}(W_2 * \mathrm{relu}(W_1 * \mathrm{relu}(x))) + W_s * \mathrm{pool}(x)$$

    Shapes: x (N, I, H, W), out (N, O, H/2, W/2), or (N, O, H, W). pullback(dout) -> grads, dx.
    Source: Brock et al. 2019, arXiv:1809.11096, fig. 15 (a 1x1 convolution and a mean commute).
    """
    m, conv1 = conv(params, f"{name}.conv1", x if first else ops.relu(x), ops, padding=1)
    r, conv2 = conv(params, f"{name}.conv2", ops.relu(m), ops, padding=1)
    s, shortcut = conv(params, f"{name}.shortcut", ops.average_pool(x, 2) if down else x, ops)

    def pullback(dout):
        g_c2, dm = conv2(ops.average_pool_vjp(dout, r, 2) if down else dout)
        g_c1, dx = conv1(ops.relu_vjp(dm, m))
        g_s, ds = shortcut(dout)
        dx = dx if first else ops.relu_vjp(dx, x)
        return g_c1 | g_c2 | g_s, dx + (ops.average_pool_vjp(ds, x, 2) if down else ds)

    return (ops.average_pool(r, 2) if down else r) + s, pullback


def _labels(labels, x, config):
    require(np.shape(labels) == x.shape[:1], f"BigGAN: one label per sample expected, {x.shape[0]} of them, got "
            f"shape {np.shape(labels)}")


def generator(params, state, z, labels, *, config, ops, train=True):
    r"""Image of a class from a latent vector.

    $$h_0 = W z_0, \; h_{k+1} = \mathrm{up}_k(h_k, [E_c, z_{k+1}]), \; x = \tanh(W*\mathrm{relu}(\mathrm{BN}(h_K)))$$

    Shapes: z (N, latent); labels (N,). Returns x (N, channels, size, size), pullback(dx) -> dparams, dz, and state.
    Raises: ValueError when z has another size, or labels are not one class per sample.
    Source: Brock et al. 2019, arXiv:1809.11096, app. B; Zhang et al. 2019, arXiv:1805.08318.
    """
    c, K = config, len(config.widths) - 1
    require(z.ndim == 2 and z.shape[1] == c.latent, f"BigGAN: z must be (N, {c.latent}), got {z.shape}")
    _labels(labels, z, c)
    state, steps = dict(state), []
    table = params["embedding.weight"]
    e = ops.embedding(labels, table)
    parts = np.split(z, K + 1, axis=1) if c.split else [z] + K * [z[:, :0]]
    h, project = linear(params, "input", parts[0], ops)
    h = h.reshape(len(z), c.widths[0], c.base, c.base)
    for k in range(K):
        y = np.concatenate([e, parts[k + 1]], axis=1)
        h, block, running = up_block(params, state, f"blocks.{k}", h, y, ops, train)
        attend = lambda dy: ({}, dy)
        if f"attentions.{k}.gamma" in params:
            h, attend = self_attention(params, f"attentions.{k}", h, ops)
        state |= running
        steps.append((block, attend))
    n, normalise, running = batch_norm(params, state, "norm", h, ops, train)
    m, output = conv(params, "output", ops.relu(n), ops, padding=1)

    def pullback(dx):
        g_output, dh = output(ops.tanh_vjp(dx, m))
        g_norm, dh = normalise(ops.relu_vjp(dh, n))
        grads, dparts, de = g_output | g_norm, [], 0.0
        for block, attend in reversed(steps):
            g_attention, dh = attend(dh)
            g_block, dh, dy = block(dh)
            grads |= g_attention | g_block
            de, dparts = de + dy[:, :c.embedding], [dy[:, c.embedding:], *dparts]
        g_input, dz = project(dh.reshape(len(z), -1))
        grads |= g_input | {"embedding.weight": ops.embedding_vjp(de, labels, table)}
        return grads, np.concatenate([dz, *dparts], axis=1)

    return ops.tanh(m), pullback, state | running


def discriminator(params, x, labels, *, config, ops):
    r"""Projection discriminator: how real the image is, and how well it goes with its class.

    $$l = w\cdot\phi(x) + b + E_c\cdot\phi(x), \qquad \phi(x) = \textstyle\sum_{hw}\mathrm{relu}(\mathrm{blocks}(x))$$

    Shapes: x (N, channels, size, size); labels (N,). Returns logits (N,), pullback(dlogits) -> dparams, dx.
    Raises: ValueError when labels are not one class per sample.
    Source: Miyato and Koyama 2018, arXiv:1802.05637; Brock et al. 2019, arXiv:1809.11096, app. B.
    """
    _labels(labels, x, config)
    K, steps, h = len(config.widths) - 1, [], x
    for k in range(K + 1):
        h, block = down_block(params, f"blocks.{k}", h, ops, first=k == 0, down=k < K)
        attend = lambda dy: ({}, dy)
        if f"attentions.{k}.gamma" in params:
            h, attend = self_attention(params, f"attentions.{k}", h, ops)
        steps.append((block, attend))
    last = h
    phi = np.sum(ops.relu(last), axis=(2, 3))  # (N, C)
    table = params["embedding.weight"]
    e = ops.embedding(labels, table)
    l, output = linear(params, "output", phi, ops)

    def pullback(dlogits):
        grads, dphi = output(dlogits[:, None])
        grads |= {"embedding.weight": ops.embedding_vjp(dlogits[:, None] * phi, labels, table)}
        dphi = dphi + dlogits[:, None] * e
        dh = ops.relu_vjp(np.broadcast_to(dphi[:, :, None, None], last.shape), last)
        for block, attend in reversed(steps):
            g_attention, dh = attend(dh)
            g_block, dh = block(dh)
            grads |= g_attention | g_block
        return grads, dh

    return l[:, 0] + np.sum(e * phi, axis=1), pullback


def _block_shapes(name, i, o):
    return (conv_shapes(f"{name}.conv1", i, o) | conv_shapes(f"{name}.conv2", o, o)
            | conv_shapes(f"{name}.shortcut", i, o, 1))


def generator_init(key, config, dtype=np.float32):
    """Weights with He's deviation, gains of attention 0; running statistics 0 and 1.

    Shapes: returns params and state, flat dicts of arrays of the dtype.
    Raises: ValueError when z cannot be split evenly among the blocks.
    Source: Brock et al. 2019, arXiv:1809.11096, app. B, for the shapes.
    """
    c, K = config, len(config.widths) - 1
    require(K >= 1, f"BigGAN: widths for at least two sizes expected, got {c.widths}")
    require(not c.split or c.latent % (K + 1) == 0,
            f"BigGAN: the {K + 1} parts of z must be equal, so latent a multiple of {K + 1}, got {c.latent}")
    part = c.latent // (K + 1) if c.split else 0
    shapes = {"embedding.weight": (c.classes, c.embedding)}
    shapes |= linear_shapes("input", part if c.split else c.latent, c.widths[0] * c.base**2)
    norms = {"norm": c.widths[-1]}
    for k, (i, o) in enumerate(pairwise(c.widths)):
        shapes |= _block_shapes(f"blocks.{k}", i, o)
        for norm, width in (("norm1", i), ("norm2", o)):
            norms[f"blocks.{k}.{norm}"] = width
            for to in ("gain", "shift"):
                shapes[f"blocks.{k}.{norm}.{to}.weight"] = (width, c.embedding + part)
        if c.base * 2 ** (k + 1) == c.attention:
            shapes |= _attention_shapes(f"attentions.{k}", o)
    shapes |= norm_shapes("norm", c.widths[-1]) | conv_shapes("output", c.widths[-1], c.channels)
    return gaussian(key, shapes, dtype=dtype), statistics(norms, dtype)


def discriminator_init(key, config, dtype=np.float32):
    """Weights with He's deviation, gains of attention 0.

    Shapes: returns params, a flat dict of arrays of the dtype. The widths are the generator's, in reverse.
    Source: Brock et al. 2019, arXiv:1809.11096, app. B, for the shapes.
    """
    c, w = config, [config.channels, *reversed(config.widths)]
    shapes = {"embedding.weight": (c.classes, w[-1])} | linear_shapes("output", w[-1], 1)
    for k, (i, o) in enumerate(pairwise(w)):
        shapes |= _block_shapes(f"blocks.{k}", i, o)
        if k < len(c.widths) - 1 and c.base * 2 ** (len(c.widths) - 2 - k) == c.attention:
            shapes |= _attention_shapes(f"attentions.{k}", o)
    return gaussian(key, shapes, dtype=dtype)
