"""How alike two images are: signal-to-noise ratio and structural similarity. Host code in float64."""
import numpy as np
from scipy.ndimage import correlate1d

from ..ops._check import require


def _pair(name, x, y):
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    require(x.shape == y.shape and x.size > 0, f"{name}: images of one shape expected, got {x.shape} and {y.shape}")
    require(np.isfinite(x).all() and np.isfinite(y).all(), f"{name}: finite images expected, got NaN or infinity")
    return x, y


def psnr(x, y, span):
    r"""Peak signal-to-noise ratio in decibels, over everything given; infinity for equal images.

    $$10\log_{10}\frac{L^2}{\frac1n\sum_i(x_i-y_i)^2}$$

    Shapes: x, y of one shape; span (L) of the values, 2 for images in [-1, 1]. Returns a float.
    Raises: ValueError when the shapes differ or span is not positive.
    Source: ITU-T J.247; Ledig et al. 2017, arXiv:1609.04802.
    """
    x, y = _pair("psnr", x, y)
    require(span > 0, f"psnr: span must be positive, got {span}")
    error = np.mean((x - y) ** 2)
    return float(10 * np.log10(span**2 / error)) if error else np.inf


def ssim(x, y, span, sigma=1.5, size=11):
    r"""Structural similarity: agreement of local means, contrasts and patterns, averaged over the image.

    $$\frac{(2\mu_x\mu_y+c_1)(2\sigma_{xy}+c_2)}{(\mu_x^2+\mu_y^2+c_1)(\sigma_x^2+\sigma_y^2+c_2)}, \qquad
      c_1 = (.01 L)^2,\; c_2 = (.03 L)^2$$

    Local moments are weighted by a Gaussian window of odd size, within the image only.

    Shapes: x, y (..., H, W) with H, W at least size; span (L) of the values. Returns a float, at most 1.
    Raises: ValueError when the shapes differ, or the window is even or larger than the image.
    Source: Wang, Bovik, Sheikh, Simoncelli 2004, IEEE TIP 13(4), eq. 13.
    """
    x, y = _pair("ssim", x, y)
    require(size % 2 == 1 and x.ndim >= 2 and min(x.shape[-2:]) >= size,
            f"ssim: an odd window no larger than the image expected, got {size} for images {x.shape}")
    window = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    window, edge = window / window.sum(), size // 2

    def local(a):
        for axis in (-2, -1):
            a = correlate1d(a, window, axis=axis)
        return a[..., edge:a.shape[-2] - edge, edge:a.shape[-1] - edge]

    mx, my = local(x), local(y)
    vx, vy, cov = local(x * x) - mx**2, local(y * y) - my**2, local(x * y) - mx * my
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    return float(np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))
