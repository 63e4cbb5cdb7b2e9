"""What a launch on the CPU model takes and refuses: arguments, sizes, sources, a missing compiler, threads and time."""
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from kernels import cache, hostcuda
from kernels.hostcuda import HostCudaError, RawKernel, RawModule, build

SOURCE = r'''
#include "half_of.h"
struct Half { long long a; char b; };
extern "C" __global__ void scale(float* y, const float* x, float s, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = s * x[i];
}
extern "C" __global__ void strided(float* y, const float* x, int n, long long sy, long long sx) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) y[i * sy] = 2 * x[i * sx];
}
extern "C" __global__ void shift_left(float* x, const float* same, int n) {
  float v = threadIdx.x + 1 < n ? same[threadIdx.x + 1] : -1.0f;
  __syncthreads();
  x[threadIdx.x] = v;
}
extern "C" __global__ void large(float* y) { __shared__ float s[12289]; s[threadIdx.x] = 1; y[threadIdx.x] = s[threadIdx.x]; }
extern "C" __global__ void half_of(float* y) { __shared__ float s[8192]; s[threadIdx.x] = 1; y[threadIdx.x] = s[threadIdx.x]; }
extern "C" __global__ void half_too(float* y) { __shared__ float s[8192]; s[threadIdx.x] = 1; y[threadIdx.x] = s[threadIdx.x]; }
extern "C" __global__ void dynamic(float* y, int n) {
  extern __shared__ float s[];
  for (int i = threadIdx.x; i < n; i += blockDim.x) s[i] = i;
  __syncthreads();
  y[threadIdx.x] = s[n - 1 - threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(64, 2) bounded(float* y) { y[threadIdx.x] = 1; }
extern "C" __global__ void mask(const unsigned char* m, const __nv_bfloat16* b, const void* any, double d, bool on, Half h) {}
extern "C" __global__ void deep(float** y) {}
extern "C" __global__ void forever(float* y, int n) { float v = 1; while (n) { v = v * 0.5f + sinf(v); } y[0] = v; }
extern "C" __global__ void busy(int* y, int n) { for (int i = 0; i < n; ++i) __syncthreads(); y[threadIdx.x] = n; }
extern "C" __global__ void fault(float* y, long long far, int zero) { y[far] = threadIdx.x; y[0] = 7 / zero; }
namespace {  template <int N> __global__ void inside(float* y) { y[threadIdx.x] = N; } }
'''.replace('#include "half_of.h"', "#include <cuda_bf16.h>\n#include <cuda_runtime.h>\n#include <stdint.h>  // removed")


@pytest.fixture(scope="module")
def kernels():
    return RawModule(code=SOURCE, name_expressions=["inside<3>"])


def f32(n, value=np.nan):
    return np.full(n, value, np.float32)


ARRAY = f32(64, 1.0)
CUDA_ARRAY = type("ndarray", (), {"__cuda_array_interface__": {}, "__module__": "cupy"})()
BIG = np.zeros(1, np.dtype([("a", np.int64), ("b", np.int64)]))[0]


@pytest.mark.parametrize("name, grid, block, args, shared, sentence", [
    ("scale", (1,), (64,), (ARRAY, ARRAY, np.float32(1)), 0, "4 arguments expected, got 3"),
    ("scale", (1,), (64,), (ARRAY, ARRAY, 1.0, np.int32(3)), 0, "argument 3 must be np.float32, got float64 .*8 bytes"),
    ("scale", (1,), (64,), (ARRAY, ARRAY, np.float32(1), 3), 0, "argument 4 must be np.int32, got int64 .*8 bytes"),
    ("scale", (1,), (64,), (ARRAY, ARRAY, np.float32(1), np.int64(3)), 0, "argument 4 must be np.int32, got int64$"),
    ("scale", (1,), (64,), (ARRAY, ARRAY.astype(np.float64), np.float32(1), np.int32(3)), 0, "argument 2 must be an array of float32, got float64"),
    ("scale", (1,), (64,), (ARRAY, [1.0], np.float32(1), np.int32(3)), 0, "argument 2 must be an array of float32, got list"),
    ("scale", (1,), (64,), (ARRAY, None, np.float32(1), np.int32(3)), 0, "argument 2 must be an array of float32, got NoneType"),
    ("scale", (1,), (64,), (ARRAY, CUDA_ARRAY, np.float32(1), np.int32(3)), 0, "argument 2 is a device array .cupy.*cupy.asnumpy"),
    ("scale", (1,), (64,), (ARRAY, ARRAY, f32(1), np.int32(3)), 0, "argument 3 must be a scalar float32, got an array"),
    ("scale", (1,), (64,), (np.broadcast_to(ARRAY[:1], 64), ARRAY, np.float32(1), np.int32(3)), 0, "argument 1 is read-only"),
    ("mask", (1,), (1,), (ARRAY, ARRAY, ARRAY, np.float64(0), np.bool_(1), BIG), 0, "argument 1 must be an array of uint8"),
    ("mask", (1,), (1,), (ARRAY.view(np.uint8), ARRAY, ARRAY, np.float64(0), np.bool_(1), BIG), 0, "argument 2 must be an array of bfloat16"),
    ("mask", (1,), (1,), (ARRAY.view(np.uint8), ARRAY.view(np.uint16), ARRAY, np.float64(0), np.int8(1), BIG), 0, "argument 5 must be np.bool"),
    ("mask", (1,), (1,), (ARRAY.view(np.uint8), ARRAY.view(np.uint16), ARRAY, np.float64(0), np.bool_(1), np.int64(1)), 0, "16 bytes, got int64 of 8"),
    ("deep", (1,), (1,), (ARRAY,), 0, "pointer to pointers"),
    ("scale", (1,), (2048,), (ARRAY, ARRAY, np.float32(1), np.int32(3)), 0, "at most 1024 threads"),
    ("scale", (1,), (1, 1, 65), (ARRAY, ARRAY, np.float32(1), np.int32(3)), 0, "64 in z"),
    ("scale", (0,), (32,), (ARRAY, ARRAY, np.float32(1), np.int32(3)), 0, "must be positive"),
    ("scale", (1, 70000), (32,), (ARRAY, ARRAY, np.float32(1), np.int32(3)), 0, "within CUDA's limits"),
    ("scale", 1, (32,), (ARRAY, ARRAY, np.float32(1), np.int32(3)), 0, "grid must be a tuple"),
    ("scale", (1,), (32, 1, 1, 1), (ARRAY, ARRAY, np.float32(1), np.int32(3)), 0, "block must be a tuple"),
    ("scale", (1.5,), (32,), (ARRAY, ARRAY, np.float32(1), np.int32(3)), 0, "grid must be whole numbers"),
    ("bounded", (1,), (96,), (ARRAY,), 0, "at most 64 threads .__launch_bounds__"),
    ("large", (1,), (32,), (ARRAY,), 0, "49156 bytes of static shared memory exceed the limit of 49152"),
    ("dynamic", (1,), (32,), (ARRAY, np.int32(4)), 49153, "49153 bytes of dynamic shared memory exceed the limit of 49152"),
    ("half_of", (1,), (32,), (ARRAY,), 20000, "20000 bytes of dynamic shared memory beside 32768 of static"),
    ("dynamic", (1,), (32,), (ARRAY, np.int32(4)), -1, "-1 bytes of dynamic"),
])
def test_refused(kernels, name, grid, block, args, shared, sentence):
    with pytest.raises(HostCudaError, match=f"^{name}: .*{sentence}"):
        kernels.get_function(name)(grid, block, args, shared_mem=shared)


def test_static_memory_counts_by_kernel_and_more_dynamic_memory_on_request(kernels):
    y = f32(64)
    kernels.get_function("half_of")((1,), (64,), (y,))  # with half_too's the module has more than 48 KiB
    assert (y == 1).all()
    function = kernels.get_function("dynamic")
    function.max_dynamic_shared_size_bytes = 100 << 10
    function((1,), (64,), (y, np.int32(25000)), shared_mem=100000)
    assert (y == 24999 - np.arange(64)).all()
    function.max_dynamic_shared_size_bytes = 1 << 20
    with pytest.raises(HostCudaError, match="limit of 232448"):
        function((1,), (64,), (y, np.int32(4)), shared_mem=1 << 19)


def test_name_expressions_and_raw_kernel(kernels):
    y = f32(4)
    kernels.get_function("inside<3>")((1,), (4,), (y,))
    assert (y == 3).all()
    with pytest.raises(HostCudaError, match="no kernel 'outside'"):
        kernels.get_function("outside")
    one = RawKernel('extern "C" __global__ void f(float* y) { y[threadIdx.x] = N; }', "f", options=("-DN=5",))
    one((1,), (4,), (y,))
    assert (y == 5).all()


def strided(kernels, y, x):
    kernels.get_function("strided")((1,), (32,), (y, x, np.int32(x.size), np.int64(y.strides[0] // 4), np.int64(x.strides[0] // 4)))


def test_views_arrive_as_they_are(kernels, rng):
    base = rng.standard_normal((50, 3)).astype(np.float32)
    for x in (base[:, 1], base[::-1, 2], base[::2, 0], np.asfortranarray(base)[:, 1]):
        y = f32((len(x), 2))[::-1, 0]
        strided(kernels, y, x)
        assert (y == 2 * x).all()
    both, before = base.copy(), base.copy()
    strided(kernels, both[:, 0], both[:, 1])  # interleaved views of one array share its memory
    assert (both[:, 0] == 2 * before[:, 1]).all() and (both[:, 1:] == before[:, 1:]).all()


def test_aliases_see_each_other_and_gaps_are_guarded(kernels):
    x = np.arange(32, dtype=np.float32)
    kernels.get_function("shift_left")((1,), (32,), (x, x, np.int32(32)))
    assert (x == np.append(np.arange(1, 32), -1)).all()
    y = f32(0)
    kernels.get_function("scale")((1,), (32,), (y, y, np.float32(1), np.int32(0)))
    with pytest.raises(HostCudaError, match="past the end of argument 2"):
        kernels.get_function("scale")((1,), (32,), (f32(8), y, np.float32(1), np.int32(1)))


def test_null_pointers_are_passed_and_found(kernels):
    with pytest.raises(HostCudaError, match="read through a null pointer"):
        kernels.get_function("scale")((1,), (32,), (f32(8), np.uint64(0), np.float32(1), np.int32(1)))


@pytest.mark.parametrize("code, sentence", [
    ('extern "C" __global__ void f(int* y) {\n  y[0] = x;\n}', r"kernel.cu does not compile:\n(.*\n)?kernel.cu:2:10: error: .x. was not declared"),
    ("// nothing", "kernel.cu defines no __global__ function"), ("template <int N> __global__ void f() {}", "needs its name in name_expressions"),
    ('extern "C" __global__ void f() {\n  /* asm("x") */\n  asm volatile("bar.sync 0;");\n}', "kernel.cu:3: inline PTX"),
    ('extern "C" __global__ void f(float* y) { y[0] = INFINITY; }', "INFINITY"),
    ('extern "C" __global__ int f(float* y) { return 1; }', "defines no __global__"),
])
def test_source_errors(code, sentence):
    with pytest.raises(HostCudaError, match=sentence) as caught:
        RawModule(code=code)
    assert str(build.HERE) not in str(caught.value) and "/tmp" not in str(caught.value)


def test_module_arguments(tmp_path):
    with pytest.raises(HostCudaError, match="no such kernel.*\n(.*\n)*.*inside"):
        RawModule(code=SOURCE, name_expressions=["inside<3, 4>"])
    for wrong in ({}, {"code": "x", "path": "y"}):
        with pytest.raises(TypeError, match="either code or path"):
            RawModule(**wrong)
    with pytest.raises(ValueError, match="order must be one of"):
        RawModule(code=SOURCE, order="sideways")
    with pytest.raises(ValueError, match="time_limit must be a positive"):
        RawModule(code=SOURCE, time_limit=0)
    (tmp_path / "mine.cu").write_text('extern "C" __global__ void f(float* y) {\n  y[threadIdx.x] = 1;\n}')
    with pytest.raises(HostCudaError, match=r"f at mine.cu:2, thread \(4, 0, 0\)"):
        RawModule(path=tmp_path / "mine.cu").get_function("f")((1,), (8,), (f32(4),))


def test_without_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    build.compiler.cache_clear()
    try:
        with pytest.raises(HostCudaError, match="g\\+\\+ is not installed .Debian, Ubuntu: apt install g\\+\\+"):
            RawModule(code='extern "C" __global__ void f(float* y) { y[0] = 71; }')
    finally:
        build.compiler.cache_clear()


def test_cache_in_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = cache.cache_folder("hostcuda")
    assert folder.is_dir() and os.access(folder, os.W_OK) and tmp_path not in folder.parents
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    y = f32(4)
    RawModule(code='extern "C" __global__ void f(float* y) { y[threadIdx.x] = 2; }').get_function("f")((1,), (4,), (y,))
    made = tmp_path / "refimpl-diffusion-gan" / "hostcuda"
    assert (y == 2).all() and sorted(p.suffix for p in made.iterdir()) == [".json", ".o", ".so"]


def test_time_limit_in_any_thread_and_for_any_loop():
    limited = RawModule(code=SOURCE, name_expressions=["inside<3>"], time_limit=0.2)
    unchecked = RawModule(code=SOURCE, name_expressions=["inside<3>"], time_limit=0.2, checked=False)
    sentences = []

    def run(module):
        started = time.thread_time()
        with pytest.raises(HostCudaError, match="did not end within its time limit of 0.2 s") as caught:
            module.get_function("forever")((1,), (64,), (f32(4), np.int32(1)))
        sentences.append(str(caught.value))
        assert time.thread_time() - started < 1

    for module in (limited, unchecked):
        run(module)
        other = threading.Thread(target=run, args=(module,))
        other.start()
        other.join()
    assert len(sentences) == 4


def test_launches_of_several_threads_take_turns(kernels):
    results = {}

    def run(i):
        y = np.zeros(64, np.int32)
        for _ in range(5):
            kernels.get_function("busy")((2 - i % 2,), (32,), (y, np.int32(i + 1))) if i % 2 else kernels.get_function(
                "busy")((1,), (64,), (y, np.int32(i + 1)))
        results[i] = y

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all((results[i][:32] == i + 1).all() for i in range(6))


def test_faults_of_unchecked_code_are_exceptions():
    module = RawModule(code=SOURCE, name_expressions=["inside<3>"], checked=False)
    with pytest.raises(HostCudaError, match="memory that does not exist"):
        module.get_function("fault")((1,), (64,), (f32(4), np.int64(1 << 44), np.int32(1)))
    with pytest.raises(HostCudaError, match="division by zero"):
        module.get_function("fault")((1,), (64,), (f32(4), np.int64(0), np.int32(0)))


def test_alarms_of_the_user_are_left_alone():
    code = ("import signal, time, numpy as np; from kernels.hostcuda import RawModule\n"
            "seen = []; signal.signal(signal.SIGALRM, lambda *_: seen.append(1)); signal.signal(signal.SIGURG, lambda *_: seen.append(2))\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
            "f = RawModule(code='extern \"C\" __global__ void f(int* y, int n) { for (int i = 0; i < n; ++i) __syncthreads(); y[0] = n; }').get_function('f')\n"
            "y = np.zeros(1, np.int32)\nf((1,), (1,), (y, np.int32(300000)))\ntime.sleep(0.1)\n"
            "assert seen == [1] and y[0] == 300000, (seen, y); signal.raise_signal(signal.SIGURG); assert seen == [1, 2]\n")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=build.HERE.parents[1])


def test_the_face_is_cupys():
    assert {"RawModule", "RawKernel", "PtxModule", "jit", "traffic", "HostCudaError"} <= set(dir(hostcuda))


def test_launch_bounds_of_a_template_are_its_instances():
    code = ("template <int A, int B> __global__ void __launch_bounds__((A / B) * 32, 2) f(float* y)\n"
            "{ y[threadIdx.x] = 1; }\ntemplate <int N> __global__ void __launch_bounds__(N) g(float* y) { y[threadIdx.x] = 2; }")
    module = RawModule(code=code, name_expressions=["f<8, 4>", "g<32>"])
    for name, most in (("f<8, 4>", 64), ("g<32>", 32)):
        y = np.zeros(1024, np.float32)
        module.get_function(name)((1,), (most,), (y,))
        assert np.count_nonzero(y) == most
        with pytest.raises(HostCudaError, match=rf"{name} .*at most {most} threads \(__launch_bounds__\), got {most + 1}"):
            module.get_function(name)((1,), (most + 1,), (y,))
