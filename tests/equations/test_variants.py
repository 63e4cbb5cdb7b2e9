"""Denoising diffusion in four long steps: a generator that draws from the posterior of x0 reaches every mode."""
import numpy as np
import pytest
from conftest import refuses

from refimpl.equations import diffusion, metrics, mixture, schedules, variants

MODES = 2**0.5 * np.stack([np.cos(np.pi * np.arange(8) / 4), np.sin(np.pi * np.arange(8) / 4)], axis=1)
M = mixture.mixture(np.full(8, 1 / 8), MODES, 0.02**2)


def four_steps(x0_hat, rng, n=1600):
    schedule = schedules.from_beta([0.3, 0.6, 0.8, 0.95])
    x = rng.standard_normal((n, 2))
    for t in range(4, 0, -1):
        mean, variance = diffusion.posterior(x0_hat(x, t, schedule), x, np.full(n, t), schedule)
        x = mean + np.sqrt(variance)[:, None] * rng.standard_normal((n, 2))
    return x


def test_four_steps_cover_eight_modes(rng):
    """The exact posterior of x0, drawn from, as a denoising diffusion GAN's generator; its mean, as a denoiser's."""
    def drawn(x, t, schedule):
        signal, noise = (float(v) for v in schedules.level_at(schedule, t))
        log_p = -np.sum((x[:, None] - signal * MODES) ** 2, axis=2) / (2 * (signal**2 * 0.02**2 + noise**2))
        p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
        k = (np.cumsum(p / p.sum(axis=1, keepdims=True), axis=1) < rng.random((len(x), 1))).sum(axis=1)
        gain = signal * 0.02**2 / (signal**2 * 0.02**2 + noise**2)
        spread = 0.02 * noise / np.sqrt(signal**2 * 0.02**2 + noise**2)
        return MODES[k] + gain * (x - signal * MODES[k]) + spread * rng.standard_normal(x.shape)

    def mean(x, t, schedule):
        return mixture.mixture_denoiser(x, M, *(float(v) for v in schedules.level_at(schedule, t)))

    found, share = metrics.mode_coverage(four_steps(drawn, rng), MODES, 0.06)
    _, by_mean = metrics.mode_coverage(four_steps(mean, rng), MODES, 0.06)
    assert found == 8 and share > 0.95 and by_mean < 0.75


@pytest.mark.parametrize("call, words", [
    (lambda: variants.mixed_prediction(np.zeros((1, 2)), np.zeros((1, 3)), 0.5, 0.5), "e in z_t's shape"),
    (lambda: variants.latent_cross_entropy([1.0, 1.0], [1.0, 0.0], 0.1, 1), "ascending log-SNRs"),
    (lambda: variants.damped_mean(-1.0, 1.0), "b of at least 0"),
    (lambda: variants.damped_covariance(1.0, 1.0, np.zeros(2)), r"start \(2, 2\) expected"),
    (lambda: variants.damped_sample(*np.zeros((3, 1, 1)), 0.0, 1.0), "b > 0 expected"),
    (lambda: variants.denoising_gan_pairs(np.zeros((1, 1)), None, [3], schedules.linear(2), *np.zeros((3, 1, 1))),
     r"t must be in 1\.\.2"),
])
def test_one_clear_sentence(call, words):
    refuses(call, words)
