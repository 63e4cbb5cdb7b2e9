"""NICE: additive couplings, one learnt scale per dimension, a logistic prior.

Dinh et al. 2015, arXiv:1410.8516.
"""
from . import flows, realnvp

DEFAULTS = flows.DEFAULTS | {"prior": "logistic", "couplings": 4, "width": 256}
POINTS = realnvp.POINTS


def build(config, data):
    """The system for images or points. Shapes: config as DEFAULTS. Returns a System."""
    return flows.flow_system("nice", config, data)
