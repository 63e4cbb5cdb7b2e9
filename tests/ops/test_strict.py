"""Every pair on arrays that refuse conversion to NumPy: the reference's plain np. calls reach a device as they are."""
import numpy as np
import pytest
from strict import HOST, StrictArray, special_functions, to_device, to_host

from refimpl import ops
from refimpl.facts import Draw, load
from refimpl.facts.gradients import PAIRS, leaves, random_like

load()


def device(inputs):
    return {name: value if name in HOST else to_device(value) for name, value in inputs.items()}


def assert_same(got, plain):
    for g, p in zip(leaves(got), leaves(plain), strict=True):
        assert isinstance(g, StrictArray)
        assert g.dtype == np.asarray(p).dtype
        np.testing.assert_allclose(to_host(g), p, rtol=1e-12, atol=1e-12)


@pytest.fixture(autouse=True)
def cupyx(monkeypatch):
    special_functions(monkeypatch)


@pytest.mark.parametrize("p", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("seed", range(4))
def test_pair_stays_on_the_device(p, seed):
    d = Draw(seed)
    inputs = p.inputs(d)
    y = p.output(p.f(**inputs))
    assert_same(p.output(p.f(**device(inputs))), y)
    dy = random_like(y, d)
    assert_same(p.vjp(to_device(dy), **device(inputs)), p.vjp(dy, **inputs))


@pytest.mark.parametrize("f", [ops.uniform, ops.normal])
def test_random_numbers_are_formed_on_the_device(f):
    like = StrictArray(np.zeros(1, dtype=np.float32))
    assert_same(f(7, [0, 5], 1, (3, 3), like=like), f(7, [0, 5], 1, (3, 3)))


@pytest.mark.parametrize("touch", [
    np.asarray, float, lambda x: x + np.ones(2), lambda x: np.ones(2) * x, lambda x: np.where(np.ones(2) > 0, x, 0),
    lambda x: np.concatenate([x, np.ones(2)]), lambda x: x[np.array([0])], lambda x: np.block([x, x]),
    lambda x: np.insert(x, 0, 1), lambda x: np.sum(x, where=x > 0), lambda x: np.maximum.reduce(x),
    lambda x: np.lib.stride_tricks.as_strided(x, (1,), (8,)), lambda x: x.__setitem__(0, np.ones(1)),
    lambda x: np.unstack(x), lambda x: x.tolist(), lambda x: np.linalg.vector_norm(x)])
def test_the_stand_in_refuses(touch):
    with pytest.raises((TypeError, AttributeError)):
        touch(StrictArray(np.ones(2)))


def test_the_stand_in_computes():
    x = StrictArray(np.arange(6.0).reshape(2, 3))
    y = np.asarray(np.ones(3), dtype=x.dtype, like=x)
    x += y
    np.add.at(x, (np.asarray([0, 0], like=x), np.asarray([1, 1], like=x)), 1)
    rows = [float(row.sum()) for row in x]
    assert rows == [8.0, 15.0]
    assert isinstance(np.max(x), StrictArray)
    assert float(np.max(x)) == 6
    assert isinstance(x.T @ x, StrictArray)
