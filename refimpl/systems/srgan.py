"""SRGAN: images of twice the size from halved ones, near the truth and a little adversarial; alone it is SRResNet.

Ledig et al. 2017, arXiv:1609.04802. The content term is the squared error of pixels. The paper's weight of 1e-3 belongs
to photographs: beside the pixels of 8x8 digits it only regularises, and PSNR even rises by .1 dB.
"""
import numpy as np

from refimpl.equations import adversarial, translation
from refimpl.nets import dcgan
from refimpl.nets import translate as nets
from refimpl.ops._check import require
from refimpl.ops.random import fold
from refimpl.train import Player, System

from .pix2pix import images_only, sources
from .two_player import optimiser

DEFAULTS = {"width": 32, "blocks": 4, "judge_width": 32, "weight": 0.05, "rate": 1e-3, "rate_g": 2e-3, "beta1": 0.5,
            "beta2": 0.99, "steps": 1500, "batch": 32, "ema": 0.0}


def build(config, data):
    """The system for square images. weight: of the adversarial term; 0 leaves SRResNet, without a discriminator.

    Shapes: config as DEFAULTS. Samples are the test images halved and restored, in their order. Returns a System.
    Raises: ValueError when the data are no square images of even size.
    Source: Ledig et al. 2017, arXiv:1609.04802.
    """
    images_only("srgan", data)
    channels, size = data.shape[:2]
    require(size == data.shape[2] and size % 4 == 0, f"srgan needs square images of a size that 4 divides, and samples "
            f"of {data.spec} have shape {data.shape}")
    c = nets.TranslateConfig(channels, channels, config["width"], config["blocks"], 2)
    d = dcgan.DCGANConfig(size, size // 4, channels, 1, config["judge_width"], norm=False)

    def judge(params, x, ops):
        return dcgan.discriminator(params["discriminator"], {}, x, config=d, ops=ops)[:2]

    def discriminator_loss(params, state, batch, key, ops):
        fake, _, _ = nets.srresnet(params["generator"], state["generator"], ops.average_pool(batch.x, 2), ops=ops)
        logits, back = judge(params, np.concatenate([batch.x, fake]), ops)
        real = logits[:len(fake)], logits[len(fake):]
        return (adversarial.minimax_d(*real), back(np.concatenate(adversarial.minimax_d_vjp(1.0, *real)))[0], state, {})

    def generator_loss(params, state, batch, key, ops):
        y, back, running = nets.srresnet(params["generator"], state["generator"], ops.average_pool(batch.x, 2), ops=ops)
        state = state | {"generator": running}
        if not config["weight"]:
            return ops.mse(y, batch.x), back(ops.mse_vjp(1.0, y, batch.x)[0])[0], state, {}
        logits, pullback = judge(params, y, ops)
        dlogits, dy, _ = translation.srgan_g_vjp(1.0, logits, y, batch.x, config["weight"])
        loss = translation.srgan_g(logits, y, batch.x, config["weight"])
        return loss, back(dy + pullback(dlogits)[1])[0], state, {}

    def sample(params, state, n, key, ops, labels=None, first=0):
        small = ops.average_pool(sources(data, n, first, labels), 2)
        y, _, _ = nets.srresnet(params["generator"], state["generator"], small, ops=ops, train=False)
        return np.clip(y, -1, 1)

    players = {"generator": Player(lambda key: nets.srresnet_init(fold(key, 1), c), generator_loss,
                                   optimiser(config, config["rate_g"]), ema=config["ema"])}
    if config["weight"]:
        players = {"discriminator": Player(lambda key: dcgan.discriminator_init(key, d), discriminator_loss,
                                           optimiser(config, config["rate"]))} | players
    return System("srgan", players, sample, truth=lambda n: sources(data, n, 0, None))
