"""What a user of the CUDA backends can get wrong, or lack, each answered by one sentence that says what to do."""
import importlib.util
import shutil
import sys

import numpy as np
import pytest

from kernels import cuda, hostcuda, twins
from kernels.hostcuda import HostCudaError, compiled, numba_ptx

NUMBA = importlib.util.find_spec("numba_cuda") is not None
gxx = pytest.mark.skipif(shutil.which("g++") is None, reason="the CPU model of CUDA needs g++")
numba = pytest.mark.skipif(not NUMBA, reason="numba-cuda is not installed: extra cuda-check")


def missing_nvrtc():
    try:
        compiled.nvrtc()
    except HostCudaError as error:
        return str(error)


WRONG = 'extern "C" __global__ void f(float* y) {\n  int i = threadIdx.x;\n  y[i] = undeclared;\n}'


@gxx
def test_a_source_that_does_not_compile_is_named_with_its_own_line():
    with pytest.raises(HostCudaError, match=r"kernel.cu does not compile:\n(.*\n)*kernel.cu:3:\d+: error: .*undeclared"):
        hostcuda.RawModule(code=WRONG)


@pytest.mark.skipif(missing_nvrtc() is not None, reason=str(missing_nvrtc()))
def test_nvrtc_names_the_same_line():
    with pytest.raises(HostCudaError, match=r"mine.cu does not compile for sm_80:\nmine.cu\(3\): error: .*undeclared"):
        compiled.compile_cuda(WRONG, name="mine.cu")


@gxx
def test_an_error_in_a_header_of_ours_has_the_headers_line():
    for name, right, wrong in (("reduce.cuh", "  v = warp_sum(v);\n", "  v = warp_sum(oops);\n"),
                               ("group_norm/group_norm.cu", "  mean /= size;\n", "  mean /= oops;\n")):
        text = (cuda.HERE / name).read_text()
        place = f"{name.split('/')[-1]}:{text.count(chr(10), 0, text.index(right)) + 1}"
        with pytest.raises(HostCudaError, match=rf"{place}:\d+: error: .*oops"):
            hostcuda.RawModule(code=cuda.source("group_norm/group_norm.cu").replace(right, wrong))


def test_missing_packages_are_named_with_the_extra_that_has_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(HostCudaError, match=r"NVRTC is not installed .*pip install 'refimpl-diffusion-gan\[cuda-check\]'"):
        compiled.nvrtc.__wrapped__()
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    with pytest.raises(HostCudaError, match=r"cuobjdump is not installed: pip install .*\[cuda-check\]"):
        compiled.cuobjdump.__wrapped__()
    monkeypatch.setattr(twins.cuda, "implementation", "another", raising=False)
    with pytest.raises(ImportError, match=r"numba-cuda is not installed: pip install .*\[cuda13\].*cuda-check"):
        twins.host()
    with pytest.raises(HostCudaError, match=r"numba-cuda is not installed: pip install .*\[cuda-check\]"):
        numba_ptx.compile_ptx(None, ())


@numba
@gxx
def test_a_numba_kernel_on_the_cpu_refuses_what_its_signature_has_not():
    from numba import cuda as numba_cuda
    from numba import float32, int32, types

    def double(y, n):
        i = numba_cuda.grid(1)
        if i < n:
            y[i] *= 2

    launch = hostcuda.jit(double, (types.Array(float32, 1, "C"), int32))
    for args, sentence in (((np.ones(3), 3), "double: an array of float32 with 1 axes expected, got float64"),
                           ((np.ones((2, 2), np.float32), 3), "an array of float32 with 1 axes"),
                           ((np.ones(6, np.float32)[::2], 3), "C-contiguous"), ((np.ones(3, np.float32),), "2 arguments")):
        with pytest.raises(HostCudaError, match=sentence):
            launch((1,), (32,), args)
    with pytest.raises(HostCudaError, match="at most 1024 threads"):
        launch((1,), (2048,), (np.ones(3, np.float32), 3))
    y = np.ones(3, np.float32)
    launch((1,), (32,), (y, 3))
    assert np.array_equal(y, [2, 2, 2])


@gxx
def test_a_device_array_is_refused_by_a_kernel_on_the_cpu():
    class Elsewhere:
        __cuda_array_interface__ = {}  # noqa: RUF012, never written to

    double = hostcuda.RawKernel('extern "C" __global__ void f(float* y) { y[0] = 1; }', "f")
    with pytest.raises(HostCudaError, match="argument 1 is a device array .*takes NumPy arrays"):
        double((1,), (1,), (Elsewhere(),))


@gxx
def test_a_kernel_of_ours_that_never_ends_is_stopped():
    code = cuda.source("q_sample/q_sample.cu").replace("  if (q >= total) return;", "  while (total) if (total < 0) break;")
    name = "q_sample_vector"
    kernel = hostcuda.RawModule(code=code, time_limit=0.2).get_function(name)
    x, one, words = np.ones(64, np.float32), np.ones(1, np.float32), (np.uint32(0),) * 3
    with pytest.raises(HostCudaError, match="did not end within its time limit of 0.2 s"):
        kernel((1,), (256,), (x.copy(), x, x, one, one, np.zeros(1, np.uint32), *words, *map(np.int32, (1, 1, 64))))
