"""Resampling, pooling and joining: what they refuse, ties, NaN, dtype and emptiness."""
import numpy as np
import pytest

from refimpl import ops

X = np.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)


@pytest.mark.parametrize("call, sentence", [
    (lambda: ops.upsample_nearest(X[0], 2), "upsample_nearest: x must be (N, C, H, W), got shape (3, 4, 6)"),
    (lambda: ops.upsample_nearest(X, 0), "upsample_nearest: k must be a positive int, got 0"),
    (lambda: ops.upsample_nearest(X, 1.5), "upsample_nearest: k must be a positive int, got 1.5"),
    (lambda: ops.upsample_nearest_vjp(X, X, 2),
     "upsample_nearest_vjp: dy must have the output's shape (2, 3, 8, 12), got (2, 3, 4, 6)"),
    (lambda: ops.average_pool(X, 3), "average_pool: k = 3 must divide height and width, got shape (2, 3, 4, 6)"),
    (lambda: ops.average_pool_vjp(X, X, 2),
     "average_pool_vjp: dy must have the output's shape (2, 3, 2, 3), got (2, 3, 4, 6)"),
    (lambda: ops.max_pool(X[0], 2), "max_pool: x must be (N, C, H, W), got shape (3, 4, 6)"),
    (lambda: ops.max_pool(X, (0, 2)), "max_pool: k must be an int or a pair of ints, each at least 1, got (0, 2)"),
    (lambda: ops.max_pool(X, 2, stride=0),
     "max_pool: stride must be an int or a pair of ints, each at least 1, got 0"),
    (lambda: ops.max_pool(X, 3, padding=2),
     "max_pool: padding must be at most half of k, so that no window lies outside, got ((2, 2), (2, 2)) with k (3, 3)"),
    (lambda: ops.max_pool(X, 5), "max_pool: a window of (5, 5) with dilation (1, 1) does not fit an image of (4, 6) "
                                 "padded by ((0, 0), (0, 0))"),
    (lambda: ops.max_pool_vjp(X, X, 2),
     "max_pool_vjp: dy must have the output's shape (2, 3, 2, 3), got (2, 3, 4, 6)"),
    (lambda: ops.concatenate([]), "concatenate: at least one array expected, got none"),
    (lambda: ops.concatenate([X, X[:1]]),
     "concatenate: shapes must be equal except along axis 1, got (2, 3, 4, 6), (1, 3, 4, 6)"),
    (lambda: ops.concatenate([X, X[0]]),
     "concatenate: shapes must be equal except along axis 1, got (2, 3, 4, 6), (3, 4, 6)"),
    (lambda: ops.concatenate([X], axis=4), "concatenate: axis must lie in -4..3, got 4"),
    (lambda: ops.concatenate_vjp(X, [X, X]),
     "concatenate_vjp: dy must have the output's shape (2, 6, 4, 6), got (2, 3, 4, 6)"),
])
def test_refuses(call, sentence):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == sentence


@pytest.mark.parametrize("call", [
    lambda x: ops.upsample_nearest(x, 2), lambda x: ops.average_pool(x, 2), lambda x: ops.max_pool(x, 2),
    lambda x: ops.concatenate([x, x])])
def test_integers_are_refused(call):
    with pytest.raises(TypeError, match="inexact arrays expected"):
        call(X.astype(int))


def test_dtypes_are_not_mixed():
    with pytest.raises(TypeError, match=r"one dtype expected, got arrays\[0\] float64, arrays\[1\] float32"):
        ops.concatenate([X, X.astype(np.float32)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("n", [2, 0])
def test_dtype_and_empty_batches(n, dtype):
    x = X[:n].astype(dtype)
    for f, vjp, argument in ((ops.upsample_nearest, ops.upsample_nearest_vjp, 2),
                             (ops.average_pool, ops.average_pool_vjp, 2), (ops.max_pool, ops.max_pool_vjp, 2)):
        y = f(x, argument)
        dx = vjp(y, x, argument)
        assert y.dtype == dx.dtype == dtype and dx.shape == x.shape and y.shape[:2] == (n, 3)
    y = ops.concatenate([x, x[:, :1]])
    assert y.dtype == dtype and y.shape == (n, 4, 4, 6)
    assert [p.shape for p in ops.concatenate_vjp(y, [x, x[:, :1]])] == [(n, 3, 4, 6), (n, 1, 4, 6)]


def test_ties_go_to_the_first():
    dx = ops.max_pool_vjp(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 2, 2)), 2)
    np.testing.assert_array_equal(dx[0, 0], [[1, 0], [0, 0]])


def test_overlapping_windows_add_up():
    x = np.zeros((1, 1, 3, 3))
    x[0, 0, 1, 1] = 1
    dx = ops.max_pool_vjp(np.ones((1, 1, 2, 2)), x, 2, stride=1)
    np.testing.assert_array_equal(dx, 4 * x)


@pytest.mark.parametrize("where", [(0, 0), (1, 0), (1, 1)])
def test_not_a_number_is_never_dropped(where):
    x = np.ones((1, 1, 2, 2))
    x[0, 0][where] = np.nan
    assert np.isnan(ops.max_pool(x, 2)).all()


def test_the_border_never_wins():
    x = -np.ones((1, 1, 2, 2))
    np.testing.assert_array_equal(ops.max_pool(x, 2, padding=1), x)
    np.testing.assert_array_equal(ops.max_pool_vjp(x, x, 2, padding=1), x)
