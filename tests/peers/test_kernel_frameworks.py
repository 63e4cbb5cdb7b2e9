"""PyTorch functions under the verdict, through DLPack: right ones pass in four dtypes, wrong ones are named."""
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kernels.conv2d.cases import sides
from kernels.frameworks import back, convert, guess
from kernels.testing import check


def conv(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    (top, bottom), (left, right) = sides(padding)
    return F.conv2d(F.pad(x, (left, right, top, bottom)), w, b, stride, 0, dilation, groups)


def conv_by_float32(x, w, b=None, **options):
    return conv(x.float(), w.float(), None if b is None else b.float(), **options).to(x.dtype)


def attention(q, k, v, mask=None, causal=False, scale=None):
    if not k.shape[2]:
        return q.new_zeros(*q.shape[:3], v.shape[3])
    seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
    seen = seen.tril() if causal else seen
    seen = seen if mask is None else seen & mask
    y = F.scaled_dot_product_attention(q, k, v, seen.expand(*q.shape[:3], -1), scale=scale)
    return torch.where(seen.any(-1, keepdim=True), y, 0)


def batch_norm(x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    mean, var = running_mean.clone(), running_var.clone()
    if not x.numel():
        return x.clone(), mean, var
    return F.batch_norm(x, mean, var, gamma, beta, train, momentum, stabiliser), mean, var


def modulated_conv2d(x, w, style, padding=0, demodulate=True, stabiliser=1e-8):
    own = w * style[:, None, :, None, None]
    if demodulate:
        own = own * (own.square().sum((2, 3, 4), keepdim=True) + stabiliser).rsqrt()
    y = conv(x.reshape(1, -1, *x.shape[2:]), own.flatten(0, 1), None, padding=padding, groups=len(x)) if len(x) else (
        conv(x, w, None, padding=padding))
    return y.reshape(len(x), len(w), *y.shape[2:])


@pytest.mark.parametrize("dtype, function", [("float32", conv), ("float64", conv), ("float16", conv_by_float32),
                                             ("bfloat16", conv_by_float32)])
def test_pytorch_s_convolution_passes(dtype, function):
    assert guess(function) == "torch"
    assert check("conv2d", function, 40, dtype=dtype).passed


def test_pytorch_s_attention_passes():
    assert check("attention", attention, 40).passed


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", [batch_norm, modulated_conv2d])
def test_pytorch_s_batch_norm_and_grouped_modulation_pass(function, dtype):
    assert check(function.__name__, function, 40, dtype=dtype).passed


@pytest.mark.parametrize("wrong, words", [
    (lambda *a, **o: conv(*a, **o).numpy(), "returns numpy.ndarray where torch arrays go in"),
    (lambda *a, **o: conv(*a, **o).double(), "returns float64 where the inputs are float32"),
    (lambda *a, **o: conv(*a, **o).bfloat16().float(), "rounded to it at the end"),
    (lambda *a, **o: conv(*a, **o).to("meta"), "returns an array on meta where the inputs are on cpu"),
    (lambda x, *a, **o: (conv(x, *a, **o), x.mul_(2))[0], "changes its inputs")])
def test_wrong_ones_are_named(wrong, words):
    with pytest.raises(AssertionError, match=words):
        check("conv2d", wrong, 20, arrays="torch")


def test_arrays_go_there_and_back(rng):
    for dtype, torch_dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float64", torch.float64)):
        array = np.round(rng.standard_normal((2, 3)) * 8).astype("float64" if dtype == "float64" else "float32")
        made = convert("torch", array, dtype, None)
        assert made.dtype is torch_dtype
        again, name = back(made)
        np.testing.assert_array_equal(again, array)
        assert name == dtype
    index = np.arange(3)
    assert convert("torch", index, "float32", None) is index
    assert convert("torch", np.array([True]), "float32", None).dtype is torch.bool
