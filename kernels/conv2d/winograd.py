r"""Winograd's minimal convolution F(4x4, 3x3) on the CPU: 36 products for 16 outputs, which take 144 directly.

$$y = A^\top \Big[ \sum_c (G g_c G^\top) \odot (B^\top d_c B) \Big] A$$

for each 4x4 tile of outputs, from the 6x6 tile d of inputs under it; the sum over channels is a matrix product for each
of the 36 places. The tile's border of zeros is part of its loading. Source: Lavin and Gray 2016, arXiv:1509.09308.
"""
import numpy as np
from numba import prange, types
from numba.extending import intrinsic

from ..gemm import COLUMNS, ROWS, odd_lines, panels, product
from ..jit import IN, INT, OUT, helper, kernel, scratch, threads
from ..memory import address, clear, copy
from ..simd import I64, LANES, WIDTH, lanes, mul_add, pointer
from ..windows import EDGE, filters

TILES = 3072  # times channels in and out: a worker's transformed tiles stay in its second cache


class _Lanes:
    """Vectors under construction: the few operations that the transforms are written in."""

    def __init__(self, builder, value):
        self.builder, self.value = builder, value

    def __add__(self, other):
        return _Lanes(self.builder, self.builder.fadd(self.value, other.value))

    def __sub__(self, other):
        return _Lanes(self.builder, self.builder.fsub(self.value, other.value))

    def plus(self, factor, other):
        """self + factor other, rounded once."""
        return _Lanes(self.builder, mul_add(self.builder, lanes(factor), other.value, self.value))

    def times(self, factor):
        return _Lanes(self.builder, self.builder.fmul(self.value, lanes(factor)))


def _input(d):
    """B^T d for one row or column of six."""
    even, odd, near, far = d[4].plus(-4, d[2]), d[3].plus(-4, d[1]), d[4] - d[2], d[3] - d[1]
    return [d[4].plus(-5, d[2]).plus(4, d[0]), even + odd, even - odd, near.plus(2, far), near.plus(-2, far),
            d[5].plus(-5, d[3]).plus(4, d[1])]


def _filter(g):
    """G g for three."""
    even, middle = g[0] + g[2], g[0].times(1 / 24).plus(1 / 6, g[2])
    return [g[0].times(1 / 4), (even + g[1]).times(-1 / 6), (even - g[1]).times(-1 / 6), middle.plus(1 / 12, g[1]),
            middle.plus(-1 / 12, g[1]), g[2]]


def _output(m):
    """A^T m for six."""
    a, b, c, d = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    return [m[0] + a + c, b.plus(2, d), a.plus(4, c), b.plus(8, d) + m[5]]


def _transform(line, size):
    """An intrinsic (to, steps, from, steps, bias): `line` on the columns and then the rows of a square of vectors.

    Steps are in elements, down and right; bias: address of a vector that is added to every result, or 0.
    """
    @intrinsic
    def transform(typing, to, to_down, to_right, source, down, right, bias):
        def code(context, builder, sig, args):
            to, to_down, to_right, source, down, right, bias = args

            def at(start, i, down, j, right):
                step = builder.add(builder.mul(down, I64(4 * i)), builder.mul(right, I64(4 * j)))
                return pointer(builder, builder.add(start, step), LANES)

            square = [[_Lanes(builder, builder.load(at(source, i, down, j, right), align=4)) for j in range(size)]
                      for i in range(size)]
            columns = [line([square[i][j] for i in range(size)]) for j in range(size)]
            rows = [line([column[i] for column in columns]) for i in range(len(columns[0]))]
            with builder.if_else(builder.icmp_signed("==", bias, I64(0))) as (none, some):
                with none:
                    start, zero = builder.block, lanes(0)
                with some:
                    offset = builder.load(pointer(builder, bias, LANES), align=4)
                    end = builder.block
            phi = builder.phi(LANES)
            phi.add_incoming(zero, start)
            phi.add_incoming(offset, end)
            for i, row in enumerate(rows):
                for j, v in enumerate(row):
                    builder.store((v + _Lanes(builder, phi)).value, at(to, i, to_down, j, to_right), align=4)
            return context.get_dummy_value()
        return types.void(*[types.int64] * 7), code
    return transform


_transform_input, _transform_filter = _transform(_input, 6), _transform(_filter, 3)
_transform_output = _transform(_output, 6)


@kernel((OUT, IN, INT, INT, INT))
def _transform_filters(to, packed, strips, c, place):
    """Packed filters (strips, 9, c, COLUMNS) to 36 times (strips, c, COLUMNS)."""
    for row in prange(strips * c):
        for lane in range(0, COLUMNS, WIDTH):
            source = address(packed) + 4 * ((row // c * 9 * c + row % c) * COLUMNS + lane)
            _transform_filter(address(to) + 4 * (row * COLUMNS + lane), 6 * place, place, source, 3 * c * COLUMNS,
                              c * COLUMNS, 0)


@helper
def _load_tile(to, place, x, image, i, j, h, w, c, patch):
    """Transform the 6x6 inputs from row i and column j on; those outside the image are 0."""
    source, down = x + 4 * ((image * h + i) * w + j) * c, w * c
    if i < 0 or j < 0 or i + 6 > h or j + 6 > w:
        source, down = patch, 6 * c
        before, inside = max(-j, 0), min(w - j, 6) - max(-j, 0)
        for row in range(6):
            at = patch + 4 * row * 6 * c
            if i + row < 0 or i + row >= h:
                clear(at, 6 * c)
            else:
                clear(at, before * c)
                copy(at + 4 * before * c, x + 4 * (((image * h + i + row) * w + j + before) * c), inside * c)
                clear(at + 4 * (before + inside) * c, (6 - before - inside) * c)
    for channel in range(0, c, WIDTH):
        _transform_input(to + 4 * channel, 6 * place, place, source + 4 * channel, down, c, 0)


@helper
def _store_tile(y, source, place, image, i, j, h, w, c, bias, patch):
    """Transform back to the 4x4 outputs from row i and column j on, as far as they are inside the image."""
    inside = i + 4 <= h and j + 4 <= w
    to, down = (y + 4 * ((image * h + i) * w + j) * c, w * c) if inside else (patch, 4 * c)
    for channel in range(0, c, WIDTH):
        _transform_output(to + 4 * channel, down, c, source + 4 * channel, 6 * place, place,
                          bias + 4 * channel if bias != 0 else 0)
    if not inside:
        for row in range(min(4, h - i)):
            copy(y + 4 * ((image * h + i + row) * w + j) * c, patch + 4 * row * 4 * c, min(4, w - j) * c)


@kernel((OUT, IN, IN, IN, OUT, *[INT] * 14))
def _winograd(y, x, transformed, bias, memory, n, h, w, c, ho, wo, o, top, left, block, place_c,
              place_o, place_w, workers):
    """Each worker takes a run of tiles, a block at a time: load and transform, 36 products, transform back."""
    down, across = -(-ho // 4), -(-wo // 4)
    tiles = n * down * across
    size = EDGE + 36 * (max(c, o) + place_c + place_o)
    for worker in prange(workers):
        edge = address(memory) + 4 * worker * size
        patch = edge + 4 * EDGE
        loaded = patch + 4 * 36 * max(c, o)
        products = loaded + 4 * 36 * place_c
        stop = tiles * (worker + 1) // workers
        for first in range(tiles * worker // workers, stop, block):
            last = min(first + block, stop)
            for tile in range(first, last):
                image, i, j = tile // (down * across), tile // across % down * 4, tile % across * 4
                _load_tile(loaded + 4 * (tile - first) * c, place_c, address(x), image, i - top, j - left, h, w, c, patch)
            for f in range(36):
                product(last - first, o, c, loaded + 4 * f * place_c, c, 1, address(transformed) + 4 * f * place_w,
                        c * COLUMNS, COLUMNS, products + 4 * f * place_o, o, 0, 0, edge)
            for tile in range(first, last):
                image, i, j = tile // (down * across), tile // across % down * 4, tile % across * 4
                _store_tile(address(y), products + 4 * (tile - first) * o, place_o, image, i, j, ho, wo, o,
                            address(bias) if bias.size else 0, patch)


def winograd(y, x, w, bias, geometry, back=False):
    """y (n, ho, wo, o) of x (n, h, w, c), flat; back: w is (C, O, 3, 3), transposed and turned, for dx."""
    n, h, wide, c, ho, wo, o, *rest = geometry
    top, left = geometry[11:13]
    if c % WIDTH or o % WIDTH:  # whole vectors of channels, the new ones 0
        more_c, more_o = -c % WIDTH, -o % WIDTH
        whole = np.empty(y.size // o * (o + more_o), np.float32)
        winograd(whole, np.pad(x.reshape(-1, c), ((0, 0), (0, more_c))).reshape(-1),
                 np.pad(w, ((0, more_c if back else more_o), (0, more_o if back else more_c), (0, 0), (0, 0))),
                 np.pad(bias, (0, more_o if bias.size else 0)), (n, h, wide, c + more_c, ho, wo, o + more_o, *rest), back)
        y[...] = whole.reshape(-1, o + more_o)[:, :o].reshape(-1)
        return
    packed = filters(w, 1, transposed=back, turned=back)
    place_w = odd_lines(panels(o) * c * COLUMNS)
    transformed = np.empty(36 * place_w, np.float32)
    _transform_filters(transformed, packed, panels(o), c, place_w)
    tiles = n * -(-ho // 4) * -(-wo // 4)
    block = max(1, TILES // (c + o) // ROWS) * ROWS
    workers = min(threads(), tiles)
    place_c, place_o = odd_lines(block * c), odd_lines(block * o)
    memory = scratch(workers * (EDGE + 36 * (max(c, o) + place_c + place_o)))
    _winograd(y, x, transformed, bias, memory, n, h, wide, c, ho, wo, o, top, left, block, place_c, place_o, place_w,
              workers)
