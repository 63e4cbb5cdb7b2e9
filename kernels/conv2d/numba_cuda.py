"""Convolution in Numba CUDA: the twin of conv2d.cu's and conv2d_vjp.cu's tiled kernels, a product of two gathers."""
from functools import cache
from typing import NamedTuple

from numba import cuda, float32

from kernels.twins import FLOATS, INT, LONG, block_sum, device, kernel
from kernels.versions import Version, only

from . import cupy_cuda as launcher


class Geometry(NamedTuple):
    """Sizes and options: x (N, I, H, W), w (O, I/groups, R, S), y (N, O, P, Q)."""

    N: int
    I: int
    H: int
    W: int
    O: int
    P: int
    Q: int
    R: int
    S: int
    stride_h: int
    stride_w: int
    top: int
    left: int
    dilation_h: int
    dilation_w: int
    groups: int


class Part(NamedTuple):
    """What a block works on: the group, and output pixels low .. high - 1."""

    group: int
    low: int
    high: int


INTEGERS = [INT] * len(Geometry._fields)


@device
def window(x, g, part, m, k):
    """Tap k = (c, r, s) of the window of output pixel m = (n, i, j); 0 outside the image or the matrix."""
    channels = g.I // g.groups
    if m >= part.high or k >= channels * g.R * g.S:
        return float32(0)
    n, i, j = m // (g.P * g.Q), m // g.Q % g.P, m % g.Q
    c, r, s = k // (g.R * g.S), k // g.S % g.R, k % g.S
    row, col = i * g.stride_h + r * g.dilation_h - g.top, j * g.stride_w + s * g.dilation_w - g.left
    if row < 0 or row >= g.H or col < 0 or col >= g.W:
        return float32(0)
    return x[((n * g.I + part.group * channels + c) * g.H + row) * g.W + col]


@device
def turned(x, g, part, k, p):
    """The same matrix with taps as rows: pixel low + p."""
    return window(x, g, part, part.low + p, k)


@device
def filters(w, g, part, o, k):
    """Filter o of the group, tap k."""
    taps = g.I // g.groups * g.R * g.S
    return w[(part.group * (g.O // g.groups) + o) * taps + k] if o < g.O // g.groups and k < taps else float32(0)


@device
def filters_by_input(w, g, part, c, k):
    """The filters' channel c, by k = (o, r, s)."""
    channels, taps = g.I // g.groups, g.R * g.S
    o = k // taps
    if c >= channels or o >= g.O // g.groups:
        return float32(0)
    return w[((part.group * (g.O // g.groups) + o) * channels + c) * taps + k % taps]


@device
def reached(y, g, part, m, k):
    """The output that input pixel m = (n, row, col) reached through tap k = (o, r, s), if any."""
    if m >= g.N * g.H * g.W or k >= g.O // g.groups * g.R * g.S:
        return float32(0)
    n, row, col = m // (g.H * g.W), m // g.W % g.H, m % g.W
    o, r, s = k // (g.R * g.S), k // g.S % g.R, k % g.S
    i, j = row + g.top - r * g.dilation_h, col + g.left - s * g.dilation_w
    if i < 0 or j < 0 or i % g.stride_h != 0 or j % g.stride_w != 0:
        return float32(0)
    i, j = i // g.stride_h, j // g.stride_w
    if i >= g.P or j >= g.Q:
        return float32(0)
    return y[((n * g.O + part.group * (g.O // g.groups) + o) * g.P + i) * g.Q + j]


@device
def outputs(y, g, part, o, p):
    """Output pixel low + p of filter o of the group."""
    m, area = part.low + p, g.P * g.Q
    if o >= g.O // g.groups or m >= part.high:
        return float32(0)
    return y[(m // area * g.O + part.group * (g.O // g.groups) + o) * area + m % area]


def product(a, b, rows, columns, depth, rows_each, columns_each):
    """Device functions for a block's tile of c(m, n) = sum_k a(m, k) b(n, k): `tile` computes each thread's part of it,
    whose elements i, j are row first + i * across, column first + j * down of the tile; `images` stores them, a bias added,
    where rows are the pixels of images (N, channels, area) and columns `own` of their channels, from `start` on."""
    across, down = rows // rows_each, columns // columns_each
    threads, pitch_a, pitch_b = across * down, rows + 4, columns + 4  # + 4: rows on different banks

    @device
    def tile(sums, of_a, of_b, g, part, K):
        tile_a = cuda.shared.array((depth, pitch_a), float32)
        tile_b = cuda.shared.array((depth, pitch_b), float32)
        t = cuda.threadIdx.x
        m0, n0 = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns
        for i in range(rows_each):
            for j in range(columns_each):
                sums[i, j] = float32(0)
        for k0 in range(0, K, depth):
            cuda.syncthreads()  # all are done with the tiles that are now overwritten
            for at in range(t, rows * depth, threads):
                tile_a[at // rows, at % rows] = a(of_a, g, part, m0 + at % rows, k0 + at // rows)
            for at in range(t, columns * depth, threads):
                tile_b[at % depth, at // depth] = b(of_b, g, part, n0 + at // depth, k0 + at % depth)
            cuda.syncthreads()
            for k in range(depth):
                for i in range(rows_each):
                    value = tile_a[k, t % across + i * across]
                    for j in range(columns_each):
                        sums[i, j] += value * tile_b[k, t // across + j * down]

    @device
    def images(y, sums, b, pixels, start, own, channels, area):
        for j in range(columns_each):
            n = cuda.blockIdx.y * columns + cuda.threadIdx.x // across + j * down
            for i in range(rows_each):
                m = cuda.blockIdx.x * rows + cuda.threadIdx.x % across + i * across
                if m < pixels and n < own:
                    bias = b[start + n] if b.size > 0 else float32(0)
                    y[(m // area * channels + start + n) * area + m % area] = sums[i, j] + bias

    return tile, images


@cache
def conv2d_tiled(rows, columns, depth, rows_each, columns_each, buffers):
    """The convolution's kernel for these tiles."""
    tile, images = product(window, filters, rows, columns, depth, rows_each, columns_each)

    @kernel(FLOATS, FLOATS, FLOATS, FLOATS, *INTEGERS)
    def conv2d_tiled(y, x, w, b, N, I, H, W, O, P, Q, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w,
                     groups):
        g = Geometry(N, I, H, W, O, P, Q, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, groups)
        part, own = Part(cuda.blockIdx.z, 0, N * P * Q), O // groups
        sums = cuda.local.array((rows_each, columns_each), float32)
        tile(sums, x, w, g, part, I // groups * R * S)
        images(y, sums, b, N * P * Q, part.group * own, own, O, P * Q)

    return conv2d_tiled


@cache
def conv2d_dx_tiled(rows, columns, depth, rows_each, columns_each, buffers):
    """The data gradient's kernel, which is transposed convolution's, for these tiles."""
    tile, images = product(reached, filters_by_input, rows, columns, depth, rows_each, columns_each)

    @kernel(FLOATS, FLOATS, FLOATS, FLOATS, *INTEGERS)
    def conv2d_dx_tiled(dx, dy, w, b, N, I, H, W, O, P, Q, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w,
                        groups):
        g = Geometry(N, I, H, W, O, P, Q, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, groups)
        part, own = Part(cuda.blockIdx.z, 0, N * P * Q), I // groups
        sums = cuda.local.array((rows_each, columns_each), float32)
        tile(sums, dy, w, g, part, O // groups * R * S)
        images(dx, sums, b, N * H * W, part.group * own, own, I, H * W)

    return conv2d_dx_tiled


@cache
def conv2d_dw_tiled(rows, columns, depth, rows_each, columns_each, buffers):
    """The filters' gradient's kernel for these tiles: taps are rows, filters columns; a block's share of the pixels."""
    tile, _ = product(turned, outputs, rows, columns, depth, rows_each, columns_each)
    across, down = rows // rows_each, columns // columns_each

    @kernel(FLOATS, FLOATS, FLOATS, INT, *INTEGERS)
    def conv2d_dw_tiled(shares, dy, x, parts, N, I, H, W, O, P, Q, R, S, stride_h, stride_w, top, left, dilation_h,
                        dilation_w, groups):
        g = Geometry(N, I, H, W, O, P, Q, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, groups)
        pixels, taps, own, number = N * P * Q, I // groups * R * S, O // groups, cuda.blockIdx.z % parts
        each = (pixels + parts - 1) // parts
        part = Part(cuda.blockIdx.z // parts, number * each, min(pixels, number * each + each))
        sums = cuda.local.array((rows_each, columns_each), float32)
        tile(sums, x, dy, g, part, max(part.high - part.low, 0))
        for j in range(columns_each):
            n = cuda.blockIdx.y * columns + cuda.threadIdx.x // across + j * down
            for i in range(rows_each):
                k = cuda.blockIdx.x * rows + cuda.threadIdx.x % across + i * across
                if k < taps and n < own:
                    shares[(number * O + part.group * own + n) * taps + k] = sums[i, j]

    return conv2d_dw_tiled


@kernel(FLOATS, FLOATS, INT, LONG)
def conv2d_sum_shares(dw, shares, parts, size):
    """The shares of all parts, added in a fixed order."""
    i = cuda.grid(1)
    if i < size:
        total = float32(0)
        for p in range(parts):
            total += shares[p * size + i]
        dw[i] = total


@kernel(FLOATS, FLOATS, INT, INT, INT)
def conv2d_db(db, dy, N, O, area):
    """The bias gradient: a block a channel, its pixels summed by 256 threads and a tree."""
    scratch = cuda.shared.array(32, float32)
    total = float32(0)
    for i in range(cuda.threadIdx.x, N * area, 256):
        total += dy[(i // area * O + cuda.blockIdx.x) * area + i % area]
    total = block_sum(total, scratch)
    if cuda.threadIdx.x == 0:
        db[cuda.blockIdx.x] = total


FUNCTIONS = only("tiled", launcher.FUNCTIONS)
VERSIONS = [Version(f, "tiled", "direct") for f in (
    launcher.conv2d, launcher.conv2d_vjp, launcher.conv_transpose2d, launcher.conv_transpose2d_vjp)]
