"""The tangent namespace gives what the complex step gives, for every operation and its vjp, on any backend."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl import ops
from refimpl.facts import Draw, load
from refimpl.facts.gradients import PAIRS, flat, jvp
from refimpl.ops.tangent import Dual, derivative, primal, tangent

load()
moving = tangent(ops)
NAMES = [name for name, p in PAIRS.items() if vars(ops).get(name) is p.f]


def sizes(p, seed):
    """Inputs, directions for those that are arrays, and whether all are."""
    d = Draw(seed)
    inputs = p.inputs(d)
    return d, inputs, {n: d.array(*inputs[n].shape) for n in p.wrt if hasattr(inputs[n], "shape")}


def as_tuple(y):
    return y if isinstance(y, tuple) else (y,)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10**6))
def test_value_and_vjp_on_duals(name, seed):
    p = PAIRS[name]
    d, inputs, v = sizes(p, seed)
    if len(v) < len(p.wrt):
        return  # lists of arrays: see test_lists_of_duals
    duals = {**inputs, **{n: Dual(inputs[n], v[n]) for n in p.wrt}}
    y = as_tuple(p.output(getattr(moving, name)(**duals)))
    got, expected = flat(tuple(derivative(a) for a in y)), jvp(p, inputs, v)
    assert np.max(abs(got - expected), initial=0) <= (1e-10 if p.analytic else 1e-6) * (1 + np.max(abs(got), initial=0))
    if not p.analytic or len(y) > 1:
        return
    u, du = d.array(*y[0].shape), d.array(*y[0].shape)
    back = as_tuple(getattr(moving, p.vjp.__name__)(Dual(np.asarray(u), np.asarray(du)), **duals))
    lifted = {**inputs, **{n: inputs[n] + 1e-30j * v[n] for n in p.wrt}}
    for a, b in zip(back, as_tuple(p.vjp(u + 1e-30j * du, **lifted))):
        if b is not None:
            assert np.max(abs(primal(a) - b.real), initial=0) <= 1e-10 * (1 + np.max(abs(b.real), initial=0))
            step = b.imag / 1e-30
            assert np.max(abs(derivative(a) - step), initial=0) <= 1e-10 * (1 + np.max(abs(step), initial=0))


@pytest.mark.parametrize("name, options", [
    ("sigmoid", ()), ("softplus", ()), ("silu", ()), ("tanh", ()), ("gelu", ("none",)), ("gelu", ("tanh",)), ("relu", ()),
    ("leaky_relu", (0.2,))])
def test_at_0_where_two_branches_meet(name, options):
    """Random inputs never meet a tie of np.minimum or np.maximum; zero weights and biases at the start do."""
    x = np.array([0.0, -0.0])
    f, vjp = getattr(moving, name), getattr(moving, f"{name}_vjp")
    assert np.array_equal(derivative(f(Dual(x, 1 + x), *options)), vjp(1 + x, x, *options))
    second = vjp(1 + 0j * x, x + 1e-30j, *options).imag / 1e-30
    assert np.max(abs(derivative(vjp(1 + x, Dual(x, 1 + x), *options)) - second)) <= 1e-15


def test_lists_of_duals(rng):
    a, b, da = rng.standard_normal((2, 3)), rng.standard_normal((2, 2)), rng.standard_normal((2, 3))
    y = moving.concatenate([Dual(a, da), b])
    assert np.array_equal(y.primal, np.concatenate([a, b], axis=1))
    assert np.array_equal(y.tangent, np.concatenate([da, 0 * b], axis=1))
    first, second = moving.concatenate_vjp(y, [a, b])
    assert np.array_equal(first.tangent, da) and not second.tangent.any()


def test_weights_that_do_not_move_stay_plain(rng):
    x, w = rng.standard_normal((2, 3)), rng.standard_normal((4, 3))
    assert isinstance(moving.linear(x, w), np.ndarray)
    dx, dw, db = moving.linear_vjp(np.ones((2, 4)), Dual(x, x), w)
    assert isinstance(dx, np.ndarray) and isinstance(dw, Dual) and db is None


def test_a_dual_that_does_not_match_is_refused(rng):
    with pytest.raises(ValueError, match="one shape and dtype"):
        Dual(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="exponent"):
        2.0 ** Dual(np.ones(2), np.ones(2))
    with pytest.raises(TypeError):
        np.linalg.inv(Dual(np.eye(2), np.eye(2)))
