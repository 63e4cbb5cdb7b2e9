"""WGAN: a critic whose weights are clipped after every step, five steps of it for one of the generator.

Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1 (with Adam without momentum in place of RMSprop).
"""
from . import gan, two_player

DEFAULTS = gan.DEFAULTS | {"objective": "wasserstein", "penalty": "none", "clip_weights": 0.03, "critic_steps": 5,
                           "rate": 3e-4, "rate_g": 5e-4, "ema": 0.99, "steps": 12000}


def build(config, data):
    """The system for a data set: perceptrons on images or points, without labels.

    Shapes: config as DEFAULTS. Returns a System.
    Source: Arjovsky et al. 2017, arXiv:1701.07875.
    """
    return two_player.two_player("wgan", config, data, gan.perceptrons(config, data))
