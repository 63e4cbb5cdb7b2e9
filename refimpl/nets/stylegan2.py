"""StyleGAN2: styles scale the convolutions' weights, demodulation replaces the norm, images add up over resolutions.

The mapping network is stylegan.py's. Run both networks on `reparametrise.equalised` weights. Resampling is
nearest-neighbour and 2x2 means, without the authors' low-pass filter.
"""
import numpy as np

from refimpl.ops._check import require

from .blocks import conv, linear
from .initial import conv_shapes, linear_shapes
from .layers import gaussian
from .progressive import head
from .stylegan import SLOPE, check, mapping_init

GAIN = 2**0.5  # restores the variance that leaky ReLU takes away


def styled_conv(params, name, x, style, noise, ops):
    r"""Modulated convolution, noise, bias and leaky ReLU.

    $$y = \sqrt2\,\mathrm{lrelu}(\mathrm{modconv}(x, W, 1 + A w) + \beta\,n + b)$$

    Shapes: x (N, I, H, W), style w (N, D), noise n (N, 1, H, W), y (N, O, H, W). pullback(dy) -> grads, dx, dstyle.
    Source: Karras et al. 2020, arXiv:1912.04958, fig. 2.
    """
    weight, strength, bias = (params[f"{name}.{part}"] for part in ("weight", "strength", "bias"))
    s, affine = linear(params, f"{name}.style", style, ops)
    s = 1 + s
    m = ops.modulated_conv2d(x, weight, s, padding=1) + strength * noise + bias[:, None, None]

    def pullback(dy):
        dm = ops.leaky_relu_vjp(GAIN * dy, m, SLOPE)
        dx, dweight, ds = ops.modulated_conv2d_vjp(dm, x, weight, s, padding=1)
        g, dstyle = affine(ds)
        own = {f"{name}.weight": dweight, f"{name}.strength": np.sum(dm * noise).reshape(1),
               f"{name}.bias": np.sum(dm, axis=(0, 2, 3))}
        return g | own, dx, dstyle

    return GAIN * ops.leaky_relu(m, SLOPE), pullback


def to_rgb(params, name, x, style, ops):
    r"""Image from features: a modulated 1x1 convolution, not demodulated.

    $$y = \mathrm{modconv}_{1}(x, W, 1 + A w) + b$$

    Shapes: x (N, I, H, W), style (N, D), y (N, channels, H, W). pullback(dy) -> grads, dx, dstyle.
    Source: Karras et al. 2020, arXiv:1912.04958, fig. 7.
    """
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    s, affine = linear(params, f"{name}.style", style, ops)
    s = 1 + s

    def pullback(dy):
        dx, dweight, ds = ops.modulated_conv2d_vjp(dy, x, weight, s, demodulate=False)
        g, dstyle = affine(ds)
        return g | {f"{name}.weight": dweight, f"{name}.bias": np.sum(dy, axis=(0, 2, 3))}, dx, dstyle

    return ops.modulated_conv2d(x, weight, s, demodulate=False) + bias[:, None, None], pullback


def synthesis(params, ws, noise, *, config, ops):
    r"""Image from one style per layer: at each size two styled convolutions, whose image is added to the upsampled one.

    $$x_k = \mathrm{up}(x_{k-1}) + \mathrm{rgb}_k(h_k, w_{2k+1}), \qquad x = x_K$$

    Shapes: ws (N, layers, latent), noise a list of (N, 1, h_k, h_k): as stylegan.py's. Returns x (N, channels, size,
    size), pullback(dx) -> grads, dws.
    Raises: ValueError when ws or the noise has another shape.
    Source: Karras et al. 2020, arXiv:1912.04958, fig. 7 (output skips).
    """
    check(ws, noise, config)
    h = np.broadcast_to(params["constant"], (len(ws), *params["constant"].shape))
    x, steps = None, []
    for k in range(len(config.widths)):
        before, old = h, x
        h, first = styled_conv(params, f"layers.{2 * k}", ops.upsample_nearest(h, 2) if k else h, ws[:, 2 * k],
                               noise[2 * k], ops)
        h, second = styled_conv(params, f"layers.{2 * k + 1}", h, ws[:, 2 * k + 1], noise[2 * k + 1], ops)
        x, rgb = to_rgb(params, f"rgb.{k}", h, ws[:, 2 * k + 1], ops)
        x = x + ops.upsample_nearest(old, 2) if k else x
        steps.append((before, old, first, second, rgb))

    def pullback(dx):
        grads, dws, dh = {}, [], 0.0
        for before, old, first, second, rgb in reversed(steps):
            g_rgb, dh_rgb, dw_rgb = rgb(dx)
            g2, dh, dw2 = second(dh + dh_rgb)
            g1, dh, dw1 = first(dh)
            grads, dws = grads | g_rgb | g2 | g1, [dw1, dw2 + dw_rgb, *dws]
            if old is not None:
                dh, dx = ops.upsample_nearest_vjp(dh, before, 2), ops.upsample_nearest_vjp(dx, old, 2)
        return grads | {"constant": np.sum(dh, axis=0)}, np.stack(dws, axis=1)

    return x, pullback


def discriminator(params, x, *, config, group, ops):
    r"""One logit per image: residual blocks, the deviation within the minibatch, two affine maps.

    $$h_{k-1} = \frac{\mathrm{pool}(\mathrm{lrelu}(W_2\,\mathrm{lrelu}(W_1 h_k))) + W_s\,\mathrm{pool}(h_k)}{\sqrt2}$$

    Shapes: x (N, channels, size, size), N a multiple of the group. Returns logits (N,), pullback(dlogits) -> grads, dx.
    Raises: ValueError when x has another shape or the group does not divide N.
    Source: Karras et al. 2020, arXiv:1912.04958, fig. 7 (residual discriminator).
    """
    size = config.base * 2 ** (len(config.widths) - 1)
    require(x.shape[1:] == (config.channels, size, size),
            f"StyleGAN2: x must be (N, {config.channels}, {size}, {size}), got {x.shape}")
    lrelu, lrelu_vjp = lambda m: ops.leaky_relu(m, SLOPE), lambda d, m: ops.leaky_relu_vjp(d, m, SLOPE)
    m_in, from_rgb = conv(params, "from_rgb", x, ops)
    h, steps = lrelu(m_in), []
    for k in range(len(config.widths) - 1, 0, -1):
        before = h
        m1, conv1 = conv(params, f"blocks.{k}.conv1", h, ops, padding=1)
        m2, conv2 = conv(params, f"blocks.{k}.conv2", lrelu(m1), ops, padding=1)
        s, shortcut = conv(params, f"blocks.{k}.shortcut", ops.average_pool(h, 2), ops)
        h = (ops.average_pool(lrelu(m2), 2) + s) * 0.5**0.5
        steps.append((before, m1, conv1, m2, conv2, shortcut))
    logits, end = head(params, h, group, ops)

    def pullback(dlogits):
        grads, dh = end(dlogits)
        for before, m1, conv1, m2, conv2, shortcut in reversed(steps):
            dh = dh * 0.5**0.5
            g_s, dpool = shortcut(dh)
            g2, dm = conv2(lrelu_vjp(ops.average_pool_vjp(dh, m2, 2), m2))
            g1, dh = conv1(lrelu_vjp(dm, m1))
            grads, dh = grads | g1 | g2 | g_s, dh + ops.average_pool_vjp(dpool, before, 2)
        g, dx = from_rgb(lrelu_vjp(dh, m_in))
        return grads | g, dx

    return logits, pullback


def generator_init(key, config, dtype=np.float32):
    """Weights and the constant from N(0, 1), noise strengths and biases 0; the mapping as stylegan.py's.

    Shapes: returns params, a flat dict of arrays of the dtype.
    Source: Karras et al. 2020, arXiv:1912.04958, app. B.
    """
    c = config
    shapes, width = {"constant": (c.widths[0], c.base, c.base)}, c.widths[0]
    for k in range(c.layers):
        o = c.widths[k // 2]
        shapes |= {f"layers.{k}.weight": (o, width, 3, 3), f"layers.{k}.strength": (1,), f"layers.{k}.bias": (o,)}
        shapes |= linear_shapes(f"layers.{k}.style", c.latent, width)
        width = o
    for k, o in enumerate(c.widths):
        shapes |= conv_shapes(f"rgb.{k}", o, c.channels, 1) | linear_shapes(f"rgb.{k}.style", c.latent, o)
    return gaussian(key, shapes, 1.0, dtype) | mapping_init(key, c, dtype)


def discriminator_init(key, config, dtype=np.float32):
    """Weights from N(0, 1), biases 0.

    Shapes: returns params, a flat dict of arrays of the dtype.
    Source: Karras et al. 2020, arXiv:1912.04958, app. B.
    """
    w = config.widths
    shapes = conv_shapes("from_rgb", config.channels, w[-1], 1) | conv_shapes("blocks.0.conv", w[0] + 1, w[0])
    shapes |= linear_shapes("dense", w[0] * config.base**2, w[0]) | linear_shapes("output", w[0], 1)
    for k in range(1, len(w)):
        shapes |= conv_shapes(f"blocks.{k}.conv1", w[k], w[k]) | conv_shapes(f"blocks.{k}.conv2", w[k], w[k - 1])
        shapes[f"blocks.{k}.shortcut.weight"] = (w[k - 1], w[k], 1, 1)
    return gaussian(key, shapes, 1.0, dtype)
