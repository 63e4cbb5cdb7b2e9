"""Inputs for the gradients of the style operations, and what is known of their values."""
import numpy as np

from refimpl import ops

from . import fact
from .gradients import pair


def _images(d):
    return d.array(d.integer(1, 3), d.integer(1, 3), d.integer(2, 3), d.integer(1, 3))


@pair(ops.pixel_norm, ops.pixel_norm_vjp, "x")
def _pixel_norm(d):
    c = d.integer(2, 4)  # of one channel only the sign is left, and the gradient is 0 up to rounding
    return {"x": d.choice([d.array(2, c, 2, 3), d.array(2, c)]), "stabiliser": d.choice([1e-8, 0.1])}


@pair(ops.adain, ops.adain_vjp, "x", "scale", "bias")
def _adain(d):
    x = _images(d)
    return {"x": x, "scale": d.array(*x.shape[:2]), "bias": d.array(*x.shape[:2]), "stabiliser": d.choice([0.01, 0.1])}


@pair(ops.modulated_conv2d, ops.modulated_conv2d_vjp, "x", "w", "style")
def _modulated_conv2d(d):
    x = _images(d)
    return {"x": x, "w": d.array(d.integer(1, 3), x.shape[1], d.integer(1, 3), d.integer(1, 3)),
            "style": d.array(*x.shape[:2]), "padding": 1, "demodulate": d.choice([True, False])}


@pair(ops.prelu, ops.prelu_vjp, "x", "slope")
def _prelu(d):
    x = d.choice([_images(d), d.array(3, 2)])
    return {"x": x, "slope": d.array(d.choice([1, x.shape[1]])) / 2}


@pair(ops.pixel_shuffle, ops.pixel_shuffle_vjp, "x")
def _pixel_shuffle(d):
    k = d.integer(1, 3)
    return {"x": d.array(d.integer(0, 2), k * k * d.integer(1, 2), d.integer(1, 3), 2), "k": k}


@fact("C2", ops.pixel_norm, tolerance=1e-12)
def pixels_have_mean_square_one(d):
    """Without stabiliser the mean square over channels is 1, and the scale of a pixel does not matter."""
    x, scale = _images(d), d.real(0.5, 100)
    y = ops.pixel_norm(x, 0.0)
    return max(np.max(abs(np.mean(y * y, axis=1) - 1)), np.max(abs(ops.pixel_norm(scale * x, 0.0) - y)))


@fact("C5", ops.adain, tolerance=1e-10)
def output_has_the_statistics_of_the_style(d):
    """With stabiliser 0 mean and deviation are the style; otherwise the deviation has the factor sqrt(v/(v+e))."""
    x = d.array(2, 3, 3, 4)
    scale, bias, stabiliser = d.array(2, 3), d.array(2, 3), d.choice([0.0, 0.3])
    y, v = ops.adain(x, scale, bias, stabiliser), np.var(x, axis=(2, 3))
    return max(np.max(abs(np.mean(y, axis=(2, 3)) - bias)),
               np.max(abs(np.std(y, axis=(2, 3)) - abs(scale) * np.sqrt(v / (v + stabiliser)))))


@fact("F-F5", ops.modulated_conv2d, tolerance=1e-12)
def demodulation_in_weight_form(d):
    """Scaling inputs and outputs is a convolution with each sample's own weights, of norm 1 with stabiliser 0."""
    x, w, style = d.array(2, 3, 4, 4), d.array(2, 3, 3, 3), d.array(2, 3)
    stabiliser = d.choice([0.0, 0.5])
    own = style[:, None, :, None, None] * w
    norms = np.sqrt(np.sum(own**2, axis=(2, 3, 4), keepdims=True) + stabiliser)
    own = own / norms
    expected = np.concatenate([ops.conv2d_sum(x[n:n + 1], own[n], padding=1) for n in range(2)])
    unit = np.max(abs(np.sum(own**2, axis=(2, 3, 4)) - 1)) if stabiliser == 0 else 0.0
    return max(np.max(abs(ops.modulated_conv2d(x, w, style, 1, stabiliser=stabiliser) - expected)), unit)


@fact("F-F8", ops.pixel_shuffle, ops.pixel_shuffle_vjp, tolerance=0)
def pixel_shuffle_is_orthogonal(d):
    """It permutes, so its vjp is its inverse; channel c k^2 + r k + s lands on pixel (k i + r, k j + s)."""
    k, h, w = d.integer(1, 3), d.integer(1, 3), 2
    x = d.array(2, 2 * k * k, h, w)
    y = ops.pixel_shuffle(x, k)
    c, r, s, i, j = (d.integer(0, n - 1) for n in (2, k, k, h, w))
    return max(np.max(abs(ops.pixel_shuffle_vjp(y, x, k) - x)),
               np.max(abs(y[:, c, k * i + r, k * j + s] - x[:, c * k * k + r * k + s, i, j])))
