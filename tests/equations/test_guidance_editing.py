"""Guidance and editing: steps by hand, published orders, what must be exact, and what must go down."""
import numpy as np
import pytest
from conftest import refuses

from refimpl import ops
from refimpl.equations import continuous, diffusion, editing, guidance, mixture, objectives, samplers, schedules

S = schedules.cosine(100)
LEVELS = schedules.levels(S, schedules.timesteps(100, 20, "trailing"))
M = mixture.mixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 0.1)


def eps(x, signal, noise):
    return -noise * mixture.mixture_score(x, M, signal, noise)


def test_classifier_guidance_of_the_mean_by_hand():
    """Both printed and derived: the mean moves by scale sigma^2 times the gradient, at x_t or at the mean itself."""
    x, z, scale = np.array([[0.4, -0.7]]), np.array([[0.2, 0.1]]), 1.5
    pair = LEVELS[5:7]
    (stage,) = samplers.ddpm()(pair, 0)
    mean = samplers.sample(eps, x, pair, samplers.ddpm(), ops=ops, noise=lambda draw: 0 * z)

    def gradient(x, signal, noise):
        return np.sin(x) * signal + noise

    for at, where, level in (("mean", mean, pair[1]), ("x_t", x, pair[0])):
        y = samplers.sample(eps, x, pair, guidance.classifier_shifted(samplers.ddpm(), gradient, scale, at), ops=ops,
                            noise=lambda draw: z)
        expected = mean + scale * stage.sigma**2 * gradient(where, *level) + stage.sigma * z
        np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_both_places_of_the_gradient_agree_to_second_order():
    """Halving the step quarters the difference between the gradient at x_t and at the mean."""
    x, differences = np.array([[0.4, -0.7]]), []
    for h in (0.004, 0.002):
        pair = np.stack(continuous.vp_level(np.array([0.5, 0.5 - h])), axis=1)
        rules = [guidance.classifier_shifted(samplers.ddpm(), lambda x, *_: np.sin(x), 1.0, at)
                 for at in ("mean", "x_t")]
        ends = [samplers.sample(eps, x, pair, rule, ops=ops, noise=lambda draw: 0 * x) for rule in rules]
        differences.append(np.max(abs(ends[0] - ends[1])))
    assert np.log2(differences[0] / differences[1]) == pytest.approx(2, abs=0.1)


def test_the_last_step_asks_no_classifier():
    """Its variance is 0: the classifier is not asked about a clean image, where a score may not exist."""
    asked = lambda x, signal, noise: x / noise
    x, rule = np.array([[0.4, -0.7]]), samplers.ddpm()
    ends = [samplers.sample(eps, x, LEVELS[-2:], r, ops=ops) for r in (rule, guidance.classifier_shifted(rule, asked, 1.0))]
    np.testing.assert_array_equal(*ends)


def test_interval():
    s = guidance.interval(3.0, 0.5, 2.0)
    assert [s(1.0, noise) for noise in (0.4, 0.5, 0.51, 2.0, 2.01)] == [1.0, 1.0, 3.0, 3.0, 1.0]
    assert s(0.0, 1.0) == 1.0


def test_thresholded_sampling():
    """Percentile 1 of an estimate within range changes nothing; guided out of range, the sample stays within it."""
    x = np.random.default_rng(0).standard_normal((5, 2))

    def within(x, signal, noise):
        return (x - signal * 0.9 * np.tanh(x)) / noise

    plain = samplers.sample(within, x, LEVELS, samplers.ddim(), ops=ops)
    same = samplers.sample(guidance.thresholded(within, 1.0), x, LEVELS, samplers.ddim(), ops=ops, prediction="x0")
    np.testing.assert_allclose(same, plain, atol=1e-9)
    wild = guidance.thresholded(lambda x, a, s: (within(x, a, s), within(-x, a, s)), 0.9, guidance=8.0)
    assert np.max(abs(samplers.sample(wild, x, LEVELS, samplers.ddim(), ops=ops, prediction="x0"))) <= 1


def test_loss_guidance_lowers_the_loss():
    """A sampler guided by norm(x0_hat - goal)^2/2 ends nearer the goal than one that is not."""
    x, goal = np.random.default_rng(0).standard_normal((20, 2)), np.array([1.0, 0.4])

    def network(x, signal, noise):
        return eps(x, signal, noise), lambda de: -noise * mixture.mixture_score_vjp(de, x, M, signal, noise)

    ends = []
    for scale in (0.0, 2.0):
        guided = guidance.loss_guided(network, lambda x0_hat: x0_hat - goal, scale)
        y = samplers.sample(guided, x, LEVELS, samplers.ddim(), ops=ops)
        ends.append(np.mean(np.sum((y - goal) ** 2, axis=1)))
    assert ends[1] < 0.7 * ends[0]


def test_repaint_order_is_the_published_one():
    """Against the algorithm as its authors print it, which counts from 0 and ends at -1."""
    def published(t_T, jump_len, jump_n_sample):
        jumps = {j: jump_n_sample - 1 for j in range(0, t_T - jump_len, jump_len)}
        t, ts = t_T, []
        while t >= 1:
            t = t - 1
            ts.append(t)
            if jumps.get(t, 0) > 0:
                jumps[t] = jumps[t] - 1
                for _ in range(jump_len):
                    t = t + 1
                    ts.append(t)
        return [*ts, -1]

    for steps, jump, repeats in ((20, 3, 2), (20, 10, 10), (9, 1, 3), (4, 5, 2)):
        levels = schedules.levels(S, schedules.timesteps(100, steps, "trailing"))
        order = editing.repaint_levels(levels, jump, repeats)
        np.testing.assert_array_equal(order, levels[[steps - 1 - t for t in published(steps, jump, repeats)]])


def test_repaint_goes_up_as_the_forward_process_does():
    """Up and down between two levels: the way up has the forward step's moments."""
    up = np.array([LEVELS[8], LEVELS[5]])
    (stage,) = editing.resampling(samplers.ddpm())(up, 0)
    (signal, noise), (signal_t, noise_t) = up
    assert stage.level is None and stage.c_x * signal == pytest.approx(signal_t, rel=1e-12)
    assert stage.c_x**2 * noise**2 + stage.sigma**2 == pytest.approx(noise_t**2, rel=1e-12)


def test_known_pixels_follow_their_own_level():
    """After every step the known part is the known image at that level; at the end it is the image itself."""
    known, mask, seen = np.array([[0.3, -0.8]]), np.array([True, False]), []
    keep = editing.keep_known(known, mask, LEVELS, ops=ops, key=5)

    def after(i, x, x0_hat):
        y = keep(i, x, x0_hat)
        seen.append((y[0, 0], y[0, 1] == x[0, 1]))
        return y

    y = samplers.sample(eps, np.ones((1, 2)), LEVELS, samplers.ddim(), ops=ops, after=after)
    z = [ops.normal(5, np.arange(1), i + 1, (2,), dtype=np.float64)[0, 0] for i in range(len(LEVELS) - 1)]
    np.testing.assert_allclose([v for v, _ in seen], LEVELS[1:, 0] * 0.3 + LEVELS[1:, 1] * np.array(z), atol=1e-12)
    assert y[0, 0] == 0.3 and all(kept for _, kept in seen)


def test_sdedit():
    x = np.array([[0.3, -0.8]])
    for strength, row in ((1.0, 0), (0.5, 10), (0.0, 20)):
        start, rest = editing.sdedit_start(x, LEVELS, strength, np.ones((1, 2)), ops=ops)
        np.testing.assert_array_equal(rest, LEVELS[row:])
        np.testing.assert_allclose(start, LEVELS[row, 0] * x + LEVELS[row, 1])


@pytest.mark.parametrize("call, words", [
    (lambda: guidance.interval(2.0, 1.0, 0.5), "low < high"),
    (lambda: guidance.rescaled(np.ones((1, 3)), np.ones((1, 3)), 0.7), "constant"),
    (lambda: guidance.rescaled(np.ones((1, 1)), np.ones((1, 1)), 0.7), "two values"),
    (lambda: guidance.dynamic_threshold(np.ones((1, 3)), 0.0), r"\(0, 1\]"),
    (lambda: guidance.classifier_shifted(samplers.ddpm(), None, 1.0, "x0"), "at must be"),
    (lambda: guidance.classifier_shifted(samplers.ddpm("learned"), None, 1.0)(LEVELS, 5), "of fixed variance"),
    (lambda: guidance.thresholded(eps, 0.9, guidance=2.0)(np.ones((1, 2)), 0.6, 0.8), "needs a condition"),
    (lambda: editing.repaint_levels(LEVELS, 0, 1), "at least 1"),
    (lambda: editing.sdedit_start(np.ones((1, 2)), LEVELS, 1.5, np.ones((1, 2)), ops=ops), r"\[0, 1\]"),
    (lambda: objectives.loss_weight("snr", "eps", 0.6, 0.8), "kind must be"),
    (lambda: objectives.loss_weight("min_snr", "eps", 0.0, 1.0), "does not determine"),
    (lambda: objectives.loss_weight("edm", "v", 1.0, 0.0), "divides by the noise"),
    (lambda: objectives.bound_weight((0.6, 0.8), (1.0, 0.0)), "infinite at noise 0"),
    (lambda: objectives.bound_weight((0.8, 0.6), (0.6, 0.8)), "cleaner"),
    (lambda: objectives.edm_coefficients(0.0), "positive"),
    (lambda: objectives.record_losses(np.zeros((3, 2)), np.zeros(3, int), [4], [1.0]), r"1\.\.3"),
    (lambda: objectives.importance_of_t(np.zeros((3, 2)), np.zeros(2)), "counts"),
])
def test_one_clear_sentence(call, words):
    refuses(call, words)


def test_hybrid_loss_stops_the_gradient():
    """The bound part trains the variance alone: without frozen the value is the same, and de is the simple loss's."""
    rng = np.random.default_rng(0)
    x0, e, o, noise_of = np.zeros((2, 3)), *rng.standard_normal((3, 2, 3))
    t = np.array([1, 7])
    args = dict(e=e, o=o, x0=x0, x_t=x0 + noise_of, eps=noise_of, t=t, schedule=S, bins=17)
    assert objectives.hybrid_loss(**args) == objectives.hybrid_loss(**args, frozen=e)
    de, do = objectives.hybrid_loss_vjp(1.0, **args)
    np.testing.assert_array_equal(de, diffusion.simple_loss_vjp(1.0, e, noise_of)[0])
    moved = objectives.hybrid_loss(**args | {"e": e + 1e-4}) - objectives.hybrid_loss(**args | {"e": e - 1e-4})
    assert abs(moved / 2e-4 - de.sum()) > 1e-3, "the bound does depend on e: only its gradient is stopped"
    assert np.max(abs(do)) > 0
