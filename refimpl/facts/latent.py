"""Latent-variable models and quantisation: gradients, and what is known in closed form."""
import math

import numpy as np

from refimpl import ops
from refimpl.equations import elbo, gaussian, quantise

from . import fact
from .gradients import pair


def _two(d):
    return d.integer(1, 3), d.integer(1, 4)


@pair(elbo.log_bernoulli, elbo.log_bernoulli_vjp, "logits")
def _log_bernoulli(d):
    shape = _two(d)
    return {"x": ops.sigmoid(d.array(*shape)), "logits": 2 * d.array(*shape)}


@pair(elbo.discretised_logistic, elbo.discretised_logistic_vjp, "mean", "log_scale")
def _discretised_logistic(d):
    bins, shape = d.integer(2, 256), _two(d)
    x0 = 2 * np.round((bins - 1) * ops.sigmoid(2 * d.array(*shape))) / (bins - 1) - 1
    return {"x0": x0, "mean": d.array(*shape), "log_scale": d.array(*shape) - 2, "bins": bins}


@pair(elbo.negative_elbo, elbo.negative_elbo_vjp, "log_likelihood", "kl")
def _negative_elbo(d):
    n = d.integer(1, 5)
    return {"log_likelihood": d.array(n), "kl": d.array(n), "beta": d.real(0.1, 4)}


@pair(elbo.free_bits, elbo.free_bits_vjp, "kl", analytic=False)
def _free_bits(d):
    return {"kl": d.array(*_two(d)) ** 2, "least": d.real(0.1, 1)}


@pair(elbo.importance_weighted_bound, elbo.importance_weighted_bound_vjp, "log_w")
def _importance_weighted_bound(d):
    return {"log_w": 3 * d.array(*_two(d))}


@pair(elbo.gaussian_reconstruction, elbo.gaussian_reconstruction_vjp, "x", "mean")
def _gaussian_reconstruction(d):
    shape = _two(d)
    return {"x": d.array(*shape), "mean": d.array(*shape), "variance": d.real(0.1, 2)}


def _vectors(d):
    shape = (d.integer(1, 3), d.integer(1, 3), d.integer(1, 4))
    return {"z": d.array(*shape), "e": d.array(*shape)}


pair(quantise.codebook_loss, quantise.codebook_loss_vjp, "e")(_vectors)


@pair(quantise.commitment_loss, quantise.commitment_loss_vjp, "z")
def _commitment_loss(d):
    return _vectors(d) | {"beta": d.real(0.1, 2)}


@pair(quantise.gumbel_softmax, quantise.gumbel_softmax_vjp, "logits", "g")
def _gumbel_softmax(d):
    shape = (*_two(d), d.integer(1, 5))
    return {"logits": d.array(*shape), "g": d.array(*shape), "tau": d.real(0.3, 2)}


@pair(quantise.kl_uniform, quantise.kl_uniform_vjp, "logits")
def _kl_uniform(d):
    return {"logits": 2 * d.array(*_two(d), d.integer(1, 5))}


@fact("F-C2", elbo.linear_gaussian_evidence, elbo.linear_gaussian_posterior, elbo.negative_elbo, tolerance=1e-9)
def elbo_is_the_evidence_less_a_divergence(d):
    """E_q log p(x|z) - KL(q || prior) = log p(x) - KL(q || posterior) for any Gaussian q of a linear-Gaussian model."""
    D, k, variance = d.integer(2, 5), d.integer(1, 3), d.real(0.2, 2)
    x, w, b, m, log_var = d.array(1, D), d.array(D, k), d.array(D), d.array(1, k), d.array(1, k)
    cov = np.exp(log_var[0])
    # E norm(x - W z - b)^2 = norm(x - W m - b)^2 + tr(W S W^T)
    likelihood = elbo.gaussian_reconstruction(x, m @ w.T + b, variance) - np.sum(w * w * cov) / (2 * variance)
    bound = -elbo.negative_elbo(likelihood, gaussian.kl_normal(m, log_var, 0 * m, 0 * m))
    mean, post = elbo.linear_gaussian_posterior(x, w, b, variance)
    inverse, gap = np.linalg.inv(post), (mean - m)[0]
    kl = (np.trace(inverse * cov) + gap @ inverse @ gap - k + np.linalg.slogdet(post)[1] - np.sum(log_var)) / 2
    exact = elbo.linear_gaussian_evidence(x, w, b, variance)[0]
    return float(abs(bound - exact + kl) / (1 + abs(exact) + kl))


@fact("F-C2", elbo.probabilistic_pca, elbo.linear_gaussian_evidence, tolerance=1e-6)
def pca_is_stationary(d):
    """The likelihood of probabilistic PCA does not change to first order in any direction: it is the most likely."""
    D, k = d.integer(3, 5), d.integer(1, 2)
    x = d.array(40, D) * (1 + np.arange(D))
    w, b, variance = elbo.probabilistic_pca(x, k)
    dw, db, dv = d.array(D, k), d.array(D), d.real(-1, 1)
    at = lambda h: np.mean(elbo.linear_gaussian_evidence(x, w + h * dw, b + h * db, variance + h * dv))
    return float(abs(at(1e-4) - at(-1e-4)) / 2e-4)


@fact("F-C2", elbo.importance_weighted_bound, tolerance=1e-9)
def weights_of_the_posterior_are_constant(d):
    """With q the exact posterior every weight is the evidence, so the bound is tight for one sample and for many."""
    k, variance = d.integer(1, 4), d.real(0.2, 2)
    w, b, x, z = d.array(3, 1), d.array(3), d.array(1, 3), d.array(k, 1)
    mean, cov = elbo.linear_gaussian_posterior(x, w, b, variance)
    log_var = np.log(cov) + 0 * z
    z = gaussian.reparametrise(mean + 0 * z, log_var, z)
    joint = elbo.gaussian_reconstruction(x + np.zeros((k, 1)), z @ w.T + b, variance) + gaussian.log_normal(
        z, 0 * z, 0 * z)
    bound = elbo.importance_weighted_bound((joint - gaussian.log_normal(z, mean + 0 * z, log_var))[None])
    exact = elbo.linear_gaussian_evidence(x, w, b, variance)
    return float(abs(bound - exact)[0] / (1 + abs(exact[0])))


@fact("F-C3", elbo.score_function, gaussian.reparametrise_vjp, tolerance=1e-9)
def both_gradient_estimates_and_their_variances(d):
    """For f = x^2 both estimates have mean 2 mu; their variances are mu^4/s^2 + 14 mu^2 + 15 s^2 and 4 s^2."""
    mu, log_var = d.real(-2, 2), d.real(-1, 1)
    s2 = math.exp(log_var)
    z, p = np.polynomial.hermite_e.hermegauss(12)
    z, p, m = z[:, None], p / p.sum(), mu + np.zeros((12, 1))
    x = gaussian.reparametrise(m, log_var + 0 * m, z)
    path = gaussian.reparametrise_vjp(2 * x, m, log_var + 0 * m, z)
    score = elbo.score_function(x[:, 0] ** 2, m, log_var + 0 * m, z)
    errors = []
    for (dmean, dlog_var), variance in ((path[:2], 4 * s2), (score, mu**4 / s2 + 14 * mu**2 + 15 * s2)):
        errors += [abs(p @ dmean[:, 0] - 2 * mu), abs(p @ dlog_var[:, 0] - s2),
                   abs(p @ dmean[:, 0] ** 2 - 4 * mu**2 - variance) / variance]
    return float(max(errors))


@fact("F-C1", elbo.discretised_logistic, tolerance=1e-12)
def bins_share_all_the_probability(d):
    """The probabilities of all grid values sum to 1, also where a bin is a hundredth of the scale, or the scale of it.
    """
    bins = d.integer(2, 64)
    x0 = np.linspace(-1, 1, bins)[:, None]
    logs = elbo.discretised_logistic(x0, d.real(-1, 1) + 0 * x0, d.real(-6, 2) + 0 * x0, bins)
    return float(abs(np.sum(np.exp(logs)) - 1))


@fact("F-C4", quantise.codebook_loss, quantise.commitment_loss, tolerance=1e-14)
def beta_belongs_to_the_encoder(d):
    """d/de = 2 (e - z)/M without beta and d/dz = 2 beta (z - e)/M with it; the value is symmetric."""
    inputs, beta = _vectors(d), d.real(0.1, 0.9)
    z, e = inputs["z"], inputs["e"]
    m = z.size // z.shape[-1]
    de = quantise.codebook_loss_vjp(1.0, e, z)
    dz = quantise.commitment_loss_vjp(1.0, z, e, beta)
    value = quantise.codebook_loss(e, z) + quantise.commitment_loss(z, e, beta)
    swapped = quantise.commitment_loss(e, z, beta) + quantise.codebook_loss(z, e)
    return float(max(np.max(abs(de - 2 * (e - z) / m)), np.max(abs(dz - 2 * beta * (z - e) / m)),
                     abs(value - swapped) / (1 + value)))


@fact("F-C4", quantise.straight_through, quantise.straight_through_vjp, tolerance=0)
def straight_through_is_an_identity_backwards(d):
    """Forwards the codebook's row to the bit, backwards the cotangent to the bit."""
    inputs = _vectors(d)
    dy = d.array(*inputs["z"].shape)
    return float(max(np.max(abs(quantise.straight_through(**inputs) - inputs["e"])),
                     np.max(abs(quantise.straight_through_vjp(dy, **inputs) - dy))))


@fact("F-C5", quantise.ema_codebook, quantise.kmeans_step, quantise.nearest_code, tolerance=1e-12)
def moving_averages_and_centroids(d):
    """With decay 0 an EMA step is a k-means step; with any decay the centroids of a fixed assignment stay fixed."""
    K, D, decay = d.integer(1, 4), d.integer(1, 3), d.real(0.1, 0.95)
    z, codebook = d.array(d.integer(1, 12), D), d.array(K, D)
    codes, zeros = quantise.nearest_code(z, codebook), np.zeros(K)
    kmeans = quantise.kmeans_step(z, codebook)
    counts, sums, at_once = quantise.ema_codebook(zeros, 0 * codebook, codebook, codes, z, 0.0, 0.0)
    *_, fixed = quantise.ema_codebook(counts, sums, at_once, codes, z, decay, 0.0)
    return float(max(np.max(abs(at_once - kmeans)), np.max(abs(fixed - kmeans))))


@fact("F-C5", quantise.ema_codebook, tolerance=1e-12)
def counts_are_a_plain_average(d):
    """After any number of steps the counts sum to 1 - decay^steps of the vectors seen: no smoothing gets into them."""
    K, m, steps, decay = d.integer(2, 5), d.integer(1, 6), d.integer(1, 6), d.real(0.1, 0.9)
    counts, sums, codebook = np.zeros(K), np.zeros((K, 2)), d.array(K, 2)
    expected = np.zeros(K)
    for _ in range(steps):
        z = d.array(m, 2)
        codes = quantise.nearest_code(z, codebook)
        expected = decay * expected + (1 - decay) * np.bincount(codes, minlength=K)
        counts, sums, codebook = quantise.ema_codebook(counts, sums, codebook, codes, z, decay, 0.1)
    return float(max(np.max(abs(counts - expected)), abs(counts.sum() - m * (1 - decay**steps))))


@fact("F-C6", quantise.gumbel_softmax, ops.softmax, tolerance=1e-12)
def rows_of_the_jacobian_sum_to_zero(d):
    """Adding one number to all logits changes nothing, so each row of the Jacobian sums to 0; so for the Gumbel one."""
    inputs = _gumbel_softmax(d)
    dy = d.array(*inputs["logits"].shape)
    rows = [ops.softmax_vjp(dy, inputs["logits"]), quantise.gumbel_softmax_vjp(dy, **inputs)[0]]
    return float(max(np.max(abs(np.sum(r, axis=-1))) / (1 + np.max(abs(dy))) for r in rows))


@fact("F-C6", quantise.gumbel, quantise.gumbel_softmax, tolerance=1e-9)
def cold_samples_are_one_hot(d):
    """As tau goes to 0 the relaxed sample is the one-hot vector of the largest logit + noise."""
    logits, u = d.array(3, 4), ops.uniform(d.key(), np.arange(3), 0, (4,), np.float64)
    g = quantise.gumbel(u)
    two = np.sort(logits + g)
    gap = np.min(two[:, -1] - two[:, -2])
    y = quantise.gumbel_softmax(logits, g, gap / 40)
    return float(np.max(abs(y - (np.argmax(logits + g, axis=1)[:, None] == np.arange(4)))))


@fact("F-C6", quantise.perplexity, quantise.kl_uniform, tolerance=1e-9)
def entropy_from_both_sides(d):
    """KL(q || uniform) = log K - log perplexity(q), q having counts as its weights."""
    K = d.integer(1, 5)
    counts = np.array([d.integer(1, 6) for _ in range(K)])
    value = quantise.kl_uniform(np.log(counts / counts.sum())[None])[0]
    return float(abs(value - math.log(K) + math.log(quantise.perplexity(np.repeat(np.arange(K), counts), K))))


@fact("F-C4", quantise.adaptive_weight, tolerance=1e-9)
def weighted_gradients_are_equally_long(d):
    """lambda times the adversarial gradient is as long as the reconstruction's, but for delta."""
    g, h, delta = d.array(3, 4), d.array(3, 4), d.real(1e-6, 1e-3)
    norms = [np.sqrt(np.sum(a * a)) for a in (g, h)]
    return float(abs(quantise.adaptive_weight(g, h, delta) * (norms[1] + delta) - norms[0]))
