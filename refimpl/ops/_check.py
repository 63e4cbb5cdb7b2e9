"""What every operation asks of its inputs before it computes: one clear sentence instead of a broadcast or a NaN.

And the way from a batch's samples to their numbers and back: sample_sum, per_sample.
"""
import numpy as np


def require(condition, message):
    """Raise ValueError with one sentence unless the condition holds."""
    if not condition:
        raise ValueError(message)


def same_dtype(name, **arrays):
    """Arrays that meet in one operation have one inexact dtype: nothing is converted silently. None is skipped."""
    dtypes = {label: array.dtype for label, array in arrays.items() if array is not None}
    if len(set(dtypes.values())) > 1:
        raise TypeError(f"{name}: one dtype expected, got " + ", ".join(f"{k} {v}" for k, v in dtypes.items()))
    if not all(np.issubdtype(d, np.inexact) for d in dtypes.values()):
        raise TypeError(f"{name}: inexact arrays expected, got " + ", ".join(f"{k} {v}" for k, v in dtypes.items()))


def alike(name, **arrays):
    """Arrays of one dtype and one shape (N, ...): nothing is broadcast silently."""
    same_dtype(name, **arrays)
    shapes = {label: array.shape for label, array in arrays.items()}
    require(len(set(shapes.values())) == 1 and all(shapes.values()),
            f"{name}: one shape (N, ...) expected, got " + ", ".join(f"{k} {v}" for k, v in shapes.items()))


def same_dtype_as(name, x, **arrays):
    """Arrays that no gradient passes have x's dtype, or its real part's (x on the complex step). None is skipped."""
    for label, array in arrays.items():
        if array is not None and array.dtype not in (x.dtype, x.real.dtype):
            raise TypeError(f"{name}: {label} in x's dtype {x.dtype} expected, got {array.dtype}")


def same_shape_as(name, x, **arrays):
    """Arrays of x's shape and, as above, dtype: nothing is broadcast silently. None is skipped."""
    same_dtype_as(name, x, **arrays)
    for label, array in arrays.items():
        if array is not None:
            require(array.shape == x.shape, f"{name}: {label} in x's shape {x.shape} expected, got {array.shape}")


def per_sample(values, x):
    """Bring coefficients, one number or (N,), to the data: x's dtype and device, shape (N, 1, ...) or ()."""
    values = np.asarray(values, dtype=x.dtype, like=x)
    require(values.ndim == 0 or values.shape == x.shape[:1],
            f"coefficients must be one number or one per sample, got shape {values.shape} for data {x.shape}")
    return values.reshape(values.shape + (1,) * (x.ndim - 1)) if values.ndim else values


def sample_sum(terms):
    """Each sample's sum: (N,) of (N, ...)."""
    return np.sum(terms, axis=tuple(range(1, terms.ndim)))


def exponent(name, **arrays):
    """Log-variances and log-scales whose exponential exists in their dtype: an overflow would be a NaN one step on."""
    for label, array in arrays.items():
        limit = np.log(np.finfo(array.real.dtype).max)
        if np.any(~(np.abs(array.real) < limit)):
            raise ValueError(f"{name}: exp({label}) must exist in {array.real.dtype}: values between -{limit:.0f} and "
                             f"{limit:.0f} expected, got one of magnitude {float(np.max(np.abs(array.real))):.4g}")
