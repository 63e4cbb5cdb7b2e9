"""The sampling step in Numba CUDA: the twin of sampler_step.cu's vector kernel, a block of noise a thread."""
from functools import cache

from numba import cuda, float32, int32

from kernels.philox_twin import PITCH, noise_of, run_of, share_noise, turned
from kernels.twins import FLOAT, FLOATS, INT, WORD, WORDS, kernel
from kernels.versions import Version, only

from . import cupy_cuda as launcher


@cache
def sampler_step_vector(quads):
    """The kernel for so many blocks of noise a thread."""
    @kernel(*[FLOATS] * 11, WORDS, WORD, WORD, WORD, *[FLOAT] * 12, INT, INT, INT)
    def sampler_step_vector(x_s, x0_hat, x, e_c, e_u, lo, hi, h0, h1, h2, z, index, key_lo, key_hi, draw, w, a, b, lo_all,
                            hi_all, c_x, c_0, c_e, c_h0, c_h1, c_h2, sigma, whole, samples, size):
        noise = cuda.shared.array((4, PITCH), float32)
        first = cuda.blockIdx.x * cuda.blockDim.x * quads
        count = min(cuda.blockDim.x * quads, samples * ((size + 3) // 4) - first)
        keyed = sigma != 0 and z.size == 0
        if keyed:
            share_noise(noise, first, count, size, index, draw, key_lo, key_hi)
        start, length, head = run_of(first, count, size)
        known, low, high = int32(-1), lo_all, hi_all
        for j in range(cuda.threadIdx.x, length, cuda.blockDim.x):
            i = turned(j, start, length, head)
            n = i // size
            if n != known:
                known, low, high = n, lo[n] if lo.size > 0 else lo_all, hi[n] if hi.size > 0 else hi_all
            e = e_c[i]
            if e_u.size > 0:
                e = e_u[i] + w * (e - e_u[i])
            x0 = a * x[i] + b * e
            x0 = low if x0 < low else high if x0 > high else x0  # NaN passes through
            y = c_x * x[i] + c_0 * x0 + c_e * e
            if h0.size > 0:
                y += c_h0 * h0[i]
            if h1.size > 0:
                y += c_h1 * h1[i]
            if h2.size > 0:
                y += c_h2 * h2[i]
            if keyed:
                y += sigma * noise_of(noise, first, n, i - n * size, size)
            elif sigma != 0:
                y += sigma * z[i]
            x_s[i] = y
            x0_hat[i] = x0

    return sampler_step_vector


FUNCTIONS = only("vector", launcher.FUNCTIONS)
VERSIONS = [Version(launcher.sampler_step, "vector", "fused")]
