"""Memory from inside a kernel: vectors and runs of float32 at addresses.

An address is an int64 in bytes, `address(array)` plus four times an index, so that one function serves every array.
Whoever passes one keeps its array alive and stays inside it; steps between rows are in elements.
"""
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .jit import helper
from .simd import F32, I1, I32, I64, INT_LANES, LANES, WIDTH, int_lanes, llvm_call, pointer, splat, vector


def _mask(builder, count):
    """Lanes below count, an int64."""
    count = builder.trunc(count, I32)
    every = builder.shuffle_vector(builder.insert_element(ir.Constant(INT_LANES, ir.Undefined), count, I32(0)),
                                   ir.Constant(INT_LANES, ir.Undefined), int_lanes(0))
    return builder.icmp_signed("<", ir.Constant(INT_LANES, list(range(WIDTH))), every)


@intrinsic
def address(typing, array):
    """Address of an array's first element. The array must outlive its use."""
    def code(context, builder, sig, args):
        return builder.ptrtoint(context.make_array(sig.args[0])(context, builder, args[0]).data, I64)
    return types.int64(array), code


@intrinsic
def load(typing, at):
    """WIDTH numbers from an address."""
    def code(context, builder, sig, args):
        return builder.load(pointer(builder, args[0], LANES), align=4)
    return vector(types.int64), code


@intrinsic
def store(typing, at, v):
    """WIDTH numbers to an address."""
    def code(context, builder, sig, args):
        builder.store(args[1], pointer(builder, args[0], LANES), align=4)
        return context.get_dummy_value()
    return types.void(types.int64, vector), code


@intrinsic
def stream(typing, at, v):
    """WIDTH numbers to an address on a vector's boundary, past the caches: their line is not read first and keeps
    nothing else out. `fence` before another thread reads them."""
    def code(context, builder, sig, args):
        written = builder.store(args[1], pointer(builder, args[0], LANES), align=4 * WIDTH)
        written.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
        return context.get_dummy_value()
    return types.void(types.int64, vector), code


@intrinsic
def fence(typing):
    """What this thread has written, streamed or not, is there for all that it does next."""
    def code(context, builder, sig, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()
    return types.void(), code


@intrinsic
def load_first(typing, at, count, other):
    """The first `count` < WIDTH numbers from an address, the rest from a vector; touches no memory behind them."""
    def code(context, builder, sig, args):
        return llvm_call(builder, f"llvm.masked.load.v{WIDTH}f32.p0", LANES, pointer(builder, args[0], LANES), I32(4),
                         _mask(builder, args[1]), args[2])
    return vector(types.int64, types.int64, vector), code


@intrinsic
def store_first(typing, at, v, count):
    """The first `count` < WIDTH lanes to an address; touches no memory behind them."""
    def code(context, builder, sig, args):
        llvm_call(builder, f"llvm.masked.store.v{WIDTH}f32.p0", ir.VoidType(), args[1],
                  pointer(builder, args[0], LANES), I32(4), _mask(builder, args[2]))
        return context.get_dummy_value()
    return types.void(types.int64, vector, types.int64), code


@helper
def load_up_to(at, count):
    """min(count, WIDTH) numbers, 0 in the lanes behind them."""
    return load(at) if count >= WIDTH else load_first(at, count, splat(0.0))


@helper
def store_up_to(at, v, count):
    """The first min(count, WIDTH) lanes."""
    if count >= WIDTH:
        store(at, v)
    else:
        store_first(at, v, count)


@intrinsic
def put(typing, at, x):
    """One number to an address."""
    def code(context, builder, sig, args):
        builder.store(args[1], pointer(builder, args[0], F32), align=4)
        return context.get_dummy_value()
    return types.void(types.int64, types.float32), code


@intrinsic
def copy(typing, to, source, count):
    """Copy `count` float32 numbers between addresses that do not overlap."""
    def code(context, builder, sig, args):
        byte = ir.IntType(8)
        llvm_call(builder, "llvm.memcpy.p0.p0.i64", ir.VoidType(), pointer(builder, args[0], byte),
                  pointer(builder, args[1], byte), builder.shl(args[2], I64(2)), I1(0))
        return context.get_dummy_value()
    return types.void(types.int64, types.int64, types.int64), code


@intrinsic
def clear(typing, to, count):
    """Set `count` float32 numbers at an address to 0."""
    def code(context, builder, sig, args):
        byte = ir.IntType(8)
        llvm_call(builder, "llvm.memset.p0.i64", ir.VoidType(), pointer(builder, args[0], byte), byte(0),
                  builder.shl(args[1], I64(2)), I1(0))
        return context.get_dummy_value()
    return types.void(types.int64, types.int64), code


@helper
def move(to, source, count):
    """Copy `count` numbers a vector at a time: sooner done than a call of memcpy where they are few."""
    for i in range(0, count - WIDTH + 1, WIDTH):
        store(to + 4 * i, load(source + 4 * i))
    if count % WIDTH:
        i = count - count % WIDTH
        store_first(to + 4 * i, load_first(source + 4 * i, count - i, splat(0.0)), count - i)


@helper
def wipe(to, count):
    """Set `count` numbers to 0 a vector at a time."""
    for i in range(0, count - WIDTH + 1, WIDTH):
        store(to + 4 * i, splat(0.0))
    if count % WIDTH:
        store_first(to + 4 * (count - count % WIDTH), splat(0.0), count % WIDTH)


@intrinsic
def transpose(typing, to, to_row, source, row):
    """A square of WIDTH by WIDTH numbers, transposed; row steps in elements.

    Blocks of 1, 2, 4, ... trade their off-diagonal halves (Eklundh 1972, IEEE Trans. Comput. C-21).
    """
    def code(context, builder, sig, args):
        to, to_row, source, row = args

        def at(start, step, i):
            return pointer(builder, builder.add(start, builder.mul(step, I64(4 * i))), LANES)

        v = [builder.load(at(source, row, i), align=4) for i in range(WIDTH)]
        half = 1
        while half < WIDTH:
            low = [l if not l & half else WIDTH + l - half for l in range(WIDTH)]
            high = [l + half if not l & half else WIDTH + l for l in range(WIDTH)]
            for i in range(WIDTH):
                if not i & half:
                    a, b = v[i], v[i | half]
                    v[i] = builder.shuffle_vector(a, b, ir.Constant(INT_LANES, low))
                    v[i | half] = builder.shuffle_vector(a, b, ir.Constant(INT_LANES, high))
            half *= 2
        for i in range(WIDTH):
            builder.store(v[i], at(to, to_row, i), align=4)
        return context.get_dummy_value()
    return types.void(*[types.int64] * 4), code
