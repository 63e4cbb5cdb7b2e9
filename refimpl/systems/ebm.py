"""Energy-based model: a perceptron f with p = exp(f)/Z, trained on samples of its own by Langevin dynamics.

Hinton 2002, Neural Computation 14; Du and Mordatch 2019, arXiv:1903.08689 (chains that are kept, and a bound on f).
"""
import math

import numpy as np

from refimpl.equations.energy import contrastive_loss, contrastive_loss_vjp, langevin_step, log_partition
from refimpl.nets.mlp import mlp, mlp_init
from refimpl.ops._check import per_sample, require, sample_sum
from refimpl.ops.random import fold, normal
from refimpl.train import Player, System

from . import flows

DEFAULTS = {"width": 128, "depth": 2, "langevin": 20, "step": 0.01, "chains": 1024, "restart": 0.05, "weight": 0.01,
            "extent": 3.0, "rate": 1e-3, "warmup": 50, "clip": 10.0, "weight_decay": 0.0, "steps": 2000, "batch": 128,
            "ema": 0.99}
GRID = 201  # points per axis of the grid that Z is summed over, in the plane


def build(config, data):
    r"""The system: its player's state holds the chains.

    $$f(x) = \mathrm{mlp}(x) - \frac{\|x\|^2}{2 r^2}$$

    The quadratic term makes exp(f) integrable whatever the perceptron does. Langevin dynamics is the unadjusted one
    with its full noise. Shapes: config as DEFAULTS. Returns a System; in the plane Z is known, and so are nats.
    Raises: ValueError for settings that do not fit.
    """
    for entry in ("width", "depth", "langevin", "chains"):
        require(config[entry] >= 1, f"ebm: {entry} must be at least 1, got {config[entry]}")
    require(config["step"] > 0 and config["extent"] > 0, "ebm: step and extent must be positive")
    features, n_chains = math.prod(data.shape), config["chains"]
    r2 = config["extent"] ** 2

    def f(params, x, ops):
        """Minus the energy (N,), and pullback(df) -> grads, dx."""
        y, back = mlp(params, x, ops=ops, activation="silu")

        def pullback(df):
            grads, dx = back(df[:, None])
            return grads, dx - per_sample(df, x) * x / r2

        return y[:, 0] - sample_sum(x * x) / (2 * r2), pullback

    def score(params, x, ops):
        value, back = f(params, x, ops)
        return back(np.ones_like(value))[1]

    def walk(params, x, key, index, steps, ops):
        """Chains after a number of Langevin steps."""
        for k in range(steps):
            z = ops.normal(key, index, k, data.shape, dtype=x.dtype, like=x)
            x = langevin_step(x, score(params, x, ops), config["step"], z)
        return x

    def loss_and_grads(params, state, batch, key, ops):
        own, chains, n = params["energy"], state["energy"]["chains"], len(batch.x)
        index = np.arange(n)
        rows = (ops.uniform(fold(key, 0), index[:1], 0, (), np.float64)[0] * n_chains).astype(int) + index
        rows = rows % n_chains
        fresh = ops.uniform(fold(key, 1), index, 0, ()) <= config["restart"]
        start = np.where(fresh.reshape((-1,) + (1,) * len(data.shape)),
                         ops.normal(fold(key, 2), index, 0, data.shape, dtype=chains.dtype), chains[rows])
        model = walk(own, start, fold(key, 3), index, config["langevin"], ops)
        values, back = f(own, np.concatenate([batch.x, model]), ops)
        d_data, d_model = contrastive_loss_vjp(1.0, values[:n], values[n:], config["weight"])
        grads, _ = back(np.concatenate([d_data, d_model]))
        chains = chains.copy()
        chains[rows] = model
        loss = contrastive_loss(values[:n], values[n:], config["weight"])
        gap = float(np.mean(values[:n]) - np.mean(values[n:]))
        return loss, grads, state | {"energy": {"chains": chains}}, {"gap": gap}

    def sample(params, state, n, key, ops, labels=None, first=0, steps=500):
        flows.no_labels("ebm", labels)
        index = first + np.arange(n)
        like = next(iter(params["energy"].values()))
        x = ops.normal(fold(key, 0), index, 0, data.shape, dtype=like.dtype, like=like)
        x = walk(params["energy"], x, fold(key, 1), index, steps, ops)
        return np.clip(x, -1, 1) if len(data.shape) == 3 else x

    def nll(params, state, x, key, ops):
        g = np.linspace(-4 * config["extent"], 4 * config["extent"], GRID)
        points = np.stack(np.meshgrid(g, g), axis=-1).reshape(-1, 2).astype(x.dtype)
        values = f(params["energy"], points, ops)[0].astype(np.float64)
        return log_partition(values, (g[1] - g[0]) ** 2) - f(params["energy"], x, ops)[0]

    def init(key):
        sizes = [features, *[config["width"]] * config["depth"], 1]
        return mlp_init(fold(key, 0), sizes), {"chains": start_of_chains(key, n_chains, data.shape)}

    return System("ebm", {"energy": Player(init, loss_and_grads, flows.optimiser(config), ema=config["ema"])}, sample,
                  options={"steps": 500}, nll=nll if data.shape == (2,) else None)


def start_of_chains(key, n, shape):
    """Standard normal starts of n chains. Shapes: (n, *shape)."""
    return normal(fold(key, 1), np.arange(n), 0, shape)
