"""pix2pix: edges to digits, from pairs: an adversarial term on patches beside the edges, and 100 times the L1 norm.

Isola et al. 2017, arXiv:1611.07004. Noise enters nowhere: the paper's dropout is left out, the map is deterministic.
"""
import numpy as np

from refimpl.equations import adversarial, translation
from refimpl.nets import translate as nets
from refimpl.ops._check import require
from refimpl.ops.random import fold
from refimpl.train import Player, System

from .two_player import add, optimiser

DEFAULTS = {"width": 32, "blocks": 3, "patch_widths": [32, 64], "weight": 100.0, "rate": 1e-3, "rate_g": 1e-3,
            "beta1": 0.5, "beta2": 0.99, "steps": 800, "batch": 64, "ema": 0.99}


def edges(x, threshold=0.75):
    r"""Where an image changes: +1 on edges, -1 elsewhere.

    $$e_{ij} = \mathrm{sign}\left(|x_{i+1,j}-x_{ij}| + |x_{i,j+1}-x_{ij}| - \tau\right)$$

    Differences to outside are 0; those of the channels are added.
    Shapes: x (N, C, H, W); returns (N, 1, H, W).
    Source: Isola et al. 2017, arXiv:1611.07004, whose edges come from a learnt detector.
    """
    down = np.concatenate([x[:, :, 1:], x[:, :, -1:]], axis=2) - x
    right = np.concatenate([x[:, :, :, 1:], x[:, :, :, -1:]], axis=3) - x
    change = np.sum(np.abs(down) + np.abs(right), axis=1, keepdims=True)
    return np.where(change > threshold, 1, -1).astype(x.dtype)


def images_only(name, data):
    """One sentence for data that are no images.

    Shapes: data a Data. Raises: ValueError.
    Source: the project's own form.
    """
    require(len(data.shape) == 3, f"{name} translates images, and samples of {data.spec} have shape {data.shape}")


def build(config, data):
    """The system for images of any kind; samples are the translated edges of the test images, in their order.

    Shapes: config as DEFAULTS. Returns a System.
    Raises: ValueError when the data are no images.
    Source: Isola et al. 2017, arXiv:1611.07004.
    """
    images_only("pix2pix", data)
    channels, c = data.shape[0], nets.TranslateConfig(1, data.shape[0], config["width"], config["blocks"])

    def judge(params, source, y, ops):
        logits, back = nets.patch_discriminator(params, np.concatenate([source, y], axis=1), ops=ops)

        def pullback(dlogits):
            grads, dx = back(dlogits)
            return grads, dx[:, 1:]

        return logits, pullback

    def discriminator_loss(params, state, batch, key, ops):
        source = edges(batch.x)
        fake, _ = nets.translator(params["generator"], source, ops=ops)
        real_logits, real_back = judge(params["discriminator"], source, batch.x, ops)
        fake_logits, fake_back = judge(params["discriminator"], source, fake, ops)
        dreal, dfake = adversarial.minimax_d_vjp(0.5, real_logits, fake_logits)  # halved, which slows D, as the paper
        grads = add(real_back(dreal)[0], fake_back(dfake)[0])
        return adversarial.minimax_d(real_logits, fake_logits) / 2, grads, state, {}

    def generator_loss(params, state, batch, key, ops):
        source, weight = edges(batch.x), config["weight"]
        fake, back = nets.translator(params["generator"], source, ops=ops)
        logits, pullback = judge(params["discriminator"], source, fake, ops)
        dlogits, dfake, _ = translation.pix2pix_g_vjp(1.0, logits, fake, batch.x, weight)
        loss = translation.pix2pix_g(logits, fake, batch.x, weight)
        return loss, back(dfake + pullback(dlogits)[1])[0], state, {}

    def sample(params, state, n, key, ops, labels=None, first=0):
        return nets.translator(params["generator"], edges(sources(data, n, first, labels)), ops=ops)[0]

    return System("pix2pix", {
        "discriminator": Player(
            lambda key: (nets.patch_discriminator_init(key, 1 + channels, config["patch_widths"]), {}),
            discriminator_loss, optimiser(config, config["rate"])),
        "generator": Player(lambda key: (nets.translator_init(fold(key, 1), c), {}), generator_loss,
                            optimiser(config, config["rate_g"]), ema=config["ema"])}, sample,
        truth=lambda n: sources(data, n, 0, None))


def sources(data, n, first, labels):
    """The test images that n samples from number `first` on are translated from.

    Shapes: returns (n, ...). Raises: ValueError when labels are asked for.
    Source: the project's own form.
    """
    require(labels is None, "this model translates the test images, so no labels can be asked for")
    return data.test[(first + np.arange(n)) % len(data.test)]
