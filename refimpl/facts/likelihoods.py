"""How probable a diffusion model finds data: values known in closed form."""
import itertools

import numpy as np

from refimpl import ops
from refimpl.equations import continuous, likelihood, mixture, schedules

from . import fact
from .samplers import any_mixture


@fact("bits", likelihood.dequantise, likelihood.density_bits, tolerance=1e-9)
def dequantised_density_of_a_uniform(d):
    """Dequantised bins tile [-1, 1]; data uniform on the grid cost log2(bins) bits a dimension; bytes' offset is 7."""
    bins = d.choice([2, 17, 256])
    grid = np.linspace(-1, 1, bins)[:, None]
    low, high = (likelihood.dequantise(grid, 0 * grid + u, bins)[:, 0] for u in (0.0, 1.0))
    bits = likelihood.density_bits(np.full(bins, np.log(0.5)), grid, bins)
    return max(abs(low[0] + 1), abs(high[-1] - 1), np.max(abs(low[1:] - high[:-1]), initial=0),
               np.max(abs(bits - np.log2(bins))), abs(likelihood.density_bits(np.zeros(1), grid[:1], 256)[0] - 7))


@fact("bits", likelihood.grid_posterior, tolerance=1e-9)
def probabilities_of_a_grid_sum_to_one(d):
    """Over the values of the grid the posterior sums to 1, and its log ratios are those of the two Gaussians."""
    bins, signal, noise = d.choice([2, 5, 17]), d.real(0.1, 1), d.real(0.02, 2)
    grid, x_s = np.linspace(-1, 1, bins)[:, None], np.tile(d.array(1, 1), (bins, 1))
    found = likelihood.grid_posterior(grid, x_s, signal, noise, bins)
    ratios = -((x_s - signal * grid)[:, 0] ** 2) / (2 * noise**2)
    return max(abs(np.sum(np.exp(found)) - 1), np.max(abs(np.diff(found) - np.diff(ratios)) / (1 + abs(np.diff(ratios)))))


@fact("F-E7", likelihood.bound_estimate, likelihood.variational_bound, tolerance=1e-9)
def bound_estimate_is_the_bound(d):
    """Where the network is right about x0 no term depends on the noise: one from each of T - 1 strata is the whole."""
    s, x0 = schedules.linear(d.integer(2, 12), 1e-2, 0.2), np.full((3, 2), 0.5)
    options = {"ops": ops, "prediction": "x0", "variance": "large"}
    whole = likelihood.variational_bound(lambda x, t: x0, x0, s, 5, key=d.key(), **options)["total"]
    each = likelihood.bound_estimate(lambda x, t: x0, x0, s, 5, s.T - 1, key=d.key(), **options)
    return np.max(abs(whole - each["total"]))


@fact("divergence", likelihood.divergence, mixture.mixture_score, tolerance=1e-10)
def divergence_exact_and_hutchinson(d):
    """Exact divergence = the trace by vjp = Hutchinson's estimate averaged over all vectors of signs."""
    m, x = any_mixture(d, 3), d.array(2, 3)

    def f(x):
        return mixture.mixture_score(x, m, 0.8, 0.6)

    _, exact = likelihood.divergence(f, x)
    signs = [np.tile(s, (2, 1)).astype(float) for s in itertools.product([-1, 1], repeat=3)]
    estimate = np.mean([likelihood.divergence(f, x, v)[1] for v in signs], axis=0)
    trace = sum(mixture.mixture_score_vjp(np.tile(row, (2, 1)), x, m, 0.8, 0.6)[:, i]
                for i, row in enumerate(np.eye(3)))
    pulled = likelihood.divergence(lambda x: (f(x), lambda dy: mixture.mixture_score_vjp(dy, x, m, 0.8, 0.6)), x,
                                   pullback=True)[1]
    errors = np.stack([abs(exact - other) for other in (estimate, trace, pulled)])
    return np.max(errors / (1 + abs(exact)))


@fact("F-E6", likelihood.ode_log_likelihood, tolerance=6.9e-4)  # 1e-3 bits
def ode_likelihood_of_a_gaussian(d):
    """Along the ODE, the log density of N(m, s^2) at a level follows from the one at a far noisier level."""
    path, mean, s2 = d.choice(["vp", "ve", "flow"]), d.real(-1, 1), d.real(0.3, 2)
    levels = np.stack(continuous.level_of_log_snr(np.linspace(4, -4, 25), path), axis=1)
    m, x = mixture.mixture([1.0], [[mean]], s2), d.array(2, 1)

    def density(x, i):
        return mixture.mixture_log_density(x, m, *levels[i])

    def predict(x, signal, noise):
        return -noise * mixture.mixture_score(x, m, signal, noise)

    found = likelihood.ode_log_likelihood(predict, x, levels, lambda x: density(x, -1), path=path)
    return np.max(abs(found - density(x, 0)))
