"""Embeddings: what they refuse, the two published orders, dtype and emptiness."""
import numpy as np
import pytest

from refimpl import ops

TABLE = np.arange(12.0).reshape(4, 3)
T = np.array([1.0, 7.0])
DDPM, OPENAI = dict(cos_first=False, shift=1), dict(cos_first=True, shift=0)


@pytest.mark.parametrize("call, sentence", [
    (lambda: ops.embedding(np.array([0]), TABLE[0]), "embedding: table must be (K, D), got shape (3,)"),
    (lambda: ops.embedding(np.array([4]), TABLE), "embedding: indices must lie in 0..3, the rows of the table"),
    (lambda: ops.embedding(np.array([-1]), TABLE), "embedding: indices must lie in 0..3, the rows of the table"),
    (lambda: ops.embedding_vjp(np.ones((2, 3)), np.array([1]), TABLE),
     "embedding_vjp: dy must have the output's shape (1, 3), got (2, 3)"),
    (lambda: ops.sinusoidal_embedding(T[None], 8, **DDPM), "sinusoidal_embedding: t must be (N,), got shape (1, 2)"),
    (lambda: ops.sinusoidal_embedding(T, 1, **OPENAI),
     "sinusoidal_embedding: dim must be an int of at least 2, got 1"),
    (lambda: ops.sinusoidal_embedding(T, 3, **DDPM),
     "sinusoidal_embedding: half of dim must exceed shift = 1, got dim = 3"),
    (lambda: ops.sinusoidal_embedding(T, 8, max_period=0, **DDPM),
     "sinusoidal_embedding: max_period must be positive, got 0"),
    (lambda: ops.sinusoidal_embedding_vjp(np.ones((2, 7)), T, 8, **DDPM),
     "sinusoidal_embedding_vjp: dy must have the output's shape (2, 8), got (2, 7)"),
])
def test_refuses(call, sentence):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == sentence


def test_indices_are_integers():
    with pytest.raises(TypeError, match="embedding: indices must be integers, got float64"):
        ops.embedding(np.array([1.0]), TABLE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_embedding_keeps_dtype_and_shape(shape, dtype):
    indices, table = np.full(shape, 2), TABLE.astype(dtype)
    y = ops.embedding(indices, table)
    assert y.dtype == dtype and y.shape == (*shape, 3) and np.all(y == TABLE[2])
    dtable = ops.embedding_vjp(np.ones_like(y), indices, table)
    assert dtable.dtype == dtype
    np.testing.assert_array_equal(dtable, np.outer([0, 0, indices.size, 0], np.ones(3)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sinusoidal_keeps_dtype(dtype):
    y = ops.sinusoidal_embedding(T.astype(dtype), 8, **DDPM)
    assert y.dtype == dtype and ops.sinusoidal_embedding_vjp(y, T.astype(dtype), 8, **DDPM).dtype == dtype
    assert ops.sinusoidal_embedding(T[:0].astype(dtype), 8, **DDPM).shape == (0, 8)


def test_integers_are_times_too():
    np.testing.assert_array_equal(ops.sinusoidal_embedding(T.astype(int), 8, **OPENAI),
                                  ops.sinusoidal_embedding(T, 8, **OPENAI))


def test_both_published_orders():
    """DDPM's slowest frequency is 1/max_period itself, OpenAI's stays above it."""
    sin, cos = np.sin, np.cos
    np.testing.assert_allclose(ops.sinusoidal_embedding(T, 5, max_period=100, **DDPM)[1],
                               [sin(7), sin(0.07), cos(7), cos(0.07), 0], rtol=1e-14)
    np.testing.assert_allclose(ops.sinusoidal_embedding(T, 4, max_period=100, **OPENAI)[1],
                               [cos(7), cos(0.7), sin(7), sin(0.7)], rtol=1e-14)
