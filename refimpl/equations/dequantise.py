"""Between grid data and densities: variational dequantisation, the logit map, and the logistic prior, with their vjps.

Uniform dequantisation is likelihood.dequantise, and bits per dimension likelihood.density_bits.
"""
import numpy as np

from ..ops._check import alike, exponent, per_sample, require, sample_sum
from ..ops.activation import sigmoid, softplus


def logistic_noise(eps, mean, log_scale):
    r"""Noise in (0, 1) whose density is learnt, to spread a grid value over its bin, and minus its log density.

    $$u = \sigma(v), \quad v = \mu + e^{s}\epsilon, \qquad
      -\log q(u) = -\log N(\epsilon; 0, I) + \sum_i\left[s_i + \log\sigma'(v_i)\right]$$

    With it, log P(x) >= E_q[log p(x + u) - log q(u)]: uniform noise is the case q = 1, which is never better than the
    best q.
    Shapes: eps standard normal, mean, log_scale (N, ...); returns u (N, ...) and -log q (N,). Analytic.
    Raises: ValueError when shapes differ or exp(log_scale) would overflow.
    Source: Ho et al. 2019 (Flow++), arXiv:1902.00275, sec. 3.1, with a simple q.
    """
    alike("logistic_noise", eps=eps, mean=mean, log_scale=log_scale)
    exponent("logistic_noise", log_scale=log_scale)
    v = mean + np.exp(log_scale) * eps
    density = eps**2 / 2 + np.log(2 * np.pi).item() / 2 + log_scale - softplus(v) - softplus(-v)
    return sigmoid(v), sample_sum(density)


def logistic_noise_vjp(cotangents, eps, mean, log_scale):
    """dv = du u(1-u) + dq (1 - 2u); deps = dv e^s + dq eps; dmean = dv; dlog_scale = dv e^s eps + dq."""
    du, dq = cotangents
    scale = np.exp(log_scale)
    u = sigmoid(mean + scale * eps)
    dq = per_sample(dq, eps)
    dv = du * u * (1 - u) + dq * (1 - 2 * u)
    return dv * scale + dq * eps, dv, dv * scale * eps + dq


def logit_map(x, alpha=0.05):
    r"""From pixels in (-1, 1) to the whole line, where a flow's density has no walls.

    $$y = \mathrm{logit}\left(\alpha + (1-2\alpha)\frac{x+1}{2}\right), \qquad
      \log|\det| = \sum_i\left[\log\frac{1-2\alpha}{2} - \log p_i(1-p_i)\right]$$

    Shapes: x (N, ...); returns y (N, ...), log_det (N,). Analytic.
    Raises: ValueError when x leaves [-1, 1] or alpha leaves (0, 1/2).
    Source: Dinh et al. 2017, arXiv:1605.08803, sec. 4.1 (there with alpha + (1 - alpha) x, which is uneven).
    """
    require(0 < alpha < 0.5, f"logit_map: alpha must be in (0, 1/2), got {alpha}")
    require(bool(np.all((x.real >= -1) & (x.real <= 1))), "logit_map: x must lie in [-1, 1]")
    p = alpha + (1 - 2 * alpha) * (x + 1) / 2
    slope = np.log((1 - 2 * alpha) / 2).item()
    return np.log(p / (1 - p)), sample_sum(slope - np.log(p * (1 - p)))


def logit_map_vjp(cotangents, x, alpha=0.05):
    """dx = (1 - 2 alpha)/2 [dy/(p(1-p)) + dlog_det (2p - 1)/(p(1-p))]."""
    dy, dlog_det = cotangents
    p = alpha + (1 - 2 * alpha) * (x + 1) / 2
    dlog_det = per_sample(dlog_det, x)
    return (1 - 2 * alpha) / 2 * (dy + dlog_det * (2 * p - 1)) / (p * (1 - p))


def logit_map_inverse(y, alpha=0.05):
    r"""Pixels from the whole line; what was never a pixel (p below alpha) is clipped to the range.

    $$x = 2\,\frac{\sigma(y)-\alpha}{1-2\alpha} - 1$$

    Shapes: y any; returns y's shape, in [-1, 1].
    Source: Dinh et al. 2017, arXiv:1605.08803, sec. 4.1.
    """
    return np.clip(2 * (sigmoid(y) - alpha) / (1 - 2 * alpha) - 1, -1, 1)


def log_logistic(x):
    r"""Log density of independent standard logistic variables: NICE's prior, whose gradient never explodes.

    $$\log p(x) = -\sum_i\left[\log(1+e^{x_i}) + \log(1+e^{-x_i})\right]$$

    Shapes: x (N, ...); returns (N,) nats. Analytic.
    Source: Dinh et al. 2015, arXiv:1410.8516, sec. 3.4.
    """
    return -sample_sum(softplus(x) + softplus(-x))


def log_logistic_vjp(dy, x):
    """dx = dy (1 - 2 sigmoid(x))."""
    return per_sample(dy, x) * (1 - 2 * sigmoid(x))
