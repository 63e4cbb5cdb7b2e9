"""The bound and the ODE's likelihood where the truth is known: on Gaussian mixtures, and on data on a grid."""
import itertools

import numpy as np
import pytest
from conftest import refuses

from refimpl import ops
from refimpl.equations import bound, continuous, diffusion, gaussian, likelihood, mixture, schedules

MIXTURE = mixture.mixture([0.4, 0.6], [[-1.0], [0.8]], [[0.3], [0.15]])


def expected_bound(schedule):
    """The bound of the exact denoiser with variance beta on the mixture, its expectation by quadrature.

    Every term is quadratic in x0 given x_t, and x0 given x_t is a mixture: three nodes for each component are exact.
    """
    z, w = np.polynomial.hermite_e.hermegauss(3)
    total = 0.0
    for t in range(1, schedule.T + 1):
        signal, noise = (float(v) for v in schedules.level_at(schedule, t))
        x_t = np.linspace(-6, 6, 601)[:, None]
        x0_hat = mixture.mixture_denoiser(x_t, MIXTURE, signal, noise)
        _, high = bound.log_variance_bounds(t, schedule)
        log_var, ts = np.full(x_t.shape, float(high)), np.full(len(x_t), t)
        mean, _ = diffusion.posterior(x0_hat, x_t, ts, schedule)
        for weight, centre, variance in zip(MIXTURE.weights, MIXTURE.means[:, 0], MIXTURE.variances[:, 0]):
            v = signal**2 * variance + noise**2
            joint = weight * np.exp(-((x_t[:, 0] - signal * centre) ** 2) / (2 * v)) / (2 * np.pi * v) ** 0.5
            for node, share in zip(z, w / w.sum()):
                x0 = centre + signal * variance / v * (x_t - signal * centre) + (variance * noise**2 / v) ** 0.5 * node
                term = (-gaussian.log_normal(x0, mean, log_var) if t == 1
                        else bound.bound_term(x0, x_t, ts, schedule, mean, log_var, 256))
                total += share * np.sum(joint * term) * (x_t[1, 0] - x_t[0, 0])
    for weight, centre, variance in zip(MIXTURE.weights, MIXTURE.means[:, 0], MIXTURE.variances[:, 0]):
        total += weight * (w / w.sum()) @ bound.prior_kl(centre + variance**0.5 * z[:, None], schedule)
    return total


def test_bound_stays_above_the_entropy_and_its_gap_falls_as_one_over_T():
    x = np.linspace(-6, 6, 4001)[:, None]
    log_p = mixture.mixture_log_density(x, MIXTURE, 1.0, 0.0)
    entropy = -np.sum(np.exp(log_p) * log_p) * (x[1, 0] - x[0, 0])
    gaps = [expected_bound(schedules.linear(T, 5e-4, 0.03, rescale=True)) - entropy for T in (50, 100, 200)]
    assert all(g > 0 for g in gaps)
    assert [a / b for a, b in itertools.pairwise(gaps)] == pytest.approx([2, 2], abs=0.1)


def eps(m):
    return lambda x, signal, noise: -noise * mixture.mixture_score(x, m, signal, noise)


@pytest.mark.parametrize("path", ["vp", "ve", "flow", "subvp"])
@pytest.mark.parametrize("components", [1, 2])
def test_ode_likelihood(path, components, rng):
    """Within 1e-3 bits per dimension of the truth, on a Gaussian and on a mixture, on every path."""
    m = mixture.mixture([[1.0], [0.4, 0.6]][components - 1], [[0.5, -0.2], [-0.8, 0.3]][:components],
                        [[0.3, 0.5], [0.2, 0.4]][:components])
    x = 0.8 * rng.standard_normal((4, 2))
    levels = np.stack(continuous.level_of_log_snr(np.linspace(2 * np.log(1e4), -16, 140), path), axis=1)

    def prior(x):
        variance = np.full(x.shape, np.log(levels[-1, 1] ** 2))
        return gaussian.log_normal(x, 0 * x, variance)

    found = likelihood.ode_log_likelihood(eps(m), x, levels, prior, path=path)
    truth = mixture.mixture_log_density(x, m, 1.0, 0.0)
    assert np.max(abs(found - truth)) / (2 * np.log(2)) < 1e-3


def test_hutchinson_is_unbiased_along_the_whole_ode(rng):
    x, levels = rng.standard_normal((2, 2)), np.stack(continuous.level_of_log_snr(np.linspace(4, -4, 20), "vp"), axis=1)
    m = mixture.mixture([0.4, 0.6], [[0.5, -0.2], [-0.8, 0.3]], [[0.3, 0.5], [0.2, 0.4]])

    def run(v):
        return likelihood.ode_log_likelihood(eps(m), x, levels, lambda x: 0.0, v=v)

    signs = [np.tile(s, (2, 1)) for s in ([1.0, 1.0], [1.0, -1.0])]  # -v gives the same as v
    estimates = [run(v) for v in signs]
    np.testing.assert_allclose(np.mean(estimates, axis=0), run(None), rtol=1e-10)
    assert np.max(abs(estimates[0] - estimates[1])) > 1e-3


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_variational_bound_of_grid_data(prediction):
    """The exact denoiser of data on a grid: in the mean the bound is above the entropy, and near it."""
    p, grid = np.array([0.1, 0.4, 0.2, 0.3]), np.linspace(-1, 1, 4)[:, None]
    m, schedule, n = mixture.mixture(p, grid, 0.0), schedules.cosine(60), 4000
    x0 = mixture.sample_mixture(m, (np.arange(n) + 0.5) / n, np.zeros((n, 1)))

    def predict(x, t):
        signal, noise = (float(v) for v in schedules.level_at(schedule, int(t[0])))
        x0_hat = mixture.mixture_denoiser(x, m, signal, noise)
        return diffusion.convert(x0_hat, x, signal, noise, "x0", prediction)

    found = likelihood.variational_bound(predict, x0, schedule, 4, ops=ops, key=3, prediction=prediction)
    entropy = -np.sum(p * np.log(p))
    assert found["terms"].shape == (60, n)
    np.testing.assert_allclose(found["total"], found["prior"] + found["terms"].sum(axis=0))
    np.testing.assert_allclose(found["bits"], found["total"] / np.log(2))
    error = found["total"].std() / n**0.5
    assert entropy - 3 * error < found["total"].mean() < 1.2 * entropy


def test_variances_of_the_bound(rng):
    """A learned variance at the ends of its range gives the bound of the two fixed ones; clip acts on x0_hat."""
    x0, schedule = np.linspace(-1, 1, 17)[rng.integers(0, 17, (3, 2, 2))], schedules.cosine(12)

    def bounds(predict, **options):
        return likelihood.variational_bound(predict, x0, schedule, 17, ops=ops, key=1, **options)["total"]

    def with_channels(o):
        return lambda x, t: np.concatenate([0.5 * x, 0 * x + o], axis=1)

    for name, o in (("small", -1.0), ("large", 1.0)):
        np.testing.assert_allclose(bounds(with_channels(o), variance="learned"),
                                   bounds(lambda x, t: 0.5 * x, variance=name), rtol=1e-12)
    assert (bounds(lambda x, t: 0.5 * x, clip=(-1, 1)) < bounds(lambda x, t: 0.5 * x)).all()


def test_few_terms_estimate_the_bound_without_bias(rng):
    """Over many samples the bound from three strata has the mean of the whole one; with as many as T - 1 it is that."""
    x0, schedule = np.full((6000, 1, 1, 1), 0.5), schedules.cosine(12)
    predict = lambda x, t: np.tanh(x)
    options = {"ops": ops, "key": 4, "prediction": "x0", "variance": "large"}
    whole = likelihood.variational_bound(predict, x0, schedule, 17, **options)["total"]
    for terms in (1, 3, 11):
        few = likelihood.bound_estimate(predict, x0, schedule, 17, terms, **options)
        error = np.hypot(few["total"].std(), whole.std()) / 6000**0.5
        assert abs(few["total"].mean() - whole.mean()) < 4 * error and error < 0.05 * whole.mean()
        np.testing.assert_allclose(few["bits"], few["total"] / np.log(2))


def test_density_in_the_place_of_a_grid(rng):
    """Without bins the last term is a density's: for Gaussian data and the exact x0_hat the bound is near the entropy."""
    x0, schedule = 0.3 * rng.standard_normal((4000, 2)), schedules.cosine(400)

    def predict(x, t):
        signal, noise = (v[:, None] for v in schedules.level_at(schedule, t))
        return signal * 0.09 / (signal**2 * 0.09 + noise**2) * x

    found = likelihood.bound_estimate(predict, x0, schedule, None, 60, ops=ops, key=1, prediction="x0",
                                      variance="large")["total"]
    entropy = np.log(2 * np.pi * np.e * 0.09)
    assert entropy - 0.1 < found.mean() < entropy + 0.3


def _bound(predict, x0, **options):
    return likelihood.variational_bound(predict, x0, schedules.cosine(4), 4, ops=ops, key=1, **options)


@pytest.mark.parametrize("call, words", [
    (lambda: _bound(None, np.full((1, 1), 1.5)), "x0 must be"),
    (lambda: likelihood.bound_estimate(None, np.zeros((1, 1)), schedules.cosine(4), 4, 4, ops=ops, key=1),
     r"terms must be in 1\.\.3, got 4"),
    (lambda: likelihood.grid_posterior(np.zeros((1, 1)), np.zeros((1, 1)), 1.0, 0.0, 4), "noise > 0 expected"),
    (lambda: _bound(None, np.zeros((1, 1)), variance="no"), "variance must be"),
    (lambda: _bound(lambda x, t: x, np.zeros((1, 2)), variance="learned"), "4 channels"),
    (lambda: likelihood.ode_log_likelihood(None, np.zeros((1, 1)), [[1.0, 0.0], [0.5, 0.5]], None), "above 0"),
    (lambda: likelihood.ode_log_likelihood(None, np.zeros((1, 1)), [[0.5, 0.5], [0.6, 0.4]], None), "noisier"),
    (lambda: likelihood.dequantise(np.zeros((1, 1)), np.zeros((1, 2)), 4), "shape"),
])
def test_one_clear_sentence(call, words):
    refuses(call, words)
