"""Losses and layers with no test of their own beside PyTorch: values and gradients on the inputs of the facts."""
import numpy as np
import pytest
import torch
from beside_torch import beside_torch
from conftest import draws
from hypothesis import given
from torch import distributions as dist
from torch.nn import functional as F

from refimpl.facts import load
from refimpl.facts.gradients import PAIRS

load()


def total(a):
    return a.flatten(1).sum(1)


def pixel_norm(x, stabiliser):
    return F.rms_norm(x.movedim(1, -1), x.shape[1:2], eps=stabiliser).movedim(-1, 1)


def adain(x, scale, bias, stabiliser):
    n, c = x.shape[:2]
    return F.group_norm(x.reshape(1, n * c, *x.shape[2:]), n * c, scale.flatten(), bias.flatten(),
                        stabiliser).reshape(x.shape)


def modulated_conv2d(x, w, style, padding, demodulate):
    """Filters of each sample's own, one sample at a time."""
    own = w * style[:, None, :, None, None]
    own = own / (own.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt() if demodulate else own
    return torch.cat([F.conv2d(x[i:i + 1], own[i], padding=padding) for i in range(len(x))])


def denoising_score_matching(score, z, sigma):
    """sigma^2/2 of the squared distance to the score of N(x, sigma^2) at x + sigma z."""
    return sigma**2 / 2 * total((score + z / sigma) ** 2).mean()


def log_logistic(x):
    edge = torch.zeros((), dtype=x.dtype)
    logistic = dist.TransformedDistribution(dist.Uniform(edge, edge + 1), [dist.SigmoidTransform().inv])
    return total(logistic.log_prob(x))


def affine_coupling(x, mask, s, t):
    free = 1 - torch.as_tensor(mask, dtype=x.dtype)
    change = dist.AffineTransform(free * t, (free * s).exp())
    return change(x), total(change.log_abs_det_jacobian(x, change(x)))


def additive_coupling(x, mask, t):
    return torch.where(torch.as_tensor(mask, dtype=torch.bool), x, x + t), 0 * total(x)


def actnorm(x, log_scale, bias):
    column = (-1,) + (1,) * (x.ndim - 2)
    change = dist.ComposeTransform([dist.AffineTransform(bias.reshape(column), 1),
                                    dist.AffineTransform(0, log_scale.exp().reshape(column))])
    return change(x), total(change.log_abs_det_jacobian(x, change(x)) + 0 * x)


def lu_weight(permutation, lower, upper, sign, log_s):
    lower, upper = torch.tril(lower, -1) + torch.eye(len(sign), dtype=lower.dtype), torch.triu(upper, 1)
    return permutation @ lower @ (upper + torch.diag(sign * log_s.exp()))


def entropy_normal(log_var):
    return total(dist.Normal(torch.zeros_like(log_var), (log_var / 2).exp()).entropy())


THEIRS = {f.__name__: f for f in (pixel_norm, adain, modulated_conv2d, denoising_score_matching, log_logistic,
                                  affine_coupling, additive_coupling, actnorm, lu_weight, entropy_normal)} | {
    "gradient_norms": lambda g: torch.linalg.vector_norm(g.flatten(1), dim=1),
    "log_partition": lambda f, cell: torch.log(cell * f.exp().sum()),
    "contrastive_loss": lambda f_data, f_model, weight: f_model.mean() - f_data.mean() + weight * (
        F.mse_loss(f_data, torch.zeros_like(f_data)) + F.mse_loss(f_model, torch.zeros_like(f_model))),
    "implicit_score_matching": lambda score, divergence: (total(score**2) / 2 + divergence).mean(),
    "langevin_step": lambda x, score, step, z: x + step * score + (2 * step) ** 0.5 * z,
    "negative_elbo": lambda log_likelihood, kl, beta: -(log_likelihood - beta * kl).mean(),
}


@pytest.mark.parametrize("name", THEIRS)
@given(d=draws())
def test_values_and_gradients(name, d):
    outputs, gradients = beside_torch(PAIRS[name], THEIRS[name], d)
    for ours, theirs in outputs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-11)
    for ours, theirs in gradients:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11 * (1 + np.max(abs(theirs), initial=0)))
