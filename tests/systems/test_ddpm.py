"""DDPM as a system: the gradient of its loss, what a step draws, and samples in closed form."""
import numpy as np
import pytest

from refimpl import data, ops, systems, train
from refimpl.equations import schedules
from refimpl.systems import ddpm, drawing, prior

IMAGES = data.Data("made up", np.linspace(-1, 1, 6 * 2 * 4 * 4).reshape(6, 2, 4, 4), np.arange(6) % 3,
                   np.zeros((1, 2, 4, 4)), np.zeros(1, int), 3, None)
POINTS = IMAGES._replace(train=np.linspace(-1, 1, 12).reshape(6, 2), test=np.zeros((1, 2)))
SMALL = {"channels": 8, "width": 8, "depth": 1, "T": 40, "attention": [2]}


def built(samples, rng=None, **changes):
    """System and parameters in float64; with rng, random in place of the zeros that a network starts with."""
    config = systems.configure("ddpm", samples, {}) | SMALL | changes
    system = ddpm.build(config, samples)
    params, _ = system.players["model"].init(0)
    params = {k: p.astype(np.float64) for k, p in params.items()}
    if rng is not None:
        params = {k: p + 0.1 * rng.standard_normal(p.shape) for k, p in params.items()}
    return system, {"model": params}


@pytest.mark.parametrize("samples", [IMAGES, POINTS], ids=["unet", "mlp"])
@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_gradient_of_the_loss(samples, prediction, rng):
    system, params = built(samples, rng, prediction=prediction)
    batch, state = train.Batch(samples.train, samples.train_labels), {"model": {}}
    loss_and_grads = system.players["model"].loss_and_grads
    direction = {k: rng.standard_normal(p.shape) for k, p in params["model"].items()}

    def at(h):
        moved = {"model": {k: p + h * direction[k] for k, p in params["model"].items()}}
        return loss_and_grads(moved, state, batch, 5, ops)

    loss, grads, after, _ = at(0.0)
    difference = lambda h: (at(h)[0] - at(-h)[0]) / (2 * h)
    slope = (4 * difference(1e-5) - difference(2e-5)) / 3  # the error's first term cancels
    assert after is state and loss > 0 and grads.keys() == params["model"].keys()
    assert abs(sum(np.sum(g * direction[k]) for k, g in grads.items()) - slope) < 1e-7 * max(1, abs(slope))


def test_the_loss_of_a_network_that_says_nothing_is_the_power_of_the_noise():
    system, params = built(IMAGES)
    big = IMAGES._replace(train=np.tile(IMAGES.train, (200, 1, 1, 1)), train_labels=np.tile(IMAGES.train_labels, 200))
    loss, *_ = system.players["model"].loss_and_grads(
        params, {"model": {}}, train.Batch(big.train, big.train_labels), 5, ops)
    assert abs(loss - 1) < 0.03


def test_what_a_step_draws():
    x = np.zeros((40, 2), np.float32)
    batch, config = train.Batch(x, np.arange(40) % 3), systems.configure("ddpm", POINTS, {"T": 40})
    draw = ddpm.model(config, POINTS).draw
    draws = [(draw(u)[2] + 1, *rest) for u, *rest in (prior.corruption(key, batch, 3, 0.1, ops) for key in range(200))]
    for t, eps, labels in draws:
        assert sorted(t) == list(range(1, 41))  # as many samples as times: each time once
        assert eps.dtype == np.float32 and np.all((labels == batch.labels) | (labels == 3))
    assert len({tuple(t) for t, _, _ in draws}) == 40
    dropped = np.mean([labels == 3 for _, _, labels in draws])
    assert abs(dropped - 0.1) < 4 * (0.1 * 0.9 / 8000) ** 0.5
    noise = np.stack([eps for _, eps, _ in draws])
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    # no draw takes another's words
    first = np.array([(t[0], labels[0] == 3, eps[0, 0]) for t, eps, labels in draws])
    assert np.abs(np.corrcoef(first.T) - np.eye(3)).max() < 0.25
    assert np.all(prior.corruption(0, batch, 3, 0.0, ops)[2] == batch.labels)
    assert prior.corruption(0, train.Batch(x, None), 0, 0.1, ops)[2] is None


def test_samples_of_a_network_that_says_nothing():
    """v = 0 rotates x by the angle between two levels: each step multiplies by its cosine."""
    system, params = built(POINTS)
    x = system.sample(params, {}, 5, 11, ops, steps=4)
    levels = schedules.levels(schedules.cosine(40), schedules.timesteps(40, 4, "trailing"))
    start = ops.normal(ops.fold(11, 0), np.arange(5), 0, (2,))
    np.testing.assert_allclose(x, start * np.prod(np.sum(levels[1:] * levels[:-1], axis=1)), rtol=1e-5)


def test_the_network_is_told_one_less_than_the_time(monkeypatch):
    """As public checkpoints are: t counts from 1 in the equations and from 0 in the network."""
    told, mlp = [], prior.time_mlp
    monkeypatch.setattr(prior, "time_mlp", lambda params, x, t, *rest, **more: (
        told.append((t, x)), mlp(params, x, t, *rest, **more))[1])
    system, params = built(POINTS)
    batch = train.Batch(POINTS.train, POINTS.train_labels)
    system.players["model"].loss_and_grads(params, {"model": {}}, batch, 5, ops)
    u, eps, _ = prior.corruption(5, batch, 3, 0.1, ops)
    t = 1 + np.floor(40 * u).astype(int)
    signal, noise = schedules.level_at(schedules.cosine(40), t)
    assert np.array_equal(told[0][0], t - 1)
    np.testing.assert_allclose(told[0][1], signal[:, None] * batch.x + noise[:, None] * eps)
    system.sample(params, {}, 2, 0, ops, steps=4)
    np.testing.assert_allclose([t for t, _ in told[1:]], np.repeat([[39], [29], [19], [9]], 2, axis=1), atol=1e-9)


def test_samples_do_not_depend_on_the_chunk(monkeypatch, rng):
    system, params = built(IMAGES, rng)
    params = {"model": {k: p.astype(np.float32) for k, p in params["model"].items()}}
    whole = system.sample(params, {}, 7, 1, ops, steps=3, eta=1.0, guidance=0.5)
    monkeypatch.setattr(drawing, "together", lambda shape: 4)
    np.testing.assert_allclose(system.sample(params, {}, 7, 1, ops, steps=3, eta=1.0, guidance=0.5), whole, atol=1e-5)
    later = system.sample(params, {}, 4, 1, ops, labels=np.array([0, 1, 2, 0]), steps=3, eta=1.0, guidance=0.5, first=3)
    np.testing.assert_allclose(later, whole[3:], atol=1e-5)
    assert whole.shape == (7, 2, 4, 4) and np.abs(whole).max() <= 1
    assert not np.allclose(system.sample(params, {}, 7, 1, ops, steps=3, guidance=0.5), whole, atol=1e-3)
    assert not np.allclose(system.sample(params, {}, 7, 2, ops, steps=3, eta=1.0, guidance=0.5), whole, atol=1e-3)


def test_guidance_weight(rng):
    """w = -1 is the unconditional model, which no label moves; the plain conditional one is w = 0."""
    system, params = built(POINTS, rng)
    params = {"model": {k: p.astype(np.float32) for k, p in params["model"].items()}}
    a, b = (system.sample(params, {}, 4, 1, ops, labels=np.full(4, k), steps=3, guidance=-1.0) for k in (0, 2))
    np.testing.assert_allclose(a, b, atol=1e-5)
    c, d = (system.sample(params, {}, 4, 1, ops, labels=np.full(4, k), steps=3) for k in (0, 2))
    assert np.abs(c - d).max() > 1e-3
    near = system.sample(params, {}, 4, 1, ops, labels=np.full(4, 0), steps=3, guidance=1e-6)
    np.testing.assert_allclose(near, c, atol=1e-4)


def test_dropout_in_training_only(rng):
    """The loss of a step depends on dropout, and is the same again for the same key; samples do not."""
    batch, state = train.Batch(IMAGES.train, IMAGES.train_labels), {"model": {}}
    (without, params), (system, _) = built(IMAGES, rng), built(IMAGES, dropout=0.5)
    plain, once, again = (s.players["model"].loss_and_grads(params, state, batch, 5, ops)
                          for s in (without, system, system))
    assert abs(plain[0] - once[0]) > 1e-3 and once[0] == again[0]
    assert all(np.array_equal(once[1][k], again[1][k]) for k in params["model"])
    a, b = (s.sample(params, {}, 3, 0, ops, steps=2) for s in (without, system))
    assert np.array_equal(a, b)


def test_what_is_refused(rng):
    system, params = built(POINTS, rng)
    with pytest.raises(ValueError, match=r"labels must be 2 integers in 0\.\.2, got \[0 3\]"):
        system.sample(params, {}, 2, 0, ops, labels=np.array([0, 3]))
    with pytest.raises(ValueError, match="labels must be 2 integers"):
        system.sample(params, {}, 2, 0, ops, labels=np.array([0]))
    unlabelled, params = built(POINTS._replace(train_labels=None, test_labels=None, classes=0), rng)
    with pytest.raises(ValueError, match="knows no classes"):
        unlabelled.sample(params, {}, 2, 0, ops, labels=np.array([0, 1]))
    with pytest.raises(ValueError, match=r"guidance 1\.0 needs labels"):
        unlabelled.sample(params, {}, 2, 0, ops, guidance=1.0)
    for changes, message in [({"net": "cnn"}, "net must be 'unet' or 'mlp'"), ({"prediction": "z"}, "prediction must"),
                             ({"dropout": 0.1}, "the perceptron has no dropout"), ({"depth": 0}, "depth must be"),
                             ({"label_dropout": 1.0}, "label_dropout must be in")]:
        with pytest.raises(ValueError, match=message):
            built(POINTS, **changes)


def test_no_samples_are_no_samples():
    system, params = built(POINTS)
    assert system.sample(params, {}, 0, 0, ops).shape == (0, 2)
