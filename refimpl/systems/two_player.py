"""The game of a generator and a discriminator, as two players of the trainer: what all adversarial systems share.

A system brings its networks and names its objective and its penalty; nothing here knows which it is.
"""
from functools import partial
from typing import NamedTuple

import numpy as np

from refimpl.equations import adversarial, batchwise, penalty
from refimpl.equations.weights import clip_weights
from refimpl.ops._check import require
from refimpl.ops.random import fold
from refimpl.optim import Optimiser, adam, cosine_rate
from refimpl.train import Player, System

from .drawing import wanted

DEFAULTS = {"objective": "non_saturating", "penalty": "none", "penalty_weight": 1.0, "clip_weights": 0.0,
            "critic_steps": 1, "latent": 64, "rate": 1e-3, "rate_g": 1e-3, "beta1": 0.0, "beta2": 0.99, "steps": 4000,
            "batch": 64, "ema": 0.998}
CHUNK = 256  # samples drawn together: bounds memory, changes no sample


class Networks(NamedTuple):
    """What a game is played with.

    generator(params, state, z, labels, ops, train) -> x, pullback(dx) -> grads, state;
    discriminator(params, state, x, labels, ops, train) -> logits, pullback(dlogits) -> (grads, dx), state;
    init(key) of each -> params, state. latents(key, index, like, ops, **options) -> z, one entry per index.
    joint: whether real and fake samples may be judged in one batch, that is, a logit depends on its sample alone.
    """

    generator: object
    generator_init: object
    discriminator: object
    discriminator_init: object
    latents: object
    joint: bool = True


class Objective(NamedTuple):
    """Losses of both players and their gradients: d and g of (logit_real, logit_fake); g_vjp returns dlogit_fake."""

    d: object
    d_vjp: object
    g: object
    g_vjp: object


def _of_fake(g, g_vjp):
    return lambda real, fake: g(fake), lambda dy, real, fake: g_vjp(dy, fake)


OBJECTIVES = {
    "minimax": Objective(adversarial.minimax_d, adversarial.minimax_d_vjp,
                         *_of_fake(adversarial.minimax_g, adversarial.minimax_g_vjp)),
    "non_saturating": Objective(adversarial.minimax_d, adversarial.minimax_d_vjp,
                                *_of_fake(adversarial.non_saturating_g, adversarial.non_saturating_g_vjp)),
    "smoothed": Objective(partial(adversarial.smoothed_d, real=0.9), partial(adversarial.smoothed_d_vjp, real=0.9),
                          *_of_fake(adversarial.non_saturating_g, adversarial.non_saturating_g_vjp)),
    "lsgan": Objective(partial(adversarial.lsgan_d, a=0.0, b=1.0), partial(adversarial.lsgan_d_vjp, a=0.0, b=1.0),
                       *_of_fake(partial(adversarial.lsgan_g, c=1.0), partial(adversarial.lsgan_g_vjp, c=1.0))),
    "hinge": Objective(adversarial.hinge_d, adversarial.hinge_d_vjp,
                       *_of_fake(adversarial.wasserstein_g, adversarial.wasserstein_g_vjp)),
    "wasserstein": Objective(adversarial.wasserstein_d, adversarial.wasserstein_d_vjp,
                             *_of_fake(adversarial.wasserstein_g, adversarial.wasserstein_g_vjp)),
    "relativistic": Objective(batchwise.relativistic_d, batchwise.relativistic_d_vjp,
                              lambda real, fake: batchwise.relativistic_d(fake, real),
                              lambda dy, real, fake: batchwise.relativistic_d_vjp(dy, fake, real)[0]),
}

PENALTIES = {  # where the gradient is taken, and what is asked of it
    "r1": ("real", penalty.zero_centred_penalty, penalty.zero_centred_penalty_vjp, "gamma"),
    "r2": ("fake", penalty.zero_centred_penalty, penalty.zero_centred_penalty_vjp, "gamma"),
    "gp": ("between", penalty.norm_penalty, penalty.norm_penalty_vjp, "weight"),
    "max": ("between", penalty.max_penalty, penalty.max_penalty_vjp, "weight"),
}


def normal_latents(size):
    r"""Standard normal latent vectors.

    $$z \sim N(0, I)$$

    Shapes: size an int; returns latents(key, index, like, ops) -> (N, size).
    Source: Goodfellow et al. 2014, arXiv:1406.2661.
    """
    return lambda key, index, like, ops: ops.normal(key, index, 0, (size,), dtype=like.dtype, like=like)


def add(one, other):
    """Sum of two dicts of gradients that need not name the same parameters.

    Shapes: flat dicts. Returns a flat dict of all their names.
    Source: the rule for sums.
    """
    return one | {name: one[name] + g if name in one else g for name, g in other.items()}


def check(name, config):
    """One sentence for a setting that does not fit.

    Shapes: config a dict. Raises: ValueError.
    Source: the project's own form.
    """
    for entry in ("latent", "critic_steps", "steps", "batch"):
        require(config[entry] >= 1, f"{name}: {entry} must be at least 1, got {config[entry]}")
    for entry, known in (("objective", OBJECTIVES), ("penalty", ["none", *PENALTIES])):
        require(config[entry] in known, f"{name}: {entry} must be one of {', '.join(known)}, got {config[entry]!r}")
    require(config["clip_weights"] >= 0 and config["penalty_weight"] >= 0,
            f"{name}: clip_weights and penalty_weight must not be negative")


def discriminator_loss(nets, config, conditional):
    r"""The discriminator's player: its objective on real and fake samples, plus the penalty.

    $$L_D = d(D(x), D(G(z))) + P(\nabla D)$$

    Shapes: returns loss_and_grads, see train.Player.
    Source: Goodfellow et al. 2014, arXiv:1406.2661, alg. 1; Gulrajani et al. 2017, arXiv:1704.00028, alg. 1.
    """
    objective = OBJECTIVES[config["objective"]]

    def loss_and_grads(params, state, batch, key, ops):
        own, x, n = params["discriminator"], batch.x, len(batch.x)
        labels = batch.labels if conditional else None
        z = nets.latents(fold(key, 0), np.arange(n), x, ops)
        fake, _, g_state = nets.generator(params["generator"], state["generator"], z, labels, ops, True)
        judge = lambda x, labels, state: nets.discriminator(own, state, x, labels, ops, True)
        d_state = state["discriminator"]
        if nets.joint:
            both = None if labels is None else np.concatenate([labels, labels])
            logits, back, d_state = judge(np.concatenate([x, fake]), both, d_state)
            real, false = logits[:n], logits[n:]
            grads, _ = back(np.concatenate(objective.d_vjp(1.0, real, false)))
        else:
            real, real_back, d_state = judge(x, labels, d_state)
            false, fake_back, d_state = judge(fake, labels, d_state)
            dreal, dfake = objective.d_vjp(1.0, real, false)
            grads = add(real_back(dreal)[0], fake_back(dfake)[0])
        metrics = {}
        if config["penalty"] != "none":
            where, f, f_vjp, weight = PENALTIES[config["penalty"]]
            points = {"real": lambda: x, "fake": lambda: fake, "between": lambda: penalty.between(
                x, fake, ops.uniform(fold(key, 1), np.arange(n), 0, (), dtype=x.dtype, like=x))}[where]()
            critic = lambda p, x, ops: nets.discriminator(p, d_state, x, labels, ops, False)[:2]
            value, more, _, _ = penalty.penalise(f, f_vjp, critic, own, points, ops,
                                                 **{weight: config["penalty_weight"]})
            grads, metrics = add(grads, more), {config["penalty"]: float(value)}
        loss = objective.d(real, false)
        return loss, grads, state | {"discriminator": d_state, "generator": g_state}, metrics

    return loss_and_grads


def generator_loss(nets, config, conditional, extra=None):
    r"""The generator's player: its objective, through the discriminator's input gradient.

    $$L_G = g(D(x), D(G(z)))$$

    extra(params, state, key, ops) -> metrics, grads of the generator, entries of its state: a term of its own.
    Shapes: returns loss_and_grads, see train.Player.
    Source: Goodfellow et al. 2014, arXiv:1406.2661, alg. 1.
    """
    objective = OBJECTIVES[config["objective"]]

    def loss_and_grads(params, state, batch, key, ops):
        labels = batch.labels if conditional else None
        z = nets.latents(fold(key, 0), np.arange(len(batch.x)), batch.x, ops)
        fake, back, g_state = nets.generator(params["generator"], state["generator"], z, labels, ops, True)
        judge = lambda x: nets.discriminator(params["discriminator"], state["discriminator"], x, labels, ops, True)
        logits, pullback, _ = judge(fake)
        real = judge(batch.x)[0] if config["objective"] == "relativistic" else None
        _, dx = pullback(objective.g_vjp(1.0, real, logits))
        loss, grads, metrics = objective.g(real, logits), back(dx), {}
        if extra:
            metrics, more, entries = extra(params, state, fold(key, 2), ops)
            grads, g_state = add(grads, more), g_state | entries
        return loss, grads, state | {"generator": g_state}, metrics

    return loss_and_grads


def sampler(nets, data, conditional, options):
    r"""Draw from the generator, the same sample for the same key and number whatever the batch.

    $$x = G(z), \quad z = z(\mathrm{key}, \mathrm{index})$$

    Shapes: returns sample, see train.System.
    Source: Goodfellow et al. 2014, arXiv:1406.2661.
    """
    def sample(params, state, n, key, ops, labels=None, first=0, **given):
        labels, pieces = wanted(labels, n, data.classes if conditional else 0), []
        for start in range(0, n, CHUNK):
            index = np.arange(start, min(start + CHUNK, n))
            z = nets.latents(fold(key, 0), first + index, data.train, ops, **options | given)
            x, _, _ = nets.generator(params["generator"], state["generator"], z,
                                     labels[index] if conditional else None, ops, False)
            pieces.append(np.clip(x, -1, 1) if len(data.shape) == 3 else x)
        return np.concatenate(pieces) if pieces else np.zeros((0, *data.shape), data.train.dtype)

    return sample


def optimiser(config, rate, clip=0.0):
    r"""Adam at a rate that falls along a cosine, weights clipped afterwards if asked.

    $$\theta \leftarrow \mathrm{clip}(\mathrm{Adam}(\theta, g))$$

    Shapes: config with beta1, beta2, steps; rate, clip numbers. Returns an Optimiser.
    Source: Kingma and Ba 2015, arXiv:1412.6980; Arjovsky et al. 2017, arXiv:1701.07875.
    """
    steps = config["steps"]

    def update(params, grads, state, rate):
        params, state = adam(params, grads, state, rate, config["beta1"], config["beta2"])
        return (clip_weights(params, clip) if clip else params), state

    return Optimiser(update, lambda step: cosine_rate(min(step, steps - 1), steps, rate))


def two_player(name, config, data, nets, conditional=False, options=None, extra=None):
    r"""The system: the discriminator moves at every step, the generator at every critic_steps-th.

    $$\min_D L_D, \quad \min_G L_G$$

    Shapes: nets a Networks; options, the sampler's. Returns a System.
    Raises: ValueError for settings that do not fit, or for a conditional system on data without labels.
    Source: Goodfellow et al. 2014, arXiv:1406.2661, alg. 1.
    """
    check(name, config)
    require(not conditional or data.classes, f"{name} needs labels, and {data.spec} has none")
    players = {
        "discriminator": Player(nets.discriminator_init, discriminator_loss(nets, config, conditional),
                                optimiser(config, config["rate"], config["clip_weights"])),
        "generator": Player(lambda key: nets.generator_init(fold(key, 1)),
                            generator_loss(nets, config, conditional, extra),
                            optimiser(config, config["rate_g"]), config["critic_steps"], config["ema"])}
    return System(name, players, sampler(nets, data, conditional, options or {}), data.classes if conditional else 0,
                  options or {})
