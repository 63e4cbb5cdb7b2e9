"""Improved DDPM: DDPM whose network also gives a variance, between the two that are right for extreme data.

Nichol and Dhariwal 2021, arXiv:2102.09672: the learned variance (eq. 15), the hybrid loss (eq. 16) and the cosine
schedule. It needs few ancestral steps, and finds data more probable than a fixed variance does.
"""
import numpy as np

from refimpl.equations.objectives import hybrid_loss, hybrid_loss_vjp
from refimpl.ops._check import require

from . import ddpm, prior

DEFAULTS = prior.IMAGES | {"T": 1000, "schedule": "cosine", "vlb_weight": 1e-3}
POINTS = prior.POINTS


def build(config, data):
    """The system for a data set."""
    return prior.build("improved-ddpm", config, data, model(config, data))


def model(config, data):
    r"""The Model: vlb_weight: the lambda of the hybrid loss.

    $$L = L_{\mathrm{simple}} + \lambda L_{\mathrm{vlb}}, \qquad
      \Sigma = \exp\left(\nu\log\beta_t + (1-\nu)\log\tilde\beta_t\right)$$
    """
    require(config["vlb_weight"] >= 0, f"vlb_weight must not be negative, got {config['vlb_weight']}")
    base = ddpm.model(config | {"prediction": "eps", "weight": "plain"}, data)
    schedule = ddpm.SCHEDULES[config["schedule"]](config["T"])
    require(schedule.T > 1, "improved-ddpm: T must be at least 2: beta_tilde is 0 at t = 1")

    def loss(e, x0, x_t, eps, signal, noise, told):
        n = x0.shape[1]
        rest = (e[:, :n], e[:, n:], x0, x_t, eps, told + 1, schedule, data.levels, config["vlb_weight"])
        return hybrid_loss(*rest), np.concatenate(hybrid_loss_vjp(1.0, *rest), axis=1)

    return base._replace(
        loss=loss, outputs=2, sampler=("ddpm", min(50, schedule.T), {"variance": "learned"}),
        nll=ddpm.bound(schedule, data, "eps", "learned"))
