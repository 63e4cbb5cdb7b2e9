"""GAN: a generator and a discriminator, both perceptrons; non-saturating loss, and R1 on the discriminator's gradient.

Goodfellow et al. 2014, arXiv:1406.2661 (game, non-saturating loss); Mescheder et al. 2018, arXiv:1801.04406 (R1).
"""
import math

import numpy as np

from refimpl.nets.mlp import mlp, mlp_init
from refimpl.ops._check import require

from . import two_player

DEFAULTS = two_player.DEFAULTS | {"penalty": "r1", "width": 256, "depth": 2}


def build(config, data):
    """The system for a data set: images or points, without labels.

    Shapes: config as DEFAULTS. Returns a System.
    Raises: ValueError for settings that do not fit.
    Source: Goodfellow et al. 2014, arXiv:1406.2661.
    """
    return two_player.two_player("gan", config, data, perceptrons(config, data))


def perceptrons(config, data, classes=0):
    r"""Both networks as perceptrons; a condition enters beside z and beside x, a class as a one-hot vector.

    $$G(z, y) = \tanh(\mathrm{mlp}([z, e_y])), \qquad D(x, y) = \mathrm{mlp}([x, e_y])$$

    Shapes: config with latent, width, depth; classes, the condition's length; returns Networks for samples of
    data.shape (no tanh for points).
    Raises: ValueError when width or depth is below 1.
    Source: Goodfellow et al. 2014, arXiv:1406.2661; Mirza and Osindero 2014, arXiv:1411.1784.
    """
    for name in ("width", "depth"):
        require(config[name] >= 1, f"{name} must be at least 1, got {config[name]}")
    bounded, features = len(data.shape) == 3, math.prod(data.shape)
    hidden = [config["width"]] * config["depth"]

    def beside(x, labels):
        """x (N, D) with the labels behind it: integers as one-hot vectors, (N, classes) vectors as they are."""
        if labels is None:
            return x
        if labels.ndim == 1:
            labels = np.asarray(np.arange(classes) == labels[:, None], dtype=x.dtype, like=x)
        return np.concatenate([x, labels], axis=1)

    def generator(params, state, z, labels, ops, train):
        h, back = mlp(params, beside(z, labels), ops=ops, activation="relu")

        def pullback(dx):
            dh = dx.reshape(h.shape)
            return back(ops.tanh_vjp(dh, h) if bounded else dh)[0]

        return (ops.tanh(h) if bounded else h).reshape(len(z), *data.shape), pullback, state

    def discriminator(params, state, x, labels, ops, train):
        flat = x.reshape(len(x), features)
        logits, back = mlp(params, beside(flat, labels), ops=ops, activation="leaky_relu")

        def pullback(dlogits):
            grads, dx = back(dlogits[:, None])
            return grads, dx[:, :features].reshape(x.shape)

        return logits[:, 0], pullback, state

    return two_player.Networks(
        generator, lambda key: (mlp_init(key, [config["latent"] + classes, *hidden, features]), {}),
        discriminator, lambda key: (mlp_init(key, [features + classes, *hidden, 1]), {}),
        two_player.normal_latents(config["latent"]))
