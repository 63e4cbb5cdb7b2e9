"""Diagonal Gaussians: log density, divergence, entropy and the reparametrised sample, each followed by its vjp."""
import math

import numpy as np

from ..ops._check import alike, exponent, per_sample, sample_sum

_LOG_2PI = math.log(2 * math.pi)  # a Python float: NumPy's would widen float32 data


def _check(name, **arrays):
    alike(name, **arrays)
    exponent(name, **{label: array for label, array in arrays.items() if label.startswith("log_var")})


def log_normal(x, mean, log_var):
    r"""Log density of a diagonal Gaussian, in nats per sample.

    $$\log N(x;\mu,\sigma^2) = -\tfrac12 \sum_i \left[\log 2\pi + \log\sigma_i^2
      + \frac{(x_i-\mu_i)^2}{\sigma_i^2}\right]$$

    Shapes: x, mean, log_var (N, ...); returns (N,). Analytic.
    Raises: ValueError when the shapes differ, or exp(log_var) would overflow.
    Source: Bishop 2006, Pattern Recognition and Machine Learning, sec. 2.3.
    """
    _check("log_normal", x=x, mean=mean, log_var=log_var)
    return -sample_sum(_LOG_2PI + log_var + (x - mean) ** 2 * np.exp(-log_var)) / 2


def log_normal_vjp(dy, x, mean, log_var):
    """dmean = dy (x - mean)/var = -dx; dlog_var = dy ((x - mean)^2/var - 1)/2."""
    dy, u = per_sample(dy, x), (x - mean) * np.exp(-log_var)
    return -dy * u, dy * u, dy * (u * (x - mean) - 1) / 2


def kl_normal(mean_q, log_var_q, mean_p, log_var_p):
    r"""Divergence of one diagonal Gaussian from another, in nats per sample.

    $$\mathrm{KL}(q\|p) = \tfrac12\sum_i\left[\log\frac{\sigma_p^2}{\sigma_q^2} - 1
      + \frac{\sigma_q^2 + (\mu_q-\mu_p)^2}{\sigma_p^2}\right]$$

    Shapes: all (N, ...); returns (N,). Analytic. Written with expm1, so that nearly equal variances do not cancel.
    Raises: ValueError when the shapes differ, or exp(log_var) would overflow.
    Source: Kingma and Welling 2014, arXiv:1312.6114, app. B (p standard normal).
    """
    _check("kl_normal", mean_q=mean_q, log_var_q=log_var_q, mean_p=mean_p, log_var_p=log_var_p)
    d = log_var_q - log_var_p
    exponent("kl_normal", **{"log_var_q - log_var_p": d})
    return sample_sum(np.expm1(d) - d + (mean_q - mean_p) ** 2 * np.exp(-log_var_p)) / 2


def kl_normal_vjp(dy, mean_q, log_var_q, mean_p, log_var_p):
    """dmean_q = dy (mean_q - mean_p)/var_p = -dmean_p; dlog_var_q = dy (r - 1)/2, r = var_q/var_p;
    dlog_var_p = dy (1 - r - (mean_q - mean_p)^2/var_p)/2."""
    dy, u = per_sample(dy, mean_q), (mean_q - mean_p) * np.exp(-log_var_p)
    excess = np.expm1(log_var_q - log_var_p)
    return dy * u, dy * excess / 2, -dy * u, -dy * (excess + u * (mean_q - mean_p)) / 2


def entropy_normal(log_var):
    r"""Entropy of a diagonal Gaussian, in nats per sample.

    $$H = \tfrac12\sum_i\left[\log(2\pi e) + \log\sigma_i^2\right]$$

    Shapes: log_var (N, ...); returns (N,). Analytic.
    Source: Cover and Thomas 2006, Elements of Information Theory, sec. 8.1.
    """
    _check("entropy_normal", log_var=log_var)
    return sample_sum(_LOG_2PI + 1 + log_var) / 2


def entropy_normal_vjp(dy, log_var):
    """dlog_var = dy/2 everywhere."""
    return per_sample(dy, log_var) / 2 + 0 * log_var


def reparametrise(mean, log_var, z):
    r"""A sample as a differentiable function of the Gaussian's parameters and of standard normal noise.

    $$x = \mu + \sigma z, \qquad \sigma = e^{\frac12\log\sigma^2}$$

    Shapes: mean, log_var, z (N, ...); returns (N, ...). Analytic. The variance is exp(log_var): sigma is a deviation.
    Raises: ValueError when the shapes differ, or exp(log_var) would overflow.
    Source: Kingma and Welling 2014, arXiv:1312.6114, sec. 2.4.
    """
    _check("reparametrise", mean=mean, log_var=log_var, z=z)
    return mean + np.exp(log_var / 2) * z


def reparametrise_vjp(dy, mean, log_var, z):
    """dmean = dy; dlog_var = dy sigma z/2; dz = dy sigma."""
    sigma = np.exp(log_var / 2)
    return dy, dy * sigma * z / 2, dy * sigma
