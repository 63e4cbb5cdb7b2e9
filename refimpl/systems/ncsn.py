"""NCSN: a network that gives the score at a ladder of noise levels, climbed down by annealed Langevin dynamics.

Song and Ermon 2019, arXiv:1907.05600 (denoising score matching over a geometric ladder, alg. 1); 2020, arXiv:2006.09011
(the largest level that of the data's diameter, the score the network's output over sigma).
"""
import numpy as np

from refimpl.equations.continuous import exponential_levels, ve_time, with_end
from refimpl.equations.schedules import log_snr
from refimpl.ops._check import require

from . import prior

DEFAULTS = prior.IMAGES | {"scales": 25, "sigma_min": 0.02, "sigma_max": 10.0}
POINTS = prior.POINTS | {"sigma_max": 4.0}


def build(config, data):
    """The system for a data set."""
    return prior.build("ncsn", config, data, model(config, data))


def model(config, data):
    r"""The Model: scales: how many noise levels; the network e is -sigma times the score.

    $$L = E\;\sigma^2\left\|s(x+\sigma\epsilon, \sigma) + \frac\epsilon\sigma\right\|^2 = E\,\|\epsilon - e\|^2, \qquad
      s = -\frac e\sigma$$
    """
    count, least, most = config["scales"], config["sigma_min"], config["sigma_max"]
    require(count >= 2 and 0 < least < most, f"ncsn: scales of at least 2 and 0 < sigma_min < sigma_max expected, got "
                                             f"{count}, {least} and {most}")
    ladder, spread = exponential_levels(count, least, most)[:-1, 1], float(np.std(data.train))

    def told(signal, noise):  # the rung, between rungs a fraction: what was never told should look like its neighbours
        return (count - 1) * ve_time(log_snr(signal, noise), least, most)

    def draw(u):
        sigma = ladder[np.floor(count * u).astype(np.int64)]
        return np.ones(len(u)), sigma, told(1.0, sigma)

    def levels(steps):
        return with_end(np.ones(count), ladder) if steps == count else exponential_levels(steps, least, most)

    return prior.Model(
        "ve", draw, told, levels, prior.squared("eps"), sampler=("langevin", count, {"step": 0.2 * least**2, "inner": 5}),
        scale=lambda signal, noise: 1 / np.hypot(signal * spread, noise), nll=prior.ode_likelihood(data, "ve", least, most))
