"""Wrong kernels whose numbers are off: scales, precisions, variances, softmaxes. Entered in the zoo."""
import numpy as np
from zoo import conv, wrong

from kernels.conv2d.cases import A, B, G, sides
from refimpl import ops


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
