"""Connectionist temporal classification: the probability of a text under a reader that emits one symbol per frame.

The handwriting GANs (Davis et al. 2020, arXiv:2009.00678; Bhunia et al. 2021, Handwriting Transformers) minimise it
through a reader of their images, beside the adversarial hinge loss, reconstruction and style terms, so that what they
write can be read. Symbol 0 is the blank.
"""
import numpy as np

from ..ops._check import require
from ..ops.activation import logsumexp, softmax


def _extended(logits, labels):
    """The labels with blanks around each, and whether place s may be entered from s - 2 (another label, no blank)."""
    labels = np.asarray(labels)
    require(logits.ndim == 2 and logits.shape[1] >= 2, f"ctc: logits must be (T, K) with K >= 2, got {logits.shape}")
    require((labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)) or labels.size == 0,
            f"ctc: labels must be a vector of integers, got {labels.dtype} {labels.shape}")
    require(labels.size == 0 or (labels.min() >= 1 and labels.max() < logits.shape[1]),
            f"ctc: labels must lie in 1..{logits.shape[1] - 1}, 0 being the blank, got {labels.tolist()}")
    needed = len(labels) + int(np.sum(labels[1:] == labels[:-1]))
    require(logits.shape[0] >= max(needed, 1),
            f"ctc: {len(labels)} labels need at least {max(needed, 1)} frames, got {logits.shape[0]}")
    places = np.zeros(2 * len(labels) + 1, dtype=int)
    places[1::2] = labels
    skip = np.zeros(len(places), dtype=bool)
    skip[3::2] = labels[1:] != labels[:-1]
    return np.asarray(places, like=logits), np.asarray(skip, like=logits)


def _shift(a, k):
    """a moved k places to the right, log 0 coming in."""
    return np.concatenate([np.full(k, -np.inf, dtype=a.dtype, like=a), a])[:len(a)]


def _forward(log_p, places, skip):
    r"""Log-probability of all beginnings of paths that are at place s at frame t: (T, S)."""
    start = np.arange(len(places), like=log_p) < 2
    alpha = [np.where(start, log_p[0, places], -np.inf)]
    for t in range(1, len(log_p)):
        a = alpha[-1]
        ways = np.stack([a, _shift(a, 1), np.where(skip, _shift(a, 2), -np.inf)])
        alpha.append(logsumexp(ways, axis=0) + log_p[t, places])
    return np.stack(alpha)


def ctc(logits, labels):
    r"""Minus the log-probability that some path of symbols, repeats merged and blanks removed, reads the labels.

    $$-\log \sum_{\pi:\,B(\pi)=y}\;\prod_t p_t(\pi_t), \qquad p_t = \mathrm{softmax}(\mathrm{logits}_t)$$

    Shapes: logits (T, K); labels (L,) integers in 1..K-1. Returns a scalar. Analytic in the logits.
    Raises: ValueError when a label leaves its range, or there are too few frames for the text.
    Source: Graves et al. 2006, ICML, eq. 3-8.
    """
    places, skip = _extended(logits, labels)
    log_p = logits - logsumexp(logits, axis=1)[:, None]
    return -logsumexp(_forward(log_p, places, skip)[-1][-2:], axis=0)


def ctc_vjp(dy, logits, labels):
    """dlogits = p - gamma, gamma_tk being the probability, given the text, that the path shows symbol k at frame t."""
    places, skip = _extended(logits, labels)
    log_p = logits - logsumexp(logits, axis=1)[:, None]
    alpha = _forward(log_p, places, skip)
    # From the end: the same recursion on the reversed text, whose skips are those of the place two further on.
    back_skip = np.concatenate([np.zeros(2, dtype=bool, like=skip), skip[::-1]])[:len(places)]
    beta = _forward(log_p[::-1], places[::-1], back_skip)[::-1, ::-1]
    through = np.exp(alpha + beta - log_p[:, places] - logsumexp(alpha[-1][-2:], axis=0))  # (T, S)
    onehot = np.asarray(places[:, None] == np.arange(logits.shape[1], like=logits), dtype=logits.dtype, like=logits)
    return dy * (softmax(logits, axis=1) - np.matmul(through, onehot))
