"""Latent-variable models: likelihoods, the evidence lower bound in its two forms and its variants, with their vjps."""
import math

import numpy as np

from ..ops._check import alike, exponent, per_sample, require, sample_sum
from ..ops.activation import logsumexp, sigmoid, softmax, softplus
from ._grid import on_grid
from .gaussian import log_normal


def _data(name, x, parameters):
    """Data in the shape and dtype of the parameters, or in its real part's (parameters on the complex step)."""
    require(x.shape == parameters.shape and x.dtype in (parameters.dtype, parameters.real.dtype),
            f"{name}: data {parameters.shape} {parameters.dtype} expected, as the parameters, got {x.shape} {x.dtype}")


def log_bernoulli(x, logits):
    r"""Log probability of binary data, or the cross-entropy of intensities in [0, 1], in nats per sample.

    $$\log p(x) = \sum_i \left[x_i l_i - \log(1+e^{l_i})\right]$$

    For x strictly inside (0, 1) this is no log density: the sum of exp(it) over x is not 1 (Loaiza-Ganem, Cunningham
    2019, arXiv:1907.06845).
    Shapes: x in [0, 1] and logits (N, ...); returns (N,). Analytic in the logits.
    Raises: ValueError when the shapes differ or x leaves [0, 1].
    Source: Kingma and Welling 2014, arXiv:1312.6114, app. C.1.
    """
    _data("log_bernoulli", x, logits)
    outside = x.real[~((x.real >= 0) & (x.real <= 1))]
    require(not outside.size, f"log_bernoulli: x must lie in [0, 1], and {outside.size} values do not: {outside[:1]}")
    return sample_sum(x * logits - softplus(logits))


def log_bernoulli_vjp(dy, x, logits):
    """dlogits = dy (x - sigmoid(logits)); data get no gradient."""
    return per_sample(dy, logits) * (x - sigmoid(logits))


def _logistic_edges(x0, mean, log_scale, bins):
    """Standardised edges low and high of x0's bin, and where they are open (the outer bins)."""
    alike("discretised_logistic", mean=mean, log_scale=log_scale)
    _data("discretised_logistic", x0, mean)
    on_grid("discretised_logistic", x0, bins)
    exponent("discretised_logistic", log_scale=log_scale)
    half, inverse = 1 / (bins - 1), np.exp(-log_scale)
    return (x0 - mean - half) * inverse, (x0 - mean + half) * inverse, x0.real - half <= -1, x0.real + half >= 1


def discretised_logistic(x0, mean, log_scale, bins):
    r"""Log probability of data on a grid of values: a logistic distribution integrated over the bin around each.

    $$\log p(x_0) = \sum_i \log\left[\sigma\!\left(\tfrac{x_{0,i}+\delta-\mu_i}{s_i}\right)
      - \sigma\!\left(\tfrac{x_{0,i}-\delta-\mu_i}{s_i}\right)\right], \qquad \delta = \frac{1}{\mathrm{bins}-1}$$

    As sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - e^(a-b)) exactly, nothing cancels, however narrow the bin.
    Shapes: x0 (N, ...) in [-1, 1] on the grid of `bins` values (256 for bytes, 17 for the digits); mean, log_scale
    (N, ...); returns (N,) nats. Analytic in mean and log_scale. The outer bins reach to infinity.
    Raises: ValueError when the shapes differ, bins < 2, x0 is off the grid, or exp(log_scale) would overflow.
    Source: Kingma et al. 2016, arXiv:1606.04934; Salimans et al. 2017, arXiv:1701.05517, eq. 2.
    """
    low, high, no_low, no_high = _logistic_edges(x0, mean, log_scale, bins)
    inner = np.where(no_low | no_high, 0, np.log(-np.expm1(low - high)))
    return sample_sum(inner - np.where(no_high, 0, softplus(-high)) - np.where(no_low, 0, softplus(low)))


def discretised_logistic_vjp(dy, x0, mean, log_scale, bins):
    """With standardised edges a, b: dmean = dy (sigma(a) - sigma(-b))/s; dlog_scale = dy (a sigma(a) - b sigma(-b)
    - (b-a)/(e^(b-a) - 1)), each sigma or the last term being absent where its edge is open."""
    low, high, no_low, no_high = _logistic_edges(x0, mean, log_scale, bins)
    at_low, at_high = np.where(no_low, 0, sigmoid(low)), np.where(no_high, 0, sigmoid(-high))
    width = high - low
    inner = np.where(no_low | no_high, 0, width * np.exp(-width) / -np.expm1(-width))
    dy = per_sample(dy, mean)
    return dy * (at_low - at_high) * np.exp(-log_scale), dy * (low * at_low - high * at_high - inner)


def negative_elbo(log_likelihood, kl, beta=1.0):
    r"""The loss of a variational autoencoder in its first form: reconstruction plus divergence, averaged over samples.

    $$-\mathrm{ELBO} = E\left[-\log p(x|z)\right] + \beta\,\mathrm{KL}(q(z|x)\,\|\,p(z))$$

    With the Gaussian likelihood N(x_hat, sigma^2) the first term is norm(x - x_hat)^2/(2 sigma^2) and a constant: the
    lecture's norm(x - x_hat)^2 + KL is that of sigma^2 = 1/2. Only beta = 1 is a bound on the evidence.
    Shapes: log_likelihood, kl (N,) in nats; returns a scalar. Analytic.
    Raises: ValueError when the shapes differ or beta is negative.
    Source: Kingma and Welling 2014, arXiv:1312.6114, eq. 3; beta: Higgins et al. 2017, ICLR.
    """
    alike("negative_elbo", log_likelihood=log_likelihood, kl=kl)
    require(beta >= 0, f"negative_elbo: beta must not be negative, got {beta}")
    return np.mean(beta * kl - log_likelihood)


def negative_elbo_vjp(dy, log_likelihood, kl, beta=1.0):
    """dlog_likelihood = -dy/N; dkl = beta dy/N."""
    share = dy / len(kl) + 0 * kl
    return -share, beta * share


def free_bits(kl, least):
    r"""Divergence that costs nothing below a floor in each latent dimension, so that no dimension is given up early.

    $$\sum_j \max\left(\lambda, \frac1N\sum_n \mathrm{KL}_{nj}\right)$$

    Shapes: kl (N, D) nats per dimension; least (lambda) nats; returns a scalar. Piecewise: at the floor, gradient 0.
    Raises: ValueError when kl is not (N, D).
    Source: Kingma et al. 2016, arXiv:1606.04934 (its objective with free bits), with the mean over the minibatch.
    """
    require(kl.ndim == 2 and len(kl), f"free_bits: kl must be (N, D), got shape {kl.shape}")
    mean = np.mean(kl, axis=0)
    return np.sum(np.where(mean.real > least, mean, least))


def free_bits_vjp(dy, kl, least):
    """dkl = dy/N in the dimensions whose mean is above the floor."""
    return dy / len(kl) * (np.mean(kl, axis=0).real > least) + 0 * kl


def importance_weighted_bound(log_w):
    r"""The bound from K weighted samples: K = 1 is the ELBO, and more samples never loosen it.

    $$\mathcal L_K = \log\frac1K\sum_{k=1}^K w_k, \qquad w_k = \frac{p(x, z_k)}{q(z_k|x)}, \quad z_k \sim q(z|x)$$

    Shapes: log_w (N, K), log p(x, z_k) - log q(z_k | x); returns (N,) nats. Analytic.
    Raises: ValueError when log_w is not (N, K) with K >= 1.
    Source: Burda, Grosse, Salakhutdinov 2016, arXiv:1509.00519, eq. 8.
    """
    require(log_w.ndim == 2 and log_w.shape[1] >= 1,
            f"importance_weighted_bound: log_w must be (N, K), got shape {log_w.shape}")
    return logsumexp(log_w, axis=1) - math.log(log_w.shape[1])


def importance_weighted_bound_vjp(dy, log_w):
    """dlog_w_k = dy w_k / sum w: the normalised weights."""
    return per_sample(dy, log_w) * softmax(log_w, axis=1)


def score_function(f, mean, log_var, z):
    r"""Gradient of an expectation from values of the integrand alone, one estimate per sample.

    $$\nabla_\mu E[f] = E\left[f(x)\,\frac{z}{\sigma}\right], \qquad
      \nabla_{\log\sigma^2} E[f] = E\left[f(x)\,\frac{z^2-1}{2}\right], \qquad x = \mu + \sigma z$$

    Shapes: f (N,) values at x = reparametrise(mean, log_var, z); the rest (N, ...). Returns estimates for mean and
    log_var (N, ...). Unbiased, like the pathwise one (reparametrise_vjp of f'(x)), and far noisier: for f = x^2 the
    variances of the two estimates for mu are mu^4/sigma^2 + 14 mu^2 + 15 sigma^2 and 4 sigma^2.
    Raises: ValueError when the shapes do not fit, or exp(log_var) would overflow.
    Source: Williams 1992, Machine Learning 8; Kingma and Welling 2014, arXiv:1312.6114, sec. 2.2.
    """
    alike("score_function", mean=mean, log_var=log_var, z=z)
    exponent("score_function", log_var=log_var)
    require(f.shape == mean.shape[:1], f"score_function: f must be one per sample, {mean.shape[:1]}, got {f.shape}")
    f = per_sample(f, mean)
    return f * z * np.exp(-log_var / 2), f * (z**2 - 1) / 2


def linear_gaussian_evidence(x, w, b, variance):
    r"""Exact log evidence of a linear decoder with a standard normal latent (probabilistic PCA).

    $$\log p(x) = \log N(x; b, C), \qquad C = W W^T + \sigma^2 I$$

    Shapes: x (N, D); w (D, K); b (D,); variance (sigma^2) a number; returns (N,) nats.
    Raises: ValueError when shapes do not fit or the variance is not positive.
    Source: Tipping and Bishop 1999, J. R. Statist. Soc. B 61(3).
    """
    d = x.shape[-1]
    require(x.ndim == 2 and w.shape[:1] == b.shape == (d,) and variance > 0,
            f"linear_gaussian_evidence: x (N, D), w (D, K), b (D,) and a positive variance expected, got {x.shape}, "
            f"{w.shape}, {b.shape} and {variance}")
    root = np.linalg.cholesky(w @ w.T + variance * np.eye(d, dtype=x.dtype))
    u = np.linalg.solve(root, (x - b).T)
    return -(d * math.log(2 * math.pi) + np.sum(u * u, axis=0)) / 2 - np.sum(np.log(np.diagonal(root)))


def linear_gaussian_posterior(x, w, b, variance):
    r"""Exact posterior of the latent in that model, whose covariance is the same for every x.

    $$p(z|x) = N\left(M^{-1}W^T(x-b),\ \sigma^2 M^{-1}\right), \qquad M = W^T W + \sigma^2 I$$

    Shapes: as linear_gaussian_evidence; returns mean (N, K) and covariance (K, K).
    Source: Tipping and Bishop 1999, J. R. Statist. Soc. B 61(3).
    """
    inverse = np.linalg.inv(w.T @ w + variance * np.eye(w.shape[1], dtype=x.dtype))
    return (x - b) @ w @ inverse, variance * inverse


def probabilistic_pca(x, k):
    r"""The most likely linear decoder with k latents: what a VAE has to beat.

    $$b = \bar x, \quad \sigma^2 = \frac{1}{D-k}\sum_{j>k}\lambda_j, \quad W = U_k(\Lambda_k - \sigma^2 I)^{1/2}$$

    Shapes: x (N, D) with N > k, D > k; returns w (D, k), b (D,), variance. Directions without variance are allowed as
    long as some variance is left outside the first k.
    Raises: ValueError when k does not fit, or nothing is left outside the first k directions.
    Source: Tipping and Bishop 1999, J. R. Statist. Soc. B 61(3), eq. 7 and 8.
    """
    require(x.ndim == 2 and 1 <= k < min(x.shape), f"probabilistic_pca: k must be in 1..{min(x.shape) - 1}, got {k}")
    b = np.mean(x, axis=0)
    values, vectors = np.linalg.eigh((x - b).T @ (x - b) / len(x))
    variance = float(np.mean(values[:-k]))
    require(variance > 1e-12 * values[-1],
            f"probabilistic_pca: the data lie in {k} dimensions exactly, so the noise variance is 0")
    return vectors[:, :-k - 1:-1] * np.sqrt(values[:-k - 1:-1] - variance), b, variance


def gaussian_reconstruction(x, mean, variance):
    r"""Log likelihood of a decoder that gives the mean, all pixels having one variance.

    $$\log p(x|z) = -\frac{\|x-\hat x\|^2}{2\sigma^2} - \frac D2\log 2\pi\sigma^2$$

    Shapes: x, mean (N, ...); variance (sigma^2), a positive number; returns (N,) nats. Analytic.
    Raises: ValueError when the shapes differ or the variance is not positive.
    Source: Kingma and Welling 2014, arXiv:1312.6114, app. C.2.
    """
    require(variance > 0, f"gaussian_reconstruction: variance must be positive, got {variance}")
    return log_normal(x, mean, math.log(variance) + 0 * mean)


def gaussian_reconstruction_vjp(dy, x, mean, variance):
    """dmean = dy (x - mean)/sigma^2 = -dx."""
    dmean = per_sample(dy, x) * (x - mean) / variance
    return -dmean, dmean
