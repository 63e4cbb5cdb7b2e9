"""DCGAN: strided and transposed convolutions with batch norm, the first GAN to scale to images.

Radford et al. 2016, arXiv:1511.06434.
"""
from refimpl.nets import dcgan as nets
from refimpl.nets.reparametrise import matrices, spectral, spectral_init, through
from refimpl.ops._check import require

from . import two_player

DEFAULTS = two_player.DEFAULTS | {"base": 2, "width": 32, "batch_norm": True, "spectral_norm": False, "rate": 2e-4,
                                  "rate_g": 1e-3, "beta1": 0.5, "beta2": 0.99, "ema": 0.0, "steps": 3000}


def build(config, data):
    """The system for square images.

    Shapes: config as DEFAULTS. Returns a System.
    Raises: ValueError when the data are no square images, or the size is not base times a power of two.
    Source: Radford et al. 2016, arXiv:1511.06434.
    """
    return two_player.two_player("dcgan", config, data, networks(config, data))


def networks(config, data):
    r"""DCGAN's networks, the discriminator's weights spectrally normalised if asked.

    $$G : R^{\mathrm{latent}} \to [-1, 1]^{C\times S\times S}, \qquad D : R^{C\times S\times S} \to R$$

    Shapes: config with base, width, latent, batch_norm, spectral_norm; returns Networks.
    Raises: ValueError when the data are no square images, or the size does not fit.
    Source: Radford et al. 2016, arXiv:1511.06434; Miyato et al. 2018, arXiv:1802.05957.
    """
    require(len(data.shape) == 3 and data.shape[1] == data.shape[2],
            f"convolutional GANs need square images, and samples of {data.spec} have shape {data.shape}")
    c = nets.DCGANConfig(size=data.shape[1], base=config["base"], channels=data.shape[0], latent=config["latent"],
                         width=config["width"], norm=config["batch_norm"])

    def generator(params, state, z, labels, ops, train):
        x, back, state = nets.generator(params, state, z, config=c, ops=ops, train=train)
        return x, lambda dx: back(dx)[0], state

    def discriminator(params, state, x, labels, ops, train):
        weights, to_params, state = spectral(params, state, train)
        logits, back, running = nets.discriminator(weights, state, x, config=c, ops=ops, train=train)
        return logits, through(to_params, back), running

    def discriminator_init(key):
        params, state = nets.discriminator_init(key, c)
        if config["spectral_norm"]:
            state |= spectral_init(key, params, matrices(params))
        return params, state

    return two_player.Networks(generator, lambda key: nets.generator_init(key, c), discriminator, discriminator_init,
                               two_player.normal_latents(c.latent), joint=not c.norm)
