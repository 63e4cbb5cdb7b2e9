"""How probable a diffusion model finds data: the whole variational bound, and the exact value along its ODE."""
import functools
import itertools
import math

import numpy as np

from ..ops._check import per_sample, require, sample_sum
from ._grid import on_grid
from .bound import bits_per_dim, bound_term, learned_log_variance, log_variance_bounds, prior_kl
from .continuous import level_of_log_snr
from .diffusion import estimate_coefficients, posterior
from .schedules import level_at, log_snr


def variational_bound(predict, x0, schedule, bins, *, ops, key, prediction="eps", variance="small", index=None,
                      clip=None):
    r"""Every term of the bound for every sample, one draw of noise for each: L_T, L_{T-1}, ..., L_0, and their sum.

    $$-\log p(x_0) \le L_T + \sum_{t=2}^T L_{t-1} + L_0$$

    Shapes: x0 (N, ...) on the grid of `bins` values (None: data without one); predict(x_t, t), t (N,) integers, returns
    the prediction; variance 'small', 'large', or 'learned': then predict returns twice the channels. Returns a dict of
    prior (N,), terms (T, N) (terms[t-1] is L_{t-1}), total (N,) in nats, bits (N,) per dimension. clip=(lo, hi) clips
    x0_hat.
    Raises: ValueError for another variance or prediction, or x0 outside [-1, 1].
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 5; Nichol and Dhariwal 2021, arXiv:2102.09672, sec. 3.
    """
    _check(x0, variance, bins)
    index = np.arange(len(x0)) if index is None else index
    terms = [_term(predict, x0, np.full(len(x0), t), schedule, bins, (key, index, t), ops, prediction, variance, clip)
             for t in range(1, schedule.T + 1)]
    prior = prior_kl(x0, schedule)
    total = prior + sum(terms)
    return {"prior": prior, "terms": np.stack(terms), "total": total, "bits": bits_per_dim(total, x0)}


def bound_estimate(predict, x0, schedule, bins, terms, *, ops, key, prediction="eps", variance="small", index=None,
                   clip=None):
    r"""The bound from few of its terms, without bias: L_T and L_0, and of the others one drawn from each of K strata.

    $$L_T + L_0 + \frac{T-1}{K}\sum_{k=0}^{K-1} L_{t_k-1}, \qquad t_k = 2 + \lfloor (T-1)(k+u)/K \rfloor$$

    Shapes: as variational_bound; terms K in 1..T-1; u is a sample's own. Returns a dict of prior, decoder (L_0) and
    total (N,) in nats, bits (N,) per dimension. With K = T - 1 it is the whole bound.
    Raises: ValueError as variational_bound, and when K leaves 1..T-1.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 5; stratified: Kingma et al. 2021, arXiv:2107.00630, app. I.1.
    """
    _check(x0, variance, bins)
    rest = schedule.T - 1
    require(1 <= terms <= rest, f"terms must be in 1..{rest}, got {terms}")
    index = np.arange(len(x0)) if index is None else index
    u = 1 - ops.uniform(key, index, 0, (), np.float64)

    def at(t, draw):
        return _term(predict, x0, t, schedule, bins, (key, index, draw), ops, prediction, variance, clip)

    prior, decoder = prior_kl(x0, schedule), at(np.ones(len(x0), np.int64), 1)
    others = sum(at(2 + np.floor(rest * (k + u) / terms).astype(np.int64), 2 + k) for k in range(terms))
    total = prior + decoder + rest / terms * others
    return {"prior": prior, "decoder": decoder, "total": total, "bits": bits_per_dim(total, x0)}


def _check(x0, variance, bins):
    require(variance in ("small", "large", "learned"),
            f"variance must be 'small', 'large' or 'learned', got {variance!r}")
    require(bins is None or bool(np.all((x0 >= -1) & (x0 <= 1))), "x0 must be in [-1, 1]")


def _term(predict, x0, t, schedule, bins, z, ops, prediction, variance, clip):
    """L_{t-1} (N,) of the model at the x_t that z makes, t (N,)."""
    signal, noise = level_at(schedule, t)
    x_t = ops.q_sample(x0, signal, noise, z)
    e = predict(x_t, t)
    low, high = log_variance_bounds(t, schedule)
    if variance == "learned":
        channels = x0.shape[1]
        require(e.shape[1] == 2 * channels, f"a learned variance needs {2 * channels} channels, got {e.shape[1]}")
        e, o = e[:, :channels], e[:, channels:]
        log_var = learned_log_variance(o.astype(x0.dtype), t, schedule)
    else:
        log_var = per_sample(low if variance == "small" else high, x0) + 0 * x0
    a, b, _, _ = (per_sample(c, x0) for c in estimate_coefficients(prediction, signal, noise))
    x0_hat = a * x_t + b * e
    x0_hat = x0_hat if clip is None else np.clip(x0_hat, *clip)
    return bound_term(x0, x_t, t, schedule, posterior(x0_hat, x_t, t, schedule)[0], log_var, bins)


def divergence(f, x, v=None, pullback=False):
    r"""Divergence of a field, exactly by D directional derivatives, or estimated without bias by one.

    $$\nabla\cdot f = \sum_i \partial_i f_i = E_v\left[v^T J v\right] \ \text{ where } \ E\,vv^T = I$$

    Shapes: f maps (N, ...) to it and takes complex128 (the derivatives are complex steps), or with pullback=True returns
    its value and its pullback (v^T J then comes from that, in any precision); x (N, ...); v None or an array of x's
    shape of signs or normals; returns f(x) and the divergence (N,).
    Source: Hutchinson 1990; Grathwohl et al. 2019, arXiv:1810.01367; Squire and Trapp 1998 (the complex step).
    """
    total, directions = 0.0, [v]
    if v is None:
        d = math.prod(x.shape[1:])
        directions = [np.broadcast_to(np.eye(d)[i].reshape(x.shape[1:]), x.shape) for i in range(d)]
    if pullback:
        y, back = f(x)
        return y, sum(sample_sum(back(u) * u) for u in directions)
    for u in directions:
        y = f(x + 1e-30j * u)
        total = total + sample_sum(y.imag * u) / 1e-30
    return y.real, total


def ode_log_likelihood(predict, x, levels, prior_log_density, *, path="vp", prediction="eps", v=None,
                       pullback=False):
    r"""Log density of data along the probability-flow ODE, by the change of variables, with Runge and Kutta's steps.

    $$\log p_0(x) = \log p_T(x_T) + \int \nabla\cdot f\,dt$$
    $$y = x/\alpha,\ \tau = \sigma/\alpha: \qquad \frac{dy}{d\log\tau} = \tau\,\hat\epsilon, \qquad
      \frac{d\log p(y)}{d\log\tau} = -\tau\,\nabla_y\cdot\hat\epsilon$$

    Shapes: x (N, ...) float64, data at levels[0]; levels (steps+1, 2) from little noise above 0 to much, on a path
    ('vp', 've', 'subvp', 'flow'); predict(x, signal, noise) takes complex128, or with pullback=True returns e and
    pullback(de) -> dx; prior_log_density maps x at levels[-1] to (N,); v for Hutchinson's estimate, else exact. Returns
    (N,) nats: the density at levels[0]. Order 4.
    Raises: ValueError for levels that do not get noisier, or with noise 0 or signal 0.
    Source: Song et al. 2021, arXiv:2011.13456, app. D.2; Chen et al. 2018, arXiv:1806.07366.
    """
    levels = np.asarray(levels, dtype=np.float64)
    require((levels > 0).all() and (levels[1:, 1] * levels[:-1, 0] > levels[:-1, 1] * levels[1:, 0]).all(),
            "levels must get noisier from row to row, with signal and noise above 0: the ODE ends short of both")
    dim = math.prod(x.shape[1:])

    def field(y, u):
        signal, noise = (float(c) for c in level_of_log_snr(-2 * u, path))
        _, _, p, q = (float(c) for c in estimate_coefficients(prediction, signal, noise))

        def velocity(y):
            e = predict(signal * y, signal, noise)
            e, back = e if pullback else (e, None)
            value = noise / signal * (p * signal * y + q * e)
            return (value, lambda dy: noise * (p * dy + q * back(dy))) if pullback else value

        return divergence(velocity, y, v, pullback)

    u = -log_snr(levels[:, 0], levels[:, 1]) / 2
    y, change = x / levels[0, 0], -dim * math.log(levels[0, 0])  # log p(x) = log p(y) - D log alpha
    for start, end in itertools.pairwise(u):
        h = end - start
        k1, d1 = field(y, start)
        k2, d2 = field(y + h / 2 * k1, start + h / 2)
        k3, d3 = field(y + h / 2 * k2, start + h / 2)
        k4, d4 = field(y + h * k3, end)
        y, change = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), change + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    return prior_log_density(y * levels[-1, 0]) + dim * math.log(levels[-1, 0]) + change


def grid_posterior(x0, x_s, signal, noise, bins):
    r"""Log probability of grid data given their noised value, all values of the grid being alike beforehand.

    $$\log P(x_0|x_s) = \sum_i\log\frac{N(x_{s,i};\alpha x_{0,i},\sigma^2)}{\sum_g N(x_{s,i};\alpha g,\sigma^2)}$$

    Shapes: x0 (N, ...) on the grid of `bins` values in [-1, 1], x_s (N, ...); signal, noise numbers; returns (N,).
    Raises: ValueError when the shapes differ, bins < 2 or the noise is 0.
    Source: Kingma et al. 2021, arXiv:2107.00630, sec. 3.3.
    """
    require(x0.shape == x_s.shape and bins >= 2 and noise > 0,
            f"grid_posterior: x_s in x0's shape {x0.shape}, bins >= 2 and noise > 0 expected, got {x_s.shape}, {bins} "
            f"and {noise}")
    exponent = lambda x: -((x_s - signal * x) ** 2) / (2 * noise**2)
    total = functools.reduce(np.logaddexp, [exponent(g) for g in np.linspace(-1, 1, bins)])
    return sample_sum(exponent(x0) - total)


def dequantise(x0, u, bins):
    r"""Spread grid data evenly over bins that tile [-1, 1], so that a density can be compared with a probability.

    $$\tilde x = \frac{2(k+u)}{\mathrm{bins}} - 1, \qquad k = \frac{(x_0+1)(\mathrm{bins}-1)}{2}$$

    Shapes: x0 (N, ...) on the grid of `bins` values in [-1, 1]; u (N, ...) uniform in (0, 1]; returns (N, ...).
    Raises: ValueError when the shapes differ, bins < 2, x0 is off the grid or u leaves [0, 1].
    Source: Uria et al. 2013, arXiv:1306.0186; Theis et al. 2016, arXiv:1511.01844.
    """
    require(x0.shape == u.shape, f"dequantise: u in x0's shape {x0.shape} expected, got {u.shape}")
    on_grid("dequantise", x0, bins)
    require(bool(np.all((u.real >= 0) & (u.real <= 1))), "dequantise: u must lie in [0, 1]")
    return (2 * np.round((x0 + 1) * (bins - 1) / 2) + 2 * u) / bins - 1


def density_bits(log_density, x, bins):
    r"""Bits per dimension of dequantised data, from its log density: the offset is the bin's width, 7 bits for bytes.

    $$\mathrm{bits} = -\frac{\log p(\tilde x)}{D\ln 2} + \log_2\frac{\mathrm{bins}}{2}$$

    Shapes: log_density (N,) nats; x (N, ...) for D; returns (N,). Its mean over u bounds -log2 P(x_0)/D from above.
    Source: Theis et al. 2016, arXiv:1511.01844; Song et al. 2021, arXiv:2011.13456, app. D.2.
    """
    return bits_per_dim(-log_density, x) + math.log2(bins / 2)
