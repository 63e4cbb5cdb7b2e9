"""What style-based generators add to convolutions: normalised pixels, styled statistics, styled weights."""
import numpy as np

from ._check import require, same_dtype, same_shape_as
from .conv import conv2d, conv2d_vjp
from .norm import instance_norm, instance_norm_vjp


def pixel_norm(x, stabiliser=1e-8):
    r"""Divide every pixel's vector of channels by its root mean square.

    $$y_{c} = \frac{x_{c}}{\sqrt{\frac1C\sum_j x_j^2 + \epsilon}}$$

    Shapes: x (N, C, ...); returns x's shape. Analytic.
    Raises: ValueError when x has fewer than two axes.
    Source: Karras et al. 2018, arXiv:1710.10196, sec. 4.2.
    """
    require(x.ndim >= 2, f"pixel_norm: x (N, C, ...) expected, got shape {x.shape}")
    return x / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + stabiliser)


def pixel_norm_vjp(dy, x, stabiliser=1e-8):
    """dx = (dy - y mean(dy y))/r, with r the root mean square and y = x/r."""
    same_shape_as("pixel_norm_vjp", x, dy=dy)
    r = np.sqrt(np.mean(x * x, axis=1, keepdims=True) + stabiliser)
    y = x / r
    return (dy - y * np.mean(dy * y, axis=1, keepdims=True)) / r


def _styles(name, x, **styles):
    same_dtype(name, x=x, **styles)
    for label, s in styles.items():
        require(s.shape == x.shape[:2], f"{name}: {label} must be (N, C) = {x.shape[:2]} as in x, got {s.shape}")


def adain(x, scale, bias, stabiliser=1e-5):
    r"""Adaptive instance normalisation: every channel of a sample takes the deviation and mean that its style gives.

    $$y_{nc} = s_{nc}\,\frac{x_{nc}-\mu_{nc}}{\sqrt{v_{nc}+\epsilon}} + b_{nc}$$

    Shapes: x (N, C, H, W); scale, bias (N, C). Returns x's shape. Analytic. With stabiliser 0 the output's mean and
    deviation are the style exactly; otherwise its deviation is s sqrt(v/(v + stabiliser)).
    Raises: ValueError when shapes do not fit; TypeError when dtypes differ.
    Source: Huang and Belongie 2017, arXiv:1703.06868, eq. 8; Karras et al. 2019, arXiv:1812.04948, eq. 1.
    """
    _styles("adain", x, scale=scale, bias=bias)
    return instance_norm(x, stabiliser=stabiliser) * scale[:, :, None, None] + bias[:, :, None, None]


def adain_vjp(dy, x, scale, bias, stabiliser=1e-5):
    """dx is instance norm's for scale dy; dscale = sum over space of dy x_hat; dbias = sum over space of dy."""
    _styles("adain_vjp", x, scale=scale, bias=bias)
    dx, _, _ = instance_norm_vjp(dy * scale[:, :, None, None], x, stabiliser=stabiliser)
    return dx, np.sum(dy * instance_norm(x, stabiliser=stabiliser), axis=(2, 3)), np.sum(dy, axis=(2, 3))


def _energies(w):
    """Sum of squares over the taps of each filter and channel: (O, I)."""
    return np.sum(w * w, axis=(2, 3))


def modulated_conv2d(x, w, style, padding=0, demodulate=True, stabiliser=1e-8):
    r"""Convolution whose input channels are scaled by a style, its outputs scaled back to unit variance.

    $$w'_{noirs} = s_{ni}\,w_{oirs}, \qquad w''_{no} = \frac{w'_{no}}{\sqrt{\sum_{irs} w_{noirs}'^2 + \epsilon}}, \qquad
      y_n = \mathrm{conv}(x_n, w''_n)$$

    A sample never needs weights of its own: scaling the input channels by s and the output channels by the demodulation
    is the same map.

    Shapes: x (N, I, H, W); w (O, I, R, S); style (N, I). Returns (N, O, Ho, Wo). Analytic.
    Raises: ValueError when shapes do not fit; TypeError when dtypes differ.
    Source: Karras et al. 2020, arXiv:1912.04958, eq. 1-3.
    """
    _styles("modulated_conv2d", x, style=style)
    y = conv2d(x * style[:, :, None, None], w, padding=padding)
    return y * _demodulation(w, style, stabiliser)[:, :, None, None] if demodulate else y


def _demodulation(w, style, stabiliser):
    return (np.tensordot(style * style, _energies(w), axes=(1, 1)) + stabiliser) ** -0.5  # (N, O)


def modulated_conv2d_vjp(dy, x, w, style, padding=0, demodulate=True, stabiliser=1e-8):
    """y = d conv(s x, w), d = q^(-1/2), q = s^2 |w|^2: conv's own at d dy; dq = -d^3/2 <dy, conv> goes to s and w."""
    _styles("modulated_conv2d_vjp", x, style=style)
    scaled = x * style[:, :, None, None]
    if not demodulate:
        dscaled, dw, _ = conv2d_vjp(dy, scaled, w, padding=padding)
        return dscaled * style[:, :, None, None], dw, np.sum(dscaled * x, axis=(2, 3))
    y, d = conv2d(scaled, w, padding=padding), _demodulation(w, style, stabiliser)
    same_shape_as("modulated_conv2d_vjp", y, dy=dy)
    dscaled, dw, _ = conv2d_vjp(dy * d[:, :, None, None], scaled, w, padding=padding)
    dq = -(d**3) / 2 * np.sum(dy * y, axis=(2, 3))  # (N, O)
    return (dscaled * style[:, :, None, None],
            dw + 2 * w * np.tensordot(dq, style * style, axes=(0, 0))[:, :, None, None],
            np.sum(dscaled * x, axis=(2, 3)) + 2 * style * np.tensordot(dq, _energies(w), axes=(1, 0)))
