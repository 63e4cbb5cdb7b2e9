"""The contracts of noising to a level, and of its gradient."""
import numpy as np

from kernels.bounds import radius
from kernels.cases import counter, nonfinite, values
from kernels.contract import Contract, Large, contract
from refimpl import ops

FAMILIES = ("normal", "cancelling", "wide", "spike", "constant", "small")
HOST = ("signal", "noise")
LARGE = Large({"samples": 65543, "elements": 270001}, ("integer", "normal"))


def shape_of(d, family, spatial=None, large=None):
    """(N, ...): sizes that are no multiple of a vector or of Philox's four words, and some larger ones."""
    if large:
        axis, length = large
        return (length if axis == "samples" else d.integer(1, 2), *(1, 1, length if axis == "elements" else 3)[
            -(d.integer(1, 3) if spatial is None else spatial) or 3:])
    n = 0 if family == "empty" else d.integer(1, 3)
    if d.integer(0, 9) == 9:
        return (n, d.choice((512, 1023, 2050)))
    return (n, *(d.integer(1, 7) for _ in range(d.integer(0, 3) if spatial is None else spatial)))


def level(d, n, each):
    """A coefficient, one number or one per sample."""
    return d.rng.uniform(0.01, 1, n) if each else d.real(0.01, 1)


def cases(d, family, z=None, spatial=None, each=None, large=None):
    """x0, signal, noise, z."""
    shape = shape_of(d, family, spatial, large)
    each = d.choice((False, True)) if each is None else each
    signal, noise = level(d, shape[0], each), level(d, shape[0], each)
    x0 = values(d, family, *shape)
    drawn = "array" if family == "integer" else d.choice(("array", "key")) if z is None else z
    z = counter(d, shape[0]) if drawn == "key" else values(d, "normal" if family == "constant" else family, *shape)
    if family == "integer":
        signal, noise = (np.round(4 * s) for s in (signal, noise))
    if family == "cancelling" and drawn == "array":  # x_t is a thousandth of its terms
        column = (-1,) + (1,) * (len(shape) - 1) if each else ()
        z = -x0 * np.reshape(signal / noise, column) * (1 + 1e-3 * values(d, "normal", *shape))
    if family == "nonfinite":
        x0 = nonfinite(d, x0)
    return (x0, signal, noise, z), {}


def per_sample(value, x):
    value = np.abs(np.asarray(value, dtype=np.float64))
    return value.reshape(value.shape + (1,) * (x.ndim - 1)) if value.ndim else value


def noise_error(z, x, arithmetic):
    """Error of numbers formed from (key, index, draw): 6u of their radius. In float64 the reference errs as much."""
    if not isinstance(z, tuple):
        return 0.0
    return (12 if arithmetic.u < 2.0**-40 else 6) * arithmetic.u * radius(z, x.shape[1:])


def bound(args, options, outputs, arithmetic, proof, chain):
    """Each term has a rounded coefficient, a product and the addition: 3u, and one to spare; noise its own error."""
    x0, signal, noise, z = args
    signal, noise = per_sample(signal, x0), per_sample(noise, x0)
    made = ops.normal(*z, x0.shape[1:], dtype=np.float64) if isinstance(z, tuple) else z
    terms = signal * np.abs(x0) + noise * np.abs(made)
    return (1.001 * (4 * arithmetic.u * terms + noise * noise_error(z, x0, arithmetic)) + 4 * arithmetic.tiny,)


def counter_slips(z):
    """(what, z): mistakes in the counter that noise is formed from."""
    if isinstance(z, tuple):
        key, index, draw = z
        yield "as if a sample's index were its place in the batch", (key, np.arange(len(index)), draw)
        yield "as if a sample's index had 31 bits", (key, index & 0x7FFFFFFF, draw)
        yield "as if the draw were left out", (key, index, 0)
        yield "as if only the key's low 32 bits were used", (key & 0xFFFFFFFF, index, draw)
        yield "as if the key's halves were exchanged", (key >> 32 | (key & 0xFFFFFFFF) << 32, index, draw)


def slips(args, options):
    """Mistakes in the noise's counter."""
    for text, z in counter_slips(args[3]):
        yield text, (*args[:3], z), options


def flops(args, options):
    """Two products and an addition an element; forming noise is not counted."""
    return 3 * args[0].size


def moved(args, options):
    """x0, and z where it is an array, read once; x_t written once."""
    return args[0].nbytes * (2 + isinstance(args[3], np.ndarray))


def sample(value, n):
    """The part of an argument that belongs to sample n."""
    if isinstance(value, tuple) and len(value) == 3 and isinstance(value[0], int):
        return value[0], value[1][n:n + 1], value[2]
    if isinstance(value, tuple):
        return tuple(sample(v, n) for v in value)
    return value[n:n + 1] if isinstance(value, np.ndarray) else value


def slices(args, options, budget):
    """One sample at a time."""
    for n in range(args[0].shape[0]):
        yield tuple(sample(a, n) for a in args), options, (np.s_[n:n + 1],)


contract(Contract("q_sample", ops.q_sample, ("x_t",), FAMILIES, cases, dict.fromkeys(("direct", "fused"), bound),
                  flops, moved, slices, host=HOST, slips=slips, large=LARGE))


def vjp_cases(d, family, **where):
    """dy of x0's shape before the arguments of q_sample."""
    (x0, signal, noise, z), options = cases(d, "normal" if family == "nonfinite" else family, **where)
    dy = values(d, family, *x0.shape)
    return (nonfinite(d, dy) if family == "nonfinite" else dy, x0, signal, noise, z), options


def vjp_bound(args, options, outputs, arithmetic, proof, chain):
    """A rounded coefficient and a product: 2u, and one to spare."""
    dy, x0, signal, noise, z = args
    dx0, dz = (3 * arithmetic.u * per_sample(c, x0) * np.abs(dy) + 2 * arithmetic.tiny for c in (signal, noise))
    return dx0, None if isinstance(z, tuple) else dz


def vjp_flops(args, options):
    """One product for each gradient."""
    return args[0].size * (1 + isinstance(args[4], np.ndarray))


def vjp_moved(args, options):
    """dy read once, each gradient written once."""
    return args[0].nbytes * (2 + isinstance(args[4], np.ndarray))


def vjp_slices(args, options, budget):
    """One sample at a time."""
    for n in range(args[0].shape[0]):
        part = np.s_[n:n + 1]
        yield tuple(sample(a, n) for a in args), options, (part, None if isinstance(args[4], tuple) else part)


contract(Contract("q_sample_vjp", ops.q_sample_vjp, ("dx0", "dz"), FAMILIES, vjp_cases, dict.fromkeys(("direct",
                  "fused"), vjp_bound), vjp_flops, vjp_moved, vjp_slices, host=HOST, large=LARGE))
