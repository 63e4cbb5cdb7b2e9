"""Vector quantisation: codebooks, what gradient goes where, and the relaxed categorical sample.

Where a published gradient is deliberately not the derivative of the value (the straight-through estimate, the stop in
each half of the loss), the two halves are functions of their own, so that value and gradient agree in every one.
"""
import math

import numpy as np

from ..ops._check import per_sample, require, same_dtype, same_shape_as, sample_sum
from ..ops.activation import logsumexp, softmax, softmax_vjp
from ..ops.embedding import embedding


def _vectors(name, **arrays):
    same_dtype(name, **arrays)
    shapes = {label: a.shape for label, a in arrays.items()}
    require(len({s[-1:] for s in shapes.values()}) == 1 and all(len(s) >= 2 for s in shapes.values()),
            f"{name}: arrays (..., D) of one D expected, got " + ", ".join(f"{k} {v}" for k, v in shapes.items()))


def _check_codes(name, codes, size):
    codes = np.asarray(codes)
    require(np.issubdtype(codes.dtype, np.integer), f"{name}: codes must be integers, got {codes.dtype}")
    require(not np.any((codes < 0) | (codes >= size)), f"{name}: codes must lie in 0..{size - 1}, the rows of the "
            f"codebook, got {codes.min(initial=0)}..{codes.max(initial=0)}")


def nearest_code(z, codebook):
    r"""The row of the codebook nearest to each vector; the first one on a tie.

    $$k = \arg\min_j \|z - e_j\|^2$$

    Shapes: z (..., D); codebook (K, D); returns integers (...).
    Raises: ValueError when D differs or a vector is not finite (NaN is near to nothing).
    Source: van den Oord et al. 2017, arXiv:1711.00937, eq. 1.
    """
    _vectors("nearest_code", z=z, codebook=codebook)
    require(bool(np.all(np.isfinite(z))), "nearest_code: z holds NaN or infinity")
    return np.argmin(np.sum(codebook * codebook, axis=1) - 2 * z @ codebook.T, axis=-1)


def quantise(codes, codebook):
    r"""The rows of the codebook that codes name; its gradient is embedding_vjp, for the codebook alone.

    $$e = E_k$$

    Shapes: codes (...) integers; codebook (K, D); returns (..., D).
    Raises: ValueError for codes outside the codebook.
    Source: van den Oord et al. 2017, arXiv:1711.00937, eq. 2.
    """
    _check_codes("quantise", codes, len(codebook))
    return embedding(codes, codebook)


def straight_through(z, e):
    r"""The quantised vector, whose gradient is passed to the encoder as if nothing had been quantised.

    $$z + \mathrm{sg}(e - z) = e$$

    Shapes: z, e (..., D); returns e. straight_through_vjp is not the derivative (which is 0): that is its point.
    Raises: ValueError when the shapes differ.
    Source: Bengio, Léonard, Courville 2013, arXiv:1308.3432; van den Oord et al. 2017, arXiv:1711.00937, sec. 3.2.
    """
    _vectors("straight_through", z=z, e=e)
    require(z.shape == e.shape, f"straight_through: one shape expected, got z {z.shape} and e {e.shape}")
    return e


def straight_through_vjp(dy, z, e):
    """dz = dy; the codebook gets nothing on this way."""
    return dy


def codebook_loss(e, z):
    r"""How far the chosen rows are from the encoder's vectors, as a loss for the codebook; z is constant here.

    $$\frac1M\sum_m \|\mathrm{sg}(z_m) - e_m\|^2$$

    The mean over all M vectors and the sum over D: the paper's norm, and it does not grow with the batch. Codes that
    take the mean over D too (diffusers) differ by the factor D.
    Shapes: e, z (..., D); returns a scalar. Analytic.
    Raises: ValueError when the shapes differ.
    Source: van den Oord et al. 2017, arXiv:1711.00937, eq. 3, second term.
    """
    same_shape_as("codebook_loss", e, z=z)
    require(e.ndim >= 2 and e.size, f"codebook_loss: at least one vector (..., D) expected, got shape {e.shape}")
    return np.sum((e - z) ** 2) / (z.size // z.shape[-1])


def codebook_loss_vjp(dy, e, z):
    """de = 2 dy (e - z)/M."""
    return 2 * dy * (e - z) / (z.size // z.shape[-1])


def commitment_loss(z, e, beta=0.25):
    r"""How far the encoder's vectors are from the chosen rows, as a loss for the encoder; e is constant here.

    $$\frac\beta M\sum_m \|z_m - \mathrm{sg}(e_m)\|^2$$

    beta stands before this term and not before the codebook's: the sum of both has the same value either way, and only
    the gradients tell them apart.
    Shapes: z, e (..., D); beta a number; returns a scalar. Analytic.
    Raises: ValueError when the shapes differ.
    Source: van den Oord et al. 2017, arXiv:1711.00937, eq. 3, third term.
    """
    return beta * codebook_loss(z, e)


def commitment_loss_vjp(dy, z, e, beta=0.25):
    """dz = 2 beta dy (z - e)/M."""
    return beta * codebook_loss_vjp(dy, z, e)


def kmeans_step(z, codebook):
    r"""One step of k-means: every row moves to the centroid of the vectors nearest to it, and stays if there are none.

    $$e_k \leftarrow \frac{1}{n_k}\sum_{m : k_m = k} z_m$$

    Shapes: z (M, D); codebook (K, D); returns (K, D).
    Source: Lloyd 1982, IEEE Trans. Inf. Theory 28(2).
    """
    counts, sums = _assigned(nearest_code(z, codebook), z, len(codebook))
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], codebook)


def _assigned(codes, z, size):
    """How many vectors each code has, and their sum."""
    onehot = (codes.reshape(-1, 1) == np.arange(size)).astype(z.dtype)
    return np.sum(onehot, axis=0), onehot.T @ z.reshape(-1, z.shape[-1])


def ema_codebook(counts, sums, codebook, codes, z, decay=0.99, stabiliser=1e-5):
    r"""The codebook as moving averages of counts and sums of the vectors assigned to each row.

    $$N_k \leftarrow \gamma N_k + (1-\gamma) n_k, \quad m_k \leftarrow \gamma m_k + (1-\gamma)\!\!\sum_{k_m=k}\! z_m,
      \quad e_k = \frac{m_k}{\tilde N_k}, \quad \tilde N_k = \frac{N_k + \epsilon}{\sum N + K\epsilon}\sum_j N_j$$

    The smoothed count is for the division only. Written back over N, as public code does, it leaks epsilon into every
    later average, and rows that are never used drift.
    Shapes: counts (K,); sums, codebook (K, D); codes (...); z (..., D). Returns the new counts, sums and codebook; rows
    whose average count is 0 stay where they are.
    Raises: ValueError when decay leaves [0, 1] or codes leave the codebook.
    Source: van den Oord et al. 2017, arXiv:1711.00937, app. A.1 (eq. 6-8); smoothing: the authors' code.
    """
    require(0 <= decay <= 1, f"ema_codebook: decay must be in [0, 1], got {decay}")
    _check_codes("ema_codebook", codes, len(codebook))
    n, s = _assigned(codes, z, len(codebook))
    counts, sums = decay * counts + (1 - decay) * n, decay * sums + (1 - decay) * s
    total = np.sum(counts)
    smoothed = (counts + stabiliser) / (total + len(counts) * stabiliser) * total
    used = counts > 0
    return counts, sums, np.where(used[:, None], sums / np.where(used, smoothed, 1)[:, None], codebook)


def restart_codes(counts, sums, codebook, z, rows, least):
    r"""Rows that hardly any vector is assigned to take the place of a vector of the batch, as if assigned to it.

    $$N_k < \nu: \quad e_k \leftarrow z_{r_k}, \quad m_k \leftarrow \nu z_{r_k}, \quad N_k \leftarrow \nu$$

    Shapes: counts (K,); sums, codebook (K, D); z (M, D); rows (K,) integers in 0..M-1, drawn by the caller; least (nu),
    a positive number of vectors. Returns the new counts, sums and codebook.
    Raises: ValueError when least is not positive or rows leave the batch.
    Source: Dhariwal et al. 2020 (Jukebox), arXiv:2005.00341, sec. 3.1 (random restarts).
    """
    require(least > 0, f"restart_codes: least must be positive, got {least}")
    _check_codes("restart_codes", rows, len(z))
    dead = counts < least
    return (np.where(dead, least, counts), np.where(dead[:, None], least * z[rows], sums),
            np.where(dead[:, None], z[rows], codebook))


def perplexity(codes, size):
    r"""How many codes are in use: the exponential of the entropy of their frequencies, from 1 to K.

    $$\exp\left(-\sum_k p_k\log p_k\right)$$

    Shapes: codes (...) integers in 0..size-1; returns a number.
    Raises: ValueError when there are none or they leave the codebook.
    Source: van den Oord et al. 2017, arXiv:1711.00937, the authors' code.
    """
    _check_codes("perplexity", codes, size)
    require(np.size(codes) > 0, "perplexity: at least one code expected, got none")
    p = np.bincount(np.ravel(codes), minlength=size) / np.size(codes)
    return float(np.exp(-np.sum(p[p > 0] * np.log(p[p > 0]))))


def gumbel(u):
    r"""Standard Gumbel noise from uniform numbers in (0, 1].

    $$g = -\log(-\log u)$$

    The generator's uniforms are multiples of 2^-24 up to 1: half a step less keeps the logarithm away from 0.
    Shapes: u float64; returns u's shape, finite.
    Raises: TypeError unless u is float64, in which the half step is exact; ValueError when u leaves (0, 1].
    Source: Gumbel 1954; Maddison et al. 2017, arXiv:1611.00712.
    """
    if u.dtype != np.float64:
        raise TypeError(f"gumbel: u must be float64, got {u.dtype}")
    require(bool(np.all((u >= 2.0**-24) & (u <= 1))), "gumbel: u must lie in 2^-24..1, as the generator's uniforms do")
    return -np.log(-np.log(u - 2.0**-25))


def gumbel_softmax(logits, g, tau):
    r"""A relaxed sample from a categorical distribution: one-hot as tau goes to 0, and differentiable for tau > 0.

    $$y = \mathrm{softmax}\left(\frac{l + g}{\tau}\right)$$

    Shapes: logits, g (..., K); tau a positive number; returns (..., K), rows summing to 1. Analytic.
    Raises: ValueError when shapes differ or tau is not positive.
    Source: Jang, Gu, Poole 2017, arXiv:1611.01144, eq. 2; Maddison et al. 2017, arXiv:1611.00712.
    """
    same_dtype("gumbel_softmax", logits=logits, g=g)
    require(logits.shape == g.shape, f"gumbel_softmax: g in the shape of logits {logits.shape} expected, got {g.shape}")
    require(tau > 0, f"gumbel_softmax: tau must be positive, got {tau}")
    return softmax((logits + g) / tau)


def gumbel_softmax_vjp(dy, logits, g, tau):
    """dlogits = dg = y (dy - <dy, y>)/tau."""
    dlogits = softmax_vjp(dy, (logits + g) / tau) / tau
    return dlogits, dlogits


def kl_uniform(logits):
    r"""Divergence of categorical distributions from the uniform one, summed over all of a sample's, in nats.

    $$\mathrm{KL}(q\,\|\,U) = \log K + \sum_k q_k\log q_k, \qquad q = \mathrm{softmax}(l)$$

    Shapes: logits (N, ..., K); returns (N,). Analytic.
    Raises: ValueError when logits have fewer than two axes or are not finite.
    Source: Ramesh et al. 2021, arXiv:2102.12092, sec. 2.1.
    """
    require(logits.ndim >= 2, f"kl_uniform: logits must be (N, ..., K), got shape {logits.shape}")
    require(bool(np.all(np.isfinite(logits))), "kl_uniform: logits hold NaN or infinity")
    log_q = logits - logsumexp(logits)[..., None]
    terms = math.log(logits.shape[-1]) + np.sum(np.exp(log_q) * log_q, axis=-1)
    return sample_sum(terms)


def kl_uniform_vjp(dy, logits):
    """dlogits = dy q (log q - sum q log q)."""
    log_q = logits - logsumexp(logits)[..., None]
    q = np.exp(log_q)
    return per_sample(dy, logits) * q * (log_q - np.sum(q * log_q, axis=-1, keepdims=True))


def adaptive_weight(grad_reconstruction, grad_adversarial, stabiliser=1e-4, most=1e4):
    r"""VQGAN's weight of the adversarial term: it makes both gradients equally long at the decoder's last layer.

    $$\lambda = \frac{\|\nabla_{G_L} L_{rec}\|}{\|\nabla_{G_L} L_{GAN}\| + \delta}$$

    Shapes: gradients of both losses with respect to the same weight; returns a number in 0..most, a constant.
    Raises: ValueError when the shapes differ or a gradient is not finite.
    Source: Esser et al. 2021, arXiv:2012.09841, eq. 7 (delta = 1e-6); delta = 1e-4 and the limit: the authors' code.
    """
    g, h = grad_reconstruction, grad_adversarial
    require(g.shape == h.shape, f"adaptive_weight: gradients of one weight expected, got {g.shape} and {h.shape}")
    lengths = [math.sqrt(float(np.sum(a * a, dtype=np.float64))) for a in (g, h)]
    require(all(map(math.isfinite, lengths)), f"adaptive_weight: gradients must be finite, their norms are {lengths}")
    return min(lengths[0] / (lengths[1] + stabiliser), most)
