"""Attention on the CPU in blocks of queries and keys, the softmax rescaled as keys come in: no L x S matrix in memory.

A worker takes a head at a time, packs its keys and values once, and keeps one block of logits in its cache.
Source: Dao et al. 2022, arXiv:2205.14135 (the blocks); Milakov and Gimelshein 2018, arXiv:1805.02867 (the softmax).
"""
import numpy as np
from numba import int64, prange, types, uint8

from ..contract import Kernel, register
from ..gemm import COLUMNS, product
from ..jit import BOOL, FLOAT, INT, OUT, helper, kernel, scratch, threads
from ..memory import address, clear, load, load_first, load_up_to, put, store, store_up_to, transpose
from ..simd import WIDTH, exp, largest, maximum, splat, total, where_less
from ..windows import EDGE

QUERIES, KEYS = 48, 256  # of a block; QUERIES is a multiple of ROWS
PITCH = KEYS + WIDTH  # of a row of logits: not a power of two, whose rows would share a cache set
PLACE = types.UniTuple(int64, 4)  # an array (N, h, L, d): its address and the steps of its first three axes, in bytes
BYTES = types.Array(uint8, 1, "C", readonly=True)
MASK = types.UniTuple(int64, 4)  # steps of the mask's axes, 0 where it broadcasts


def chain(keys):
    """Blocks of keys, each of which may rescale."""
    return -(-keys // KEYS)


@helper
def pack_rows(to, pitch, place, n, h, first, last, width, rows, scale):
    """Rows first..last of a head, times scale, to a dense block with zeros up to the pitch and up to `rows`."""
    source, factor = place[0] + n * place[1] + h * place[2], splat(scale)
    for i in range(first, last):
        for j in range(0, pitch, WIDTH):
            store(to + 4 * ((i - first) * pitch + j), load_up_to(source + i * place[3] + 4 * j, width - j) * factor)
    clear(to + 4 * (last - first) * pitch, (rows - last + first) * pitch)


@helper
def unpack_rows(place, n, h, first, last, width, source, pitch, scale):
    """The first `width` columns of a dense block, times scale, to rows first..last of a head."""
    to, factor = place[0] + n * place[1] + h * place[2], splat(scale)
    for i in range(first, last):
        for j in range(0, width, WIDTH):
            store_up_to(to + i * place[3] + 4 * j, load(source + 4 * ((i - first) * pitch + j)) * factor, width - j)


@helper
def packed_transpose(to, source, pitch, rows):
    """A dense block (rows, pitch), rows whole panels, as panels of its transpose: (rows/COLUMNS, pitch, COLUMNS)."""
    for i in range(0, rows, WIDTH):
        for j in range(0, pitch, WIDTH):
            transpose(to + 4 * ((i // COLUMNS * pitch + j) * COLUMNS + i % COLUMNS), COLUMNS,
                      source + 4 * (i * pitch + j), pitch)


@helper
def hide(s, rows, count, query, key, causal, mask, start, steps):
    """Put -infinity where query rows query.. may not see keys key..; the mask of this head begins at `start`."""
    for i in range(rows):
        if causal:
            for j in range(max(query + i + 1 - key, 0), count):
                put(s + 4 * (i * PITCH + j), np.float32(-np.inf))
        if mask.size:
            at = start + (query + i) * steps[2] + key * steps[3]
            for j in range(count):
                if mask[at + j * steps[3]] == 0:
                    put(s + 4 * (i * PITCH + j), np.float32(-np.inf))


@helper
def softmax_row(s, i, count, top):
    """exp(s - m) of row i in place, m the larger of its maximum and `top`; m, or 0 for -infinity, and the sum."""
    row, low = s + 4 * i * PITCH, splat(-np.inf)
    m = splat(top)
    for j in range(0, count, WIDTH):
        m = maximum(load(row + 4 * j) if j + WIDTH <= count else load_first(row + 4 * j, count - j, low), m)
    top = largest(m)
    shift, whole = splat(top if top > -np.inf else np.float32(0)), splat(0.0)
    for j in range(0, count, WIDTH):
        v = (load(row + 4 * j) if j + WIDTH <= count else load_first(row + 4 * j, count - j, low)) - shift
        v = where_less(v, splat(-87.0), splat(0.0), exp(v))
        store(row + 4 * j, v)
        whole = whole + v
    return top, total(whole)


@helper
def decay_of(old, new):
    """exp(old - new) for maxima; 0 where old is -infinity."""
    return largest(exp(splat(old - new))) if old > -np.inf else np.float32(0)


@helper
def _scale_row(row, width, factor):
    for j in range(0, width, WIDTH):
        store(row + 4 * j, load(row + 4 * j) * splat(factor))


@kernel((PLACE, PLACE, PLACE, PLACE, BYTES, MASK, BOOL, FLOAT, OUT, INT, INT, INT, INT, INT, INT, INT))
def _forward(out, q, k, v, mask, steps, causal, scale, memory, n, h, length, keys, d, e, workers):
    """Blocks of queries, shared out to the workers; keys and values are packed when the head changes."""
    deep, wide = -(-d // WIDTH) * WIDTH, -(-e // WIDTH) * WIDTH
    padded = -(-keys // COLUMNS) * COLUMNS
    blocks = -(-length // QUERIES)
    for worker in prange(workers):
        at = worker * (memory.size // workers)
        state, edge = memory[at:at + 2 * QUERIES], address(memory) + 4 * (at + 2 * QUERIES)
        s = edge + 4 * EDGE
        queries = s + 4 * QUERIES * PITCH
        o = queries + 4 * QUERIES * deep
        packed_k, packed_v = o + 4 * QUERIES * wide, o + 4 * (QUERIES * wide + padded * deep)
        held = -1
        for task in range(n * h * blocks * worker // workers, n * h * blocks * (worker + 1) // workers):
            head, first = task // blocks, task % blocks * QUERIES
            last = min(first + QUERIES, length)
            if head != held:  # rows go where the values will be, and from there to panels
                pack_rows(packed_v, deep, k, head // h, head % h, 0, keys, d, padded, np.float32(1))
                packed_transpose(packed_k, packed_v, deep, padded)
                pack_rows(packed_v, wide, v, head // h, head % h, 0, keys, e, keys, np.float32(1))
                held = head
            pack_rows(queries, deep, q, head // h, head % h, first, last, d, last - first, scale)
            clear(o, QUERIES * wide)
            for i in range(last - first):
                state[i], state[QUERIES + i] = -np.inf, 0
            for key in range(0, min(keys, last) if causal else keys, KEYS):
                count = min(KEYS, keys - key)
                product(last - first, count, d, queries, deep, 1, packed_k + 4 * key * deep, deep * COLUMNS, COLUMNS,
                        s, PITCH, 0, 0, edge)
                if causal or mask.size:
                    hide(s, last - first, count, first, key, causal, mask, head // h * steps[0] + head % h * steps[1],
                          steps)
                for i in range(last - first):
                    top, whole = softmax_row(s, i, count, state[i])
                    if key:
                        decay = decay_of(state[i], top)
                        whole += state[QUERIES + i] * decay
                        _scale_row(o + 4 * i * wide, wide, decay)
                    state[i], state[QUERIES + i] = top, whole
                product(last - first, wide, count, s, PITCH, 1, packed_v + 4 * key * wide, COLUMNS, wide, o, wide, o,
                        wide, edge)
            for i in range(last - first):
                whole = state[QUERIES + i]
                _scale_row(o + 4 * i * wide, wide, np.float32(1) / whole if whole != 0 else np.float32(0))
            unpack_rows(out, head // h, head % h, first, last, e, o, wide, np.float32(1))


def place(x):
    """x, or a copy whose last axis is contiguous, and where that is."""
    if x.shape[-1] != 1 and x.strides[-1] != 4:
        x = np.ascontiguousarray(x)
    return x, (x.ctypes.data, *x.strides[:3])


def masked(mask):
    """The mask as flat bytes, and its steps in the logits' shape."""
    if mask is None:
        return np.empty(0, np.uint8), (0, 0, 0, 0)
    mask = np.ascontiguousarray(mask).reshape((1,) * (4 - mask.ndim) + mask.shape)
    return (mask.view(np.uint8).reshape(-1),
            tuple(step if size > 1 else 0 for step, size in zip(mask.strides, mask.shape)))


def apart(out, inputs):
    """out, or memory in its stead where its last axis is not contiguous or it shares memory with an input."""
    clash = any(np.may_share_memory(out, x) for x in inputs if x is not None)
    return np.empty(out.shape, np.float32) if clash or (out.shape[-1] != 1 and out.strides[-1] != 4) else out


def attention(out, q, k, v, mask=None, causal=False, scale=None):
    """Fill out (N, h, L, e)."""
    (n, h, length, d), (keys, e) = q.shape, v.shape[2:]
    if not out.size:
        return
    scale = max(d, 1) ** -0.5 if scale is None else float(scale)
    to = apart(out, (q, k, v, mask))
    _alive, places = zip(*map(place, (to, q, k, v)))  # what the addresses in places point to
    deep, wide, padded = -(-d // WIDTH) * WIDTH, -(-e // WIDTH) * WIDTH, -(-keys // COLUMNS) * COLUMNS
    workers = min(threads(), n * h * -(-length // QUERIES))
    size = 2 * QUERIES + EDGE + QUERIES * (PITCH + deep + wide) + padded * (deep + max(deep, wide))
    _forward(*places, *masked(mask), bool(causal), scale, scratch(workers * size), n, h, length,
             keys, d, e, workers)
    if to is not out:
        out[...] = to


register(Kernel("attention", "cpu", "flash", attention, chain=chain))
