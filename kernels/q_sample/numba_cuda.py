"""Noising in Numba CUDA: the twin of q_sample.cu's vector kernel, a thread a block of four elements."""
from numba import cuda, float32

from kernels.philox_twin import normal4
from kernels.twins import FLOATS, INT, WORD, WORDS, kernel
from kernels.versions import Version, only

from . import cupy_cuda as launcher


@kernel(*[FLOATS] * 5, WORDS, WORD, WORD, WORD, INT, INT, INT)
def q_sample_vector(x_t, x0, z, signal, noise, index, key_lo, key_hi, draw, whole, samples, size):
    """x_t = signal x0 + noise z, z given or formed from the counter."""
    blocks, q = (size + 3) // 4, cuda.grid(1)
    if q >= samples * blocks:
        return
    n, block = q // blocks, q % blocks
    made = cuda.local.array(4, float32)
    if z.size == 0:
        normal4(made, block, index[n], draw, key_lo, key_hi)
    for j in range(min(4, size - 4 * block)):
        i = n * size + 4 * block + j
        x_t[i] = signal[n] * x0[i] + noise[n] * (made[j] if z.size == 0 else z[i])


FUNCTIONS = only("vector", launcher.FUNCTIONS)
VERSIONS = [Version(launcher.q_sample, "vector", "fused")]
