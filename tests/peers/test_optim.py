"""The same steps as torch.optim on the same gradients, in float64."""
import numpy as np
import pytest
import torch

from refimpl import optim

RULES = {
    "sgd": (optim.sgd, dict(momentum=0.9), torch.optim.SGD, dict(momentum=0.9)),
    "rmsprop": (optim.rmsprop, dict(decay=0.97), torch.optim.RMSprop, dict(alpha=0.97)),
    "adam": (optim.adam, dict(beta1=0.5, beta2=0.99), torch.optim.Adam, dict(betas=(0.5, 0.99))),
    "adamw": (optim.adamw, dict(weight_decay=0.1), torch.optim.AdamW, dict(weight_decay=0.1)),
}


@pytest.mark.parametrize("name", RULES)
def test_twenty_steps(name, rng):
    rule, ours, peer, theirs = RULES[name]
    params = {"w": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}
    mirrored = {k: torch.tensor(p, requires_grad=True) for k, p in params.items()}
    optimiser, state = peer(mirrored.values(), lr=0.03, **theirs), {}
    for step in range(20):
        grads = {k: rng.standard_normal(p.shape) for k, p in params.items()}
        for k, p in mirrored.items():
            p.grad = torch.tensor(grads[k])
        for group in optimiser.param_groups:
            group["lr"] = 0.03 / (1 + step)
        optimiser.step()
        params, state = rule(params, grads, state, 0.03 / (1 + step), **ours)
    for k, p in params.items():
        np.testing.assert_allclose(p, mirrored[k].detach().numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("limit", [0.1, 100.0])
def test_clipping(limit, rng):
    grads = {"w": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}
    tensors = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in grads.values()]
    for p, g in zip(tensors, grads.values()):
        p.grad = torch.tensor(g)
    norm = torch.nn.utils.clip_grad_norm_(tensors, limit)
    clipped, ours = optim.clip_by_global_norm(grads, limit)
    assert abs(ours - float(norm)) < 1e-12
    for p, g in zip(tensors, clipped.values()):  # PyTorch divides by norm + 1e-6
        np.testing.assert_allclose(g, p.grad.numpy(), rtol=2e-6)


def test_cosine_rate():
    p = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([p], lr=0.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 17)
    for step in range(17):
        assert abs(optim.cosine_rate(step, 17, 0.5) - schedule.get_last_lr()[0]) < 1e-12
        optimiser.step()
        schedule.step()
