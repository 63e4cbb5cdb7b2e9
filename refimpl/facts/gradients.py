"""Every (f, f_vjp) pair, with inputs to try it on: the dot-product identity <u, J v> = <J^T u, v> is a fact of each.

J v comes from the complex step (Squire and Trapp 1998) where f is analytic, else from central differences.
"""
from typing import NamedTuple

import numpy as np

from . import fact


class Pair(NamedTuple):
    """A function, its vjp, the arguments it is differentiated in, and inputs(draw) -> keyword arguments."""

    f: object
    vjp: object
    wrt: tuple
    inputs: object
    analytic: bool
    output: object


PAIRS = {}


def pair(f, vjp, *wrt, analytic=True, output=lambda y: y):
    """Register inputs(draw) -> dict of f's arguments. vjp(dy, **inputs) returns one cotangent per name in wrt."""

    def register(inputs):
        p = PAIRS[f.__name__] = Pair(f, vjp, wrt, inputs, analytic, output)

        def measure(d):
            return dot_product_error(p, d)

        measure.__doc__ = f"<u, J v> = <J^T u, v> for {f.__name__} in {', '.join(wrt)}, J v by " + (
            "complex step." if analytic else "central differences.")
        fact("vjp", f, vjp, tolerance=1e-10 if analytic else 1e-6)(measure)
        return inputs

    return register


def leaves(y):
    """The arrays in an array or a tuple, of tuples too: each may be an argument, an output or a cotangent."""
    return tuple(a for part in y for a in leaves(part)) if isinstance(y, tuple) else (y,)


def flat(y):
    """All of them as one vector."""
    return np.concatenate([np.ravel(a) for a in leaves(y)])


def random_like(y, d):
    """Standard normal values in the shapes of y."""
    return tuple(d.array(*np.shape(a)) for a in y) if isinstance(y, tuple) else d.array(*np.shape(y))


def shifted(x, h, v):
    """x + h v."""
    return tuple(a + h * b for a, b in zip(x, v)) if isinstance(x, tuple) else x + h * v


def pull_back(p, u, inputs):
    """One cotangent per argument that p is differentiated in."""
    back = p.vjp(u, **inputs)
    return (back,) if len(p.wrt) == 1 else back


def jvp(p, inputs, v):
    """J v as one vector: Im f(x + i h v)/h with h = 1e-30, or [f(x + h v) - f(x - h v)]/2h with h = 6e-6."""
    def at(h):
        moved = {n: shifted(inputs[n], h, v[n]) for n in p.wrt}
        return flat(p.output(p.f(**{**inputs, **moved})))

    return at(1e-30j).imag / 1e-30 if p.analytic else (at(6e-6) - at(-6e-6)) / 1.2e-5


def dot_product_error(p, d):
    """Error of <u, J v> = <J^T u, v>, relative to the sum of the magnitudes of its terms."""
    inputs = p.inputs(d)
    v = {n: random_like(inputs[n], d) for n in p.wrt}
    u = random_like(p.output(p.f(**inputs)), d)
    back = pull_back(p, u, inputs)
    shapes = [[np.shape(a) for a in leaves(b)] for b in back]
    if shapes != [[np.shape(a) for a in leaves(inputs[n])] for n in p.wrt]:
        return np.inf
    left, right = flat(u) * jvp(p, inputs, v), np.concatenate([flat(b) * flat(v[n]) for b, n in zip(back, p.wrt)])
    scale = np.sum(np.abs(left)) + np.sum(np.abs(right)) + 1e-30
    return float(abs(np.sum(left) - np.sum(right)) / scale)
