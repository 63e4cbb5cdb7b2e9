"""DDPM: a network that predicts the noise in an image or point, given its class; drawn from by DDIM, or any sampler.

Ho et al. 2020, arXiv:2006.11239 (objective, U-Net); Nichol and Dhariwal 2021, arXiv:2102.09672 (cosine schedule); Song
et al. 2021, arXiv:2010.02502 (DDIM, which trains as DDPM does); Ho and Salimans 2022, arXiv:2207.12598 (guidance).
"""
import numpy as np

from refimpl.equations import likelihood, schedules
from refimpl.ops._check import require

from . import prior

DEFAULTS = prior.IMAGES | {"prediction": "eps", "weight": "plain", "T": 1000, "schedule": "cosine"}
# Points have no known range to clip estimates to, and near t = T only v, not eps, determines x0 without one.
POINTS = prior.POINTS | {"prediction": "v"}
SCHEDULES = {"linear": schedules.linear, "cosine": schedules.cosine, "sigmoid": schedules.sigmoid}


def build(config, data):
    """The system for a data set. weight: 'plain', or that of a loss in refimpl.equations.objectives."""
    return prior.build("ddpm", config, data, model(config, data))


def model(config, data):
    r"""The Model on a schedule of T steps: t uniform in 1..T, the network told t - 1 as public checkpoints are.

    $$L = E_{t,\epsilon}\; w_t\,\|\epsilon - \hat\epsilon(x_t, t)\|^2, \qquad
      x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$$

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 14 (w = 1) and alg. 1.
    """
    require(config["T"] >= 1, f"T must be at least 1, got {config['T']}")
    require(config["schedule"] in SCHEDULES,
            f"schedule must be one of {', '.join(SCHEDULES)}, got {config['schedule']!r}")
    schedule = SCHEDULES[config["schedule"]](config["T"])

    def draw(u):
        t = 1 + np.floor(schedule.T * u).astype(np.int64)
        return *schedules.level_at(schedule, t), t - 1

    def levels(steps, spacing):
        return schedules.levels(schedule, schedules.timesteps(schedule.T, steps, spacing))

    return prior.Model(
        "vp", draw, lambda signal, noise: schedules.label_of_level(schedule, signal, noise) - 1, levels,
        prior.squared(config["prediction"], config["weight"]), config["prediction"],
        ("ddim", min(50, schedule.T), {"eta": 0.0}), {"spacing": "trailing"},
        nll=bound(schedule, data, config["prediction"], "large"))


def bound(schedule, data, prediction, variance):
    """nll of a Model: an unbiased estimate of the variational bound; bits per dimension on a grid of levels, else nats.

    Source: refimpl.equations.likelihood.bound_estimate.
    """
    def nll(ask, x, key, ops, variance=variance, terms=50):
        found = likelihood.bound_estimate(
            lambda x, t: ask(x, *schedules.level_at(schedule, t))[0], x.astype(np.float64), schedule, data.levels,
            min(terms, schedule.T - 1), ops=ops, key=key, prediction=prediction, variance=variance,
            clip=(-1, 1) if len(data.shape) == 3 else None)
        return found["bits" if data.levels else "total"]

    return nll
