"""NICE: additive couplings, one learnt scale per dimension, a logistic prior.

Dinh et al. 2015, arXiv:1410.8516.
"""
from . import flows, realnvp

DEFAULTS = flows.DEFAULTS | {"prior": "logistic", "couplings": 4, "width": 256}


def defaults(data):
    """Settings for these data: points take more couplings and smaller networks."""
    return DEFAULTS | (realnvp.POINTS if len(data.shape) == 1 else {})


def build(config, data):
    """The system for images or points. Shapes: config as DEFAULTS. Returns a System."""
    return flows.flow_system("nice", config, data)
