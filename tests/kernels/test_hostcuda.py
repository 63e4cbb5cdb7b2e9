"""The CPU model of CUDA: correct kernels give CUDA's results in every order, each defect is found and named."""
import re

import numpy as np
import pytest
from cuda_cases import CORRECT, DEFECTIVE, DEFECTS

from kernels.hostcuda import HostCudaError, PtxModule, RawModule, compiled

ORDERS = ("forward", "reverse", "random")
NAMES = ["sums<4, float>", "sums<2, double>"]
WITHOUT_CALLS = "\n".join(line for line in CORRECT.split("\n") if "void speak" not in line)


def module(order="forward", code=CORRECT, **how):
    return RawModule(code=code, name_expressions=NAMES if code is CORRECT else None, order=order, **how)


def nan(*shape):
    return np.full(shape, np.nan, np.float32)


@pytest.fixture(params=[*ORDERS, "fast", "ptx"])
def correct(request):
    """The kernels in every order, unchecked, and as the PTX that NVRTC makes of them."""
    if request.param == "ptx":
        pytest.importorskip("cuda.bindings.nvrtc", reason="needs the extra cuda-check")
        return PtxModule(compiled.compile_cuda(WITHOUT_CALLS, NAMES, to="ptx")[0], order="reverse")
    return module(checked=False) if request.param == "fast" else module(request.param)


def test_tiles_and_warps(correct, rng):
    x, y = rng.standard_normal(128).astype(np.float32), nan(128)
    correct.get_function("reverse")((2,), (64,), (y, x))
    assert (y.reshape(2, 64) == x.reshape(2, 64)[:, ::-1]).all()
    correct.get_function("joined")((1,), (64,), (y, x, np.int32(1)))
    swapped = x[:64].reshape(32, 2)[:, ::-1] * np.float32([-1, 1])
    assert (y[:64] == swapped.ravel()).all()
    whole = np.arange(128, dtype=np.float32)
    correct.get_function("sums<4, float>")((1,), (128,), (y, whole), shared_mem=16)
    assert y[0] == whole.sum()
    out = np.zeros(1)
    correct.get_function("sums<2, double>")((1,), (64,), (out, np.arange(64.0)), shared_mem=16)
    assert out[0] == 63 * 32


@pytest.mark.parametrize("width, arg", [(32, 1), (32, 16), (8, 3), (16, 15), (4, 2)])
def test_shuffles_are_cudas(correct, width, arg, rng):
    x, out = rng.integers(0, 1000, 64).astype(np.int32), np.zeros((4, 64), np.int32)
    correct.get_function("shuffles")((1,), (64,), (out, x, np.int32(arg), np.int32(width)))
    lane = np.arange(64)
    first = lane // width * width
    inside = lambda source: np.where((source >= first) & (source < first + width), source, lane)
    xor = np.where((lane ^ arg) < first + width, lane ^ arg, lane)
    for got, source in zip(out, (first + arg % width, xor, inside(lane - arg), inside(lane + arg))):
        assert (got == x[source]).all()


@pytest.mark.parametrize("threads", [64, 48, 33, 7])
def test_votes_in_whole_and_partial_warps(correct, threads, rng):
    x, out = rng.integers(0, 2, threads).astype(np.int32), np.zeros((6, threads), np.uint32)
    x[:32] = 1
    correct.get_function("votes")((1,), (threads,), (out, x))
    warps = [x[i:i + 32] for i in range(0, threads, 32)]
    each = lambda f: np.concatenate([np.full(len(w), f(w)) for w in warps])
    assert (out[0] == each(lambda w: sum(int(v) << i for i, v in enumerate(w)))).all()
    assert (out[1] == each(np.any)).all() and (out[2] == each(np.all)).all()
    assert (out[3] == x.sum()).all() and (out[4] == x.all()).all() and (out[5] == x.any()).all()


def test_lanes_that_have_ended_are_not_waited_for(correct, rng):
    x, y = rng.integers(0, 99, 64).astype(np.float32), nan(64)
    correct.get_function("early")((1,), (64,), (y, x, np.int32(40)))
    assert (y[:40] == x[:40].reshape(20, 2)[:, ::-1].ravel() + np.repeat([32, 8], [32, 8])).all() and np.isnan(y[40:]).all()


def test_indices_in_three_dimensions(correct):
    grid, block = (2, 3, 2), (4, 2, 3)
    out = np.zeros(12 * 24, np.int32)
    correct.get_function("where")(grid, block, (out,))
    bz, by, bx, tz, ty, tx = np.indices((*grid[::-1], *block[::-1]))
    assert (out == ((((bz * 8 + by) * 8 + bx) * 8 + tz) * 64 + ty * 8 + tx).ravel()).all()


def test_atomics(correct, rng):
    x = rng.integers(0, 1 << 20, 256).astype(np.int32)
    out, total = np.int32([0, -5, 1 << 30, 0, 0, 3]), np.zeros(1, np.float32)
    correct.get_function("atomics")((4,), (64,), (out, total, x))
    assert list(out) == [x.sum(), x.max(), x.min(), np.bitwise_or.reduce(x), 256 % 10, x.max()]
    assert total[0] == pytest.approx(x.sum(), rel=1e-6)


def test_asynchronous_copies(correct, rng):
    x, y = rng.standard_normal((5, 64)).astype(np.float32), nan(5, 64)
    correct.get_function("pipeline")((1,), (64,), (y, x, np.int32(5)))
    x[1:, 0] = 0  # zero-filled
    assert (y == x[:, ::-1]).all()


def test_half_types_round_to_nearest_even(correct, rng):
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    x = np.concatenate([every[np.isfinite(every)], rng.standard_normal(1000).astype(np.float32) * 1e5,
                        np.float32([np.inf, -np.inf, 65519, 65520, 2**-25, 2.1**-24, 3e38, 1e-45])])
    h, b, back = np.zeros(x.size, np.float16), np.zeros(x.size, np.uint16), nan(x.size)
    correct.get_function("halves")((-(-x.size // 64),), (64,), (h, b, x, back, np.int32(x.size)))
    with np.errstate(over="ignore", invalid="ignore"):
        assert (h == x.astype(np.float16)).all()
        bits = x.view(np.uint32).astype(np.uint64)
        assert (b == (bits + 0x7fff + (bits >> 16 & 1)) >> 16).all()
        square = (h * h).astype(np.float32) + (b.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(back, square, equal_nan=True)


def test_variables_and_structs_by_value(correct):
    pair = np.array((3, [1, 2, 4, 0, 0]), np.dtype([("a", np.int32), ("b", np.float32, 5)]))
    correct.get_global("weights").view(np.float32)[:] = 10, 20, 30
    before = correct.get_global("counter").view(np.float32).copy()
    out = nan(4)
    correct.get_function("variables")((2,), (64,), (out, pair[()], np.bool_(True), np.float64(0.5)), shared_mem=256)
    assert list(out) == [7.5, 14.5, 18.5, 5]
    assert (correct.get_global("counter").view(np.float32) == before + 1).all()


def test_print_and_assert(correct, capfd):
    if isinstance(correct, PtxModule):
        pytest.skip("PTX's calls are not executed")
    correct.get_function("speak")((1,), (32,), (np.int32(7),))
    assert capfd.readouterr().out == "n is 7\n"
    with pytest.raises(HostCudaError, match="assertion failed: n > 0"):
        correct.get_function("speak")((1,), (32,), (np.int32(0),))


def launch(name, y, x):
    """Grid, block, arguments and dynamic shared memory of a defective kernel."""
    return ((2,) if "block" in name and "shared" not in name else (1,), (64,), (y, x, np.int32(2)),
            256 if "dynamic" in name else 0)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", DEFECTS)
def test_defect_is_found(name, order):
    sentence = DEFECTS[name][2]
    found = module(order, DEFECTIVE, time_limit=0.3).get_function(name)
    x, y = np.ones(128, np.float32), nan(128)
    with pytest.raises(HostCudaError) as caught:
        found(*launch(name, y, x))
    assert re.search(sentence, str(caught.value)), caught.value
    line = 1 + next(i for i, text in enumerate(DEFECTIVE.split("\n"), 1) if f"void {name}(" in text)
    assert str(caught.value).startswith(f"{name} at kernel.cu:{line}, thread (") or "time limit" in sentence
    assert np.isnan(y).all()  # a launch that failed has written nothing


def test_defects_that_the_compiler_keeps_are_found_in_the_ptx():
    pytest.importorskip("cuda.bindings.nvrtc", reason="needs the extra cuda-check")
    # integers wrap in PTX, and it need not read what nobody uses; __assertfail is a call
    defined = {"overflow", "shift", "bounds", "misaligned", "constant_memory", "assertion"}
    code = DEFECTIVE[:DEFECTIVE.index('extern "C" __global__ void assertion')]
    ptx = PtxModule(compiled.compile_cuda(code, to="ptx")[0], time_limit=0.3)
    x = np.ones(128, np.float32)
    x.flags.writeable = False  # PTX has no const
    for name in DEFECTS.keys() - defined:
        with pytest.raises(HostCudaError, match=DEFECTS[name][2]):
            ptx.get_function(name)(*launch(name, nan(128), x))


def test_the_model_works_after_a_finding_and_after_a_time_limit():
    bad = module(code=DEFECTIVE, time_limit=0.2)
    for name in ("endless", "divergent", "endless_barrier"):
        with pytest.raises(HostCudaError):
            bad.get_function(name)((1,), (64,), (nan(128), nan(128), np.int32(2)))
        out = nan(128)
        module().get_function("reverse")((2,), (64,), (out, np.ones(128, np.float32)))
        assert (out == 1).all()


LATER = r'''
extern "C" __global__ void f(float* y, int writers, int first, int turn) {
  __shared__ float s[64];
  if (blockIdx.x < writers) s[threadIdx.x] = threadIdx.x;
  __syncthreads();
  int i = blockIdx.x * 64 + (threadIdx.x + turn) % 64;
  y[first ? i % 64 : i] = s[63 - threadIdx.x];
}'''


def test_what_an_earlier_launch_or_block_did_is_neither_missed_nor_held_against_a_later_one():
    f, y = module(code=LATER).get_function("f"), nan(128)
    launch = lambda writers, first, turn: f((2,), (64,), (y, *np.int32([writers, first, turn])))
    for turn in (0, 1, 33):  # each element by another thread than before
        launch(2, 0, turn)
        assert (y.reshape(2, 64)[:, (np.arange(64) + turn) % 64] == np.arange(64)[::-1]).all()
    for writers in (1, 0):
        with pytest.raises(HostCudaError, match=rf"block \({writers}, 0, 0\): read of shared memory that no thread wrote"):
            launch(writers, 0, 0)
    with pytest.raises(HostCudaError, match="block .1, 0, 0.: race: write here and write .* of block 0 .* not ordered"):
        launch(2, 1, 0)
    launch(2, 0, 5)
    assert (y[:64][(np.arange(64) + 5) % 64] == np.arange(64)[::-1]).all()


MANY = r'''
extern "C" __global__ void f(float* y, const float* x, int n) {
  int i = blockIdx.x * 256 + threadIdx.x;
  if (i < n) y[i] += x[i];
  if (i == n - 1) y[i % 7] = 0;
}'''


def test_arrays_with_more_cells_than_are_kept(rng):
    f, n = module(code=MANY).get_function("f"), 1_300_000
    y, x = np.ones(n, np.float32), rng.standard_normal(n).astype(np.float32)
    for _ in range(2):
        with pytest.raises(HostCudaError, match="race: write here and (read|write) by thread"):
            f((-(-n // 256),), (256,), (y, x, np.int32(n)))
    assert (y == 1).all()
