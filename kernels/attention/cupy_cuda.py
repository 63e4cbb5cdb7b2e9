"""attention and its vjp on the CUDA backends: the reference's arguments to the kernels'."""
import numpy as np

from kernels.cuda import NULL, element

FILE = "attention/attention.cu"
HEADS = (16, 32, 64, 128)  # head sizes that are compiled; others are padded with zeros up to the next
ROWS = 32                  # queries (or keys, in dk and dv) a block of 128 threads
QUERIES = {"tiled": 1, "best": 2}


def _head(d, e):
    size = next((h for h in HEADS if h >= max(d, e)), None)
    if size is None:
        raise ValueError(f"attention: heads of at most {HEADS[-1]} numbers, got q and k of {d}, v of {e}")
    return size


def _arguments(device, q, k, v, mask, causal, scale):
    """The inputs on the device, the arguments that all kernels share, and what their template instances are for."""
    q, k, v = (device.data(n, a) for n, a in (("q", q), ("k", k), ("v", v)))
    n, h, length, d = q.shape
    keys, e = v.shape[2:]
    strides = (0, 0, 0, 0)
    if mask is not None:
        shown = device.xp.broadcast_to(mask, (n, h, length, keys))
        strides = shown.strides
        mask = mask.view(np.uint8)
    scale = max(d, 1) ** -0.5 if scale is None else scale
    shared = (NULL if mask is None else mask, np.int32(causal), *map(np.int64, strides), np.float32(scale),
              *map(np.int32, (h, length, keys, d, e)))
    return q, k, v, shared, f"{element(q.dtype)}, {_head(d, e)}"


def _forward(device, q, k, v, shared, instance, lse, algorithm):
    """o (N, h, L, e), with lse filled in if it is an array."""
    n, h, length, _ = q.shape
    o = device.empty((n, h, length, v.shape[3]), q.dtype)
    if not o.size:
        return o
    if algorithm == "naive":
        grid, block, name = (-(-length // 128), n * h), (128,), f"attention_naive<{instance}>"
    else:
        grid, block = (-(-length // (ROWS * QUERIES[algorithm])), n * h), (ROWS * 4,)
        name = f"attention_tiled<{instance}, {QUERIES[algorithm]}>"
    device.launch(FILE, name, grid, block, (o, lse, q, k, v, *shared))
    return o


def attention(device, q, k, v, mask=None, causal=False, scale=None, algorithm="best"):
    """refimpl.ops.attention in one pass over the keys. algorithm: naive, tiled or best."""
    q, k, v, shared, instance = _arguments(device, q, k, v, mask, causal, scale)
    return _forward(device, q, k, v, shared, instance, NULL, algorithm)


def attention_vjp(device, dy, q, k, v, mask=None, causal=False, scale=None):
    """refimpl.ops.attention_vjp: forward again for lse, then dq over the keys, dk and dv over the queries."""
    q, k, v, shared, instance = _arguments(device, q, k, v, mask, causal, scale)
    dy = device.data("dy", dy)
    n, h, length, _ = q.shape
    keys, e = v.shape[2:]
    dq, dk, dv = device.empty(q.shape, q.dtype), device.empty(k.shape, q.dtype), device.empty(v.shape, q.dtype)
    if not (q.size and v.size and k.size):
        for out in (dq, dk, dv):
            out[...] = 0
        return dq, dk, dv
    lse, delta = device.empty((n, h, length)), device.empty((n, h, length))
    o = _forward(device, q, k, v, shared, instance, lse, "best")
    rows = n * h * length
    device.launch(FILE, f"attention_delta<{element(q.dtype)}>", (-(-rows // 4),), (128,), (
        delta, dy, o, np.int32(rows), np.int32(e)))
    device.launch(FILE, f"attention_dq<{instance}>", (-(-length // ROWS), n * h), (ROWS * 4,), (
        dq, dy, q, k, v, lse, delta, *shared))
    device.launch(FILE, f"attention_dkv<{instance}>", (-(-keys // ROWS), n * h), (ROWS * 4,), (
        dk, dv, dy, q, k, v, lse, delta, *shared))
    return dq, dk, dv
