"""The check of data that a likelihood of grid values has as its support."""
import numpy as np

from ..ops._check import require


def on_grid(name, x0, bins):
    """Raise ValueError unless x0 holds values of the grid of `bins` values in [-1, 1], up to rounding."""
    require(bins >= 2, f"{name}: bins must be at least 2, got {bins}")
    x = x0.real
    if not bool(np.all(np.abs(x) <= 1 + 1e-6)):
        raise ValueError(f"{name}: x0 must lie in [-1, 1], and holds NaN or values up to "
                         f"{float(np.max(np.abs(x))):.3g} in magnitude")
    k = (x + 1) * ((bins - 1) / 2)
    off = np.abs(k - np.round(k))
    if not bool(np.all(off <= 1e-3)):
        raise ValueError(f"{name}: x0 must lie on the grid of {bins} values in [-1, 1], and is up to "
                         f"{float(np.max(off)):.2g} of a step off it")
