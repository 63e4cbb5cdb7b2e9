"""Levels in continuous time: the published paths from data to noise, their inverses, and how samplers discretise them.

A path gives (signal, noise) for t in [0, 1]. Four families fix how signal and noise belong together, whatever the
time: 'vp' signal^2 + noise^2 = 1, 've' signal = 1, 'subvp' noise = 1 - signal^2, 'flow' signal + noise = 1.
"""
import math

import numpy as np

from ..ops._check import require


def _unit(t):
    t = np.asarray(t, dtype=np.float64)
    require(((t >= 0) & (t <= 1)).all(), f"t must be in [0, 1], got {t}")
    return t


def vp_level(t, beta_min=0.1, beta_max=20.0):
    r"""Variance-preserving path: DDPM's linear schedule in the limit of many steps.

    $$\mathrm{signal} = \exp\left(-\tfrac14 t^2(\beta_{\max}-\beta_{\min}) - \tfrac12 t\beta_{\min}\right), \qquad
      \mathrm{noise} = \sqrt{1-\mathrm{signal}^2}$$

    Shapes: t in [0, 1], any shape; returns signal, noise of it, float64.
    Raises: ValueError when t leaves [0, 1].
    Source: Song et al. 2021, arXiv:2011.13456, app. C.
    """
    t = _unit(t)
    power = -(t**2) * (beta_max - beta_min) / 2 - t * beta_min  # log signal^2
    return np.exp(power / 2), np.sqrt(-np.expm1(power))


def vp_time(log_snr, beta_min=0.1, beta_max=20.0):
    r"""Time of a log-SNR on the variance-preserving path.

    $$t = \frac{2q}{\beta_{\min} + \sqrt{\beta_{\min}^2 + 2(\beta_{\max}-\beta_{\min})\,q}}, \qquad
      q = \log(1+e^{-\log\mathrm{SNR}})$$

    Shapes: log_snr any shape; returns it.
    Source: Lu et al. 2022, arXiv:2206.00927, app. D.
    """
    q = np.logaddexp(0, -np.asarray(log_snr, dtype=np.float64))
    return 2 * q / (beta_min + np.sqrt(beta_min**2 + 2 * (beta_max - beta_min) * q))


def subvp_level(t, beta_min=0.1, beta_max=20.0):
    r"""Sub-variance-preserving path: the same signal, and less noise at every t.

    $$\mathrm{signal} = \exp\left(-\tfrac14 t^2(\beta_{\max}-\beta_{\min}) - \tfrac12 t\beta_{\min}\right), \qquad
      \mathrm{noise} = 1-\mathrm{signal}^2$$

    Shapes: t in [0, 1], any shape; returns signal, noise of it, float64.
    Raises: ValueError when t leaves [0, 1].
    Source: Song et al. 2021, arXiv:2011.13456, app. C.
    """
    signal, noise = vp_level(t, beta_min, beta_max)
    return signal, noise**2


def subvp_time(log_snr, beta_min=0.1, beta_max=20.0):
    r"""Time of a log-SNR on the sub-variance-preserving path: through the signal there, as on the other path.

    $$t: \quad \mathrm{signal}(t)/(1-\mathrm{signal}(t)^2) = e^{\log\mathrm{SNR}/2}$$

    Shapes: log_snr any shape; returns it.
    Source: Song et al. 2021, arXiv:2011.13456, app. C (the path).
    """
    signal, noise = level_of_log_snr(log_snr, "subvp")
    with np.errstate(divide="ignore"):
        return vp_time(2 * np.log(signal) - np.log(noise), beta_min, beta_max)  # on the vp path noise^2 is this noise


def ve_level(t, sigma_min=0.01, sigma_max=50.0):
    r"""Variance-exploding path: the data stay, noise grows geometrically.

    $$\mathrm{signal} = 1, \qquad \mathrm{noise} = \sigma_{\min}\left(\frac{\sigma_{\max}}{\sigma_{\min}}\right)^t$$

    Shapes: t in [0, 1], any shape; returns signal, noise of it, float64. t = 0 is sigma_min, not clean.
    Raises: ValueError when t leaves [0, 1].
    Source: Song et al. 2021, arXiv:2011.13456, app. C.
    """
    t = _unit(t)
    return np.ones(t.shape), sigma_min * (sigma_max / sigma_min) ** t


def ve_time(log_snr, sigma_min=0.01, sigma_max=50.0):
    r"""Time of a log-SNR on the variance-exploding path.

    $$t = \frac{-\frac12\log\mathrm{SNR} - \log\sigma_{\min}}{\log\sigma_{\max}-\log\sigma_{\min}}$$

    Shapes: log_snr any shape; returns it.
    Source: Song et al. 2021, arXiv:2011.13456, app. C.
    """
    return (-np.asarray(log_snr, dtype=np.float64) / 2 - math.log(sigma_min)) / math.log(sigma_max / sigma_min)


def flow_level(t):
    r"""The straight path of flow matching and rectified flow.

    $$\mathrm{signal} = 1-t, \qquad \mathrm{noise} = t$$

    Shapes: t in [0, 1], any shape; returns signal, noise of it, float64.
    Raises: ValueError when t leaves [0, 1].
    Source: Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023, arXiv:2209.03003.
    """
    t = _unit(t)
    return 1 - t, t


def flow_time(log_snr):
    r"""Time of a log-SNR on the straight path.

    $$t = \frac{1}{1+e^{\log\mathrm{SNR}/2}}$$

    Shapes: log_snr any shape; returns it.
    Source: Esser et al. 2024, arXiv:2403.03206.
    """
    return level_of_log_snr(log_snr, "flow")[1]


def shifted_cosine_level(t, size, base=64):
    r"""The cosine path, its log-SNR lowered for images larger than the ones it was made for.

    $$\frac{\mathrm{noise}}{\mathrm{signal}} = \tan\left(\frac{\pi t}{2}\right)\frac{\mathrm{size}}{\mathrm{base}},
      \qquad \log\mathrm{SNR} = -2\log\tan\frac{\pi t}{2} + 2\log\frac{\mathrm{base}}{\mathrm{size}}$$

    Shapes: t in [0, 1], any shape; size, base numbers; returns signal, noise of t's shape, float64.
    Raises: ValueError when t leaves [0, 1] or a size is not positive.
    Source: Hoogeboom et al. 2023, arXiv:2301.11093, sec. 3.1.
    """
    require(size > 0 and base > 0, f"size and base must be positive, got {size} and {base}")
    t = _unit(t)
    cos, sin = np.cos(np.pi / 2 * t) * base, np.sin(np.pi / 2 * t) * size
    return cos / np.hypot(cos, sin), sin / np.hypot(cos, sin)


def shifted_cosine_time(log_snr, size, base=64):
    r"""Time of a log-SNR on the shifted cosine path.

    $$t = \frac2\pi\arctan\left(e^{-\log\mathrm{SNR}/2}\,\frac{\mathrm{base}}{\mathrm{size}}\right)$$

    Shapes: log_snr any shape; returns it.
    Source: Hoogeboom et al. 2023, arXiv:2301.11093, sec. 3.1.
    """
    return 2 / np.pi * np.arctan(np.exp(-np.asarray(log_snr, dtype=np.float64) / 2) * base / size)


def level_of_log_snr(log_snr, path):
    r"""The level of a family that has a given log-SNR, with r = signal/noise = exp(log_snr/2).

    $$\text{vp: } \sqrt{\sigma(\log\mathrm{SNR})},\ \sqrt{\sigma(-\log\mathrm{SNR})}; \quad
      \text{ve: } 1,\ 1/r; \quad \text{flow: } \frac{r}{1+r},\ \frac{1}{1+r}; \quad
      \text{subvp: } \frac{2r}{1+\sqrt{1+4r^2}},\ 1-\mathrm{signal}^2$$

    Shapes: log_snr any shape; path 'vp', 've', 'subvp' or 'flow'; returns signal, noise of that shape, float64.
    Raises: ValueError for another path.
    Source: Kingma et al. 2021, arXiv:2107.00630, sec. 3.1 (vp); the others by solving for the signal.
    """
    half = np.asarray(log_snr, dtype=np.float64) / 2
    with np.errstate(over="ignore"):  # an infinite ratio gives the level's limit
        if path == "vp":
            return 1 / np.sqrt(1 + np.exp(-2 * half)), 1 / np.sqrt(1 + np.exp(2 * half))
        if path == "ve":
            return np.ones(half.shape), np.exp(-half)
        if path == "flow":
            return 1 / (1 + np.exp(-half)), 1 / (1 + np.exp(half))
    require(path == "subvp", f"path must be 'vp', 've', 'subvp' or 'flow', got {path!r}")
    back = np.exp(-np.abs(half))  # e^-|half|, so that nothing overflows on either side
    root = np.sqrt(back**2 + 4)
    signal = np.where(half > 0, 2 / (back + root), 2 * back / (1 + np.sqrt(1 + 4 * back**2)))
    return signal, np.where(half > 0, signal * back, 1 - signal**2)


def with_end(signal, noise):
    r"""Rows of levels for a sampler, the clean image last.

    $$(\mathrm{signal}_i, \mathrm{noise}_i)_{i=0..n-1},\ (1, 0)$$

    Shapes: signal, noise (n,); returns (n+1, 2) float64.
    Raises: ValueError when the rows do not get cleaner.
    Source: Karras et al. 2022, arXiv:2206.00364, sec. 3 (sigma_N = 0).
    """
    signal, noise = (np.asarray(a, dtype=np.float64) for a in (signal, noise))
    require(signal.ndim == 1 and signal.shape == noise.shape and (noise > 0).all()
            and (signal[1:] * noise[:-1] > signal[:-1] * noise[1:]).all(), "levels must get cleaner from row to row")
    return np.concatenate([np.stack([signal, noise], axis=1), [[1.0, 0.0]]])


def _steps(steps):
    require(isinstance(steps, (int, np.integer)) and steps >= 1, f"steps must be an integer >= 1, got {steps!r}")
    return int(steps)


def karras_levels(steps, sigma_min=0.002, sigma_max=80.0, rho=7.0):
    r"""EDM's noise levels: evenly spaced after a root, so that small noise gets most of the steps.

    $$\sigma_i = \left(\sigma_{\max}^{1/\rho} + \frac{i}{N-1}
      \left(\sigma_{\min}^{1/\rho}-\sigma_{\max}^{1/\rho}\right)\right)^\rho, \quad i = 0..N-1, \qquad \sigma_N = 0$$

    Shapes: returns (steps+1, 2) rows (1, sigma).
    Raises: ValueError unless 0 < sigma_min < sigma_max and steps >= 1.
    Source: Karras et al. 2022, arXiv:2206.00364, eq. 5.
    """
    require(0 < sigma_min < sigma_max, f"0 < sigma_min < sigma_max expected, got {sigma_min} and {sigma_max}")
    root = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), _steps(steps))
    return with_end(np.ones(steps), root**rho)


def exponential_levels(steps, sigma_min=0.002, sigma_max=80.0):
    r"""Noise levels that are evenly spaced in their logarithm.

    $$\sigma_i = \sigma_{\max}\left(\frac{\sigma_{\min}}{\sigma_{\max}}\right)^{i/(N-1)}, \qquad \sigma_N = 0$$

    Shapes: returns (steps+1, 2) rows (1, sigma).
    Raises: ValueError unless 0 < sigma_min < sigma_max and steps >= 1.
    Source: Song and Ermon 2019, arXiv:1907.05600, sec. 4.1; k-diffusion's name.
    """
    require(0 < sigma_min < sigma_max, f"0 < sigma_min < sigma_max expected, got {sigma_min} and {sigma_max}")
    return with_end(np.ones(steps), np.exp(np.linspace(np.log(sigma_max), np.log(sigma_min), _steps(steps))))


def flow_levels(steps, shift=1.0):
    r"""Evenly spaced times of the straight path, shifted towards noise for larger images.

    $$t_i = 1-\frac iN, \qquad t_i \leftarrow \frac{\mathrm{shift}\; t_i}{1+(\mathrm{shift}-1)\,t_i}$$

    Shapes: returns (steps+1, 2) rows (1 - t, t); t goes from 1 to 0. A log-SNR shift of -2 log(shift).
    Raises: ValueError unless shift > 0 and steps >= 1.
    Source: Esser et al. 2024, arXiv:2403.03206, sec. 5.3.2.
    """
    require(shift > 0, f"shift must be positive, got {shift}")
    t = 1 - np.arange(_steps(steps)) / steps
    t = shift * t / (1 + (shift - 1) * t)
    return with_end(1 - t, t)


def path_levels(level, steps, last, spacing="time", path=None):
    r"""Levels of a continuous path from t = 1 to a last time above 0, then the clean image.

    $$\text{time: } t_i = 1 + \frac{i}{N-1}(t_{\mathrm{last}}-1); \qquad \text{quadratic: the same in } \sqrt t; \qquad
      \text{log\_snr: evenly spaced log-SNR}$$

    Shapes: level maps t to (signal, noise); returns (steps+1, 2). For 'log_snr', path is the level's family.
    Raises: ValueError for another spacing, or when last leaves (0, 1).
    Source: Lu et al. 2022, arXiv:2206.00927, app. D (the three); Song et al. 2021, arXiv:2011.13456 (time).
    """
    require(0 < last < 1, f"last must be in (0, 1), got {last}")
    if spacing == "time":
        return with_end(*level(np.linspace(1, last, _steps(steps))))
    if spacing == "quadratic":
        return with_end(*level(np.linspace(1, last**0.5, _steps(steps)) ** 2))
    require(spacing == "log_snr", f"spacing must be 'time', 'quadratic' or 'log_snr', got {spacing!r}")
    ends = [2 * np.log(np.divide(*level(t))) for t in (1.0, last)]
    return with_end(*level_of_log_snr(np.linspace(*ends, _steps(steps)), path))
