"""Three relatives of diffusion: in latents with a mixed score, with a velocity, and with a generator for long steps."""
import math

import numpy as np

from ..ops._check import per_sample, require, same_dtype
from .diffusion import forward_step, marginal, posterior


def mixed_prediction(e, z_t, noise, a):
    r"""Latent score models: a network corrects the eps that standard normal latents would have.

    $$\hat\epsilon = \sigma_t\,(1-a)\,z_t + a\,e$$

    Shapes: e, z_t (N, ...); noise sigma_t and a in [0, 1], each one number or (N,), host; returns (N, ...). Linear. On
    a variance-preserving path a = 0 is exact for latents N(0, I).
    Raises: ValueError when the shapes differ.
    Source: Vahdat et al. 2021, arXiv:2106.05931, sec. 3.2.
    """
    same_dtype("mixed_prediction", e=e, z_t=z_t)
    require(e.shape == z_t.shape, f"mixed_prediction: e in z_t's shape {z_t.shape} expected, got {e.shape}")
    a = np.asarray(a, np.float64)
    return per_sample(noise * (1 - a), z_t) * z_t + per_sample(a, e) * e


def mixed_prediction_vjp(dy, e, z_t, noise, a):
    """de = a dy; dz_t = sigma (1 - a) dy."""
    a = np.asarray(a, np.float64)
    return per_sample(a, e) * dy, per_sample(noise * (1 - a), z_t) * dy


def latent_cross_entropy(errors, log_snr, noise, dim):
    r"""How dear latents are under a diffusion prior: the error of eps, integrated over the log-SNR.

    $$\mathrm{CE}(q\,\|\,p) = \frac12\int E\,\|\epsilon-\hat\epsilon\|^2\,d\log\mathrm{SNR}
      + \frac D2\log\left(2\pi e\,\sigma_0^2\right)$$

    Shapes: errors (K,), E of the squared norm at the log-SNRs (K,), both ascending in the latter, by the trapezoidal rule;
    noise sigma_0, that of the last (cleanest) level; dim D; returns a float, nats.
    Raises: ValueError when the log-SNRs do not ascend or the noise is not positive.
    Source: Vahdat et al. 2021, arXiv:2106.05931, theorem 1.
    """
    errors, log_snr = np.asarray(errors, np.float64), np.asarray(log_snr, np.float64)
    require(errors.shape == log_snr.shape and errors.ndim == 1 and (np.diff(log_snr) > 0).all() and noise > 0,
            f"latent_cross_entropy: errors (K,) at ascending log-SNRs (K,) and noise > 0 expected, got {errors.shape}, "
            f"{log_snr.shape} and {noise}")
    area = np.sum((errors[1:] + errors[:-1]) * np.diff(log_snr)) / 2
    return float(area / 2 + dim / 2 * math.log(2 * math.pi * math.e * noise**2))


def damped_mean(b, mass):
    r"""Critically damped Langevin diffusion: where its noise-free part takes data x and velocity v.

    $$d\begin{pmatrix}x\\v\end{pmatrix} = \beta\begin{pmatrix}0&\frac1M\\-1&-\frac{\Gamma}{M}\end{pmatrix}
      \begin{pmatrix}x\\v\end{pmatrix}dt + \begin{pmatrix}0\\\sqrt{2\Gamma\beta}\end{pmatrix}dw, \quad \Gamma = 2\sqrt M:
      \quad \Phi = e^{-B/\sqrt M}\begin{pmatrix}1+\frac{B}{\sqrt M}&\frac BM\\-B&1-\frac{B}{\sqrt M}\end{pmatrix}$$

    Shapes: b, B the integral of beta, a number of at least 0; mass M > 0; returns (2, 2) float64.
    Raises: ValueError for another b or mass.
    Source: Dockhorn et al. 2022, arXiv:2112.07068, sec. 3 and app. B.
    """
    require(b >= 0 and mass > 0, f"damped_mean: b of at least 0 and mass > 0 expected, got {b} and {mass}")
    root = math.sqrt(mass)
    return math.exp(-b / root) * np.array([[1 + b / root, b / mass], [-b, 1 - b / root]])


def damped_covariance(b, mass, start):
    r"""Covariance of data and velocity on the way to their stationary law N(0, 1) N(0, M).

    $$\Sigma = \Phi\,\Sigma_0\,\Phi^T + \Sigma_\infty - \Phi\,\Sigma_\infty\,\Phi^T, \qquad
      \Sigma_\infty = \mathrm{diag}(1, M)$$

    Shapes: b, mass as damped_mean; start Sigma_0 (2, 2); returns (2, 2) float64. Given x0, and v0 of variance gamma M,
    Sigma_0 is diag(0, gamma M).
    Raises: as damped_mean, and when start is no (2, 2).
    Source: Dockhorn et al. 2022, arXiv:2112.07068, app. B.
    """
    start = np.asarray(start, np.float64)
    require(start.shape == (2, 2), f"damped_covariance: start (2, 2) expected, got {start.shape}")
    phi, end = damped_mean(b, mass), np.diag([1.0, mass])
    return phi @ (start - end) @ phi.T + end


def damped_sample(x0, eps_x, eps_v, b, mass, spread=0.04):
    r"""Data and velocity at a level, and what the network is asked for: the score in the velocity alone.

    $$\begin{pmatrix}x_t\\v_t\end{pmatrix} = \Phi\begin{pmatrix}x_0\\0\end{pmatrix} + L\epsilon, \quad LL^T = \Sigma, \qquad
      \nabla_{v_t}\log p(x_t, v_t|x_0) = -\frac{\epsilon_v}{L_{vv}}$$

    Shapes: x0, eps_x, eps_v (N, ...); b > 0; spread gamma: v0 has variance gamma M; returns x_t, v_t and the score. Linear.
    Raises: ValueError when the shapes differ or b is not positive.
    Source: Dockhorn et al. 2022, arXiv:2112.07068, sec. 3.2 (hybrid score matching).
    """
    same_dtype("damped_sample", x0=x0, eps_x=eps_x, eps_v=eps_v)
    require(x0.shape == eps_x.shape == eps_v.shape and b > 0,
            f"damped_sample: one shape and b > 0 expected, got {x0.shape}, {eps_x.shape}, {eps_v.shape} and {b}")
    phi, root = _damped(b, mass, spread)
    return (phi[0] * x0 + root[0][0] * eps_x, phi[1] * x0 + root[1][0] * eps_x + root[1][1] * eps_v,
            -1 / root[1][1] * eps_v)


def _damped(b, mass, spread):
    root = np.linalg.cholesky(damped_covariance(b, mass, np.diag([0.0, spread * mass])))
    return [float(v) for v in damped_mean(b, mass)[:, 0]], root.tolist()  # floats of Python widen no float32


def damped_sample_vjp(dy, x0, eps_x, eps_v, b, mass, spread=0.04):
    """dx0 = Phi_xx dx + Phi_vx dv; deps_x = L_xx dx + L_vx dv; deps_v = L_vv dv - ds/L_vv."""
    (dx, dv, ds), (phi, root) = dy, _damped(b, mass, spread)
    return (phi[0] * dx + phi[1] * dv, root[0][0] * dx + root[1][0] * dv, root[1][1] * dv - 1 / root[1][1] * ds)


def denoising_gan_pairs(x0, x0_hat, t, schedule, before, step, z):
    r"""Denoising diffusion GAN: what the discriminator compares at a long step, and the generator's way there.

    $$x_{t-1} \sim q(x_{t-1}|x_0),\ x_t \sim q(x_t|x_{t-1}) \ \text{(real)}, \qquad
      x_{t-1}' \sim q(x_{t-1}|x_t, \hat x_0) \ \text{(fake)}$$

    The step's true posterior has many modes when T is small; a generator x0_hat(x_t, t, latent) can have them, a Gaussian
    around one mean cannot.
    Shapes: x0 (N, ...); x0_hat maps x_t to (N, ...); t (N,) in 1..T; before, step, z (N, ...) noises; returns x_{t-1}, x_t
    and the fake x_{t-1}.
    Raises: ValueError when t leaves 1..T or the shapes differ.
    Source: Xiao et al. 2022, arXiv:2112.07804, eq. 4-6.
    """
    t = np.asarray(t)
    mean, variance = marginal(x0, np.maximum(t - 1, 1), schedule)
    first = per_sample((t == 1).astype(np.float64), x0)
    x_s = first * x0 + (1 - first) * (mean + per_sample(np.sqrt(variance), x0) * before)
    mean, variance = forward_step(x_s, t, schedule)
    x_t = mean + per_sample(np.sqrt(variance), x0) * step
    mean, variance = posterior(x0_hat(x_t), x_t, t, schedule)
    return x_s, x_t, mean + per_sample(np.sqrt(variance), x0) * z
