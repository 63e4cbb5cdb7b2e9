"""Convolution and its adjoint: what they refuse, and what they keep of dtype, memory order and emptiness."""
import numpy as np
import pytest

from refimpl import ops

X, W, B = np.ones((2, 4, 5, 6)), np.ones((6, 4, 3, 3)), np.ones(6)
WT = np.ones((4, 6, 3, 3))

BAD = [
    (dict(x=X[0]), "x must be (N, C, H, W), got shape (4, 5, 6)"),
    (dict(w=W[0]), "w must be (O, I/g, R, S) and not empty, got shape (4, 3, 3)"),
    (dict(w=W[:, :, :0]), "w must be (O, I/g, R, S) and not empty, got shape (6, 4, 0, 3)"),
    (dict(w=W[:, :3]), "x must have 3 channels for w (6, 3, 3, 3) and groups 1, got 4"),
    (dict(groups=2), "x must have 8 channels for w (6, 4, 3, 3) and groups 2, got 4"),
    (dict(groups=4, w=W[:, :1]), "groups 4 must divide the first axis of w, got shape (6, 1, 3, 3)"),
    (dict(groups=0), "groups must be a positive int, got 0"),
    (dict(groups=1.0), "groups must be a positive int, got 1.0"),
    (dict(b=B[:5]), "b must be None or (6,), one per output channel, got shape (5,)"),
    (dict(stride=0), "stride must be an int or a pair of ints, each at least 1, got 0"),
    (dict(stride=(1, 2, 3)), "stride must be an int or a pair of ints, each at least 1, got (1, 2, 3)"),
    (dict(dilation=1.5), "dilation must be an int or a pair of ints, each at least 1, got 1.5"),
    (dict(padding=-1), "padding must be an int or a pair of ints, each at least 0, got -1"),
    (dict(padding=((0, 0), (0, -2))), "padding must be an int or a pair of ints, each at least 0, got (0, -2)"),
    (dict(padding=True), "padding must be an int or a pair of ints, each at least 0, got True"),
]


@pytest.mark.parametrize("name", ["conv2d", "conv2d_sum", "conv2d_vjp"])
@pytest.mark.parametrize("change, sentence", [
    *BAD, (dict(dilation=3), "a window of (3, 3) with dilation (3, 3) does not fit an image of (5, 6) padded by "
                             "((0, 0), (0, 0))")])
def test_conv2d_refuses(name, change, sentence):
    arguments = dict(x=X, w=W, b=B) | change | (dict(dy=np.ones((2, 6, 3, 4))) if name.endswith("vjp") else {})
    with pytest.raises(ValueError) as error:
        getattr(ops, name)(**arguments)
    assert str(error.value) == f"{name}: {sentence}"


@pytest.mark.parametrize("name", ["conv_transpose2d", "conv_transpose2d_vjp"])
@pytest.mark.parametrize("change, sentence", [
    (dict(w=WT[0]), "w must be (I, O/g, R, S) and not empty, got shape (6, 3, 3)"),
    (dict(w=WT[:3]), "x must have 3 channels for w (3, 6, 3, 3) and groups 1, got 4"),
    (dict(groups=2), "b must be None or (12,), one per output channel, got shape (6,)"),
    (dict(groups=3), "groups 3 must divide the first axis of w, got shape (4, 6, 3, 3)"),
    (dict(stride=2, output_padding=2),
     "output_padding must be smaller than stride or dilation, got 2 with stride (2, 2) and dilation (1, 1)"),
    (dict(output_padding=-1), "output_padding must be an int or a pair of ints, each at least 0, got -1"),
    (dict(padding=4), "the output would be (-1, 0) for an image of (5, 6); both must be at least 1 by 1"),
    (dict(x=X[:, :, :0], padding=0), "the output would be (2, 8) for an image of (0, 6); both must be at least 1 by 1"),
])
def test_conv_transpose2d_refuses(name, change, sentence):
    arguments = dict(x=X, w=WT, b=B) | change | (dict(dy=np.ones((2, 6, 7, 8))) if name.endswith("vjp") else {})
    with pytest.raises(ValueError) as error:
        getattr(ops, name)(**arguments)
    assert str(error.value) == f"{name}: {sentence}"


@pytest.mark.parametrize("vjp, w, shape", [(ops.conv2d_vjp, W, (2, 6, 3, 4)),
                                           (ops.conv_transpose2d_vjp, WT, (2, 6, 7, 8))])
def test_cotangent_must_fit(vjp, w, shape):
    with pytest.raises(ValueError, match="dy must have the output's shape"):
        vjp(np.ones((*shape[:3], 1)), X, w)
    with pytest.raises(TypeError, match="one dtype expected, got dy float32, x float64"):
        vjp(np.ones(shape, np.float32), X, w)


def test_dtypes_are_not_mixed():
    with pytest.raises(TypeError, match="conv2d: one dtype expected, got x float64, w float32, b float64"):
        ops.conv2d(X, W.astype(np.float32), B)
    with pytest.raises(TypeError, match="conv_transpose2d: inexact arrays expected, got x int64, w int64"):
        ops.conv_transpose2d(X.astype(int), WT.astype(int))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("n", [2, 0])
@pytest.mark.parametrize("name, w", [("conv2d", W), ("conv_transpose2d", WT)])
def test_dtype_order_and_empty_batches(name, w, n, dtype):
    x, w, b = (a.astype(dtype) for a in (X[:n], w, B))
    y = getattr(ops, name)(x, w, b, padding=1)
    assert y.dtype == dtype and y.shape == (n, 6, 5, 6)
    assert n == 0 or y.strides[1] == y.itemsize, "channels must be last in memory"
    cotangents = getattr(ops, name + "_vjp")(y, x, w, b, padding=1)
    assert [c.dtype for c in cotangents] == [dtype] * 3
    assert [c.shape for c in cotangents] == [x.shape, w.shape, b.shape]
    assert n or not any(np.any(c) for c in cotangents)


@pytest.mark.parametrize("name, w", [("conv2d", W), ("conv_transpose2d", WT)])
def test_no_bias(name, w):
    y = getattr(ops, name)(X, w)
    np.testing.assert_array_equal(y + 1, getattr(ops, name)(X, w, B))
    assert getattr(ops, name + "_vjp")(y, X, w)[2] is None


def test_memory_order_of_the_input_does_not_matter(rng):
    x, w = rng.integers(-4, 5, X.shape).astype(float), rng.integers(-4, 5, W.shape).astype(float)
    y = ops.conv2d_sum(x, w, padding=1, stride=2)
    for other in (np.asfortranarray(x), np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1), x[::-1][::-1]):
        other.flags.writeable = False
        np.testing.assert_array_equal(ops.conv2d(other, w, padding=1, stride=2), y)


def test_asymmetric_padding_shifts_the_window():
    """Diffusers' down-sampling pads only the bottom and the right."""
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    corner = np.zeros((1, 1, 3, 3))
    corner[0, 0, 0, 0] = 1
    np.testing.assert_array_equal(ops.conv2d(x, corner, stride=2, padding=((0, 1), (0, 1))), x[:, :, ::2, ::2])
    np.testing.assert_array_equal(ops.conv2d(x, corner, stride=2, padding=((1, 0), (1, 0)))[0, 0],
                                  [[0, 0], [0, x[0, 0, 1, 1]]])
