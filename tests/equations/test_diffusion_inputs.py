"""Bad input gets one clear sentence, degenerate input a defined value, and float32 stays float32."""
import numpy as np
import pytest
from conftest import refuses

from refimpl import ops
from refimpl.equations import bound, diffusion, gaussian, guidance, mixture, samplers, schedules

S = schedules.cosine(10)
X = np.zeros((2, 3))
T2 = np.array([1, 10])
LEVELS = schedules.levels(S, [10, 5, 1])
ZERO = schedules.zero_terminal_snr(schedules.linear(10, 0.01, 0.3))
M = mixture.mixture([1.0], [[0.0, 0.0, 0.0]], 0.0)


def _sample(predict=lambda x, signal, noise: x, levels=LEVELS, rule=None, **options):
    return samplers.sample(predict, X, levels, rule or samplers.ddim(), ops=ops, **options)


@pytest.mark.parametrize("call, words", [
    (lambda: schedules.from_beta([0.1, 0.0]), r"\(0, 1\], got 0 at t = 2"),
    (lambda: schedules.from_beta([1.5]), r"\(0, 1\]"),
    (lambda: schedules.from_beta([np.nan]), r"\(0, 1\]"),
    (lambda: schedules.from_beta([]), "at least one"),
    (lambda: schedules.linear(0), "T must be"),
    (lambda: schedules.linear(2.5), "T must be"),
    (lambda: schedules.linear(10, rescale=True), r"\(0, 1\]"),
    (lambda: schedules.cosine(10, max_beta=1.5), "max_beta"),
    (lambda: schedules.sigmoid(10, tau=0.0), "tau > 0"),
    (lambda: schedules.scaled_linear(10, -1.0), "positive"),
    (lambda: schedules.zero_terminal_snr(schedules.linear(1)), "at least 2"),
    (lambda: schedules.from_alpha_bar([1, 0.5, 0.6], 0.999), "decrease"),
    (lambda: schedules.level_at(S, 11), r"0\.\.10"),
    (lambda: schedules.level_at(S, 1.0), "integers"),
    (lambda: schedules.timesteps(10, 11, "leading"), r"1\.\.10"),
    (lambda: schedules.timesteps(10, 0, "leading"), r"1\.\.10"),
    (lambda: schedules.timesteps(10, 5, "even"), "spacing"),
    (lambda: schedules.timesteps(10, 10, "leading", offset=1), "offset"),
    (lambda: schedules.levels(S, [5, 5]), "decrease"),
    (lambda: schedules.levels(S, [1, 5]), "decrease"),
    (lambda: schedules.levels(S, [5, 0]), "decrease strictly within"),
    (lambda: schedules.label_of_level(schedules.linear(10), 0.0, 1.0), "noisier"),
    (lambda: schedules.label_of_level(S, 0.0, 0.0), "not both 0"),
    (lambda: schedules.label_of_level(S, np.nan, 1.0), "at least 0"),
    (lambda: diffusion.posterior(X, X, np.array([0, 1]), S), r"1\.\.10, got 0\.\.1"),
    (lambda: diffusion.posterior(X, X, np.array([1, 11]), S), r"1\.\.10"),
    (lambda: diffusion.posterior(X, X[:1], T2[:1], S), "one shape"),
    (lambda: diffusion.posterior(X, X, np.array([1]), S), r"\(N,\)"),
    (lambda: diffusion.marginal(X, np.array([0, 1]), S), r"1\.\.10"),
    (lambda: diffusion.forward_step(X, np.array([0.5, 1]), S), "integers"),
    (lambda: diffusion.posterior_from_eps(X, X, T2, ZERO), "alpha_t is 0"),
    (lambda: diffusion.convert(X, X, 0.0, 1.0, "eps", "x0"), "does not determine"),
    (lambda: diffusion.convert(X, X, 1.0, 0.0, "x0", "eps"), "does not determine"),
    (lambda: diffusion.convert(X, X, 1.0, 0.0, "score", "eps"), "score is infinite"),
    (lambda: diffusion.training_target("score", X, X, 1.0, 0.0), "score is infinite"),
    (lambda: diffusion.training_target("noise", X, X, 1.0, 0.0), "prediction must be"),
    (lambda: diffusion.simple_loss(X[:0], X[:0]), "empty"),
    (lambda: bound.eps_weight(1, S, 0.0), "positive"),
    (lambda: bound.discretised_gaussian(X, X, X, 1), "bins"),
    (lambda: bound.bound_term(X, X, np.array([0, 1]), S, X, X, 17), r"1\.\.10"),
    (lambda: gaussian.kl_normal(X, X, X, X[:1]), "one shape"),
    (lambda: guidance.guided_by_weight(X, X[:1], 1.0), "one shape"),
    (lambda: mixture.mixture([0.5, 0.6], [[0.0], [1.0]], 1.0), "sum to 1"),
    (lambda: mixture.mixture_score(X, M, 1.0, 0.0), "variance 0"),
    (lambda: mixture.tweedie(X, X, 0.0, 1.0), "signal 0"),
    (lambda: samplers.ddim(1.5), r"eta must be in \[0, 1\]"),
    (lambda: samplers.ddpm("medium"), "variance must be"),
    (lambda: _sample(levels=LEVELS[:0]), "at least one"),
    (lambda: _sample(levels=LEVELS * np.nan), "finite"),
    (lambda: _sample(levels=LEVELS[::-1]), "cleaner"),
    (lambda: _sample(levels=schedules.levels(ZERO, [10, 1])), "does not determine"),
    (lambda: _sample(rule=samplers.ddpm()), "give key"),
    (lambda: _sample(guidance=2.0), "needs a condition"),
    (lambda: _sample(clip=(-1, 1)), "rederive_eps"),
    (lambda: _sample(prediction="noise"), "prediction must be"),
    (lambda: _sample(lambda x, signal, noise: x * np.nan), "not finite"),
    (lambda: _sample(rule=samplers.ddpm("learned"), key=1), "learned variance needs 6 channels"),
])
def test_one_clear_sentence(call, words):
    refuses(call, words)


def test_dtypes_do_not_mix():
    with pytest.raises(TypeError, match="float32"):
        diffusion.posterior(X, X.astype(np.float32), T2, S)


def test_float32_stays_float32():
    x = np.ones((2, 3), dtype=np.float32)
    outputs = [diffusion.forward_step(x, T2, S)[0], diffusion.marginal(x, T2, S)[0],
               diffusion.posterior(x, x, T2, S)[0],
               diffusion.posterior_from_eps(x, x, T2, S)[0], diffusion.convert(x, x, 0.6, 0.8, "eps", "v"),
               diffusion.training_target("v", x, x, 0.6, 0.8), bound.prior_kl(x, S), gaussian.kl_normal(x, x, x, x),
               gaussian.log_normal(x, x, x), gaussian.entropy_normal(x), bound.bits_per_dim(x[:, 0], x),
               bound.discretised_gaussian(x, x, x, 17), bound.bound_term(x, x, T2, S, x, x, 17),
               bound.learned_log_variance(x, T2, S), guidance.guided_by_scale(x, x, 2.0),
               samplers.sample(lambda x, signal, noise: x, x, LEVELS, samplers.ddpm(), ops=ops, key=1),
               mixture.mixture_score(x, M, 1.0, 1.0), mixture.mixture_denoiser(x, M, 1.0, 1.0)]
    assert [o.dtype for o in outputs] == [np.float32] * len(outputs)


def test_zero_terminal_snr_is_sampled_with_v():
    x = np.random.default_rng(0).standard_normal((4, 3))
    levels = schedules.levels(ZERO, [10, 5, 1])
    point = np.array([0.3, -1.0, 2.0])
    for rule in (samplers.ddim(), samplers.ddim(1.0), samplers.ddpm(), samplers.ddpm("large")):
        y = samplers.sample(lambda x, a, s: diffusion.convert(point + 0 * x, x, a, s, "x0", "v"), x, levels, rule,
                            ops=ops, prediction="v", key=3)
        np.testing.assert_allclose(y, np.broadcast_to(point, y.shape), atol=1e-12)


def test_learned_variance_lies_where_the_network_says():
    levels = schedules.levels(schedules.linear(), [500, 499, 0][:2])[:2]
    _, large, small = samplers.transition(*levels)
    for o, variance in ((-1.0, small), (1.0, large), (0.0, (small * large) ** 0.5)):
        def predict(x, signal, noise, o=o):
            return np.concatenate([x, 0 * x + o], axis=1)

        a, b = (samplers.sample(predict, X, levels, samplers.ddpm("learned"), ops=ops, noise=lambda draw, z=z: X + z)
                for z in (0.0, 1.0))
        np.testing.assert_allclose(b - a, variance**0.5, rtol=1e-12)


def test_clip_and_both_fates_of_eps():
    """One DDIM step by hand: x0_hat clipped, eps raw or re-derived."""
    x, e, (signal, noise), (signal_s, noise_s) = X + 2.0, X - 1.0, LEVELS[1], LEVELS[2]
    x0 = np.clip((x - noise * e) / signal, -1, 1)
    for rederive, eps in ((False, e), (True, (x - signal * x0) / noise)):
        y = samplers.sample(lambda *_: e, x, LEVELS[1:3], samplers.ddim(), ops=ops, clip=(-1, 1), rederive_eps=rederive)
        np.testing.assert_allclose(y, signal_s * x0 + noise_s * eps, atol=1e-12)
    y = samplers.sample(lambda *_: e, x, LEVELS[1:3], samplers.ddim(), ops=ops, rederive_eps=True,
                        clip=lambda x0_hat: (np.full(2, -1.0), np.full(2, 1.0)))
    np.testing.assert_allclose(y, signal_s * x0 + noise_s * (x - signal * x0) / noise, atol=1e-12)


def test_a_clip_sees_the_guided_estimate():
    """A clip that is a function is handed the estimate after guidance, before clipping."""
    x, e_c, e_u, (signal, noise) = X + 2.0, X - 1.0, X + 0.5, LEVELS[1]
    seen = []
    samplers.sample(lambda *_: (e_c, e_u), x, LEVELS[1:3], samplers.ddim(), ops=ops, rederive_eps=True, guidance=3.0,
                    clip=lambda x0_hat: seen.append(x0_hat) or (-1.0, 1.0))
    np.testing.assert_allclose(seen[0], (x - noise * (e_u + 3 * (e_c - e_u))) / signal, rtol=1e-12)


def test_wide_gaussians_over_narrow_bins():
    """Where a bin is far narrower than the Gaussian its mass is the density times the width, to every digit."""
    x0, mean = np.array([[0.25, -0.5]]), np.array([[3.0, -2.0]])
    for log_var in (10.0, 25.0, 40.0):
        args = x0, mean, np.full((1, 2), log_var)
        density = gaussian.log_normal(*args) + 2 * np.log(2 / 16)
        np.testing.assert_allclose(bound.discretised_gaussian(*args, 17), density, rtol=1e-6)
    assert schedules.zero_terminal_snr(schedules.linear(2)).alpha_bar[-1] == 0


def test_a_sample_does_not_depend_on_its_batch():
    def run(index):
        x = ops.normal(5, index, 0, (3,), dtype=np.float64)
        return samplers.sample(lambda x, a, s: s * x, x, LEVELS, samplers.ddpm(), ops=ops, key=7, index=index)

    np.testing.assert_array_equal(run(np.arange(6))[4:], run(np.array([4, 5])))


def test_after_may_replace_and_guidance_may_vary():
    seen = []
    y = samplers.sample(lambda x, a, s: (x, 0 * x), X + 1, LEVELS, samplers.ddim(), ops=ops,
                        guidance=lambda signal, noise: seen.append((signal, noise)) or 2.0,
                        after=lambda i, x, x0_hat: x * 0 + i)
    assert seen == [tuple(row) for row in LEVELS[:-1]] and (y == 2).all()
