"""Normalising flows: invertible maps with the logarithm of their Jacobian's determinant, each with its vjp.

Every map returns y and log_det (N,), one per sample, even where it is the same for all: log-determinants then add up.
A vjp takes the cotangents of both, (dy, dlog_det). Without dlog_det's part a flow learns to shrink to a point.
"""
import math

import numpy as np

from ..ops._check import exponent, per_sample, require, same_dtype, sample_sum


def checkerboard(shape, odd=False):
    """Mask of the pixels whose row and column add up to an even number (odd: to an odd one): what a coupling keeps.

    Shapes: shape (C, H, W); returns it, of 0 and 1, float64.
    Source: Dinh et al. 2017, arXiv:1605.08803, sec. 3.4, fig. 3.
    """
    _, h, w = shape
    board = (np.arange(h)[:, None] + np.arange(w) + odd + 1) % 2
    return np.broadcast_to(board.astype(np.float64), shape)


def alternate(shape, odd=False):
    """Mask of every second entry along the first axis, the first one kept (odd: the second): channels, or coordinates.

    Shapes: shape of one sample; returns it, of 0 and 1, float64.
    Source: Dinh et al. 2015, arXiv:1410.8516, sec. 5 (odd and even coordinates).
    """
    keep = ((np.arange(shape[0]) + odd + 1) % 2).astype(np.float64)
    return np.broadcast_to(keep.reshape((-1,) + (1,) * (len(shape) - 1)), shape)


def _check_coupling(name, x, mask, s, t):
    same_dtype(name, x=x, s=s, t=t)
    require(x.shape == s.shape == t.shape and mask.shape == x.shape[1:],
            f"{name}: x, s, t (N, ...) and mask (...) of one shape expected, got {x.shape}, {s.shape}, {t.shape} and "
            f"{mask.shape}")
    require(bool(np.all((mask == 0) | (mask == 1))), f"{name}: a mask holds 0 and 1 only")
    exponent(name, s=s)
    return np.asarray(1 - mask, dtype=x.dtype, like=x)


def affine_coupling(x, mask, s, t):
    r"""Affine coupling: the kept part decides how the rest is scaled and shifted.

    $$y = m \odot x + (1-m)\odot\left(x\,e^{s} + t\right), \qquad \log\left|\det\frac{\partial y}{\partial x}\right|
      = \sum_i (1-m_i)\,s_i, \qquad (s, t) = f(m \odot x)$$

    Shapes: x, s, t (N, ...); mask (...) of 0 and 1; returns y (N, ...) and log_det (N,). Analytic. s and t must come
    from m x alone; that they do is the network's part, and its gradient is added there.
    Raises: ValueError when the shapes differ, mask is none, or exp(s) would overflow.
    Source: Dinh et al. 2017, arXiv:1605.08803, eq. 7-9.
    """
    free = _check_coupling("affine_coupling", x, mask, s, t)
    return (1 - free) * x + free * (x * np.exp(s) + t), sample_sum(free * s)


def affine_coupling_vjp(cotangents, x, mask, s, t):
    """With f = 1 - m: dx = dy (m + f e^s), ds = f (dy x e^s + dlog_det), dt = f dy."""
    dy, dlog_det = cotangents
    free = _check_coupling("affine_coupling_vjp", x, mask, s, t)
    scale = np.exp(s)
    return (dy * (1 - free + free * scale), free * (dy * x * scale + per_sample(dlog_det, x)), free * dy)


def affine_coupling_inverse(y, mask, s, t):
    r"""The input of an affine coupling, s and t being formed from m y = m x.

    $$x = m \odot y + (1-m)\odot (y - t)\,e^{-s}$$

    Shapes: as affine_coupling; returns x.
    Source: Dinh et al. 2017, arXiv:1605.08803, eq. 8.
    """
    free = _check_coupling("affine_coupling_inverse", y, mask, s, t)
    return (1 - free) * y + free * ((y - t) * np.exp(-s))


def additive_coupling(x, mask, t):
    r"""Additive coupling: the kept part decides how the rest is shifted. Volume is kept.

    $$y = m \odot x + (1-m)\odot(x + t), \qquad \log|\det| = 0$$

    Shapes: as affine_coupling; returns y and log_det, zeros.
    Raises: ValueError when the shapes differ or mask is none.
    Source: Dinh et al. 2015, arXiv:1410.8516, sec. 3.2.
    """
    free = _check_coupling("additive_coupling", x, mask, t, t)
    return x + free * t, 0 * sample_sum(x)


def additive_coupling_vjp(cotangents, x, mask, t):
    """dx = dy; dt = (1 - m) dy."""
    dy, _ = cotangents
    return dy, _check_coupling("additive_coupling_vjp", x, mask, t, t) * dy


def diagonal_scaling(x, s):
    r"""One factor for every dimension: what gives an additive flow its volume.

    $$y = x\,e^{s}, \qquad \log|\det| = \sum_i s_i$$

    Shapes: x (N, ...); s (...); returns y, log_det (N,). Analytic.
    Raises: ValueError when s has not the shape of a sample, or exp(s) would overflow.
    Source: Dinh et al. 2015, arXiv:1410.8516, sec. 3.3.
    """
    same_dtype("diagonal_scaling", x=x, s=s)
    require(s.shape == x.shape[1:], f"diagonal_scaling: s {x.shape[1:]} expected, as one sample, got {s.shape}")
    exponent("diagonal_scaling", s=s)
    return x * np.exp(s), np.sum(s) + 0 * sample_sum(x)


def diagonal_scaling_vjp(cotangents, x, s):
    """dx = dy e^s; ds = sum over samples of dy x e^s + dlog_det."""
    dy, dlog_det = cotangents
    dx = dy * np.exp(s)
    return dx, np.sum(dx * x, axis=0) + np.sum(dlog_det)


def actnorm(x, log_scale, bias):
    r"""Scale and shift per channel, learnt; at the start they give the first batch mean 0 and variance 1.

    $$y = (x + b_c)\,e^{s_c}, \qquad \log|\det| = H W \sum_c s_c$$

    Shapes: x (N, C, ...); log_scale (s), bias (b) (C,); returns y, log_det (N,). Analytic.
    Raises: ValueError when shapes do not fit or exp(s) would overflow.
    Source: Kingma and Dhariwal 2018, arXiv:1807.03039, sec. 3.1.
    """
    same_dtype("actnorm", x=x, log_scale=log_scale, bias=bias)
    require(log_scale.shape == bias.shape == x.shape[1:2],
            f"actnorm: log_scale and bias (C,) = {x.shape[1:2]} expected, got {log_scale.shape} and {bias.shape}")
    exponent("actnorm", log_scale=log_scale)
    return ((x + _channels(bias, x)) * np.exp(_channels(log_scale, x)),
            math.prod(x.shape[2:]) * np.sum(log_scale) + 0 * sample_sum(x))


def _channels(a, x):
    return a.reshape((-1,) + (1,) * (x.ndim - 2))


def actnorm_vjp(cotangents, x, log_scale, bias):
    """dx = dy e^s; ds = sum of dy y + H W dlog_det; db = sum of dx."""
    dy, dlog_det = cotangents
    dx = dy * np.exp(_channels(log_scale, x))
    axes = (0, *range(2, x.ndim))
    ds = np.sum(dx * (x + _channels(bias, x)), axis=axes) + math.prod(x.shape[2:]) * np.sum(dlog_det)
    return dx, ds, np.sum(dx, axis=axes)


def actnorm_start(x, stabiliser=1e-6):
    r"""The scale and shift after which this batch has mean 0 and variance 1 in every channel.

    $$b_c = -\mathrm{mean}_c, \qquad s_c = -\log(\mathrm{deviation}_c + \epsilon)$$

    Shapes: x (N, C, ...); returns log_scale, bias (C,).
    Source: Kingma and Dhariwal 2018, arXiv:1807.03039, sec. 3.1.
    """
    axes = (0, *range(2, x.ndim))
    mean = np.mean(x, axis=axes)
    return -np.log(np.sqrt(np.mean((x - _channels(mean, x)) ** 2, axis=axes)) + stabiliser), -mean


def lu_weight(permutation, lower, upper, sign, log_s):
    r"""A square matrix from its LU factors, its determinant being known without any decomposition.

    $$W = P\,L\,(U + \mathrm{diag}(\mathrm{sign}\,e^{\log s})), \qquad \log|\det W| = \sum\log s$$

    Shapes: permutation (P), lower (L: only what is below the diagonal counts), upper (U: only above) (C, C); sign,
    log_s (C,); returns W (C, C). Analytic in lower, upper, log_s; P and sign are constants.
    Raises: ValueError when the shapes do not fit, sign holds a 0, or exp(log_s) would overflow.
    Source: Kingma and Dhariwal 2018, arXiv:1807.03039, eq. 10.
    """
    c = len(log_s)
    require(permutation.shape == lower.shape == upper.shape == (c, c) and sign.shape == (c,),
            f"lu_weight: three ({c}, {c}) and sign ({c},) expected for log_s ({c},), got {permutation.shape}, "
            f"{lower.shape}, {upper.shape}, {sign.shape}")
    exponent("lu_weight", log_s=log_s)
    require(bool(np.all(np.abs(sign) == 1)), "lu_weight: sign must hold 1 and -1 only, or the weight is singular")
    return permutation @ (np.tril(lower, -1) + np.eye(c, dtype=lower.dtype, like=lower)) @ (
        np.triu(upper, 1) + np.diag(sign * np.exp(log_s)))


def lu_weight_vjp(dy, permutation, lower, upper, sign, log_s):
    """dL = tril(P^T dW R^T), dR = (P L)^T dW with R = U + diag; dU = triu(dR); dlog_s = diag(dR) sign s."""
    left = np.tril(lower, -1) + np.eye(len(log_s), dtype=lower.dtype, like=lower)
    right = np.triu(upper, 1) + np.diag(sign * np.exp(log_s))
    dright = left.T @ permutation.T @ dy
    return (np.tril(permutation.T @ dy @ right.T, -1), np.triu(dright, 1),
            np.diagonal(dright) * sign * np.exp(log_s))


def _invertible(name, w):
    require(bool(np.all(np.isfinite(w))), f"{name}: w holds NaN or infinity")
    singular = np.linalg.svd(w, compute_uv=False)
    largest, least = float(singular[0]), float(singular[-1])
    require(least > len(w) * np.finfo(w.real.dtype).eps * largest, f"{name}: w is singular (its singular values reach "
            f"from {largest:.3g} to {least:.3g}), and a flow must be invertible")


def lu_factors(w):
    r"""The LU factors of an invertible matrix, as lu_weight takes them.

    $$W = P L U$$

    Shapes: w (C, C); returns permutation, lower, upper (C, C), sign, log_s (C,).
    Raises: ValueError when w is singular or not finite.
    Source: Kingma and Dhariwal 2018, arXiv:1807.03039, sec. 3.2.
    """
    from scipy.linalg import lu

    _invertible("lu_factors", w)
    p, lower, upper = lu(w)
    s = np.diagonal(upper)
    return p, np.tril(lower, -1), np.triu(upper, 1), np.sign(s), np.log(np.abs(s))


def mix_channels(x, w):
    r"""Invertible 1x1 convolution: all channels of a pixel multiplied by one square matrix.

    $$y_{n,:,i,j} = W x_{n,:,i,j}, \qquad \log|\det| = H W \log|\det W|$$

    Shapes: x (N, C, ...); w (C, C); returns y, log_det (N,). Analytic.
    Raises: ValueError when shapes do not fit or w is singular.
    Source: Kingma and Dhariwal 2018, arXiv:1807.03039, eq. 9.
    """
    same_dtype("mix_channels", x=x, w=w)
    c = x.shape[1]
    require(w.shape == (c, c), f"mix_channels: w ({c}, {c}) expected for x {x.shape}, got {w.shape}")
    _invertible("mix_channels", w)
    sign, log_abs = np.linalg.slogdet(w)
    if np.iscomplexobj(w):  # the analytic continuation: slogdet keeps the imaginary part in the sign
        log_abs = log_abs + np.log(sign / np.sign(sign.real))
    return np.einsum("oc,nc...->no...", w, x), math.prod(x.shape[2:]) * log_abs + 0 * sample_sum(x)


def mix_channels_vjp(cotangents, x, w):
    """dx = W^T dy; dw = sum of dy x^T + H W sum(dlog_det) W^-T."""
    dy, dlog_det = cotangents
    flat = lambda a: a.reshape(*a.shape[:2], math.prod(a.shape[2:]))
    dw = np.einsum("nop,ncp->oc", flat(dy), flat(x))
    return (np.einsum("oc,no...->nc...", w, dy),
            dw + math.prod(x.shape[2:]) * np.sum(dlog_det) * np.linalg.inv(w).T)


def squeeze(x):
    r"""Blocks of 2x2 pixels become four channels: a permutation, so its log-determinant is 0.

    $$y_{n,\,4c+2r+s,\,i,\,j} = x_{n,\,c,\,2i+r,\,2j+s}$$

    Shapes: x (N, C, H, W), H and W even; returns (N, 4C, H/2, W/2). Analytic.
    Raises: ValueError for an odd height or width.
    Source: Dinh et al. 2017, arXiv:1605.08803, sec. 3.6.
    """
    require(x.ndim == 4 and x.shape[2] % 2 == x.shape[3] % 2 == 0,
            f"squeeze: x (N, C, H, W) with even H and W expected, got shape {x.shape}")
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2)


def squeeze_vjp(dy, x):
    """dx = dy moved back: a permutation's transpose is its inverse."""
    return unsqueeze(dy)


def unsqueeze(x):
    r"""The inverse of squeeze.

    $$y_{n,\,c,\,2i+r,\,2j+s} = x_{n,\,4c+2r+s,\,i,\,j}$$

    Shapes: x (N, 4C, H, W); returns (N, C, 2H, 2W). Analytic.
    Raises: ValueError when 4 does not divide the channels.
    Source: Dinh et al. 2017, arXiv:1605.08803, sec. 3.6.
    """
    require(x.ndim == 4 and x.shape[1] % 4 == 0, f"unsqueeze: x (N, 4C, H, W) expected, got shape {x.shape}")
    n, c, h, w = x.shape
    return x.reshape(n, c // 4, 2, 2, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)


def unsqueeze_vjp(dy, x):
    """dx = dy moved back."""
    return squeeze(dy)
