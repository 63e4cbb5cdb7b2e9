"""Sums over images in both memory orders: in a register over a block of vectors, then over blocks."""
import numpy as np

from .jit import helper
from .memory import load, load_first, load_up_to, store_up_to
from .simd import WIDTH, fma, splat, total

BLOCK = 32  # vectors summed in a register before they join the total: short chains of additions, small errors


@helper
def column_sums(to, x, rows, count, row, mean, squared):
    """Sums of `count` columns over rows that are `row` elements apart: of x, or of (x - mean)^2."""
    for j in range(0, count, WIDTH):
        store_up_to(to + 4 * j, splat(0.0), count - j)
    for first in range(0, rows, BLOCK):
        last = min(first + BLOCK, rows)
        for j in range(0, count, WIDTH):
            s, mu = splat(0.0), load_up_to(mean + 4 * j, count - j)
            for p in range(first, last):
                v = load_up_to(x + 4 * (p * row + j), count - j)
                if squared:
                    v = v - mu
                    s = fma(v, v, s)
                else:
                    s = s + v
            store_up_to(to + 4 * j, s + load_up_to(to + 4 * j, count - j), count - j)


@helper
def run_sum(x, length, mean, squared):
    """Sum over contiguous memory: of x, or of (x - mean)^2."""
    s, mu = np.float32(0), splat(mean)
    filler = mu if squared else splat(0.0)  # in lanes behind the end, so that they add 0
    for first in range(0, length, BLOCK * WIDTH):
        part, last = splat(0.0), min(first + BLOCK * WIDTH, length)
        for i in range(first, last, WIDTH):
            v = load(x + 4 * i) if i + WIDTH <= last else load_first(x + 4 * i, last - i, filler)
            if squared:
                v = v - mu
                part = fma(v, v, part)
            else:
                part = part + v
        s += total(part)
    return s
