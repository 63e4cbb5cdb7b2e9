"""Attention: what it refuses, its empty and masked corners, and its dtypes."""
import numpy as np
import pytest

from refimpl import ops

RNG = np.random.default_rng(0)
Q, K, V = (RNG.standard_normal((2, 3, n, d)) for n, d in ((4, 5), (6, 5), (6, 7)))


@pytest.mark.parametrize("change, error, sentence", [
    (dict(q=Q[0]), ValueError, r"q \(N, h, L, d\), k \(N, h, S, d\), v \(N, h, S, e\) expected, got q \(3, 4, 5\)"),
    (dict(k=K[:1]), ValueError, r"q, k and v must agree in samples and heads, got q \(2, 3, 4, 5\), k \(1, 3, 6, 5\)"),
    (dict(v=V[:, :2]), ValueError, "q, k and v must agree in samples and heads"),
    (dict(q=Q[..., :4]), ValueError, "q and k must agree in their last axis"),
    (dict(v=V[:, :, :5]), ValueError, r"k and v must agree in their length, got .*v \(2, 3, 5, 7\)"),
    (dict(mask=np.ones((4, 5), bool)), ValueError, r"a mask that broadcasts to \(2, 3, 4, 6\) expected, got \(4, 5\)"),
    (dict(mask=np.ones((1, 2, 3, 4, 6), bool)), ValueError, r"a mask that broadcasts to \(2, 3, 4, 6\) expected"),
    (dict(mask=np.ones((4, 6))), TypeError, r"a bool mask expected \(True = attend\), got float64"),
    (dict(mask=np.ones((4, 6), int)), TypeError, "a bool mask expected"),
    (dict(k=K.astype(np.float32)), TypeError, "one dtype expected, got q float64, k float32, v float64"),
])
def test_attention_refuses(change, error, sentence):
    arguments = dict(q=Q, k=K, v=V) | change
    with pytest.raises(error, match=sentence):
        ops.attention(**arguments)
    with pytest.raises(error, match=sentence):
        ops.attention_vjp(np.ones((2, 3, 4, 7)), **arguments)


def test_cotangent_must_fit():
    with pytest.raises(ValueError, match=r"attention_vjp: dy \(2, 3, 4, 7\) expected, got \(2, 3, 4, 5\)"):
        ops.attention_vjp(Q, Q, K, V)
    with pytest.raises(TypeError, match="dy in x's dtype float64 expected, got float32"):
        ops.attention_vjp(np.ones((2, 3, 4, 7), np.float32), Q, K, V)


@pytest.mark.filterwarnings("error")
def test_a_fully_masked_row_gives_zero():
    mask = np.ones((4, 6), bool)
    mask[1] = False
    y = ops.attention(Q, K, V, mask=mask)
    assert not np.any(y[:, :, 1]) and np.all(y[:, :, 0] == ops.attention(Q, K, V)[:, :, 0])
    dy = np.ones(y.shape)
    dq, dk, dv = ops.attention_vjp(dy, Q, K, V, mask=mask)
    assert not np.any(dq[:, :, 1])
    rest = np.arange(4) != 1
    for got, expected in zip((dk, dv), ops.attention_vjp(dy[:, :, rest], Q[:, :, rest], K, V)[1:]):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shapes", [((0, 4), (6, 5)), ((4, 5), (0, 5)), ((0, 5), (0, 5)), ((4, 0), (6, 0))])
@pytest.mark.parametrize("causal", [False, True])
def test_empty_axes(shapes, causal):
    (length, width), (keys, _) = shapes[0], shapes[1]
    q, k, v = np.ones((2, 3, length, width)), np.ones((2, 3, keys, width)), np.ones((2, 3, keys, 7))
    y = ops.attention(q, k, v, causal=causal)
    assert y.shape == (2, 3, length, 7) and np.allclose(y, 1 if keys else 0)
    assert [a.shape for a in ops.attention_vjp(y, q, k, v, causal=causal)] == [q.shape, k.shape, v.shape]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_dtype_stays(dtype):
    q, k, v = (a.astype(dtype) for a in (Q, K, V))
    y = ops.attention(q, k, v, mask=np.ones((4, 6), bool), causal=True, scale=np.float64(0.3))
    assert y.dtype == dtype
    assert {a.dtype for a in ops.attention_vjp(y, q, k, v, causal=True, scale=np.float64(0.3))} == {np.dtype(dtype)}


def test_large_logits_do_not_overflow():
    y = ops.attention(1e4 * Q.astype(np.float32), K.astype(np.float32), V.astype(np.float32))
    assert np.isfinite(y).all()
