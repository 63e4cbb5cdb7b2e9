"""Cold diffusion: any degradation, undone step by step by a network that restores.

Bansal et al. 2022, arXiv:2208.09392: images are blurred; points move towards a noise that is drawn once and then stays
(there is no picture to blur). Restored by algorithm 2, or with `--set improved=false` by algorithm 1.
"""
import numpy as np

from refimpl.equations import cold as equations
from refimpl.equations import samplers
from refimpl.equations.diffusion import simple_loss, simple_loss_vjp
from refimpl.ops._check import require
from refimpl.ops.random import fold
from refimpl.train import System

from . import prior
from .drawing import wanted

DEFAULTS = prior.IMAGES | {"degradation": "blur", "T": 20, "width_of_blur": 0.7}
POINTS = prior.POINTS | {"degradation": "noise"}
KINDS = ("blur", "noise")


def build(config, data):
    r"""The system for a data set. degradation: 'blur' (width_of_blur pixels a step) or 'noise'; T: its degrees.

    $$L = E_s\,\|R(D(x_0, s), s) - x_0\|^2, \qquad D(x, s) = A^s x \ \text{(blur)}, \quad
      \left(1-\tfrac sT\right)x + \tfrac sT\,z \ \text{(noise)}$$

    The paper takes the L1 norm; squared, the best restorer is the mean of what could have been there.
    """
    kind, T, shape, classes = config["degradation"], config["T"], data.shape, data.classes
    require(kind in KINDS, f"degradation must be one of {', '.join(KINDS)}, got {kind!r}")
    require(kind == "noise" or len(shape) == 3, f"cold: blur needs images, {data.spec} has samples of shape {shape}")
    require(T >= 1 and config["width_of_blur"] > 0, f"cold: T of at least 1 and a positive width_of_blur expected, got "
                                                    f"{T} and {config['width_of_blur']}")
    init, net = prior.network(config, data)
    bounded = len(shape) == 3

    def degrade(x, s, z):
        """x (N, ...) at the degrees s (N,)."""
        if kind == "noise":
            return equations.faded(x, np.asarray(s) / T, z)
        return equations.blurred(x, np.asarray(s, np.float64), config["width_of_blur"])

    def blurs_like_the_data(z, labels):
        """Wholly blurred images, from noise: of each class the Gaussian that its training images have."""
        x, groups = 0 * z, [None] if labels is None else np.unique(labels)
        for k in groups:
            rows = np.asarray(np.arange(len(z)) if k is None else np.flatnonzero(labels == k), like=z)
            like = data.train if k is None else data.train[data.train_labels == k]
            x[rows] = equations.gaussian_like(degrade(like, np.full(len(like), T), 0), z[rows])
        return x

    def loss_and_grads(params, state, batch, key, ops):
        u, z, labels = prior.corruption(key, batch, classes, config["label_dropout"], ops)
        s = 1 + np.floor(T * u).astype(np.int64)
        e, pullback = net(params["model"], degrade(batch.x, s, z), 1000 * s / T, labels, ops, fold(key, 3))
        return simple_loss(e, batch.x), pullback(simple_loss_vjp(1.0, e, batch.x)[0])[0], state, {}

    def sample(params, state, n, key, ops, labels=None, steps=T, sampler="cold", improved=True, first=0, after=None):
        """n samples from degraded images that follow the Gaussian of their class's training images' (or from noise)."""
        labels = wanted(labels, n, classes)
        require(sampler == "cold", f"cold diffusion has no noise level that '{sampler}' could step along: only --sampler "
                                   f"cold restores what was degraded")
        require(steps == T, f"cold diffusion was trained on {T} degrees and undoes them one by one: steps must be {T}, "
                            f"got {steps}")
        like, index = next(iter(params["model"].values())), first + np.arange(n)
        z = ops.normal(fold(key, 0), index, 0, shape, dtype=like.dtype, like=like)
        x = z if kind == "noise" else blurs_like_the_data(z, labels)

        def restore(x, s):
            x0_hat = net(params["model"], x, np.full(n, 1000 * s / T), labels, ops)[0]
            return np.clip(x0_hat, -1, 1) if bounded else x0_hat

        predict = equations.cold_prediction(restore, lambda x, s: degrade(x, np.full(n, s), z), improved)
        if n:
            x = samplers.sample(predict, x, equations.cold_levels(T), equations.cold(improved), ops=ops,
                                prediction="x0", after=after)
        return np.clip(x, -1, 1) if bounded else x

    return System("cold", {"model": prior.player(config, init, loss_and_grads)}, sample, classes,
                  {"steps": T, "sampler": "cold", "improved": True})
