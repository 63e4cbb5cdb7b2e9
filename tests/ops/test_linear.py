"""The affine map: what it refuses, and what it keeps of dtype and emptiness."""
import numpy as np
import pytest

from refimpl import ops

X, W, B = np.ones((2, 3, 4)), np.ones((5, 4)), np.ones(5)


@pytest.mark.parametrize("change, sentence", [
    (dict(w=W[0]), "w must be (O, I), got shape (4,)"),
    (dict(x=X[..., :3]), "x must be (..., I) with I = 4 as in w, got shape (2, 3, 3)"),
    (dict(x=X[0, 0, 0]), "x must be (..., I) with I = 4 as in w, got shape ()"),
    (dict(b=B[:4]), "b must be None or (O,) with O = 5 as in w, got shape (4,)"),
])
@pytest.mark.parametrize("name", ["linear", "linear_vjp"])
def test_linear_refuses(name, change, sentence):
    arguments = dict(x=X, w=W, b=B) | change | (dict(dy=np.ones((2, 3, 5))) if name.endswith("vjp") else {})
    with pytest.raises(ValueError) as error:
        getattr(ops, name)(**arguments)
    assert str(error.value) == f"{name}: {sentence}"


def test_cotangent_must_fit():
    with pytest.raises(ValueError, match=r"dy must have the output's shape \(2, 3, 5\), got \(2, 5\)"):
        ops.linear_vjp(np.ones((2, 5)), X, W)
    with pytest.raises(TypeError, match="one dtype expected"):
        ops.linear(X, W.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("lead", [(), (0,), (2, 3), (2, 0)])
def test_dtype_and_empty_axes(lead, dtype):
    x, w, b = np.ones((*lead, 4), dtype), W.astype(dtype), B.astype(dtype)
    y = ops.linear(x, w, b)
    assert y.dtype == dtype and y.shape == (*lead, 5) and np.all(y == 5)
    cotangents = ops.linear_vjp(y, x, w, b)
    assert [(c.dtype, c.shape) for c in cotangents] == [(dtype, a.shape) for a in (x, w, b)]
    assert ops.linear_vjp(y, x, w)[2] is None
