"""What the three flows share: the exact likelihood as a loss, sampling by the inverse, bits per dimension."""
import math

import numpy as np

from refimpl.equations.dequantise import (
    log_logistic,
    log_logistic_vjp,
    logistic_noise,
    logistic_noise_vjp,
    logit_map,
    logit_map_inverse,
    logit_map_vjp,
)
from refimpl.equations.gaussian import log_normal, log_normal_vjp
from refimpl.equations.likelihood import density_bits, dequantise
from refimpl.nets import flow as nets
from refimpl.nets.coupling import part, whole
from refimpl.nets.mlp import mlp, mlp_init
from refimpl.ops._check import require
from refimpl.ops.random import fold
from refimpl.optim import Optimiser, adamw, cosine_rate
from refimpl.train import Player, System

DEFAULTS = {"prior": "normal", "couplings": 4, "levels": 1, "net": "mlp", "width": 128, "depth": 2, "bound": 2.0,
            "logit": 0.05, "dequantise": "uniform", "rate": 2e-3, "warmup": 50, "clip": 50.0, "weight_decay": 0.3,
            "steps": 350, "batch": 128, "ema": 0.99}
CHUNK = 256  # samples drawn together: bounds memory, changes no sample
WIDE = 0.5  # log deviation of the noise's logits at the start: sigmoid(e^.5 eps) is nearly uniform


def optimiser(config):
    """AdamW at a rate that rises and then falls along a cosine.

    Shapes: config with rate, steps, warmup, clip, weight_decay. Returns an Optimiser.
    """
    steps, rate = config["steps"], config["rate"]
    return Optimiser(lambda p, g, s, r: adamw(p, g, s, r, weight_decay=config["weight_decay"]),
                     lambda step: cosine_rate(min(step, steps - 1), steps, rate, min(config["warmup"], steps - 1)),
                     config["clip"])


def no_labels(name, labels):
    """One sentence for labels given to a system that knows none."""
    require(labels is None, f"{name} knows no classes, so no labels can be asked for")


def flow_system(name, config, data):
    r"""A flow as a system of one player.

    $$\log p(x) = \log p_Z(z) + \log\left|\det\frac{\partial z}{\partial x}\right|$$

    On a grid of levels x is first spread over its bins: by uniform noise, or (dequantise=variational) by noise that a
    perceptron learns to draw beside the flow, and then the cost is a bound, -log p(x + u) + log q(u | x).
    Shapes: config as DEFAULTS; returns a System. Its loss is bits per dimension on a grid of levels, else nats.
    Raises: ValueError for settings that do not fit.
    """
    require(config["prior"] in ("normal", "logistic"), f"{name}: prior must be normal or logistic, "
            f"got {config['prior']!r}")
    require(0 <= config["logit"] < 0.5, f"{name}: logit must be in [0, 1/2), 0 for none, got {config['logit']}")
    require(config["dequantise"] in ("uniform", "variational"), f"{name}: dequantise must be uniform or variational, got "
            f"{config['dequantise']!r}")
    entries = ("couplings", "levels", "net", "width", "depth", "bound")
    c = nets.FlowConfig(data.shape, name, *(config[k] for k in entries))
    nets.plan(c)
    bins, image, D = data.levels, len(data.shape) == 3, math.prod(data.shape)
    unit = D * math.log(2) if bins else 1.0
    require(image or not config["logit"], f"{name}: logit is for images, whose pixels have an end: set logit=0")

    learnt = config["dequantise"] == "variational"
    require(bins or not learnt, f"{name}: dequantise=variational is for data on a grid of levels")

    def noise(own, x, key, index, ops):
        """u in (0, 1) for the bins of x, -log q(u | x) (N,), and pullback(du, dq) -> grads."""
        if not learnt:
            return ops.uniform(key, index, 0, data.shape, dtype=x.dtype, like=x), 0, lambda du, dq: {}
        y, back = mlp(part(own, "noise"), x, ops=ops, activation="silu")
        eps = ops.normal(key, index, 0, (D,), dtype=x.dtype, like=x)
        drawn = eps, y[:, :D], y[:, D:] + WIDE
        u, cost = logistic_noise(*drawn)

        def pullback(du, dq):
            _, dmean, dlog_scale = logistic_noise_vjp((du.reshape(len(x), D), dq), *drawn)
            return whole(back(np.concatenate([dmean, dlog_scale], axis=1))[0], "noise")

        return u.reshape(x.shape), cost, pullback

    def spread(own, x, key, index, ops):
        """Data off their grid, where they have one; minus the log density of their places in the bins; and
        pullback(dx, dq) -> grads."""
        if not bins:
            return x, 0, lambda dx, dq: {}
        u, cost, back = noise(own, x, key, index, ops)
        x = dequantise(x, u, bins)
        return np.clip(x, -1, 1) if config["logit"] else x, cost, lambda dx, dq: back(2 / bins * dx, dq)

    def log_density(own, state, x, ops):
        """Nats of x (N, ...), and pullback(dlog_p) -> grads, dx."""
        change, pixels = 0, x
        if config["logit"]:
            x, change = logit_map(x, config["logit"])
        flow = {k: v for k, v in own.items() if not k.startswith("noise.")}
        z, log_det, back = nets.forward(flow, state, x, config=c, ops=ops)
        if config["prior"] == "normal":
            log_p, prior = log_normal(z, 0 * z, 0 * z), lambda dy: log_normal_vjp(dy, z, 0 * z, 0 * z)[0]
        else:
            log_p, prior = log_logistic(z), lambda dy: log_logistic_vjp(dy, z)

        def pullback(dy):
            grads, dx = back(prior(dy), dy)
            return grads, logit_map_vjp((dx, dy), pixels, config["logit"]) if config["logit"] else dx

        return log_p + log_det + change, pullback

    def bound(own, state, x, key, index, ops):
        """Nats of data, and pullback(dlog_p) -> grads."""
        x, cost, spread_back = spread(own, x, key, index, ops)
        log_p, back = log_density(own, state, x, ops)

        def pullback(dy):
            grads, dx = back(dy)
            return grads | spread_back(dx, dy)

        return log_p + cost, pullback

    def loss_and_grads(params, state, batch, key, ops):
        x = batch.x
        log_p, back = bound(params["flow"], state["flow"], x, key, np.arange(len(x)), ops)
        loss = np.mean(density_bits(log_p, x, bins)) if bins else -np.mean(log_p)
        return loss, back(np.full(len(x), -1 / (len(x) * unit), x.dtype)), state, {}

    def nll(params, state, x, key, ops):
        log_p, _ = bound(params["flow"], state["flow"], x, key, np.arange(len(x)), ops)
        return density_bits(log_p, x, bins) if bins else -log_p

    def encode(params, state, x, ops):
        x = logit_map(x, config["logit"])[0] if config["logit"] else x
        return nets.forward(params["flow"], state["flow"], x, config=c, ops=ops)[0]

    def decode(params, state, z, ops):
        x = nets.inverse(params["flow"], state["flow"], z, config=c, ops=ops)
        return logit_map_inverse(x, config["logit"]) if config["logit"] else x

    def path(params, state, x, ops):
        stages, own, kept = [("data", x)], params["flow"], state["flow"]
        for k, step in enumerate(nets.plan(c), 1):
            z, _, _ = nets.forward(own, kept, x, config=c, ops=ops, until=k)
            stages.append((step.kind, z))
        return stages

    def sample(params, state, n, key, ops, labels=None, first=0, temperature=1.0):
        no_labels(name, labels)
        require(temperature >= 0, f"temperature must not be negative, got {temperature}")
        pieces = [np.zeros((0, *data.shape), np.float32)]
        for start in range(0, n, CHUNK):
            index = first + np.arange(start, min(start + CHUNK, n))
            if config["prior"] == "normal":
                z = ops.normal(key, index, 0, (D,))
            else:
                u = ops.uniform(key, index, 0, (D,), np.float64) - 2.0**-25
                z = np.log(u / (1 - u)).astype(np.float32)
            x = decode(params, state, np.float32(temperature) * z, ops)
            pieces.append(np.clip(x, -1, 1) if image else x)
        return np.concatenate(pieces)

    def init(key):
        from refimpl import ops

        index, own = np.arange(min(512, len(data.train))), {}
        if learnt:
            own = mlp_init(fold(key, 2), [D, *[config["width"]] * config["depth"], 2 * D], data.train.dtype)
            own = whole({k: 0 * v if k.startswith(f"layers.{config['depth']}.") else v for k, v in own.items()}, "noise")
        x, _, _ = spread(own, data.train[index], fold(key, 1), index, ops)
        x = logit_map(x, config["logit"])[0] if config["logit"] else x
        params, state = nets.flow_init(fold(key, 0), c, x, ops)
        return params | own, state

    return System(name, {"flow": Player(init, loss_and_grads, optimiser(config), ema=config["ema"])}, sample,
                  options={"temperature": 1.0}, nll=nll, encode=encode, decode=decode, path=path)
