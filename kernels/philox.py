"""The noise of refimpl.ops.normal inside a kernel: Philox words bit for bit, normals in float32 from the same words.

WIDTH counters at a time in registers, so that noise never touches memory: 64 numbers for vectors of 16.
"""
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .jit import helper
from .simd import I32, I64, INT_LANES, LANES, WIDTH, int_lanes, lanes, llvm_call, mul_add, vector

GROUP = 4 * WIDTH  # numbers that WIDTH counters give
LONG_LANES = ir.VectorType(I64, WIDTH)  # 32-bit words in 64 bits, so that products need no wider type

_LOW = 2**32 - 1


def _long(value):
    return ir.Constant(LONG_LANES, [value] * WIDTH)


def _everywhere(builder, x):
    one = builder.insert_element(ir.Constant(LONG_LANES, ir.Undefined), builder.and_(x, I64(_LOW)), I32(0))
    return builder.shuffle_vector(one, ir.Constant(LONG_LANES, ir.Undefined), int_lanes(0))


@intrinsic
def words(typing, block, index, draw, key0, key1):
    """The four words of counters (block + lane, index, draw, 0), as the bits of four vectors."""
    def code(context, builder, sig, args):
        block, index, draw, a, b = args
        c0 = builder.and_(builder.add(_everywhere(builder, block), ir.Constant(LONG_LANES, list(range(WIDTH)))), _long(_LOW))
        c1, c2, c3 = _everywhere(builder, index), _everywhere(builder, draw), _long(0)
        for _ in range(10):
            p0, p1 = builder.mul(_long(0xD2511F53), c0), builder.mul(_long(0xCD9E8D57), c2)
            high0, high1 = builder.lshr(p0, _long(32)), builder.lshr(p1, _long(32))
            c0 = builder.xor(builder.xor(high1, c1), _everywhere(builder, a))
            c2 = builder.xor(builder.xor(high0, c3), _everywhere(builder, b))
            c1, c3 = builder.and_(p1, _long(_LOW)), builder.and_(p0, _long(_LOW))
            a, b = builder.add(a, I64(0x9E3779B9)), builder.add(b, I64(0xBB67AE85))
        words = [builder.bitcast(builder.trunc(c, INT_LANES), LANES) for c in (c0, c1, c2, c3)]
        return context.make_tuple(builder, sig.return_type, words)
    return types.UniTuple(vector, 4)(*[types.uint64] * 5), code


@intrinsic
def _radius(typing, word):
    """sqrt(-2 log u), u = 1 - (word >> 8) 2^-24: the logarithm of the Cephes library (Moshier 1992, logf).

    Near 1, where the textbook's u would have lost its digits, u - 1 is exact and so is the result to 2 ulp.
    """
    def code(context, builder, sig, args):
        word = builder.bitcast(args[0], INT_LANES)
        u = mul_add(builder, builder.sitofp(builder.lshr(word, int_lanes(8)), LANES), lanes(-2.0**-24), lanes(1))
        bits = builder.bitcast(u, INT_LANES)
        # u = 2^exponent (1 + f), 1 + f in [sqrt(1/2), sqrt(2))
        exponent = builder.ashr(builder.sub(bits, int_lanes(0x3F3504F3)), int_lanes(23))
        f = builder.fsub(builder.bitcast(builder.sub(bits, builder.shl(exponent, int_lanes(23))), LANES), lanes(1))
        e, p = builder.sitofp(exponent, LANES), lanes(_LOG[0])
        for c in _LOG[1:]:
            p = mul_add(builder, p, f, lanes(c))
        square = builder.fmul(f, f)
        small = mul_add(builder, e, lanes(-2.12194440e-4), builder.fmul(builder.fmul(p, f), square))
        small = mul_add(builder, lanes(-0.5), square, small)
        log = mul_add(builder, e, lanes(0.693359375), builder.fadd(f, small))
        return llvm_call(builder, f"llvm.sqrt.v{WIDTH}f32", LANES, builder.fmul(lanes(-2), log))
    return vector(vector), code


_LOG = (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
        2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)


def _quarter_sine(builder, t):
    """sin(pi t/2) for t in [0, 1], to 2^-23; minimax polynomial, its first coefficient in two parts."""
    s, q = builder.fmul(t, t), lanes(1.5082056052051485e-4)
    for c in (-4.672227914012894e-3, 7.968848053341354e-2, -6.459633598639698e-1):
        q = mul_add(builder, q, s, lanes(c))
    return mul_add(builder, t, lanes(1.5707963705062866), builder.fmul(t, mul_add(builder, s, q, lanes(-8.0484265e-8))))


@intrinsic
def _pair(typing, radius, word):
    """radius (cos, sin) of the angle: the two top bits are the quadrant, the 24 below them the place in it."""
    def code(context, builder, sig, args):
        r, word = args[0], builder.bitcast(args[1], INT_LANES)
        place = builder.and_(builder.lshr(word, int_lanes(6)), int_lanes(2**24 - 1))
        t = builder.fmul(builder.sitofp(place, LANES), lanes(2.0**-24))
        cos, sin = _quarter_sine(builder, builder.fsub(lanes(1), t)), _quarter_sine(builder, t)
        odd = builder.icmp_signed("<", builder.shl(word, int_lanes(1)), int_lanes(0))
        # The signs are the top bit, of quadrants 1 and 2 for the cosine and of 2 and 3 for the sine.
        top = int_lanes(-2**31)
        signs = builder.xor(word, builder.shl(word, int_lanes(1))), word
        pair = [builder.fmul(r, builder.bitcast(builder.xor(builder.bitcast(v, INT_LANES), builder.and_(sign, top)), LANES))
                for v, sign in zip((builder.select(odd, sin, cos), builder.select(odd, cos, sin)), signs)]
        return context.make_tuple(builder, sig.return_type, pair)
    return types.UniTuple(vector, 2)(vector, vector), code


@intrinsic
def _in_turn(typing, a, b, c, d):
    """a, b, c and d's first lanes, then their second ones, ...: four vectors."""
    def code(context, builder, sig, args):
        def woven(u, v, by):
            picks = [i // by % 2 * WIDTH + i // (2 * by) * by + i % by for i in range(2 * WIDTH)]
            return [builder.shuffle_vector(u, v, ir.Constant(INT_LANES, picks[k:k + WIDTH])) for k in (0, WIDTH)]

        pairs = zip(woven(*args[:2], 1), woven(*args[2:], 1))
        return context.make_tuple(builder, sig.return_type, [y for ab, cd in pairs for y in woven(ab, cd, 2)])
    return types.UniTuple(vector, 4)(*[vector] * 4), code


@helper
def normals(block, index, draw, key0, key1):
    """Elements 4 block to 4 block + GROUP - 1 of a sample's noise, four vectors."""
    w0, w1, w2, w3 = words(block, index, draw, key0, key1)
    a, b = _pair(_radius(w0), w1)
    c, d = _pair(_radius(w2), w3)
    return _in_turn(a, b, c, d)
