"""Flow matching: a network that gives the velocity along straight lines from data to noise.

Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023, arXiv:2209.03003 (rectified flow); the shift of sampling times:
Esser et al. 2024, arXiv:2403.03206.
"""
from refimpl.equations.continuous import flow_level, flow_levels, flow_time
from refimpl.equations.schedules import log_snr

from . import prior

DEFAULTS = prior.IMAGES
POINTS = prior.POINTS


def build(config, data):
    """The system for a data set."""
    return prior.build("flow-matching", config, data, model(config, data))


def model(config, data):
    r"""The Model.

    $$x_t = (1-t)\,x_0 + t\,\epsilon, \qquad L = E_{t,\epsilon}\,\|u(x_t, t) - (\epsilon - x_0)\|^2, \quad t \sim U(0,1)$$
    """
    def draw(u):
        return *flow_level(u), 1000 * u

    return prior.Model(
        "flow", draw, lambda signal, noise: 1000 * flow_time(log_snr(signal, noise)),
        lambda steps, shift: flow_levels(steps, shift), prior.squared("flow"), "flow", sampler=("flow-heun", 25, {}),
        own={"shift": 1.0}, nll=prior.ode_likelihood(data, "flow", 1e-3, 1e3, "flow"))
