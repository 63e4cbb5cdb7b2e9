"""RealNVP: affine couplings; on images checkerboards, then channels, with half of them factored out between levels.

Dinh et al. 2017, arXiv:1605.08803.
"""
from . import flows

DEFAULTS = flows.DEFAULTS
# Points take more couplings than images, and smaller networks.
POINTS = {"couplings": 8, "width": 64, "batch": 256, "steps": 2000, "weight_decay": 0.0, "logit": 0.0}


def build(config, data):
    """The system for images or points. Shapes: config as DEFAULTS. Returns a System."""
    return flows.flow_system("realnvp", config, data)
