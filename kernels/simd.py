"""Vectors of float32 as a Numba type: kernels spell out their vector code instead of hoping for LLVM's vectoriser.

WIDTH lanes, the processor's own. Arithmetic is plain IEEE, so NaN and infinity come out as in NumPy; `fma` rounds once
where the processor can.
"""
import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from .jit import features, helper

_FEATURES = features()
WIDTH = 16 if "avx512f" in _FEATURES else 8 if "avx" in _FEATURES else 4
REGISTERS = 16 if "avx" in _FEATURES and WIDTH == 8 else 32 if WIDTH == 16 or "neon" in _FEATURES else 16

F32, I1, I32, I64 = ir.FloatType(), ir.IntType(1), ir.IntType(32), ir.IntType(64)
LANES, INT_LANES = ir.VectorType(F32, WIDTH), ir.VectorType(I32, WIDTH)


class Vector(types.Type):
    """WIDTH float32 numbers in a register."""

    def __init__(self):
        super().__init__(name=f"float32x{WIDTH}")


vector = Vector()


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, LANES)


def _operator(op, instruction):
    @infer_global(op)
    class _Typing(ConcreteTemplate):
        cases = [signature(vector, vector, vector)]  # noqa: RUF012, Numba's form

    @lower_builtin(op, vector, vector)
    def _lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args)


for _op, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"),
                          (operator.truediv, "fdiv")):
    _operator(_op, _instruction)


def llvm_call(builder, name, result, *args):
    """Call an LLVM intrinsic."""
    f = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [a.type for a in args]), name)
    return builder.call(f, args)


def lanes(constant):
    """A float in every lane."""
    return ir.Constant(LANES, [float(constant)] * WIDTH)


def int_lanes(constant):
    """An int32 in every lane."""
    return ir.Constant(INT_LANES, [constant] * WIDTH)


def pointer(builder, address, kind):
    """An integer address as a pointer to a kind of value."""
    return builder.inttoptr(address, kind.as_pointer())


def broadcast(builder, x):
    """A value of float32 in every lane."""
    one = builder.insert_element(ir.Constant(LANES, ir.Undefined), x, I32(0))
    return builder.shuffle_vector(one, ir.Constant(LANES, ir.Undefined), int_lanes(0))


def mul_add(builder, a, b, c):
    """a b + c, rounded once where the processor can."""
    return llvm_call(builder, f"llvm.fmuladd.v{WIDTH}f32", LANES, a, b, c)


@intrinsic
def splat(typing, x):
    """A float32 in every lane."""
    return vector(types.float32), lambda context, builder, sig, args: broadcast(builder, args[0])


@intrinsic
def fma(typing, a, b, c):
    """a b + c."""
    return vector(vector, vector, vector), lambda context, builder, sig, args: mul_add(builder, *args)


def larger(builder, a, b):
    """Lane by lane, the larger; b where a is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def folded(builder, v, join):
    """join of all lanes, pairwise: the upper half onto the lower until one is left."""
    n = WIDTH
    while n > 1:
        n //= 2
        pick = [ir.Constant(ir.VectorType(I32, n), list(range(h, h + n))) for h in (0, n)]
        v = join(*(builder.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), p) for p in pick))
    return builder.extract_element(v, I32(0))


@intrinsic
def total(typing, v):
    """Sum of the lanes."""
    return types.float32(vector), lambda context, builder, sig, args: folded(builder, args[0], builder.fadd)


@intrinsic
def maximum(typing, a, b):
    """Lane by lane, the larger; b where a is NaN."""
    return vector(vector, vector), lambda context, builder, sig, args: larger(builder, *args)


@intrinsic
def largest(typing, v):
    """The largest lane (NaN lanes ignored where another is a number)."""
    return types.float32(vector), lambda context, builder, sig, args: folded(
        builder, args[0], lambda a, b: larger(builder, a, b))


@intrinsic
def clip(typing, v, low, high):
    """v between low and high; two selects, so that NaN passes through."""
    def code(context, builder, sig, args):
        v, low, high = args
        v = builder.select(builder.fcmp_ordered("<", v, low), low, v)
        return builder.select(builder.fcmp_ordered(">", v, high), high, v)
    return vector(vector, vector, vector), code


# exp on [-ln 2/2, ln 2/2]: 1 + r + r^2 p(r), minimax coefficients of the Cephes library (Moshier 1992, expf).
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_LOWEST, _HIGHEST = -87.33, 88.37  # where 2^n below is a normal number
_ROUND = 1.5 * 2**23  # x + this - this is x rounded; the low bits of the sum are that integer


@intrinsic
def exp(typing, v):
    """exp(v), about 1 ulp; arguments are bounded to -87.33 and 88.37, the range of normal numbers; NaN is kept."""
    def code(context, builder, sig, args):
        x = args[0]
        x = builder.select(builder.fcmp_ordered("<", x, lanes(_LOWEST)), lanes(_LOWEST), x)
        x = builder.select(builder.fcmp_ordered(">", x, lanes(_HIGHEST)), lanes(_HIGHEST), x)
        rounded = mul_add(builder, x, lanes(1.44269504088896341), lanes(_ROUND))
        n = builder.fsub(rounded, lanes(_ROUND))
        r = mul_add(builder, n, lanes(-0.693359375), x)
        r = mul_add(builder, n, lanes(2.12194440e-4), r)
        p = lanes(_EXP[0])
        for c in _EXP[1:]:
            p = mul_add(builder, p, r, lanes(c))
        y = builder.fadd(mul_add(builder, builder.fmul(r, r), p, r), lanes(1))
        exponent = builder.shl(builder.bitcast(rounded, INT_LANES), int_lanes(23))
        return builder.fmul(y, builder.bitcast(builder.add(exponent, int_lanes(127 << 23)), LANES))
    return vector(vector), code


@intrinsic
def where_less(typing, a, b, then, otherwise):
    """Lane by lane, then where a < b, else otherwise (also where a or b is NaN)."""
    def code(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("<", *args[:2]), *args[2:])
    return vector(vector, vector, vector, vector), code


@helper
def sigmoid(v):
    """1/(1 + exp(-v)); 4e-39 where that is less, which no sum in float32 sees."""
    one = splat(1.0)
    return one / (one + exp(splat(0.0) - v))
