"""The matrix product under the cpu backend's convolutions and attention, in Numba: no BLAS, so no second pool of threads.

A tile of the result, ROWS by COLUMNS, stays in registers while one loop over k reads a column of A, element by
element, and a row of B (Goto and van de Geijn 2008, ACM TOMS 34(3)). B comes in panels of COLUMNS columns, so that its
rows are contiguous; A is read where it lies, by rows or transposed, so that it needs no packing.
"""
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import helper
from .simd import F32, I64, LANES, REGISTERS, WIDTH, broadcast, lanes, load, load_up_to, mul_add, pointer, store_up_to

VECTORS = 2
COLUMNS = VECTORS * WIDTH
ROWS = (REGISTERS - VECTORS - 2) // VECTORS // 3 * 3  # 12 of 32 registers, 6 of 16, in groups of three pointers


def _tile(vectors):
    @intrinsic
    def tile(typing, k, a, a_row, a_k, b, b_k, c, c_row, accumulate):
        def code(context, builder, sig, args):
            k, a, a_row, a_k, b, b_k, c, c_row, accumulate = args
            a_row, a_k, b_k, c_row = (builder.shl(s, I64(2)) for s in (a_row, a_k, b_k, c_row))
            at_c = [[builder.add(c, builder.add(builder.mul(c_row, I64(i)), I64(4 * WIDTH * j)))
                     for j in range(vectors)] for i in range(ROWS)]
            sums = [[cgutils.alloca_once(builder, LANES) for _ in range(vectors)] for _ in range(ROWS)]
            with builder.if_else(accumulate) as (then, otherwise):
                with then:
                    _each(lambda i, j: builder.store(builder.load(pointer(builder, at_c[i][j], LANES), align=4),
                                                     sums[i][j]), vectors)
                with otherwise:
                    _each(lambda i, j: builder.store(lanes(0), sums[i][j]), vectors)
            # One pointer for three rows, at offsets 0, 1 and 2 row strides: as many as there are registers for.
            groups = [cgutils.alloca_once_value(builder, builder.add(a, builder.mul(a_row, I64(i))))
                      for i in range(0, ROWS, 3)]
            offsets = [I64(0), a_row, builder.shl(a_row, I64(1))]
            at_b = cgutils.alloca_once_value(builder, b)
            with cgutils.for_range(builder, k):
                b_now, a_now = builder.load(at_b), [builder.load(g) for g in groups]
                row = [builder.load(pointer(builder, builder.add(b_now, I64(4 * WIDTH * j)), LANES), align=4)
                       for j in range(vectors)]
                for i in range(ROWS):
                    x = builder.load(pointer(builder, builder.add(a_now[i // 3], offsets[i % 3]), F32))
                    x = broadcast(builder, x)
                    for j in range(vectors):
                        builder.store(mul_add(builder, x, row[j], builder.load(sums[i][j])), sums[i][j])
                builder.store(builder.add(b_now, b_k), at_b)
                for g, now in zip(groups, a_now):
                    builder.store(builder.add(now, a_k), g)
            _each(lambda i, j: builder.store(builder.load(sums[i][j]), pointer(builder, at_c[i][j], LANES), align=4),
                  vectors)
            return context.get_dummy_value()
        return types.void(*[types.int64] * 8, types.boolean), code
    return tile


def _each(act, vectors):
    for i in range(ROWS):
        for j in range(vectors):
            act(i, j)


_wide, _narrow = _tile(VECTORS), _tile(1)


@helper
def product(m, n, k, a, a_row, a_k, b, b_panel, b_k, c, c_row, accumulate, edge):
    """C (m, n) = A (m, k) B (k, n), plus C when it accumulates; everything an address, with strides in elements.

    B's panel j starts at b + j b_panel, its rows b_k apart. A must be readable up to a whole number of ROWS, B's rows
    up to a whole panel. edge: memory for one tile, where the tiles go that C has no room for.
    """
    for j in range(0, n, COLUMNS):
        columns = min(COLUMNS, n - j)
        panel = b + 4 * (j // COLUMNS) * b_panel
        for i in range(0, m, ROWS):
            rows = min(ROWS, m - i)
            whole = rows == ROWS and (columns == COLUMNS or columns == WIDTH)
            to, to_row = (c + 4 * (i * c_row + j), c_row) if whole else (edge, COLUMNS)
            if columns > WIDTH:
                _wide(k, a + 4 * i * a_row, a_row, a_k, panel, b_k, to, to_row, accumulate and whole)
            else:
                _narrow(k, a + 4 * i * a_row, a_row, a_k, panel, b_k, to, to_row, accumulate and whole)
            if not whole:
                _move(rows, columns, edge, c + 4 * (i * c_row + j), c_row, accumulate)


@helper
def _move(rows, columns, edge, c, c_row, accumulate):
    """The part of a tile that C has room for."""
    for i in range(rows):
        for j in range(0, columns, WIDTH):
            v, to, count = load(edge + 4 * (i * COLUMNS + j)), c + 4 * (i * c_row + j), columns - j
            store_up_to(to, v + load_up_to(to, count) if accumulate else v, count)


def panels(n):
    """How many panels n columns take."""
    return -(-n // COLUMNS)
