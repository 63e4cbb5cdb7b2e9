"""Norms and attention beside PyTorch's, values and gradients, in float64 on the inputs of the facts."""
import numpy as np
import pytest
import torch
from beside_torch import beside_torch
from conftest import draws
from hypothesis import given
from torch.nn import functional as F

from refimpl import ops
from refimpl.facts import load
from refimpl.facts.gradients import PAIRS

load()


def group_norm(x, gamma, beta, groups, stabiliser, silu):
    y = F.group_norm(x, groups, gamma, beta, stabiliser)
    return F.silu(y) if silu else y


def instance_norm(x, gamma, beta, stabiliser):
    return F.instance_norm(x, weight=gamma, bias=beta, eps=stabiliser)


def layer_norm(x, gamma, beta, axes, stabiliser):
    return F.layer_norm(x, x.shape[x.ndim - axes:], gamma, beta, stabiliser)


def batch_norm(x, gamma, beta, running_mean, running_var, train, stabiliser):
    return F.batch_norm(x, running_mean.clone(), running_var.clone(), gamma, beta, train, 0.1, stabiliser)


def attention(q, k, v, mask, causal, scale):
    if mask is not None and causal:  # PyTorch takes one of the two
        mask, causal = mask & torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(), False
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)


THEIRS = {f.__name__: f for f in (group_norm, instance_norm, layer_norm, batch_norm, attention)}


def assert_close(ours, theirs):
    """Both round: 10^4 last places of the largest entry, for sums of at most 100 terms over sigma > .003."""
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * (1 + np.max(abs(theirs), initial=0)))


@pytest.mark.parametrize("name", THEIRS)
@given(d=draws())
def test_values_and_gradients(name, d):
    outputs, gradients = beside_torch(PAIRS[name], THEIRS[name], d)
    for ours, theirs in outputs + gradients:
        assert_close(ours, theirs)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_running_statistics(rng, train, dtype):
    x, momentum = torch.tensor(3 + 2 * rng.standard_normal((4, 3, 5, 2)), dtype=dtype), 0.3
    mean, var = torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype)
    ours = mean.numpy().copy(), var.numpy().copy()
    for _ in range(3):
        theirs = F.batch_norm(x, mean, var, None, None, train, momentum)
        y, *ours = ops.batch_norm(x.numpy(), None, None, *ours, train, momentum)
        tolerance = 1e-5 if dtype == torch.float32 else 1e-13
        for got, expected in zip((y, *ours), (theirs, mean, var), strict=True):
            assert got.dtype == expected.numpy().dtype
            np.testing.assert_allclose(got, expected.numpy(), rtol=tolerance, atol=tolerance)


def test_a_fully_masked_row_is_zero_there_too(rng):
    q, k, v, dy = (rng.standard_normal((1, 2, 3, 4)) for _ in range(4))
    mask = np.array([[True, False, True], [False] * 3, [True] * 3])
    tensors = [torch.tensor(a, requires_grad=True) for a in (q, k, v)]
    theirs = F.scaled_dot_product_attention(*tensors, attn_mask=torch.tensor(mask))
    theirs.backward(torch.tensor(dy))
    assert_close(ops.attention(q, k, v, mask=mask), theirs.detach().numpy())
    for mine, tensor in zip(ops.attention_vjp(dy, q, k, v, mask=mask), tensors):
        assert_close(mine, tensor.grad.numpy())
