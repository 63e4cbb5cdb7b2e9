"""attention and its vjp on the CUDA backends: the reference's arguments to the kernels'."""
import numpy as np

from kernels import fits
from kernels.cuda import ELEMENTS, HEADS, NULL, ROWS, blocks, element, heads
from kernels.versions import FLOATS, HALVES, Version

FORWARD, BACKWARD = "attention/attention.cu", "attention/attention_vjp.cu"


class _Call:
    """A call's arrays on the device, the arguments that all kernels share, and how they are launched."""

    def __init__(self, device, q, k, v, mask, causal, scale):
        self.device = device
        self.q, self.k, self.v, mask = (device.data(n, a) for n, a in (("q", q), ("k", k), ("v", v), ("mask", mask)))
        self.n, self.h, self.queries, d = q.shape
        self.keys, self.width = v.shape[2:]
        strides = (0,) * 4
        if mask is not NULL:
            strides = device.xp.broadcast_to(mask, (*q.shape[:3], self.keys)).strides
            mask = mask.view(np.uint8)
        scale = max(d, 1) ** -0.5 if scale is None else scale
        self.shared = (mask, np.int32(causal), *map(np.int64, strides), np.float32(scale),
                       *map(np.int32, (self.h, self.queries, self.keys, d, self.width)))
        self.size = next(s for s in HEADS if s >= max(d, self.width))

    def launch(self, path, name, version, rows, args):
        """Launch a version of a kernel whose blocks take some of `rows` rows of a head each."""
        types = [element(self.q.dtype), *([element(args[0].dtype)] if name == "attention" else [])]
        instance, kind = ", ".join([*types, str(self.size)]), version
        if version in ROWS:
            block = ROWS[version]
        else:
            cut = heads(name, version, self.size)
            block, instance = cut.block, f"{instance}, {', '.join(map(str, cut))}"
            kind = version if name == "attention" else "tiled"
        self.device.launch(path, f"{name}_{kind}<{instance}>", (blocks(rows, block) * self.n * self.h,), (128,),
                           (*args, *self.shared))

    def forward(self, version, dtype, stats=NULL):
        """o (N, h, L, e); an array stats (N, h, L, 2) is filled."""
        o = self.device.empty((self.n, self.h, self.queries, self.width), dtype)
        if o.size:
            self.launch(FORWARD, "attention", version, self.queries, (o, stats, self.q, self.k, self.v))
        return o


def attention(device, q, k, v, mask=None, causal=False, scale=None, version=None):
    """refimpl.ops.attention in one pass over the keys. version: naive, tiled, best or, for half types, wmma."""
    return _Call(device, q, k, v, mask, causal, scale).forward(version or "best", q.dtype)


def attention_vjp(device, dy, q, k, v, mask=None, causal=False, scale=None, version=None):
    """refimpl.ops.attention_vjp: forward again for the rows' maxima and sums, then dq over keys, dk and dv over queries."""
    version = version or "best"
    call, dy = _Call(device, q, k, v, mask, causal, scale), device.data("dy", dy)
    dq, dk, dv = (device.empty(a.shape, q.dtype) for a in (q, k, v))
    if not (q.size and k.size and v.size):
        for out in (dq, dk, dv):
            out[...] = 0
        return dq, dk, dv
    stats, delta = device.empty((*q.shape[:3], 2)), device.empty(q.shape[:3])
    o = call.forward(version, np.float32, stats)  # unrounded, for delta
    device.launch(BACKWARD, f"attention_delta<{element(q.dtype)}>", (blocks(delta.size, 4),), (128,),
                  (delta, dy, o, np.int32(delta.size), np.int32(call.width)))
    given = dy, call.q, call.k, call.v, stats, delta
    call.launch(BACKWARD, "attention_dq", version, call.queries, (dq, *given))
    call.launch(BACKWARD, "attention_dkv", version, call.keys, (dk, dv, *given))
    return dq, dk, dv


def _fits(q, k, v, mask=None, dy=None):
    return (fits.alike((q, k, v, dy), ELEMENTS) and fits.attention(q, k, v, mask, dy)
            and max(q.shape[3], v.shape[3]) <= HEADS[-1] and all(a.size < 2**31 for a in (q, k, v)))


FUNCTIONS = [(attention, lambda q, k, v, mask=None, *_, **__: _fits(q, k, v, mask)),
             (attention_vjp, lambda dy, q, k, v, mask=None, *_, **__: _fits(q, k, v, mask, dy))]


VERSIONS = [Version(attention, "naive", "flash", FLOATS), Version(attention, "tiled", "flash", FLOATS),
            Version(attention, "best", "flash", FLOATS, chain=lambda keys: blocks(keys, 4)),
            Version(attention, "wmma", "flash_float16", ("float16",), chain=lambda keys: blocks(keys, 32)),
            Version(attention, "wmma", "flash_bfloat16", ("bfloat16",), chain=lambda keys: blocks(keys, 32)),
            *(Version(attention_vjp, v, "flash") for v in ("naive", "tiled", "best")),
            Version(attention_vjp, "best", "flash", HALVES)]
