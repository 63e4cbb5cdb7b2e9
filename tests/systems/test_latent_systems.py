"""Autoencoders, codes, flows and energies as systems: gradients of their losses, samples, and smoke of the rest."""
import functools
import itertools
import math

import numpy as np
import pytest

from benchmarks import quality_latent
from refimpl import data, ops, systems, train
from refimpl.equations import quantise
from refimpl.equations.bound import discretised_gaussian
from refimpl.systems import codes, vqgan
from refimpl.systems.coder import CODEBOOK, coder

IMAGES = data.Data("made up", np.round(8 * np.sin(np.arange(6 * 16)).reshape(6, 1, 4, 4)) / 8, np.arange(6) % 3,
                   np.round(8 * np.cos(np.arange(2 * 16)).reshape(2, 1, 4, 4)) / 8, np.zeros(2, int), 3, 17)
POINTS = IMAGES._replace(train=np.sin(np.arange(16.0)).reshape(8, 2), test=np.cos(np.arange(4.0)).reshape(2, 2),
                         train_labels=None, test_labels=None, classes=0, levels=None)
SMALL = {"width": 8, "depth": 1, "steps": 4, "warmup": 1}
CODES = SMALL | {"codes": 5, "latent": 3, "positions": 2, "prior_width": 8, "prior_depth": 1}
JUDGED = {"start": 0, "judge_width": 4, "feature_widths": [3, 4]}
CASES = {  # system, data, settings
    "autoencoder": ("autoencoder", IMAGES, SMALL | {"latent": 3, "noise": 0.3}),
    "vae-gaussian": ("vae", IMAGES, SMALL | {"latent": 3, "beta": 0.7}),
    "vae-bernoulli": ("vae", IMAGES, SMALL | {"latent": 3, "likelihood": "bernoulli"}),
    "vae-logistic": ("vae", IMAGES, SMALL | {"latent": 3, "likelihood": "logistic"}),
    "vae-free": ("vae", IMAGES, SMALL | {"latent": 3, "free_bits": 0.01}),
    "vae-conv": ("vae", IMAGES, SMALL | {"latent": 2, "net": "conv", "channels": 8}),
    "vae-points": ("vae", POINTS, SMALL | {"latent": 1}),
    "dvae": ("dvae", IMAGES, CODES),
    "nice": ("nice", IMAGES, SMALL | {"couplings": 2}),
    "realnvp": ("realnvp", IMAGES, SMALL | {"couplings": 2, "levels": 2}),
    "realnvp-variational": ("realnvp", IMAGES, SMALL | {"couplings": 2, "dequantise": "variational"}),
    "glow-variational": ("glow", IMAGES, SMALL | {"couplings": 1, "dequantise": "variational", "logit": 0.0}),
    "glow": ("glow", IMAGES, SMALL | {"couplings": 2, "levels": 2, "net": "conv"}),
    "glow-points": ("glow", POINTS, SMALL | {"couplings": 2}),
}
QUANTISED = {"vqvae": CODES | {"codebook": "gradient"}, "vqvae-ema": CODES, "vqvae2": CODES | {"top": 1},
             "vqgan": CODES | JUDGED | {"perceptual": 0.0, "adversarial": 0.8},
             "vqgan-features": CODES | JUDGED | {"adversarial": 0.0}}
ALL = CASES | {name: (name.split("-")[0], IMAGES, settings) for name, settings in QUANTISED.items()} | {
    "ebm": ("ebm", POINTS, SMALL | {"chains": 16, "langevin": 2})}


def wide(d):
    return {k: v.astype(np.float64) if np.issubdtype(v.dtype, np.floating) else v for k, v in d.items()}


@functools.cache
def built(name):
    """System, parameters and state in float64, the zeros that couplings start with moved."""
    system_name, d, changes = ALL[name]
    system = systems.build(system_name, systems.configure(system_name, d, changes), d)
    start, rng = {p: player.init(k) for k, (p, player) in enumerate(system.players.items())}, np.random.default_rng(0)
    moved = lambda d: {k: v + 0.02 * rng.standard_normal(v.shape) for k, v in wide(d).items()}
    return d, system, {p: moved(s[0]) for p, s in start.items()}, {p: wide(s[1]) for p, s in start.items()}


def slope_error(player, name, d, system, params, state, names=None):
    """Gradient against the difference quotient of the loss along a random direction, relative."""
    rng = np.random.default_rng(1)
    direction = {k: rng.standard_normal(p.shape) * (names is None or k.startswith(names))
                 for k, p in params[player].items()}
    batch = train.Batch(d.train[:4], None if d.train_labels is None else d.train_labels[:4])
    f = system.players[player].loss_and_grads

    def at(h):
        moved = params | {player: {k: p + h * direction[k] for k, p in params[player].items()}}
        return f(moved, state, batch, 5, ops)

    grads = at(0.0)[1]
    assert grads.keys() == params[player].keys()
    difference = lambda h: (at(h)[0] - at(-h)[0]) / (2 * h)
    slope = (4 * difference(1e-5) - difference(2e-5)) / 3  # the error's first term cancels
    found = sum(np.sum(g * direction[k]) for k, g in grads.items())
    assert abs(slope) > 1e-3
    return abs(found - slope) / max(1, abs(slope))


@pytest.mark.parametrize("name", CASES)
def test_gradient_of_the_loss(name):
    player = next(iter(built(name)[1].players))
    assert slope_error(player, name, *built(name)) < 1e-7


@pytest.mark.parametrize("name", [*QUANTISED, "dvae"])
def test_gradient_of_the_prior(name):
    assert slope_error("prior", name, *built(name)) < 1e-7


@pytest.mark.parametrize("name", ["vqvae", "vqvae-ema", "vqvae2", "vqgan-features"])
def test_gradient_of_the_decoder(name):
    """Behind the codebook the loss is differentiable; before it the gradient is the straight-through one by design."""
    assert slope_error("autoencoder", name, *built(name), names="decoder") < 1e-7


@pytest.mark.parametrize("name", ["vqvae-ema", "vqvae2"])
def test_gradient_around_the_codebook(name, monkeypatch):
    """With a bottleneck that passes its input on, the whole loss is differentiable: every way to every encoder."""
    def open_bottleneck(own, kept, h, config, key, ops, name=""):
        return h, np.zeros(h.shape[:2], int), 0.0, lambda de: ({}, de), kept

    monkeypatch.setattr(codes, "bottleneck", open_bottleneck)
    assert slope_error("autoencoder", name, *built(name)) < 1e-7
    if name == "vqvae2":
        assert slope_error("autoencoder", name, *built(name), names="encoder_top") < 1e-7


def test_gradient_of_the_discriminator():
    assert slope_error("discriminator", "vqgan", *built("vqgan")) < 1e-7


def test_features_are_learnt_and_then_fixed():
    """Their gradient is that of the classes' cross-entropy; from `start` on, when they are used, they stay."""
    name = "vqgan-features"
    assert slope_error("features", name, *built(name)) < 1e-7
    d = IMAGES._replace(train=IMAGES.train.astype(np.float32))
    system = systems.build("vqgan", systems.configure("vqgan", d, QUANTISED[name] | {"start": 2, "warmup": 0}), d)
    runs = [train.begin(system, 0)]
    for step in range(4):
        runs.append(train.advance(system, runs[-1], train.batch_at(d, 0, step, 4), 0, ops)[0])
    moved = [max(np.max(abs(a.params["features"][k] - b.params["features"][k])) for k in a.params["features"])
             for a, b in itertools.pairwise(runs)]
    assert moved[0] > 0 and moved[1] > 0 and moved[2:] == [0, 0]


def test_gradient_before_the_codebook():
    """The encoder's gradient is that of norm(x - d(h + sg(e - h)))^2 + beta norm(h - sg e)^2, by differences in h."""
    d, system, params, state = built("vqvae-ema")
    config = systems.configure("vqvae", d, CODES)
    net = coder(config, d, config["latent"], config["latent"], config["positions"])
    own, x, rng = params["autoencoder"], d.train[:4], np.random.default_rng(2)
    h0, _ = net.encode(own, x, ops)
    book = state["autoencoder"]["codebook"]
    e = quantise.quantise(quantise.nearest_code(h0, book), book)
    direction = {k: rng.standard_normal(p.shape) * k.startswith("encoder") for k, p in own.items()}

    def at(h):
        moved = {k: p + h * direction[k] for k, p in own.items()}
        z, _ = net.encode(moved, x, ops)
        x_hat, _ = net.decode(moved, z + (e - h0), ops)
        return (np.sum((x - x_hat) ** 2) + config["beta"] * np.sum((z - e) ** 2)) / len(x)

    batch = train.Batch(x, d.train_labels[:4])
    loss, grads, kept, metrics = system.players["autoencoder"].loss_and_grads(params, state, batch, 5, ops)
    slope = (4 * (at(1e-5) - at(-1e-5)) / 2e-5 - (at(2e-5) - at(-2e-5)) / 4e-5) / 3
    found = sum(np.sum(g * direction[k]) for k, g in grads.items())
    assert abs(found - slope) < 1e-7 * max(1, abs(slope)) and abs(loss - at(0.0)) < 1e-12
    assert 1 <= metrics["perplexity"] <= 5 and kept["autoencoder"].keys() == state["autoencoder"].keys()


def test_gradient_of_a_learnt_codebook():
    """Only its own term moves the codebook: 2 (e - h)/N on the rows in use, whatever the decoder wants."""
    d, system, params, state = built("vqvae")
    x = d.train[:4]
    _, grads, _, _ = system.players["autoencoder"].loss_and_grads(
        params, state, train.Batch(x, d.train_labels[:4]), 5, ops)
    h, book = system.encode(params, state, x, ops), params["autoencoder"][CODEBOOK]
    k = quantise.nearest_code(h, book)
    expected = np.zeros_like(book)
    np.add.at(expected, k, 2 * (book[k] - h) / len(x))
    np.testing.assert_allclose(grads[CODEBOOK], expected, atol=1e-12)


def test_adversarial_gradients_are_weighted_at_the_last_layer():
    """The adversarial gradient is added at .8 times the length that the reconstruction's has at the last layer."""
    d, system, params, state = built("vqgan")
    params = params | {"discriminator": {k: 10 * p for k, p in params["discriminator"].items()}}  # so that delta is small
    batch = train.Batch(d.train[:4], d.train_labels[:4])
    f = system.players["autoencoder"].loss_and_grads
    late = state | {"autoencoder": state["autoencoder"] | {"step": np.full(1, -1)}}
    plain = f(params, late, batch, 5, ops)[1]  # before its start the discriminator says nothing
    _, grads, _, metrics = f(params, state, batch, 5, ops)
    name = "decoder.layers.1.weight"
    added = np.sqrt(np.sum((grads[name] - plain[name]) ** 2)) / np.sqrt(np.sum(plain[name] ** 2))
    assert "weight" in metrics and abs(added - 0.8) < 0.01


def test_the_bottleneck_counts_once_beside_the_adversary(monkeypatch):
    """A discriminator that says nothing changes nothing, however large its weight."""
    d, system, params, state = built("vqgan")
    monkeypatch.setattr(vqgan, "wasserstein_g_vjp", lambda dy, logits: 0 * logits)
    batch, f = train.Batch(d.train[:4], d.train_labels[:4]), system.players["autoencoder"].loss_and_grads
    late = state | {"autoencoder": state["autoencoder"] | {"step": np.full(1, -1)}}
    plain, (_, grads, _, metrics) = f(params, late, batch, 5, ops)[1], f(params, state, batch, 5, ops)
    assert metrics["weight"] > 100
    for name, g in plain.items():
        np.testing.assert_allclose(grads[name], g, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_samples(name):
    """As many as asked for, finite, in range, and the same ones whatever the number drawn together."""
    d, system, params, state = built(name)
    params = {p: {k: v.astype(np.float32) for k, v in own.items()} for p, own in params.items()}
    state = {p: {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in own.items()}
             for p, own in state.items()}
    few = {"steps": 3} if name == "ebm" else {}
    x = system.sample(params, state, 5, 7, ops, **few)
    assert x.shape == (5, *d.shape) and np.isfinite(x).all() and x.dtype == np.float32
    assert len(d.shape) == 1 or np.abs(x).max() <= 1
    labels = np.arange(3, 5) % system.classes if system.classes else None
    np.testing.assert_allclose(system.sample(params, state, 2, 7, ops, labels, first=3, **few), x[3:], atol=1e-5)
    assert not np.array_equal(system.sample(params, state, 5, 8, ops, **few), x)
    if not system.classes:
        with pytest.raises(ValueError, match="knows no classes"):
            system.sample(params, state, 2, 7, ops, np.zeros(2, int))


@pytest.mark.parametrize("name", ["nice", "realnvp", "realnvp-variational", "glow", "glow-points"])
def test_flows_reconstruct_exactly(name):
    d, system, params, state = built(name)
    x = 0.9 * d.test
    np.testing.assert_allclose(system.decode(params, state, system.encode(params, state, x, ops), ops), x, atol=1e-10)


@pytest.mark.parametrize("name", [n for n in ALL if n.split("-")[0] not in ("ebm", "nice", "realnvp", "glow")])
def test_reconstructions(name):
    d, system, params, state = built(name)
    z = system.encode(params, state, d.test, ops)
    x = system.decode(params, state, z, ops)
    assert x.shape == d.test.shape and np.isfinite(x).all()
    half = system.decode(params, state, (z + z[::-1]) / 2, ops)  # what interpolation asks for
    np.testing.assert_allclose(half, half[::-1], atol=1e-9)


@pytest.mark.parametrize("name", ["realnvp", "realnvp-variational", "glow-points", "vae-gaussian", "vae-logistic",
                                  "vae-points"])
def test_likelihood_is_the_loss(name):
    """What `score` reports of a batch is the training loss, for the same noise; a VAE's bound gets tighter with K."""
    d, system, params, state = built(name)
    x = d.train[:4]
    nll = system.nll(params, state, x, 5, ops)
    assert nll.shape == (4,) and np.isfinite(nll).all()
    player = system.players[next(iter(system.players))]
    loss = player.loss_and_grads(params, state, train.Batch(x, None), 5, ops)[0]
    if name.startswith("vae"):
        one, many = (np.mean([np.mean(system.nll(params, state, x, key, ops, importance=k)) for key in range(30)])
                     for k in (1, 30))
        assert many < one
    else:
        assert abs(np.mean(nll) - loss) < 1e-12


def test_bound_of_the_dvae():
    """Above the exact cost, which is the sum over all codes; its mean is E_q of it, by the same sum."""
    d, system, params, state = built("dvae")
    own = {k: 8 * p if k.startswith("encoder") else p for k, p in params["autoencoder"].items()}  # codes that are sure
    x, params = d.train[:1], params | {"autoencoder": own}
    q = ops.softmax(system.encode(params, state, x, ops))[0]  # (2 positions, 5 codes)
    every = np.stack(np.meshgrid(range(5), range(5), indexing="ij"), axis=-1).reshape(-1, 2)
    net = coder(systems.configure("dvae", d, CODES), d, 5, 3, 2)
    mean, _ = net.decode(own, own[CODEBOOK][every], ops)
    log_p = discretised_gaussian(np.repeat(x, 25, axis=0), mean, math.log(0.1) + 0 * mean, 17)
    weight, unit = q[0][every[:, 0]] * q[1][every[:, 1]], 16 * math.log(2)
    exact = -(ops.logsumexp(log_p) - math.log(25)) / unit
    bound = np.sum(weight * (np.log(weight) + math.log(25) - log_p)) / unit
    draws = np.array([system.nll(params, state, x, key, ops)[0] for key in range(400)])
    assert exact < bound and abs(np.mean(draws) - bound) < 4 * np.std(draws) / 20 < 0.01


def test_energy_chains_move_and_are_kept():
    d, system, params, state = built("ebm")
    loss, grads, after, metrics = system.players["energy"].loss_and_grads(
        params, state, train.Batch(d.train[:4], None), 5, ops)
    moved = np.any(after["energy"]["chains"] != state["energy"]["chains"], axis=1)
    assert math.isfinite(loss) and moved.sum() == 4 and "gap" in metrics
    assert grads.keys() == params["energy"].keys()


def test_chains_follow_the_score_of_the_density():
    """One step from a known start with known noise gives the score back: minus the slope of nll, by differences."""
    d, system, params, state = built("ebm")
    step, h = systems.configure("ebm", d, {})["step"], 1e-5
    x0 = ops.normal(ops.fold(3, 0), np.arange(1), 0, (2,), np.float64)
    z = ops.normal(ops.fold(3, 1), np.arange(1), 0, (2,), np.float64)
    score = (system.sample(params, state, 1, 3, ops, steps=1) - x0 - math.sqrt(2 * step) * z)[0] / step
    nll = lambda x: system.nll(params, state, x, 0, ops)[0]
    slope = [(nll(x0 + h * v) - nll(x0 - h * v)) / (2 * h) for v in np.eye(2)]
    np.testing.assert_allclose(score, -np.array(slope), atol=1e-7)
    assert np.abs(slope).max() > 1e-2


def test_fresh_nice_under_the_logit_map_is_uniform():
    """A logistic prior behind a logit is uniform: density ((1 - 2 alpha)/2)^D, the map's own determinant counted."""
    d = IMAGES._replace(levels=None)
    system = systems.build("nice", systems.configure("nice", d, SMALL | {"couplings": 2, "logit": 0.1}), d)
    params, state = system.players["flow"].init(0)
    params = {"flow": wide(params)}
    nll = system.nll(params, {"flow": state}, 0.9 * d.train, 0, ops)
    np.testing.assert_allclose(nll, -16 * math.log(0.4), rtol=1e-12)


@pytest.mark.parametrize("name, changes, message", [
    ("vae", {"likelihood": "poisson"}, "likelihood must be gaussian, bernoulli or logistic, got 'poisson'"),
    ("vae", {"net": "unet"}, "net must be mlp or conv"), ("vqvae", {"codes": 0}, "codes must be at least 1"),
    ("vqvae", {"codebook": "fixed"}, "codebook must be 'ema' or 'gradient'"),
    ("vqvae2", {"net": "conv"}, "net must be mlp"), ("dvae", {"tau": 0.0}, "tau, tau_end and variance"),
    ("realnvp", {"levels": 3}, "set fewer levels"), ("glow", {"prior": "cauchy"}, "prior must be normal or logistic"),
    ("vqgan", {"start": -1}, "start must not be negative"),
    ("glow", {"dequantise": "none"}, "dequantise must be uniform or variational"),
    ("nice", {"logit": 0.7}, r"logit must be in \[0, 1/2\)"), ("ebm", {"step": 0.0}, "step and extent"),
])
def test_settings_that_are_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        systems.build(name, systems.configure(name, IMAGES, changes), IMAGES)


@pytest.mark.parametrize("name", quality_latent.ACCEPTANCE)
def test_smoke_of_acceptance(name):
    """A few steps of every acceptance: all figures finite, and what holds without training holds."""
    short = {"points": 2} if name == "realnvp" else {}
    short |= {} if name in ("autoencoder", "vqvae2") else {"scored": False}
    figures = quality_latent.ACCEPTANCE[name](steps=2, **short)
    assert all(math.isfinite(v) for k, v in figures.items() if k != "passed" and v is not None)
    for requirement, holds in figures["passed"].items():
        if requirement.startswith(("inverse", "determinant")):
            assert holds, requirement
