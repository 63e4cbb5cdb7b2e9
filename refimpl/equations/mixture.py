"""Gaussian mixtures: their noised densities, scores and denoisers are known exactly, so they are the ground truth."""
from typing import NamedTuple

import numpy as np

from ..ops import logsumexp, softmax
from ..ops._check import require


class Mixture(NamedTuple):
    """weights (K,) that sum to 1, means (K, D), variances (K, D) of K Gaussians with diagonal covariance."""

    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray


def mixture(weights, means, variances):
    r"""A Gaussian mixture, checked.

    $$p(x_0) = \sum_k w_k\, N(x_0;\ \mu_k,\ \mathrm{diag}\,s_k^2)$$

    Shapes: weights (K,); means (K, D); variances broadcast to (K, D): a number, (K, 1) or (K, D). Returns a Mixture.
    Raises: ValueError for weights that are not positive or do not sum to 1, negative variances, or shapes that do not fit.
    Source: Bishop 2006, Pattern Recognition and Machine Learning, sec. 2.3.9.
    """
    weights, means = np.asarray(weights, dtype=np.float64), np.asarray(means, dtype=np.float64)
    require(means.ndim == 2 and weights.shape == means.shape[:1],
            f"a mixture needs weights (K,) and means (K, D), got {weights.shape} and {means.shape}")
    require((weights > 0).all() and abs(weights.sum() - 1) < 1e-9,
            f"weights must be positive and sum to 1, got {weights}")
    variances = np.broadcast_to(np.asarray(variances, dtype=np.float64), means.shape)
    require((variances >= 0).all(), f"variances must not be negative, got {variances.min()}")
    return Mixture(weights, means, variances)


def _components(x, m, signal, noise):
    """Differences (N, K, D), variances (K, D), log joint densities (N, K) at a level, and the mixture, beside x."""
    require(x.ndim == 2 and x.shape[1] == m.means.shape[1], f"x must be (N, {m.means.shape[1]}), got {x.shape}")
    m = Mixture(*(np.asarray(a, dtype=x.real.dtype, like=x) for a in m))
    signal, noise = float(signal), float(noise)  # NumPy's float64 scalars would widen float32 data
    v = signal**2 * m.variances + noise**2
    require((v > 0).all(), f"a component of variance 0 has no density at noise {noise}")
    d = x[:, None] - signal * m.means
    return d, v, np.log(m.weights) - np.sum(d**2 / v + np.log(2 * np.pi * v), axis=-1) / 2, m


def mixture_log_density(x, m, signal, noise):
    r"""Log density of the noised mixture, in nats.

    $$\log p_t(x) = \log\sum_k w_k\, N(x;\ \mathrm{signal}\,\mu_k,\ \mathrm{signal}^2 s_k^2 + \mathrm{noise}^2)$$

    Shapes: x (N, D); m a Mixture; signal, noise numbers; returns (N,). Analytic. signal 1: variance exploding;
    signal^2 + noise^2 = 1: variance preserving; signal 1, noise 0: the data.
    Raises: ValueError where a component without variance meets noise 0.
    Source: Bishop 2006, sec. 2.3.9.
    """
    return logsumexp(_components(x, m, signal, noise)[2]).astype(x.dtype)


def mixture_log_density_vjp(dy, x, m, signal, noise):
    """dx = dy score."""
    return dy[:, None] * mixture_score(x, m, signal, noise)


def mixture_score(x, m, signal, noise):
    r"""Gradient of the log density.

    $$\nabla_x\log p_t(x) = \sum_k r_k \frac{\mathrm{signal}\,\mu_k-x}{v_k}, \quad v_k = \mathrm{signal}^2 s_k^2
      + \mathrm{noise}^2, \quad r_k \propto w_k N(x;\ \mathrm{signal}\,\mu_k,\ v_k)$$

    Shapes: x (N, D); returns (N, D). Analytic.
    Raises: ValueError where a component without variance meets noise 0.
    Source: Song and Ermon 2019, arXiv:1907.05600, sec. 3.
    """
    d, v, joint, _ = _components(x, m, signal, noise)
    return -np.sum(softmax(joint)[:, :, None] * d / v, axis=1).astype(x.dtype)


def mixture_score_vjp(dy, x, m, signal, noise):
    """dx = H dy, H the Hessian of the log density: sum_k r_k (u_k u_k^T - diag(1/v_k)) - s s^T, u_k = -d_k/v_k."""
    d, v, joint, _ = _components(x, m, signal, noise)
    r, u = softmax(joint)[:, :, None], -d / v
    s = np.sum(r * u, axis=1)
    along = np.sum(u * dy[:, None], axis=-1, keepdims=True)
    return np.sum(r * (u * along - dy[:, None] / v), axis=1) - s * np.sum(s * dy, axis=-1, keepdims=True)


def mixture_denoiser(x, m, signal, noise):
    r"""The exact denoiser, E[x_0 | x_t]: what a perfect network predicts.

    $$D(x) = \sum_k r_k\left(\mu_k + \frac{\mathrm{signal}\,s_k^2}{\mathrm{signal}^2 s_k^2+\mathrm{noise}^2}
      (x-\mathrm{signal}\,\mu_k)\right)$$

    Shapes: x (N, D); returns (N, D). Analytic. Equals Tweedie's formula on the score.
    Raises: ValueError where a component without variance meets noise 0.
    Source: Karras et al. 2022, arXiv:2206.00364, app. B.3 (points); Efron 2011 (Tweedie).
    """
    d, v, joint, m = _components(x, m, signal, noise)
    return np.sum(softmax(joint)[:, :, None] * (m.means + float(signal) * m.variances / v * d), axis=1)


def tweedie(x, score, signal, noise):
    r"""The denoiser from the score of the noised density.

    $$E[x_0|x_t] = \frac{x_t + \mathrm{noise}^2\,\nabla\log p_t(x_t)}{\mathrm{signal}}$$

    Shapes: x, score (N, ...); signal, noise numbers; returns (N, ...). Linear.
    Raises: ValueError at signal 0.
    Source: Efron 2011, J. Amer. Statist. Assoc. 106(496); Robbins 1956.
    """
    require(signal != 0, "tweedie: at signal 0 nothing of x_0 is in x_t")
    return (x + noise**2 * score) / signal


def tweedie_vjp(dy, x, score, signal, noise):
    """dx = dy/signal; dscore = dy noise^2/signal."""
    return dy / signal, dy * noise**2 / signal


def sample_mixture(m, u, z):
    r"""Samples of the mixture from uniform and normal noise.

    $$x = \mu_k + s_k z, \qquad k = \min\{k : u \le w_1+\dots+w_k\}$$

    Shapes: m a Mixture; u (N,) in (0, 1]; z (N, D); returns (N, D) of z's dtype.
    Source: Devroye 1986, Non-Uniform Random Variate Generation, sec. 2.4.
    """
    require(u.shape == z.shape[:1], f"sample_mixture: one u per sample expected, got {u.shape} for {z.shape[0]}")
    k = np.searchsorted(np.cumsum(m.weights)[:-1], u)
    return (m.means[k] + np.sqrt(m.variances[k]) * z).astype(z.dtype)
