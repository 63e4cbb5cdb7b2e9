"""Energy-based models: the density is the exponential of a function, divided by what that exponential integrates to."""
import math

import numpy as np

from ..ops._check import alike, require, same_dtype
from ..ops.activation import logsumexp, softmax


def log_partition(f, cell):
    r"""Logarithm of the normalising constant by a sum over a grid, for spaces small enough to have one.

    $$\log Z = \log\int e^{f(x)}\,dx \approx \log\sum_g e^{f(x_g)} + \log\Delta, \qquad p(x) = \frac{e^{f(x)}}{Z}$$

    The integral is of exp(f): the lecture's integral of p is 1 whatever f is, and normalises nothing.
    Shapes: f any shape, the function (minus the energy) on the grid; cell (Delta), the volume of a cell. Returns a
    scalar. Analytic.
    Raises: ValueError when cell is not positive or f holds NaN or +infinity.
    Source: LeCun et al. 2006, A tutorial on energy-based learning, sec. 1.3.
    """
    require(cell > 0, f"log_partition: cell must be positive, got {cell}")
    require(not np.any(np.isnan(f) | (f.real == np.inf)), "log_partition: f holds NaN or +infinity")
    return logsumexp(f.reshape(-1)) + math.log(cell)


def log_partition_vjp(dy, f, cell):
    """df = dy p(x_g) cell: the expectation of df under the model."""
    return dy * softmax(f.reshape(-1)).reshape(f.shape)


def contrastive_loss(f_data, f_model, weight=0.0):
    r"""Up where the data are, down where the model's own samples are: its gradient is that of -log p, estimated.

    $$L = E_{model}[f] - E_{data}[f] + \alpha\left(E_{data}[f^2] + E_{model}[f^2]\right)$$

    Because d log Z = E_model[df], the first two terms have the gradient of the negative log likelihood. The third holds
    the scale of f.
    Shapes: f_data (N,), f_model (M,); weight (alpha); returns a scalar. Analytic.
    Raises: ValueError when one is empty.
    Source: Hinton 2002, Neural Computation 14; Du and Mordatch 2019, arXiv:1903.08689, eq. 2-3 and alg. 1.
    """
    same_dtype("contrastive_loss", f_data=f_data, f_model=f_model)
    require(f_data.size and f_model.size, "contrastive_loss: both f_data and f_model need at least one value")
    return (np.mean(f_model) - np.mean(f_data)
            + weight * (np.mean(f_data**2) + np.mean(f_model**2)))


def contrastive_loss_vjp(dy, f_data, f_model, weight=0.0):
    """df_data = dy (2 alpha f - 1)/N; df_model = dy (2 alpha f + 1)/M."""
    return dy * (2 * weight * f_data - 1) / f_data.size, dy * (2 * weight * f_model + 1) / f_model.size


def denoising_score_matching(score, z, sigma):
    r"""The score of data with noise, learnt by predicting the noise; Z does not occur.

    $$\frac{1}{2N}\sum_n \left\|\sigma\, s(x_n + \sigma z_n) + z_n\right\|^2$$

    Shapes: score s(x + sigma z) and z (N, ...); sigma a positive number; returns a scalar. Analytic. Weighted by
    sigma^2, so that every noise level counts alike.
    Raises: ValueError when shapes differ or sigma is not positive.
    Source: Vincent 2011, Neural Computation 23(7); weight: Song and Ermon 2019, arXiv:1907.05600, eq. 5-6.
    """
    require(score.shape == z.shape and len(z), f"denoising_score_matching: score in the shape of z {z.shape} expected, "
            f"got {score.shape}")
    require(sigma > 0, f"denoising_score_matching: sigma must be positive, got {sigma}")
    return np.sum((sigma * score + z) ** 2) / (2 * len(z))


def denoising_score_matching_vjp(dy, score, z, sigma):
    """dscore = dy sigma (sigma s + z)/N."""
    return dy * sigma * (sigma * score + z) / len(z)


def implicit_score_matching(score, divergence):
    r"""Score matching without noise and without the data's score: what integration by parts leaves.

    $$E\left[\tfrac12\|s(x)\|^2 + \nabla\cdot s(x)\right]$$

    Shapes: score (N, ...); divergence (N,), the trace of its Jacobian; returns a scalar. Analytic.
    Raises: ValueError when the shapes do not fit.
    Source: Hyvärinen 2005, JMLR 6, theorem 1.
    """
    require(divergence.shape == score.shape[:1] and len(score),
            f"implicit_score_matching: divergence {score.shape[:1]} expected, got {divergence.shape}")
    return np.sum(score**2) / (2 * len(score)) + np.mean(divergence)


def implicit_score_matching_vjp(dy, score, divergence):
    """dscore = dy s/N; ddivergence = dy/N."""
    return dy * score / len(score), dy / len(score) + 0 * divergence


def langevin_step(x, score, step, z):
    r"""One step of unadjusted Langevin dynamics towards the density whose score is given.

    $$x' = x + \eta\, s(x) + \sqrt{2\eta}\; z$$

    Shapes: x, score, z (N, ...); step (eta) a positive number; returns x'. Analytic. On N(0, 1) its stationary variance
    is 1/(1 - eta/2). Many codes for images shrink the noise below sqrt(2 eta): that samples a colder density.
    Raises: ValueError when shapes differ or step is not positive.
    Source: Roberts and Tweedie 1996, Bernoulli 2(4); Welling and Teh 2011, ICML.
    """
    alike("langevin_step", x=x, score=score, z=z)
    require(step > 0, f"langevin_step: step must be positive, got {step}")
    return x + step * score + math.sqrt(2 * step) * z


def langevin_step_vjp(dy, x, score, step, z):
    """dx = dy; dscore = eta dy; dz = sqrt(2 eta) dy."""
    return dy, step * dy, math.sqrt(2 * step) * dy
