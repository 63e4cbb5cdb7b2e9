"""Losses and features that compare the samples of a batch with each other, each with its vjp.

A generator that collapses shows in no sample by itself; it shows in these.
"""
import numpy as np

from ..ops._check import require, same_dtype
from .adversarial import minimax_d, minimax_d_vjp


def relativistic_d(logit_real, logit_fake):
    r"""Relativistic average loss: real samples are to look more real than the fake ones do on average, and conversely.

    $$E\,\zeta\left(-(l_r - E\,l_f)\right) + E\,\zeta\left(l_f - E\,l_r\right)$$

    The generator's loss is the same function with its arguments exchanged.

    Shapes: logits any; returns a scalar. Analytic.
    Source: Jolicoeur-Martineau 2018, arXiv:1807.00734.
    """
    return minimax_d(logit_real - np.mean(logit_fake), logit_fake - np.mean(logit_real))


def relativistic_d_vjp(dy, logit_real, logit_fake):
    """With a, b the gradients of minimax_d at the differences: dl_real = a - sum(b)/N, dl_fake = b - sum(a)/M."""
    a, b = minimax_d_vjp(dy, logit_real - np.mean(logit_fake), logit_fake - np.mean(logit_real))
    return a - np.sum(b) / logit_real.size, b - np.sum(a) / logit_fake.size


def feature_matching(features_real, features_fake):
    r"""Squared distance between the mean features of data and samples, as a loss for the generator.

    $$\left\|E f(x) - E f(G(z))\right\|^2$$

    Shapes: features_real (N, ...), features_fake (M, ...). Returns a scalar. Analytic.
    Source: Salimans et al. 2016, arXiv:1606.03498, sec. 3.1.
    """
    same_dtype("feature_matching", features_real=features_real, features_fake=features_fake)
    require(features_real.shape[1:] == features_fake.shape[1:],
            f"feature_matching: features of one shape expected, got {features_real.shape} and {features_fake.shape}")
    return np.sum((np.mean(features_real, axis=0) - np.mean(features_fake, axis=0)) ** 2)


def feature_matching_vjp(dy, features_real, features_fake):
    """df_real = 2 (mean f_r - mean f_f)/N, df_fake = -2 (mean f_r - mean f_f)/M, the same for every sample."""
    gap = 2 * dy * (np.mean(features_real, axis=0) - np.mean(features_fake, axis=0))
    return (np.broadcast_to(gap / len(features_real), features_real.shape),
            np.broadcast_to(-gap / len(features_fake), features_fake.shape))


def _unit_rows(x):
    """Rows divided by their length, and the lengths (N, 1)."""
    length = np.sqrt(np.sum(x * x, axis=1, keepdims=True))
    return x / length, length


def pulling_away(s):
    r"""EBGAN's pulling-away term: the mean squared cosine between the codes of different samples.

    $$\frac{1}{N(N-1)}\sum_i\sum_{j\ne i}\left(\frac{s_i\cdot s_j}{\|s_i\|\,\|s_j\|}\right)^2$$

    Shapes: s (N, D), N >= 2, no row 0. Returns a scalar in [0, 1]; 0 for orthogonal rows. Analytic.
    Raises: ValueError when there are fewer than two rows, or a row is 0.
    Source: Zhao et al. 2017, arXiv:1609.03126, sec. 2.4.
    """
    require(s.ndim == 2 and len(s) > 1, f"pulling_away: s (N, D) with N >= 2 expected, got shape {s.shape}")
    require(bool(np.all(np.any(s != 0, axis=1))), "pulling_away: a row of s is 0, its cosines do not exist")
    unit, _ = _unit_rows(s)
    cosines = np.matmul(unit, unit.T)  # (N, N)
    n = len(s)
    return (np.sum(cosines * cosines) - n) / (n * (n - 1))


def pulling_away_vjp(dy, s):
    """ds_i = (h_i - u_i <h_i, u_i>)/|s_i|, u the unit rows, h_i = 4/(N(N-1)) sum over j != i of <u_i, u_j> u_j."""
    unit, length = _unit_rows(s)
    cosines = np.matmul(unit, unit.T) * (1 - np.eye(len(s), dtype=s.dtype, like=s))
    h = 4 * dy / (len(s) * (len(s) - 1)) * np.matmul(cosines, unit)
    return (h - unit * np.sum(h * unit, axis=1, keepdims=True)) / length


def _groups(x, group):
    require(x.ndim >= 2, f"minibatch_stddev: x (N, C, ...) expected, got shape {x.shape}")
    require(group >= 1 and len(x) % group == 0 and len(x) > 0,
            f"minibatch_stddev: the batch must be a multiple of the group of {group}, got {len(x)} samples")
    return x.reshape(group, len(x) // group, -1)  # sample n is in group n mod (N/group), as in the papers' code


def minibatch_stddev(x, group, stabiliser=1e-8):
    r"""Append one channel that holds the standard deviation within the sample's group, averaged over features.

    $$s_g = \frac1D\sum_d \sqrt{\frac1G\sum_{n\in g}(x_{nd}-\mu_{gd})^2 + \epsilon}$$

    Shapes: x (N, C, ...), N a multiple of group. Returns (N, C+1, ...). Analytic for stabiliser > 0. A collapsed batch
    gives sqrt(stabiliser), and with stabiliser 0 a channel of 0 whose derivative is taken as 0.
    Raises: ValueError when group does not divide N.
    Source: Karras et al. 2018, arXiv:1710.10196, sec. 3; the stabiliser and the grouping are its code's.
    """
    y = _groups(x, group)
    centred = y - np.mean(y, axis=0)
    s = np.mean(np.sqrt(np.mean(centred * centred, axis=0) + stabiliser), axis=1)  # (N/G,)
    channel = np.tile(s, group).reshape((len(x), 1) + (1,) * (x.ndim - 2))
    return np.concatenate([x, np.broadcast_to(channel, (len(x), 1, *x.shape[2:]))], axis=1)


def minibatch_stddev_vjp(dy, x, group, stabiliser=1e-8):
    """dx = dy's own channels + sum of the group's last channel times (x - mu)/(D G s_d)."""
    y = _groups(x, group)
    centred = y - np.mean(y, axis=0)
    s = np.sqrt(np.mean(centred * centred, axis=0) + stabiliser)
    ds = np.sum(dy[:, -1:].reshape(group, y.shape[1], -1), axis=(0, 2))  # (N/G,)
    slope = centred / (np.where(s.real > 0, s, 1) * group * y.shape[2])
    return dy[:, :-1] + (slope * ds[:, None]).reshape(x.shape)


def _closeness(x, t):
    m = np.tensordot(x, t, axes=(1, 0))  # (N, B, C)
    gap = m[:, None] - m[None]  # (N, N, B, C)
    side = np.sign(gap.real)
    return side, np.exp(-np.sum(gap * side, axis=3))  # (N, N, B)


def minibatch_discrimination(x, t):
    r"""Append to every sample how close it is to the others of its batch, in B learnt projections.

    $$o_{ib} = \sum_j \exp\left(-\|M_{ib}-M_{jb}\|_1\right), \qquad M_i = x_i T \in R^{B\times C}$$

    Shapes: x (N, A), t (A, B, C). Returns (N, A+B); j = i adds 1. Analytic but where two projections meet.
    Raises: ValueError when the shapes do not fit.
    Source: Salimans et al. 2016, arXiv:1606.03498, sec. 3.2.
    """
    same_dtype("minibatch_discrimination", x=x, t=t)
    require(x.ndim == 2 and t.ndim == 3 and x.shape[1] == t.shape[0],
            f"minibatch_discrimination: x (N, A) and t (A, B, C) expected, got {x.shape} and {t.shape}")
    return np.concatenate([x, np.sum(_closeness(x, t)[1], axis=1)], axis=1)


def minibatch_discrimination_vjp(dy, x, t):
    """dM_ib = -sum_j (do_ib + do_jb) exp(-|M_ib - M_jb|) sign(M_ib - M_jb); then dx = dy + dM T^T, dt = x^T dM."""
    side, close = _closeness(x, t)
    do = dy[:, x.shape[1]:]
    dm = -np.sum(((do[:, None] + do[None]) * close)[..., None] * side, axis=1)  # (N, B, C)
    return dy[:, :x.shape[1]] + np.tensordot(dm, t, axes=((1, 2), (1, 2))), np.tensordot(x, dm, axes=(0, 0))
