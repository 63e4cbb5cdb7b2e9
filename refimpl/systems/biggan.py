"""BigGAN: residual blocks conditioned on the class and on parts of z, spectral normalisation in both networks, hinge
loss, a projection discriminator, orthogonal regularisation; samples from truncated z trade variety for quality.

Brock et al. 2019, arXiv:1809.11096.
"""
import numpy as np

from refimpl.equations.translation import truncated_normal
from refimpl.equations.weights import orthogonal_regularisation, orthogonal_regularisation_vjp
from refimpl.nets import biggan as nets
from refimpl.nets.reparametrise import matrices, spectral, spectral_init, through
from refimpl.ops._check import require
from refimpl.ops.random import fold

from . import two_player

DEFAULTS = two_player.DEFAULTS | {
    "objective": "hinge", "base": 2, "width": 32, "embedding": 16, "attention": 4, "orthogonal": 1e-4, "latent": 60,
    "rate": 2e-3, "rate_g": 4e-4, "beta2": 0.99, "ema": 0.99, "steps": 3000}
OPTIONS = {"truncation": 0.0}  # the largest |z|; 0 for no truncation


def build(config, data):
    """The system for labelled square images.

    Shapes: config as DEFAULTS; sampling takes truncation, the largest |z|. Returns a System.
    Raises: ValueError when the data have no labels or are no square images of a fitting size.
    Source: Brock et al. 2019, arXiv:1809.11096.
    """
    extra, nets = orthogonal(config["orthogonal"]) if config["orthogonal"] else None, networks(config, data, split=True)
    system = two_player.two_player("biggan", config, data, nets, conditional=True, options=OPTIONS, extra=extra)

    def sample(params, state, n, key, ops, labels=None, first=0, truncation=0.0):
        own = standing(nets, params, state, data, ops, truncation)
        return system.sample(params, state | {"generator": own}, n, key, ops, labels, first, truncation=truncation)

    return system._replace(sample=sample)


def standing(nets, params, state, data, ops, truncation, passes=50, batch=64):
    r"""The generator's state with batch norm's statistics over fresh samples, as truncated as those to be drawn.

    $$\mu, v \leftarrow .9\,(\mu, v) + .1\,(\mu, v)_{\text{batch } k}, \qquad k = 1 \dots \mathrm{passes}$$

    Those of training belong to other parameters than the averaged ones, and to z that is not truncated.
    Shapes: returns the generator's state, the same for every key and number of samples.
    Source: Brock et al. 2019, arXiv:1809.11096, app. C ("standing statistics", there a plain mean over 100 passes).
    """
    own, labels = state["generator"], np.arange(batch) % data.classes
    for k in range(passes):
        z = nets.latents(fold(0, k), np.arange(batch), data.train, ops, truncation=truncation)
        _, _, own = nets.generator(params["generator"], own, z, labels, ops, True)
    return own


def truncated_latents(size):
    r"""Latent vectors whose entries are truncated if asked.

    $$z \sim N(0, I) \text{ restricted to } |z_i| \le t$$

    Shapes: size an int; returns latents(key, index, like, ops, truncation) -> (N, size).
    Source: Brock et al. 2019, arXiv:1809.11096, sec. 3.1.
    """
    def latents(key, index, like, ops, truncation=0.0):
        require(truncation >= 0, f"truncation must be positive, or 0 for none, got {truncation}")
        if not truncation:
            return ops.normal(key, index, 0, (size,), dtype=like.dtype, like=like)
        return truncated_normal(ops.uniform(key, index, 0, (size,), dtype=like.dtype, like=like), truncation)

    return latents


def orthogonal(weight):
    r"""The generator's orthogonal regularisation, as an extra term of its loss.

    $$\beta \sum_W \|W W^T \odot (1-I)\|_F^2$$

    Shapes: weight (beta) a number; returns extra, see two_player.generator_loss. The class embedding is left free.
    Source: Brock et al. 2019, arXiv:1809.11096, sec. 3.1 and app. C.
    """
    def extra(params, state, key, ops):
        own = {n: w for n, w in params["generator"].items() if w.ndim in (2, 4) and not n.startswith("embedding")}
        value = sum(float(orthogonal_regularisation(w, weight)) for w in own.values())
        return {"orthogonal": value}, {n: orthogonal_regularisation_vjp(1.0, w, weight) for n, w in own.items()}, {}

    return extra


def networks(config, data, split):
    r"""Both networks on spectrally normalised weights.

    $$G : (z, y) \mapsto x, \qquad D : (x, y) \mapsto l$$

    Shapes: config with base, width, latent, embedding, attention; split: whether every block sees its part of z.
    Returns Networks.
    Raises: ValueError when the data are no square images, or a size does not fit.
    Source: Brock et al. 2019, arXiv:1809.11096, app. B; Zhang et al. 2019, arXiv:1805.08318.
    """
    require(len(data.shape) == 3 and data.shape[1] == data.shape[2],
            f"convolutional GANs need square images, and samples of {data.spec} have shape {data.shape}")
    size, base, levels = data.shape[1], config["base"], 1
    while base * 2 ** (levels - 1) < size:
        levels += 1
    require(base >= 1 and base * 2 ** (levels - 1) == size and levels > 1,
            f"the image's size must be base {base} times 2, 4, 8, ..., got {size}")
    c = nets.BigGANConfig(base, (config["width"],) * levels, data.shape[0], config["latent"], data.classes,
                          config["embedding"], config["attention"], split)

    def generator(params, state, z, labels, ops, train):
        weights, to_params, state = spectral(params, state, train)
        x, back, state = nets.generator(weights, state, z, labels, config=c, ops=ops, train=train)
        return x, lambda dx: to_params(back(dx)[0]), state

    def discriminator(params, state, x, labels, ops, train):
        weights, to_params, state = spectral(params, state, train)
        logits, back = nets.discriminator(weights, x, labels, config=c, ops=ops)
        return logits, through(to_params, back), state

    def generator_init(key):
        params, state = nets.generator_init(key, c)
        return params, state | spectral_init(key, params, [n for n in matrices(params) if "embedding" not in n])

    def discriminator_init(key):
        params = nets.discriminator_init(key, c)
        return params, spectral_init(key, params, matrices(params))

    return two_player.Networks(generator, generator_init, discriminator, discriminator_init,
                               truncated_latents(config["latent"]))
