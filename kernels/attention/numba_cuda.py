"""Attention in Numba CUDA: the twin of attention.cu's and attention_vjp.cu's tiled kernels, one score at a time."""
import math
from functools import cache

from numba import cuda, float32

from kernels.twins import BYTES, FLOAT, FLOATS, INT, LONG, device, kernel, warp_sum
from kernels.versions import Version, only

from . import cupy_cuda as launcher

SHARED_PARAMETERS = BYTES, INT, LONG, LONG, LONG, LONG, FLOAT, INT, INT, INT, INT, INT
NONE = -math.inf  # the score of a key that is not seen


@device
def seen(mask, causal, offset, mask_l, mask_s, i, j):
    """Whether query i looks at key j."""
    return (causal == 0 or j <= i) and (mask.size == 0 or mask[offset + i * mask_l + j * mask_s] != 0)


@device
def weight(s, top):
    """exp(s - top), 0 for a key that is not seen, even where top is -inf too."""
    return float32(0) if s == float32(NONE) else math.exp(s - top)


@device
def load_tile(tile, array, base, first, rows, width):
    """Rows first, first + 1, ... of (rows, width) numbers to shared memory, zero beyond both."""
    high, wide = tile.shape
    for at in range(cuda.threadIdx.x, high * wide, 128):
        j, c = at // wide, at % wide
        inside = first + j < rows and c < width
        tile[j, c] = array[base + (first + j) * width + c] if inside else float32(0)


def spread(D, LANES):
    """Device functions on a row that LANES neighbouring threads share, each holding every LANES-th number of it."""
    each = D // LANES

    @device
    def load_row(mine, array, base, inside, width, lane):
        for n in range(each):
            c = n * LANES + lane
            mine[n] = array[base + c] if inside and c < width else float32(0)

    @device
    def store_row(array, base, mine, factor, width, lane):
        for n in range(each):
            c = n * LANES + lane
            if c < width:
                array[base + c] = mine[n] * factor

    @device
    def dot(mine, row, lane):
        """<mine, row>, for all lanes: neighbours read neighbouring numbers of a tile."""
        total = float32(0)
        for n in range(each):
            total += mine[n] * row[n * LANES + lane]
        step = LANES // 2
        while step > 0:
            total += cuda.shfl_xor_sync(0xFFFFFFFF, total, step)
            step //= 2
        return total

    @device
    def add(mine, p, row, lane):
        for n in range(each):
            mine[n] += p * row[n * LANES + lane]

    return load_row, store_row, dot, add


@cache
def attention_tiled(D, LANES, QUERIES, KEYS):
    """The forward kernel for heads of up to D numbers: one pass over the keys with a running maximum m and sum l."""
    load_row, store_row, dot, add = spread(D, LANES)
    ROWS, EACH = 128 // LANES, D // LANES

    @kernel(FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, *SHARED_PARAMETERS)
    def attention_tiled(o, stats, q, k, v, mask, causal, mask_n, mask_h, mask_l, mask_s, scale, heads, L, S, d, e):
        keys = cuda.shared.array((KEYS, D), float32)
        values = cuda.shared.array((KEYS, D), float32)
        mine = cuda.local.array(EACH, float32)
        out = cuda.local.array(EACH, float32)
        lane, tiles = cuda.threadIdx.x % LANES, (L + ROWS - 1) // ROWS
        b, start = cuda.blockIdx.x // tiles, cuda.blockIdx.x % tiles * ROWS
        i = start + cuda.threadIdx.x // LANES
        offset = b // heads * mask_n + b % heads * mask_h
        load_row(mine, q, (b * L + i) * d, i < L, d, lane)
        for n in range(EACH):
            out[n] = float32(0)
        m, l = float32(NONE), float32(0)
        last = min(S, start + ROWS) if causal else S  # no query of the block sees a later key
        for tile in range(0, last, KEYS):
            cuda.syncthreads()  # all are done with the previous tile
            load_tile(keys, k, b * S * d, tile, S, d)
            load_tile(values, v, b * S * e, tile, S, e)
            cuda.syncthreads()
            for j in range(min(KEYS, S - tile)):
                s = dot(mine, keys[j], lane) * scale
                if i >= L or not seen(mask, causal, offset, mask_l, mask_s, i, tile + j):
                    s = float32(NONE)
                top = s if s > m or s != s else m  # NaN enters and stays
                keep, p = float32(1) if m == top else math.exp(m - top), weight(s, top)
                m, l = top, l * keep + p
                for n in range(EACH):
                    out[n] *= keep
                add(out, p, values[j], lane)
        if i < L:
            inverse = float32(0) if l == 0 else float32(1) / l
            store_row(o, (b * L + i) * e, out, inverse, e, lane)
            if stats.size > 0 and lane == 0:
                stats[2 * (b * L + i)] = m
                stats[2 * (b * L + i) + 1] = inverse

    return attention_tiled


@kernel(FLOATS, FLOATS, FLOATS, INT, INT)
def attention_delta(delta, dy, o, rows, e):
    """rowsum(dy o), a warp a row."""
    i, lane = cuda.grid(1) // 32, cuda.threadIdx.x % 32
    total = float32(0)
    if i < rows:
        for c in range(lane, e, 32):
            total += dy[i * e + c] * o[i * e + c]
    total = warp_sum(total)
    if i < rows and lane == 0:
        delta[i] = total


@cache
def attention_dq_tiled(D, LANES, QUERIES, KEYS):
    """dq = scale dS k: the queries' kernel, over tiles of keys and values."""
    load_row, store_row, dot, add = spread(D, LANES)
    ROWS, EACH = 128 // LANES, D // LANES

    @kernel(FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, *SHARED_PARAMETERS)
    def attention_dq_tiled(dq, dy, q, k, v, stats, delta, mask, causal, mask_n, mask_h, mask_l, mask_s, scale, heads, L,
                           S, d, e):
        keys = cuda.shared.array((KEYS, D), float32)
        values = cuda.shared.array((KEYS, D), float32)
        mine = cuda.local.array(EACH, float32)
        dout = cuda.local.array(EACH, float32)
        total = cuda.local.array(EACH, float32)
        lane, tiles = cuda.threadIdx.x % LANES, (L + ROWS - 1) // ROWS
        b, start = cuda.blockIdx.x // tiles, cuda.blockIdx.x % tiles * ROWS
        i = start + cuda.threadIdx.x // LANES
        row, offset = b * L + i, b // heads * mask_n + b % heads * mask_h
        load_row(mine, q, row * d, i < L, d, lane)
        load_row(dout, dy, row * e, i < L, e, lane)
        for n in range(EACH):
            total[n] = float32(0)
        top = stats[2 * row] if i < L else float32(0)
        inverse = stats[2 * row + 1] if i < L else float32(0)
        mean = delta[row] if i < L else float32(0)
        last = min(S, start + ROWS) if causal else S
        for tile in range(0, last, KEYS):
            cuda.syncthreads()
            load_tile(keys, k, b * S * d, tile, S, d)
            load_tile(values, v, b * S * e, tile, S, e)
            cuda.syncthreads()
            for j in range(min(KEYS, S - tile)):
                s, through = dot(mine, keys[j], lane) * scale, dot(dout, values[j], lane)
                if i < L and seen(mask, causal, offset, mask_l, mask_s, i, tile + j):
                    add(total, weight(s, top) * inverse * (through - mean) * scale, keys[j], lane)
        if i < L:
            store_row(dq, row * d, total, float32(1), d, lane)

    return attention_dq_tiled


@cache
def attention_dkv_tiled(D, LANES, KEYS, QUERIES):
    """dk = scale dS^T q and dv = P^T dy: the keys' kernel, over tiles of queries and cotangents."""
    load_row, store_row, dot, add = spread(D, LANES)
    ROWS, EACH = 128 // LANES, D // LANES

    @kernel(FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, *SHARED_PARAMETERS)
    def attention_dkv_tiled(dk, dv, dy, q, k, v, stats, delta, mask, causal, mask_n, mask_h, mask_l, mask_s, scale, heads,
                            L, S, d, e):
        queries = cuda.shared.array((QUERIES, D), float32)
        douts = cuda.shared.array((QUERIES, D), float32)
        key = cuda.local.array(EACH, float32)
        value = cuda.local.array(EACH, float32)
        total_k = cuda.local.array(EACH, float32)
        total_v = cuda.local.array(EACH, float32)
        lane, tiles = cuda.threadIdx.x % LANES, (S + ROWS - 1) // ROWS
        b, start = cuda.blockIdx.x // tiles, cuda.blockIdx.x % tiles * ROWS
        j = start + cuda.threadIdx.x // LANES
        row, offset = b * S + j, b // heads * mask_n + b % heads * mask_h
        load_row(key, k, row * d, j < S, d, lane)
        load_row(value, v, row * e, j < S, e, lane)
        for n in range(EACH):
            total_k[n] = float32(0)
            total_v[n] = float32(0)
        for tile in range(start // QUERIES * QUERIES if causal else 0, L, QUERIES):  # earlier ones see no key here
            cuda.syncthreads()
            load_tile(queries, q, b * L * d, tile, L, d)
            load_tile(douts, dy, b * L * e, tile, L, e)
            cuda.syncthreads()
            for r in range(min(QUERIES, L - tile)):
                s, through = dot(key, queries[r], lane) * scale, dot(value, douts[r], lane)
                i = tile + r
                if j < S and seen(mask, causal, offset, mask_l, mask_s, i, j):
                    p = weight(s, stats[2 * (b * L + i)]) * stats[2 * (b * L + i) + 1]
                    add(total_v, p, douts[r], lane)
                    add(total_k, p * (through - delta[b * L + i]) * scale, queries[r], lane)
        if j < S:
            store_row(dk, row * d, total_k, float32(1), d, lane)
            store_row(dv, row * e, total_v, float32(1), e, lane)

    return attention_dkv_tiled


FUNCTIONS = only("tiled", launcher.FUNCTIONS)
VERSIONS = [Version(launcher.attention, "tiled", "flash"), Version(launcher.attention_vjp, "tiled", "flash")]
