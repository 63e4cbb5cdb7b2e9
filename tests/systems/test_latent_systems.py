"""Autoencoders, codes, flows and energies as systems: samples, reconstructions, likelihoods, and smoke of the rest."""
import math

import numpy as np
import pytest
from latent_cases import ALL, CODES, IMAGES, SMALL, built, wide

from benchmarks import quality_latent
from refimpl import ops, systems, train
from refimpl.equations.bound import discretised_gaussian
from refimpl.systems.coder import CODEBOOK, coder


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
