"""Progressive growing: networks that gain one resolution at a time, each faded in while it is new.

Run both on `reparametrise.equalised` weights (variance 1 as stored). At level k images have base 2^k pixels a side;
alpha goes from 0 to 1 while level k fades in beside level k - 1.
"""
from typing import NamedTuple

import numpy as np

from refimpl.equations.batchwise import minibatch_stddev, minibatch_stddev_vjp
from refimpl.ops._check import require

from .blocks import conv, linear
from .initial import conv_shapes, linear_shapes
from .layers import gaussian

SLOPE = 0.2


class ProgressiveConfig(NamedTuple):
    """widths: channels at sizes base, 2 base, ...; group: of the minibatch standard deviation."""

    base: int = 4
    widths: tuple = (64, 64)
    channels: int = 1
    latent: int = 64
    group: int = 4


def fade(old, new, alpha):
    r"""Blend of the image (or the features) of two resolutions.

    $$(1-\alpha)\,\mathrm{old} + \alpha\,\mathrm{new}$$

    Shapes: old, new of one shape, alpha a number in [0, 1]. Its gradient is (1 - alpha) dy, alpha dy.
    Raises: ValueError when alpha leaves [0, 1].
    Source: Karras et al. 2018, arXiv:1710.10196, fig. 2.
    """
    require(0 <= alpha <= 1, f"fade: alpha must be in [0, 1], got {alpha}")
    return (1 - alpha) * old + alpha * new


def _level(level, alpha, config):
    require(0 <= level < len(config.widths), f"level must be in 0..{len(config.widths) - 1}, got {level}")
    require(0 <= alpha <= 1, f"alpha must be in [0, 1], got {alpha}")


def _styled(params, name, x, ops):
    """Convolution, leaky ReLU, pixel norm: the generator's layer. pullback(dy) -> grads, dx."""
    m, back = conv(params, name, x, ops, padding=1)
    a = ops.leaky_relu(m, SLOPE)
    return ops.pixel_norm(a), lambda dy: back(ops.leaky_relu_vjp(ops.pixel_norm_vjp(dy, a), m, SLOPE))


def generator(params, z, level, alpha, *, config, ops):
    r"""Image of base 2^level pixels from a latent vector, the last resolution faded in.

    $$h_0 = \mathrm{block}(\mathrm{pn}(\mathrm{lrelu}(W\,\mathrm{pn}(z)))), \quad h_{k+1} = \mathrm{block}(\mathrm{up}\,h_k),
      \quad x = (1-\alpha)\,\mathrm{up}(\mathrm{rgb}_{k-1}(h_{k-1})) + \alpha\,\mathrm{rgb}_k(h_k)$$

    Shapes: z (N, latent). Returns x (N, channels, base 2^level, .), pullback(dx) -> grads of the parameters used, dz.
    Raises: ValueError when z has another size, or level or alpha leaves its range.
    Source: Karras et al. 2018, arXiv:1710.10196, sec. 2 and table 2.
    """
    c = config
    _level(level, alpha, c)
    require(z.ndim == 2 and z.shape[1] == c.latent, f"progressive: z must be (N, {c.latent}), got {z.shape}")
    unit = ops.pixel_norm(z)
    m, project = linear(params, "input", unit, ops)
    a = ops.leaky_relu(m, SLOPE).reshape(len(z), c.widths[0], c.base, c.base)
    h, steps = ops.pixel_norm(a), []
    for k in range(level + 1):
        before = h
        if k:
            h, first = _styled(params, f"blocks.{k}.conv1", ops.upsample_nearest(h, 2), ops)
        else:
            first = None
        h, second = _styled(params, f"blocks.{k}.conv2", h, ops)
        steps.append((before, first, second))
    x, rgb = conv(params, f"rgb.{level}", h, ops)
    fading = level > 0 and alpha < 1
    if fading:
        small, old_rgb = conv(params, f"rgb.{level - 1}", steps[-1][0], ops)
        x = fade(ops.upsample_nearest(small, 2), x, alpha)

    def pullback(dx):
        grads, dh = rgb(alpha * dx if fading else dx)
        for k in reversed(range(level + 1)):
            before, first, second = steps[k]
            g, dh = second(dh)
            grads |= g
            if first:
                g, du = first(dh)
                grads, dh = grads | g, ops.upsample_nearest_vjp(du, before, 2)
            if k == level and fading:
                g, dsmall = old_rgb(ops.upsample_nearest_vjp((1 - alpha) * dx, small, 2))
                grads, dh = grads | g, dh + dsmall
        dm = ops.leaky_relu_vjp(ops.pixel_norm_vjp(dh, a).reshape(m.shape), m, SLOPE)
        g, dunit = project(dm)
        return grads | g, ops.pixel_norm_vjp(dunit, z)

    return x, pullback


def head(params, h, group, ops):
    r"""The end of a discriminator: the deviation within the minibatch, a convolution, two affine maps.

    $$l = w^T\,\mathrm{lrelu}\left(W_2\,\mathrm{lrelu}(W_1 * [h, s(h)])\right)$$

    Shapes: h (N, C, base, base), N a multiple of the group. Returns logits (N,), pullback(dlogits) -> grads, dh.
    Raises: ValueError when the group does not divide N.
    Source: Karras et al. 2018, arXiv:1710.10196, sec. 3 and table 2.
    """
    m, last = conv(params, "blocks.0.conv", minibatch_stddev(h, group), ops, padding=1)
    d, dense = linear(params, "dense", ops.leaky_relu(m, SLOPE).reshape(len(h), -1), ops)
    y, output = linear(params, "output", ops.leaky_relu(d, SLOPE), ops)

    def pullback(dlogits):
        g_output, dd = output(dlogits[:, None])
        g_dense, dflat = dense(ops.leaky_relu_vjp(dd, d, SLOPE))
        g_last, ds = last(ops.leaky_relu_vjp(dflat.reshape(m.shape), m, SLOPE))
        return g_output | g_dense | g_last, minibatch_stddev_vjp(ds, h, group)

    return y[:, 0], pullback


def discriminator(params, x, level, alpha, *, config, ops):
    r"""One logit per image of base 2^level pixels: the generator's mirror image, minibatch deviation before its end.

    $$h_k = \mathrm{from}_k(x), \quad h_{k-1} = (1-\alpha)\,\mathrm{from}_{k-1}(\mathrm{pool}\,x) +
      \alpha\,\mathrm{pool}(\mathrm{block}(h_k))$$

    Shapes: x (N, channels, base 2^level, .), N a multiple of the group. Returns logits (N,), pullback -> grads, dx.
    Raises: ValueError when x has another shape, level or alpha leaves its range, or the group does not divide N.
    Source: Karras et al. 2018, arXiv:1710.10196, sec. 2, 3 and table 2.
    """
    c = config
    _level(level, alpha, c)
    size = c.base * 2**level
    require(x.shape[1:] == (c.channels, size, size),
            f"progressive: x must be (N, {c.channels}, {size}, {size}) at level {level}, got {x.shape}")
    lrelu, lrelu_vjp = lambda m: ops.leaky_relu(m, SLOPE), lambda d, m: ops.leaky_relu_vjp(d, m, SLOPE)
    m_in, from_rgb = conv(params, f"from_rgb.{level}", x, ops)
    h, steps, fading = lrelu(m_in), [], level > 0 and alpha < 1
    for k in range(level, 0, -1):
        m1, conv1 = conv(params, f"blocks.{k}.conv1", h, ops, padding=1)
        m2, conv2 = conv(params, f"blocks.{k}.conv2", lrelu(m1), ops, padding=1)
        wide = lrelu(m2)
        h = ops.average_pool(wide, 2)
        steps.append((m1, conv1, m2, conv2, wide))
        if k == level and fading:
            m_old, old_rgb = conv(params, f"from_rgb.{level - 1}", ops.average_pool(x, 2), ops)
            h = fade(lrelu(m_old), h, alpha)
    logits, end = head(params, h, c.group, ops)

    def pullback(dlogits):
        (grads, dh), dx_old = end(dlogits), 0.0
        for k, (m1, conv1, m2, conv2, wide) in zip(range(1, level + 1), reversed(steps)):
            if k == level and fading:
                g, dsmall = old_rgb(lrelu_vjp((1 - alpha) * dh, m_old))
                grads, dx_old, dh = grads | g, ops.average_pool_vjp(dsmall, x, 2), alpha * dh
            g2, dm = conv2(lrelu_vjp(ops.average_pool_vjp(dh, wide, 2), m2))
            g1, dh = conv1(lrelu_vjp(dm, m1))
            grads |= g1 | g2
        g, dx = from_rgb(lrelu_vjp(dh, m_in))
        return grads | g, dx + dx_old

    return logits, pullback


def generator_init(key, config, dtype=np.float32):
    """Weights from N(0, 1) for all levels, biases 0.

    Shapes: returns params, a flat dict of arrays of the dtype.
    Source: Karras et al. 2018, arXiv:1710.10196, sec. 4.1.
    """
    c = config
    shapes = linear_shapes("input", c.latent, c.widths[0] * c.base**2)
    for k, o in enumerate(c.widths):
        if k:
            shapes |= conv_shapes(f"blocks.{k}.conv1", c.widths[k - 1], o)
        shapes |= conv_shapes(f"blocks.{k}.conv2", o, o) | conv_shapes(f"rgb.{k}", o, c.channels, 1)
    return gaussian(key, shapes, 1.0, dtype)


def discriminator_init(key, config, dtype=np.float32):
    """Weights from N(0, 1) for all levels, biases 0.

    Shapes: returns params, a flat dict of arrays of the dtype.
    Source: Karras et al. 2018, arXiv:1710.10196, sec. 4.1.
    """
    c = config
    shapes = conv_shapes("blocks.0.conv", c.widths[0] + 1, c.widths[0])
    shapes |= linear_shapes("dense", c.widths[0] * c.base**2, c.widths[0]) | linear_shapes("output", c.widths[0], 1)
    for k, i in enumerate(c.widths):
        shapes |= conv_shapes(f"from_rgb.{k}", c.channels, i, 1)
        if k:
            shapes |= conv_shapes(f"blocks.{k}.conv1", i, i) | conv_shapes(f"blocks.{k}.conv2", i, c.widths[k - 1])
    return gaussian(key, shapes, 1.0, dtype)
