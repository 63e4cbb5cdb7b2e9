"""The sampling step and q_sample on the CPU: one pass over memory, noise formed in the first cache on the way."""
import numpy as np
from numba import int64, prange, uint64

from ..arrays import NONE, flat, write
from ..contract import Kernel, register
from ..jit import IN, INT, OUT, helper, kernel, scratch, threads
from ..memory import address, load_up_to, store_up_to
from ..philox import BLOCKS, WORDS, normals
from ..simd import WIDTH, clip, fma, splat

_W, _A, _B, _LO, _HI, _CX, _C0, _CE, _SIGMA, _CH = range(10)  # columns of a sample's coefficients


@helper
def _noised(x_s, x, z, length, coefficients):
    """A run of q_sample: c_x x + sigma z."""
    c_x, sigma = splat(coefficients[_CX]), splat(coefficients[_SIGMA])
    for i in range(0, length, WIDTH):
        count = length - i
        store_up_to(x_s + 4 * i, fma(sigma, load_up_to(z + 4 * i, count), c_x * load_up_to(x + 4 * i, count)), count)


@helper
def _update(x_s, x0, x, e_c, e_u, z, history, shift, length, coefficients):
    """A run of one sample's elements of the step. An address of 0 is no array; those in history are the arrays' own."""
    w, a, b = splat(coefficients[_W]), splat(coefficients[_A]), splat(coefficients[_B])
    lo, hi = splat(coefficients[_LO]), splat(coefficients[_HI])
    c_x, c_0, c_e = splat(coefficients[_CX]), splat(coefficients[_C0]), splat(coefficients[_CE])
    sigma = splat(coefficients[_SIGMA])
    for i in range(0, length, WIDTH):
        count = length - i
        v, e = load_up_to(x + 4 * i, count), load_up_to(e_c + 4 * i, count)
        if e_u != 0:
            u = load_up_to(e_u + 4 * i, count)
            e = fma(w, e - u, u)
        estimate = clip(fma(a, v, b * e), lo, hi)
        store_up_to(x0 + 4 * i, estimate, count)
        y = fma(c_e, e, fma(c_0, estimate, c_x * v))
        for j in range(history.size):
            y = fma(splat(coefficients[_CH + j]), load_up_to(history[j] + shift + 4 * i, count), y)
        if z != 0:
            y = fma(sigma, load_up_to(z + 4 * i, count), y)
        store_up_to(x_s + 4 * i, y, count)


@kernel((OUT, OUT, IN, IN, IN, IN, int64[::1], IN, uint64[::1], uint64[::1], OUT, INT, INT, INT))
def _step(x_s, x0, x, e_c, e_u, z, history, coefficients, random, words, noise, n, m, workers):
    """Samples in chunks of WORDS elements, shared out to the workers; without e_c it is q_sample. An array of size 0 is
    none; random: nothing, or the key's low and high word, the draw, and the samples' indices."""
    chunks, columns = -(-m // WORDS), coefficients.size // n
    for worker in prange(workers):
        buffer = noise[worker * WORDS:(worker + 1) * WORDS]
        for task in range(n * chunks * worker // workers, n * chunks * (worker + 1) // workers):
            sample, chunk = task // chunks, task % chunks
            length, shift = min(WORDS, m - chunk * WORDS), 4 * (sample * m + chunk * WORDS)
            own = coefficients[sample * columns:(sample + 1) * columns]
            from_z = address(z) + shift if z.size else 0
            if random.size:
                normals(buffer, words[worker * WORDS:(worker + 1) * WORDS], chunk * BLOCKS, -(-length // 4),
                        random[3 + sample], random[2], random[0], random[1])
                from_z = address(buffer)
            if e_c.size:
                _update(address(x_s) + shift, address(x0) + shift, address(x) + shift, address(e_c) + shift,
                        address(e_u) + shift if e_u.size else 0, from_z, history, shift, length, own)
            else:
                _noised(address(x_s) + shift, address(x) + shift, from_z, length, own)


def launch(x_s, x0, x, e_c, e_u, z, history, coefficients):
    """Coefficients: one number or (N,) per column. All arrays flat and C-ordered but for x, which gives the shape."""
    n, m = x.shape[0], x[0].size
    table = np.empty((n, len(coefficients)), np.float32)
    for column, value in enumerate(coefficients):
        table[:, column] = value
    random = np.empty(0, np.uint64)
    if isinstance(z, tuple):
        key, index, draw = z
        random = np.concatenate([np.array([key & 2**32 - 1, key >> 32, draw], np.uint64), np.asarray(index, np.uint64)])
        z = None
    workers = min(threads(), n * -(-m // WORDS))
    flats = [NONE if a is None else flat(a) for a in (x, e_c, e_u, z)]
    past = [flat(h) for h in history]  # named, so that what the addresses point to stays alive
    _step(x_s, x0, *flats, np.array([h.ctypes.data for h in past], np.int64), table.reshape(-1), random,
          scratch(workers * WORDS, np.uint64), scratch(workers * WORDS), n, m, workers)


def sampler_step(out, x, e_c, e_u=None, w=1.0, *, a, b, lo=None, hi=None, c_x=0.0, c_0=0.0, c_e=0.0, history=(), c_h=(),
                 z=None, sigma=0.0):
    """Fill out = (x_s, x0_hat)."""
    if not x.size:
        return
    z = None if sigma == 0 else z
    row = (w, a, b, -np.inf if lo is None else lo, np.inf if hi is None else hi, c_x, c_0, c_e, sigma, *c_h)
    inputs = [x, e_c, e_u, *history, None if isinstance(z, tuple) else z, out[0]]
    write(out[1], "C", inputs, lambda x0: write(out[0], "C", inputs[:-1], lambda x_s: launch(
        x_s, x0, x, e_c, e_u, z, history, row)))


register(Kernel("sampler_step", "cpu", "fused", sampler_step))
