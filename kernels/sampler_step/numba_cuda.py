"""The sampling step in Numba CUDA: the twin of sampler_step.cu's vector kernel, a thread a block of four elements."""
from functools import cache

from numba import cuda, float32

from kernels.philox_twin import normal4
from kernels.twins import FLOAT, FLOATS, INT, WORD, WORDS, kernel
from kernels.versions import Version, only

from . import cupy_cuda as launcher


@cache
def sampler_step_vector(quads):
    """The kernel; one block of four a thread is all that the twin takes."""
    @kernel(*[FLOATS] * 11, WORDS, WORD, WORD, WORD, *[FLOAT] * 12, INT, INT, INT)
    def sampler_step_vector(x_s, x0_hat, x, e_c, e_u, lo, hi, h0, h1, h2, z, index, key_lo, key_hi, draw, w, a, b, lo_all,
                            hi_all, c_x, c_0, c_e, c_h0, c_h1, c_h2, sigma, whole, samples, size):
        blocks, q = (size + 3) // 4, cuda.grid(1)
        if q >= samples * blocks:
            return
        n, block = q // blocks, q % blocks
        low, high = lo[n] if lo.size > 0 else lo_all, hi[n] if hi.size > 0 else hi_all
        made = cuda.local.array(4, float32)
        keyed = sigma != 0 and z.size == 0
        if keyed:  # one block of noise for four elements
            normal4(made, block, index[n], draw, key_lo, key_hi)
        for j in range(min(4, size - 4 * block)):
            i = n * size + 4 * block + j
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
                y += sigma * made[j]
            elif sigma != 0:
                y += sigma * z[i]
            x_s[i] = y
            x0_hat[i] = x0

    return sampler_step_vector


FUNCTIONS = only("vector", launcher.FUNCTIONS)
VERSIONS = [Version(launcher.sampler_step, "vector", "fused")]
