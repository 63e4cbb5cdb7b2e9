"""Perceptrons: values, what holds at initialisation, second order by complex step, errors. Gradients are facts."""
import numpy as np
import pytest

from refimpl import ops
from refimpl.nets.mlp import TimeMLPConfig, mlp, mlp_init, mlp_shapes, time_mlp, time_mlp_init


def test_values(rng):
    p = mlp_init(3, (4, 5, 2), np.float64)
    x = rng.standard_normal((3, 2, 2))
    y, _ = mlp(p, x, ops=ops, activation="leaky_relu")
    h = x.reshape(3, 4) @ p["layers.0.weight"].T + p["layers.0.bias"]
    h = np.where(h > 0, h, 0.2 * h)
    np.testing.assert_allclose(y, h @ p["layers.1.weight"].T + p["layers.1.bias"], rtol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "leaky_relu"])
def test_gradient_penalty_by_complex_step(activation, rng):
    """d/dparams of 1/2 |dD/dx|^2: the pullback's parameter gradients at x + ih U, against central differences."""
    p = mlp_init(1, (3, 8, 8, 1), np.float64)
    x = rng.standard_normal((4, 3))

    def input_gradient(p, x):
        y, pullback = mlp(p, x, ops=ops, activation=activation)
        return pullback(np.ones_like(y))

    _, g = input_gradient(p, x)
    second, _ = input_gradient({n: a.astype(complex) for n, a in p.items()}, x + 1e-30j * g)
    for name in ("layers.0.weight", "layers.1.weight", "layers.1.bias", "layers.2.weight"):
        v = rng.standard_normal(p[name].shape)
        up, down = (0.5 * np.sum(input_gradient(p | {name: p[name] + h * v}, x)[1] ** 2) for h in (1e-5, -1e-5))
        numeric = (up - down) / 2e-5
        assert abs(np.sum(second[name].imag / 1e-30 * v) - numeric) < 1e-7


def test_zero_at_initialisation(rng):
    config = TimeMLPConfig(features=6, width=8, num_class_embeds=3)
    y, pullback = time_mlp(time_mlp_init(1, config), rng.standard_normal((2, 1, 2, 3), dtype=np.float32), [1.0, 2.0],
                           np.array([0, 2]), config=config, ops=ops)
    grads, dx = pullback(np.ones_like(y))
    assert y.shape == (2, 1, 2, 3) and y.dtype == np.float32 and not np.any(y) and not np.any(dx)
    assert np.any(grads["linear_out.weight"]) and all(g.dtype == np.float32 for g in grads.values())


def test_time_and_class_matter(rng):
    config = TimeMLPConfig(num_class_embeds=3)
    params = {n: p + 0.1 * rng.standard_normal(p.shape) for n, p in time_mlp_init(1, config, np.float64).items()}
    at = lambda t, c: time_mlp(params, np.ones((1, 2)), [t], np.array([c]), config=config, ops=ops)[0]
    assert not np.allclose(at(1.0, 0), at(2.0, 0)) and not np.allclose(at(1.0, 0), at(1.0, 1))


def test_errors():
    with pytest.raises(ValueError, match="activation must be one of"):
        mlp(mlp_init(1, (2, 1)), np.zeros((1, 2), np.float32), ops=ops, activation="maxout")
    with pytest.raises(ValueError, match="sizes must be two or more"):
        mlp_shapes((3,))
    with pytest.raises(ValueError, match="at least one layer"):
        mlp({}, np.zeros((1, 2)), ops=ops)
    config = TimeMLPConfig()
    with pytest.raises(ValueError, match="x must hold 2 values a sample"):
        time_mlp(time_mlp_init(1, config), np.zeros((1, 3), np.float32), [0.0], config=config, ops=ops)
    with pytest.raises(ValueError, match="labels must be given exactly when"):
        time_mlp(time_mlp_init(1, config), np.zeros((1, 2), np.float32), [0.0], [1], config=config, ops=ops)
