"""The matrix product under the cpu backend's kernels, in Numba: no BLAS, so no second pool of threads.

A tile of the result, ROWS by COLUMNS, stays in registers while one loop over k reads a column of A, element by
element, and a row of B (Goto and van de Geijn 2008, ACM TOMS 34(3)). B comes in panels of COLUMNS columns, so that its
rows are contiguous; A is read where it lies, by rows or transposed, so that it needs no packing.
"""
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import helper
from .memory import load, load_up_to, store_up_to
from .simd import F32, I64, LANES, REGISTERS, WIDTH, broadcast, lanes, mul_add, pointer

VECTORS = 2
COLUMNS = VECTORS * WIDTH
ROWS = (REGISTERS - VECTORS - 2) // VECTORS // 3 * 3  # 12 of 32 registers, 6 of 16, in groups of three pointers


def _tile(vectors):
    @intrinsic
    def tile(typing, k, a, a_row, a_k, b, b_k, c, c_row, base, base_row):
        def code(context, builder, sig, args):
            k, a, a_row, a_k, b, b_k, c, c_row, base, base_row = args
            a_row, a_k, b_k, c_row, base_row = (builder.shl(s, I64(2)) for s in (a_row, a_k, b_k, c_row, base_row))
            places = [(i, j) for i in range(ROWS) for j in range(vectors)]
            sums = {place: cgutils.alloca_once(builder, LANES) for place in places}

            def at(start, row, i, j):
                return pointer(builder, builder.add(start, builder.add(builder.mul(row, I64(i)), I64(4 * WIDTH * j))),
                               LANES)

            with builder.if_else(builder.icmp_signed("==", base, I64(0))) as (none, some):
                with none:
                    for place in places:
                        builder.store(lanes(0), sums[place])
                with some:
                    for place in places:
                        builder.store(builder.load(at(base, base_row, *place), align=4), sums[place])
            # One pointer for three rows, at offsets 0, 1 and 2 row strides: as many as there are registers for.
            groups = [cgutils.alloca_once_value(builder, builder.add(a, builder.mul(a_row, I64(i))))
                      for i in range(0, ROWS, 3)]
            offsets = [I64(0), a_row, builder.shl(a_row, I64(1))]
            at_b = cgutils.alloca_once_value(builder, b)
            with cgutils.for_range(builder, k):
                b_now, a_now = builder.load(at_b), [builder.load(g) for g in groups]
                row = [builder.load(at(b_now, b_k, 0, j), align=4) for j in range(vectors)]
                for i in range(ROWS):
                    x = builder.load(pointer(builder, builder.add(a_now[i // 3], offsets[i % 3]), F32))
                    x = broadcast(builder, x)
                    for j in range(vectors):
                        builder.store(mul_add(builder, x, row[j], builder.load(sums[i, j])), sums[i, j])
                builder.store(builder.add(b_now, b_k), at_b)
                for g, now in zip(groups, a_now):
                    builder.store(builder.add(now, a_k), g)
            for place in places:
                builder.store(builder.load(sums[place]), at(c, c_row, *place), align=4)
            return context.get_dummy_value()
        return types.void(*[types.int64] * 10), code
    return tile


_wide, _narrow = _tile(VECTORS), _tile(1)


@helper
def product(m, n, k, a, a_row, a_k, b, b_panel, b_k, c, c_row, base, base_row, edge):
    """C (m, n) = A (m, k) B (k, n) + base; everything an address, with strides in elements.

    B's panel j starts at b + j b_panel, its rows b_k apart. base (m, n): 0 for none, C to accumulate, a bias with
    base_row 0. A must be readable up to a whole number of ROWS, B's rows up to whole vectors. edge: memory for one
    tile, which takes the tiles that C has no room for.
    """
    for j in range(0, n, COLUMNS):
        columns = min(COLUMNS, n - j)
        panel = b + 4 * (j // COLUMNS) * b_panel
        for i in range(0, m, ROWS):
            rows = min(ROWS, m - i)
            to, to_row, start = c + 4 * (i * c_row + j), c_row, base + 4 * (i * base_row + j) if base != 0 else 0
            whole = rows == ROWS and columns in (COLUMNS, WIDTH)
            if not whole:
                to, to_row, start = edge, COLUMNS, 0
            if columns > WIDTH:
                _wide(k, a + 4 * i * a_row, a_row, a_k, panel, b_k, to, to_row, start, base_row)
            else:
                _narrow(k, a + 4 * i * a_row, a_row, a_k, panel, b_k, to, to_row, start, base_row)
            if not whole:
                _move(rows, columns, c + 4 * (i * c_row + j), c_row, base + 4 * (i * base_row + j) if base != 0 else 0,
                      base_row, edge)


@helper
def _move(rows, columns, c, c_row, base, base_row, edge):
    """The part of a tile that C has room for, plus base."""
    for i in range(rows):
        for j in range(0, columns, WIDTH):
            v = load(edge + 4 * (i * COLUMNS + j))
            if base != 0:
                v = v + load_up_to(base + 4 * (i * base_row + j), columns - j)
            store_up_to(c + 4 * (i * c_row + j), v, columns - j)


def odd_lines(n):
    """At least n, as an odd number of cache lines: rows this far apart do not all fall into the same few cache sets."""
    return (-(-n // 16) | 1) * 16


def panels(n):
    """How many panels n columns take."""
    return -(-n // COLUMNS)
