"""Glow: actnorm, an invertible 1x1 convolution by its LU factors and an affine coupling, over and over.

Kingma and Dhariwal 2018, arXiv:1807.03039.
"""
from . import flows, realnvp

DEFAULTS = flows.DEFAULTS | {"couplings": 6}
POINTS = realnvp.POINTS


def build(config, data):
    """The system for images or points. Shapes: config as DEFAULTS. Returns a System."""
    return flows.flow_system("glow", config, data)
