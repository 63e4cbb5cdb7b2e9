"""SN-GAN: every weight of the discriminator divided by its spectral norm; hinge loss, no penalty.

Miyato et al. 2018, arXiv:1802.05957.
"""
from . import dcgan, two_player

DEFAULTS = dcgan.DEFAULTS | {"objective": "hinge", "batch_norm": False, "spectral_norm": True, "rate": 2e-3,
                             "rate_g": 5e-4, "beta1": 0.0, "ema": 0.99, "steps": 4000}


def build(config, data):
    """The system for square images.

    Shapes: config as DEFAULTS. Returns a System.
    Source: Miyato et al. 2018, arXiv:1802.05957.
    """
    return two_player.two_player("sngan", config, data, dcgan.networks(config, data))
