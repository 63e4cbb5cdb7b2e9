"""The gradients of attention on the CPU: the blocks of the forward pass again, with five products a block.

With P the weights and dP = dy V^T, each row needs its maximum, its sum and D = rowsum(P dP) before
dS = P (dP - D) is known. Where one block holds all keys they come from the block itself, else from a pass of their own.
"""
import numpy as np
from numba import prange

from ..contract import Kernel, register
from ..gemm import COLUMNS, product
from ..jit import BOOL, FLOAT, INT, OUT, helper, kernel, scratch, threads
from ..memory import address, clear, load, load_first, store
from ..simd import WIDTH, exp, fma, splat, total, where_less
from ..windows import EDGE
from .cpu import (
    BYTES,
    KEYS,
    MASK,
    PITCH,
    PLACE,
    QUERIES,
    apart,
    chain,
    decay_of,
    hide,
    masked,
    pack_rows,
    packed_transpose,
    place,
    softmax_row,
    unpack_rows,
)


@helper
def _dot(a, b, count):
    """Sum of products of two runs whose lanes behind the end hold 0 in a."""
    s = splat(0.0)
    for j in range(0, count, WIDTH):
        v = load(b + 4 * j) if j + WIDTH <= count else load_first(b + 4 * j, count - j, splat(0.0))
        s = fma(load(a + 4 * j), v, s)
    return total(s)


@helper
def _exponentials(s, i, count, top):
    """exp(s - top) of row i, in place, once top is the maximum of all its logits."""
    row, shift = s + 4 * i * PITCH, splat(top if top > -np.inf else np.float32(0))
    for j in range(0, count, WIDTH):
        v = load(row + 4 * j) if j + WIDTH <= count else load_first(row + 4 * j, count - j, splat(-np.inf))
        v = v - shift
        store(row + 4 * j, where_less(v, splat(-87.0), splat(0.0), exp(v)))


@helper
def _logit_gradient(s, dp, i, count, factor, d):
    """Row i of P = factor times exponentials, in place, and of dS = P (dP - D), in dP's place."""
    for j in range(0, count, WIDTH):
        at = 4 * (i * PITCH + j)
        p = load(s + at) * splat(factor)
        store(s + at, p)
        v = load(dp + at) if j + WIDTH <= count else load_first(dp + at, count - j, splat(0.0))
        store(dp + at, p * (v - splat(d)))


@helper
def _block(s, dp, rows, count, d, e, deep, wide, queries, above, packed_k, packed_v, first, key, causal, mask, start,
           steps, edge):
    """Logits and dP of a block of queries and a block of keys."""
    product(rows, count, d, queries, deep, 1, packed_k + 4 * key * deep, deep * COLUMNS, COLUMNS, s, PITCH, 0, 0, edge)
    product(rows, count, e, above, wide, 1, packed_v + 4 * key * wide, wide * COLUMNS, COLUMNS, dp, PITCH, 0, 0, edge)
    if causal or mask.size:
        hide(s, rows, count, first, key, causal, mask, start, steps)


@kernel((*[PLACE] * 7, BYTES, MASK, BOOL, FLOAT, OUT, *[INT] * 7))
def _backward(dq, dk, dv, dy, q, k, v, mask, steps, causal, scale, memory, n, h, length, keys, d, e, workers):
    """A head at a time; q is scaled as it is packed, so that dk needs no scale, and dq is scaled as it is unpacked."""
    deep, wide = -(-d // WIDTH) * WIDTH, -(-e // WIDTH) * WIDTH
    padded = -(-keys // COLUMNS) * COLUMNS
    for worker in prange(workers):
        at = worker * (memory.size // workers)
        state, edge = memory[at:at + 3 * QUERIES], address(memory) + 4 * (at + 3 * QUERIES)
        s = edge + 4 * EDGE
        dp = s + 4 * QUERIES * PITCH
        queries = dp + 4 * QUERIES * PITCH
        above = queries + 4 * QUERIES * deep
        to_q = above + 4 * QUERIES * wide
        rows_k = to_q + 4 * QUERIES * deep
        packed_k = rows_k + 4 * padded * deep
        to_k = packed_k + 4 * padded * deep
        packed_v = to_k + 4 * padded * deep
        to_v = packed_v + 4 * padded * wide
        for head in range(n * h * worker // workers, n * h * (worker + 1) // workers):
            i_n, i_h = head // h, head % h
            start = i_n * steps[0] + i_h * steps[1]
            pack_rows(to_v, wide, v, i_n, i_h, 0, keys, e, padded, np.float32(1))
            packed_transpose(packed_v, to_v, wide, padded)
            pack_rows(rows_k, deep, k, i_n, i_h, 0, keys, d, padded, np.float32(1))
            packed_transpose(packed_k, rows_k, deep, padded)
            clear(to_k, padded * deep)
            clear(to_v, padded * wide)
            for first in range(0, length, QUERIES):
                last = min(first + QUERIES, length)
                rows, seen = last - first, min(keys, last) if causal else keys
                pack_rows(queries, deep, q, i_n, i_h, first, last, d, rows, scale)
                pack_rows(above, wide, dy, i_n, i_h, first, last, e, rows, np.float32(1))
                clear(to_q, QUERIES * deep)
                for i in range(rows):
                    state[i], state[QUERIES + i], state[2 * QUERIES + i] = -np.inf, 0, 0
                for key in range(0, seen, KEYS):  # the maximum, the sum of exponentials, and of those times dP
                    count = min(KEYS, keys - key)
                    _block(s, dp, rows, count, d, e, deep, wide, queries, above, packed_k, packed_v, first, key, causal,
                           mask, start, steps, edge)
                    for i in range(rows):
                        top, whole = softmax_row(s, i, count, state[i])
                        decay = decay_of(state[i], top)
                        state[i], state[QUERIES + i] = top, whole + state[QUERIES + i] * decay
                        state[2 * QUERIES + i] = (_dot(s + 4 * i * PITCH, dp + 4 * i * PITCH, count)
                                                  + state[2 * QUERIES + i] * decay)
                for key in range(0, seen, KEYS):
                    count = min(KEYS, keys - key)
                    if seen > KEYS:
                        _block(s, dp, rows, count, d, e, deep, wide, queries, above, packed_k, packed_v, first, key,
                               causal, mask, start, steps, edge)
                    for i in range(rows):
                        if seen > KEYS:
                            _exponentials(s, i, count, state[i])
                        whole = state[QUERIES + i]
                        factor = np.float32(1) / whole if whole != 0 else np.float32(0)
                        _logit_gradient(s, dp, i, count, factor, state[2 * QUERIES + i] * factor)
                    product(rows, deep, count, dp, PITCH, 1, rows_k + 4 * key * deep, COLUMNS, deep, to_q, deep, to_q,
                            deep, edge)
                    to = to_k + 4 * key * deep
                    product(count, deep, rows, dp, 1, PITCH, queries, COLUMNS, deep, to, deep, to, deep, edge)
                    to = to_v + 4 * key * wide
                    product(count, wide, rows, s, 1, PITCH, above, COLUMNS, wide, to, wide, to, wide, edge)
                unpack_rows(dq, i_n, i_h, first, last, d, to_q, deep, scale)
            unpack_rows(dk, i_n, i_h, 0, keys, d, to_k, deep, np.float32(1))
            unpack_rows(dv, i_n, i_h, 0, keys, e, to_v, wide, np.float32(1))


def attention_vjp(out, dy, q, k, v, mask=None, causal=False, scale=None):
    """Fill out = (dq, dk, dv)."""
    (n, h, length, d), (keys, e) = q.shape, v.shape[2:]
    if not n * h * length * keys:
        for to in out:
            to[...] = 0
        return
    scale = max(d, 1) ** -0.5 if scale is None else float(scale)
    inputs = [dy, q, k, v, mask]
    tos = []
    for to in out:
        tos.append(apart(to, inputs))
        inputs.append(tos[-1])
    _alive, places = zip(*map(place, (*tos, dy, q, k, v)))  # what the addresses in places point to
    deep, wide, padded = -(-d // WIDTH) * WIDTH, -(-e // WIDTH) * WIDTH, -(-keys // COLUMNS) * COLUMNS
    workers = min(threads(), n * h)
    size = (3 * QUERIES + EDGE + QUERIES * (2 * PITCH + 2 * deep + wide) + padded * (3 * deep + 2 * wide)
            + QUERIES * PITCH)  # the last: what a product may read behind the last row
    _backward(*places, *masked(mask), bool(causal), scale, scratch(workers * size), n, h, length, keys, d, e, workers)
    for to, given in zip(tos, out):
        if to is not given:
            given[...] = to


register(Kernel("attention_vjp", "cpu", "flash", attention_vjp, chain=chain))
