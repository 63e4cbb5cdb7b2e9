"""How good samples are: one protocol, with figures to read them against."""
from typing import NamedTuple

import numpy as np

from .equations import images, metrics
from .ops._check import require
from .ops.random import uniform

MOST = 2000  # samples and test images compared; distances between all pairs are formed
NEIGHBOURS = 5

# Digits, same protocol: what, FDfeat, recall, 1-NN accuracy (1/2 is best).
YARDSTICKS = [
    ("real training images", 1.30, 0.97, 0.49),
    ("Gaussian mixture, 40 full components", 2.86, 0.85, 0.68),
    ("one full-covariance Gaussian", 10.2, 0.61, 0.91),
    ("probabilistic PCA, 16 components", 13.4, 0.60, 0.93),
    ("independent pixels", 28.9, 0.84, 0.80),
    ("uniform noise", 340.0, 0.00, 1.00),
    ("PyTorch U-Net, 825 steps, DDIM-50", 2.90, 0.90, 0.59),
]
MIXTURES = {"gaussians8": 0.01 * 2**0.5, "gaussians25": 0.05 / 8**0.5}  # the deviation of every mode
REAL_DISTANCE = 2.08  # median distance of a test digit to its nearest training digit


class Judge(NamedTuple):
    """features(x) -> (N, D); predict(x) -> labels (N,) and probabilities(x) -> (N, classes), None without labels."""

    features: object
    predict: object = None
    probabilities: object = None


def judge(data):
    """The judge of a data set: a small classifier's last hidden layer, or the pixels themselves without labels.

    The classifier is fitted on the training images (the first 10000), so that it never saw what it compares with.
    Raises: ImportError when scikit-learn is missing.
    """
    if not data.classes:
        return Judge(_flat)
    try:
        from sklearn.neural_network import MLPClassifier
    except ImportError as error:
        raise ImportError("scoring needs scikit-learn: pip install -e .[demo]") from error
    import warnings

    network = MLPClassifier((64, 32), max_iter=200, random_state=0, alpha=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "maximum iterations reached": the protocol says 200
        network.fit(_flat(data.train[:10000]), data.train_labels[:10000])

    def features(x):
        h = _flat(x)
        for w, b in zip(network.coefs_[:2], network.intercepts_[:2]):
            h = np.maximum(h @ w + b, 0)
        return h

    return Judge(features, lambda x: network.predict(_flat(x)), lambda x: network.predict_proba(_flat(x)))


def _flat(x):
    return np.asarray(x, np.float64).reshape(len(x), -1)


def count(data):
    """How many samples the protocol asks for: as many as there are test images, at most MOST."""
    return min(len(data.test), MOST)


def _compared(samples, data):
    """The samples, images clipped to their range, and as many test samples."""
    n = count(data)
    require(samples.shape == (n, *data.shape),
            f"score: {n} samples of shape {data.shape} expected, got {samples.shape}")
    return np.clip(samples, -1, 1) if len(data.shape) == 3 else samples, data.test[:n]


def score(samples, labels, data, judged):
    """All figures of one set of samples, as a dict of floats.

    fd: Fréchet distance of the judge's features to those of the test images. precision, recall, density, coverage:
    k = 5 neighbours in pixels, against the test images. one_nn: leave-one-out 1-NN accuracy. distance: median distance
    to the nearest training image. agreement: how often the judge sees the label asked for (None without labels).
    Raises: ValueError when the samples have another shape than the data or are fewer than count(data).
    """
    samples, test = _compared(samples, data)
    precision, recall = metrics.precision_recall(test, samples, NEIGHBOURS)
    density, coverage = metrics.density_coverage(test, samples, NEIGHBOURS)
    nearest = np.concatenate([metrics.nearest_distance(samples[k:k + 200], data.train)[0] for k in range(0, len(test), 200)])
    return {"fd": metrics.frechet_distance(judged.features(samples), judged.features(test)),
            "precision": precision, "recall": recall, "density": density, "coverage": coverage,
            "one_nn": metrics.one_nearest_neighbour_accuracy(test, samples), "distance": float(np.median(nearest)),
            "agreement": None if labels is None else float(np.mean(judged.predict(samples) == labels))}


def more(samples, data, judged):
    """Figures that are read beside those of `score`: kid and inception on the judge's output, memorised the share of
    samples that lie nearer to a training image than half of what is usual for test images; of a mixture, its modes.

    inception is None without labels. Raises: ValueError when the samples have another shape than the data.
    """
    samples, test = _compared(samples, data)
    found = modes(samples, data) if data.spec in MIXTURES else {}
    return found | {
            "kid": metrics.kernel_distance(judged.features(samples), judged.features(test)),
            "inception": judged.probabilities and metrics.inception_score(judged.probabilities(samples)),
            "memorised": metrics.memorised(samples, data.train[:MOST], test)}


def modes(samples, data):
    """Of a mixture in MIXTURES: how many modes samples reach within three deviations, the share of samples that do."""
    centres = np.stack([data.train[data.train_labels == k].mean(axis=0) for k in range(data.classes)])
    found, share = metrics.mode_coverage(samples, centres, 3 * MIXTURES[data.spec])
    return {"modes": found, "at_modes": share}


def restored(samples, truth):
    """Of a translation: PSNR in decibels and SSIM beside what it was to find; SSIM's window is at most the image."""
    samples, side = np.clip(samples, -1, 1), min(truth.shape[2:])
    return {"psnr": images.psnr(samples, truth, 2),
            "ssim": images.ssim(samples, truth, 2, size=min(11, side - 1 + side % 2))}


def intervals(samples, labels, data, judged, draws=200):
    """{figure: (low, high)}: 90 % bootstrap intervals of one set of samples, for the figures that have an honest one.

    Means over samples or test images are redrawn as they are; the distances redraw both sets of features.
    Raises: as score.
    """
    samples, test = _compared(samples, data)
    near = metrics.in_balls(test, samples, NEIGHBOURS)
    means = {"precision": near.any(axis=0), "coverage": near.any(axis=1),
             "recall": metrics.in_balls(samples, test, NEIGHBOURS).any(axis=0)}
    if labels is not None:
        means["agreement"] = judged.predict(samples) == labels
    redrawn = lambda n, key: metrics.redrawn(uniform(key, np.arange(draws), 0, (n,), np.float64))
    x, y, one, two = judged.features(samples), judged.features(test), *(redrawn(len(test), key) for key in (0, 1))
    pick = lambda a, t: np.repeat(a, t.astype(int), axis=0)
    values = {"fd": [metrics.frechet_distance(pick(x, t), pick(y, u)) for t, u in zip(one, two)],
              "kid": metrics.kernel_distance(x, y, (one, two))}
    values |= {name: redrawn(len(hits), 0) @ hits / len(hits) for name, hits in means.items()}
    return {name: metrics.interval(v) for name, v in values.items()}


def mean_and_interval(values):
    """Mean and the half width of its 95 % interval."""
    values = np.asarray(values, np.float64)
    return float(np.mean(values)), 1.96 * float(np.std(values)) / max(1, len(values) - 1) ** 0.5


def mean(scores):
    """The mean of several sets' figures."""
    return {k: None if scores[0][k] is None else float(np.mean([s[k] for s in scores])) for k in scores[0]}
