"""The noise of refimpl.ops.normal inside a kernel: Philox words bit for bit, normals in float32 from the same words.

Three loops over chunks that stay in the first cache, each simple enough for LLVM to vectorise: words, normals, and
whatever the kernel does with them.
"""
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .jit import helper

BLOCKS = 512  # counters a chunk holds: four words and four normals each
WORDS = 4 * BLOCKS

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _HALF = np.uint64(2**32 - 1), np.uint64(32)


@helper
def _words(w0, w1, w2, w3, first, index, draw, k0, k1):
    """Words of counters (first + i, index, draw, 0): 32-bit values in uint64, so that products need no wider type."""
    for i in range(w0.size):
        c0, c1, c2, c3 = first + np.uint64(i), index, draw, np.uint64(0)
        a, b = k0, k1
        for _ in range(10):
            p0, p1 = _M0 * c0, _M1 * c2
            c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ a, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ b, p0 & _LOW
            a, b = (a + _W0) & _LOW, (b + _W1) & _LOW
        w0[i], w1[i], w2[i], w3[i] = c0, c1, c2, c3


def _float_intrinsic(result, argument, code):
    @intrinsic
    def f(typing, x):
        return result(argument), lambda context, builder, sig, args: code(builder, args[0])
    return f


_bits = _float_intrinsic(types.int32, types.float32, lambda b, x: b.bitcast(x, ir.IntType(32)))
_from_bits = _float_intrinsic(types.float32, types.int32, lambda b, x: b.bitcast(x, ir.FloatType()))
_sqrt = _float_intrinsic(types.float32, types.float32, lambda b, x: b.call(
    b.module.declare_intrinsic("llvm.sqrt", [ir.FloatType()]), [x]))
f32 = np.float32


@helper
def _radius(word):
    """sqrt(-2 log u), u = 1 - (word >> 8) 2^-24: the logarithm of the Cephes library (Moshier 1992, logf).

    Near 1, where the textbook's u would have lost its digits, u - 1 is exact and so is the result to 2 ulp.
    """
    u = f32(1) - f32(np.int32(word >> np.uint64(8))) * f32(2.0**-24)
    bits = _bits(u)
    exponent = (bits - np.int32(0x3F3504F3)) >> np.int32(23)  # u = 2^exponent (1 + f), 1 + f in [sqrt(1/2), sqrt(2))
    f = _from_bits(bits - (exponent << np.int32(23))) - f32(1)
    e = f32(exponent)
    p = f32(7.0376836292e-2)
    p = p * f + f32(-1.1514610310e-1)
    p = p * f + f32(1.1676998740e-1)
    p = p * f + f32(-1.2420140846e-1)
    p = p * f + f32(1.4249322787e-1)
    p = p * f + f32(-1.6668057665e-1)
    p = p * f + f32(2.0000714765e-1)
    p = p * f + f32(-2.4999993993e-1)
    p = p * f + f32(3.3333331174e-1)
    square = f * f
    small = p * f * square + e * f32(-2.12194440e-4) - f32(0.5) * square
    return _sqrt(f32(-2) * (f + small + e * f32(0.693359375)))


@helper
def _quarter_sine(t):
    """sin(pi t/2) for t in [0, 1], to 2^-23; minimax polynomial, its first coefficient in two parts."""
    s = t * t
    q = f32(1.5082056052051485e-4) * s + f32(-4.672227914012894e-3)
    q = q * s + f32(7.968848053341354e-2)
    q = q * s + f32(-6.459633598639698e-1)
    return t * f32(1.5707963705062866) + t * (s * q + f32(-8.0484265e-8))


@helper
def _pair(radius, word):
    """radius (cos, sin) of the angle: the two top bits are the quadrant, the 24 below them the place in it."""
    t = f32(np.int32((word >> np.uint64(6)) & np.uint64(2**24 - 1))) * f32(2.0**-24)
    quadrant = np.int32(word >> np.uint64(30))
    cos, sin = _quarter_sine(f32(1) - t), _quarter_sine(t)
    odd, low = quadrant & 1 == 1, quadrant < 2
    a, b = (sin, cos) if odd else (cos, sin)
    return radius * (-a if odd == low else a), radius * (b if low else -b)


@helper
def _normals(z, w0, w1, w2, w3):
    for i in range(w0.size):
        a, b = _pair(_radius(w0[i]), w1[i])
        c, d = _pair(_radius(w2[i]), w3[i])
        z[4 * i], z[4 * i + 1], z[4 * i + 2], z[4 * i + 3] = a, b, c, d


@helper
def normals(z, words, first, count, index, draw, key0, key1):
    """`count` blocks of four normals of a sample, from block `first` on, to z; words: memory for WORDS uint64."""
    w0, w1 = words[:count], words[BLOCKS:BLOCKS + count]
    w2, w3 = words[2 * BLOCKS:2 * BLOCKS + count], words[3 * BLOCKS:3 * BLOCKS + count]
    _words(w0, w1, w2, w3, np.uint64(first), index, draw, key0, key1)
    _normals(z, w0, w1, w2, w3)
