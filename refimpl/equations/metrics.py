"""How far samples are from data, as figures: distances between features, neighbours in the data, and single images.

Host code in float64: metrics are read, not differentiated. No one figure is enough (the inception score of "the mean
digit of each class" beats real data, and train + noise passes every distance), so acceptance is always a conjunction.
"""
import numpy as np
from scipy.spatial.distance import cdist

from ..ops._check import require


def _samples(name, **sets):
    """Samples as float64 rows (N, D), of one D, finite."""
    rows = {}
    for label, x in sets.items():
        x = np.asarray(x, dtype=np.float64)
        require(x.ndim >= 1 and len(x) > 0, f"{name}: {label} must hold at least one sample, got shape {x.shape}")
        require(np.isfinite(x).all(), f"{name}: {label} must be finite, got NaN or infinity")
        rows[label] = x.reshape(len(x), -1)
    widths = {label: x.shape[1] for label, x in rows.items()}
    require(len(set(widths.values())) == 1, f"{name}: samples of one size expected, got {widths}")
    return rows.values()


def moments(features):
    r"""Mean and unbiased covariance of features.

    $$\mu = \frac1N\sum_i x_i, \qquad \Sigma = \frac{1}{N-1}\sum_i (x_i-\mu)(x_i-\mu)^T$$

    Shapes: features (N, ...), flattened to (N, D). Returns mu (D,), cov (D, D).
    Raises: ValueError when N < 2 or a feature is not finite.
    Source: Heusel et al. 2017, arXiv:1706.08500.
    """
    (x,) = _samples("moments", features=features)
    require(len(x) > 1, "moments: at least 2 samples expected, got 1")
    mu = x.mean(axis=0)
    return mu, (x - mu).T @ (x - mu) / (len(x) - 1)


def symmetric_root(a):
    r"""Square root of a positive semi-definite matrix, by its eigenvectors.

    $$A^{1/2} = U\,\mathrm{diag}(\sqrt{\max(\lambda, 0)})\,U^T$$

    Shapes: a (D, D) symmetric; returns (D, D).
    Source: Higham 2008, Functions of Matrices, ch. 6.
    """
    values, vectors = np.linalg.eigh(a)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def frechet(mu_1, cov_1, mu_2, cov_2):
    r"""Squared Fréchet (2-Wasserstein) distance between two Gaussians: what FID reports.

    $$d^2 = \|\mu_1-\mu_2\|^2 + \mathrm{tr}\left(\Sigma_1+\Sigma_2 -
      2\,(\Sigma_1^{1/2}\Sigma_2\Sigma_1^{1/2})^{1/2}\right)$$

    The product inside is symmetric, so that eigh serves even when a covariance is singular (fewer samples than
    dimensions), where a general matrix square root turns complex.

    Shapes: mu (D,), cov (D, D). Returns a float, never negative.
    Raises: ValueError when the shapes differ or a value is not finite.
    Source: Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500.
    """
    mu_1, cov_1, mu_2, cov_2 = (np.asarray(a, dtype=np.float64) for a in (mu_1, cov_1, mu_2, cov_2))
    require(mu_1.shape == mu_2.shape == cov_1.shape[:1] and cov_1.shape == cov_2.shape == 2 * mu_1.shape,
            f"frechet: means (D,) and covariances (D, D) of one D expected, got {mu_1.shape}, {cov_1.shape}, "
            f"{mu_2.shape}, {cov_2.shape}")
    require(all(np.isfinite(a).all() for a in (mu_1, cov_1, mu_2, cov_2)), "frechet: finite moments expected, got NaN")
    root = symmetric_root(cov_1)
    product = root @ cov_2 @ root
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0)).sum()
    return float(max(np.sum((mu_1 - mu_2) ** 2) + np.trace(cov_1) + np.trace(cov_2) - 2 * cross, 0))


def frechet_distance(features_1, features_2):
    r"""Fréchet distance between the Gaussians fitted to two sets of features (FID; FDfeat on the digits).

    $$d^2(\mathcal N(\mu_1,\Sigma_1), \mathcal N(\mu_2,\Sigma_2))$$

    Shapes: features (N, ...) and (M, ...). Returns a float.
    Source: Heusel et al. 2017, arXiv:1706.08500.
    """
    return frechet(*moments(features_1), *moments(features_2))


def kernel_distance(features_1, features_2, times=None):
    r"""KID: the unbiased squared maximum mean discrepancy with a cubic kernel. It can be negative.

    $$\frac{1}{m(m-1)}\sum_{i\ne j}k(x_i,x_j) + \frac{1}{n(n-1)}\sum_{i\ne j}k(y_i,y_j)
      - \frac{2}{mn}\sum_{i,j}k(x_i,y_j), \qquad k(x,y) = (x\cdot y/D + 1)^3$$

    Shapes: features (m, ...) and (n, ...), m, n >= 2. Returns a float. times: two arrays (B, m) and (B, n) of how often
    each sample counts, rows that sum to m and n, for B redrawn sets at the price of one; returns (B,) then.
    Source: Binkowski et al. 2018, arXiv:1801.01401; Gretton et al. 2012, JMLR 13.
    """
    x, y = _samples("kernel_distance", features_1=features_1, features_2=features_2)
    require(min(len(x), len(y)) > 1, f"kernel_distance: at least 2 samples each expected, got {len(x)} and {len(y)}")
    a, b = (np.ones((1, len(x))), np.ones((1, len(y)))) if times is None else times

    def k(p, q):
        g = p @ q.T / p.shape[1] + 1
        return g * g * g  # twenty times faster than a power

    def among(g, t):
        return (np.sum(t @ g * t, axis=1) - t @ np.diagonal(g)) / (len(g) * (len(g) - 1))

    found = among(k(x, x), a) + among(k(y, y), b) - 2 * np.sum(a @ k(x, y) * b, axis=1) / (len(x) * len(y))
    return float(found[0]) if times is None else found


def inception_score(probabilities):
    r"""Inception score, between 1 and the number of classes.

    $$\exp\left(E_x\,\mathrm{KL}(p(y|x)\,\|\,p(y))\right) = \exp\left(H(y) - H(y|x)\right)$$

    Shapes: probabilities (N, K), rows that sum to 1. Returns a float.
    Raises: ValueError when a row is no distribution.
    Source: Salimans et al. 2016, arXiv:1606.03498.
    """
    (p,) = _samples("inception_score", probabilities=probabilities)
    require((p >= 0).all() and np.allclose(p.sum(axis=1), 1, atol=1e-5),
            "inception_score: rows of probabilities must be non-negative and sum to 1")
    log_ratio = np.log(np.where(p > 0, p, 1)) - np.log(np.where(p > 0, p.mean(axis=0), 1))
    return float(np.exp((p * log_ratio).sum(axis=1).mean()))


def neighbour_radius(x, k):
    r"""Distance from every sample to its k-th nearest neighbour among the others.

    $$\mathrm{NND}_k(x_i) = k\text{-th smallest of } \{\|x_i-x_j\| : j\ne i\}$$

    Shapes: x (N, ...), 1 <= k < N. Returns (N,).
    Source: Kynkäänniemi et al. 2019, arXiv:1904.06991.
    """
    (x,) = _samples("neighbour_radius", x=x)
    require(1 <= k < len(x), f"neighbour_radius: k must lie in 1..{len(x) - 1}, got {k}")
    d = cdist(x, x)
    np.fill_diagonal(d, np.inf)
    return np.partition(d, k - 1, axis=1)[:, k - 1]


def in_balls(centres, points, k):
    r"""Which points lie in which centre's ball, whose radius is the distance to the centre's k-th neighbour.

    $$m_{ij} = 1\left[\|y_j - x_i\| < \mathrm{NND}_k(x_i)\right]$$

    Shapes: centres x (N, ...), points y (M, ...). Returns (N, M) bool.
    Source: Kynkäänniemi et al. 2019, arXiv:1904.06991; strictly inside: Naeem et al. 2020, arXiv:2002.09797.
    """
    centres, points = _samples("in_balls", centres=centres, points=points)
    return cdist(centres, points) < neighbour_radius(centres, k)[:, None]


def precision_recall(real, fake, k=5):
    r"""Improved precision and recall: the share of each set that lies in some ball of the other.

    $$\mathrm{precision} = \frac1M\sum_j \max_i 1\left[\|y_j-x_i\| < \mathrm{NND}_k(x_i)\right], \qquad
      \mathrm{recall} = \frac1N\sum_i \max_j 1\left[\|x_i-y_j\| < \mathrm{NND}_k(y_j)\right]$$

    Shapes: real (N, ...), fake (M, ...). Returns two floats in [0, 1].
    Source: Kynkäänniemi et al. 2019, arXiv:1904.06991.
    """
    return float(in_balls(real, fake, k).any(axis=0).mean()), float(in_balls(fake, real, k).any(axis=0).mean())


def density_coverage(real, fake, k=5):
    r"""Density and coverage: precision and recall that no single outlier among real or fake can inflate.

    $$\mathrm{density} = \frac{1}{kM}\sum_j\sum_i 1\left[\|y_j-x_i\| < \mathrm{NND}_k(x_i)\right], \qquad
      \mathrm{coverage} = \frac1N\sum_i \max_j 1\left[\|y_j-x_i\| < \mathrm{NND}_k(x_i)\right]$$

    Shapes: real (N, ...), fake (M, ...). Returns two floats; density may exceed 1.
    Source: Naeem et al. 2020, arXiv:2002.09797.
    """
    inside = in_balls(real, fake, k)
    return float(inside.sum() / (k * inside.shape[1])), float(inside.any(axis=1).mean())


def one_nearest_neighbour_accuracy(real, fake):
    r"""Leave-one-out accuracy of a 1-nearest-neighbour classifier of real against fake: 1/2 is best, 1 is worst.

    $$\frac{1}{2N}\sum_{z\in X\cup Y} 1\left[\mathrm{label}(\mathrm{nn}(z)) = \mathrm{label}(z)\right]$$

    Shapes: real (N, ...), fake (N, ...): equal numbers, else the larger class wins by size. Returns a float.
    Raises: ValueError when the numbers differ.
    Source: Lopez-Paz and Oquab 2017, arXiv:1610.06545.
    """
    real, fake = _samples("one_nearest_neighbour_accuracy", real=real, fake=fake)
    require(len(real) == len(fake), f"one_nearest_neighbour_accuracy: equally many samples of each expected, "
            f"got {len(real)} real and {len(fake)} fake")
    z = np.concatenate([real, fake])
    d = cdist(z, z)
    np.fill_diagonal(d, np.inf)
    label = np.arange(len(z)) < len(real)
    return float((label[d.argmin(axis=1)] == label).mean())


def nearest_distance(samples, train):
    r"""Distance from every sample to its nearest training sample, and which one that is.

    $$d_j = \min_i \|y_j - x_i\|$$

    Its median is the memorisation check: far below the test set's own median, the model repeats its training data.

    Shapes: samples (M, ...), train (N, ...). Returns distances (M,), indices into train (M,).
    Source: Somepalli et al. 2023, arXiv:2212.03860, in its simplest form.
    """
    samples, train = _samples("nearest_distance", samples=samples, train=train)
    d = cdist(samples, train)
    index = d.argmin(axis=1)
    return d[np.arange(len(d)), index], index


def wasserstein_1d(x, y):
    r"""1-Wasserstein distance between equally many numbers.

    $$W_1 = \frac1N\sum_i |x_{(i)}-y_{(i)}| = \int |F(u)-G(u)|\,du = \max_{\|f\|_L\le1} E f(x) - E f(y)$$

    Shapes: x (N,), y (N,). Returns a float.
    Source: Villani 2009, Optimal Transport, ch. 6; Arjovsky et al. 2017, arXiv:1701.07875.
    """
    x, y = (np.asarray(a, dtype=np.float64) for a in (x, y))
    require(x.ndim == y.ndim == 1 and x.shape == y.shape and x.size > 0,
            f"wasserstein_1d: two vectors of one length expected, got shapes {x.shape} and {y.shape}")
    return float(np.mean(np.abs(np.sort(x) - np.sort(y))))


def mode_coverage(samples, modes, radius):
    r"""How many modes of a known mixture the samples reach, and the share of samples that lie at one.

    $$\left|\{k : \exists j, \|y_j-\mu_k\| < r\}\right|, \qquad \frac1M\sum_j 1\left[\min_k\|y_j-\mu_k\| < r\right]$$

    A sample counts for its nearest mode only. Three standard deviations of a mode are a usual radius.

    Shapes: samples (M, ...), modes (K, ...). Returns an int, a float.
    Source: Metz et al. 2017, arXiv:1611.02163, app. A; Lin et al. 2018, arXiv:1712.04086, sec. 4.
    """
    distance, index = nearest_distance(samples, modes)
    close = distance < radius
    return len(np.unique(index[close])), float(close.mean())


def redrawn(u):
    r"""How often each of n samples counts in sets redrawn from themselves, from uniform numbers.

    $$t_{bi} = \left|\{j : \lceil n\,u_{bj}\rceil = i\}\right|, \qquad
      (t_{b1}, \dots, t_{bn}) \sim \mathrm{Multinomial}(n;\, 1/n, \dots, 1/n)$$

    Shapes: u (B, n) in (0, 1]; returns (B, n) floats, rows that sum to n.
    Raises: ValueError when u is not (B, n) or leaves (0, 1].
    Source: Efron 1979, Ann. Statist. 7(1).
    """
    require(u.ndim == 2 and bool(np.all((u > 0) & (u <= 1))), f"redrawn: u (B, n) in (0, 1] expected, got shape {u.shape}")
    n = u.shape[1]
    return np.stack([np.bincount(row, minlength=n) for row in np.ceil(n * u).astype(int) - 1]).astype(np.float64)


def interval(values, level=0.9):
    r"""The central interval that holds a share of values, such as a statistic of redrawn sets.

    $$\left[q_{(1-\mathrm{level})/2},\; q_{(1+\mathrm{level})/2}\right]$$

    A distance between redrawn sets is biased by their repeats: read its interval by its width.

    Shapes: values (B,). Returns two floats.
    Raises: ValueError when level is not in (0, 1) or there are no values.
    Source: Efron 1979, Ann. Statist. 7(1), the percentile interval.
    """
    require(0 < level < 1 and len(values) > 0, f"interval: level in (0, 1) and some values expected, got {level}, "
            f"{len(values)} values")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def memorised(samples, train, test, ratio=0.5):
    r"""Share of the samples that lie nearer to a training image than test images do: planted copies show at once.

    $$\frac1M\sum_j 1\left[\min_i\|y_j-x_i\| < r\,\mathrm{median}_k \min_i\|t_k-x_i\|\right]$$

    Shapes: samples (M, ...), train (N, ...), test (K, ...); ratio (r) a positive number. Returns a float.
    Source: Somepalli et al. 2023, arXiv:2212.03860, with pixels as features; the threshold is the project's own.
    """
    usual = np.median(nearest_distance(test, train)[0])
    return float((nearest_distance(samples, train)[0] < ratio * usual).mean())
