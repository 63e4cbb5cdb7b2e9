"""What convolution and its adjoint are made of on the CPU: products over windows, gathered or scattered.

Images are channels-last. A worker gathers the windows of a block of pixels into memory that stays in its cache (im2col,
but never more than a block of it), and multiplies from there; or multiplies first and scatters the products.
"""
import numpy as np
from numba import int64, prange, types

from .gemm import COLUMNS, ROWS, odd_lines, panels, product
from .jit import IN, INT, OUT, helper, kernel, scratch, threads
from .memory import address, copy, load, load_up_to, move, store_up_to, wipe
from .simd import WIDTH, splat

EDGE = ROWS * COLUMNS
CACHE = 2**16  # floats of a worker's block: 256 KB, a part of the second cache

# n, h, w, c of the gathered image; ho, wo, o of the other; window r, s; stride; top, left; dilation; groups
GEOMETRY = types.UniTuple(int64, 16)


@kernel((OUT, IN, INT, INT, INT, INT, INT, INT, INT, INT, INT, INT))
def _pack(to, w, groups, o, c, taps, first, group_step, o_step, c_step, tap_step, workers):
    """Filters as the product's panels (groups, panels, taps, c, COLUMNS), 0 behind the last of o filters."""
    strips = -(-o // COLUMNS)
    for worker in prange(workers):
        for task in range(groups * strips * taps * worker // workers, groups * strips * taps * (worker + 1) // workers):
            tap, strip, group = task % taps, task // taps % strips, task // (taps * strips)
            count = min(COLUMNS, o - strip * COLUMNS)
            for channel in range(c):
                at = (task * c + channel) * COLUMNS
                source = first + group * group_step + strip * COLUMNS * o_step + channel * c_step + tap * tap_step
                for i in range(count):
                    to[at + i] = w[source + i * o_step]
                for i in range(count, COLUMNS):
                    to[at + i] = np.float32(0)


def filters(w, groups, transposed=False, turned=False):
    """w (g O, C, R, S), or (g C, O, R, S) when transposed, as panels; turned by 180 degrees where dx asks for it."""
    outer, inner, r, s = w.shape
    taps, outer = r * s, outer // groups
    o, c, o_step, c_step = (inner, outer, taps, inner * taps) if transposed else (outer, inner, inner * taps, taps)
    to = np.empty(groups * panels(o) * taps * c * COLUMNS, np.float32)
    _pack(to, np.ascontiguousarray(w).reshape(-1), groups, o, c, taps, taps - 1 if turned else 0, outer * inner * taps,
          o_step, c_step, -1 if turned else 1, min(threads(), groups * panels(o) * taps))
    return to


@helper
def _gather(to, row, x, geometry, group, first, last, start, stop):
    """Columns start..stop of the windows of pixels first..last, a row each: (r, s, channel), 0 outside the image."""
    _, h, w, c, ho, wo, _, _, s, down, right, top, left, dilate_r, dilate_s, groups = geometry
    channels = c // groups
    merged = dilate_s == 1 and groups == 1  # then a row of the window is contiguous
    span = s * channels if merged else channels
    image, i, j = first // (ho * wo), first // wo % ho * down - top, first % wo * right - left
    for pixel in range(first, last):
        at = to + 4 * (pixel - first) * row
        for unit in range(start // span, (stop - 1) // span + 1):
            if merged:
                y, begin, edge, limit = i + unit * dilate_r, j * c, 0, w * c
            else:
                y, column = i + unit // s * dilate_r, j + unit % s * dilate_s
                begin, edge, limit = column * c + group * channels, 0, w * c if 0 <= column < w else 0
            low, high = begin + max(start - unit * span, 0), begin + min(stop - unit * span, span)
            if y < 0 or y >= h:
                edge, limit = low, low
            a = min(max(low, edge), high)
            b = max(min(high, limit), a)
            if a > low:
                wipe(at, a - low)
            if b > a:
                move(at + 4 * (a - low), x + 4 * ((image * h + y) * w * c + a), b - a)
            if high > b:
                wipe(at + 4 * (b - low), high - b)
            at += 4 * (high - low)
        j += right
        if j == wo * right - left:
            i, j = i + down, -left
            if i == ho * down - top:
                image, i = image + 1, -top


@kernel((OUT, IN, IN, IN, OUT, GEOMETRY, INT, INT, INT))
def _windows_product(y, x, weights, bias, memory, geometry, block, pitch, workers):
    """y = windows of x times filters, plus bias; a block of pixels at a time."""
    n, h, w, c, ho, wo, o, r, s, down, right, top, left, _, _, groups = geometry
    pixels, depth, own = n * ho * wo, r * s * (c // groups), o // groups
    plain = groups * r * s * down * right == 1 and top == 0 and left == 0 and ho == h and wo == w  # x is the matrix
    for worker in prange(workers):
        edge = address(memory) + 4 * worker * (EDGE + block * pitch)
        stop = min(-(-pixels // ROWS) * (worker + 1) // workers * ROWS, pixels)
        for group in range(groups):
            for first in range(-(-pixels // ROWS) * worker // workers * ROWS, stop, block):
                last = min(first + block, stop)
                a, row = edge + 4 * EDGE, pitch
                if plain and (last - first) % ROWS == 0:
                    a, row = address(x) + 4 * first * c, c
                else:
                    _gather(a, pitch, address(x), geometry, group, first, last, 0, depth)
                product(last - first, own, depth, a, row, 1,
                        address(weights) + 4 * group * -(-own // COLUMNS) * depth * COLUMNS, depth * COLUMNS, COLUMNS,
                        address(y) + 4 * (first * o + group * own), o,
                        address(bias) + 4 * group * own if bias.size else 0, 0, edge)


def windows_product(y, x, weights, bias, geometry):
    """y (n, ho, wo, o) of x (n, h, w, c), flat; weights from filters()."""
    n, _, _, c, ho, wo, _, r, s, *_, groups = geometry
    depth, tiles = r * s * (c // groups), -(-n * ho * wo // ROWS)
    workers = min(threads(), tiles)
    pitch = odd_lines(depth)
    block = min(max(1, CACHE // pitch // ROWS), -(-tiles // workers)) * ROWS
    _windows_product(y, x, weights, bias, scratch(workers * (EDGE + block * pitch)), geometry, block, pitch, workers)


@kernel((OUT, OUT, IN, IN, OUT, OUT, GEOMETRY, INT, INT, INT))
def _filter_gradient(dw, db, x, dy, sums, memory, geometry, block, row, workers):
    """dw (o, c, r, s) = dy times the windows of x, summed over pixels; db = sum of dy. A worker takes a range of the
    window's elements over all pixels, so that no sum depends on the number of workers."""
    n, _, _, c, ho, wo, o, r, s, _, _, _, _, _, _, groups = geometry
    pixels, channels, own = n * ho * wo, c // groups, o // groups
    depth, pitch = r * s * channels, -(-own // WIDTH) * WIDTH
    units = -(-depth // ROWS)
    for worker in prange(workers):
        start, stop = units * worker // workers * ROWS, min(units * (worker + 1) // workers * ROWS, depth)
        edge = address(memory) + 4 * worker * (EDGE + block * (row + pitch))
        a = edge + 4 * EDGE
        for group in range(groups):
            to = address(sums) + 4 * (group * depth + start) * own
            for first in range(0, pixels, block):
                last = min(first + block, pixels)
                _gather(a, row, address(x), geometry, group, first, last, start, stop)
                b, b_k = address(dy) + 4 * (first * o + group * own), o
                if own != pitch:  # the product reads whole vectors: give it rows that end on one
                    packed = a + 4 * block * row
                    for i in range(last - first):
                        copy(packed + 4 * i * pitch, b + 4 * i * o, own)
                    b, b_k = packed, pitch
                product(stop - start, own, last - first, a, 1, row, b, COLUMNS, b_k, to, own, to if first else 0, own,
                        edge)
            for k in range(start, stop):
                tap, channel = k // channels, k % channels
                for i in range(own):
                    dw[((group * own + i) * channels + channel) * r * s + tap] = sums[(group * depth + k) * own + i]
        if db.size:
            strips = -(-o // WIDTH)
            for j in range(strips * worker // workers * WIDTH, strips * (worker + 1) // workers * WIDTH, WIDTH):
                _column_sum(address(db) + 4 * j, address(dy) + 4 * j, pixels, o, o - j)


@helper
def _column_sum(to, x, rows, row, count):
    """Sum of up to WIDTH columns; in blocks, so that chains of additions stay short."""
    whole = splat(0.0)
    for first in range(0, rows, 64):
        part = splat(0.0)
        for i in range(first, min(first + 64, rows)):
            part = part + load_up_to(x + 4 * i * row, count)
        whole = whole + part
    store_up_to(to, whole, count)


def filter_gradient(dw, db, x, dy, geometry):
    """dw (g o, c, r, s) flat in C order, and db unless it is empty."""
    n, _, _, c, ho, wo, o, r, s, *_, groups = geometry
    depth, own = r * s * (c // groups), o // groups
    units = -(-depth // ROWS)
    workers = min(threads(), units)
    row, pitch = odd_lines(-(-units // workers) * ROWS), -(-own // WIDTH) * WIDTH
    block = max(1, min(CACHE // (row + pitch), n * ho * wo))
    _filter_gradient(dw, db, x, dy, np.empty(groups * depth * own, np.float32),
                     scratch(workers * (EDGE + block * (row + pitch) + ROWS)), geometry, block, row, workers)


@kernel((OUT, IN, IN, IN, OUT, GEOMETRY, INT, INT))
def _windows_scatter(x, y, weights, bias, memory, geometry, block, workers):
    """The adjoint of _windows_product: every pixel of y spreads over its window of x; plus bias. A worker takes whole
    images, COLUMNS channels at a time, so that no two add to the same place."""
    n, h, w, c, ho, wo, o, r, s, down, right, top, left, dilate_r, dilate_s, groups = geometry
    pixels, channels, own = ho * wo, c // groups, o // groups
    strips = -(-channels // COLUMNS)
    wide = r * s * COLUMNS
    for worker in prange(workers):
        edge = address(memory) + 4 * worker * (EDGE + block * (own + wide))
        a, products = edge + 4 * EDGE, edge + 4 * (EDGE + block * own)
        for task in range(n * groups * strips * worker // workers, n * groups * strips * (worker + 1) // workers):
            image, group, strip = task // (groups * strips), task // strips % groups, task % strips
            channel, count = group * channels + strip * COLUMNS, min(COLUMNS, channels - strip * COLUMNS)
            to = address(x) + 4 * (image * h * w * c + channel)
            for pixel in range(h * w):
                for j in range(0, count, WIDTH):
                    v = load_up_to(address(bias) + 4 * (channel + j), count - j) if bias.size else splat(0.0)
                    store_up_to(to + 4 * (pixel * c + j), v, count - j)
            for first in range(0, pixels, block):
                last = min(first + block, pixels)
                for pixel in range(first, last):  # into rows that may be read up to a whole number of ROWS
                    copy(a + 4 * (pixel - first) * own,
                         address(y) + 4 * ((image * pixels + pixel) * o + group * own), own)
                product(last - first, wide, own, a, own, 1,
                        address(weights) + 4 * (group * strips + strip) * own * wide, own * COLUMNS, COLUMNS,
                        products, wide, 0, 0, edge)
                for pixel in range(first, last):
                    for tap in range(r * s):
                        i = pixel // wo * down - top + tap // s * dilate_r
                        k = pixel % wo * right - left + tap % s * dilate_s
                        if 0 <= i < h and 0 <= k < w:
                            at = to + 4 * (i * w + k) * c
                            source = products + 4 * ((pixel - first) * wide + tap * COLUMNS)
                            for j in range(0, count, WIDTH):
                                v = load_up_to(at + 4 * j, count - j) + load(source + 4 * j)
                                store_up_to(at + 4 * j, v, count - j)


def windows_scatter(x, y, weights, bias, geometry):
    """x (n, h, w, c) from y (n, ho, wo, o), flat; weights from filters(), c in o's place."""
    n, _, _, c, ho, wo, o, r, s, *_, groups = geometry
    own, wide = o // groups, r * s * COLUMNS
    block = max(1, min(CACHE // (own + wide) // ROWS, -(-ho * wo // ROWS))) * ROWS
    workers = min(threads(), n * groups * panels(c // groups))
    _windows_scatter(x, y, weights, bias, scratch(workers * (EDGE + block * (own + wide))), geometry, block, workers)
