"""LSGAN: the game with least squares in place of logarithms.

Mao et al. 2017, arXiv:1611.04076, the coding 0, 1, 1; R1 keeps the small networks stable.
"""
from . import gan, two_player

DEFAULTS = gan.DEFAULTS | {"objective": "lsgan"}


def build(config, data):
    """The system for a data set: perceptrons on images or points, without labels.

    Shapes: config as DEFAULTS. Returns a System.
    Source: Mao et al. 2017, arXiv:1611.04076.
    """
    return two_player.two_player("lsgan", config, data, gan.perceptrons(config, data))
