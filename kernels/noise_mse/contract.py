"""The contracts of the simplified loss, sample by sample, and of its gradient."""
import math

import numpy as np

from kernels.bounds import growth
from kernels.cases import counter, nonfinite, values
from kernels.contract import Contract, contract
from kernels.q_sample.contract import LARGE, counter_slips, noise_error, per_sample, sample, shape_of
from refimpl import ops

FAMILIES = ("normal", "agreeing", "wide", "spike", "constant", "small")


def cases(d, family, z=None, spatial=None, large=None):
    """e and z. Agreeing: e predicts the noise but for one part in a thousand."""
    shape = shape_of(d, family, spatial, large)
    drawn = "array" if family == "integer" else d.choice(("array", "key")) if z is None else z
    e = values(d, "normal" if family == "agreeing" else family, *shape)
    z = counter(d, shape[0]) if drawn == "key" else values(d, "normal" if family == "constant" else family, *shape)
    if family == "agreeing":
        e = (ops.normal(*z, shape[1:], dtype=np.float64) if drawn == "key" else z) * (1 + 1e-3 * e)
    return (nonfinite(d, e) if family == "nonfinite" else e, z), {}


def residual(e, z, arithmetic):
    """e - z, and its error: one rounding, and the noise's own."""
    made = ops.normal(*z, e.shape[1:], dtype=np.float64) if isinstance(z, tuple) else z
    r = e - made
    return r, arithmetic.u * np.abs(r) + noise_error(z, e, arithmetic)


def bound(args, options, outputs, arithmetic, proof, chain):
    """Each square is off by 2 |r| d + d^2 and a rounding; then a sum of m terms and a division: c(m) + 2 roundings."""
    r, error = residual(*args, arithmetic)
    axes, m = tuple(range(1, r.ndim)), max(1, math.prod(r.shape[1:]))
    length = m if chain is None else chain(m)
    squares, off = r * r, (2 * np.abs(r) + error) * error + arithmetic.tiny
    return (np.sum(off, axis=axes) / m + (growth(length, proof) + 3) * arithmetic.u * np.sum(squares + off, axis=axes) / m
            + arithmetic.tiny,)


def slips(args, options):
    """Mistakes in the noise's counter."""
    for text, z in counter_slips(args[1]):
        yield text, (args[0], z), options


def flops(args, options):
    """A difference, a square and an addition an element; forming noise is not counted."""
    return 3 * args[0].size


def moved(args, options):
    """e, and z where it is an array, read once; one number a sample written."""
    return args[0].nbytes * (1 + isinstance(args[1], np.ndarray)) + args[0].shape[0] * args[0].itemsize


def slices(args, options, budget):
    """One sample at a time."""
    for n in range(args[0].shape[0]):
        yield tuple(sample(a, n) for a in args), options, (np.s_[n:n + 1],)


contract(Contract("noise_mse", ops.noise_mse, ("L",), FAMILIES, cases, dict.fromkeys(("direct", "fused"), bound), flops,
                  moved, slices, dict.fromkeys(("direct", "fused"), (np.inf,)), slips=slips, large=LARGE))


def vjp_cases(d, family, **where):
    """dy, one number a sample, before the arguments of noise_mse."""
    (e, z), options = cases(d, "normal" if family == "nonfinite" else family, **where)
    dy = values(d, "normal" if family == "agreeing" else family, e.shape[0])
    return (nonfinite(d, dy) if family == "nonfinite" else dy, e, z), options


def vjp_bound(args, options, outputs, arithmetic, proof, chain):
    """The residual's error, and four roundings: 2/m or a division by m, two products, and one to spare."""
    dy, e, z = args
    r, error = residual(e, z, arithmetic)
    factor = per_sample(dy, e) * 2 / max(1, math.prod(e.shape[1:]))
    floor = 8 * arithmetic.tiny * (1 + np.abs(r))
    de = factor * (error + 5 * arithmetic.u * np.abs(r)) + floor
    return de, None if isinstance(z, tuple) else de


def vjp_flops(args, options):
    """A difference and a product an element; the factor is one a sample."""
    return 2 * args[1].size


def vjp_moved(args, options):
    """e, and z where it is an array, read once; each gradient written once."""
    dy, e, z = args
    return e.nbytes * 2 * (1 + isinstance(z, np.ndarray)) + dy.nbytes


def vjp_slices(args, options, budget):
    """One sample at a time."""
    for n in range(args[0].shape[0]):
        part = np.s_[n:n + 1]
        yield tuple(sample(a, n) for a in args), options, (part, None if isinstance(args[2], tuple) else part)


contract(Contract("noise_mse_vjp", ops.noise_mse_vjp, ("de", "dz"), FAMILIES, vjp_cases, dict.fromkeys(("direct",
                  "fused"), vjp_bound), vjp_flops, vjp_moved, vjp_slices,
                  dict.fromkeys(("direct", "fused"), (np.inf, np.inf)), large=LARGE))
