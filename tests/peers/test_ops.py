"""Values and gradients of the operations beside PyTorch's, with a rounding bound that is derived, not tuned.

The inputs are those of the facts. PyTorch computes in float64. In float32 our error alone must keep the bound with
u = 2^-24; in float64 both round, and twice the bound with u = 2^-53 holds their difference.
"""
import inspect

import numpy as np
import pytest
import torch
from conftest import draws
from diffusers.models.embeddings import get_timestep_embedding
from hypothesis import assume, given
from torch.nn import functional as F

from refimpl import ops
from refimpl.facts import load
from refimpl.facts.gradients import PAIRS, leaves, pull_back, random_like

load()


def padded(x, padding, value=0.0):
    (top, bottom), (left, right) = padding
    return F.pad(x, (left, right, top, bottom), value=value)


def conv2d(x, w, b, stride, padding, dilation, groups):
    return F.conv2d(padded(x, padding), w, b, stride, 0, dilation, groups)


def conv_transpose2d(x, w, b, stride, padding, output_padding, dilation, groups):
    y = F.conv_transpose2d(x, w, b, stride, 0, output_padding, groups, dilation)
    (top, bottom), (left, right) = padding
    return y[:, :, top:y.shape[2] - bottom, left:y.shape[3] - right]


def max_pool(x, k, stride, padding):
    return F.max_pool2d(padded(x, padding, -torch.inf), k, stride)


def sinusoidal_embedding(t, dim, cos_first, shift, max_period):
    half = dim // 2
    angles = t[:, None] * max_period ** (-torch.arange(half, dtype=t.dtype) / (half - shift))
    parts = (angles.cos(), angles.sin()) if cos_first else (angles.sin(), angles.cos())
    return F.pad(torch.cat(parts, dim=1), (0, dim % 2))


# Sums of products: in any order, K terms stay within (K + 2) u times the sum of their magnitudes (Higham 2002, ch. 3).
SUMS = {
    "linear": F.linear, "conv2d": conv2d, "conv_transpose2d": conv_transpose2d, "max_pool": max_pool,
    "upsample_nearest": lambda x, k: F.interpolate(x, scale_factor=k, mode="nearest"), "average_pool": F.avg_pool2d,
    "pixel_shuffle": F.pixel_shuffle,
    "concatenate": torch.cat,
    "embedding": F.embedding, "mse": F.mse_loss, "l1": F.l1_loss,
}
# At most 16 rounded operations on numbers up to 1 + |x|, to the power given: tanh-GELU cubes its argument.
FORMULAS = {
    "sigmoid": (torch.sigmoid, 1), "softplus": (F.softplus, 1), "silu": (F.silu, 1), "tanh": (torch.tanh, 1),
    "relu": (F.relu, 1), "leaky_relu": (F.leaky_relu, 1), "prelu": (F.prelu, 2),
    "gelu": (lambda x, approximate: F.gelu(x, approximate=approximate), 3),
    "softmax": (torch.softmax, 1), "logsumexp": (torch.logsumexp, 1),
    "cross_entropy": (F.cross_entropy, 1),
    "sinusoidal_embedding": (sinusoidal_embedding, 1),
}


def each(function, value):
    return tuple(function(a) for a in value) if isinstance(value, tuple) else function(value)


def magnitudes(p, u, inputs):
    """What f and its vjp give when no term cancels: |.| everywhere, the second argument of a difference negated."""
    signs = {"y": -1.0} if p.f in (ops.mse, ops.l1) else {}
    inputs = inputs | {n: each(lambda a, n=n: signs.get(n, 1.0) * np.abs(a), inputs[n]) for n in p.wrt}
    return p.f(**inputs), pull_back(p, np.abs(u), inputs)


def sum_bounds(name, u, inputs):
    p = PAIRS[name]
    if p.f is ops.max_pool:  # it selects, and |x| would select elsewhere: dx sums at most one dy per window
        return np.zeros(u.shape), (np.full(inputs["x"].shape, u.size * np.abs(u).sum()),)
    terms = 2 + max(np.size(u), *(np.size(a) for n in p.wrt for a in leaves(inputs[n])))
    y, back = magnitudes(p, u, inputs)
    return terms * np.abs(y), [each(lambda a: terms * np.abs(a), b) for b in back]


def formula_bounds(name, u, inputs):
    arguments = [inputs[n] for n in PAIRS[name].wrt]
    bound = 16 * (1 + max(np.max(np.abs(a)) for a in arguments)) ** FORMULAS[name][1]
    return np.full(np.shape(u), bound), [np.full(a.shape, bound * np.sum(np.abs(u))) for a in arguments]


def torch_gradients(function, p, u, inputs):
    tensors = {n: each(lambda a: torch.tensor(a, dtype=torch.float64, requires_grad=True), inputs[n]) for n in p.wrt}
    rest = {n: torch.tensor(a) if isinstance(a, np.ndarray) else a for n, a in inputs.items() if n not in p.wrt}
    call = inspect.signature(p.f).bind(**tensors, **rest)  # PyTorch shares the order of the arguments, not their names
    y = function(*call.args, **call.kwargs)
    y.backward(torch.tensor(u, dtype=torch.float64).reshape(y.shape))
    return y.detach().numpy(), [each(lambda t: t.grad.numpy(), tensors[n]) for n in p.wrt]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [*SUMS, *FORMULAS])
@given(d=draws())
def test_values_and_gradients(name, dtype, d):
    p = PAIRS[name]
    assert p.f is getattr(ops, name)
    inputs = p.inputs(d)
    inputs |= {n: each(lambda a: a.astype(dtype), inputs[n]) for n in p.wrt}
    u = np.asarray(random_like(p.f(**inputs), d)).astype(dtype)
    assume(u.size > 0)  # PyTorch's backward of pixel_shuffle raises on an empty batch
    function = SUMS[name] if name in SUMS else FORMULAS[name][0]
    theirs, their_gradients = torch_gradients(function, p, u, inputs)
    bounds = sum_bounds if name in SUMS else formula_bounds
    bound, gradient_bounds = bounds(name, u.astype(float), {
        n: each(lambda a: a.astype(float), a) if n in p.wrt else a for n, a in inputs.items()})
    rounding = 2.0**-24 if dtype == np.float32 else 2 * 2.0**-53
    ours = p.f(**inputs)
    assert ours.dtype == dtype and np.all(np.abs(ours - theirs) <= rounding * bound)
    for mine, other, limit in zip(pull_back(p, u, inputs), their_gradients, gradient_bounds, strict=True):
        for a, b, c in zip(leaves(mine), leaves(other), leaves(limit), strict=True):
            assert a.dtype == dtype and np.all(np.abs(a - b) <= rounding * c)


def test_nothing_is_left_out():
    modules = {f"refimpl.ops.{m}" for m in ("activation", "conv", "embedding", "linear", "losses", "resample")}
    public = {n.removesuffix("_vjp") for n, f in vars(ops).items() if n.endswith("_vjp") and f.__module__ in modules}
    assert public == {*SUMS, *FORMULAS}, "each operation of these modules needs its peer in PyTorch here"


@pytest.mark.parametrize("cos_first, shift", [(False, 1), (True, 0), (False, 0)])
@pytest.mark.parametrize("dim", [8, 9])
def test_time_embedding_of_diffusers(cos_first, shift, dim):
    t = np.array([0, 1, 7, 500, 999])
    theirs = get_timestep_embedding(torch.tensor(t), dim, flip_sin_to_cos=cos_first, downscale_freq_shift=shift)
    ours = ops.sinusoidal_embedding(t, dim, cos_first=cos_first, shift=shift)
    # theirs is float32: the frequency exp(-log(10000) i/half) carries 1 + log(10000) roundings of its exponent
    assert np.all(np.abs(ours - theirs.numpy()) <= 12 * 2.0**-24 * (1 + t[:, None]))


def test_ties_of_max_pool_go_where_theirs_go(rng):
    x = rng.integers(0, 2, (2, 3, 6, 6)).astype(float)
    tensor = torch.tensor(x, requires_grad=True)
    y = F.max_pool2d(tensor, 3, 2, 1)
    dy = rng.standard_normal(y.shape)
    y.backward(torch.tensor(dy))
    np.testing.assert_allclose(ops.max_pool_vjp(dy, x, 3, 2, 1), tensor.grad.numpy(), rtol=1e-14, atol=1e-15)
