"""The contracts of batch normalisation, in training and with running statistics, and of its gradients.

In training a channel of a batch is a group of group norm, so the bounds on statistics and gradients are that contract's.
"""
import math

import numpy as np

from kernels.bounds import growth
from kernels.cases import nonfinite, values
from kernels.contract import Contract, Large, contract
from kernels.group_norm import contract as group_norm
from refimpl import ops

DEFAULTS = {"momentum": 0.1, "stabiliser": 1e-5}
FAMILIES = ("normal", "offset", "tiny", "positive", "spread", "spike", "constant", "small")
ALGORITHMS = ("direct", "two_pass")
LARGE = Large({"samples": 65543, "channels": 65543, "space": 65543}, ("integer", "normal"))


def sizes(d, family, train, spatial, large=None):
    """Samples and spatial sizes: often a batch of few; more than one value a channel in training."""
    spatial = d.integer(1 if large else 0, 3) if spatial is None else spatial
    if large:
        axis, length = large
        length = 2 ** math.ceil(math.log2(length)) if family == "integer" else length
        space = (length if axis == "space" else 1, 1, 1)[:spatial]
        return max(2, length) if axis == "samples" else 2, *space
    if family == "integer":  # a power of two, so that means are exact; every sum stays below 2^24
        return 2 ** d.integer(1, 3), *(2 ** d.integer(0, 3) for _ in range(spatial))
    if spatial == 2 and d.integer(0, 9) == 9:
        return d.integer(1, 3), 32, 33
    n, *shape = d.integer(1, 5), *(d.integer(1, 7) for _ in range(spatial))
    return (0 if family == "empty" and not train else 2 if math.prod((n, *shape)) == 1 else n), *shape


def cases(d, family, train=None, spatial=None, affine=None, large=None):
    """x, gamma, beta, the running statistics, train and the options; nothing at all is no samples, or no channels.

    "offset": means of a thousand deviations; "tiny": a variance below the stabiliser. On integers every channel takes two
    values, 2 s apart, equally often, and the stabiliser is 3 s^2: mean, variance and sigma = 2 s are exact.
    """
    if train is None:
        train = d.choice((True, True, False)) if large is None or large[0] == "channels" else True
    c = 0 if family == "empty" and train else d.integer(1, 20)
    if large:
        c = large[1] if large[0] == "channels" else min(c, 3)
    n, *shape = sizes(d, family, train, spatial, large)
    column = (c, *(1,) * len(shape))
    scale, middle = np.ones(c), np.zeros(c)
    if family == "integer":
        scale, middle = np.full(c, 2.0 ** d.rng.integers(0, 3)), d.rng.integers(-3, 4, c).astype(np.float64)
        signs = np.resize([-1.0, 1.0], (c, n * math.prod(shape)))
        x = np.swapaxes(d.rng.permuted(signs, axis=1).reshape(c, n, *shape), 0, 1) if c else np.zeros((n, c, *shape))
    else:
        x = values(d, family, n, c, *shape)
    if family == "offset":
        middle = 1000 * d.rng.choice([-3.0, 1.0, 2.0], size=c)
    elif family == "tiny":
        scale, middle = np.full(c, 1e-3), d.rng.choice([-1.0, 1.0], size=c)
    elif family == "small":
        scale = scale * 2.0**-70
    x = x * (1 if family == "small" else scale.reshape(column)) + middle.reshape(column)
    kind = "integer" if family == "integer" else "normal"
    gamma, beta = (values(d, kind, c) if (d.choice((True, True, False)) if affine is None else affine) else None
                   for _ in range(2))
    mean = middle + (values(d, kind, c) if family == "integer" else scale * d.array(c))
    variance = scale**2 * (1 if family == "integer" else 0.1 + d.rng.random(c))
    options = {"momentum": d.choice((0.5, 0.25)), "stabiliser": 3 * float(max(scale, default=1)) ** 2} if (
        family == "integer") else {
        "momentum": d.choice((0.1, 0.01, 0.75)), "stabiliser": d.choice((1e-5, 1e-3))}
    return (nonfinite(d, x) if family == "nonfinite" else x, gamma, beta, mean, variance, train), options


def grouped(x):
    """x (N, C, ...) as one sample of C groups, (1, C, N ...)."""
    return np.swapaxes(x, 0, 1).reshape(1, x.shape[1], x.size // max(x.shape[1], 1))


def ungrouped(bound, x):
    """The inverse, for an array like grouped(x)."""
    return np.swapaxes(bound.reshape(x.shape[1], x.shape[0], *x.shape[2:]), 0, 1)


def fixed(x, gamma, mean, variance, stabiliser, arithmetic):
    """With running statistics: |gamma|, sigma, x_hat, the relative error of 1/sigma and the error of x_hat.

    The stabiliser is rounded before it is added: r = u (stabiliser + |v + stabiliser|)/(2 (v + stabiliser)) + 3u.
    """
    u, column = arithmetic.u, (-1,) + (1,) * (x.ndim - 2)
    mean, square = mean.reshape(column), variance.reshape(column) + stabiliser
    r = u * (stabiliser + np.abs(square)) / (2 * square) + 3 * u
    sigma = np.sqrt(square)
    x_hat = (x - mean) / sigma
    error = folding(x, mean, arithmetic) / sigma + np.abs(x_hat) * (r + 2 * u)
    return np.ones(1) if gamma is None else np.abs(gamma).reshape(column), sigma, x_hat, r, error


def folding(x, mean, arithmetic):
    """Error of x - mean where the map is folded into slope x + (beta - slope mean), as frameworks do."""
    return 3 * arithmetic.u * (np.abs(x) + np.abs(mean))


def bound(args, options, outputs, arithmetic, proof, chain):
    r"""y as group norm's, or from statistics that are given; the running mean and variance from the batch's.

    dmu = c(h) u mean|x| and dv = (c(h) + 4) u v + dmu^2: the variance about a wrong mean is v + dmu^2 exactly. Each
    joins its running value r by (1 - m) r + m s or r + m (s - r): four roundings of |r| + |m s|, six with M/(M - 1).
    """
    x, gamma, beta, mean, variance, train = args
    u, tiny, stabiliser = arithmetic.u, arithmetic.tiny, options["stabiliser"]
    column = (-1,) + (1,) * (x.ndim - 2)
    if not train:
        scale, _, x_hat, _, error = fixed(x, gamma, mean, variance, stabiliser, arithmetic)
        shift = np.zeros(1) if beta is None else np.abs(beta).reshape(column)
        y = scale * error + 2 * u * (scale * np.abs(x_hat) + shift) + u * np.abs(outputs[0]) + tiny
        return y, np.zeros_like(mean), np.zeros_like(variance)
    groups, flat = max(x.shape[1], 1), grouped(x)
    m = group_norm.moments(flat, gamma, beta, groups, stabiliser, arithmetic, proof, chain)
    mu = m.mean(flat)
    scale = np.ones(1) if gamma is None else np.abs(gamma)[:, None]
    y = ungrouped(m.a_error + scale * folding(flat, mu, arithmetic) / m.sigma, x)
    v, dmu = m.mean((flat - mu) ** 2), m.h * u * m.mean(np.abs(flat)) + tiny
    dv = (m.h + 4) * u * v + dmu * dmu + tiny
    share, unbiased = options["momentum"], flat.shape[2] / (flat.shape[2] - 1)
    of_mean = share * dmu.reshape(-1) + 4 * u * (np.abs(mean) + np.abs(share * mu.reshape(-1))) + tiny
    of_variance = share * unbiased * dv.reshape(-1) + 6 * u * (
        np.abs(variance) + share * unbiased * v.reshape(-1)) + tiny
    return y, of_mean, of_variance


def flops(args, options):
    """Sum, centred square and its sum, scale and shift: 6 an element; with running statistics 3."""
    return args[0].size * (6 if args[5] else 3)


def slices(args, options, budget):
    """A channel at a time."""
    x, gamma, beta, mean, variance, train = args
    for c in range(x.shape[1]):
        own = slice(c, c + 1)
        yield ((x[:, own], group_norm.part(gamma, own), group_norm.part(beta, own), mean[own], variance[own], train),
               DEFAULTS | options, (np.s_[:, own], own, own))


def slips(args, options):
    """Momentum taken for the stabiliser, or for the share of the old value; the other statistics."""
    full = DEFAULTS | options
    yield ("as if momentum and stabiliser were exchanged", args,
           full | {"momentum": full["stabiliser"], "stabiliser": full["momentum"]})
    yield "as if momentum were the old value's share", args, full | {"momentum": 1 - full["momentum"]}


contract(Contract("batch_norm", ops.batch_norm, ("y", "running_mean", "running_var"), FAMILIES, cases,
                  dict.fromkeys(ALGORITHMS, bound), flops, group_norm.moved, slices,
                  dict.fromkeys(ALGORITHMS, (0, 0, np.inf)), slips=slips, large=LARGE))  # M/(M - 1) is rounded


def vjp_cases(d, family, **where):
    """dy of x's shape, then batch norm's arguments."""
    (x, *rest), options = cases(d, "normal" if family in ("nonfinite", "sparse") else family, **where)
    dy = values(d, family if family in ("integer", "spike", "positive", "sparse") else "normal", *x.shape)
    if family == "nonfinite" and dy.size:
        dy.reshape(-1)[d.rng.integers(dy.size)] = np.nan
    return (dy, x, *rest), options


def vjp_bound(args, options, outputs, arithmetic, proof, chain):
    """Group norm's in training; with running statistics dx is one product and dgamma, dbeta are sums of M terms."""
    dy, x, gamma, beta, mean, variance, train = args
    stabiliser, u = options["stabiliser"], arithmetic.u
    if train:
        groups = {"stabiliser": stabiliser, "silu": False}
        dx, *rest = group_norm.vjp_bound((grouped(dy), grouped(x), gamma, beta, max(x.shape[1], 1)), groups, outputs,
                                         arithmetic, proof, chain)
        return ungrouped(dx, x), *rest
    scale, sigma, x_hat, r, error = fixed(x, gamma, mean, variance, stabiliser, arithmetic)
    axes, length = (0, *range(2, x.ndim)), x.size // max(x.shape[1], 1)
    c, floor = growth(length, proof) * u, (length + 2) * arithmetic.tiny
    dx = scale / sigma * np.abs(dy) * (r + 4 * u) + arithmetic.tiny
    dgamma = np.sum(np.abs(dy) * error, axis=axes) + c * np.sum(np.abs(dy * x_hat), axis=axes)
    return (dx, None if gamma is None else 1.1 * dgamma + floor,
            None if beta is None else c * np.sum(np.abs(dy), axis=axes) + floor)


def vjp_flops(args, options):
    """Statistics 4 an element in training, the two dots 4, dx 5; with running statistics 3, 3 and 1."""
    return args[0].size * (13 if args[6] else 7)


def vjp_slices(args, options, budget):
    """A channel at a time."""
    dy, x, gamma, beta, mean, variance, train = args
    for c in range(x.shape[1]):
        own = slice(c, c + 1)
        yield ((dy[:, own], x[:, own], group_norm.part(gamma, own), group_norm.part(beta, own), mean[own],
                variance[own], train), DEFAULTS | options,
               (np.s_[:, own], None if gamma is None else own, None if beta is None else own))


contract(Contract("batch_norm_vjp", ops.batch_norm_vjp, ("dx", "dgamma", "dbeta"), FAMILIES, vjp_cases,
                  dict.fromkeys(ALGORITHMS, vjp_bound), vjp_flops, group_norm.vjp_moved, vjp_slices,
                  large=LARGE._replace(families=("normal", "sparse"))))
