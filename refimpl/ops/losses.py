"""Losses that are means over everything, each with its vjp."""
import numpy as np

from ._check import require, same_dtype
from .activation import logsumexp, softmax


def _check_same(name, x, y):
    same_dtype(name, x=x, y=y)
    require(x.shape == y.shape, f"{name}: x and y must have one shape, got {x.shape} and {y.shape}")
    require(x.size > 0, f"{name}: the mean of an empty array does not exist, got shape {x.shape}")


def mse(x, y):
    r"""Mean squared error.

    $$L = \frac1n \sum_i (x_i - y_i)^2$$

    Shapes: x, y of one shape with n entries; returns a scalar. Analytic.
    Raises: ValueError when the shapes differ or are empty, TypeError when the dtypes differ.
    Source: Bishop 2006, Pattern Recognition and Machine Learning, sec. 1.1.
    """
    _check_same("mse", x, y)
    return np.mean((x - y) ** 2)


def mse_vjp(dL, x, y):
    """dx = 2 dL (x - y) / n, dy = -dx."""
    _check_same("mse_vjp", x, y)
    dx = dL * (2 / x.size) * (x - y)
    return dx, -dx


def l1(x, y):
    r"""Mean absolute error.

    $$L = \frac1n \sum_i |x_i - y_i|$$

    Shapes: x, y of one shape with n entries; returns a scalar. Piecewise: the sign comes from the real part.
    Raises: ValueError when the shapes differ or are empty, TypeError when the dtypes differ.
    Source: Isola et al. 2017, arXiv:1611.07004, eq. 3.
    """
    _check_same("l1", x, y)
    return np.mean((x - y) * np.sign((x - y).real))


def l1_vjp(dL, x, y):
    """dx = dL sign(x - y) / n, dy = -dx; the derivative at 0 is 0."""
    _check_same("l1_vjp", x, y)
    dx = dL / x.size * np.sign((x - y).real)
    return dx, -dx


def _check_labels(name, logits, labels):
    same_dtype(name, logits=logits)
    require(logits.ndim == 2 and logits.size > 0,
            f"{name}: logits must be (N, K) and not empty, got shape {logits.shape}")
    labels = np.asarray(labels, like=logits)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"{name}: labels must be integers, got {labels.dtype}")
    n, k = logits.shape
    require(labels.shape == (n,), f"{name}: labels must be ({n},), one per row of logits, got shape {labels.shape}")
    require(bool(np.all((labels >= 0) & (labels < k))), f"{name}: labels must lie in 0..{k - 1}, the columns of logits")
    return labels


def cross_entropy(logits, labels):
    r"""Mean negative log-likelihood of the labels under softmax(logits).

    $$L = \frac1N \sum_n \Big(\log\sum_k e^{l_{nk}} - l_{n,\,\mathrm{label}_n}\Big)$$

    Shapes: logits (N, K); labels (N,) integers in 0..K-1; returns a scalar. Analytic in the logits.
    Raises: ValueError when a label leaves 0..K-1 or the shapes do not fit, TypeError when labels are no integers.
    Source: Bishop 2006, Pattern Recognition and Machine Learning, sec. 4.3.4.
    """
    labels = _check_labels("cross_entropy", logits, labels)
    return np.mean(logsumexp(logits) - np.take_along_axis(logits, labels[:, None], axis=1)[:, 0])


def cross_entropy_vjp(dL, logits, labels):
    """dlogits = dL (softmax(logits) - onehot(labels)) / N."""
    labels = _check_labels("cross_entropy_vjp", logits, labels)
    onehot = labels[:, None] == np.arange(logits.shape[1], like=logits)
    return dL / logits.shape[0] * (softmax(logits) - onehot)
