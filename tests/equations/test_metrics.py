"""Metrics on samples whose quality is known, among them those that one figure alone would praise."""
import numpy as np
import pytest
from conftest import refuses

from refimpl.equations import blending, ctc, images, metrics, translation
from refimpl.toys import TOYS


@pytest.fixture
def modes():
    angle = 2 * np.pi * np.arange(8) / 8
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_modes_are_counted(modes, rng):
    """All eight; three of eight; and noise far away reaches none."""
    at = lambda k: modes[rng.integers(k, size=400)] + 0.02 * rng.standard_normal((400, 2))
    assert metrics.mode_coverage(at(8), modes, 0.06)[0] == 8
    count, share = metrics.mode_coverage(at(3), modes, 0.06)
    assert count == 3 and share > 0.95
    assert metrics.mode_coverage(5 + at(8), modes, 0.06) == (0, 0.0)
    x, _ = TOYS["gaussians8"](3, 400)
    centre, scale = x.mean(axis=0), np.linalg.norm(x - x.mean(axis=0), axis=1).mean()
    assert metrics.mode_coverage((x - centre) / scale, modes, 0.3)[0] == 8


def test_precision_without_recall_and_recall_without_precision(rng):
    """One cluster of two has precision and half the coverage; a cloud over everything has recall without precision."""
    two = np.concatenate([rng.standard_normal((200, 2)), rng.standard_normal((200, 2)) + 20])
    one, cloud = rng.standard_normal((400, 2)), rng.uniform(-40, 60, (400, 2))
    precision, recall = metrics.precision_recall(two, one)
    density, coverage = metrics.density_coverage(two, one)
    assert precision > 0.9 and recall < 0.6 and density > 0.8 and 0.4 < coverage < 0.55
    precision, recall = metrics.precision_recall(two, cloud)
    assert precision < 0.2 and recall > 0.9
    assert metrics.one_nearest_neighbour_accuracy(two, cloud) > 0.8
    assert abs(metrics.one_nearest_neighbour_accuracy(one[:200], one[200:]) - 0.5) < 0.1


def test_neighbours_are_strictly_inside():
    """On the line 0, 1, 2, ... with k = 1 the balls have radius 1: a point at distance 1 is outside."""
    real = np.arange(5.0)[:, None]
    assert metrics.precision_recall(real, np.array([[-1.0], [5.0]]), 1)[0] == 0
    assert metrics.precision_recall(real, np.array([[-0.99], [4.99]]), 1)[0] == 1
    assert metrics.density_coverage(real, np.array([[0.5]]), 1) == (2.0, 0.4)
    assert np.array_equal(metrics.neighbour_radius(real, 2), [2, 1, 1, 1, 2])


def test_planted_copies_are_found(rng):
    """H5: copies of training samples with a little noise among honest samples."""
    train, test, honest = (rng.standard_normal((200, 10)) for _ in range(3))
    copies = train[:50] + 0.05 * rng.standard_normal((50, 10))
    before = metrics.memorised(honest[:150], train, test)
    assert before < 0.02
    planted = np.concatenate([honest[:150], copies])
    assert metrics.memorised(planted, train, test) == pytest.approx((150 * before + 50) / 200)
    score = np.concatenate([metrics.nearest_distance(a, train)[0] for a in (copies, honest)])
    assert np.max(score[:50]) < np.min(score[50:])


def test_bootstrap_interval(rng):
    """It holds the statistic and narrows with the number of samples; counts come from the numbers given, 1 included."""
    x = rng.standard_normal(2000)
    means = metrics.redrawn(1 - rng.random((300, 2000))) @ x / 2000
    low, high = metrics.interval(means)
    assert low < x.mean() < high and abs((high - low) / (2 * 1.645 / 2000**0.5) - 1) < 0.25
    assert metrics.redrawn(np.array([[1e-9, 0.25, 0.26, 1.0], [1.0, 1.0, 0.5, 0.51]])).tolist() == [
        [2, 1, 0, 1], [0, 1, 1, 2]]
    wide = metrics.interval(metrics.redrawn(1 - rng.random((300, 100))) @ x[:100] / 100)
    assert wide[1] - wide[0] > 3 * (high - low)
    assert metrics.interval(np.arange(101.0), 0.5) == (25, 75)


def test_redrawn_kernel_distances(rng):
    """Counts stand for repeated rows."""
    x, y = rng.standard_normal((6, 3)), rng.standard_normal((5, 3))
    times = [metrics.redrawn(1 - rng.random((4, n))) for n in (6, 5)]
    expected = [metrics.kernel_distance(np.repeat(x, t.astype(int), axis=0), np.repeat(y, u.astype(int), axis=0))
                for t, u in zip(*times)]
    np.testing.assert_allclose(metrics.kernel_distance(x, y, times), expected, rtol=1e-12)


def test_worse_images_are_less_alike(rng):
    x = np.cumsum(np.cumsum(rng.standard_normal((24, 24)), axis=0), axis=1)
    span = float(np.ptp(x))
    values = [(images.psnr(x, y, span), images.ssim(x, y, span))
              for y in (x + s * span * rng.standard_normal(x.shape) for s in (0.01, 0.1, 0.5))]
    assert values == sorted(values, reverse=True) and images.psnr(x, x, 1.0) == np.inf


def test_structural_similarity_at_one_place(rng):
    """On an image of the window's size: weighted moments written out."""
    x, y, span = rng.standard_normal((11, 11)), rng.standard_normal((11, 11)), 3.0
    g = np.exp(-((np.arange(11) - 5.0) ** 2) / 4.5)
    w = np.outer(g, g) / np.sum(np.outer(g, g))
    mx, my = np.sum(w * x), np.sum(w * y)
    vx, vy, cov = np.sum(w * (x - mx) ** 2), np.sum(w * (y - my) ** 2), np.sum(w * (x - mx) * (y - my))
    c1, c2 = 0.03**2, 0.09**2
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert images.ssim(x, y, span) == pytest.approx(expected, rel=1e-12)
    stacked = images.ssim(np.stack([x, x]), np.stack([y, x]), span)
    assert stacked == pytest.approx((expected + 1) / 2, rel=1e-12)


@pytest.mark.parametrize("message, call", [
    ("span must be positive", lambda: images.psnr(np.ones(3), np.ones(3), 0)),
    ("one shape", lambda: images.psnr(np.ones(3), np.ones(2), 1)),
    ("odd window", lambda: images.ssim(np.ones((8, 8)), np.ones((8, 8)), 1)),
    ("finite images", lambda: images.ssim(np.full((12, 12), np.nan), np.ones((12, 12)), 1)),
    ("level in", lambda: metrics.interval(np.ones(3), 1.0)),
    ("some values", lambda: metrics.interval([])),
    ("must not touch the border", lambda: blending.poisson_blend(np.ones((3, 3)), np.ones((3, 3), bool), None)),
    ("at least one pixel", lambda: blending.poisson_blend(np.ones((3, 3)), np.zeros((3, 3), bool), None)),
    ("0 being the blank", lambda: ctc.ctc(np.ones((3, 3)), np.array([0]))),
    ("need at least 3 frames, got 2", lambda: ctc.ctc(np.ones((2, 3)), np.array([1, 1]))),
    ("K >= 2", lambda: ctc.ctc(np.ones((2, 1)), np.array([], dtype=int))),
    ("vector of integers", lambda: ctc.ctc(np.ones((2, 3)), np.array([1.0]))),
    ("needs pairs", lambda: translation.pix2pix_g(np.ones(2), np.ones((2, 3)), np.ones((3, 3)), 1.0)),
    ("steps must not", lambda: translation.restyle(None, None, None, None, -1)),
    ("t must be positive", lambda: translation.truncated_normal(np.ones(1), 0)),
    ("t must be positive", lambda: translation.truncated_variance(-1)),
    ("beta must be", lambda: translation.interpolate(np.ones(1), np.ones(1), 1.1)),
])
def test_bad_input_is_one_sentence(message, call):
    refuses(call, message)


def test_interpolated_captions_and_lambda():
    """Error 16: without lambda the L1 term of pix2pix weighs a hundredth of what it does in the paper."""
    assert np.array_equal(translation.interpolate(np.array([0.0, 2]), np.array([2.0, 0])), [1, 1])
    y, target = np.zeros((1, 4)), np.ones((1, 4))
    logit = np.zeros(1)
    adversarial = translation.pix2pix_g(logit, y, y, 100.0)
    assert translation.pix2pix_g(logit, y, target, 100.0) == pytest.approx(adversarial + 100)
    one, hundred = (translation.pix2pix_g_vjp(1.0, logit, y, target, w)[1] for w in (1.0, 100.0))
    assert np.array_equal(hundred, 100 * one) and np.array_equal(one, np.full((1, 4), -0.25))
    cycle = translation.cyclegan_g(logit, logit, y, target, y, target, 10.0)
    assert cycle == pytest.approx(2 * 0.5 + 20)
