"""StyleGAN's generator: a mapping network makes a style, which sets the statistics of every layer of the synthesis.

Run it on `reparametrise.equalised` weights, the mapping slowed down. Upsampling is nearest-neighbour, without the
authors' low-pass filter. The discriminator is progressive.py's at its last level.
"""
from typing import NamedTuple

import numpy as np

from refimpl.ops._check import require

from .blocks import conv, linear
from .initial import conv_shapes, linear_shapes
from .layers import gaussian

SLOPE = 0.2


class StyleConfig(NamedTuple):
    """widths: channels at sizes base, 2 base, ..., size, two layers at each; latent: of z and of w; depth: layers of
    the mapping network."""

    base: int = 4
    widths: tuple = (64, 64)
    channels: int = 1
    latent: int = 64
    depth: int = 4

    @property
    def layers(self):
        """How many layers a style enters."""
        return 2 * len(self.widths)


def mapping(params, z, *, ops, config):
    r"""Style from a latent vector.

    $$w_0 = \mathrm{pn}(z), \qquad w_{i+1} = \mathrm{lrelu}(W_i w_i + b_i)$$

    Shapes: z (N, latent). Returns w (N, latent), pullback(dw) -> grads, dz.
    Raises: ValueError when z has another size.
    Source: Karras et al. 2019, arXiv:1812.04948, fig. 1 and app. C.
    """
    require(z.ndim == 2 and z.shape[1] == config.latent, f"StyleGAN: z must be (N, {config.latent}), got {z.shape}")
    w, steps = ops.pixel_norm(z), []
    for i in range(config.depth):
        m, back = linear(params, f"mapping.{i}", w, ops)
        steps.append((m, back))
        w = ops.leaky_relu(m, SLOPE)

    def pullback(dw):
        grads = {}
        for m, back in reversed(steps):
            g, dw = back(ops.leaky_relu_vjp(dw, m, SLOPE))
            grads |= g
        return grads, ops.pixel_norm_vjp(dw, z)

    return w, pullback


def noise_shapes(config):
    r"""Shapes of the noise of each layer, of one sample.

    $$(1, h_k, h_k), \qquad h_k = \mathrm{base}\cdot 2^{\lfloor k/2\rfloor}$$

    Shapes: returns a list of config.layers shapes.
    Source: Karras et al. 2019, arXiv:1812.04948, sec. 2.
    """
    return [(1, config.base * 2 ** (k // 2), config.base * 2 ** (k // 2)) for k in range(config.layers)]


def layer(params, name, x, style, noise, ops, convolve):
    r"""Convolution, noise, leaky ReLU, and statistics from the style.

    $$a = \mathrm{lrelu}(W * x + B\,n + b), \qquad y = \mathrm{AdaIN}(a,\, 1 + A_s w,\, A_b w)$$

    Shapes: x (N, I, H, W), style w (N, D), noise n (N, 1, H, W), y (N, O, H, W). Without convolve, x goes straight to
    the noise. pullback(dy) -> grads, dx, dstyle.
    Source: Karras et al. 2019, arXiv:1812.04948, sec. 2, eq. 1.
    """
    h, back = conv(params, f"{name}.conv", x, ops, padding=1) if convolve else (x, lambda dy: ({}, dy))
    strength, bias = params[f"{name}.strength"], params[f"{name}.bias"]
    m = h + strength[:, None, None] * noise + bias[:, None, None]
    a = ops.leaky_relu(m, SLOPE)
    s, affine = linear(params, f"{name}.style", style, ops)
    scale, shift = 1 + s[:, :a.shape[1]], s[:, a.shape[1]:]

    def pullback(dy):
        da, dscale, dshift = ops.adain_vjp(dy, a, scale, shift)
        g_style, dstyle = affine(np.concatenate([dscale, dshift], axis=1))
        dm = ops.leaky_relu_vjp(da, m, SLOPE)
        g_conv, dx = back(dm)
        own = {f"{name}.strength": np.sum(dm * noise, axis=(0, 2, 3)), f"{name}.bias": np.sum(dm, axis=(0, 2, 3))}
        return g_conv | g_style | own, dx, dstyle

    return ops.adain(a, scale, shift), pullback


def synthesis(params, ws, noise, *, config, ops):
    r"""Image from one style per layer, starting from a learnt constant.

    $$h_{-1} = \mathrm{const}, \quad h_k = \mathrm{layer}_k(\mathrm{up}\,h_{k-1}, w_k, n_k), \; x = \mathrm{rgb}(h_K)$$

    Shapes: ws (N, layers, latent): repeat one w, or mix two; noise, a list of (N, 1, h_k, h_k), see noise_shapes.
    Returns x (N, channels, size, size), pullback(dx) -> grads, dws.
    Raises: ValueError when ws or the noise has another shape.
    Source: Karras et al. 2019, arXiv:1812.04948, fig. 1.
    """
    check(ws, noise, config)
    h = np.broadcast_to(params["constant"], (len(ws), *params["constant"].shape))
    steps = []
    for k in range(config.layers):
        before, grown = h, k > 0 and k % 2 == 0
        h, back = layer(params, f"layers.{k}", ops.upsample_nearest(h, 2) if grown else h, ws[:, k], noise[k], ops,
                        convolve=k > 0)
        steps.append((before, grown, back))
    x, rgb = conv(params, "rgb", h, ops)

    def pullback(dx):
        grads, dh = rgb(dx)
        dws = []
        for before, grown, back in reversed(steps):
            g, dh, dw = back(dh)
            dh = ops.upsample_nearest_vjp(dh, before, 2) if grown else dh
            grads, dws = grads | g, [dw, *dws]
        return grads | {"constant": np.sum(dh, axis=0)}, np.stack(dws, axis=1)

    return x, pullback


def check(ws, noise, config):
    """One style per layer and noise for each, or one sentence saying what was given.

    Shapes: ws (N, layers, latent), noise a list of (N, 1, h_k, h_k).
    Raises: ValueError otherwise.
    Source: see synthesis.
    """
    require(ws.shape[1:] == (config.layers, config.latent),
            f"StyleGAN: styles must be (N, {config.layers}, {config.latent}), got {ws.shape}")
    expected = [(len(ws), *shape) for shape in noise_shapes(config)]
    require([n.shape for n in noise] == expected, f"StyleGAN: noise of shapes {expected} expected, got "
            f"{[n.shape for n in noise]}")


def generator_init(key, config, dtype=np.float32):
    """Weights from N(0, 1); the mapping's are divided by their rate .01; noise strengths and biases 0, the constant 1.

    Shapes: returns params, a flat dict of arrays of the dtype.
    Source: Karras et al. 2019, arXiv:1812.04948, app. C.
    """
    c = config
    shapes, width = {}, c.widths[0]
    for k in range(c.layers):
        o = c.widths[k // 2]
        if k:
            shapes[f"layers.{k}.conv.weight"] = (o, width, 3, 3)
        shapes |= {f"layers.{k}.strength": (o,), f"layers.{k}.bias": (o,)}
        shapes |= linear_shapes(f"layers.{k}.style", c.latent, 2 * o)
        width = o
    params = gaussian(key, shapes | conv_shapes("rgb", width, c.channels, 1), 1.0, dtype)
    params["constant"] = np.ones((c.widths[0], c.base, c.base), dtype)
    return params | mapping_init(key, c, dtype)


def mapping_init(key, config, dtype=np.float32):
    """Weights from N(0, 100^2): `equalised` multiplies them by the mapping's rate, .01.

    Shapes: returns params, a flat dict of arrays of the dtype.
    Source: Karras et al. 2019, arXiv:1812.04948, app. C.
    """
    shapes = {}
    for i in range(config.depth):
        shapes |= linear_shapes(f"mapping.{i}", config.latent, config.latent)
    return gaussian(key, shapes, 100.0, dtype)
