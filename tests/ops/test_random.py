"""The generator: distributions, independence of keys, indices, draws and streams, and what it refuses."""
import numpy as np
import pytest
from scipy import stats

from refimpl import ops

KEY = 20110611
Z = ops.normal(KEY, np.arange(200), 3, (1000,), dtype=np.float64)
U = ops.uniform(KEY, np.arange(200), 3, (1000,), dtype=np.float64)


def test_normals_are_normal():
    """200,000 numbers: five standard errors of each moment, and Kolmogorov and Smirnov's distance."""
    n = Z.size
    for power, expected, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(Z**power) - expected) < 5 * (spread / n) ** 0.5
    for part in (Z, *(Z[:, i::4] for i in range(4))):  # each of a block's four numbers by itself
        assert stats.kstest(part.ravel(), "norm").pvalue > 1e-3
    assert np.abs(Z).max() <= 5.77


def test_uniforms_are_uniform():
    assert abs(np.mean(U) - 0.5) < 5 * (1 / 12 / U.size) ** 0.5
    assert stats.kstest(U.ravel(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("other", [
    ops.normal(KEY + 1, np.arange(200), 3, (1000,)), ops.normal(KEY, np.arange(200, 400), 3, (1000,)),
    ops.normal(KEY, np.arange(200), 4, (1000,)), ops.normal(KEY + 2**32, np.arange(200), 3, (1000,)),
    ops.normal(ops.fold(KEY, 0), np.arange(200), 3, (1000,)), Z[:, np.arange(1000) ^ 1], np.roll(Z, 4, axis=1),
    np.roll(Z, 1, axis=0), stats.norm.ppf(np.minimum(U, 1 - 2**-25))],
    ids=["key", "index", "draw", "high word of the key", "folded key", "pair", "block", "sample", "stream"])
def test_correlations_are_those_of_chance(other):
    """Of the numbers and of their squares: a pair shares its radius, so squares would show what values hide."""
    for f in (lambda z: z, np.square):
        assert abs(np.corrcoef(f(Z).ravel(), f(other).ravel())[0, 1]) < 5 / Z.size**0.5


def test_angles_fill_the_circle():
    z = Z.reshape(-1, 2)
    turn = np.arctan2(z[:, 1], z[:, 0]) / (2 * np.pi) % 1
    assert stats.kstest(turn, "uniform").pvalue > 1e-3
    assert stats.chisquare(np.bincount((4 * turn).astype(int), minlength=4)).pvalue > 1e-3


def test_pinned_values():
    """Written down once, so that no machine, NumPy or rewriting changes a picture unseen."""
    assert ops.fold(0, 0) == 12535102004024821012
    np.testing.assert_array_equal(ops.uniform(1, [2], 3, (2, 2)), [[[0.3117697834968567, 0.1271132230758667],
                                                                    [0.9327101111412048, 0.7561071515083313]]])
    np.testing.assert_allclose(ops.normal(1, [2], 3, (5,), dtype=np.float64), [[
        0.9284617411382309, 0.8570877602585456, -1.4642849214459706, 0.2631776061630192, 0.5840776012401806]],
        rtol=1e-14)


def test_fold_gives_other_keys():
    keys = {ops.fold(k, n) for k in (0, 1, 2**32, 2**64 - 1) for n in (0, 1, 2**32, 2**64 - 1)}
    assert len(keys) == 16 and all(0 <= k < 2**64 for k in keys)


@pytest.mark.parametrize("f", [ops.uniform, ops.normal])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_and_dtypes(f, dtype):
    for n, shape in ((3, ()), (0, (2,)), (3, (0,)), (3, (2, 3)), (1, (4,)), (2, (5,))):
        y = f(1, np.arange(n), 0, shape, dtype=dtype)
        assert y.shape == (n, *shape) and y.dtype == dtype
    np.testing.assert_array_equal(f(1, [4], 0, (9,)), f(1, [4], 0, (9,), dtype=np.float64).astype(np.float32))


@pytest.mark.parametrize("arguments, error, sentence", [
    (dict(key=2**64), ValueError, r"random: key must be in 0..2\^64 - 1, got 18446744073709551616"),
    (dict(key=-1), ValueError, r"random: key must be in 0..2\^64 - 1, got -1"),
    (dict(key=0.5), TypeError, "random: key must be an integer, got 0.5"),
    (dict(draw=2**32), ValueError, r"random: draw must be in 0..2\^32 - 1, got 4294967296"),
    (dict(draw=None), TypeError, "random: draw must be an integer, got None"),
    (dict(index=[2**32]), ValueError, r"random: index must be in 0..2\^32 - 1"),
    (dict(index=[0, -1]), ValueError, r"random: index must be in 0..2\^32 - 1"),
    (dict(index=[0.5]), TypeError, "random: index must be integers, got float64"),
    (dict(index=3), ValueError, r"random: index \(N,\) expected, got shape \(\)"),
    (dict(shape=(2, -1)), ValueError, r"random: sizes must not be negative, got shape \(2, -1\)"),
])
@pytest.mark.parametrize("f", [ops.uniform, ops.normal])
def test_generator_refuses(f, arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        f(**(dict(key=1, index=[0], draw=0, shape=(2,)) | arguments))


def test_fold_refuses():
    with pytest.raises(ValueError, match=r"random: n must be in 0..2\^64 - 1, got -1"):
        ops.fold(1, -1)
    with pytest.raises(ValueError, match="random: key must be in"):
        ops.fold(2**64, 0)


def test_dropout_keeps_the_share_and_the_mean():
    x = np.ones((50, 400), np.float32)
    y = ops.dropout(x, 0.3, KEY)
    assert y.dtype == np.float32 and abs(np.mean(y == 0) - 0.3) < 5 * (0.21 / x.size) ** 0.5
    assert abs(np.mean(y) - 1) < 5 * (0.3 / 0.7 / x.size) ** 0.5
    np.testing.assert_array_equal(y != 0, ops.uniform(KEY, np.arange(50), 0, (400,)) > 0.3)
    np.testing.assert_array_equal(ops.dropout(x[:7], 0.3, KEY), y[:7])
    assert np.any(ops.dropout(x, 0.3, KEY + 1) != y)


@pytest.mark.parametrize("x, rate, key, error, sentence", [
    (np.ones((2, 2)), 1.0, 0, ValueError, r"dropout: rate must be in \[0, 1\), got 1.0"),
    (np.ones((2, 2)), -0.1, 0, ValueError, r"dropout: rate must be in \[0, 1\), got -0.1"),
    (np.ones((2, 2)), np.nan, 0, ValueError, r"dropout: rate must be in \[0, 1\), got nan"),
    (np.ones((2, 2)), 0.5, 2**64, ValueError, r"key must be in 0..2\^64 - 1"),
    (np.ones((2, 2), int), 0.5, 0, TypeError, "dropout: inexact arrays expected, got x int64"),
    (np.ones(()), 0.5, 0, ValueError, r"dropout: x \(N, ...\) expected, got a scalar"),
])
def test_dropout_refuses(x, rate, key, error, sentence):
    for call in (lambda: ops.dropout(x, rate, key), lambda: ops.dropout_vjp(x, x, rate, key)):
        with pytest.raises(error, match=sentence):
            call()
