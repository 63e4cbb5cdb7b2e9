"""Noising in Numba CUDA: the twin of q_sample.cu's vector kernel, one or two blocks of noise a thread."""
from numba import cuda, float32, int32

from kernels.philox_twin import PITCH, noise_of, run_of, share_noise, turned
from kernels.twins import FLOATS, INT, WORD, WORDS, kernel
from kernels.versions import Version, only

from . import cupy_cuda as launcher


@kernel(*[FLOATS] * 5, WORDS, WORD, WORD, WORD, INT, INT, INT)
def q_sample_vector(x_t, x0, z, signal, noise, index, key_lo, key_hi, draw, whole, samples, size):
    """x_t = signal x0 + noise z, z given or formed from the counter."""
    made = cuda.shared.array((4, PITCH), float32)
    each = (1 if whole else 2) * cuda.blockDim.x
    first = cuda.blockIdx.x * each
    count = min(each, samples * ((size + 3) // 4) - first)
    if z.size == 0:
        share_noise(made, first, count, size, index, draw, key_lo, key_hi)
    start, length, head = run_of(first, count, size)
    known, s, r = int32(-1), float32(0), float32(0)
    for j in range(cuda.threadIdx.x, length, cuda.blockDim.x):
        i = turned(j, start, length, head)
        n = i // size
        if n != known:
            known, s, r = n, signal[n], noise[n]
        x_t[i] = s * x0[i] + r * (noise_of(made, first, n, i - n * size, size) if z.size == 0 else z[i])


FUNCTIONS = only("vector", launcher.FUNCTIONS)
VERSIONS = [Version(launcher.q_sample, "vector", "fused")]
