"""One step of a diffusion process, there and back: noising, and the update that every sampler shares."""
import math

import numpy as np

from ._check import per_sample, require, same_dtype, same_dtype_as, same_shape_as, sample_sum
from .random import normal


def _noise(name, z, x):
    """z as given, or formed from (key, index, draw) in x's shape, dtype and device."""
    if isinstance(z, tuple):
        key, index, draw = z
        require(len(index) == x.shape[0], f"{name}: one index per sample ({x.shape[0]}) expected, got {len(index)}")
        return normal(key, index, draw, x.shape[1:], dtype=x.dtype, like=x)
    same_shape_as(name, x, z=z)
    return z


def q_sample(x0, signal, noise, z):
    r"""Noise data to a level: a sample of q(x_t | x_0).

    $$x_t = \mathrm{signal}\; x_0 + \mathrm{noise}\; z$$

    Shapes: x0 (N, ...); signal, noise one number or (N,), host; z an array of x0's shape or (key, index, draw), which
    stands for normal(key, index, draw). Returns x0's shape. Analytic.
    Raises: ValueError when a shape does not fit x0; TypeError when dtypes differ.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 4; in levels: Karras et al. 2022, arXiv:2206.00364.
    """
    same_dtype("q_sample", x0=x0)
    return per_sample(signal, x0) * x0 + per_sample(noise, x0) * _noise("q_sample", z, x0)


def q_sample_vjp(dy, x0, signal, noise, z):
    """dx0 = signal dy; dz = noise dy, or None when z is (key, index, draw)."""
    same_shape_as("q_sample_vjp", x0, dy=dy)
    return per_sample(signal, x0) * dy, None if isinstance(z, tuple) else per_sample(noise, x0) * dy


def noise_mse(e, z):
    r"""Each sample's mean squared error of a predicted noise: the simplified loss is the mean of these over the batch.

    $$L_n = \frac1m \sum_{i=1}^m (e_{ni} - z_{ni})^2$$

    Shapes: e (N, ...), m elements a sample; z an array of e's shape or (key, index, draw), which stands for
    normal(key, index, draw). Returns (N,). Analytic.
    Raises: ValueError when a shape does not fit e or a sample is empty; TypeError when dtypes differ.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 14.
    """
    r, size = _residual("noise_mse", e, z)
    return sample_sum(r * r) / size


def noise_mse_vjp(dy, e, z):
    """de = 2 dy_n (e - z) / m; dz = -de, or None when z is (key, index, draw)."""
    r, size = _residual("noise_mse_vjp", e, z)
    same_dtype_as("noise_mse_vjp", e, dy=dy)
    require(dy.shape == e.shape[:1], f"noise_mse_vjp: dy {e.shape[:1]} expected, got {dy.shape}")
    de = per_sample(dy, e) * (2 / size) * r
    return de, None if isinstance(z, tuple) else -de


def _residual(name, e, z):
    """e - z, and the number of elements of a sample."""
    same_dtype(name, e=e)
    size = math.prod(e.shape[1:])
    require(e.ndim > 0 and size > 0, f"{name}: the mean of an empty sample does not exist, got shape {e.shape}")
    return e - _noise(name, z, e), size


def _numbers(**values):
    """Coefficients as Python floats: those do not widen float32 data, NumPy's float64 scalars would."""
    try:
        return [float(v) for v in values.values()]
    except TypeError:
        raise TypeError(f"sampler_step: {', '.join(values)} must be numbers, got {values}") from None


def _estimate(x, e_c, e_u, w, a, b, lo, hi):
    """e after guidance, the estimate x0_hat, and the mask of where it is not clipped."""
    same_dtype("sampler_step", x=x)
    same_shape_as("sampler_step", x, e_c=e_c, e_u=e_u)
    w, a, b = _numbers(w=w, a=a, b=b)
    e = e_c if e_u is None else e_u + w * (e_c - e_u)
    x0 = a * x + b * e
    low, high = (per_sample(v, x) for v in (-np.inf if lo is None else lo, np.inf if hi is None else hi))
    require(not np.any(low.real > high.real), f"sampler_step: lo must not exceed hi, got {lo} and {hi}")
    below, above = x0.real < low.real, x0.real > high.real  # both False for NaN: a clip passes it through
    return e, np.where(below, low, np.where(above, high, x0)), ~(below | above)


def sampler_step(x, e_c, e_u=None, w=1.0, *, a, b, lo=None, hi=None, c_x=0.0, c_0=0.0, c_e=0.0, history=(), c_h=(),
                 z=None, sigma=0.0):
    r"""One step of any sampler, which supplies the coefficients: guidance, estimate of x_0, clip, linear combination.

    $$e = e_u + w\,(e_c - e_u), \qquad \hat x_0 = \mathrm{clip}(a x + b e,\ lo,\ hi), \qquad
      x_s = c_x x + c_0 \hat x_0 + c_e e + \sum_j c_{h,j} h_j + \sigma z$$

    Shapes: x, e_c, e_u, each history[j] (N, ...); lo, hi one number or (N,) or None; z an array of x's shape or
    (key, index, draw), formed only where sigma is not 0; all coefficients numbers. Without e_u, e = e_c.
    Returns x_s, x0_hat, both of x's shape. Analytic where nothing is clipped. A clip passes NaN through.
    Raises: ValueError when a shape or a number of terms does not fit, or sigma has no z; TypeError when dtypes differ.
    Source: Ho et al. 2020, arXiv:2006.11239, alg. 2; Song et al. 2020, arXiv:2010.02502, eq. 12; guidance: Ho and
    Salimans 2022, arXiv:2207.12598; history: Lu et al. 2022, arXiv:2211.01095.
    """
    e, x0, _ = _estimate(x, e_c, e_u, w, a, b, lo, hi)
    c_x, c_0, c_e, sigma = _numbers(c_x=c_x, c_0=c_0, c_e=c_e, sigma=sigma)
    require(len(history) == len(c_h), f"sampler_step: {len(history)} history terms but {len(c_h)} coefficients c_h")
    require(sigma == 0 or z is not None, f"sampler_step: sigma {sigma} needs noise z, got None")
    x_s = c_x * x + c_0 * x0 + c_e * e
    for h, c in zip(history, c_h):
        same_shape_as("sampler_step", x, history=h)
        x_s = x_s + float(c) * h
    return (x_s if sigma == 0 else x_s + sigma * _noise("sampler_step", z, x)), x0


def sampler_step_vjp(dy, x, e_c, e_u=None, w=1.0, *, a, b, lo=None, hi=None, c_x=0.0, c_0=0.0, c_e=0.0, history=(),
                     c_h=(), z=None, sigma=0.0):
    """g = dx0_hat + c_0 dx_s where not clipped, else 0; dx = c_x dx_s + a g; de = c_e dx_s + b g.

    dy = (dx_s, dx0_hat). Returns dx, de_c = w de, de_u = (1 - w) de; without e_u de and None. On the clip's edge
    g passes. The history, the noise and the coefficients get no gradient.
    """
    dx_s, dx0 = dy
    same_shape_as("sampler_step_vjp", x, dx_s=dx_s, dx0=dx0)
    _, _, inside = _estimate(x, e_c, e_u, w, a, b, lo, hi)
    w, a, b, c_x, c_0, c_e = _numbers(w=w, a=a, b=b, c_x=c_x, c_0=c_0, c_e=c_e)
    g = np.where(inside, dx0 + c_0 * dx_s, 0)
    dx, de = c_x * dx_s + a * g, c_e * dx_s + b * g
    return (dx, de, None) if e_u is None else (dx, w * de, (1 - w) * de)
