"""The affine map, with its vjp."""
import numpy as np

from ._check import require, same_dtype


def _check(name, x, w, b):
    same_dtype(name, x=x, w=w, b=b)
    require(w.ndim == 2, f"{name}: w must be (O, I), got shape {w.shape}")
    require(x.ndim >= 1 and x.shape[-1] == w.shape[1],
            f"{name}: x must be (..., I) with I = {w.shape[1]} as in w, got shape {x.shape}")
    require(b is None or b.shape == w.shape[:1],
            f"{name}: b must be None or (O,) with O = {w.shape[0]} as in w, got shape {np.shape(b)}")


def linear(x, w, b=None):
    r"""Affine map of the last axis.

    $$y_{\ldots o} = \sum_i w_{oi}\, x_{\ldots i} + b_o$$

    Shapes: x (..., I); w (O, I); b (O,) or None; returns (..., O). Analytic.
    Raises: ValueError when the shapes do not fit, TypeError when the dtypes differ.
    Source: Goodfellow, Bengio, Courville 2016, Deep Learning, sec. 6.1.
    """
    _check("linear", x, w, b)
    y = np.tensordot(x, w, axes=(-1, 1))  # one product for all leading axes; x @ w.T would make one per leading index
    return y if b is None else y + b


def linear_vjp(dy, x, w, b=None):
    """dx = dy w, dw = sum dy x^T, db = sum dy over the leading axes (None when b is None)."""
    _check("linear_vjp", x, w, b)
    same_dtype("linear_vjp", dy=dy, x=x)
    require(dy.shape == x.shape[:-1] + w.shape[:1],
            f"linear_vjp: dy must have the output's shape {x.shape[:-1] + w.shape[:1]}, got {dy.shape}")
    lead = tuple(range(x.ndim - 1))
    return (np.tensordot(dy, w, axes=(-1, 0)), np.tensordot(dy, x, axes=(lead, lead)),
            None if b is None else np.sum(dy, axis=lead))
