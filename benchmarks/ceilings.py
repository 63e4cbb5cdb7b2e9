"""What this machine can do at most, measured beside the kernels: memory, multiply-adds, matrix products, noise."""
import numpy as np
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.jit import INT, OUT, kernel, scratch, threads
from kernels.memory import address, fence, load, store, stream
from kernels.philox import GROUP, normals
from kernels.simd import REGISTERS, WIDTH, fma, mul_add, splat

CHAINS = REGISTERS - 4  # sums that wait for no other: enough to hide a multiply-add's latency
LENGTH = 1 << 16  # multiply-adds of each chain in a call: about a tenth of a millisecond


@intrinsic
def _chains(typing, v, length):
    """CHAINS sums s = v s + v, length times, in registers."""
    def code(context, builder, sig, args):
        v, length = args
        sums = [cgutils.alloca_once_value(builder, v) for _ in range(CHAINS)]
        with cgutils.for_range(builder, length):
            for s in sums:
                builder.store(mul_add(builder, v, builder.load(s), v), s)
        last = builder.load(sums[0])
        for s in sums[1:]:
            last = builder.fadd(last, builder.load(s))
        return last
    return v(v, types.int64), code


@kernel((OUT, INT, INT))
def _multiply_adds(out, length, workers):
    for worker in prange(workers):
        store(address(out) + 4 * WIDTH * worker, _chains(splat(np.float32(0.5)), length))


@kernel((OUT, OUT, OUT, INT))
def _triad(a, b, c, workers):
    runs = a.size // WIDTH
    for worker in prange(workers):
        for i in range(runs * worker // workers, runs * (worker + 1) // workers):
            at = 4 * WIDTH * i
            store(address(a) + at, fma(splat(np.float32(0.5)), load(address(c) + at), load(address(b) + at)))


@kernel((OUT, OUT, OUT, OUT, INT))
def _streamed(a, b, c, d, workers):
    runs = a.size // WIDTH
    for worker in prange(workers):
        for i in range(runs * worker // workers, runs * (worker + 1) // workers):
            at = 4 * WIDTH * i
            store(address(a) + at, fma(splat(np.float32(0.5)), load(address(c) + at), load(address(b) + at)))
            stream(address(d) + at, load(address(c) + at))
        fence()


@kernel((OUT, types.uint64[::1], INT, INT))
def _noise(buffers, key, groups, workers):
    for worker in prange(workers):
        for group in range(groups * worker // workers, groups * (worker + 1) // workers):
            at = address(buffers) + 4 * GROUP * worker
            for z in normals(group * WIDTH, key[0], key[1], key[2], key[3]):
                store(at, z)
                at += 4 * WIDTH


def _aligned(n):
    """n ones that start on a vector's boundary: a vector across two cache lines takes as long as two."""
    memory = np.ones(n + WIDTH, np.float32)
    first = -memory.ctypes.data // 4 % WIDTH
    return memory[first:first + n]


def triad(nbytes):
    """A parallel triad a = b + s c that moves nbytes, and the bytes it moves."""
    n = max(nbytes // 12, 1024) // WIDTH * WIDTH
    a, b, c = (_aligned(n) for _ in range(3))
    return (lambda: _triad(a, b, c, threads())), 12 * n


def streamed(nbytes):
    """The triad with a copy d = c beside it that goes past the caches: faster than the triad where they are full."""
    n = max(nbytes // 16, 1024) // WIDTH * WIDTH
    a, b, c, d = (_aligned(n) for _ in range(4))
    return (lambda: _streamed(a, b, c, d, threads())), 16 * n


def multiply_adds():
    """Multiply-adds in registers on every thread, no memory at all, and their flops: no kernel can do more."""
    out = scratch(threads() * WIDTH)
    return (lambda: _multiply_adds(out, LENGTH, threads())), 2 * LENGTH * CHAINS * WIDTH * threads()


def product(n=1024):
    """NumPy's product of two square float32 matrices, and its flops: what a library reaches of the multiply-adds."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, n, n), dtype=np.float32)
    out = np.empty_like(a)
    return (lambda: np.matmul(a, b, out=out)), 2 * n**3


def noise(numbers):
    """Normal numbers of Philox and Box-Muller into the first cache and no further, and how many."""
    groups, buffers, key = -(-numbers // GROUP), scratch(threads() * GROUP), np.arange(4, dtype=np.uint64)
    return (lambda: _noise(buffers, key, groups, threads())), groups * GROUP
