"""Wrong kernels, each with its defect named. They lean on the reference, so that each differs from it in one thing."""
import functools

import numpy as np

from kernels import verify
from kernels.contract import Kernel
from kernels.conv2d.cases import sides
from refimpl import ops

ZOO = []


@functools.cache
def judged(name):
    """The verdict on a kernel of the zoo, reached once for all tests, after a short search for the smallest failure."""
    _, operation, function, _, _, raw, where = next(z for z in ZOO if z[0] == name)
    before, verify.SHRINKING = verify.SHRINKING, 150
    try:
        return verify.verify(Kernel(operation, "zoo", "direct", function, raw=raw, where=where), examples=60)
    finally:
        verify.SHRINKING = before


def wrong(operation, *kinds, defect, raw=False, where=None):
    """Enter a wrong kernel: the kinds of finding that name its defect, and the part of the contract it is for."""
    def enter(function):
        ZOO.append((function.__name__, operation, function, kinds, defect, raw, where or {}))
        return function
    return enter


def conv(x, w, b=None, **options):
    return np.ascontiguousarray(ops.conv2d(x, w, b, **options))


# Nothing was computed, or only a part.

@wrong("conv2d", "value", defect="returns zeros")
def zeros(x, w, b=None, **options):
    return np.zeros_like(conv(x, w, b, **options))


@wrong("attention", "non-finite", defect="returns NaN")
def nans(q, k, v, mask=None, causal=False, scale=None):
    return np.full_like(ops.attention(q, k, v, mask, causal, scale), np.nan)


@wrong("conv2d", "unwritten", "integer", defect="leaves the last column of its output unwritten", raw=True)
def stale_column(out, x, w, b=None, **options):
    out[..., :-1] = ops.conv2d(x, w, b, **options)[..., :-1]


@wrong("group_norm", "value", "unwritten", defect="the tail of a vector loop is missing", where={"spatial": 2})
def no_tail(x, gamma, beta, groups, **options):
    y = np.ascontiguousarray(ops.group_norm(x, gamma, beta, groups, **options))
    y.reshape(-1)[y.size // 4 * 4:] = 0
    return y


@wrong("conv2d", "value", "integer", defect="the last tap is dropped where there are a thousand")
def dropped_tap(x, w, b=None, groups=1, **options):
    w = w.copy()
    if w[0].size > 1000:
        w[:, -1, -1, -1] = 0
    return conv(x, w, b, groups=groups, **options)


@wrong("conv2d", "value", "integer", defect="a tap is taken twice where there are a thousand")
def doubled_tap(x, w, b=None, groups=1, **options):
    w = w.copy()
    if w[0].size > 1000:
        w[:, 0, 0, 0] *= 2
    return conv(x, w, b, groups=groups, **options)


@wrong("attention", "value", "integer", defect="the last key of a row of more than 512 is lost")
def lost_key(q, k, v, mask=None, causal=False, scale=None):
    n = k.shape[2] - (k.shape[2] > 512)
    return ops.attention(q, k[:, :, :n], v[:, :, :n], mask if mask is None or mask.shape[-1] == 1 else mask[..., :n],
                         causal, scale)


@wrong("conv2d_vjp", "value", "integer", defect="db sums over samples but not over space")
def short_db(dy, x, w, b=None, **options):
    dx, dw, db = ops.conv2d_vjp(dy, x, w, b, **options)
    return dx, dw, None if db is None else np.sum(dy[:, :, 0, 0], axis=0)


# Memory of earlier calls, or other people's memory.

_kept = {}


@wrong("conv2d", "state", "value", defect="replays the first result of a shape")
def replayed(x, w, b=None, **options):
    y = conv(x, w, b, **options)
    return _kept.setdefault(("replayed", x.shape, w.shape, b is None, str(options)), y).copy() if y.size > 40 else y


@wrong("q_sample", "state", "value", defect="replays by address", where={"z": "array"})
def replayed_address(x0, signal, noise, z):
    y = ops.q_sample(x0, signal, noise, z)
    return _kept.setdefault(("address", x0.ctypes.data, x0.shape, z.ctypes.data, str((signal, noise))), y).copy()


@wrong("group_norm", "state", defect="returns one buffer for all calls of a shape")
def one_buffer(x, gamma, beta, groups, **options):
    buffer = _kept.setdefault(("buffer", x.shape, x.dtype), np.empty_like(x, order="C"))
    buffer[...] = ops.group_norm(x, gamma, beta, groups, **options)
    return buffer


@wrong("q_sample", "mutated", defect="works in its input's memory", where={"z": "array"})
def mutating(x0, signal, noise, z):
    y = ops.q_sample(x0, signal, noise, z)
    if x0.flags.writeable:
        x0 *= 0.5
    return y


@wrong("conv2d", "guard", "mutated", defect="writes one element past its output", raw=True)
def past_the_end(out, x, w, b=None, **options):
    out[...] = ops.conv2d(x, w, b, **options)
    np.lib.stride_tricks.as_strided(out.reshape(-1), (out.size + 1,), (out.itemsize,))[-1] = 1


_calls = [0]


@wrong("q_sample", "different bits", "value", defect="wrong on every second call")
def second_call(x0, signal, noise, z):
    _calls[0] += 1
    return ops.q_sample(x0, signal, noise, z) * x0.dtype.type(1 if _calls[0] % 2 else 1.001)


@wrong("attention", "different bits", defect="a race: the last bit changes from call to call")
def racing(q, k, v, mask=None, causal=False, scale=None):
    _calls[0] += 1
    y = ops.attention(q, k, v, mask, causal, scale)
    return np.nextafter(y, np.inf, dtype=y.dtype) if _calls[0] % 2 else y


# Indices.

@wrong("conv2d", "value", "integer", defect="rows and columns of the filter exchanged", where={"window": 3})
def swapped_axis(x, w, b=None, **options):
    return conv(x, np.ascontiguousarray(np.swapaxes(w, 2, 3)), b, **options)


@wrong("conv2d", "value", "integer", defect="the filter turned round: convolution where correlation is meant")
def turned(x, w, b=None, **options):
    return conv(x, np.ascontiguousarray(w[:, :, ::-1, ::-1]), b, **options)


@wrong("conv2d", "shape", "value", "integer", "raises", defect="the stride is one too large where it is above 1")
def long_stride(x, w, b=None, stride=1, **options):
    return conv(x, w, b, stride=stride + 1 if stride == 2 else stride, **options)


@wrong("conv2d", "value", "integer", defect="top and bottom padding exchanged")
def turned_padding(x, w, b=None, padding=0, **options):
    return conv(x, w, b, padding=tuple(p[::-1] for p in sides(padding)), **options)


@wrong("conv_transpose2d", "shape", "value", "integer", defect="output padding goes to the top", where={"dilation": 1})
def top_padding(x, w, b=None, output_padding=0, **options):
    y = ops.conv_transpose2d(x, w, b, output_padding=output_padding, **options)
    return np.roll(y, output_padding if isinstance(output_padding, int) else output_padding[0], axis=2)


@wrong("conv2d", "value", "integer", "shape", "raises", defect="the channels of groups interleaved")
def interleaved(x, w, b=None, groups=1, **options):
    n, c, height, width = x.shape
    x = x.reshape(n, c // groups, groups, height, width).swapaxes(1, 2).reshape(x.shape)
    return conv(x, w, b, groups=groups, **options)


@wrong("sampler_step", "value", defect="the sample's index in 31 bits", where={"z": "key"})
def short_index(x, e_c, e_u=None, w=1.0, *, z, **options):
    return ops.sampler_step(x, e_c, e_u, w, z=(z[0], z[1] & 0x7FFFFFFF, z[2]), **options)


@wrong("conv2d", "value", "integer", defect="offsets in 32 bits: memory more than 2^31 elements away")
def short_offsets(x, w, b=None, **options):
    if max(map(abs, x.strides), default=0) // x.itemsize >= 2**31:
        x = np.zeros_like(x)  # what a wrapped offset reads is not ours to read
    return conv(x, w, b, **options)


@wrong("conv2d", "value", "integer", defect="takes any memory order for C order")
def blind_to_strides(x, w, b=None, **options):
    return conv(x.ravel(order="K").reshape(x.shape), w, b, **options)


@wrong("attention", "value", "integer", "shape", defect="wrong for a batch of one")
def batch_of_one(q, k, v, mask=None, causal=False, scale=None):
    y = ops.attention(q, k, v, mask, causal, scale)
    return y * y.dtype.type(0.99) if q.shape[0] == 1 else y


# Form.

@wrong("group_norm", "dtype", defect="returns float64")
def widened(x, gamma, beta, groups, **options):
    return np.asarray(ops.group_norm(x, gamma, beta, groups, **options), np.float64)


@wrong("attention", "shape", defect="returns (N, L, h, e)")
def heads_last(q, k, v, mask=None, causal=False, scale=None):
    return np.ascontiguousarray(np.swapaxes(ops.attention(q, k, v, mask, causal, scale), 1, 2))


@wrong("sampler_step", "form", defect="returns one of two outputs")
def half_the_outputs(x, e_c, e_u=None, w=1.0, **options):
    return ops.sampler_step(x, e_c, e_u, w, **options)[0]


@wrong("conv2d_vjp", "form", defect="returns zeros for a bias that is not there")
def db_of_nothing(dy, x, w, b=None, **options):
    dx, dw, db = ops.conv2d_vjp(dy, x, w, b, **options)
    return dx, dw, np.zeros(w.shape[0], w.dtype) if db is None else db


@wrong("attention", "raises", defect="fails on an empty sequence")
def no_empty(q, k, v, mask=None, causal=False, scale=None):
    if 0 in (*q.shape, *k.shape):
        raise IndexError("index 0 is out of bounds")
    return ops.attention(q, k, v, mask, causal, scale)


@wrong("group_norm", "raises", defect="fails on a read-only input, without naming it")
def needs_writeable(x, gamma, beta, groups, **options):
    if not x.flags.writeable:
        raise RuntimeError("cannot modify array")
    return ops.group_norm(x, gamma, beta, groups, **options)
