"""Flows as a whole: determinant against the Jacobian, inverse, gradients, and what each step hides from the next."""
import numpy as np
import pytest

from refimpl import ops
from refimpl.nets import flow as nets
from refimpl.nets.flow import FlowConfig

CONFIGS = {
    "nice-points": FlowConfig((3,), "nice", 3, width=5),
    "nice-images": FlowConfig((1, 2, 4), "nice", 3, width=5),
    "realnvp-points": FlowConfig((3,), couplings=3, width=5),
    "realnvp-images": FlowConfig((1, 4, 4), couplings=2, levels=2, width=5),
    "realnvp-conv": FlowConfig((1, 4, 4), couplings=2, levels=2, net="conv", width=4),
    "glow-points": FlowConfig((3,), "glow", 2, width=5),
    "glow-conv": FlowConfig((2, 4, 4), "glow", 2, levels=2, net="conv", width=4),
}


def built(config, rng):
    """Parameters in float64, random in place of the zeros that couplings start with (triangles near a rotation's, for
    a matrix that is well conditioned); state; and samples."""
    x = rng.standard_normal((40, *config.shape))
    params, state = nets.flow_init(1, config, x, ops)
    size = lambda name: 0.02 if name.endswith(("lower", "upper")) else 0.3
    return {k: p + size(k) * rng.standard_normal(p.shape) for k, p in params.items()}, state, x[:3]


def complexed(d):
    return {k: v.astype(complex) for k, v in d.items()}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_determinant_and_inverse(config, rng):
    params, state, x = built(config, rng)
    z, log_det, _ = nets.forward(params, state, x, config=config, ops=ops)
    np.testing.assert_allclose(nets.inverse(params, state, z, config=config, ops=ops), x, atol=1e-12, rtol=0)
    columns, p, s = [], complexed(params), complexed(state)
    for i in range(x[0].size):
        moved = x.astype(complex)
        moved.reshape(len(x), -1)[:, i] += 1e-30j
        columns.append(nets.forward(p, s, moved, config=config, ops=ops)[0].imag / 1e-30)
    exact = np.linalg.slogdet(np.stack(columns, axis=-1))[1]
    np.testing.assert_allclose(log_det, exact, rtol=1e-10, atol=1e-10)
    assert config.kind == "nice" or (np.std(log_det) > 1e-3 and np.abs(log_det).max() > 0.1)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_gradients(config, rng):
    params, state, x = built(config, rng)
    z, _, pullback = nets.forward(params, state, x, config=config, ops=ops)
    dz, dl = rng.standard_normal(z.shape), rng.standard_normal(len(x))
    grads, dx = pullback(dz, dl)
    assert grads.keys() == params.keys()
    s = complexed(state)
    for name in [*params, None]:
        at = params[name] if name else x
        v = rng.standard_normal(at.shape)
        moved = complexed(params)
        if name:
            moved[name] = moved[name] + 1e-30j * v
        y, l, _ = nets.forward(moved, s, x + 1e-30j * v if name is None else x.astype(complex), config=config, ops=ops)
        slope = (np.sum(dz * y.imag) + np.sum(dl * l.imag)) / 1e-30
        found = np.sum((grads[name] if name else dx) * v)
        assert abs(found - slope) <= 1e-10 * (1 + abs(slope)), name


def test_a_fresh_flow_normalises_the_batch(rng):
    """Couplings start as the identity and actnorm from data, so each channel leaves with mean 0 and variance 1."""
    config = FlowConfig((4,), "glow", 1, width=5)
    x = 3 + rng.standard_normal((50, 4)) @ rng.standard_normal((4, 4))
    params, state = nets.flow_init(1, config, x, ops)
    y, _, _ = nets.forward(params, state, x, config=config, ops=ops, until=1)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(axis=0), 1, atol=1e-5)


def test_every_entry_is_changed_by_some_coupling():
    for name, config in CONFIGS.items():
        masks = [s.mask for s in nets.plan(config) if s.kind in ("affine", "additive") and s.shape == config.shape]
        if config.kind == "glow" and masks:
            assert len(masks) == config.couplings
        if len(masks) > 1:
            assert np.all(sum(1 - m for m in masks) >= 1), name


def test_what_is_refused(rng):
    for config, message in [(FlowConfig((1, 3, 4)), "even height and width"), (FlowConfig((2,), "nic"), "kind must be"),
                            (FlowConfig((1,)), "two dimensions"), (FlowConfig((1, 8, 8), levels=4), "set fewer levels"),
                            (FlowConfig((3,), net="conv"), "net=mlp"), (FlowConfig((3,), couplings=0), "positive")]:
        with pytest.raises(ValueError, match=message):
            nets.plan(config)
    params, state, _ = built(CONFIGS["realnvp-points"], rng)
    with pytest.raises(ValueError, match=r"x \(N, \*\(3,\)\) expected"):
        nets.forward(params, state, np.zeros((2, 4)), config=CONFIGS["realnvp-points"], ops=ops)
    with pytest.raises(ValueError, match=r"z \(N, 3\) expected"):
        nets.inverse(params, state, np.zeros((2, 4)), config=CONFIGS["realnvp-points"], ops=ops)
