"""Float32 stays float32 in every pair; analytic ones also run in complex128, gradients included.

Second derivatives are the gradients' complex step.
"""
import numpy as np
import pytest
from strict import HOST

from refimpl.facts import Draw, load
from refimpl.facts.gradients import PAIRS, flat, leaves, random_like, shifted

load()
ANALYTIC = {name: p for name, p in PAIRS.items() if p.analytic}
each_pair = pytest.mark.parametrize("p", ANALYTIC.values(), ids=ANALYTIC)
each_seed = pytest.mark.parametrize("seed", range(4))


def drawn(p, seed):
    """Inputs, a direction for the differentiable ones, and a cotangent."""
    d = Draw(seed)
    inputs = p.inputs(d)
    return inputs, {n: random_like(inputs[n], d) for n in p.wrt}, random_like(p.output(p.f(**inputs)), d)


def float32(value):
    """Arrays in float32; a list or tuple of them too."""
    if isinstance(value, (list, tuple)):
        return type(value)(float32(v) for v in value) if not hasattr(value, "_fields") else value
    return value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype == np.float64 else value


@pytest.mark.parametrize("p", PAIRS.values(), ids=PAIRS)
@each_seed
def test_float32_stays_float32(p, seed):
    inputs, _, dy = drawn(p, seed)
    inputs = {n: value if n in HOST else float32(value) for n, value in inputs.items()}
    for result in (p.output(p.f(**inputs)), p.vjp(float32(dy), **inputs)):
        assert {np.asarray(a).dtype for a in leaves(result)} == {np.dtype(np.float32)}


def value_and_gradient(p, inputs, v, dy, h):
    """f and its vjp at x + h v, the cotangent in the same dtype."""
    at = inputs | {n: shifted(inputs[n], h, v[n]) for n in v}
    return p.output(p.f(**at)), p.vjp(shifted(dy, 0 * h, dy), **at)


@each_pair
@each_seed
def test_complex_agrees_with_real(p, seed):
    args = p, *drawn(p, seed)
    for got, expected in zip(value_and_gradient(*args, 0j), value_and_gradient(*args, 0.0)):
        assert {np.asarray(a).dtype for a in leaves(got)} == {np.dtype(np.complex128)}
        assert not np.any(flat(got).imag)
        np.testing.assert_allclose(flat(got).real, flat(expected), rtol=1e-11, atol=1e-11)


@each_pair
@each_seed
def test_gradients_pass_the_complex_step(p, seed):
    """The derivative of each vjp along v against central differences: a lost imaginary part would give 0."""
    def gradient(h):
        return flat(value_and_gradient(*args, h)[1])

    args, h = (p, *drawn(p, seed)), 1e-5
    differences = (gradient(h) - gradient(-h)) / (2 * h)
    error = abs(gradient(1e-30j).imag / 1e-30 - differences)
    assert np.max(error, initial=0) <= 1e-5 * (1 + np.max(abs(differences), initial=0))
