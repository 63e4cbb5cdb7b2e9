"""Kernels that are right in small cases and wrong past a limit, and such as behave well only under a lenient eye."""
import sys

import numpy as np
from zoo import conv, wrong

from refimpl import ops


def fresh(y):
    return np.ascontiguousarray(y)


# Sizes and options past a limit.

@wrong("conv2d", "value", defect="half precision where a sum has more than 4096 terms")
def half_when_deep(x, w, b=None, **options):
    if w[0].size > 4096:
        x, w = (a.astype(np.float16).astype(a.dtype) for a in (x, w))
    return conv(x, w, b, **options)


@wrong("conv2d", "value", "integer", defect="the last tap is dropped where there are more than 4096")
def tap_of_4096(x, w, b=None, **options):
    w = w.copy()
    w.reshape(w.shape[0], -1)[:, 4096:] = 0
    return conv(x, w, b, **options)


@wrong("conv2d", "value", "integer", defect="samples behind the 65535th block of a grid")
def short_grid(x, w, b=None, **options):
    y = conv(x, w, b, **options)
    y[65535:] = 0
    return y


@wrong("conv2d", "value", "integer", defect="what is left of a row after tiles of 32 columns, where there are several")
def columns_left(x, w, b=None, **options):
    y = conv(x, w, b, **options)
    if y.shape[3] > 64:
        y[..., y.shape[3] // 32 * 32:] = 0
    return y


@wrong("conv2d", "value", "integer", defect="pixels counted in 16 bits")
def short_pixels(x, w, b=None, **options):
    y = conv(x, w, b, **options)
    y.reshape(*y.shape[:2], y.shape[2] * y.shape[3])[:, :, 2**16:] = 0
    return y


@wrong("conv2d", "value", "integer", defect="taps of a filter behind the fifth")
def five_by_five(x, w, b=None, **options):
    w = w.copy()
    w[:, :, 5:], w[..., 5:] = 0, 0
    return conv(x, w, b, **options)


@wrong("conv2d", "value", "integer", defect="the last column where the stride is a patch's")
def patches(x, w, b=None, stride=1, **options):
    y = conv(x, w, b, stride=stride, **options)
    y[..., -1 if np.max(stride) > 3 else y.shape[3]:] = 0
    return y


@wrong("conv2d", "value", "integer", defect="the last filter of a depthwise convolution")
def depthwise(x, w, b=None, groups=1, **options):
    y = conv(x, w, b, groups=groups, **options)
    y[:, -1 if groups > 16 else y.shape[1]:] = 0
    return y


@wrong("conv2d_vjp", "value", "integer", defect="db of the first eight samples")
def db_of_eight(dy, x, w, b=None, **options):
    dx, dw, db = ops.conv2d_vjp(dy, x, w, b, **options)
    return dx, dw, None if db is None else np.sum(dy[:8], axis=(0, 2, 3))


@wrong("conv2d", "value", "integer", defect="one element in 4096 is off by one per cent")
def one_in_4096(x, w, b=None, **options):
    y = conv(x, w, b, **options)
    y.reshape(-1)[4095::4096] *= y.dtype.type(1.01)
    return y


@wrong("conv2d", "non-finite", defect="numbers above 65504 overflow")
def half_range(x, w, b=None, **options):
    with np.errstate(all="ignore"):
        return conv(np.where(np.abs(x) > 65504, x * x.dtype.type(np.inf), x), w, b, **options)


@wrong("attention", "value", "integer", defect="queries behind the thousandth")
def a_thousand_queries(q, k, v, mask=None, causal=False, scale=None):
    y = fresh(ops.attention(q, k, v, mask, causal, scale))
    y[:, :, 1000:] = 0
    return y


@wrong("attention", "value", "integer", defect="the second tile of queries forgets the causal limit")
def causal_once(q, k, v, mask=None, causal=False, scale=None):
    y = fresh(ops.attention(q, k, v, mask, causal, scale))
    if causal and q.shape[2] > 64:
        y[:, :, 64:] = ops.attention(q, k, v, mask, False, scale)[:, :, 64:]
    return y


@wrong("attention", "value", "integer", defect="heads are at most 64 wide")
def narrow_heads(q, k, v, mask=None, causal=False, scale=None):
    scale = max(q.shape[3], 1) ** -0.5 if scale is None else scale
    return ops.attention(q[..., :64], k[..., :64], v, mask, causal, scale)


@wrong("attention", "value", "integer", defect="every head from the third on is zero")
def two_heads(q, k, v, mask=None, causal=False, scale=None):
    y = fresh(ops.attention(q, k, v, mask, causal, scale))
    y[:, 2:] = 0
    return y


@wrong("attention", "value", defect="the last block of keys where a mask shows all")
def open_mask(q, k, v, mask=None, causal=False, scale=None):
    n = k.shape[2]
    if mask is not None and n > 16 and np.all(mask):
        n, mask = n // 16 * 16, None
    return ops.attention(q, k[:, :, :n], v[:, :, :n], mask, causal, scale)


@wrong("attention", "value", defect="a block of keys that is hidden is taken for one that is shown")
def hidden_block(q, k, v, mask=None, causal=False, scale=None):
    if mask is not None and mask.shape[-1] == k.shape[2] >= 32:
        mask = mask.copy()
        for first in range(0, k.shape[2], 32):
            block = mask[..., first:first + 32]
            block[~block.any(axis=-1)] = True
    return ops.attention(q, k, v, mask, causal, scale)


@wrong("attention", "value", defect="the first sample's mask where all heads share one")
def first_mask(q, k, v, mask=None, causal=False, scale=None):
    if mask is not None and mask.ndim == 4 and mask.shape[1] == 1:
        mask = mask[:1]
    return ops.attention(q, k, v, mask, causal, scale)


@wrong("attention_vjp", "value", "integer", defect="dk of the first 64 queries")
def dk_of_a_tile(dy, q, k, v, mask=None, causal=False, scale=None):
    dq, dk, dv = ops.attention_vjp(dy, q, k, v, mask, causal, scale)
    if q.shape[2] > 64:
        rows = mask if mask is None or mask.ndim < 2 or mask.shape[-2] == 1 else mask[..., :64, :]
        dk = ops.attention_vjp(dy[:, :, :64], q[:, :, :64], k, v, rows, causal, scale)[1]
    return dq, dk, dv


@wrong("group_norm", "value", defect="groups behind the sixteenth")
def sixteen_groups(x, gamma, beta, groups, **options):
    y = fresh(ops.group_norm(x, gamma, beta, groups, **options))
    y[:, 16 * (x.shape[1] // groups):] = 0
    return y


@wrong("group_norm_vjp", "value", defect="dgamma of one sample where there are more than eight")
def dgamma_of_one(dy, x, gamma, beta, groups, **options):
    dx, dgamma, dbeta = ops.group_norm_vjp(dy, x, gamma, beta, groups, **options)
    if gamma is not None and x.shape[0] > 8:
        dgamma = ops.group_norm_vjp(dy[:1], x[:1], gamma, beta, groups, **options)[1]
    return dx, dgamma, dbeta


@wrong("group_norm_vjp", "value", defect="dbeta off by one per cent where there are more than 4096 pixels")
def dbeta_of_many(dy, x, gamma, beta, groups, **options):
    dx, dgamma, dbeta = ops.group_norm_vjp(dy, x, gamma, beta, groups, **options)
    if dbeta is not None and dy[:, :1].size > 4096:
        dbeta = dbeta * dy.dtype.type(1.01)
    return dx, dgamma, dbeta


@wrong("batch_norm", "value", "integer", defect="channels behind the thirty-second")
def a_warp_of_channels(x, gamma, beta, running_mean, running_var, train, **options):
    y, *rest = ops.batch_norm(x, gamma, beta, running_mean, running_var, train, **options)
    y = fresh(y)
    y[:, 32:] = 0
    return y, *rest


@wrong("q_sample", "value", defect="the counter's words wrap at 2^16", where={"z": "key"})
def short_words(x0, signal, noise, z):
    if isinstance(z, tuple):
        z = ops.normal(*z, x0.shape[1:], dtype=x0.dtype)
        flat = z.reshape(len(z), max(1, z[:1].size))
        flat[:, 2**18:] = flat[:, :max(0, flat.shape[1] - 2**18)]
    return ops.q_sample(x0, signal, noise, z)


@wrong("sampler_step", "value", "integer", defect="one number for all where only the upper limit is one per sample")
def mixed_limits(x, e_c, e_u=None, w=1.0, *, lo=None, hi=None, **options):
    if np.ndim(hi) and not np.ndim(lo):
        hi = float(hi[0]) if len(hi) else None
    return ops.sampler_step(x, e_c, e_u, w, lo=lo, hi=hi, **options)


# Conduct.

@wrong("conv2d", "unwritten", "value", defect="takes the maximum with what stood in its output", raw=True)
def larger_of_both(out, x, w, b=None, **options):
    np.fmax(out, ops.conv2d(x, w, b, **options), out=out)


@wrong("conv2d", "unwritten", "value", defect="writes no zeros", raw=True)
def without_zeros(out, x, w, b=None, **options):
    y = ops.conv2d(x, w, b, **options)
    np.copyto(out, y, where=(y != 0) | np.isnan(out))


@wrong("conv2d", "value", "integer", defect="rounds an address down to whole vectors")
def whole_vectors(x, w, b=None, **options):
    if x.flags.c_contiguous and x.ctypes.data % 16 and x.size > 1:
        x = np.roll(x, 1)  # what a rounded address reads is not ours to read
    return conv(x, w, b, **options)


@wrong("conv2d", "settings", defect="sets the seed that all others draw from")
def reseeds(x, w, b=None, **options):
    np.random.seed(0)  # noqa: NPY002
    return conv(x, w, b, **options)


@wrong("conv2d", "non-finite", defect="NaN in a filter counts as 0")
def forgiving(x, w, b=None, **options):
    return conv(x, np.where(np.isnan(w), 0, w).astype(w.dtype), b, **options)


@wrong("sampler_step", "mutated", "value", defect="writes to the limits")
def moves_limits(x, e_c, e_u=None, w=1.0, *, lo=None, hi=None, **options):
    y = ops.sampler_step(x, e_c, e_u, w, lo=lo, hi=hi, **options)
    if isinstance(lo, np.ndarray):
        lo -= 1
    return y


@wrong("noise_mse", "raises", defect="writes to a read-only input, and its error has an e as the input's name is")
def not_by_name(e, z):
    if not e.flags.writeable:
        e[...] = 0
    return ops.noise_mse(e, z)


@wrong("q_sample", "raises", defect="ends the program")
def gives_up(x0, signal, noise, z):
    if x0.ndim > 2:
        sys.exit("three axes are not supported")
    return ops.q_sample(x0, signal, noise, z)
