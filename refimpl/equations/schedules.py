"""Noise schedules as float64 tables over t = 0..T, and what a sampler makes of them: timesteps, levels, labels."""
from typing import NamedTuple

import numpy as np

from ..ops._check import require


class Schedule(NamedTuple):
    """Tables of T+1 entries; t = 0 is the data: beta[0] = 0, alpha[0] = alpha_bar[0] = 1. alpha = 1 - beta."""

    beta: np.ndarray
    alpha: np.ndarray
    alpha_bar: np.ndarray

    @property
    def T(self):
        return len(self.beta) - 1


def from_beta(beta):
    r"""The tables of a schedule, from its T forward variances.

    $$\alpha_t = 1-\beta_t, \qquad \bar\alpha_t = \prod_{s=1}^{t}\alpha_s$$

    Shapes: beta (T,), for t = 1..T. Returns a Schedule of (T+1,) float64 tables.
    Raises: ValueError when a beta is outside (0, 1].
    Source: Ho et al. 2020, arXiv:2006.11239, sec. 2.
    """
    beta = np.asarray(beta, dtype=np.float64)
    require(beta.ndim == 1 and len(beta) > 0, f"beta must be one row of at least one number, got shape {beta.shape}")
    bad = ~((beta > 0) & (beta <= 1))  # NaN is bad too
    require(not bad.any(), f"every beta must be in (0, 1], got {beta[bad][0]:g} at t = {np.argmax(bad) + 1}"
            if bad.any() else "")
    beta = np.concatenate([[0.0], beta])
    return Schedule(beta, 1 - beta, np.cumprod(1 - beta))


def from_alpha_bar(alpha_bar, max_beta):
    r"""The tables of a schedule, from its signal powers; a step that would forget too much is clipped.

    $$\beta_t = \min\left(1-\frac{\bar\alpha_t}{\bar\alpha_{t-1}},\ \beta_{\max}\right)$$

    Shapes: alpha_bar (T+1,), alpha_bar[0] = 1, or (T+1,) any positive multiple: only ratios count.
    Raises: ValueError when alpha_bar does not decrease, or max_beta is outside (0, 1].
    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, sec. 3.2.
    """
    require(0 < max_beta <= 1, f"max_beta must be in (0, 1], got {max_beta}")
    alpha_bar = np.asarray(alpha_bar, dtype=np.float64)
    require((alpha_bar[:-1] > 0).all() and (np.diff(alpha_bar) < 0).all() and alpha_bar[-1] >= 0,
            "alpha_bar must decrease strictly and stay above 0 (only its last entry may be 0)")
    return from_beta(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta))


def _steps(T):
    require(isinstance(T, (int, np.integer)) and T >= 1, f"T must be an integer of at least 1, got {T!r}")
    return int(T)


def linear(T=1000, beta_1=1e-4, beta_T=0.02, rescale=False):
    r"""Variances that grow linearly. (The lecture's "originally beta_T = .04" is not Ho et al.'s value.)

    $$\beta_t = \beta_1 + \frac{t-1}{T-1}(\beta_T-\beta_1) \quad \left[\times\tfrac{1000}{T} \text{ if rescale}\right]$$

    Shapes: returns a Schedule of T+1 entries. The end points are for T = 1000; for another T, rescale=True multiplies
    the betas by 1000/T, so that alpha_bar_T stays about 4e-5 (guided-diffusion does; diffusers does not).
    Raises: ValueError when a beta leaves (0, 1]: rescaled, that is T < 20.
    Source: Ho et al. 2020, arXiv:2006.11239, sec. 4; the rescaling: Nichol and Dhariwal 2021, their code.
    """
    return from_beta(np.linspace(beta_1, beta_T, _steps(T)) * (1000 / T if rescale else 1))


def scaled_linear(T=1000, beta_1=0.00085, beta_T=0.012):
    r"""Deviations, not variances, that grow linearly: latent diffusion's schedule.

    $$\sqrt{\beta_t} = \sqrt{\beta_1} + \frac{t-1}{T-1}\left(\sqrt{\beta_T}-\sqrt{\beta_1}\right)$$

    Shapes: returns a Schedule of T+1 entries.
    Raises: ValueError when a beta leaves (0, 1].
    Source: Rombach et al. 2022, arXiv:2112.10752, their code.
    """
    require(beta_1 > 0 and beta_T > 0, f"beta_1 and beta_T must be positive, got {beta_1} and {beta_T}")
    return from_beta(np.linspace(beta_1**0.5, beta_T**0.5, _steps(T)) ** 2)


def cosine(T=1000, s=0.008, max_beta=0.999):
    r"""The cosine schedule of improved DDPM: alpha_bar falls almost linearly in the middle.

    $$\beta_t = \min\left(1-\frac{f(t/T)}{f((t-1)/T)},\ .999\right), \qquad
      f(u) = \cos^2\left(\frac{u+s}{1+s}\frac{\pi}{2}\right)$$

    Shapes: returns a Schedule of T+1 entries.
    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, sec. 3.2.
    """
    u = np.arange(_steps(T) + 1) / T
    return from_alpha_bar(np.cos((u + s) / (1 + s) * np.pi / 2) ** 2, max_beta)


def bare_cosine(T=1000, max_beta=0.999):
    r"""The lecture's cosine without offset, and with the clip it needs.

    $$\bar\alpha_t = \frac{\cos(\pi t/T)+1}{2}, \qquad \beta_t \le \beta_{\max}$$

    Shapes: returns a Schedule of T+1 entries. With max_beta = 1 alpha_bar_T is 0: nothing of the data is left, and eps
    cannot be turned into x0 there; it is this clip of beta (not of alpha_t to [e, 1-e], as printed) that prevents it.
    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, sec. 3.2, with s = 0.
    """
    alpha_bar = (np.cos(np.pi * np.arange(_steps(T) + 1) / T) + 1) / 2  # at t = T cos(pi) + 1 is 0 exactly
    return from_alpha_bar(alpha_bar, max_beta)


def sigmoid_beta(T=1000, beta_1=1e-4, beta_T=0.02, reach=6.0):
    r"""Variances that grow along a sigmoid: the form of GeoDiff and diffusers.

    $$\beta_t = \beta_1 + (\beta_T-\beta_1)\,\sigma(u_t), \qquad u_t \text{ linear from } -6 \text{ to } 6$$

    Shapes: returns a Schedule of T+1 entries.
    Source: Xu et al. 2022, arXiv:2203.02923, their code.
    """
    u = np.linspace(-reach, reach, _steps(T))
    return from_beta(beta_1 + (beta_T - beta_1) / (1 + np.exp(-u)))


def sigmoid(T=1000, start=-3.0, end=3.0, tau=1.0, max_beta=0.999):
    r"""Signal power that falls along a sigmoid: the form of Jabri et al. and Chen.

    $$\bar\alpha_t = \frac{\sigma(e/\tau) - \sigma(u_t/\tau)}{\sigma(e/\tau)-\sigma(s/\tau)}, \qquad
      u_t = s + \frac tT(e-s)$$

    Shapes: returns a Schedule of T+1 entries. alpha_bar would end at 0: beta is clipped, as for the cosine.
    Raises: ValueError unless start < end and tau > 0.
    Source: Jabri et al. 2022, arXiv:2212.11972; Chen 2023, arXiv:2301.10972.
    """
    require(start < end and tau > 0, f"sigmoid needs start < end and tau > 0, got {start}, {end}, {tau}")
    u = start + np.arange(_steps(T) + 1) / T * (end - start)
    falling = 1 / (1 + np.exp(u / tau))
    return from_alpha_bar(falling - falling[-1], max_beta)


def zero_terminal_snr(schedule):
    r"""Shift and scale sqrt(alpha_bar) so that the last level is pure noise and the first stays what it was.

    $$\sqrt{\bar\alpha_t} \leftarrow \left(\sqrt{\bar\alpha_t}-\sqrt{\bar\alpha_T}\right)
      \frac{\sqrt{\bar\alpha_1}}{\sqrt{\bar\alpha_1}-\sqrt{\bar\alpha_T}}$$

    Shapes: a Schedule in, a Schedule out, beta_T = 1 and alpha_bar_T = 0. An eps prediction says nothing there: use v.
    Raises: ValueError when T = 1.
    Source: Lin et al. 2024, arXiv:2305.08891, alg. 1.
    """
    require(schedule.T > 1, "zero_terminal_snr needs T of at least 2")
    s = np.sqrt(schedule.alpha_bar)
    s = np.concatenate([s[:1], (s[1:] - s[-1]) * (s[1] / (s[1] - s[-1]))])
    return from_alpha_bar(s**2, max_beta=1.0)


def level_at(schedule, t):
    r"""The level of x_t: how much signal and how much noise.

    $$\mathrm{signal} = \sqrt{\bar\alpha_t}, \qquad \mathrm{noise} = \sqrt{1-\bar\alpha_t}$$

    Shapes: t an integer or (N,) integers in 0..T, on the host. Returns signal, noise of t's shape, float64.
    Raises: ValueError when t is no integer or leaves 0..T.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 4.
    """
    t = np.asarray(t)
    require(np.issubdtype(t.dtype, np.integer), f"t must be integers, got {t.dtype}")
    require(t.size == 0 or (t.min() >= 0 and t.max() <= schedule.T),
            f"t must be in 0..{schedule.T}, got {t.min()}..{t.max()}" if t.size else "")
    return np.sqrt(schedule.alpha_bar[t]), np.sqrt(1 - schedule.alpha_bar[t])


def timesteps(T, steps, spacing, offset=0):
    r"""Which of the T trained timesteps a sampler visits, by the three published index rules.

    $$\text{leading: } 1 + k\lfloor T/n\rfloor + \mathrm{offset}, \qquad
      \text{trailing: } \mathrm{round}(T - kT/n), \qquad
      \text{linspace: } 1 + \mathrm{round}\left(k\tfrac{T-1}{n-1}\right)$$

    Shapes: returns (steps,) integers in 1..T, decreasing; k = 0..n-1. Only trailing and linspace visit T; leading
    with the offset 1 of Stable Diffusion is diffusers' steps_offset. Rounding is to even at a half, as NumPy's.
    Raises: ValueError for another spacing, steps outside 1..T, or an offset that leaves 1..T.
    Source: Lin et al. 2024, arXiv:2305.08891, table 2 (leading: Song et al. 2021, arXiv:2010.02502).
    """
    require(isinstance(steps, (int, np.integer)) and 1 <= steps <= T, f"steps must be in 1..{T}, got {steps!r}")
    if spacing == "leading":
        t = (1 + np.arange(steps) * (T // steps) + offset)[::-1]
        require(t[0] <= T and t[-1] >= 1, f"timesteps: offset {offset} leaves 1..{T}")
    elif spacing == "trailing":
        t = np.round(np.arange(T, 0, -T / steps))[:steps]  # the published code, whose rounding decides at halves
    else:
        require(spacing == "linspace", f"spacing must be 'leading', 'trailing' or 'linspace', got {spacing!r}")
        t = 1 + np.round(np.linspace(0, T - 1, steps))[::-1]
    return t.astype(np.int64)


def levels(schedule, timesteps):
    r"""The levels that a sampler passes through, the clean image last.

    $$\left(\sqrt{\bar\alpha_{\tau_i}},\ \sqrt{1-\bar\alpha_{\tau_i}}\right)_{i=0..n-1},\ (1, 0)$$

    Shapes: timesteps (n,) decreasing integers in 1..T; returns (n+1, 2) float64 rows (signal, noise).
    Raises: ValueError when the timesteps do not decrease or leave 1..T.
    Source: Song et al. 2021, arXiv:2010.02502, sec. 4.2.
    """
    t = np.asarray(timesteps)
    require(t.ndim == 1 and len(t) > 0 and (np.diff(t) < 0).all() and t[-1] >= 1,
            f"timesteps must decrease strictly within 1..{schedule.T}, got {t}")
    return np.stack(level_at(schedule, np.append(t, 0)), axis=1)


def log_snr(signal, noise):
    r"""Logarithm of the signal-to-noise ratio; infinite at both ends.

    $$\log\mathrm{SNR} = \log\frac{\mathrm{signal}^2}{\mathrm{noise}^2} = 2\lambda$$

    Shapes: signal, noise of one shape; returns it. lambda is DPM-Solver's half log-SNR.
    Source: Kingma et al. 2021, arXiv:2107.00630, sec. 3.1.
    """
    with np.errstate(divide="ignore"):  # +-inf are the values wanted at noise 0 and signal 0
        return 2 * (np.log(signal) - np.log(noise))


def label_of_level(schedule, signal, noise):
    r"""The fractional t at which a discrete schedule has a level's SNR: what a network trained on t = 1..T is told.

    $$t = t_k + \frac{\ell_k-\ell}{\ell_k-\ell_{k+1}}, \qquad \ell = \log\mathrm{SNR},\quad \ell_k\ge\ell\ge\ell_{k+1}$$

    Shapes: signal, noise one number or (N,); returns that shape, float64 in 0..T. Exact on the grid. Only the ratio
    counts, so that variance-exploding levels have labels too. Where the log-SNR is infinite (t = 0, and t = T with
    zero terminal SNR) the interpolation is linear in noise/signal, or signal/noise.
    Raises: ValueError for a level noisier than t = T, for negative or NaN levels, and for (0, 0).
    Source: Lu et al. 2022, arXiv:2206.00927, app. D (interpolation in the log-SNR); k-diffusion does the same.
    """
    signal, noise = np.broadcast_arrays(np.asarray(signal, np.float64), np.asarray(noise, np.float64))
    require(((signal >= 0) & (noise >= 0) & (signal + noise > 0)).all(),
            f"a level must have signal and noise of at least 0, not both 0, got {signal} and {noise}")
    grid_signal, grid_noise = level_at(schedule, np.arange(schedule.T + 1))
    grid, asked = log_snr(grid_signal, grid_noise), log_snr(signal, noise)
    require((asked >= grid[-1] - 1e-9).all(),
            f"a level of log-SNR {np.min(asked):g} is noisier than any the schedule was trained on ({grid[-1]:g})")
    last = schedule.T if np.isfinite(grid[-1]) else schedule.T - 1
    require(last >= 1, "label_of_level needs a schedule with a finite log-SNR somewhere")
    t = np.interp(-asked, -grid[1:last + 1], np.arange(1, last + 1.0))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # each branch is used only where its ratio is finite
        t = np.where(asked > grid[1], noise / signal / (grid_noise[1] / grid_signal[1]), t)
        below = signal / noise / (grid_signal[last] / grid_noise[last])
    return np.where(asked < grid[last], schedule.T - below, t) if last < schedule.T else t
