"""Every version of every CUDA kernel against its contract on the CPU model, checked, in every order of threads."""
import importlib.util
import os
import shutil

import numpy as np
import pytest
from real_gpu import needs_gpu, no_gpu

from kernels import cuda, cupy
from kernels.contract import Kernel
from kernels.group_norm.cupy_cuda import group_norm
from kernels.hostcuda.module import ORDERS
from kernels.report import entry, explain
from kernels.verify import verify
from kernels.versions import judged
from refimpl import ops

THOROUGH = os.environ.get("REFIMPL_PROFILE") == "thorough"
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the CPU model of CUDA needs g++")
NUMBA = importlib.util.find_spec("numba_cuda") is not None

# Each head size that is compiled is a module of its own, so the quick profile keeps to one of each kind; odd ones are
# padded to the next.
HEADS = {} if THOROUGH else {"attention": {"head": 13}, "attention_vjp": {"head": 13}}
# What is tried first: float32 in every kernel, half types where they take a path of their own.
SAME = {("conv_transpose2d_vjp", "naive"), ("conv_transpose2d_vjp", "tiled")}  # the kernels of conv2d and conv2d_vjp
QUICK_HALVES = {("conv2d", "wmma"), ("attention", "wmma"), ("attention_vjp", "best")}


def versions(module):
    """(version, dtype) of a backend's kernels, in the profile that runs."""
    def first(v, dtype):
        key = v.function.__name__, v.name
        return key not in SAME if dtype == "float32" else dtype == "float16" and key in QUICK_HALVES

    return [(v, dtype) for m in module.MODULES for v in m.VERSIONS for dtype in v.dtypes if THOROUGH or first(v, dtype)]


def label(value):
    return value if isinstance(value, str) else f"{value.function.__name__}-{value.name}"


def check(backend, place, version, dtype, order, examples):
    """Sizes are chosen as for a large GPU, and sums are cut early, so that small cases have many blocks too."""
    where = version.where | HEADS.get(version.function.__name__, {}) | {"large": False}
    device = place(order=order)._replace(processors=132, chunk=64)
    kernel = Kernel(version.function.__name__, backend, version.algorithm, judged(version, device, dtype),
                    "float32", dtype, version.chain, raw=False, where=where, version=version.name)
    verdict = verify(kernel, examples, seed=ORDERS.index(order))
    assert verdict.passed, f"in {order} order: " + explain(entry(verdict))
    assert not verdict.refused
    assert verdict.share < 1


@pytest.mark.parametrize("version, dtype", versions(cupy), ids=label)
def test_cuda_cpp(version, dtype):
    for order in ORDERS:
        check("cupy:host", cuda.host, version, dtype, order, 100 if THOROUGH else 2)


@pytest.mark.parametrize("size, shared", [(12156, 48624), (12272, 49088), (12288, 49152), (20001, 80004), (60000, 32768)])
def test_groups_as_large_as_shared_memory_and_larger(size, shared):
    """Around the 48 KiB that every block has, above them, where a kernel must ask, and above all that there is."""
    asked, device = [], cuda.host()

    def find(path, name):
        kernel = device.find(path, name)

        def launch(grid, block, args, shared_mem=0):
            asked.append(shared_mem)
            kernel.max_dynamic_shared_size_bytes = getattr(launch, "max_dynamic_shared_size_bytes", (48 << 10) - 128)
            kernel(grid, block, args, shared_mem)

        return launch

    x = np.random.default_rng(size).standard_normal((1, 1, size), dtype=np.float32)
    y = group_norm(device._replace(find=find), x, None, None, 1)
    assert max(asked) == shared
    assert np.max(np.abs(y - ops.group_norm(x.astype(np.float64), None, None, 1))) < 2e-6


@needs_gpu
@pytest.mark.parametrize("version, dtype", [] if no_gpu() else versions(cupy), ids=label)
def test_cuda_cpp_on_the_gpu(version, dtype):
    check("cupy", lambda order: cuda.gpu(), version, dtype, "forward", 100)


def twins():
    from kernels import numba_cuda

    return versions(numba_cuda)


# Numba takes seconds to compile a large kernel: in the quick profile the whole network (test_cuda_network.py) tries those.
TWINS = {"group_norm", "q_sample"}


@pytest.mark.skipif(not NUMBA, reason="numba-cuda is not installed: extra cuda-check")
@pytest.mark.parametrize("version, dtype", twins() if NUMBA else [], ids=label)
def test_numba(version, dtype):
    from kernels import twins

    if not THOROUGH and version.function.__name__ not in TWINS:
        pytest.skip("only in the thorough profile")
    for order in ORDERS:
        check("numba_cuda:host", twins.host, version, dtype, order, 100 if THOROUGH else 2)


@pytest.mark.skipif(not NUMBA or no_gpu() is not None, reason=no_gpu() or "numba-cuda is not installed")
@pytest.mark.parametrize("version, dtype", twins() if NUMBA and not no_gpu() else [], ids=label)
def test_numba_on_the_gpu(version, dtype):
    from kernels import twins

    check("numba_cuda", lambda order: twins.gpu(), version, dtype, "forward", 100)
