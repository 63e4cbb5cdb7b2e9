"""Energies, and losses of features and spectra: gradients, and what is known in closed form."""
import math

import numpy as np

from refimpl.equations import energy, perceptual

from . import fact
from .gradients import pair


@pair(energy.log_partition, energy.log_partition_vjp, "f")
def _partition(d):
    return {"f": 3 * d.array(d.integer(1, 4), d.integer(1, 5)), "cell": d.real(0.1, 2)}


@pair(energy.contrastive_loss, energy.contrastive_loss_vjp, "f_data", "f_model")
def _contrastive(d):
    return {"f_data": d.array(d.integer(1, 4)), "f_model": d.array(d.integer(1, 4)), "weight": d.real(0.1, 1)}


@pair(energy.denoising_score_matching, energy.denoising_score_matching_vjp, "score")
def _denoising(d):
    shape = (d.integer(1, 3), d.integer(1, 4))
    return {"score": d.array(*shape), "z": d.array(*shape), "sigma": d.real(0.1, 2)}


@pair(energy.implicit_score_matching, energy.implicit_score_matching_vjp, "score", "divergence")
def _implicit(d):
    n = d.integer(1, 3)
    return {"score": d.array(n, d.integer(1, 4)), "divergence": d.array(n)}


@pair(energy.langevin_step, energy.langevin_step_vjp, "x", "score", "z")
def _langevin(d):
    shape = (d.integer(1, 3), d.integer(1, 4))
    return {n: d.array(*shape) for n in ("x", "score", "z")} | {"step": d.real(0.1, 1)}


@pair(perceptual.feature_loss, perceptual.feature_loss_vjp, "features_x", "features_y")
def _features(d):
    shapes = [(2, d.integer(2, 4), d.integer(1, 3), 2) for _ in range(d.integer(1, 3))]
    return {n: tuple(d.array(*s) for s in shapes) for n in ("features_x", "features_y")}


def _signals(d):
    size = d.integer(2, 8)
    return {"x": d.array(d.integer(1, 2), size + d.integer(0, 12)), "size": size, "hop": d.integer(1, size)}


pair(perceptual.stft, perceptual.stft_vjp, "x")(_signals)


@pair(perceptual.spectral_loss, perceptual.spectral_loss_vjp, "x", "y")
def _spectral(d):
    inputs = _signals(d)
    return inputs | {"y": d.array(*inputs["x"].shape)}


@fact("E4", energy.log_partition, energy.log_partition_vjp, tolerance=1e-8)
def partition_of_a_gaussian(d):
    """Z = integral of exp(-norm(x - m)^2/(2 s^2)) = 2 pi s^2 on the plane, and d log Z/df is the model's density."""
    s, m = d.real(0.5, 1.5), d.array(2) / 4
    g = np.linspace(-12, 12, 121)
    square = (g[:, None] - m[0]) ** 2 + (g - m[1]) ** 2
    f = -square / (2 * s * s)
    variance = np.sum(energy.log_partition_vjp(1.0, f, 0.04) * square) / 2
    return float(max(abs(energy.log_partition(f, 0.04) - math.log(2 * math.pi * s * s)), abs(variance - s * s)))


@fact("E4", energy.contrastive_loss, energy.log_partition, tolerance=1e-9)
def contrastive_gradient_is_the_likelihoods(d):
    """With the model's own probabilities as sample frequencies, the gradient is that of -log p on average."""
    counts = np.array([d.integer(1, 5) for _ in range(4)])
    places, p = np.repeat(np.arange(4), counts), counts / counts.sum()
    data = np.array([d.integer(0, 3) for _ in range(3)])
    f, v = np.log(p), d.array(4)  # exp(f) sums to 1 and the samples are distributed so exactly
    d_data, d_model = energy.contrastive_loss_vjp(1.0, f[data], f[places])
    slope = np.sum(d_data * v[data]) + np.sum(d_model * v[places])
    exact = np.sum(energy.log_partition_vjp(1.0, f, 1.0) * v) - np.mean(v[data])
    return float(abs(slope - exact))


@fact("F-E11", energy.langevin_step, tolerance=1e-10)
def langevin_is_biased(d):
    """On N(0, 1) a step keeps the variance 1/(1 - step/2), by the moments of x + step (-x) + sqrt(2 step) z."""
    step = d.real(0.05, 1.5)
    v = 1 / (1 - step / 2)
    keep = energy.langevin_step(np.ones(1), -np.ones(1), step, np.zeros(1))[0]
    noise = energy.langevin_step(np.zeros(1), np.zeros(1), step, np.ones(1))[0]
    return float(abs(keep**2 * v + noise**2 - v) / v)


@fact("F-E9", energy.denoising_score_matching, energy.implicit_score_matching, tolerance=1e-9)
def two_score_matchings_agree(d):
    """For linear scores -a x on N(0, s^2): implicit = a^2 s^2/2 - a, least at 1/s^2; with noise, at 1/(s^2 +
    sigma^2)."""
    s, sigma = d.real(0.5, 2), d.real(0.3, 2)
    x, p = np.polynomial.hermite_e.hermegauss(8)
    p = p / p.sum()
    joint, weight = np.stack(np.meshgrid(s * x, x), -1).reshape(-1, 2), np.outer(p, p).reshape(-1)

    def slope(a, noisy):
        """Derivative of the expected loss in a, from the vjps."""
        if not noisy:
            score = -a * s * x[:, None]
            ds, dd = energy.implicit_score_matching_vjp(len(x), score, -a + 0 * x)
            return p @ (ds[:, 0] * -s * x - dd)
        y = joint[:, :1] + sigma * joint[:, 1:]
        dscore = energy.denoising_score_matching_vjp(len(y), -a * y, joint[:, 1:], sigma)
        return weight @ (dscore * -y)[:, 0]

    return float(max(abs(slope(1 / s**2, False)), abs(slope(1 / (s**2 + sigma**2), True))))


@fact("D7", perceptual.stft, perceptual.spectral_loss, tolerance=0)
def two_sines_peak_in_their_bins(d):
    """A sum of two sines has its spectrogram's two largest peaks within one bin of their frequencies, at any phase."""
    size, hop = 32, d.integer(8, 32)
    low, high = d.real(3, 6), d.real(9, 13)
    t = np.arange(96) / size
    x = np.sin(2 * math.pi * (low * t + d.real(0, 1))) + np.sin(2 * math.pi * (high * t + d.real(0, 1)))
    re, im = perceptual.stft(x[None], size, hop)
    power = np.sum(re**2 + im**2, axis=1)[0]
    gap = max(abs(np.argmax(power[:8]) - low), abs(8 + np.argmax(power[8:]) - high))
    return 0.0 if gap <= 1 and perceptual.spectral_loss(x[None], x[None], size, hop) == 0 else float(gap)


@fact("D7", perceptual.feature_loss, tolerance=1e-9)
def features_count_by_direction(d):
    """Scaling all channels of a pixel changes nothing; opposite features are 4 apart per pixel and layer."""
    x = tuple(a + np.sign(a) for a in _features(d)["features_x"])
    scaled = tuple(a * (1 + d.array(len(a), 1, *a.shape[2:]) ** 2) for a in x)
    return float(max(abs(perceptual.feature_loss(x, scaled)),
                     abs(perceptual.feature_loss(x, tuple(-a for a in x)) - 4 * len(x))))
