"""Group, instance, layer and batch normalisation, each followed by its vjp.

Variances are taken in two passes, mean((x - mu)^2): E[x^2] - E[x]^2 cancels where the mean is large. They are written
as a product, not as np.var, which drops the imaginary part that the complex step lives in.
"""
import math

import numpy as np

from ._check import require, same_dtype, same_dtype_as, same_shape_as
from .activation import silu as _silu
from .activation import silu_vjp as _silu_vjp


def _affine(name, x, gamma, beta, shape):
    """Check gamma and beta against the shape they scale, and x's dtype."""
    same_dtype(name, x=x, gamma=gamma, beta=beta)
    for label, p in (("gamma", gamma), ("beta", beta)):
        if p is not None:
            require(p.shape == shape, f"{name}: {label} {shape} expected, got {p.shape}")


def _scaled(x_hat, gamma, beta, shape):
    """gamma x_hat + beta, gamma and beta reshaped to broadcast; None stands for 1 and 0."""
    y = x_hat if gamma is None else x_hat * gamma.reshape(shape)
    return y if beta is None else y + beta.reshape(shape)


def _standardise(x, mean, stabiliser):
    """x_hat = (x - mu)/sigma and sigma = sqrt(v + stabiliser), mean(a) being the mean over what shares a mean."""
    centred = x - mean(x)
    sigma = np.sqrt(mean(centred * centred) + stabiliser)
    return centred / sigma, sigma


def _mean_over(axes):
    """The mean over these axes, kept for broadcasting; of nothing it is 0, so that nothing in gives nothing out."""
    def mean(a):
        return np.sum(a, axis=axes, keepdims=True) / max(math.prod(a.shape[i] for i in axes), 1)
    return mean


def _space_sum(a):
    """Sum over everything behind the channels: (N, C)."""
    return np.sum(a, axis=tuple(range(2, a.ndim)))


def _group_mean(a, groups):
    """Mean over each sample's groups of channels, one value per channel: (N, C, 1, ...)."""
    # Space first, then channels: one reshape of the whole array would copy it where the strides are channels-last.
    return _mean_of_sums(_space_sum(a), groups, a)


def _mean_of_sums(sums, groups, a):
    """From sums over space (N, C) of an array like a to its group means (N, C, 1, ...)."""
    n, c = sums.shape
    size = max(c // groups * math.prod(a.shape[2:]), 1)
    means = np.sum(sums.reshape(n, groups, c // groups), axis=2) / size
    return np.repeat(means, c // groups, axis=1).reshape((n, c) + (1,) * (a.ndim - 2))


def _group_checks(name, x, gamma, beta, groups):
    require(x.ndim >= 2, f"{name}: x (N, C, ...) expected, got shape {x.shape}")
    c = x.shape[1]
    require(groups >= 1 and c % groups == 0, f"{name}: groups must divide the {c} channels, got {groups}")
    _affine(name, x, gamma, beta, (c,))
    return (-1,) + (1,) * (x.ndim - 2)  # what a (C,) vector is reshaped to


def group_norm(x, gamma, beta, groups, stabiliser=1e-5, silu=False):
    r"""Group normalisation, with an optional SiLU behind it.

    $$y = \gamma \hat x + \beta, \quad \hat x = \frac{x-\mu}{\sqrt{v+\epsilon}}, \quad
      \mu = \frac1M\sum x, \quad v = \frac1M\sum (x-\mu)^2, \qquad \text{out} = \mathrm{silu}(y)\ \text{if asked}$$

    Shapes: x (N, C, ...); gamma, beta (C,) or None; sums run over the M elements of C/groups channels of one sample.
    Returns x's shape. Analytic.
    Raises: ValueError when groups does not divide C or gamma or beta is not (C,); TypeError when dtypes differ.
    Source: Wu and He 2018, arXiv:1803.08494.
    """
    shape = _group_checks("group_norm", x, gamma, beta, groups)
    x_hat, _ = _standardise(x, lambda a: _group_mean(a, groups), stabiliser)
    y = _scaled(x_hat, gamma, beta, shape)
    return _silu(y) if silu else y


def group_norm_vjp(dy, x, gamma, beta, groups, stabiliser=1e-5, silu=False):
    r"""dx = (g - mean(g) - x_hat mean(g x_hat))/sigma with g = gamma dy; dgamma = sum dy x_hat, dbeta = sum dy."""
    shape = _group_checks("group_norm_vjp", x, gamma, beta, groups)
    same_shape_as("group_norm_vjp", x, dy=dy)
    x_hat, sigma = _standardise(x, lambda a: _group_mean(a, groups), stabiliser)
    if silu:
        dy = _silu_vjp(dy, _scaled(x_hat, gamma, beta, shape))
    sums, dots = _space_sum(dy), _space_sum(dy * x_hat)  # (N, C): gamma is constant over space, so they serve all three
    scale = 1 if gamma is None else gamma
    g = _scaled(dy, gamma, None, shape)
    dx = (g - _mean_of_sums(scale * sums, groups, x) - x_hat * _mean_of_sums(scale * dots, groups, x)) / sigma
    return dx, None if gamma is None else np.sum(dots, axis=0), None if beta is None else np.sum(sums, axis=0)


def instance_norm(x, gamma=None, beta=None, stabiliser=1e-5):
    r"""Instance normalisation: every channel of every sample by itself, that is group norm with C groups.

    $$y_{nc} = \gamma_c \frac{x_{nc}-\mu_{nc}}{\sqrt{v_{nc}+\epsilon}} + \beta_c$$

    Shapes: x (N, C, ...); gamma, beta (C,) or None. Returns x's shape. Analytic.
    Raises: as group_norm.
    Source: Ulyanov, Vedaldi, Lempitsky 2016, arXiv:1607.08022.
    """
    _group_checks("instance_norm", x, gamma, beta, 1)
    return group_norm(x, gamma, beta, max(x.shape[1], 1), stabiliser)


def instance_norm_vjp(dy, x, gamma=None, beta=None, stabiliser=1e-5):
    """dx, dgamma, dbeta of group norm with C groups."""
    _group_checks("instance_norm_vjp", x, gamma, beta, 1)
    return group_norm_vjp(dy, x, gamma, beta, max(x.shape[1], 1), stabiliser)


def _layer_checks(x, gamma, beta, axes):
    require(1 <= axes <= x.ndim, f"layer_norm: axes must be in 1..{x.ndim} for x {x.shape}, got {axes}")
    _affine("layer_norm", x, gamma, beta, x.shape[x.ndim - axes:])
    return tuple(range(x.ndim - axes, x.ndim))


def layer_norm(x, gamma=None, beta=None, axes=1, stabiliser=1e-5):
    r"""Layer normalisation over the last axes.

    $$y = \gamma \odot \frac{x-\mu}{\sqrt{v+\epsilon}} + \beta, \quad \mu, v \text{ over the last axes}$$

    Shapes: x any with at least `axes` axes; gamma, beta the shape of those axes or None. Returns x's shape. Analytic.
    Raises: ValueError when axes or the shape of gamma or beta does not fit x; TypeError when dtypes differ.
    Source: Ba, Kiros, Hinton 2016, arXiv:1607.06450.
    """
    last = _layer_checks(x, gamma, beta, axes)
    x_hat, _ = _standardise(x, _mean_over(last), stabiliser)
    return _scaled(x_hat, gamma, beta, x.shape[last[0]:])


def layer_norm_vjp(dy, x, gamma=None, beta=None, axes=1, stabiliser=1e-5):
    """dx = (g - mean(g) - x_hat mean(g x_hat))/sigma with g = gamma dy; dgamma = sum dy x_hat, dbeta = sum dy."""
    last = _layer_checks(x, gamma, beta, axes)
    same_shape_as("layer_norm_vjp", x, dy=dy)
    mean, first = _mean_over(last), tuple(range(last[0]))
    x_hat, sigma = _standardise(x, mean, stabiliser)
    g = _scaled(dy, gamma, None, x.shape[last[0]:])
    dx = (g - mean(g) - x_hat * mean(g * x_hat)) / sigma
    return (dx, None if gamma is None else np.sum(dy * x_hat, axis=first),
            None if beta is None else np.sum(dy, axis=first))


def _batch_checks(x, gamma, beta, running_mean, running_var, train):
    require(x.ndim >= 2, f"batch_norm: x (N, C, ...) expected, got shape {x.shape}")
    channels = (x.shape[1],)
    _affine("batch_norm", x, gamma, beta, channels)
    for label, r in (("running_mean", running_mean), ("running_var", running_var)):
        require(r.shape == channels, f"batch_norm: {label} {channels} expected, got {r.shape}")
    same_dtype_as("batch_norm", x, running_mean=running_mean, running_var=running_var)
    axes = (0, *range(2, x.ndim))
    size = math.prod(x.shape[i] for i in axes)
    require(not train or size > 1, f"batch_norm: training needs more than one value per channel, got x {x.shape}")
    return axes, size, (-1,) + (1,) * (x.ndim - 2)


def batch_norm(x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    r"""Batch normalisation; the running statistics come in and go out.

    $$y = \gamma_c \frac{x-\mu_c}{\sqrt{v_c+\epsilon}} + \beta_c, \qquad
      \text{running} \leftarrow (1-m)\,\text{running} + m\,\text{batch}$$

    Training: mu, v are the batch's, over samples and space, v biased; the running variance takes the unbiased one, and
    m is the new value's share (PyTorch's momentum; the paper's moving average). Else mu, v are the running ones.
    Shapes: x (N, C, ...); gamma, beta (C,) or None; running_mean, running_var (C,).
    Returns y of x's shape, running_mean (C,), running_var (C,). Analytic.
    Raises: ValueError on a wrong shape, or on one value per channel in training; TypeError when dtypes differ.
    Source: Ioffe and Szegedy 2015, arXiv:1502.03167.
    """
    axes, size, shape = _batch_checks(x, gamma, beta, running_mean, running_var, train)
    if not train:
        x_hat = (x - running_mean.reshape(shape)) / np.sqrt(running_var.reshape(shape) + stabiliser)
        return _scaled(x_hat, gamma, beta, shape), running_mean.copy(), running_var.copy()
    mean = _mean_over(axes)
    mu = mean(x)
    v = mean((x - mu) ** 2)
    y = _scaled((x - mu) / np.sqrt(v + stabiliser), gamma, beta, shape)
    return (y, (1 - momentum) * running_mean + momentum * mu.reshape(-1),
            (1 - momentum) * running_var + momentum * size / (size - 1) * v.reshape(-1))


def batch_norm_vjp(dy, x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    """dx = gamma (dy - mean(dy) - x_hat mean(dy x_hat))/sigma in training, else gamma dy/sigma; dgamma, dbeta as above.

    The running statistics are state, not a path for gradients: dy is y's cotangent alone.
    """
    axes, size, shape = _batch_checks(x, gamma, beta, running_mean, running_var, train)
    same_shape_as("batch_norm_vjp", x, dy=dy)
    if train:
        x_hat, sigma = _standardise(x, _mean_over(axes), stabiliser)
    else:
        sigma = np.sqrt(running_var.reshape(shape) + stabiliser)
        x_hat = (x - running_mean.reshape(shape)) / sigma
    dbeta, dgamma = np.sum(dy, axis=axes), np.sum(dy * x_hat, axis=axes)  # (C,)
    moved = dy - (dbeta.reshape(shape) + x_hat * dgamma.reshape(shape)) / size if train else dy
    dx = _scaled(moved / sigma, gamma, None, shape)
    return dx, None if gamma is None else dgamma, None if beta is None else dbeta
