"""Bugs that public code of autoencoders, codebooks and flows is known for, errors in lecture texts, and bad input."""
import math

import numpy as np
import pytest
from conftest import refuses, rejected

from refimpl import ops
from refimpl.equations import bound, dequantise, elbo, energy, flow, gaussian, likelihood, perceptual, quantise
from refimpl.facts import energy as energy_facts
from refimpl.facts import flows, latent, load
from refimpl.facts import gaussian as gaussian_facts
from refimpl.facts.gradients import PAIRS, dot_product_error

load()


def swapped_in(monkeypatch, module, name, wrong, measure, tolerance):
    """The fact passes on the right function and fails on the wrong one."""
    assert not rejected(measure, tolerance)
    monkeypatch.setattr(module, name, wrong)
    assert rejected(measure, tolerance)


# Bugs of public code


def test_deviation_exp_of_the_log_variance(monkeypatch):
    swapped_in(monkeypatch, gaussian, "reparametrise", lambda mean, log_var, z: mean + np.exp(log_var) * z,
               gaussian_facts.pathwise_gradient, 1e-10)


def test_beta_on_the_codebook(monkeypatch):
    """The value is the same to the last bits; only the gradients tell."""
    z, e = np.random.default_rng(0).standard_normal((2, 5, 3))
    right = quantise.codebook_loss(e, z) + quantise.commitment_loss(z, e, 0.25)
    wrong = 0.25 * quantise.codebook_loss(e, z) + quantise.commitment_loss(z, e, 1.0)
    assert abs(right - wrong) < 1e-15
    without = lambda dy, z, e, beta: quantise.codebook_loss_vjp(dy, z, e)
    swapped_in(monkeypatch, quantise, "commitment_loss_vjp", without,
               latent.beta_belongs_to_the_encoder, 1e-14)


def test_loss_that_grows_with_the_batch():
    z, e = np.random.default_rng(0).standard_normal((2, 5, 3))
    twice = lambda a: np.concatenate([a, a])
    total = lambda e, z: np.sum((e - z) ** 2)
    assert abs(quantise.codebook_loss(e, z) - quantise.codebook_loss(twice(e), twice(z))) < 1e-14
    assert abs(total(e, z) - total(twice(e), twice(z))) > 1
    np.testing.assert_allclose(quantise.commitment_loss_vjp(1.0, twice(z), twice(e))[:5],
                               quantise.commitment_loss_vjp(1.0, z, e) / 2, rtol=1e-14)


def test_log_determinant_of_zero_passes_every_inverse(monkeypatch):
    right = flow.affine_coupling
    x, s, t = np.random.default_rng(0).standard_normal((3, 4, 6))
    mask = flow.alternate((6,))
    wrong = lambda *inputs: (right(*inputs)[0], 0 * right(*inputs)[1])
    np.testing.assert_allclose(flow.affine_coupling_inverse(wrong(x, mask, s, t)[0], mask, s, t), x, atol=1e-12)
    monkeypatch.setattr(flow, "affine_coupling", wrong)
    assert rejected(flows.coupling_determinant, 1e-10) and rejected(flows.density_integrates_to_one, 1e-3)


def test_determinant_over_the_kept_part(monkeypatch):
    right = flow.affine_coupling
    wrong = lambda x, mask, s, t: (right(x, mask, s, t)[0], np.sum(mask * s, axis=1))
    swapped_in(monkeypatch, flow, "affine_coupling", wrong, flows.coupling_determinant, 1e-10)


def test_smoothed_count_written_back(monkeypatch):
    right = quantise.ema_codebook

    def wrong(counts, sums, codebook, codes, z, decay=0.99, stabiliser=1e-5):
        counts, sums, codebook = right(counts, sums, codebook, codes, z, decay, stabiliser)
        n = np.sum(counts)
        return (counts + stabiliser) / (n + len(counts) * stabiliser) * n, sums, codebook

    swapped_in(monkeypatch, quantise, "ema_codebook", wrong, latent.counts_are_a_plain_average, 1e-12)


def test_pixels_of_the_1x1_forgotten(monkeypatch):
    right = flow.mix_channels
    wrong = lambda x, w: (right(x, w)[0], right(x, w)[1] / math.prod(x.shape[2:]))
    swapped_in(monkeypatch, flow, "mix_channels", wrong, flows.determinant_of_the_1x1, 1e-10)
    assert rejected(lambda d: dot_product_error(PAIRS["mix_channels"]._replace(f=wrong), d), 1e-10)


def test_logarithm_of_a_difference_of_sigmoids():
    """The plain difference is 0 in float32 for a pixel 20 scales away; ours keeps its digits and its gradient."""
    grid = lambda k: 2 * k / 255 - 1
    x0, mean, log_scale = (np.full((1, 1), v, np.float32) for v in (grid(128), grid(128) + 0.9, math.log(0.02)))
    plain = ops.sigmoid((x0 - mean + 1 / 255) / 0.02) - ops.sigmoid((x0 - mean - 1 / 255) / 0.02)
    exact = -45 + math.log(2 * math.sinh(1 / (255 * 0.02)))  # sigma(b) - sigma(a) -> e^b - e^a far out
    assert abs(elbo.discretised_logistic(x0, mean, log_scale, 256)[0] - exact) < 1e-3
    right_side = [np.full((1, 1), v, np.float32) for v in (grid(242), grid(242) - 1)]
    far = ops.sigmoid((right_side[0] - right_side[1] + 1 / 255) / 0.02) - ops.sigmoid(
        (right_side[0] - right_side[1] - 1 / 255) / 0.02)
    assert far == 0 and plain > 0
    assert np.isfinite(elbo.discretised_logistic(*right_side, log_scale, 256)).all()
    dmean, _ = elbo.discretised_logistic_vjp(1.0, *right_side, log_scale, 256)
    assert abs(dmean[0, 0] - 50) < 1e-3


# Errors in the lecture texts


def test_normaliser_is_the_integral_of_the_exponential():
    """Error 3, Z = integral of p: that is 1 for every f, and the density it leaves does not integrate to 1."""
    g = np.linspace(-12, 12, 2001)
    f, cell = -(g**2) / 8, g[1] - g[0]
    z = math.exp(energy.log_partition(f, cell))
    p = np.exp(f) / z
    assert abs(np.sum(p) * cell - 1) < 1e-12 and abs(z - (8 * math.pi) ** 0.5) < 1e-6
    assert abs(np.sum(np.exp(f) / (np.sum(p) * cell)) * cell - 1) > 1


def test_squared_error_plus_divergence_is_the_bound_of_one_variance():
    """Error 12: norm(x - x_hat)^2 + KL is -ELBO for sigma^2 = 1/2, up to a constant, and for no other."""
    rng = np.random.default_rng(0)
    x, mean, kl = rng.standard_normal((6, 4)), rng.standard_normal((6, 4)), rng.random(6)
    printed = np.mean(np.sum((x - mean) ** 2, axis=1) + kl)
    gap = lambda variance, scale: elbo.negative_elbo(
        elbo.gaussian_reconstruction(scale * x, scale * mean, variance), kl) - np.mean(
        np.sum((scale * x - scale * mean) ** 2, axis=1) + kl)
    assert abs(gap(0.5, 1.0) - 2 * math.log(math.pi)) < 1e-12 and abs(gap(0.5, 2.0) - gap(0.5, 1.0)) < 1e-12
    assert abs(gap(1.0, 2.0) - gap(1.0, 1.0)) > 1 and printed > 0


def test_n_mu_sigma_takes_a_variance():
    """Error 12, second half: a network whose output is read as a deviation has another divergence."""
    sigma = 2.0
    kl = gaussian.kl_normal(*(np.full((1, 1), v) for v in (0.0, math.log(sigma**2), 0.0, 0.0)))[0]
    assert abs(kl - (sigma**2 - 1 - math.log(sigma**2)) / 2) < 1e-12
    assert abs(kl - (sigma - 1 - math.log(sigma)) / 2) > 0.5


def test_sum_of_two_normals_is_one_normal_in_distribution_only():
    """Error 9: sigma1 e1 + sigma2 e2 has the variance sigma1^2 + sigma2^2, and is not sqrt of that times e1 or e2."""
    e1, e2 = (ops.normal(key, np.arange(20000), 0, (), np.float64) for key in (1, 2))
    total, one = 0.6 * e1 + 0.8 * e2, (0.6**2 + 0.8**2) ** 0.5 * e1
    assert abs(np.var(total) - 1) < 0.04 and abs(np.mean(total**4) - 3) < 0.2
    assert np.mean((total - one) ** 2) > 0.5
    assert abs(np.var(0.6 * e1 + 0.8 * e1) - 1) > 0.8  # one symbol for both: the variance is (sigma1 + sigma2)^2


# Bounds


def test_more_samples_never_loosen_the_bound():
    """IWAE with the prior as proposal: the mean bound rises with K, from below the evidence."""
    w, x = np.array([[1.0], [0.5]]), np.array([[0.7, -0.4]])
    exact = elbo.linear_gaussian_evidence(x, w, np.zeros(2), 0.5)[0]
    z = ops.normal(3, np.arange(65536), 0, (1,), np.float64)
    log_w = elbo.gaussian_reconstruction(x + np.zeros((65536, 1)), z @ w.T, 0.5)
    means = [np.mean(elbo.importance_weighted_bound(log_w.reshape(-1, k))) for k in (1, 4, 16, 256)]
    assert means == sorted(means) and means[-1] < exact + 0.01 and exact - means[-1] < 0.02 < exact - means[0]


def test_free_bits_hold_dimensions_that_are_given_up():
    kl = np.array([[0.02, 1.0], [0.04, 3.0]])
    assert abs(elbo.free_bits(kl, 0.5) - 2.5) < 1e-15
    np.testing.assert_array_equal(elbo.free_bits_vjp(1.0, kl, 0.5), [[0, 0.5], [0, 0.5]])


def test_learnt_noise_lowers_the_cost_and_stays_a_bound():
    """A density that is steep in a bin: descent from nearly uniform noise, by the vjps, takes E[-log p + log q] below
    that of uniform noise and never below -log P(x), the integral over the bin; z by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    z, weights = nodes[:, None], weights / weights.sum()
    log_p = lambda u: math.log(6) - 6 * u - math.log(1 - math.exp(-6)) + math.log(0.3)  # the bin holds .3 in all
    exact, uniform = -math.log(0.3), 3 - math.log(6) + math.log(1 - math.exp(-6)) - math.log(0.3)
    mean, log_scale, costs = 0.0, 0.5, []
    for _ in range(400):
        own = z, mean + 0 * z, log_scale + 0 * z
        u, minus_log_q = dequantise.logistic_noise(*own)
        costs.append(float(weights @ (-log_p(u[:, 0]) - minus_log_q)))
        _, dmean, dlog_scale = dequantise.logistic_noise_vjp((weights[:, None] * 6, -weights), *own)
        mean, log_scale = mean - 0.2 * float(np.sum(dmean)), log_scale - 0.2 * float(np.sum(dlog_scale))
    assert abs(costs[0] - uniform) < 0.1 and costs[-1] < uniform - 0.5
    assert min(costs) > exact and costs[-1] - exact < 0.1


def test_gumbel_noise_at_the_ends_of_the_interval():
    g = quantise.gumbel(np.array([1.0, 2.0**-24, 0.5]))
    assert np.isfinite(g).all() and abs(g[2] + math.log(math.log(2))) < 1e-6
    u = ops.uniform(0, np.arange(40000), 0, (), np.float64)
    assert abs(np.mean(quantise.gumbel(u)) - 0.5772) < 0.02


def test_relaxed_samples_follow_the_probabilities():
    logits = np.log(np.array([0.1, 0.2, 0.7])) + np.zeros((30000, 1))
    g = quantise.gumbel(ops.uniform(5, np.arange(30000), 0, (3,), np.float64))
    shares = np.bincount(np.argmax(quantise.gumbel_softmax(logits, g, 0.5), axis=1)) / 30000
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.7], atol=0.01)


def test_langevin_reaches_its_own_stationary_variance():
    x = np.zeros((4000, 1))
    for k in range(60):
        x = energy.langevin_step(x, -x, 0.4, ops.normal(7, np.arange(4000), k, (1,), np.float64))
    assert abs(np.var(x) - 1 / 0.8) < 0.1


def test_unused_rows_of_a_codebook_stay():
    codebook = np.array([[0.0, 0.0], [9.0, 9.0]])
    z = np.array([[0.2, 0.4]])
    np.testing.assert_array_equal(quantise.kmeans_step(z, codebook), [[0.2, 0.4], [9, 9]])
    *_, moved = quantise.ema_codebook(np.zeros(2), 0 * codebook, codebook, np.zeros(1, int), z)
    np.testing.assert_array_equal(moved[1], codebook[1])


def test_facts_of_energies_reject_a_wrong_sign(monkeypatch):
    swapped_in(monkeypatch, energy, "contrastive_loss_vjp",
               lambda dy, a, b: tuple(-g for g in PAIRS["contrastive_loss"].vjp(dy, a, b)),
               energy_facts.contrastive_gradient_is_the_likelihoods, 1e-9)


# Bad input

X = np.zeros((2, 4))


@pytest.mark.parametrize("call, message", [
    (lambda: elbo.log_bernoulli(X - 1, X), r"x must lie in \[0, 1\], and 8 values do not"),
    (lambda: elbo.log_bernoulli(X * np.nan, X), r"x must lie in \[0, 1\], and 8 values do not"),
    (lambda: elbo.log_bernoulli(X[:1], X), "data .* expected, as the parameters"),
    (lambda: elbo.discretised_logistic(X + 1.5, X, X, 17), r"x0 must lie in \[-1, 1\], and holds NaN or values up to 1.5"),
    (lambda: elbo.discretised_logistic(X + 0.03, X, X, 17), "x0 must lie on the grid of 17 values"),
    (lambda: bound.discretised_gaussian(X * np.nan, X, X, 17), "x0 holds NaN"),
    (lambda: bound.discretised_gaussian(X, X, X + 800, 17), r"exp\(log_var\) must exist in float64"),
    (lambda: likelihood.dequantise(X + 3, X + 0.5, 17), r"dequantise: x0 must lie in \[-1, 1\]"),
    (lambda: likelihood.dequantise(X + 0.03, X + 0.5, 17), "up to 0.24 of a step off it"),
    (lambda: likelihood.dequantise(X, X + 1.5, 17), r"u must lie in \[0, 1\]"),
    (lambda: gaussian.kl_normal(X, X + 400, X, X - 400), r"exp\(log_var_q - log_var_p\) must exist"),
    (lambda: elbo.score_function(X[:, 0], X, X - 1500, X), r"exp\(log_var\) must exist"),
    (lambda: dequantise.logistic_noise(X, X, X + 800), r"exp\(log_scale\) must exist"),
    (lambda: flow.actnorm(X, X[0] + 800, X[0]), r"exp\(log_scale\) must exist"),
    (lambda: flow.lu_weight(*np.zeros((3, 2, 2)), np.array([1.0, 0.0]), np.zeros(2)), "the weight is singular"),
    (lambda: quantise.gumbel(np.zeros(1)), "u must lie in"),
    (lambda: quantise.kl_uniform(X - np.inf), "logits hold NaN or infinity"),
    (lambda: elbo.discretised_logistic(X, X, X, 1), "bins must be at least 2"),
    (lambda: elbo.discretised_logistic(X, X, X + 800, 17), r"exp\(log_scale\) must exist in float64"),
    (lambda: elbo.negative_elbo(np.zeros(2), np.zeros(3)), "one shape"),
    (lambda: elbo.negative_elbo(np.zeros(2), np.zeros(2), -1.0), "beta must not be negative"),
    (lambda: elbo.gaussian_reconstruction(X, X, 0.0), "variance must be positive"),
    (lambda: elbo.probabilistic_pca(X, 2), "k must be in 1..1"),
    (lambda: elbo.probabilistic_pca(np.outer(np.arange(9.0), np.ones(3)), 1), "noise variance is 0"),
    (lambda: gaussian.reparametrise(X, X + 800, X), r"exp\(log_var\) must exist in float64: .* magnitude 800"),
    (lambda: gaussian.kl_normal(X, X * np.nan, X, X), r"exp\(log_var_q\) must exist"),
    (lambda: gaussian.reparametrise(*(a.astype(np.float32) for a in (X, X + 90, X))), "must exist in float32"),
    (lambda: quantise.quantise(np.array([0, 5]), X), r"codes must lie in 0..1, the rows of the codebook, got 0..5"),
    (lambda: quantise.quantise(np.array([-1]), X), r"codes must lie in 0..1, the rows of the codebook, got -1"),
    (lambda: quantise.quantise(np.array([0.5]), X), "codes must be integers"),
    (lambda: quantise.nearest_code(X * np.nan, X), "z holds NaN"),
    (lambda: quantise.nearest_code(X[:, :3], X), "of one D expected"),
    (lambda: quantise.perplexity(np.array([], int), 4), "at least one code"),
    (lambda: quantise.ema_codebook(X[:, 0], X, X, np.array([2]), X[:1]), r"codes must lie in 0..1"),
    (lambda: quantise.gumbel_softmax(X, X, 0.0), "tau must be positive"),
    (lambda: quantise.adaptive_weight(X, X + np.inf), "gradients must be finite"),
    (lambda: flow.squeeze(np.zeros((1, 1, 3, 4))), r"even H and W expected, got shape \(1, 1, 3, 4\)"),
    (lambda: flow.unsqueeze(np.zeros((1, 3, 2, 2))), "4C"),
    (lambda: flow.affine_coupling(X, np.full(4, 0.5), X, X), "a mask holds 0 and 1 only"),
    (lambda: flow.affine_coupling(X, np.ones(4), X + 800, X), r"exp\(s\) must exist"),
    (lambda: flow.mix_channels(np.zeros((1, 2, 1, 1)), np.ones((2, 2))), "w is singular"),
    (lambda: flow.mix_channels(np.zeros((1, 2, 1, 1)), np.full((2, 2), np.nan)), "NaN or infinity"),
    (lambda: flow.lu_factors(np.zeros((2, 2))), "w is singular"),
    (lambda: dequantise.logit_map(X + 2), r"x must lie in \[-1, 1\]"),
    (lambda: energy.log_partition(X * np.nan, 1.0), "NaN"),
    (lambda: energy.contrastive_loss(X[:0, 0], X[:, 0]), "at least one value"),
    (lambda: energy.langevin_step(X, X, 0.0, X), "step must be positive"),
    (lambda: perceptual.stft(X, 8, 4), "T >= size = 8"),
    (lambda: perceptual.feature_loss((X,), (X, X)), "the same layers"),
])
def test_what_is_refused(call, message):
    refuses(call, message)
