"""Losses: what they refuse, dtype, and values by hand."""
import numpy as np
import pytest

from refimpl import ops

X, LOGITS, LABELS = np.ones((2, 3)), np.zeros((2, 3)), np.array([0, 2])


@pytest.mark.parametrize("name", ["mse", "l1"])
def test_means_refuse(name):
    for f in (getattr(ops, name), lambda x, y: getattr(ops, name + "_vjp")(1.0, x, y)):
        with pytest.raises(ValueError, match=r"x and y must have one shape, got \(2, 3\) and \(3,\)"):
            f(X, X[0])
        with pytest.raises(ValueError, match=r"the mean of an empty array does not exist, got shape \(0, 3\)"):
            f(X[:0], X[:0])
        with pytest.raises(TypeError, match="one dtype expected, got x float64, y float32"):
            f(X, X.astype(np.float32))


@pytest.mark.parametrize("logits, labels, error, sentence", [
    (LOGITS[0], LABELS, ValueError, r"logits must be \(N, K\) and not empty, got shape \(3,\)"),
    (LOGITS[:0], LABELS[:0], ValueError, r"logits must be \(N, K\) and not empty, got shape \(0, 3\)"),
    (LOGITS, LABELS[:1], ValueError, r"labels must be \(2,\), one per row of logits, got shape \(1,\)"),
    (LOGITS, LABELS + 1, ValueError, r"labels must lie in 0..2, the columns of logits"),
    (LOGITS, LABELS - 1, ValueError, r"labels must lie in 0..2, the columns of logits"),
    (LOGITS, LABELS * 1.0, TypeError, "labels must be integers, got float64"),
    (LOGITS.astype(int), LABELS, TypeError, "inexact arrays expected"),
])
def test_cross_entropy_refuses(logits, labels, error, sentence):
    for f in (ops.cross_entropy, lambda *a: ops.cross_entropy_vjp(1.0, *a)):
        with pytest.raises(error, match=sentence):
            f(logits, labels)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype(dtype):
    x = X.astype(dtype)
    for f, vjp, arguments in ((ops.mse, ops.mse_vjp, (x, 3 * x)), (ops.l1, ops.l1_vjp, (x, 3 * x)),
                              (ops.cross_entropy, ops.cross_entropy_vjp, (x, LABELS))):
        assert f(*arguments).dtype == dtype and np.shape(f(*arguments)) == ()
        dx = vjp(1.0, *arguments)
        assert (dx if isinstance(dx, np.ndarray) else dx[0]).dtype == dtype


def test_values_by_hand():
    assert ops.mse(X, 3 * X) == 4 and ops.l1(X, 3 * X) == 2
    np.testing.assert_array_equal(ops.l1_vjp(1.0, X, X)[0], 0)
    assert abs(ops.cross_entropy(LOGITS, LABELS) - np.log(3)) < 1e-15
    huge = np.array([[1e4, 0.0, 0.0], [0.0, 0.0, -1e4]])
    assert ops.cross_entropy(huge, LABELS) == (1e4 + np.log(2)) / 2
