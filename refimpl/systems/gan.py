"""GAN: a generator and a discriminator, both perceptrons; non-saturating loss, and R1 on the discriminator's gradient.

Goodfellow et al. 2014, arXiv:1406.2661 (game, non-saturating loss); Mescheder et al. 2018, arXiv:1801.04406 (R1).
"""
import numpy as np

from refimpl.equations import adversarial, penalty
from refimpl.nets.mlp import mlp, mlp_init
from refimpl.ops._check import require
from refimpl.ops.random import fold
from refimpl.optim import Optimiser, adam, cosine_rate
from refimpl.train import Player, System

DEFAULTS = {"latent": 64, "width": 256, "depth": 2, "gamma": 1.0, "rate": 1e-3, "beta2": 0.99, "steps": 4000,
            "batch": 64, "ema": 0.998}


def build(config, data):
    """The system for a data set: images or points, without labels."""
    for name in ("latent", "width", "depth", "steps", "batch"):
        require(config[name] >= 1, f"gan: {name} must be at least 1, got {config[name]}")
    shape, bounded, features = data.shape, len(data.shape) == 3, int(np.prod(data.shape))
    hidden = [config["width"]] * config["depth"]

    def generator(params, z, ops):
        h, back = mlp(params, z, ops=ops, activation="relu")
        x = ops.tanh(h) if bounded else h

        def pullback(dx):
            dx = dx.reshape(h.shape)
            return back(ops.tanh_vjp(dx, h) if bounded else dx)

        return x.reshape(-1, *shape), pullback

    def critic(params, x, ops):
        return mlp(params, x, ops=ops, activation="leaky_relu")

    def fakes(params, key, like, ops):
        z = ops.normal(key, np.arange(len(like)), 0, (config["latent"],), dtype=like.dtype, like=like)
        return generator(params["generator"], z, ops)

    def discriminator_loss(params, state, batch, key, ops):
        own, (fake, _) = params["discriminator"], fakes(params, key, batch.x, ops)
        logits, pullback = critic(own, np.concatenate([batch.x, fake]), ops)
        real = logits[:len(batch.x)], logits[len(batch.x):]
        grads, _ = pullback(np.concatenate(adversarial.minimax_d_vjp(1.0, *real)))
        r1, r1_grads, _, _ = penalty.penalise(penalty.zero_centred_penalty, penalty.zero_centred_penalty_vjp,
                                              critic, own, batch.x, ops, gamma=config["gamma"])
        loss = adversarial.minimax_d(*real)
        return loss, {k: g + r1_grads[k] for k, g in grads.items()}, state, {"R1": float(r1)}

    def generator_loss(params, state, batch, key, ops):
        fake, back = fakes(params, key, batch.x, ops)
        logits, pullback = critic(params["discriminator"], fake, ops)
        _, dx = pullback(adversarial.non_saturating_g_vjp(1.0, logits))
        return adversarial.non_saturating_g(logits), back(dx)[0], state, {}

    def sample(params, state, n, key, ops, labels=None, first=0):
        """n samples, numbered from `first` on."""
        require(labels is None, "this model knows no classes, so no labels can be asked for")
        z = ops.normal(key, first + np.arange(n), 0, (config["latent"],))
        return generator(params["generator"], z, ops)[0]

    optimiser = Optimiser(
        lambda p, g, s, r: adam(p, g, s, r, beta1=0.0, beta2=config["beta2"]),
        lambda step: cosine_rate(min(step, config["steps"] - 1), config["steps"], config["rate"]))
    return System("gan", {
        "discriminator": Player(lambda key: (mlp_init(key, [features, *hidden, 1]), {}), discriminator_loss, optimiser),
        "generator": Player(lambda key: (mlp_init(fold(key, 1), [config["latent"], *hidden, features]), {}),
                            generator_loss, optimiser, ema=config["ema"])}, sample)
