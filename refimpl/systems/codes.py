"""What systems with discrete latents share: the bottleneck, and a transformer over the codes as the prior.

The prior is a player of its own that learns beside the autoencoder, from the codes of the moment: samples can be drawn
at any time, and no second run is needed.
"""
from typing import NamedTuple

import numpy as np

from refimpl.equations import quantise
from refimpl.nets.transformer import TransformerConfig, sample_codes, transformer, transformer_init
from refimpl.ops._check import require
from refimpl.ops.random import fold
from refimpl.train import Player, System

from . import flows
from .coder import CODEBOOK
from .coder import DEFAULTS as CODER
from .drawing import wanted

DEFAULTS = CODER | {"codes": 64, "latent": 8, "positions": 8, "beta": 0.25, "codebook": "ema", "decay": 0.95,
                    "prior_width": 64, "prior_depth": 2, "prior_rate": 2e-3, "steps": 2000}
CHUNK = 256


class Model(NamedTuple):
    """An autoencoder with codes, its parameters and state being those of one player.

    init(key) -> params, state; autoencode(own, kept, x, key, ops) -> x_hat, codes (N, L), loss of the bottleneck,
    pullback(dx_hat) -> grads, kept; encode(own, kept, x, ops) -> z (N, ...); quantised(own, kept, z, ops) -> codes;
    decode(own, kept, codes, ops) -> x; length L; last: name of the decoder's last weight.
    """

    init: object
    autoencode: object
    encode: object
    quantised: object
    decode: object
    length: int
    last: str


def check(name, config):
    """One sentence for a setting that does not fit."""
    for entry in ("codes", "latent", "positions", "prior_width", "prior_depth"):
        require(config[entry] >= 1, f"{name}: {entry} must be at least 1, got {config[entry]}")
    require(config["codebook"] in ("ema", "gradient"),
            f"{name}: codebook must be 'ema' or 'gradient', got {config['codebook']!r}")


def bottleneck_init(key, config, name=""):
    """Parameters and state of a codebook: in the state where moving averages learn it, else in the parameters."""
    from .coder import codebook_init

    table, K = codebook_init(key, config["codes"], config["latent"]), config["codes"]
    if config["codebook"] == "gradient":
        return {name + CODEBOOK: table}, {}
    return {}, {f"{name}codebook": table, f"{name}counts": np.ones(K, table.dtype), f"{name}sums": table.copy()}


def table(own, kept, name=""):
    """The codebook."""
    return kept[f"{name}codebook"] if f"{name}codebook" in kept else own[name + CODEBOOK]


def bottleneck(own, kept, h, config, key, ops, name=""):
    """Nearest rows of h (N, P, D), their codes, the loss, pullback(de) -> grads, dh, and the state after one step."""
    codebook, (n, positions, size) = table(own, kept, name), h.shape
    codes = quantise.nearest_code(h, codebook)
    e = quantise.quantise(codes, codebook)
    loss = positions * quantise.commitment_loss(h, e, config["beta"])
    ema = config["codebook"] == "ema"
    if not ema:
        loss = loss + positions * quantise.codebook_loss(e, h)

    def pullback(de):
        dh = quantise.straight_through_vjp(de, h, e)
        dh = dh + quantise.commitment_loss_vjp(h.dtype.type(positions), h, e, config["beta"])
        if ema:
            return {}, dh
        row = quantise.codebook_loss_vjp(h.dtype.type(positions), e, h)
        return {name + CODEBOOK: ops.embedding_vjp(row, codes, codebook)}, dh

    if ema:
        names = [f"{name}{part}" for part in ("counts", "sums", "codebook")]
        moved = quantise.ema_codebook(*(kept[k] for k in names), codes, h, config["decay"])
        flat, K = h.reshape(-1, size), len(codebook)
        rows = (ops.uniform(key, np.arange(K), 0, (), np.float64) * len(flat)).astype(int) % len(flat)
        moved = quantise.restart_codes(*moved, flat, rows, 0.02 * n * positions / K)
        kept = kept | {k: a.astype(h.dtype) for k, a in zip(names, moved)}
    return e, codes, loss, pullback, kept


def prior(config, data, length, codes_of):
    """The transformer's config and its player; codes_of(params, state, x, ops) -> codes (N, L)."""
    c = TransformerConfig(config["codes"], length, config["prior_width"], config["prior_depth"], 4,
                          data.classes or None)

    def loss_and_grads(params, state, batch, key, ops):
        codes = codes_of(params, state, batch.x, ops)
        logits, back = transformer(params["prior"], codes, batch.labels, config=c, ops=ops)
        rows, target = logits.reshape(-1, c.codes), codes.reshape(-1)
        d = ops.cross_entropy_vjp(1.0, rows, target).astype(rows.dtype)
        return ops.cross_entropy(rows, target), back(d.reshape(logits.shape)), state, {}

    settings = config | {"rate": config["prior_rate"], "clip": 1.0}
    return c, Player(lambda key: (transformer_init(key, c), {}), loss_and_grads, flows.optimiser(settings),
                     ema=config["ema"])


def system(name, config, data, model, players):
    """The System of an autoencoder with codes: players, the prior behind them, and what can be done with it."""
    def codes_of(params, state, x, ops):
        own, kept = params["autoencoder"], state["autoencoder"]
        return model.quantised(own, kept, model.encode(own, kept, x, ops), ops)

    c, last = prior(config, data, model.length, codes_of)
    clip = lambda x: np.clip(x, -1, 1) if len(data.shape) == 3 else x

    def encode(params, state, x, ops):
        return model.encode(params["autoencoder"], state["autoencoder"], x, ops)

    def decode(params, state, z, ops):
        own, kept = params["autoencoder"], state["autoencoder"]
        return clip(model.decode(own, kept, model.quantised(own, kept, z, ops), ops))

    def sample(params, state, n, key, ops, labels=None, first=0, temperature=1.0):
        labels = wanted(labels, n, data.classes)
        pieces = [np.zeros((0, *data.shape), np.float32)]
        for start in range(0, n, CHUNK):
            stop = min(start + CHUNK, n)
            codes = sample_codes(params["prior"], stop - start, fold(key, 0),
                                 None if labels is None else labels[start:stop], config=c, ops=ops,
                                 temperature=temperature, first=first + start)
            pieces.append(clip(model.decode(params["autoencoder"], state["autoencoder"], codes, ops)))
        return np.concatenate(pieces)

    return System(name, players | {"prior": last}, sample, data.classes, {"temperature": 1.0}, encode=encode,
                  decode=decode, codes=codes_of)


def reconstruction(x_hat, x):
    """Squared error summed over a sample, its mean over the batch, and its gradient."""
    return float(np.sum((x_hat - x) ** 2, dtype=np.float64)) / len(x), 2 / len(x) * (x_hat - x)


def autoencoder_player(model, config):
    """The player of squared error plus bottleneck."""
    def loss_and_grads(params, state, batch, key, ops):
        x_hat, codes, extra, back, kept = model.autoencode(
            params["autoencoder"], state["autoencoder"], batch.x, key, ops)
        loss, dx_hat = reconstruction(x_hat, batch.x)
        return loss + extra, back(dx_hat), state | {"autoencoder": kept}, {
            "error": loss, "perplexity": quantise.perplexity(codes, config["codes"])}

    return Player(model.init, loss_and_grads, flows.optimiser(config), ema=config["ema"])
