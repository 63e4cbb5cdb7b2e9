"""Metrics: what each one is on inputs whose answer is known."""
from itertools import combinations

import numpy as np

from refimpl.equations import metrics

from . import fact


@fact("F-G1", metrics.frechet, metrics.symmetric_root, tolerance=1e-9)
def frechet_when_they_commute(d):
    """Common eigenvectors: squared distance of the means plus sum (sqrt a - sqrt b)^2; symmetric."""
    n = d.integer(1, 8)
    q, _ = np.linalg.qr(d.array(n, n))
    a, b, m1, m2 = d.array(n) ** 2 + 0.01, d.array(n) ** 2 + 0.01, d.array(n), d.array(n)
    one, two = (m1, (q * a) @ q.T), (m2, (q * b) @ q.T)
    expected = np.sum((m1 - m2) ** 2) + np.sum((a**0.5 - b**0.5) ** 2)
    scale = 1 + np.sum(a) + np.sum(b)
    return max(abs(metrics.frechet(*one, *two) - expected), abs(metrics.frechet(*two, *one) - expected)) / scale


@fact("F-G1", metrics.frechet, tolerance=1e-9)
def frechet_of_an_affine_map(d):
    """N(m, S) to its image under a symmetric positive T, the optimal map: tr (T-1) S (T-1) + |(T-1) m|^2."""
    n = d.integer(1, 5)
    f, g, mu = d.array(n, n), d.array(n, n), d.array(n)
    cov, t = f @ f.T + 0.1 * np.eye(n), g @ g.T / n + 0.1 * np.eye(n)
    move = t - np.eye(n)
    expected = np.trace(move @ cov @ move) + np.sum((move @ mu) ** 2)
    image = t @ cov @ t
    return abs(metrics.frechet(mu, cov, t @ mu, (image + image.T) / 2) - expected) / (np.trace(cov) + np.trace(image))


@fact("F-G1", metrics.frechet_distance, metrics.moments, tolerance=1e-6)
def frechet_rank_deficient(d):
    """Fewer samples than dimensions: 0 from itself and |shift|^2 from its shift, to 1e-6 of the trace."""
    n, m = d.integer(2, 6), d.integer(7, 12)
    x, shift = d.array(n, m), d.array(m)
    trace = np.trace(metrics.moments(x)[1])
    return max(metrics.frechet_distance(x, x),
               abs(metrics.frechet_distance(x, x + shift) - np.sum(shift**2))) / trace


@fact("F-G1", metrics.frechet, metrics.moments, tolerance=1e-9)
def frechet_in_one_dimension(d):
    """1-D: the squared difference of the means plus that of the standard deviations."""
    x, y = d.array(d.integer(2, 9)), 3 * d.array(d.integer(2, 9)) + 1
    expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    return abs(metrics.frechet_distance(x, y) - expected) / (1 + expected)


@fact("F-G2", metrics.kernel_distance, tolerance=1e-10)
def kernel_distance_is_a_u_statistic(d):
    """Its mean over all subsets of m samples of each set is the full statistic."""
    x, y, m = d.array(4, 3), d.array(5, 3), d.integer(2, 3)
    values = [metrics.kernel_distance(x[list(i)], y[list(j)])
              for i in combinations(range(4), m) for j in combinations(range(5), m)]
    full = metrics.kernel_distance(x, y)
    literal = (sum((x[i] @ x[j] / 3 + 1) ** 3 for i in range(4) for j in range(4) if i != j) / 12
               + sum((y[i] @ y[j] / 3 + 1) ** 3 for i in range(5) for j in range(5) if i != j) / 20
               - 2 * sum((a @ b / 3 + 1) ** 3 for a in x for b in y) / 20)
    return max(abs(np.mean(values) - full), abs(full - literal)) / np.mean(np.abs(values))


@fact("F-G3", metrics.inception_score, tolerance=1e-12)
def inception_score_is_an_information(d):
    """IS = exp(H(y) - H(y|x)), between 1 and K: 1 for equal rows, K for one-hot rows of every class equally."""
    k = d.integer(2, 6)
    p = np.exp(2 * d.array(d.integer(1, 6), k))
    p /= p.sum(axis=1, keepdims=True)
    entropy = -np.sum(p.mean(axis=0) * np.log(p.mean(axis=0))) + np.mean(np.sum(p * np.log(p), axis=1))
    score = metrics.inception_score(p)
    return max(abs(score - np.exp(entropy)) / score, 1 - score, score / k - 1,
               abs(metrics.inception_score(np.tile(p[:1], (3, 1))) - 1),
               abs(metrics.inception_score(np.eye(k)) / k - 1))


@fact("F-G4", metrics.precision_recall, metrics.density_coverage, metrics.neighbour_radius, tolerance=0)
def a_set_covers_itself(d):
    """Precision, recall, density, coverage of (X, X) are 1: inside a radius lie the point and k-1 others."""
    k = d.integer(1, 4)
    x = d.array(d.integer(k + 1, 12), 3)
    return float(np.max(np.abs(np.array(metrics.precision_recall(x, x, k) + metrics.density_coverage(x, x, k)) - 1)))


@fact("F-G4", metrics.one_nearest_neighbour_accuracy, metrics.nearest_distance, tolerance=0)
def copies_and_strangers(d):
    """1-NN accuracy is 0 for exact copies and 1 for far-away sets; copies are at distance 0 from their originals."""
    x = d.array(d.integer(2, 9), 3)
    distance, index = metrics.nearest_distance(x[::-1], x)
    return (metrics.one_nearest_neighbour_accuracy(x, x)
            + 1 - metrics.one_nearest_neighbour_accuracy(x, 1000 + x)
            + distance.max() + np.max(np.abs(index - np.arange(len(x))[::-1])))
