"""SAGAN: self-attention in both networks, spectral normalisation in both, class-conditional batch norm, hinge loss.

Zhang et al. 2019, arXiv:1805.08318.
"""
from . import biggan, two_player

DEFAULTS = {k: v for k, v in biggan.DEFAULTS.items() if k != "orthogonal"} | {"latent": 64,
                                                                               "rate_g": 3e-4}


def build(config, data):
    """The system for labelled square images; the discriminator learns several times as fast as the generator.

    Shapes: config as DEFAULTS. Returns a System.
    Raises: ValueError when the data have no labels or are no square images of a fitting size.
    Source: Zhang et al. 2019, arXiv:1805.08318, sec. 4.
    """
    nets = biggan.networks(config, data, split=False)
    return two_player.two_player("sagan", config, data, nets, conditional=True, options=biggan.OPTIONS)
