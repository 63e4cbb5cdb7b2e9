"""Wrong kernels, each with its defect named. They lean on the reference, so that each differs from it in one thing."""
import functools

import numpy as np

from kernels import verify
from kernels.contract import Kernel
from kernels.conv2d.cases import A, B, G, sides
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


# Numbers.

@wrong("attention", "value", defect="the scale is off by one per cent")
def wrong_scale(q, k, v, mask=None, causal=False, scale=None):
    return ops.attention(q, k, v, mask, causal, 1.01 * (q.shape[3] ** -0.5 if scale is None else scale))


@wrong("conv2d", "value", defect="half precision inside")
def half_inside(x, w, b=None, **options):
    return conv(x.astype(np.float16).astype(x.dtype), w.astype(np.float16).astype(x.dtype), b, **options)


@wrong("conv2d_vjp", "value", defect="eleven bits of each factor, as tensor cores keep")
def tf32(dy, x, w, b=None, **options):
    def short(a):
        return (a.view(np.uint32) & 0xFFFFE000).view(np.float32)
    return ops.conv2d_vjp(short(np.ascontiguousarray(dy)), x, short(np.ascontiguousarray(w)), b, **options)


def winograd(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """F(4x4, 3x3) in x's dtype: right as itself, wrong as a direct sum."""
    (top, bottom), (left, right) = sides(padding)
    n, _, height, width = x.shape
    out = (height + top + bottom - 2, width + left + right - 2)
    tiles = [-(-k // 4) for k in out]
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom + 4 * tiles[0] - out[0]), (left, right + 4 * tiles[1] - out[1])))
    a, bt, g = A.astype(x.dtype), B.T.astype(x.dtype), G.astype(x.dtype)
    d = np.lib.stride_tricks.sliding_window_view(padded, (6, 6), axis=(2, 3))[:, :, ::4, ::4]
    m = np.einsum("nihwab,oiab->nohwab", bt @ d @ bt.T, g @ w @ g.T, optimize=True)
    y = (a.T @ m @ a).transpose(0, 1, 2, 4, 3, 5).reshape(n, w.shape[0], 4 * tiles[0], 4 * tiles[1])
    y = np.ascontiguousarray(y[:, :, :out[0], :out[1]])
    return y if b is None else y + b[:, None, None]


wrong("conv2d", "value", defect="Winograd's algorithm, less accurate than the direct sum it is taken for",
      where={"window": 3, "stride": 1, "dilation": 1, "groups": 1})(winograd)


def _normalised(x, gamma, beta, groups, stabiliser, silu, variance, outside=False):
    grouped = x.reshape(x.shape[0], groups, -1)
    mu = grouped.mean(axis=2, keepdims=True)
    v = variance(grouped, mu)
    sigma = np.sqrt(v) + x.dtype.type(stabiliser) if outside else np.sqrt(v + x.dtype.type(stabiliser))
    y = ((grouped - mu) / sigma).reshape(x.shape)
    column = (-1,) + (1,) * (x.ndim - 2)
    y = y if gamma is None else y * gamma.reshape(column)
    y = y if beta is None else y + beta.reshape(column)
    return ops.silu(y) if silu else y


@wrong("group_norm", "value", "non-finite", "raises", defect="E[x^2] - E[x]^2 for the variance")
def one_pass_variance(x, gamma, beta, groups, stabiliser=1e-5, silu=False):
    return _normalised(x, gamma, beta, groups, stabiliser, silu, lambda g, mu: np.maximum(
        (g * g).mean(axis=2, keepdims=True) - mu * mu, 0)) if x.size else x.copy()


@wrong("group_norm", "value", defect="the variance divided by M - 1")
def unbiased(x, gamma, beta, groups, stabiliser=1e-5, silu=False):
    return _normalised(x, gamma, beta, groups, stabiliser, silu, lambda g, mu: ((g - mu) ** 2).sum(
        axis=2, keepdims=True) / max(g.shape[2] - 1, 1)) if x.size else x.copy()


@wrong("group_norm", "value", defect="the stabiliser outside the root")
def outside_root(x, gamma, beta, groups, stabiliser=1e-5, silu=False):
    return _normalised(x, gamma, beta, groups, stabiliser, silu, lambda g, mu: ((g - mu) ** 2).mean(
        axis=2, keepdims=True), outside=True) if x.size else x.copy()


@wrong("group_norm_vjp", "value", defect="SiLU's derivative forgotten")
def no_silu(dy, x, gamma, beta, groups, stabiliser=1e-5, silu=False):
    return ops.group_norm_vjp(dy, x, gamma, beta, groups, stabiliser, False)


def _online(q, k, v, mask, causal, scale, block, rescale=True, shift=True):
    """Attention by blocks of keys with a running maximum m and sum l."""
    scale = q.dtype.type(max(q.shape[3], 1) ** -0.5 if scale is None else scale)
    m = np.full((*q.shape[:3], 1), -np.inf if shift else 0, q.dtype)
    l, acc = np.zeros_like(m), np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    if not shift:
        l = l * 0
    rows = np.arange(q.shape[2])[:, None]
    with np.errstate(all="ignore"):
        for first in range(0, k.shape[2], block):
            run = slice(first, min(first + block, k.shape[2]))
            s = scale * (q @ np.swapaxes(k[:, :, run], 2, 3))
            if mask is not None:
                s = np.where(np.broadcast_to(mask, (*q.shape[:3], k.shape[2]))[..., run], s, -np.inf)
            if causal:
                s = np.where(rows >= np.arange(run.start, run.stop), s, -np.inf)
            new = np.maximum(m, s.max(axis=3, keepdims=True)) if shift else m
            base = np.where(np.isneginf(new), 0, new)
            p = np.exp(s - base)
            keep = np.exp(m - base) if rescale else np.where(np.isneginf(m), 0, 1).astype(q.dtype)
            l, acc, m = l * keep + p.sum(axis=3, keepdims=True), acc * keep + p @ v[:, :, run], new
        return np.where(l == 0, 0, acc / np.where(l == 0, 1, l)).astype(q.dtype)


@wrong("attention", "value", "non-finite", defect="the maximum is not subtracted")
def no_maximum(q, k, v, mask=None, causal=False, scale=None):
    return _online(q, k, v, mask, causal, scale, 16, shift=False)


@wrong("attention", "value", defect="online softmax without rescaling")
def no_rescale(q, k, v, mask=None, causal=False, scale=None):
    return _online(q, k, v, mask, causal, scale, 64, rescale=False)


@wrong("attention", "value", defect="the causal limit is off by one")
def causal_off_by_one(q, k, v, mask=None, causal=False, scale=None):
    if causal:
        seen = np.arange(q.shape[2])[:, None] + 1 >= np.arange(k.shape[2])
        mask = seen if mask is None else mask & seen
    return ops.attention(q, k, v, mask, False, scale)


@wrong("attention", "value", "non-finite", defect="a fully masked row gives the mean of the values")
def masked_mean(q, k, v, mask=None, causal=False, scale=None):
    if mask is not None and k.shape[2]:
        mask = np.broadcast_to(mask, (*q.shape[:3], k.shape[2]))
        mask = mask | ~mask.any(axis=3, keepdims=True)
    return ops.attention(q, k, v, mask, causal, scale)


@wrong("attention_vjp", "value", "integer", defect="the row sum of dP P is forgotten")
def no_row_sum(dy, q, k, v, mask=None, causal=False, scale=None):
    dv = ops.attention_vjp(dy, q, k, v, mask, causal, scale)[2]
    p = ops.attention(q, k, np.broadcast_to(np.eye(k.shape[2], dtype=q.dtype), (*k.shape[:3], k.shape[2])).copy(), mask,
                      causal, scale)
    ds = p * (dy @ np.swapaxes(v, 2, 3)) * q.dtype.type(max(q.shape[3], 1) ** -0.5 if scale is None else scale)
    return ds @ k, np.swapaxes(ds, 2, 3) @ q, dv


# Sampling.

def _noise(z, shape, dtype, multiplier=0xD2511F53, rounds=10, textbook=False):
    """ops.normal with one thing changed."""
    key, index, draw = z
    size = int(np.prod(shape))
    c = [np.arange(-(-size // 4), dtype=np.uint64)[None, :], np.asarray(index, np.uint64)[:, None],
         np.uint64(draw), np.uint64(0)]
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(rounds):
        p0, p1 = np.uint64(multiplier) * c[0], np.uint64(0xCD9E8D57) * c[2]
        low, high = np.uint64(0xFFFFFFFF), np.uint64(32)
        c = [(p1 >> high) ^ c[1] ^ np.uint64(k0), p1 & low, (p0 >> high) ^ c[3] ^ np.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    words = np.stack(np.broadcast_arrays(*c), axis=-1).reshape(len(index), -1)
    u = (np.float32(words[:, 0::2]) + np.float32(0.5)) * np.float32(2**-32) if textbook else \
        1 - (words[:, 0::2] >> np.uint64(8)) * 2.0**-24
    turns = words[:, 1::2]
    theta = np.pi / 2 * ((turns >> np.uint64(30)) + ((turns >> np.uint64(6)) & np.uint64(2**24 - 1)) * 2.0**-24)
    with np.errstate(all="ignore"):
        r = np.sqrt(-2 * np.log(u))
    z = np.stack([r * np.cos(theta), r * np.sin(theta)], axis=-1).reshape(len(index), -1)[:, :size]
    return z.reshape(len(index), *shape).astype(dtype)


@wrong("q_sample", "value", defect="a wrong Philox constant", where={"z": "key"})
def wrong_constant(x0, signal, noise, z):
    return ops.q_sample(x0, signal, noise, _noise(z, x0.shape[1:], x0.dtype, multiplier=0xD2511F55))


@wrong("q_sample", "value", defect="nine Philox rounds", where={"z": "key"})
def nine_rounds(x0, signal, noise, z):
    return ops.q_sample(x0, signal, noise, _noise(z, x0.shape[1:], x0.dtype, rounds=9))


@wrong("q_sample", "value", "non-finite", defect="the uniform of 32 bits in float32, coarse near 1", where={"z": "key"})
def textbook_uniform(x0, signal, noise, z):
    return ops.q_sample(x0, signal, noise, _noise(z, x0.shape[1:], x0.dtype, textbook=True))


@wrong("sampler_step", "value", defect="a sample's noise depends on its place in the batch", where={"z": "key"})
def by_place(x, e_c, e_u=None, w=1.0, *, z, **options):
    return ops.sampler_step(x, e_c, e_u, w, z=(z[0], np.arange(x.shape[0]), z[2]), **options)


@wrong("sampler_step", "non-finite", defect="a clip that eats NaN")
def eats_nan(x, e_c, e_u=None, w=1.0, *, lo=None, hi=None, **options):
    x = np.where(np.isnan(x), 0, x).astype(x.dtype) if lo is not None or hi is not None else x
    return ops.sampler_step(x, e_c, e_u, w, lo=lo, hi=hi, **options)


@wrong("sampler_step", "value", "integer", defect="guidance from the conditional side: weight w + 1")
def one_more(x, e_c, e_u=None, w=1.0, **options):
    return ops.sampler_step(x, e_c, e_u, w + 1, **options)


@wrong("sampler_step", "value", "integer", defect="the first sample's limits for all")
def first_limits(x, e_c, e_u=None, w=1.0, *, lo=None, hi=None, **options):
    lo, hi = (v if v is None or np.isscalar(v) or not len(v) else float(v[0]) for v in (lo, hi))
    return ops.sampler_step(x, e_c, e_u, w, lo=lo, hi=hi, **options)


@wrong("sampler_step_vjp", "value", "integer", defect="the gradient passes where the estimate is clipped")
def through_clip(dy, x, e_c, e_u=None, w=1.0, *, lo=None, hi=None, **options):
    return ops.sampler_step_vjp(dy, x, e_c, e_u, w, **options)


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
