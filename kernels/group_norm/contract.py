"""The contracts of group normalisation with an optional SiLU, and of its gradients."""
import math
from typing import NamedTuple

import numpy as np

from kernels.bounds import growth
from kernels.cases import nonfinite, values
from kernels.contract import Contract, Large, contract
from refimpl import ops

DEFAULTS = {"stabiliser": 1e-5, "silu": False}
FAMILIES = ("normal", "offset", "positive", "spread", "spike", "constant", "small")
LARGE = Large({"samples": 65543, "groups": 259, "channels": 4103, "space": 65543}, ("normal", "positive"))


def cases(d, family, silu=None, spatial=None, affine=None, large=None):
    """x, gamma, beta, groups and the options. Offsets of a thousand standard deviations stand in short groups."""
    n = 0 if family == "empty" else d.integer(1, 3)
    groups, width = d.integer(1, 4), d.integer(1, 5)
    spatial = d.integer(1 if large else 0, 3) if spatial is None else spatial
    shape = (32, 33) if spatial == 2 and d.integer(0, 9) == 9 else tuple(d.integer(1, 7) for _ in range(spatial))
    if large:
        n, groups, width, *shape = (large[1] if large[0] == name else min(short, 2) for name, short in zip(
            ("samples", "groups", "channels", "space", "", ""), (n, groups, width, *shape)))
    x = values(d, family, n, groups * width, *shape)
    if family == "offset":  # one for every channel, or one for all, so that the variance stays 1 in a group of several
        x = x + 1000.0 * d.rng.choice([-3.0, 1.0, 2.0], size=(1, groups * width if d.choice((False, True)) else 1) + (
            1,) * spatial)
    gamma, beta = (values(d, "normal", groups * width)
                   if (d.choice((True, True, False)) if affine is None else affine) else None for _ in range(2))
    if family == "nonfinite":
        x = nonfinite(d, x)
    options = {"stabiliser": d.choice((1e-5, 1e-6, 1e-3)), "silu": d.choice((False, True)) if silu is None else silu}
    return (x, gamma, beta, groups), options


class Moments(NamedTuple):
    """x_hat, a = gamma x_hat + beta and sigma, their errors, and the chain h, all shaped to broadcast with x."""

    x_hat: np.ndarray
    a: np.ndarray
    sigma: np.ndarray
    x_hat_error: np.ndarray
    a_error: np.ndarray
    r: np.ndarray
    h: float
    mean: object


def moments(x, gamma, beta, groups, stabiliser, arithmetic, proof, chain):
    r"""How far mean, variance and the normalised value may be off.

    dmu = c(h) u mean|x|. The variance about a wrong mean is v + dmu^2 exactly; its sum has h roundings, each term four:
    r = ((c(h) + 4) u v + dmu^2)/(2 (v + stabiliser)) + 3u, relatively, for 1/sigma.
    """
    u, channel = arithmetic.u, (-1,) + (1,) * (x.ndim - 2)

    size = max(1, x.shape[1] // groups * math.prod(x.shape[2:]))

    def mean(a):
        means = np.sum(a.reshape(x.shape[0], groups, size if x.size else 0), axis=2) / size
        means = np.repeat(means, x.shape[1] // groups, axis=1)
        return means.reshape((*means.shape, *(1,) * (x.ndim - 2)))

    h = growth(size if chain is None else chain(size), proof)
    centred = x - mean(x)
    v = mean(centred * centred)
    sigma = np.sqrt(v + stabiliser)
    dmu = h * u * mean(np.abs(x)) + arithmetic.tiny
    r = ((h + 4) * u * v + dmu * dmu) / (2 * (v + stabiliser)) + 3 * u
    x_hat = centred / sigma
    x_hat_error = (dmu + u * np.abs(centred)) / sigma + np.abs(x_hat) * (r + 2 * u)
    scale = np.ones(1) if gamma is None else gamma.reshape(channel)
    shift = np.zeros(1) if beta is None else beta.reshape(channel)
    a = scale * x_hat + shift
    a_error = np.abs(scale) * x_hat_error + 2 * u * (np.abs(scale * x_hat) + np.abs(shift)) + u * np.abs(a)
    return Moments(x_hat, a, sigma, x_hat_error, a_error + arithmetic.tiny, r, h, mean)


def bound(args, options, outputs, arithmetic, proof, chain):
    """The error of a = gamma x_hat + beta; SiLU's slope is at most 1.1, its own evaluation good to 10u."""
    m = moments(*args, options["stabiliser"], arithmetic, proof, chain)
    return (1.1 * m.a_error + 10 * arithmetic.u * np.abs(outputs[0]) if options["silu"] else m.a_error,)


def flops(args, options):
    """Sum, centred square and its sum, scale and shift: 6 an element, and 5 more for SiLU (its exponential as one)."""
    return args[0].size * (11 if options.get("silu") else 6)


def moved(args, options):
    """x read once and y written once."""
    return 2 * args[0].nbytes


def part(gamma, channels):
    return None if gamma is None else gamma[channels]


def slices(args, options, budget):
    """One group of one sample at a time."""
    x, gamma, beta, groups = args
    width = x.shape[1] // groups
    for n in range(x.shape[0]):
        for g in range(groups):
            own = slice(g * width, (g + 1) * width)
            yield (x[n:n + 1, own], part(gamma, own), part(beta, own), 1), DEFAULTS | options, (np.s_[n:n + 1, own],)


contract(Contract("group_norm", ops.group_norm, ("y",), FAMILIES, cases, dict.fromkeys(("direct", "two_pass"), bound),
                  flops, moved, slices, dict.fromkeys(("direct", "two_pass"), (np.inf,)), large=LARGE))


def vjp_cases(d, family, **where):
    """dy of x's shape, then group norm's arguments. On integers dbeta alone is exact, and that without SiLU."""
    where = where | ({"silu": False} if family == "integer" else {})
    (x, gamma, beta, groups), options = cases(d, "normal" if family in ("nonfinite", "sparse") else family, **where)
    dy = values(d, family if family in ("integer", "spike", "positive", "sparse") else "normal", *x.shape)
    if family == "nonfinite" and dy.size:
        dy.reshape(-1)[d.rng.integers(dy.size)] = np.nan
    return (dy, x, gamma, beta, groups), options


def vjp_bound(args, options, outputs, arithmetic, proof, chain):
    """Errors carried through g = gamma dy silu'(a), its two means, g - mean(g) - x_hat mean(g x_hat), and the sums.

    |silu''| <= 1/2, and silu' is evaluated to 12u of its terms. Sums are chains of h, dgamma's and dbeta's of N space.
    """
    dy, x, gamma, beta, groups = args
    u, m = arithmetic.u, moments(x, gamma, beta, groups, options["stabiliser"], arithmetic, proof, chain)
    scale = np.ones(1) if gamma is None else gamma.reshape((-1,) + (1,) * (x.ndim - 2))
    t, t_error = dy, np.zeros(1)
    if options["silu"]:
        s = ops.sigmoid(m.a)
        t = dy * s * (1 + m.a * (1 - s))
        t_error = np.abs(dy) * (0.5 * m.a_error + 12 * u * s * (1 + np.abs(m.a) * (1 - s)))
    g, g_error = scale * t, np.abs(scale) * t_error + 2 * u * np.abs(scale * t)
    sums, dots = m.mean(g), m.mean(g * m.x_hat)
    sums_error = m.mean(g_error) + m.h * u * m.mean(np.abs(g))
    dots_error = (m.mean(g_error * np.abs(m.x_hat) + np.abs(g) * m.x_hat_error)
                  + (m.h + 1) * u * m.mean(np.abs(g * m.x_hat)))
    total = g - sums - m.x_hat * dots
    error = (g_error + sums_error + m.x_hat_error * np.abs(dots) + np.abs(m.x_hat) * dots_error
             + 4 * u * (np.abs(g) + np.abs(sums) + np.abs(m.x_hat * dots)) + arithmetic.tiny)
    dx = 1.1 * (error + np.abs(total) * (m.r + 2 * u)) / m.sigma
    axes = (0, *range(2, x.ndim))
    length = x.shape[0] * math.prod(x.shape[2:])
    c, floor = growth(length, proof) * u, (length + 2) * arithmetic.tiny
    dgamma = np.sum(t_error * np.abs(m.x_hat) + np.abs(t) * m.x_hat_error, axis=axes) + c * np.sum(
        np.abs(t * m.x_hat), axis=axes)
    dbeta = np.sum(np.broadcast_to(t_error, x.shape), axis=axes) + c * np.sum(np.abs(t), axis=axes)
    return dx, None if gamma is None else 1.1 * dgamma + floor, None if beta is None else 1.1 * dbeta + floor


def vjp_flops(args, options):
    """Statistics 4 an element, the two dots 4, dx 5; SiLU's derivative 9 more."""
    return args[0].size * (22 if options.get("silu") else 13)


def vjp_moved(args, options):
    """dy and x read once, dx written once."""
    return 3 * args[0].nbytes


def vjp_slices(args, options, budget):
    """One group at a time, over all samples: dgamma and dbeta are sums over them."""
    dy, x, gamma, beta, groups = args
    width = x.shape[1] // groups
    for g in range(groups):
        own = slice(g * width, (g + 1) * width)
        yield ((dy[:, own], x[:, own], part(gamma, own), part(beta, own), 1), DEFAULTS | options,
               (np.s_[:, own], None if gamma is None else own, None if beta is None else own))


contract(Contract("group_norm_vjp", ops.group_norm_vjp, ("dx", "dgamma", "dbeta"), FAMILIES, vjp_cases,
                  dict.fromkeys(("direct", "two_pass"), vjp_bound), vjp_flops, vjp_moved, vjp_slices,
                  dict.fromkeys(("direct", "two_pass"), (np.inf, np.inf, 0)),
                  large=LARGE._replace(families=("normal", "sparse"))))
