"""Adversarial objectives at work: small games whose equilibrium, distance or direction is known."""
import numpy as np
import pytest
from conftest import refuses

from refimpl import ops
from refimpl.equations import adversarial as adv
from refimpl.equations import batchwise, game, metrics, penalty, weights
from refimpl.nets.mlp import mlp, mlp_init
from refimpl.optim import adam


def discrete_game(vjp, p, q, steps=4000, rate=2.0, **options):
    """Gradient descent on one logit per point, real and fake samples drawn in the exact proportions p and q."""
    n, l = 100, np.zeros(len(p))
    real, fake = (np.repeat(np.arange(len(p)), np.round(n * d).astype(int)) for d in (p, q))
    for _ in range(steps):
        dr, df = vjp(1.0, l[real], l[fake], **options)
        l = l - rate * (np.bincount(real, dr, minlength=len(p)) + np.bincount(fake, df, minlength=len(p)))
    return l, adv.value_function(l[real], l[fake])


P, Q = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.1, 0.1, 0.4])


def test_the_discriminator_learns_the_ratio_of_densities():
    """A1: D -> p/(p+q) to 1e-3; at p = q the value is -log 4."""
    l, value = discrete_game(adv.minimax_d_vjp, P, Q)
    assert np.max(abs(ops.sigmoid(l) - P / (P + Q))) < 1e-3
    assert abs(value - (2 * adv.jensen_shannon(P, Q) - np.log(4))) < 1e-3
    assert abs(discrete_game(adv.minimax_d_vjp, P, P)[1] + np.log(4)) < 1e-12


def test_smoothing_is_one_sided():
    """A3: target a for real gives D = a p/(p+q); a target b for fake leaves q in the numerator."""
    one = ops.sigmoid(discrete_game(adv.smoothed_d_vjp, P, Q, real=0.9)[0])
    two = ops.sigmoid(discrete_game(adv.smoothed_d_vjp, P, Q, real=0.9, fake=0.1)[0])
    assert np.max(abs(one - 0.9 * P / (P + Q))) < 1e-3
    assert np.max(abs(two - (0.9 * P + 0.1 * Q) / (P + Q))) < 1e-3


def test_non_saturating_gradient_where_the_discriminator_wins():
    """A2: at l = -10 it is (1-s)/s times the saturating one."""
    l = np.array([-10.0])
    s = ops.sigmoid(l)
    assert abs(adv.non_saturating_g_vjp(1.0, l) / adv.minimax_g_vjp(1.0, l) / ((1 - s) / s) - 1) < 1e-12


@pytest.mark.parametrize("a, b, c, optimum", [(0, 1, 1, P / (P + Q)), (-1, 1, 0, (P - Q) / (P + Q))])
def test_least_squares_codings(a, b, c, optimum):
    """A4: both published codings; the generator's loss pulls l to c."""
    l, _ = discrete_game(adv.lsgan_d_vjp, P, Q, a=a, b=b)
    assert np.max(abs(l - optimum)) < 1e-3
    assert adv.lsgan_g_vjp(1.0, np.array([c + 2.0]), c) == 2 and adv.lsgan_g(np.array([c + 2.0]), c) == 2


def test_distributions_that_do_not_overlap():
    """A6: two points at distance theta: W = |theta| for every theta, while JSD stays log 2 and TV 1."""
    for theta in (0.0, 0.3, -2.0):
        assert metrics.wasserstein_1d(np.zeros(5), np.full(5, theta)) == pytest.approx(abs(theta))
    apart = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert adv.jensen_shannon(*apart) == pytest.approx(np.log(2)) and adv.total_variation(*apart) == 1
    assert np.array_equal(adv.optimal_discriminator(np.array([1.0, 0, 0]), np.array([0, 0.5, 0])), [1, 0, 0.5])


def fit(params, loss_and_grads, steps, rate=2e-3, after=lambda p: p):
    state = {}
    for k in range(steps):
        grads = loss_and_grads(params, k)
        params, state = adam(params, grads, state, rate, beta1=0.5, beta2=0.9)
        params = after(params)
    return params


def critic(params, x, ops):
    return mlp(params, x, ops=ops, activation="leaky_relu")


def critic_grads(params, real, fake, vjp):
    y, pullback = critic(params, np.concatenate([real, fake]), ops)
    return pullback(np.concatenate(vjp(1.0, y[:len(real)], y[len(real):])))[0]


def test_clipped_critic_measures_the_wasserstein_distance():
    """A6: a 1-D critic with clipped weights, over its steepest slope, is within 5 % of the integral of |F - G|."""
    rng = np.random.default_rng(0)
    x, y = 0.2 * rng.standard_normal((256, 1)) - 0.3, 0.15 * rng.standard_normal((256, 1)) + 0.4
    clip = lambda p: weights.clip_weights(p, 0.3)
    params = fit(mlp_init(1, [1, 32, 1], np.float64),
                 lambda p, k: critic_grads(p, x, y, adv.wasserstein_d_vjp), 400, after=clip)
    line = np.linspace(-1, 1, 2000)[:, None]
    f = critic(params, line, ops)[0][:, 0]
    slope = np.max(abs(np.diff(f) / np.diff(line[:, 0])))
    estimate = -adv.wasserstein_d(critic(params, x, ops)[0], critic(params, y, ops)[0]) / slope
    assert abs(estimate / metrics.wasserstein_1d(x[:, 0], y[:, 0]) - 1) < 0.05
    assert all(np.max(abs(p)) <= 0.3 for p in params.values())


def test_lipschitz_gan_points_from_fake_to_real():
    """A9: on disjoint supports the gradient at the fakes points to the real samples; a plain D's need not."""
    rng = np.random.default_rng(0)
    # Two thin parallel lines: between them is what counts, the discriminator's values are free everywhere else.
    real = np.stack([np.zeros(64), rng.uniform(-1, 1, 64)], axis=1)
    fake = np.stack([np.full(64, 2.0), real[:, 1]], axis=1)

    def grads(params, k, weight):
        g = critic_grads(params, real, fake, adv.minimax_d_vjp)
        if weight:
            u = np.random.default_rng(k).uniform(size=64)
            x = penalty.between(real, fake, u)
            _, more, _, _ = penalty.penalise(penalty.max_penalty, penalty.max_penalty_vjp, critic, params, x, ops,
                                             weight=weight)
            g = {n: g[n] + more[n] for n in g}
        return g

    def cosine(weight):
        params = fit(mlp_init(3, [2, 32, 32, 1], np.float64), lambda p, k: grads(p, k, weight), 500)
        y, pullback = critic(params, fake, ops)
        _, g = pullback(np.ones_like(y))
        assert np.all(g[:, 0] != 0)
        return np.mean(-g[:, 0] / penalty.gradient_norms(g)), np.mean(penalty.gradient_norms(g))

    with_penalty, without = cosine(0.5), cosine(0.0)
    assert with_penalty[0] > 0.95
    assert without[0] < with_penalty[0] and without[1] > 2 * with_penalty[1]


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.5])
def test_dirac_gan_flows_as_its_eigenvalues_say(gamma):
    """A8: near the equilibrium a simultaneous step h multiplies by 1 + h lambda; R1 makes it a spiral."""
    h, z = 0.05, 1e-4 * np.array([1.0, 0.5])
    roots = game.dirac_gan_eigenvalues(0.5, gamma)
    start, steps = z, 100
    for _ in range(steps):
        theta, psi = z
        l = np.array([theta * psi])
        _, df = adv.minimax_d_vjp(1.0, np.zeros(1), l)
        r1 = gamma * psi  # of D(x) = psi x at the data: grad D = psi
        z = z - h * np.array([psi * adv.minimax_g_vjp(1.0, l)[0], theta * df[0] + r1])
    m = np.linalg.matrix_power(np.eye(2) + h * game.dirac_gan_matrix(0.5, gamma).T, steps)
    assert np.allclose(z, m @ start, rtol=1e-5, atol=1e-12)
    assert np.allclose(np.sort(abs(np.linalg.eigvals(m))), np.sort(abs(1 + h * roots) ** steps))
    assert (np.max(abs(roots.imag)) > 0) == (gamma < 2 * 0.5)
    assert (np.linalg.norm(z) > np.linalg.norm(start)) == (gamma == 0)


def test_historical_averaging_stops_the_circling():
    """A11: x*y under simultaneous descent runs away; pulled to the mean of their past the players come to rest."""
    def play(weight):
        z = total = np.array([1.0, 0.5])
        for n in range(1, 4000):
            pull, _ = weights.historical_averaging_vjp(weight, z, total / n)
            z = z - 0.05 * (game.field_matrix() @ z + pull)
            total = total + z
        return np.linalg.norm(z)

    assert play(0.0) > 10 and play(0.1) < 0.01


def test_relativistic_and_energy_losses_at_their_optimum():
    """A13: equal logits give 2 log 2 and no net push; an energy beyond the margin costs nothing."""
    same = np.full(4, 1.7)
    assert batchwise.relativistic_d(same, same) == pytest.approx(2 * np.log(2))
    assert adv.energy_d(np.zeros(3), np.full(3, 2.0), margin=1.0) == 0
    assert not adv.energy_d_vjp(1.0, np.zeros(3), np.full(3, 2.0), margin=1.0)[1].any()


@pytest.mark.parametrize("message, call", [
    ("logit_fake is empty", lambda: adv.minimax_d(np.zeros(2), np.zeros(0))),
    ("logit_fake is empty", lambda: adv.hinge_d(np.zeros(2), np.zeros(0))),
    ("targets must lie", lambda: adv.smoothed_d(np.zeros(2), np.zeros(2), 1.2)),
    ("N >= 2", lambda: batchwise.pulling_away(np.ones((1, 3)))),
    ("a row of s is 0", lambda: batchwise.pulling_away(np.zeros((2, 3)))),
    ("multiple of the group of 4, got 6", lambda: batchwise.minibatch_stddev(np.zeros((6, 3)), 4)),
    ("features of one shape", lambda: batchwise.feature_matching(np.zeros((2, 3)), np.zeros((2, 4)))),
    (r"x \(N, A\) and t", lambda: batchwise.minibatch_discrimination(np.zeros((2, 3)), np.zeros((2, 2, 2)))),
    ("c must be positive", lambda: weights.clip_weights({}, 0.0)),
    ("steps >= 1", lambda: weights.power_iteration(np.ones((2, 3)), np.ones(2), 0)),
    ("one shape expected", lambda: weights.historical_averaging(np.ones(2), np.ones(3))),
    ("no larger than the image", lambda: weights.circular_convolution_norm(np.ones((1, 1, 3, 3)), (2, 5))),
    ("one u per sample", lambda: penalty.between(np.ones((2, 3)), np.ones((2, 3)), np.ones(3))),
    (r"g \(N, ...\)", lambda: penalty.gradient_norms(np.ones(3))),
    ("n must be at least 1", lambda: game.averaged(np.eye(2) * 2, 0)),
    ("a must be a matrix", lambda: game.field_matrix(np.ones(3))),
    ("z0 must have shape", lambda: game.trajectory(np.eye(2), np.ones(3), 2)),
    ("k must lie in 1..2", lambda: metrics.neighbour_radius(np.ones((3, 2)), 3)),
    ("samples of one size", lambda: metrics.precision_recall(np.ones((9, 2)), np.ones((9, 3)))),
    ("must be finite", lambda: metrics.moments(np.array([[np.nan], [1.0]]))),
    ("at least 2 samples", lambda: metrics.moments(np.ones((1, 2)))),
    ("sum to 1", lambda: metrics.inception_score(np.ones((2, 3)))),
    ("equally many", lambda: metrics.one_nearest_neighbour_accuracy(np.ones((3, 2)), np.ones((2, 2)))),
    ("one length", lambda: metrics.wasserstein_1d(np.ones(2), np.ones(3))),
])
def test_bad_input_is_one_sentence(message, call):
    refuses(call, message)


def test_mixed_dtypes_are_refused():
    with pytest.raises(TypeError, match="minimax_g: inexact"):
        adv.minimax_g(np.zeros(2, int))
    with pytest.raises(TypeError, match="one dtype"):
        adv.value_function(np.zeros(2), np.zeros(2, np.float32))
