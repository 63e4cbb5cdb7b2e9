"""Conditional GAN: both players see the class, a one-hot vector beside z and beside the image.

Mirza and Osindero 2014, arXiv:1411.1784.
"""
from . import gan, two_player

DEFAULTS = gan.DEFAULTS


def build(config, data):
    """The system for a labelled data set.

    Shapes: config as DEFAULTS. Returns a System.
    Raises: ValueError when the data have no labels.
    Source: Mirza and Osindero 2014, arXiv:1411.1784.
    """
    nets = gan.perceptrons(config, data, data.classes)
    return two_player.two_player("cgan", config, data, nets, conditional=True)
