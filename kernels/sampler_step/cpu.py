"""The sampling step and q_sample on the CPU: one pass over memory, noise formed in the first cache on the way."""
import numpy as np
from numba import int64, prange, uint64

from ..arrays import NONE, flat, write
from ..contract import Kernel, register
from ..jit import IN, INT, OUT, helper, inlined, kernel, scratch, threads
from ..memory import address, fence, load_up_to, store_up_to, stream
from ..philox import BLOCKS, WORDS, normals
from ..simd import WIDTH, clip, fma, splat

_W, _A, _B, _LO, _HI, _CX, _C0, _CE, _SIGMA, _CH = range(10)  # columns of a sample's coefficients
STREAMED = 1 << 24  # bytes of a step, about half a last cache: of more than that, no estimate is there when it is next read
_NO_WORDS, _NO_ADDRESSES = np.empty(0, np.uint64), np.empty(0, np.int64)


@helper
def _noised(x_s, x, z, length, coefficients):
    """A run of q_sample: c_x x + sigma z."""
    c_x, sigma = splat(coefficients[_CX]), splat(coefficients[_SIGMA])
    for i in range(0, length, WIDTH):
        count = length - i
        store_up_to(x_s + 4 * i, fma(sigma, load_up_to(z + 4 * i, count), c_x * load_up_to(x + 4 * i, count)), count)


@inlined
def _vector(x_s, x0, x, e_c, e_u, z, history, at, count, past, coefficients, w, a, b, lo, hi, c_x, c_0, c_e, sigma):
    """min(count, WIDTH) elements, at bytes from the start; inlined, so that a constant count tests nothing."""
    v, e = load_up_to(x + at, count), load_up_to(e_c + at, count)
    if e_u != 0:
        u = load_up_to(e_u + at, count)
        e = fma(w, e - u, u)
    estimate = clip(fma(a, v, b * e), lo, hi)
    if past:
        stream(x0 + at, estimate)
    else:
        store_up_to(x0 + at, estimate, count)
    y = fma(c_e, e, fma(c_0, estimate, c_x * v))
    for j in range(history.size):
        y = fma(splat(coefficients[_CH + j]), load_up_to(history[j] + at, count), y)
    if z != 0:
        y = fma(sigma, load_up_to(z + at, count), y)
    store_up_to(x_s + at, y, count)


@helper
def _update(x_s, x0, x, e_c, e_u, z, history, first, length, past, coefficients):
    """A run of one sample's elements of the step, from the first on; past: the estimate goes past the caches.

    Addresses are of the batch's first element, 0 for no array; first is where the run starts, in bytes. Whole vectors
    start where x0's memory has a boundary: a vector across two cache lines takes as long as two.
    """
    w, a, b = splat(coefficients[_W]), splat(coefficients[_A]), splat(coefficients[_B])
    lo, hi = splat(coefficients[_LO]), splat(coefficients[_HI])
    c_x, c_0, c_e = splat(coefficients[_CX]), splat(coefficients[_C0]), splat(coefficients[_CE])
    sigma, head = splat(coefficients[_SIGMA]), min(length, -(x0 + first) // 4 % WIDTH)
    end = head + (length - head) // WIDTH * WIDTH
    for i in range(head, end, WIDTH):
        _vector(x_s, x0, x, e_c, e_u, z, history, first + 4 * i, WIDTH, past, coefficients, w, a, b, lo, hi, c_x, c_0, c_e,
                sigma)
    for i, count in ((0, head), (end, length - end)):
        if count:
            _vector(x_s, x0, x, e_c, e_u, z, history, first + 4 * i, count, False, coefficients, w, a, b, lo, hi, c_x, c_0,
                    c_e, sigma)


@kernel((OUT, OUT, IN, IN, IN, IN, int64[::1], IN, uint64[::1], uint64[::1], OUT, INT, INT, INT, INT))
def _step(x_s, x0, x, e_c, e_u, z, history, coefficients, random, words, noise, n, m, columns, workers):
    """Samples in chunks, shared out to the workers; without e_c it is q_sample. An array of size 0 is none; random:
    nothing, or the key's low and high word, the draw, and the samples' indices. A sample's coefficients start columns
    behind those of the one before."""
    run = WORDS if random.size else 16 * WORDS
    past = 16 * x.size > STREAMED
    chunks = -(-m // run)
    for worker in prange(workers):
        buffer = noise[worker * WORDS:(worker + 1) * WORDS]
        for task in range(n * chunks * worker // workers, n * chunks * (worker + 1) // workers):
            sample, chunk = task // chunks, task % chunks
            length, shift = min(run, m - chunk * run), 4 * (sample * m + chunk * run)
            own = coefficients[sample * columns:]
            from_z = address(z) if z.size else 0
            if random.size:
                normals(buffer, words[worker * WORDS:(worker + 1) * WORDS], chunk * BLOCKS, -(-length // 4),
                        random[3 + sample], random[2], random[0], random[1])
                from_z = address(buffer) - shift
            if e_c.size:
                _update(address(x_s), address(x0), address(x), address(e_c), address(e_u) if e_u.size else 0, from_z,
                        history, shift, length, past, own)
            else:
                _noised(address(x_s) + shift, address(x) + shift, from_z + shift, length, own)
        if past:
            fence()


def launch(x_s, x0, x, e_c, e_u, z, history, coefficients):
    """Coefficients: one number or (N,) per column. All arrays flat and C-ordered but for x, which gives the shape."""
    n, m, columns, random = len(x), x.size // len(x), 0, _NO_WORDS
    if not all(isinstance(value, (int, float, np.number)) for value in coefficients):
        columns, table = len(coefficients), np.empty((n, len(coefficients)), np.float32)
        for column, value in enumerate(coefficients):
            table[:, column] = value
        coefficients = table.reshape(-1)
    else:
        coefficients = np.array(coefficients, np.float32)
    words, noise = _NO_WORDS, NONE
    workers = min(threads(), n * -(-m // WORDS))
    if isinstance(z, tuple):
        key, index, draw = z
        random = np.concatenate([np.array([key & 2**32 - 1, key >> 32, draw], np.uint64), np.asarray(index, np.uint64)])
        z, words, noise = None, scratch(workers * WORDS, np.uint64), scratch(workers * WORDS)
    flats = [NONE if a is None else flat(a) for a in (x, e_c, e_u, z)]
    past = [flat(h) for h in history]  # named, so that what the addresses point to stays alive
    at = np.array([h.ctypes.data for h in past], np.int64) if past else _NO_ADDRESSES
    _step(x_s, x0, *flats, at, coefficients, random, words, noise, n, m, columns, workers)


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
