"""Gradients of the losses of autoencoders, codes and flows, by differences along random directions."""
import itertools

import numpy as np
import pytest
from latent_cases import CASES, CODES, IMAGES, QUANTISED, built

from refimpl import ops, systems, train
from refimpl.equations import quantise
from refimpl.systems import codes, vqgan
from refimpl.systems.coder import CODEBOOK, coder


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
