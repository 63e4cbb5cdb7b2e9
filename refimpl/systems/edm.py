"""EDM: a denoiser preconditioned so that its network sees and gives unit variance at every noise level.

Karras et al. 2022, arXiv:2206.00364: preconditioning and training levels (table 1), the levels with rho = 7 (eq. 5),
Heun's sampler (alg. 1), and churn (alg. 2: `sample --sampler edm`).
"""
import numpy as np
from scipy.special import ndtri

from refimpl.equations.continuous import karras_levels
from refimpl.equations.diffusion import simple_loss, simple_loss_vjp
from refimpl.equations.objectives import edm_coefficients, edm_sigma, edm_target
from refimpl.ops._check import require

from . import prior

DEFAULTS = prior.IMAGES | {"sigma_min": 0.002, "sigma_max": 80.0, "mean": -1.2, "deviation": 1.2}
POINTS = prior.POINTS


def build(config, data):
    """The system for a data set."""
    return prior.build("edm", config, data, model(config, data))


def model(config, data):
    r"""The Model: mean, deviation: of log sigma in training; sigma_d is measured on the data.

    $$D(x;\sigma) = c_{\mathrm{skip}}\,x + c_{\mathrm{out}}\,F(c_{\mathrm{in}}\,x;\,c_{\mathrm{noise}}), \qquad
      L = E\,\lambda(\sigma)\,\|D(x_0+\sigma\epsilon) - x_0\|^2, \quad \lambda c_{\mathrm{out}}^2 = 1$$
    """
    least, most, spread = config["sigma_min"], config["sigma_max"], float(np.std(data.train))
    require(0 < least < most, f"edm: 0 < sigma_min < sigma_max expected, got {least} and {most}")
    require(config["deviation"] > 0, f"edm: deviation must be positive, got {config['deviation']}")

    def told(signal, noise):  # 400 c_noise: the network's sinusoids are made for times that run to a thousand
        return 400 * edm_coefficients(np.divide(noise, signal), spread)[3]

    def draw(u):
        sigma = edm_sigma(ndtri(np.clip(u, 1e-7, 1 - 1e-7)), config["mean"], config["deviation"])
        return np.ones(len(u)), sigma, told(1.0, sigma)

    def loss(f, x0, x_t, eps, signal, noise, told):
        target = edm_target(x0, x_t, noise, spread)
        return simple_loss(f, target), simple_loss_vjp(1.0, f, target)[0]

    return prior.Model(
        "ve", draw, told, lambda steps: karras_levels(steps, least, most), loss, sampler=("heun", 18, {}),
        denoiser=lambda signal, noise: edm_coefficients(noise, spread)[:2],
        scale=lambda signal, noise: edm_coefficients(noise, spread)[2],
        nll=prior.ode_likelihood(data, "ve", least, most, "x0"))
