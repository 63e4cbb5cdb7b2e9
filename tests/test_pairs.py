"""Gradients: every operation with a vjp is tried, and each vjp is held to both independent measurements of J."""
import numpy as np
import pytest
from conftest import draws
from hypothesis import given

from refimpl import ops
from refimpl.facts import load
from refimpl.facts.gradients import PAIRS, dot_product_error, flat, leaves, pull_back, random_like, shifted

load()
ANALYTIC = [name for name, p in PAIRS.items() if p.analytic]


def differentiable(namespace):
    """Names of the public functions that have a vjp beside them."""
    return {n for n in dir(namespace) if not n.startswith("_") and hasattr(namespace, n + "_vjp")}


def test_every_operation_with_a_vjp_is_a_pair():
    missing = differentiable(ops) - {n for n, p in PAIRS.items() if p.f is getattr(ops, n, None)}
    assert not missing, f"register inputs for {sorted(missing)} with @pair in refimpl/facts"
    orphans = {n for n in dir(ops) if n.endswith("_vjp")} - {n + "_vjp" for n in differentiable(ops)}
    assert not orphans, f"{sorted(orphans)} in refimpl.ops have no operation beside them"


def test_every_pair_is_an_operation_and_its_own_vjp():
    for name, p in PAIRS.items():
        assert p.vjp.__name__ == f"{name}_vjp" and p.vjp.__module__ == p.f.__module__, f"{name} is paired with {p.vjp}"
        if p.f.__module__.startswith("refimpl.ops."):
            assert getattr(ops, name, None) is p.f, f"{p.f.__module__}.{name} is not exported by refimpl.ops"


@pytest.mark.parametrize("name", PAIRS)
@given(d=draws())
def test_dot_product(name, d):
    """<u, J v> = <J^T u, v>: one random direction, which sees every entry of J."""
    assert dot_product_error(PAIRS[name], d) <= (1e-10 if PAIRS[name].analytic else 1e-6)


@pytest.mark.parametrize("name", ANALYTIC)
@given(d=draws())
def test_complex_step_in_full(name, d):
    """Every partial derivative of <u, f> is the imaginary part of <u, f> at one argument moved by 1e-30 i."""
    p = PAIRS[name]
    inputs = p.inputs(d)
    complexed = inputs | {n: shifted(inputs[n], 0j, inputs[n]) for n in p.wrt}
    u = random_like(p.output(p.f(**inputs)), d)
    for argument, cotangent in zip(p.wrt, pull_back(p, u, inputs), strict=True):
        partials = []
        for array in leaves(complexed[argument]):
            for place in np.ndindex(array.shape):
                value, array[place] = array[place], array[place] + 1e-30j
                partials.append(np.sum(flat(u) * flat(p.output(p.f(**complexed))).imag) / 1e-30)
                array[place] = value
        error = np.abs(flat(cotangent) - partials)
        assert np.all(error <= 1e-10 * np.max(np.abs(partials), initial=0) + 1e-13), argument
