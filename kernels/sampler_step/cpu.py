"""The sampling step and q_sample on the CPU: one pass over memory, noise formed in registers on the way."""
import numpy as np
from numba import int64, prange, uint64

from ..arrays import NONE, flat, write
from ..contract import Kernel, register
from ..jit import IN, INT, OUT, helper, inlined, kernel, scratch, threads
from ..memory import address, fence, load_up_to, store, store_up_to, stream
from ..philox import GROUP, normals
from ..simd import WIDTH, clip, fma, splat

_W, _A, _B, _LO, _HI, _CX, _C0, _CE, _SIGMA, _CH = range(10)  # columns of a sample's coefficients
RUN = 1 << 13  # elements that a worker takes at a time
STREAMED = 1 << 24  # bytes of a step, about half a last cache: of more than that, no estimate is there when it is next read
_NO_WORDS, _NO_ADDRESSES = np.empty(0, np.uint64), np.empty(0, np.int64)


@helper
def _vectors(coefficients):
    return (splat(coefficients[_W]), splat(coefficients[_A]), splat(coefficients[_B]), splat(coefficients[_LO]),
            splat(coefficients[_HI]), splat(coefficients[_CX]), splat(coefficients[_C0]), splat(coefficients[_CE]),
            splat(coefficients[_SIGMA]))


@helper
def _address(a):
    return address(a) if a.size else 0


@inlined
def _mean(x0, x, e_c, e_u, history, at, count, past, coefficients, c):
    """The step of min(count, WIDTH) elements, at bytes from the start, but for its noise; fills x0 there.

    Inlined, so that a constant count tests nothing. Without e_c it is q_sample's c_x x.
    """
    v = load_up_to(x + at, count)
    y = c[_CX] * v
    if e_c != 0:
        e = load_up_to(e_c + at, count)
        if e_u != 0:
            u = load_up_to(e_u + at, count)
            e = fma(c[_W], e - u, u)
        estimate = clip(fma(c[_A], v, c[_B] * e), c[_LO], c[_HI])
        if past:
            stream(x0 + at, estimate)
        else:
            store_up_to(x0 + at, estimate, count)
        y = fma(c[_CE], e, fma(c[_C0], estimate, y))
        for j in range(history.size):
            y = fma(splat(coefficients[_CH + j]), load_up_to(history[j] + at, count), y)
    return y


@helper
def _update(x_s, x0, x, e_c, e_u, z, history, first, start, stop, past, coefficients):
    """Elements start to stop of the sample that is `first` bytes behind the batch's start; past: the estimate goes past
    the caches. Addresses are of the batch's first element, 0 for no array.
    """
    c, whole = _vectors(coefficients), start + (stop - start) // WIDTH * WIDTH
    for i in range(start, whole, WIDTH):
        at = first + 4 * i
        y = _mean(x0, x, e_c, e_u, history, at, WIDTH, past, coefficients, c)
        store(x_s + at, fma(c[_SIGMA], load_up_to(z + at, WIDTH), y) if z != 0 else y)
    if whole < stop:
        at, count = first + 4 * whole, stop - whole
        y = _mean(x0, x, e_c, e_u, history, at, count, False, coefficients, c)
        store_up_to(x_s + at, fma(c[_SIGMA], load_up_to(z + at, count), y) if z != 0 else y, count)


@helper
def _drawn(x_s, x0, x, e_c, e_u, buffer, history, first, start, stop, past, coefficients, index, draw, key0, key1):
    """As _update, with the noise of the counter; start is a multiple of four."""
    c, whole = _vectors(coefficients), start + (stop - start) // GROUP * GROUP
    for i in range(start, whole, GROUP):
        at = first + 4 * i
        for z in normals(i // 4, index, draw, key0, key1):
            y = _mean(x0, x, e_c, e_u, history, at, WIDTH, past, coefficients, c)
            store(x_s + at, fma(c[_SIGMA], z, y))
            at += 4 * WIDTH
    if whole < stop:
        at = buffer
        for z in normals(whole // 4, index, draw, key0, key1):
            store(at, z)
            at += 4 * WIDTH
        _update(x_s, x0, x, e_c, e_u, buffer - first - 4 * whole, history, first, whole, stop, past, coefficients)


@kernel((OUT, OUT, IN, IN, IN, IN, int64[::1], IN, uint64[::1], OUT, INT, INT, INT, INT))
def _step(x_s, x0, x, e_c, e_u, z, history, coefficients, random, buffers, n, m, columns, workers):
    """Samples in runs, shared out to the workers; without e_c it is q_sample. An array of size 0 is none; random:
    nothing, or the key's low and high word, the draw, and the samples' indices. A sample's coefficients start columns
    behind those of the one before.

    A sample's first run takes the elements before a vector's boundary in x0 along: a vector across two cache lines takes
    as long as two. Where they are no whole blocks of noise there is no boundary to be had.
    """
    runs = -(-m // RUN)
    from_e, from_u, from_z = _address(e_c), _address(e_u), _address(z)
    for worker in prange(workers):
        for task in range(n * runs * worker // workers, n * runs * (worker + 1) // workers):
            sample, k = task // runs, task % runs
            first, own = 4 * sample * m, coefficients[sample * columns:]
            head = -(address(x0) + first) // 4 % WIDTH
            past = 16 * x.size > STREAMED and head % 4 == 0
            head = min(m, head if head % 4 == 0 else 0)
            start, stop = head + k * RUN, min(m, head + (k + 1) * RUN)
            for begin, end in ((0, head if k == 0 else 0), (start, stop)):
                if begin >= end:
                    continue
                if random.size:
                    _drawn(address(x_s), address(x0), address(x), from_e, from_u, address(buffers) + 4 * GROUP * worker,
                           history, first, begin, end, past, own, random[3 + sample], random[2], random[0], random[1])
                else:
                    _update(address(x_s), address(x0), address(x), from_e, from_u, from_z, history, first, begin, end, past,
                            own)
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
    workers = min(threads(), n * -(-m // RUN))
    if isinstance(z, tuple):
        key, index, draw = z
        random = np.concatenate([np.array([key & 2**32 - 1, key >> 32, draw], np.uint64), np.asarray(index, np.uint64)])
        z = None
    flats = [NONE if a is None else flat(a) for a in (x, e_c, e_u, z)]
    past = [flat(h) for h in history]  # named, so that what the addresses point to stays alive
    at = np.array([h.ctypes.data for h in past], np.int64) if past else _NO_ADDRESSES
    _step(x_s, x0, *flats, at, coefficients, random, scratch(workers * GROUP), n, m, columns, workers)


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
