"""Honest float32 kernels that sum in five orders: whatever order a correct kernel takes, the verdict must pass it."""
import numpy as np

from refimpl import ops


def sequential(terms):
    """((t0 + t1) + t2) + ..., along the last axis."""
    return np.cumsum(terms, axis=-1, dtype=terms.dtype)[..., -1] if terms.shape[-1] else terms.sum(axis=-1)


def backwards(terms):
    """From the last to the first."""
    return sequential(terms[..., ::-1])


def pairwise(terms):
    """Halves of halves."""
    while terms.shape[-1] > 1:
        half = terms.shape[-1] // 2
        rest = terms[..., 2 * half:]
        terms = np.concatenate([terms[..., :half] + terms[..., half:2 * half], rest], axis=-1)
    return terms.sum(axis=-1)


def blocked(terms):
    """Runs of 16, then the runs."""
    count = -(-terms.shape[-1] // 16)
    padded = np.concatenate([terms, np.zeros((*terms.shape[:-1], 16 * count - terms.shape[-1]), terms.dtype)], axis=-1)
    return sequential(sequential(padded.reshape(*terms.shape[:-1], count, 16)))


def lanes(terms):
    """Eight accumulators, as vector units keep, then their tree."""
    count = -(-terms.shape[-1] // 8)
    padded = np.concatenate([terms, np.zeros((*terms.shape[:-1], 8 * count - terms.shape[-1]), terms.dtype)], axis=-1)
    return pairwise(sequential(np.swapaxes(padded.reshape(*terms.shape[:-1], count, 8), -1, -2)))


ORDERS = (sequential, backwards, pairwise, blocked, lanes)


def windows(x, w, stride, padding, dilation, groups):
    """Products of every output of a convolution, in the last axis."""
    pairs = [v if isinstance(v, tuple) else (v, v) for v in (stride, dilation, padding)]
    sides = [p if isinstance(p, tuple) else (p, p) for p in pairs[2]]
    padded = np.pad(x, ((0, 0), (0, 0), *sides))
    (dr, ds), (o, i, r, s) = pairs[1], w.shape
    span = (dr * (r - 1) + 1, ds * (s - 1) + 1)
    views = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(2, 3))
    views = views[:, :, ::pairs[0][0], ::pairs[0][1], ::dr, ::ds]  # (N, C, Ho, Wo, R, S)
    n, _, ho, wo = views.shape[:4]
    views = views.reshape(n, groups, 1, i, ho, wo, r, s)
    terms = views * w.reshape(1, groups, o // groups, i, 1, 1, r, s)
    return np.moveaxis(terms, 3, 5).reshape(n, o, ho, wo, i * r * s)


def conv2d(total):
    def kernel(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
        y = total(windows(x, w, stride, padding, dilation, groups))
        return y if b is None else y + b[:, None, None]
    return kernel


def group_norm(total):
    def kernel(x, gamma, beta, groups, stabiliser=1e-5, silu=False):
        if not x.size:
            return x.copy()
        grouped = x.reshape(x.shape[0], groups, -1)
        m = np.float32(grouped.shape[2])
        mu = (total(grouped) / m)[..., None]
        centred = grouped - mu
        v = (total(centred * centred) / m)[..., None]
        column = (-1,) + (1,) * (x.ndim - 2)
        y = (centred * (1 / np.sqrt(v + np.float32(stabiliser)))).reshape(x.shape)
        y = y if gamma is None else y * gamma.reshape(column)
        y = y if beta is None else y + beta.reshape(column)
        return y / (1 + np.exp(-y)) if silu else y
    return kernel


def batch_norm(total):
    def kernel(x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
        rows, column = np.swapaxes(x, 0, 1).reshape(x.shape[1], -1), (-1,) + (1,) * (x.ndim - 2)
        mu, v, mean, var = running_mean, running_var, running_mean.copy(), running_var.copy()
        if train:
            size = np.float32(rows.shape[1])
            mu = total(rows) / size
            square = total((rows - mu[:, None]) ** 2)
            v, share = square / size, np.float32(momentum)
            mean, var = mean + share * (mu - mean), var + share * (square / (size - 1) - var)
        slope = 1 / np.sqrt(v + np.float32(stabiliser)) * (1 if gamma is None else gamma)
        # Folded into one product and one sum, as frameworks do.
        offset = -mu * slope if beta is None else beta - mu * slope
        return x * slope.reshape(column) + offset.reshape(column), mean, var
    return kernel


def attention(total, block=7):
    """Online softmax over blocks of keys, every sum in the order given."""
    def kernel(q, k, v, mask=None, causal=False, scale=None):
        scale = np.float32(max(q.shape[3], 1) ** -0.5 if scale is None else scale)
        shape = (*q.shape[:3], k.shape[2])
        seen = np.ones(shape, bool) if mask is None else np.broadcast_to(mask, shape)
        if causal:
            seen = seen & (np.arange(shape[2])[:, None] >= np.arange(shape[3]))
        m, l = np.full((*shape[:3], 1), -np.inf, np.float32), np.zeros((*shape[:3], 1), np.float32)
        acc = np.zeros((*shape[:3], v.shape[3]), np.float32)
        for first in range(0, shape[3], block):
            run = slice(first, first + block)
            s = scale * total(q[..., :, None, :] * k[..., None, run, :])
            s = np.where(seen[..., run], s, np.float32(-np.inf))
            new = np.maximum(m, s.max(axis=-1, keepdims=True))
            base = np.where(np.isneginf(new), np.float32(0), new)
            p, keep = np.exp(s - base), np.exp(m - base)
            l = l * keep + total(p)[..., None]
            acc = acc * keep + total(p[..., None, :] * np.swapaxes(v[:, :, run], 2, 3)[..., None, :, :])
            m = new
        return np.where(l == 0, np.float32(0), acc / np.where(l == 0, np.float32(1), l))
    return kernel


def conv2d_vjp(total):
    """dw and db as sums over all pixels in the order given; dx as the reference's."""
    def kernel(dy, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
        dx = ops.conv2d_vjp(dy, x, w, b, stride, padding, dilation, groups)[0]
        dw = np.empty_like(w)
        for index in np.ndindex(w.shape):
            one = np.zeros((w.shape[0], *w.shape[1:]), w.dtype)
            one[index] = 1
            tap = ops.conv2d(x, one, None, stride, padding, dilation, groups)[:, index[0]]
            dw[index] = total((tap * dy[:, index[0]]).reshape(-1))
        return dx, dw, None if b is None else total(np.moveaxis(dy, 1, 0).reshape(dy.shape[1], -1))
    return kernel


HONEST = {"conv2d": conv2d, "group_norm": group_norm, "batch_norm": batch_norm, "attention": attention,
          "conv2d_vjp": conv2d_vjp}
