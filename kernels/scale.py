"""One number for every sample and channel of channels-last images: to scale by, or a sum over space."""
from numba import prange

from .jit import IN, INT, OUT, helper, kernel
from .memory import address, load_up_to, store_up_to
from .simd import WIDTH, fma, splat
from .sums import BLOCK


@kernel((OUT, IN, IN, INT, INT, INT))
def scale(y, x, s, n, pixels, c):
    """y (n, pixels, c) = x times s (n, c); y may be x."""
    blocks = -(-pixels // BLOCK)
    for task in prange(n * blocks):
        sample, first = task // blocks, task % blocks * BLOCK
        last = min(first + BLOCK, pixels)
        for j in range(0, c, WIDTH):
            v = load_up_to(address(s) + 4 * (sample * c + j), c - j)
            for p in range(first, last):
                at = 4 * ((sample * pixels + p) * c + j)
                store_up_to(address(y) + at, load_up_to(address(x) + at, c - j) * v, c - j)


@helper
def _dot(to, a, b, pixels, c, count):
    """Sum over pixels of a b, for up to WIDTH channels; in blocks, so that chains of additions stay short."""
    whole = splat(0.0)
    for first in range(0, pixels, BLOCK):
        part = splat(0.0)
        for p in range(first, min(first + BLOCK, pixels)):
            part = fma(load_up_to(a + 4 * p * c, count), load_up_to(b + 4 * p * c, count), part)
        whole = whole + part
    store_up_to(to, whole, count)


@kernel((OUT, IN, IN, INT, INT, INT))
def dots(to, a, b, n, pixels, c):
    """to (n, c) = sum over pixels of a b, both (n, pixels, c)."""
    strips = -(-c // WIDTH)
    for task in prange(n * strips):
        sample, j = task // strips, task % strips * WIDTH
        shift = 4 * (sample * pixels * c + j)
        _dot(address(to) + 4 * (sample * c + j), address(a) + shift, address(b) + shift, pixels, c, c - j)
