"""Whether a call is one that a backend's own kernels take. What they do not take the reference computes or refuses, so
that every backend accepts the same input and raises the same errors. Only shapes, dtypes and host numbers are looked at.
"""
import operator

import numpy as np


def alike(arrays, dtypes):
    """Whether all arrays (None aside) share one dtype of those named."""
    found = {a.dtype.name for a in arrays if a is not None}
    return len(found) == 1 and found <= set(dtypes)


def group_norm(x, gamma, beta, groups, dy=None):
    """Groups divide the channels, and gamma, beta and dy have the shapes that x asks for."""
    return (x.ndim >= 2 and groups >= 1 and x.shape[1] % groups == 0 and (dy is None or dy.shape == x.shape)
            and all(p is None or p.shape == x.shape[1:2] for p in (gamma, beta)))


def batch_norm(x, gamma, beta, running_mean, running_var, train, dy=None):
    """As group_norm, with running statistics; in training more than one value a channel."""
    return (group_norm(x, gamma, beta, 1, dy) and running_mean.shape == running_var.shape == x.shape[1:2]
            and (not train or x.size > x.shape[1]))


def attention(q, k, v, mask=None, dy=None):
    """Four axes each, in agreement; a bool mask that broadcasts to (N, h, L, S)."""
    if not q.ndim == k.ndim == v.ndim == 4:
        return False
    logits = (*q.shape[:3], k.shape[2])
    return (q.shape[:2] == k.shape[:2] == v.shape[:2] and q.shape[3] == k.shape[3] and k.shape[2] == v.shape[2]
            and (dy is None or dy.shape == (*q.shape[:3], v.shape[3]))
            and (mask is None or (mask.dtype == np.bool_ and mask.ndim <= 4 and all(
                m in (1, n) for m, n in zip(mask.shape[::-1], logits[::-1])))))


def noise(z, x):
    """An array of x's shape and dtype, or a key, one index per sample and a draw, all in range."""
    if not isinstance(z, tuple):
        return z is not None and z.dtype == x.dtype and z.shape == x.shape
    try:
        key, index, draw = operator.index(z[0]), np.asarray(z[1]), operator.index(z[2])
    except (TypeError, IndexError):
        return False
    return (len(z) == 3 and 0 <= key < 2**64 and 0 <= draw < 2**32 and index.shape == x.shape[:1]
            and index.dtype.kind in "iu" and not np.any((index < 0) | (index >= 2**32)))


def number(value):
    """Python's own numbers first: asking NumPy for nine coefficients' axes takes as long as a small step."""
    return isinstance(value, (float, int)) or np.ndim(value) == 0


def coefficient(value, x):
    """One number, or one per sample."""
    return number(value) or np.shape(value) == x.shape[:1]


def q_sample(x0, signal, noise_level, z):
    """Whether the noising kernels take these arguments."""
    return x0.ndim > 0 and noise(z, x0) and coefficient(signal, x0) and coefficient(noise_level, x0)


def sampler_step(x, arrays, numbers, lo, hi, history, c_h, z, sigma):
    """arrays: all that have x's shape; numbers: all coefficients."""
    low, high = -np.inf if lo is None else lo, np.inf if hi is None else hi
    return (x.ndim > 0 and all(v.shape == x.shape for v in arrays) and len(history) == len(c_h)
            and all(number(v) for v in numbers) and coefficient(low, x) and coefficient(high, x)
            and not (low > high if isinstance(low, float) and isinstance(high, float) else np.any(np.greater(low, high)))
            and (sigma == 0 or noise(z, x)))
