"""Errors in the lecture texts: each check fails on the printed form and passes on the corrected one."""
import numpy as np
import pytest

from refimpl.equations import bound, diffusion, guidance, mixture, schedules

LINEAR = schedules.linear()


def verdicts(check, printed, corrected):
    assert not check(printed), "the printed form passes: the check shows nothing"
    assert check(corrected)


def test_1_alpha_is_one_minus_beta():
    """Printed: alpha_t = beta_t. A step must keep the variance of unit-variance data."""
    def keeps_variance(alpha):
        return np.allclose(alpha + LINEAR.beta, 1, rtol=0, atol=1e-12)

    verdicts(keeps_variance, LINEAR.beta, LINEAR.alpha)


def test_2_two_steps_in_one():
    """Printed: deviation sqrt(alpha_t (1 - alpha_{t-1}) + sqrt(1 - alpha_t)). Two steps of the chain say otherwise."""
    t = 700
    first = diffusion.forward_step(np.ones((1, 1)), np.array([t - 1]), LINEAR)[1]
    gain, second = diffusion.forward_step(np.ones((1, 1)), np.array([t]), LINEAR)
    a, b = LINEAR.alpha[t], LINEAR.alpha[t - 1]

    def is_two_steps(deviation):
        return abs(deviation**2 - (gain.item() ** 2 * first[0] + second[0])) < 1e-12

    verdicts(is_two_steps, np.sqrt(a * (1 - b) + np.sqrt(1 - a)), np.sqrt(a * (1 - b) + 1 - a))


def test_3_partition_function():
    """Printed: Z = integral of p. Only Z = integral of exp(f) makes exp(f)/Z a density."""
    m, x = mixture.mixture([0.3, 0.7], [[-1.0], [2.0]], 0.5), np.linspace(-12, 14, 4001)[:, None]
    p, dx = np.exp(mixture.mixture_log_density(x, m, 1.0, 0.0)), x[1, 0] - x[0, 0]
    f = np.log(p) + 1.7

    def normalises(z):
        return abs(np.sum(np.exp(f)) * dx / z - 1) < 1e-9

    verdicts(normalises, np.sum(p) * dx, np.sum(np.exp(f)) * dx)


def test_5_last_beta():
    """Printed: beta_T = .04 "originally". Ho et al.: .02, and alpha_bar_T = 4.04e-5."""
    def is_published(beta_T):
        return abs(schedules.linear(1000, 1e-4, beta_T).alpha_bar[-1] / 4.035829765e-5 - 1) < 1e-9

    verdicts(is_published, 0.04, 0.02)
    assert schedules.linear(1000, 1e-4, 0.04).alpha_bar[-1] == pytest.approx(1.49e-9, rel=5e-3)


def test_6_weight_of_the_squared_error(rng):
    """Printed: 1/(2 norm(sigma I)^2), no constant. The Frobenius norm is off by D; the variances leave a constant."""
    d, t, variance = 5, np.array([400]), LINEAR.beta[400]
    x0, eps, eps_hat = rng.standard_normal((3, 1, d))
    signal, noise = schedules.level_at(LINEAR, t)
    x_t = signal * x0 + noise * eps
    mean, beta_tilde = diffusion.posterior(x0, x_t, t, LINEAR)
    model, _ = diffusion.posterior_from_eps(eps_hat, x_t, t, LINEAR)
    term = bound.bound_term(x0, x_t, t, LINEAR, model, np.full((1, d), np.log(variance)), 256)
    squared = np.sum((mean - model) ** 2)
    constant = d / 2 * (beta_tilde / variance - 1 + np.log(variance / beta_tilde))

    def is_the_divergence(value):
        return abs(value / term - 1) < 1e-9

    verdicts(is_the_divergence, squared / (2 * np.linalg.norm(variance**0.5 * np.eye(d)) ** 2) + constant,
             squared / (2 * variance) + constant)
    verdicts(is_the_divergence, squared / (2 * variance), squared / (2 * variance) + constant)


def test_7_what_the_cosine_clips():
    """Printed: keep alpha_t in [e, 1-e]. That floods the first steps with noise; without a clip alpha_bar_T is 0."""
    wanted = (np.cos(np.pi * np.arange(1001) / 1000) + 1) / 2

    def is_usable(s):
        return s.alpha_bar[-1] > 0 and np.max(abs(s.alpha_bar - wanted)) < 1e-6

    unclipped = schedules.bare_cosine(max_beta=1.0)
    printed = schedules.from_beta(1 - np.clip(unclipped.alpha[1:], 0.001, 0.999))
    verdicts(is_usable, printed, schedules.bare_cosine())
    verdicts(is_usable, unclipped, schedules.bare_cosine())


def test_8_reverse_variance_is_not_bounded_by_beta():
    """Printed: sigma^2 between beta_tilde and beta are "proven bounds". Only for unit variance."""
    t = 501

    def beta_is_a_bound(data_variance):
        before, after = (LINEAR.alpha_bar[k] * data_variance + 1 - LINEAR.alpha_bar[k] for k in (t - 1, t))
        by_conditioning = before - LINEAR.alpha[t] * before**2 / after  # Var(x_{t-1} | x_t) of two joint Gaussians
        assert bound.optimal_variance(t, LINEAR, data_variance) == pytest.approx(by_conditioning, rel=1e-9)
        return by_conditioning <= LINEAR.beta[t] * (1 + 1e-9)

    verdicts(beta_is_a_bound, 25.0, 1.0)
    assert bound.optimal_variance(t, LINEAR, 25.0) / LINEAR.beta[t] == pytest.approx(1.0066, abs=5e-5)


def test_9_step_noise_is_not_total_noise(rng):
    """Printed: sigma_1 e_1 + sigma_2 e_2 "=" one normal, one symbol. The sum has that law; it is none of its terms."""
    t, x0 = np.array([60]), rng.standard_normal((1, 4))
    x_t, steps = x0, rng.standard_normal((60, 1, 4))
    for k in range(1, 61):
        mean, beta = diffusion.forward_step(x_t, np.array([k]), LINEAR)
        x_t = mean + beta**0.5 * steps[k - 1]
    signal, noise = schedules.level_at(LINEAR, t)
    wanted, _ = diffusion.posterior(x0, x_t, t, LINEAR)

    def gives_the_posterior(eps):
        return np.max(abs(diffusion.posterior_from_eps(eps, x_t, t, LINEAR)[0] - wanted)) < 1e-10

    verdicts(gives_the_posterior, steps[-1], (x_t - signal * x0) / noise)


def test_11_two_guidance_conventions(rng):
    """Printed: c + w (c - 0) and elsewhere 0 + w (c - 0), one w. They agree where the scale is 1 + w."""
    e_c, e_u, w = rng.standard_normal((2, 3)), rng.standard_normal((2, 3)), 0.5

    def agrees_with_the_paper(scale):
        return np.allclose(guidance.guided_by_scale(e_c, e_u, scale), guidance.guided_by_weight(e_c, e_u, w),
                           rtol=0, atol=1e-12)

    verdicts(agrees_with_the_paper, w, guidance.scale_of_weight(w))


def test_15_digits_are_not_standardised():
    """Printed: data of zero mean and unit variance. Digits in [-1, 1] are neither, so neither is x_t."""
    datasets = pytest.importorskip("sklearn.datasets")
    x0 = datasets.load_digits().data / 8 - 1
    mean, variance = x0.mean(), x0.var(axis=0).mean()
    assert mean == pytest.approx(-0.39, abs=5e-3) and variance == pytest.approx(0.29, abs=5e-3)
    t = 300
    signal, noise = schedules.level_at(LINEAR, t)
    rng = np.random.default_rng(0)
    x_t = signal * x0 + noise * rng.standard_normal(x0.shape)

    def describes_x_t(moments):
        return abs(x_t.mean() - moments[0]) < 0.01 and abs(x_t.var(axis=0).mean() - moments[1]) < 0.01

    verdicts(describes_x_t, (0.0, 1.0), (signal * mean, signal**2 * variance + noise**2))
