"""The variational bound of a diffusion model, term by term, in nats per sample."""
import math

import numpy as np

from ..ops._check import exponent, per_sample, require, sample_sum
from ..ops._special import special
from .diffusion import posterior, posterior_coefficients
from .gaussian import kl_normal, kl_normal_vjp, log_normal, log_normal_vjp


def prior_kl(x0, schedule):
    r"""L_T: how far x_T is from the standard normal that sampling starts from. Nothing to learn, but part of the bound.

    $$L_T = \mathrm{KL}(q(x_T|x_0)\,\|\,N(0,I)) = \tfrac12\sum_i\left[\bar\alpha_T x_{0,i}^2 - \bar\alpha_T
      - \log(1-\bar\alpha_T)\right]$$

    Shapes: x0 (N, ...); returns (N,). Analytic.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 5.
    """
    signal_power = float(schedule.alpha_bar[-1])
    return sample_sum(signal_power * x0**2 - signal_power - math.log1p(-signal_power)) / 2


def prior_kl_vjp(dy, x0, schedule):
    """dx0 = dy alpha_bar_T x0."""
    return per_sample(dy, x0) * float(schedule.alpha_bar[-1]) * x0


def eps_weight(t, schedule, variance):
    r"""What multiplies the squared error of eps in L_{t-1}, when the model's variance is fixed.

    $$L_{t-1} = \frac{\beta_t^2}{2\sigma_t^2\,\alpha_t(1-\bar\alpha_t)}\,\|\epsilon-\hat\epsilon\|^2
      + \frac D2\left[\frac{\tilde\beta_t}{\sigma_t^2} - 1 + \log\frac{\sigma_t^2}{\tilde\beta_t}\right]$$

    Shapes: t integers in 1..T; variance, sigma_t^2, broadcasts with t; returns float64 of that shape. sigma_t^2 is a
    number: the lecture's norm of sigma_t I is sigma_t sqrt(D), and it leaves out the constant.
    Raises: ValueError when a variance is not positive (beta_tilde_1 is 0) or alpha_t is 0.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 12.
    """
    t = np.asarray(t)
    require((np.asarray(variance) > 0).all(), f"eps_weight: variance must be positive, got {np.min(variance)}")
    require((schedule.alpha[t] > 0).all(), "eps_weight: alpha_t is 0 there, so eps does not determine x0")
    return schedule.beta[t] ** 2 / (2 * np.asarray(variance) * schedule.alpha[t] * (1 - schedule.alpha_bar[t]))


def log_variance_bounds(t, schedule):
    r"""The two extremes of the reverse log variance: right for data of variance 0 and for data of variance 1.

    $$\log\tilde\beta_t \ (t \ge 2), \quad \log\tilde\beta_2 \ (t = 1); \qquad \log\beta_t$$

    Shapes: t integers in 1..T; returns two of t's shape, float64. beta_tilde_1 is 0, hence its stand-in. These are no
    bounds for other data: variance 25 has its optimum at 1.0066 beta (t = 501 of the linear 1000).
    Raises: ValueError when T = 1.
    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, sec. 3.1; Ho et al. 2020, arXiv:2006.11239, sec. 3.2.
    """
    require(schedule.T > 1, "log_variance_bounds needs T of at least 2")
    return np.log(posterior_coefficients(np.maximum(t, 2), schedule)[2]), np.log(schedule.beta[t])


def optimal_variance(t, schedule, data_variance):
    r"""The reverse variance that is best when the data are Gaussian and the mean is optimal.

    $$\sigma_t^2 = \tilde\beta_t + c_0^2\,\mathrm{Var}(x_0|x_t) = \beta_t\,
      \frac{\bar\alpha_{t-1}s^2 + 1-\bar\alpha_{t-1}}{\bar\alpha_t s^2 + 1-\bar\alpha_t}$$

    Shapes: t integers in 1..T; data_variance s^2; returns float64. s^2 = 0 gives beta_tilde, s^2 = 1 beta.
    Source: Sohl-Dickstein et al. 2015, arXiv:1503.03585; Bao et al. 2022, arXiv:2201.06503.
    """
    t = np.asarray(t)
    after, before = schedule.alpha_bar[t], schedule.alpha_bar[t - 1]
    return schedule.beta[t] * (before * data_variance + 1 - before) / (after * data_variance + 1 - after)


def learned_log_variance(o, t, schedule):
    r"""The log variance that a network chooses between the two extremes, per pixel.

    $$\log\sigma_t^2 = \nu\log\beta_t + (1-\nu)\log\tilde\beta_t, \qquad \nu = (o+1)/2$$

    Shapes: o (N, ...), the network's second half of channels, meant for [-1, 1]; t (N,); returns (N, ...). Linear.
    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 15.
    """
    low, high = log_variance_bounds(t, schedule)
    return per_sample(low, o) + (o + 1) / 2 * per_sample(high - low, o)


def learned_log_variance_vjp(dy, o, t, schedule):
    """do = dy (log beta - log beta_tilde)/2."""
    low, high = log_variance_bounds(t, schedule)
    return dy * per_sample(high - low, o) / 2


def _log_phi(x):
    """log of the normal distribution function; log1p keeps its derivative's digits where the value is nearly 0."""
    right = x.real > 0
    return np.where(right, np.log1p(-special(x).ndtr(-np.where(right, x, 1))),
                    special(x).log_ndtr(np.where(right, 0, x)))


def _edges(x0, mean, log_var, bins):
    """Standardised edges of x0's bin, where they are open (the outer bins), and the log mass between them."""
    require(x0.shape == mean.shape == log_var.shape,
            f"discretised_gaussian: one shape expected, got x0 {x0.shape}, mean {mean.shape}, log_var {log_var.shape}")
    require(bins >= 2, f"discretised_gaussian: bins must be at least 2, got {bins}")
    require(bool(np.all(np.isfinite(x0))), "discretised_gaussian: x0 holds NaN or infinity")
    exponent("discretised_gaussian", log_var=log_var)
    half, deviation = 1 / (bins - 1), np.exp(log_var / 2)
    low, high = (x0 - mean - half) / deviation, (x0 - mean + half) / deviation
    no_low, no_high = x0 - half <= -1, x0 + half >= 1
    # the mass between two points to the right of 0 is that between their mirror images, where log Phi does not cancel
    right = np.where(no_low, False, no_high | (low.real > 0))
    left, until = np.where(right, -high, low), np.where(right, -low, high)
    log_until = _log_phi(until)
    narrow = ((high - low).real * (1 + np.maximum(left.real, -left.real)) < np.finfo(mean.real.dtype).eps ** (1 / 3)) \
        & ~no_low & ~no_high  # there the difference cancels, and the density at the middle times the width is exact
    ratio = np.where(no_low | no_high | narrow, -1, np.expm1(_log_phi(left) - log_until))
    middle = -((low + high) ** 2) / 8 - math.log(2 * math.pi) / 2 + np.log(high - low)
    return low, high, no_low, no_high, np.where(narrow, middle, log_until + np.log(-ratio))


def discretised_gaussian(x0, mean, log_var, bins):
    r"""Log probability of data on a grid of values: a Gaussian integrated over the bin around each.

    $$\log p(x_0) = \sum_i\log\int_{\delta_-(x_{0,i})}^{\delta_+(x_{0,i})} N(x;\mu_i,\sigma_i^2)\,dx, \qquad
      \delta_\pm(x) = x \pm \frac{1}{\mathrm{bins}-1}$$

    Shapes: x0 (N, ...) in [-1, 1] on the grid of `bins` values (256 for bytes, 17 for the digits); mean, log_var
    (N, ...); returns (N,) nats. Analytic in mean and log_var. The outer bins reach to infinity.
    Raises: ValueError when the shapes differ, bins < 2, x0 is not finite, or exp(log_var) would overflow.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 13.
    """
    return sample_sum(_edges(x0, mean, log_var, bins)[-1])


def discretised_gaussian_vjp(dy, x0, mean, log_var, bins):
    """With P the mass and phi the standard density at the standardised edges l, h:
    dmean = dy (phi(l) - phi(h))/(sigma P); dlog_var = dy (l phi(l) - h phi(h))/(2 P)."""
    low, high, no_low, no_high, mass = _edges(x0, mean, log_var, bins)
    dy = per_sample(dy, mean)
    at_low = np.exp(np.where(no_low, -np.inf, -(low**2) / 2 - mass)) * (2 * math.pi) ** -0.5
    at_high = np.exp(np.where(no_high, -np.inf, -(high**2) / 2 - mass)) * (2 * math.pi) ** -0.5
    return dy * (at_low - at_high) * np.exp(-log_var / 2), dy * (low * at_low - high * at_high) / 2


def bound_term(x0, x_t, t, schedule, mean, log_var, bins):
    r"""One term of the bound for the model N(mean, exp(log_var)) of x_{t-1}: L_{t-1}, or at t = 1 the decoder's L_0.

    $$L_{t-1} = \mathrm{KL}(q(x_{t-1}|x_t,x_0)\,\|\,p(x_{t-1}|x_t)), \qquad L_0 = -\log p(x_0|x_1)$$

    Shapes: x0, x_t, mean, log_var (N, ...); t (N,) host integers in 1..T; bins as in discretised_gaussian, or None for
    data that lie on no grid: p is then a density; returns (N,) nats. The expectation of the bound is L_T + T times the
    mean of this over t uniform in 1..T.
    Raises: ValueError when t leaves 1..T or the shapes differ.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 5.
    """
    q_mean, q_log_var = _q(x0, x_t, t, schedule)
    first = np.asarray(np.asarray(t) == 1, like=x0)
    decoder = log_normal(x0, mean, log_var) if bins is None else discretised_gaussian(x0, mean, log_var, bins)
    return np.where(first, -decoder, kl_normal(q_mean, q_log_var, mean, log_var))


def _q(x0, x_t, t, schedule):
    mean, _ = posterior(x0, x_t, t, schedule)
    return mean, per_sample(log_variance_bounds(t, schedule)[0], x0) + 0 * x0


def bound_term_vjp(dy, x0, x_t, t, schedule, mean, log_var, bins):
    """dmean, dlog_var of the divergence, or at t = 1 of the decoder; the data have no gradient."""
    q_mean, q_log_var = _q(x0, x_t, t, schedule)
    first = per_sample(np.asarray(t) == 1, mean) != 0
    decoder = log_normal_vjp(-dy, x0, mean, log_var)[1:] if bins is None else (
        discretised_gaussian_vjp(-dy, x0, mean, log_var, bins))
    divergence = kl_normal_vjp(dy, q_mean, q_log_var, mean, log_var)[2:]
    return tuple(np.where(first, a, b) for a, b in zip(decoder, divergence))


def bits_per_dim(nats, x):
    r"""Nats per sample as bits per dimension.

    $$\mathrm{bits} = \frac{\mathrm{nats}}{D\ln 2}$$

    Shapes: nats (N,); x (N, ...) the data, for D. Returns (N,).
    Source: Theis, van den Oord, Bethge 2016, arXiv:1511.01844.
    """
    return nats / (math.prod(x.shape[1:]) * math.log(2))
