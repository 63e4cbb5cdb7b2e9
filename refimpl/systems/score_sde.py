"""Score SDE: diffusion in continuous time, by one of three stochastic equations, reversed by any sampler or its ODE.

Song et al. 2021, arXiv:2011.13456: variance preserving (vp), variance exploding (ve) and sub-variance preserving
(subvp); the probability-flow ODE, and the likelihood along it.
"""
import numpy as np

from refimpl.equations import continuous
from refimpl.equations.schedules import log_snr
from refimpl.ops._check import require

from . import prior

DEFAULTS = prior.IMAGES | {"sde": "vp", "last": 1e-3, "beta_min": 0.1, "beta_max": 20.0, "sigma_min": 0.01,
                           "sigma_max": 10.0}
POINTS = prior.POINTS | {"sigma_max": 4.0}
PATHS = {"vp": (continuous.vp_level, continuous.vp_time, ("beta_min", "beta_max")),
         "subvp": (continuous.subvp_level, continuous.subvp_time, ("beta_min", "beta_max")),
         "ve": (continuous.ve_level, continuous.ve_time, ("sigma_min", "sigma_max"))}


def build(config, data):
    """The system for a data set."""
    return prior.build("score-sde", config, data, model(config, data))


def model(config, data):
    r"""The Model: sde: 'vp', 've' or 'subvp'; last: the time near the data where training ends.

    $$L = E_{t,\epsilon}\;\mathrm{noise}^2\left\|s(x_t, t) + \frac{\epsilon}{\mathrm{noise}}\right\|^2
        = E\,\|\epsilon - e\|^2, \qquad s = -\frac{e}{\mathrm{noise}}, \quad t \sim U(t_{\mathrm{last}}, 1)$$
    """
    kind, last = config["sde"], config["last"]
    require(kind in PATHS, f"sde must be one of {', '.join(PATHS)}, got {kind!r}")
    require(0 < last < 1, f"score-sde: last must be in (0, 1), got {last}")
    level, time, names = PATHS[kind]
    ends, spread = [config[name] for name in names], float(np.std(data.train))
    require(0 < ends[0] < ends[1], f"score-sde: 0 < {names[0]} < {names[1]} expected, got {ends[0]} and {ends[1]}")

    def told(signal, noise):
        return 1000 * time(log_snr(signal, noise), *ends)

    def draw(u):
        t = last + (1 - last) * u
        return *level(t, *ends), 1000 * t

    def levels(steps, spacing):
        return continuous.path_levels(lambda t: level(t, *ends), steps, last, spacing, kind)

    edges = [float(np.divide(*level(np.array(t), *ends)[::-1])) for t in (last, 1.0)]
    return prior.Model(
        kind, draw, told, levels, prior.squared("eps"), sampler=("heun", 30, {}), own={"spacing": "time"},
        scale=(lambda signal, noise: 1 / np.hypot(signal * spread, noise)) if kind == "ve" else None,
        nll=prior.ode_likelihood(data, kind, *edges))
