"""WGAN-GP: a critic held to gradients of length 1 on the lines between data and samples.

Gulrajani et al. 2017, arXiv:1704.00028, algorithm 1.
"""
from . import gan, two_player

DEFAULTS = gan.DEFAULTS | {"objective": "wasserstein", "penalty": "gp", "penalty_weight": 10.0, "critic_steps": 5,
                           "beta2": 0.9}
# Points need a weaker penalty than images, and more of the generator's steps.
POINTS = {"latent": 2, "width": 128, "depth": 3, "penalty_weight": 0.1, "batch": 256, "steps": 12000, "critic_steps": 3,
          "rate": 2e-3, "rate_g": 2e-3, "beta1": 0.5}


def build(config, data):
    """The system for a data set: perceptrons on images or points, without labels.

    Shapes: config as DEFAULTS. Returns a System.
    Source: Gulrajani et al. 2017, arXiv:1704.00028.
    """
    return two_player.two_player("wgan-gp", config, data, gan.perceptrons(config, data))
