"""Bugs that public code is known for: each is put in place of the right function, and facts of the suite reject it."""
import numpy as np
import pytest
from conftest import rejected

from refimpl import ops
from refimpl.equations import adversarial, batchwise, penalty
from refimpl.facts import games, load, penalties
from refimpl.facts.gradients import PAIRS, dot_product_error

load()


def whole_batch_norm(g, weight, target=1.0):
    return weight * (np.sqrt(np.sum(g * g)) - target) ** 2


def mean_inside_the_norm(g, weight, target=1.0):
    return weight * (np.mean(penalty.gradient_norms(g)) - target) ** 2


@pytest.mark.parametrize("wrong", [whole_batch_norm, mean_inside_the_norm])
def test_gradient_penalty_over_the_whole_batch(monkeypatch, wrong):
    assert not rejected(penalties.unit_critic_pays_nothing, 1e-12)
    pair = PAIRS["norm_penalty"]
    assert rejected(lambda d: dot_product_error(pair._replace(f=wrong), d), 1e-10)
    g = np.array([[0.5, 0.0], [1.5, 0.0]])
    assert abs(penalty.norm_penalty(g, 10.0) - 2.5) < 1e-12 and abs(wrong(g, 10.0) - 2.5) > 0.1
    if wrong is whole_batch_norm:
        monkeypatch.setattr(penalty, "norm_penalty", wrong)
        assert rejected(penalties.unit_critic_pays_nothing, 1e-12)


@pytest.mark.parametrize("name", ["wasserstein_d", "wasserstein_g", "minimax_d", "non_saturating_g", "hinge_d"])
def test_gradients_with_swapped_signs(name):
    pair = PAIRS[name]

    def swapped(dy, **inputs):
        back = pair.vjp(dy, **inputs)
        return tuple(-b for b in back) if isinstance(back, tuple) else -back

    assert rejected(lambda d: dot_product_error(pair._replace(vjp=swapped), d), 1e-10)


def test_swapped_signs_turn_the_players_round():
    """A step of the critic raises E f(x) - E f(G(z)); a step of the generator raises E f(G(z))."""
    real, fake = np.array([0.3, -0.2]), np.array([0.1, 0.4])
    dreal, dfake = adversarial.wasserstein_d_vjp(1.0, real, fake)
    gap = lambda r, f: np.mean(r) - np.mean(f)
    assert gap(real - 0.1 * dreal, fake - 0.1 * dfake) > gap(real, fake)
    assert np.mean(fake - 0.1 * adversarial.wasserstein_g_vjp(1.0, fake)) > np.mean(fake)


def test_logarithm_of_a_stabilised_sigmoid(monkeypatch):
    """-log(s + 1e-8): at l = -40 its gradient is 4e-10 where the generator needs -1."""
    def wrong_vjp(dy, logit_fake):
        s = ops.sigmoid(logit_fake)
        return -dy / logit_fake.size * s * (1 - s) / (s + 1e-8)

    assert abs(wrong_vjp(1.0, np.array([-40.0]))[0] + 4e-10) < 1e-10
    assert abs(adversarial.non_saturating_g_vjp(1.0, np.array([-40.0]))[0] + 1) < 1e-12
    monkeypatch.setattr(adversarial, "non_saturating_g_vjp", wrong_vjp)
    assert rejected(games.saturating_and_not, 1e-10)


def batch_norm_conduct(batch_norm):
    """What training a batch norm must do to x and to its statistics, as an error."""
    x = np.random.default_rng(0).standard_normal((50, 3)) * 0.1 + 2
    y, mean, var = batch_norm(x, None, None, np.zeros(3), np.ones(3), True)
    expected = np.array([0.1 * x.mean(axis=0), 0.9 + 0.1 * x.var(axis=0, ddof=1)])
    return max(np.max(abs(y.var(axis=0) - 1)), np.max(abs(np.array([mean, var]) - expected)))


def test_batch_norm_with_momentum_and_stabiliser_exchanged():
    right = lambda *args: ops.batch_norm(*args)
    exchanged = lambda *args: ops.batch_norm(*args, momentum=1e-5, stabiliser=0.1)
    kept = lambda *args: ops.batch_norm(*args, momentum=0.9)  # the share of the old value, as in other frameworks
    assert batch_norm_conduct(right) < 2e-3
    assert batch_norm_conduct(exchanged) > 0.1 and batch_norm_conduct(kept) > 0.1


def test_difference_of_moments_in_float32():
    """E[x^2] - E[x]^2 loses all digits of a variance of 1 around a mean of 3000; two passes keep them."""
    x = (3000 + np.random.default_rng(0).standard_normal((8, 2, 4, 4))).astype(np.float32)
    exact = ops.batch_norm(x.astype(np.float64), None, None, np.zeros(2), np.ones(2), True)[0]
    ours = ops.batch_norm(x, None, None, np.zeros(2, np.float32), np.ones(2, np.float32), True)[0]
    mean = x.mean(axis=(0, 2, 3), keepdims=True)
    wrong = (x - mean) / np.sqrt(np.abs((x * x).mean(axis=(0, 2, 3), keepdims=True) - mean * mean) + np.float32(1e-5))
    assert np.max(abs(ours - exact)) < 1e-3
    assert np.max(abs(wrong - exact)) > 1e-2


def cosines(s):
    unit = s / np.sqrt(np.sum(s * s, axis=1, keepdims=True))
    return unit @ unit.T


@pytest.mark.parametrize("wrong", [
    lambda s: (np.sum(cosines(s)) - len(s)) / (len(s) * (len(s) - 1)),
    lambda s: np.sum(cosines(s) ** 2) / (len(s) * (len(s) - 1)),
    lambda s: np.mean(cosines(s) ** 2)], ids=["no square", "diagonal", "diagonal in the mean"])
def test_pulling_away_without_square_or_with_diagonal(monkeypatch, wrong):
    assert not rejected(penalties.pulling_away_in_closed_form, 1e-12)
    monkeypatch.setattr(batchwise, "pulling_away", wrong)
    assert rejected(penalties.pulling_away_in_closed_form, 1e-12)
