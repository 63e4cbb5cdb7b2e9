"""Relatives of diffusion: closed forms beside integration, and gradients."""
import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from refimpl.equations import schedules, variants

from . import fact
from .gradients import pair


@pair(variants.mixed_prediction, variants.mixed_prediction_vjp, "e", "z_t")
def _mixed_prediction(d):
    return {"e": d.array(2, 3), "z_t": d.array(2, 3), "noise": d.rng.uniform(0, 1, 2), "a": d.real(0, 1)}


@pair(variants.damped_sample, variants.damped_sample_vjp, "x0", "eps_x", "eps_v")
def _damped_sample(d):
    return {"x0": d.array(2, 3), "eps_x": d.array(2, 3), "eps_v": d.array(2, 3), "b": d.real(0.1, 3), "mass": d.real(0.2, 2)}


@fact("F9", variants.mixed_prediction, variants.latent_cross_entropy, tolerance=1e-4)
def cross_entropy_of_gaussian_latents(d):
    """For q = N(m, s^2) and the prior N(0, 1), whose eps is sigma z_t: the integral is the Gaussians' cross-entropy."""
    m, s2 = d.real(-2, 2), d.real(0.1, 3)
    log_snr = np.linspace(-18, 18, 4000)
    signal, noise = 1 / np.sqrt(1 + np.exp(-log_snr)), 1 / np.sqrt(1 + np.exp(log_snr))
    z0, eps = np.array([m + s2**0.5, m - s2**0.5]), np.array([1.0, -1.0])  # two points have q's two moments
    z_t = signal[:, None, None] * z0[:, None] + noise[:, None, None] * eps  # (K, 2, 2): every z0 with every eps
    e_hat = np.stack([variants.mixed_prediction(0 * z, z, n, 0.0) for z, n in zip(z_t, noise)])
    found = variants.latent_cross_entropy(np.mean((eps - e_hat) ** 2, axis=(1, 2)), log_snr, noise[-1], 1)
    return abs(found - (np.log(2 * np.pi) + m**2 + s2) / 2)


@fact("F9", variants.damped_mean, variants.damped_covariance, tolerance=1e-8)
def damped_moments(d):
    """The closed forms are the matrix exponential, and the solution of the covariance's differential equation."""
    b, mass, root = d.real(0, 4), d.real(0.2, 3), d.array(2, 2)
    f, g = np.array([[0, 1 / mass], [-1, -2 / mass**0.5]]), np.diag([0, 4 * mass**0.5])
    start = root @ root.T
    solved = solve_ivp(lambda _, y: (f @ y.reshape(2, 2) + y.reshape(2, 2) @ f.T + g).ravel(), (0, b), start.ravel(),
                       rtol=1e-11, atol=1e-12).y[:, -1].reshape(2, 2)
    return max(np.max(abs(variants.damped_mean(b, mass) - expm(f * b))),
               np.max(abs(variants.damped_covariance(b, mass, start) - solved)) / (1 + np.max(abs(start))))


@fact("F9", variants.damped_sample, tolerance=1e-8)
def damped_score(d):
    """The score in the velocity is that of the joint Gaussian: minus the row of its precision times the deviation."""
    b, mass, spread = d.real(0.1, 3), d.real(0.2, 2), 0.04
    x0, eps_x, eps_v = (d.array(3, 1) for _ in range(3))
    x_t, v_t, score = variants.damped_sample(x0, eps_x, eps_v, b, mass, spread)
    gap = np.stack([x_t, v_t], axis=1)[..., 0] - x0 * variants.damped_mean(b, mass)[:, 0]
    precision = np.linalg.inv(variants.damped_covariance(b, mass, np.diag([0.0, spread * mass])))
    return np.max(abs(score[:, 0] + gap @ precision[1])) / (1 + np.max(abs(score)))


@fact("F9", variants.denoising_gan_pairs, tolerance=1e-9)
def a_perfect_generator_is_not_told_apart(d):
    """Given the true x0, fake and real x_{t-1} have the same mean and covariance with x_t: linear maps of the noises."""
    s, x0 = schedules.linear(d.integer(2, 6), 0.1, 0.6), d.array(1, 1)
    t, moments = np.full(3, d.integer(1, s.T)), []
    same = np.repeat(x0, 3, axis=0)
    units = np.eye(3)[:, :, None]  # the map's columns: one noise at a time
    base = variants.denoising_gan_pairs(x0, lambda _: x0, t[:1], s, *np.zeros((3, 1, 1)))
    moved = variants.denoising_gan_pairs(same, lambda _: same, t, s, *units)
    maps = [(m - b)[:, 0] for m, b in zip(moved, base)]
    for x_s in (maps[0], maps[2]):
        moments.append([x_s @ x_s, x_s @ maps[1]])
    return max(np.max(abs(np.subtract(*moments))), abs(base[0] - base[2]).item())
