"""DCGAN's generator and discriminator: strided convolutions, batch norm between them, no pooling, no dense layers.

Batch norm stands neither on the generator's output nor on the discriminator's input: there it would fix the mean and
the contrast of every batch of images. A condition enters as one-hot entries of z and one-hot channels of x.
"""
from typing import NamedTuple

import numpy as np

from refimpl.ops._check import require

from .blocks import conv
from .initial import norm_shapes
from .layers import batch_norm, conv_transpose, gaussian, statistics


class DCGANConfig(NamedTuple):
    """size: the image's, base times a power of two; width: channels at half of it, doubled at every halving; norm:
    whether the discriminator has batch norm (penalties and spectral normalisation do without)."""

    size: int = 64
    base: int = 4
    channels: int = 3
    latent: int = 100
    width: int = 128
    norm: bool = True
    slope: float = 0.2


def widths(config):
    r"""Channels at sizes base, 2 base, ..., size/2.

    $$\mathrm{width}\cdot 2^{k}, \; \dots,\; 2\,\mathrm{width},\; \mathrm{width}$$

    Shapes: returns a list.
    Raises: ValueError when size is not base times a power of two from 2, or another number is below 1.
    Source: Radford et al. 2016, arXiv:1511.06434, fig. 1.
    """
    c = config
    require(min(c.base, c.channels, c.latent, c.width) >= 1, f"DCGAN: sizes must be at least 1, got {c}")
    ratio = c.size // c.base
    require(ratio >= 2 and ratio & (ratio - 1) == 0 and ratio * c.base == c.size,
            f"DCGAN: size must be base {c.base} times 2, 4, 8, ..., got {c.size}")
    return [c.width * 2**k for k in reversed(range(ratio.bit_length() - 1))]


def generator(params, state, z, *, config, ops, train=True):
    r"""Image from a latent vector: z is projected to base x base, and each transposed convolution doubles the size.

    $$h_0 = \mathrm{relu}(\mathrm{BN}(\mathrm{convT}(z))), \quad
      h_{k+1} = \mathrm{relu}(\mathrm{BN}(\mathrm{convT}_{4,2}(h_k))), \quad x = \tanh(\mathrm{convT}_{4,2}(h_K))$$

    Shapes: z (N, latent). Returns x (N, channels, size, size) in (-1, 1), pullback(dx) -> dparams, dz, and state.
    Raises: ValueError when z is not (N, latent), or in training for a batch of one where batch norm sees one pixel.
    Source: Radford et al. 2016, arXiv:1511.06434, sec. 3.
    """
    require(z.ndim == 2 and z.shape[1] == config.latent,
            f"DCGAN: z must be (N, {config.latent}), the generator's latent size, got {z.shape}")
    state, steps = dict(state), []
    h, back = conv_transpose(params, "input", z[:, :, None, None], ops)
    for k in range(len(widths(config))):
        n, normalise, running = batch_norm(params, state, f"norms.{k}", h, ops, train)
        state |= running
        steps.append((back, normalise, n))
        h, back = conv_transpose(params, f"convs.{k}", ops.relu(n), ops, stride=2, padding=1)

    def pullback(dx):
        grads, dh = back(ops.tanh_vjp(dx, h))
        for conv_back, normalise, n in reversed(steps):
            g_norm, dh = normalise(ops.relu_vjp(dh, n))
            g_conv, dh = conv_back(dh)
            grads |= g_norm | g_conv
        return grads, dh[:, :, 0, 0]

    return ops.tanh(h), pullback, state


def features(params, state, x, *, config, ops, train=True):
    r"""The discriminator up to its last convolution: strided convolutions and leaky ReLU, batch norm but at the first.

    $$h_1 = \mathrm{lrelu}(\mathrm{conv}_{4,2}\,x), \; h_{k+1} = \mathrm{lrelu}(\mathrm{BN}(\mathrm{conv}_{4,2}\,h_k))$$

    Shapes: x (N, channels, size, size). Returns h (N, C, base, base), pullback(dh) -> grads, dx, and state.
    Raises: ValueError when x has another shape.
    Source: Radford et al. 2016, arXiv:1511.06434, sec. 3 and 5.1.
    """
    c = config
    require(x.shape[1:] == (c.channels, c.size, c.size),
            f"DCGAN: x must be (N, {c.channels}, {c.size}, {c.size}), got {x.shape}")
    state, steps, h = dict(state), [], x
    for k in range(len(widths(c))):
        m, conv_back = conv(params, f"convs.{k}", h, ops, stride=2, padding=1)
        normalise = lambda dy: ({}, dy)
        if f"norms.{k}.weight" in params:
            m, normalise, running = batch_norm(params, state, f"norms.{k}", m, ops, train)
            state |= running
        steps.append((conv_back, normalise, m))
        h = ops.leaky_relu(m, c.slope)

    def pullback(dh):
        grads = {}
        for conv_back, normalise, m in reversed(steps):
            g_norm, dh = normalise(ops.leaky_relu_vjp(dh, m, c.slope))
            g_conv, dh = conv_back(dh)
            grads |= g_norm | g_conv
        return grads, dh

    return h, pullback, state


def discriminator(params, state, x, *, config, ops, train=True):
    r"""One logit per image.

    $$l = w \cdot h(x) + b$$

    Shapes: x (N, channels, size, size). Returns logits (N,), pullback(dlogits) -> dparams, dx, and state.
    Raises: as features.
    Source: Radford et al. 2016, arXiv:1511.06434, sec. 3.
    """
    h, body, state = features(params, state, x, config=config, ops=ops, train=train)
    logit, head = conv(params, "output", h, ops)  # (N, 1, 1, 1)

    def pullback(dlogits):
        g, dh = head(dlogits.reshape(logit.shape))
        grads, dx = body(dh)
        return grads | g, dx

    return logit.reshape(len(x)), pullback, state


def generator_init(key, config, dtype=np.float32):
    """Weights from N(0, .02^2), scales 1, biases 0; running statistics 0 and 1.

    Shapes: returns params and state, flat dicts of arrays of the dtype.
    Source: Radford et al. 2016, arXiv:1511.06434, sec. 4.
    """
    w, b = widths(config), config.base
    shapes = {"input.weight": (config.latent, w[0], b, b)}
    for k, (i, o) in enumerate(zip(w, [*w[1:], config.channels])):
        shapes |= norm_shapes(f"norms.{k}", i) | {f"convs.{k}.weight": (i, o, 4, 4)}
    shapes[f"convs.{len(w) - 1}.bias"] = (config.channels,)  # batch norm removes the others
    return gaussian(key, shapes, 0.02, dtype), statistics({f"norms.{k}": c for k, c in enumerate(w)}, dtype)


def discriminator_init(key, config, dtype=np.float32):
    """Weights from N(0, .02^2), scales 1, biases 0; running statistics 0 and 1.

    Shapes: returns params and state, flat dicts of arrays of the dtype.
    Source: Radford et al. 2016, arXiv:1511.06434, sec. 4.
    """
    w, b = widths(config)[::-1], config.base
    normed = {f"norms.{k}": c for k, c in enumerate(w) if k > 0 and config.norm}
    shapes = {"output.weight": (1, w[-1], b, b), "output.bias": (1,)}
    for k, (i, o) in enumerate(zip([config.channels, *w], w)):
        shapes[f"convs.{k}.weight"] = (o, i, 4, 4)
        shapes |= norm_shapes(f"norms.{k}", o) if f"norms.{k}" in normed else {f"convs.{k}.bias": (o,)}
    return gaussian(key, shapes, 0.02, dtype), statistics(normed, dtype)
