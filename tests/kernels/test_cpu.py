"""The cpu backend: every kernel against its contract, and what its namespace adds to them."""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba")
from numba import float32, njit, uint64

from kernels import backend, jit, philox
from kernels.contract import registered
from kernels.gemm import ROWS
from kernels.memory import address, store
from kernels.sampler_step.cpu import RUN, STREAMED
from kernels.simd import WIDTH
from refimpl import ops

CPU = backend("cpu")
KERNELS = registered("cpu")


def test_every_hot_operation_has_a_kernel():
    assert {k.operation for k in KERNELS} == {
        "conv2d", "conv2d_vjp", "conv_transpose2d", "conv_transpose2d_vjp", "attention", "attention_vjp", "group_norm",
        "group_norm_vjp", "batch_norm", "batch_norm_vjp", "modulated_conv2d", "modulated_conv2d_vjp", "q_sample",
        "sampler_step"}
    assert {k.algorithm for k in KERNELS if k.operation == "conv2d" and k.raw} == {"im2col", "winograd"}


def arguments(rng, dtype):
    """One call of every function of the backend's own."""
    def a(*shape):
        return rng.standard_normal(shape).astype(dtype)

    x, w, b, g = a(2, 4, 6, 6), a(4, 4, 3, 3), a(4), a(4)
    q, running = a(2, 2, 5, 3), (g, b * b, True)
    return {
        "conv2d": (x, w, b, 1, 1), "conv2d_vjp": (x, x, w, b, 1, 1), "conv_transpose2d": (x, w, b, 1, 1),
        "conv_transpose2d_vjp": (x, x, w, b, 1, 1), "linear": (x, a(3, 6), a(3)),
        "linear_vjp": (a(2, 4, 6, 3), x, a(3, 6), a(3)), "group_norm": (x, g, b, 2, 1e-5, True),
        "group_norm_vjp": (x, x, g, b, 2, 1e-5, True), "batch_norm": (x, g, b, *running),
        "batch_norm_vjp": (x, x, g, b, *running), "modulated_conv2d": (x, w, a(2, 4), 1),
        "modulated_conv2d_vjp": (x, x, w, a(2, 4), 1), "attention": (q, q, q), "attention_vjp": (q, q, q, q),
        "q_sample": (x, 0.8, np.array([0.1, 0.6]), a(2, 4, 6, 6)), "sampler_step": (x, a(2, 4, 6, 6)),
    }


def options(name):
    return dict(a=1.0, b=-0.5, c_x=0.3, c_0=0.2, c_e=0.1) if name == "sampler_step" else {}


def outputs(y):
    return [v for v in (y if isinstance(y, tuple) else (y,)) if v is not None]


@pytest.mark.parametrize("name", arguments(np.random.default_rng(0), np.float32))
def test_namespace_function_is_close_to_the_reference_and_leaves_other_dtypes_to_it(name, rng):
    ours, reference = getattr(CPU, name), getattr(ops, name)
    assert ours is not reference
    single, double = arguments(rng, np.float32)[name], arguments(rng, np.float64)[name]
    for y, want in zip(outputs(ours(*single, **options(name))), outputs(reference(*single, **options(name)))):
        assert y.dtype == np.float32 and y.shape == want.shape
        np.testing.assert_allclose(y, want, rtol=2e-4, atol=2e-4)
    for y, want in zip(outputs(ours(*double, **options(name))), outputs(reference(*double, **options(name)))):
        assert y.dtype == np.float64
        np.testing.assert_array_equal(y, want)
    if name != "q_sample":
        odd = [v.astype(np.complex128) if isinstance(v, np.ndarray) else v for v in double]
        assert outputs(ours(*odd, **options(name)))[0].dtype == np.complex128


X = np.ones((2, 4, 6, 6), np.float32)
Q = np.ones((1, 2, 5, 3), np.float32)
C = np.ones(4, np.float32)
WRONG = {
    "conv2d": [(X, np.ones((4, 3, 3, 3), np.float32)), (X, np.ones((4, 4, 7, 7), np.float32)),
               (X, np.ones((4, 4, 3, 3), np.float32), np.ones(3, np.float32)),
               (X, np.ones((4, 4, 3, 3), np.float32), None, 0), (X, np.ones((4, 4, 3, 3), np.float64)),
               (X, np.ones((4, 4, 3, 3), np.float32), None, 1, 0, 1, 3)],
    "conv2d_vjp": [(X, X, np.ones((4, 4, 3, 3), np.float32))],
    "conv_transpose2d": [(X, np.ones((3, 4, 3, 3), np.float32)), (X, np.ones((4, 4, 3, 3), np.float32), None, 2, 0, 2)],
    "conv_transpose2d_vjp": [(X, X, np.ones((4, 4, 3, 3), np.float32))],
    "linear": [(X, np.ones((3, 5), np.float32)), (X, np.ones((3, 6), np.float32), np.ones(2, np.float32))],
    "linear_vjp": [(X, X, np.ones((3, 6), np.float32))],
    "group_norm": [(X, None, None, 3), (X, np.ones(3, np.float32), None, 2), (X, np.ones(4), None, 2)],
    "group_norm_vjp": [(X[:1], X, np.ones(3, np.float32), None, 2)],
    "batch_norm": [(X, None, None, C[:3], C, True), (X, C[:3], None, C, C, True), (X[:1, :, :1, :1], None, None, C, C, True),
                   (X[:0], None, None, C, C, True), (X, None, None, C.astype(np.float64), C, False)],
    "batch_norm_vjp": [(X[:1], X, None, None, C, C, True), (X, X, C[:3], None, C, C, False)],
    "modulated_conv2d": [(X, np.ones((4, 3, 3, 3), np.float32), np.ones((2, 4), np.float32)),
                         (X, np.ones((4, 4, 3, 3), np.float32), C), (X[0], np.ones((4, 4, 3, 3), np.float32), C),
                         (X, np.ones((4, 4, 7, 7), np.float32), np.ones((2, 4), np.float32))],
    "modulated_conv2d_vjp": [(X, X, np.ones((4, 4, 3, 3), np.float32), np.ones((2, 4), np.float32)),
                             (X[:, :, :1], X, np.ones((4, 4, 3, 3), np.float32), np.ones((2, 4), np.float32), 1)],
    "attention": [(Q, Q[:, :1], Q), (Q, Q, Q[:, :, 1:]), (Q, Q, Q, np.ones((5, 5))), (Q, Q, Q, np.ones((3, 5), bool))],
    "q_sample": [(X, np.ones(3), 1.0, X), (X, 1.0, 1.0, X[:1]), (X, 1.0, 1.0, (-1, [0, 1], 0)),
                 (X, 1.0, 1.0, (1, [0], 0)), (X, 1.0, 1.0, (1, [0, 2**32], 0)), (X, 1.0, 1.0, (1, [0, 1], 2**32))],
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_refused_in_the_references_words(name):
    for arguments in WRONG[name]:
        with pytest.raises((ValueError, TypeError)) as want:
            getattr(ops, name)(*arguments)
        with pytest.raises(want.type) as got:
            getattr(CPU, name)(*arguments)
        assert str(got.value) == str(want.value)


@pytest.mark.parametrize("wrong", [dict(lo=1.0, hi=-1.0), dict(sigma=1.0), dict(history=(X,)), dict(z=X[:1], sigma=1.0),
                                   dict(e_u=X[:1]), dict(c_x=np.ones(2)), dict(lo=np.zeros(3))])
def test_bad_steps_are_refused_in_the_references_words(wrong):
    step = dict(a=1.0, b=0.5) | wrong
    with pytest.raises((ValueError, TypeError)) as want:
        ops.sampler_step(X, X, **step)
    with pytest.raises(want.type) as got:
        CPU.sampler_step(X, X, **step)
    assert str(got.value) == str(want.value)


def channels_last(x):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


def test_a_network_of_convolutions_and_norms_stays_channels_last(rng):
    x = rng.standard_normal((2, 16, 8, 8)).astype(np.float32)
    w, g = rng.standard_normal((16, 16, 3, 3)).astype(np.float32), np.ones(16, np.float32)
    y = CPU.group_norm(CPU.conv2d(x, w, padding=1), g, g, 4, silu=True)
    up = CPU.conv_transpose2d(y, w, stride=2)
    style, running = np.ones((2, 16), np.float32), (g, g, g, g, True)
    for a in (y, up, CPU.conv2d_vjp(y, y, w, padding=1)[0], CPU.group_norm_vjp(y, y, g, g, 4)[0],
              CPU.batch_norm(y, *running)[0], CPU.batch_norm_vjp(y, y, *running)[0], CPU.modulated_conv2d(x, w, style),
              CPU.modulated_conv2d_vjp(y, x, w, style, 1)[0]):
        assert np.moveaxis(a, 1, -1).flags.c_contiguous
    assert CPU.group_norm(x, g, g, 4).flags.c_contiguous and CPU.batch_norm(x, *running)[0].flags.c_contiguous
    np.testing.assert_allclose(CPU.group_norm(channels_last(x), g, g, 4), CPU.group_norm(x, g, g, 4), atol=1e-5)


def test_heads_split_from_tokens_are_joined_without_a_copy(rng):
    tokens = rng.standard_normal((2, 5, 12)).astype(np.float32)
    q = tokens.reshape(2, 5, 3, 4).swapaxes(1, 2)
    joined = CPU.attention(q, q, q).swapaxes(1, 2)
    assert joined.flags.c_contiguous and joined.reshape(2, 5, 12).base is not None
    np.testing.assert_allclose(joined.swapaxes(1, 2), ops.attention(q, q, q), atol=1e-6)


@given(key=st.integers(0, 2**64 - 1), index=st.integers(0, 2**32 - 1), draw=st.integers(0, 2**32 - 1),
       first=st.integers(0, 2**32 - WIDTH))
def test_philox_words_are_the_references_bit_for_bit(words, key, index, draw, first):
    got = np.zeros((4, WIDTH), np.float32)
    words(got.reshape(-1), first, index, draw, key & 2**32 - 1, key >> 32)
    want = ops.philox4x32((first + np.arange(WIDTH, dtype=np.uint64), index, draw, 0), key)
    for g, w in zip(got.view(np.uint32), want):
        np.testing.assert_array_equal(g, w)


@pytest.fixture(scope="module")
def words():
    @njit((float32[::1], *[uint64] * 5))
    def fill(out, first, index, draw, low, high):
        at = address(out)
        for word in philox.words(first, index, draw, low, high):
            store(at, word)
            at += 4 * WIDTH

    return fill


def test_noise_of_a_sample_is_its_own(rng):
    x = np.zeros((3, 5, 7, 3), np.float32)
    together = CPU.q_sample(x, 0.0, 1.0, (77, np.array([4, 9, 2**32 - 1]), 6))
    for i, index in enumerate((4, 9, 2**32 - 1)):
        np.testing.assert_array_equal(CPU.q_sample(x[:1], 0.0, 1.0, (77, [index], 6))[0], together[i])
    np.testing.assert_allclose(together, ops.normal(77, np.array([4, 9, 2**32 - 1]), 6, x.shape[1:]), atol=2e-6)
    _, x0 = CPU.sampler_step(x, x, a=1.0, b=1.0, z=(77, [4, 9, 2**32 - 1], 6), sigma=1.0)
    assert not x0.any()


@pytest.mark.parametrize("offset", [0, 1, 4])
def test_a_large_step_is_made_of_small_ones(offset, rng):
    """Runs, heads before a vector's boundary and estimates past the caches change no bit, wherever the outputs start."""
    step, keyed = dict(a=1.2, b=-0.7, lo=-1.0, hi=1.0, c_x=0.3, c_0=0.5, c_e=0.1), dict(sigma=0.2, z=(5, [7, 2**32 - 1], 9))
    x, e = rng.standard_normal((2, 2, STREAMED // 32 + 37), dtype=np.float32)
    own = next(k for k in KERNELS if k.operation == "sampler_step").function
    for noise in ({}, keyed):
        out = tuple(np.full(x.size + offset, np.nan, np.float32)[offset:].reshape(x.shape) for _ in range(2))
        own(out, x, e, **step, **noise)
        z = CPU.q_sample(np.zeros_like(x), 0.0, 1.0, noise["z"]) if noise else np.zeros_like(x)
        np.testing.assert_allclose(out[1], np.clip(1.2 * x - 0.7 * e, -1, 1), atol=1e-6)
        for i in (0, 1, RUN - 1, RUN, x.shape[1] - 1000):
            part = np.s_[:, i:i + 1000]
            small = CPU.sampler_step(x[part], e[part], **step, **({"sigma": 0.2, "z": z[part].copy()} if noise else {}))
            for got, want in zip(out, small):
                np.testing.assert_array_equal(got[part], want)


@pytest.mark.skipif(WIDTH == 4, reason="vectors have four lanes here anyway")
@pytest.mark.parametrize("operation", ["sampler_step", "q_sample"])
def test_a_processor_with_shorter_vectors(operation, tmp_path):
    """Noise is formed by the vector: counters, their order and runs' ends have to fit every length of one."""
    done = subprocess.run([sys.executable, "-m", "kernels", "verify", operation, "--backend", "cpu", "--examples", "10"],
                          capture_output=True, text=True, cwd=Path(__file__).parents[2], env=os.environ | {
                              "NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2", "NUMBA_CACHE_DIR": str(tmp_path)})
    assert done.returncode == 0 and "passes" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("workers", [1, 3])
def test_results_have_the_same_bits_for_any_number_of_workers(workers, rng, monkeypatch):
    calls = {n: v for n, v in arguments(rng, np.float32).items() if n != "sampler_step"}
    calls["winograd"] = (*[rng.standard_normal((3, 16, 9, 9)).astype(np.float32)] * 2,
                         rng.standard_normal((16, 16, 3, 3)).astype(np.float32), None, 1, 1)
    wide = rng.standard_normal((2, 40, 5, 3)).astype(np.float32)
    for n, x in (("C", wide), ("last", channels_last(wide))):
        calls[f"batch {n}"] = (wide, x, None, None, *[np.ones(40, np.float32)] * 2, True)
    names = {"winograd": "conv2d_vjp", "batch C": "batch_norm_vjp", "batch last": "batch_norm_vjp"}
    run = {n: getattr(CPU, names.get(n, n)) for n in calls}
    before = {n: outputs(run[n](*v)) for n, v in calls.items()}
    from kernels import windows
    from kernels.attention import cpu as attention
    from kernels.attention import cpu_vjp
    from kernels.batch_norm import cpu as batch_norm
    from kernels.conv2d import winograd
    from kernels.group_norm import cpu as group_norm
    from kernels.sampler_step import cpu as sampler_step
    for module in (windows, attention, cpu_vjp, winograd, group_norm, batch_norm, sampler_step):
        monkeypatch.setattr(module, "threads", lambda: workers)
    for n, v in calls.items():
        for got, want in zip(outputs(run[n](*v)), before[n]):
            np.testing.assert_array_equal(got, want, err_msg=n)


@pytest.mark.parametrize("rows", [1, ROWS - 1, ROWS, ROWS + 1])
@pytest.mark.parametrize("columns", [1, 15, 16, 17, 32, 33])
def test_products_at_the_edges_of_tiles(rows, columns, rng):
    x, w = rng.integers(-3, 4, (rows, 5)).astype(np.float32), rng.integers(-3, 4, (columns, 5)).astype(np.float32)
    np.testing.assert_array_equal(CPU.linear(x, w), x @ w.T)
    dy = rng.integers(-3, 4, (rows, columns)).astype(np.float32)
    dx, dw, db = CPU.linear_vjp(dy, x, w, w[:, 0].copy())
    for got, want in ((dx, dy @ w), (dw, dy.T @ x), (db, dy.sum(0))):
        np.testing.assert_array_equal(got, want)


def test_memory_between_calls_is_a_threads_own():
    assert jit.scratch(8) is not None and np.shares_memory(jit.scratch(8), jit.scratch(8))
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(1) as pool:
        assert not np.shares_memory(jit.scratch(8), pool.submit(jit.scratch, 8).result())
    assert jit.scratch(8).ctypes.data % 64 == 0


def test_numbers_of_samples_may_be_lists(rng):
    x, e = rng.standard_normal((2, 2, 5), dtype=np.float32)
    step = {"a": 1.0, "b": 1.0, "lo": [-1.0, -0.2], "hi": [1.0, 0.2], "c_0": 1.0}
    for got, wanted in zip(backend("cpu").sampler_step(x, e, **step), ops.sampler_step(x, e, **step)):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
    np.testing.assert_allclose(backend("cpu").q_sample(x, [0.8, 0.1], [0.6, 0.9], e),
                               ops.q_sample(x, [0.8, 0.1], [0.6, 0.9], e), rtol=1e-5, atol=1e-6)
