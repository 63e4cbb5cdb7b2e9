"""Between NumPy arrays and what the cpu kernels take: flat float32 memory in one of two orders.

"C" is NumPy's order of the array's own axes; "channels_last" has axis 1 moved to the end, as convolutions write their
results. An array that is in the order asked for is never copied.
"""
import numpy as np
from numba import prange

from .jit import IN, INT, OUT, kernel

NONE = np.empty(0, np.float32)  # in the place of an array that is None
SIDE = 16  # of the square blocks that a transposition works in


@kernel((OUT, IN, INT, INT, INT))
def _transpose(y, x, n, rows, columns):
    """y (n, columns, rows) = x (n, rows, columns) transposed."""
    strips = -(-columns // SIDE)
    for task in prange(n * strips):
        start, first = task // strips * rows * columns, task % strips * SIDE
        last = min(first + SIDE, columns)
        for top in range(0, rows, SIDE):
            height = min(SIDE, rows - top)
            for j in range(first, last):
                to, at = start + j * rows + top, start + top * columns + j
                for i in range(height):
                    y[to + i] = x[at + i * columns]


def moved(x):
    """x (N, C, ...) seen as (N, ..., C)."""
    return x.transpose(0, *range(2, x.ndim), 1)  # np.moveaxis takes as long as a small kernel


def empty_channels_last(n, c, *space):
    """An uninitialised (n, c, *space) array with channels last in memory."""
    y = np.empty((n, *space, c), np.float32)
    return y.transpose(0, y.ndim - 1, *range(1, y.ndim - 1))


def order(x):
    """The order x is in: "C", "channels_last" (where it is not also C), or None."""
    if x.flags.c_contiguous:
        return "C"
    return "channels_last" if x.ndim > 2 and moved(x).flags.c_contiguous else None


def flat(x):
    """x's elements in C order, one axis; a view where x is C-contiguous."""
    if x.size and order(x) == "channels_last":
        y = np.empty(x.size, np.float32)
        _transpose(y, moved(x).reshape(-1), x.shape[0], x[0, 0].size, x.shape[1])
        return y
    return np.ascontiguousarray(x).reshape(-1)


def channels_last(x):
    """x's elements with axis 1 moved last, one axis; a view where x is channels-last."""
    last = moved(x)
    if last.flags.c_contiguous:
        return last.reshape(-1)
    if not x.flags.c_contiguous:
        return np.ascontiguousarray(last).reshape(-1)
    y = np.empty(x.size, np.float32)
    if x.size:
        _transpose(y, x.reshape(-1), x.shape[0], x.shape[1], x[0, 0].size)
    return y


def write(out, memory_order, inputs, compute):
    """Have compute(y) fill flat memory in that order, and bring it to out: at once where out has this order and shares
    no memory with an input."""
    view = moved(out) if memory_order == "channels_last" else out
    if view.flags.c_contiguous and not any(np.may_share_memory(out, x) for x in inputs if x is not None):
        compute(view.reshape(-1))
    else:
        y = np.empty(out.size, np.float32)
        compute(y)
        view[...] = y.reshape(view.shape)


def supported(*arrays):
    """Whether all (None aside) are NumPy arrays of native float32: what kernels take; the reference takes the rest."""
    return all(a is None or (type(a) is np.ndarray and a.dtype == np.float32 and a.dtype.isnative) for a in arrays)
