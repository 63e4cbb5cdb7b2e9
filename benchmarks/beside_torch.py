"""The same operations in PyTorch, written as its users would write them."""
import functools

import torch
from torch.nn import functional as F


def tensor(value, device="cpu"):
    """A tensor on the array's own memory and strides, or contiguous on a GPU; everything else stays."""
    if not hasattr(value, "strides"):
        return value
    return torch.from_numpy(value) if device == "cpu" else torch.from_numpy(value).to(device).contiguous()


def _conv2d(x, w, b, stride, padding, dilation, groups):
    return F.conv2d(x, w, b, stride, padding, dilation, groups)


def _conv2d_vjp(dy, x, w, b, stride, padding, dilation, groups):
    two = lambda v: [v, v]
    return torch.ops.aten.convolution_backward(dy, x, w, [w.shape[0]], two(stride), two(padding), two(dilation), False,
                                               [0, 0], groups, [True, True, True])


def _conv_transpose2d(x, w, b, stride, padding, output_padding, dilation, groups):
    return F.conv_transpose2d(x, w, b, stride, padding, output_padding, groups, dilation)


def _attention(q, k, v, mask, causal, scale):
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scale)


def _group_norm(x, gamma, beta, groups, stabiliser, silu):
    return F.silu(F.group_norm(x, groups, gamma, beta, stabiliser))


def _batch_norm(x, gamma, beta, mean, var, train, momentum, stabiliser):
    mean, var = mean.detach().clone(), var.detach().clone()  # which it updates where they lie
    return F.batch_norm(x, mean, var, gamma, beta, train, momentum, stabiliser), mean, var


def _modulated_conv2d(x, w, style, padding, demodulate, stabiliser):
    n, i, *image = x.shape
    own = w * style[:, None, :, None, None]  # (N, O, I, R, S): a sample's own weights, as groups of one convolution
    if demodulate:
        own = own * (own.square().sum((2, 3, 4), keepdim=True) + stabiliser).rsqrt()
    y = F.conv2d(x.reshape(1, n * i, *image), own.reshape(-1, *w.shape[1:]), padding=padding, groups=n)
    return y.reshape(n, -1, *y.shape[2:])


def _sampler_step(x, e, _, w, a, b, lo, hi, c_x, c_0, z, sigma, **absent):
    x0 = (a * x + b * e).clamp(lo, hi)
    x_s = c_x * x + c_0 * x0
    if sigma:
        x_s = x_s + sigma * (torch.randn_like(x) if isinstance(z, tuple) else z)
    return x_s, x0


def _q_sample(x0, signal, noise, z):
    return signal * x0 + noise * (torch.randn_like(x0) if isinstance(z, tuple) else z)


FORWARD = {"conv2d": _conv2d, "conv2d_vjp": _conv2d_vjp, "conv_transpose2d": _conv_transpose2d, "attention": _attention,
           "group_norm": _group_norm, "batch_norm": _batch_norm, "modulated_conv2d": _modulated_conv2d,
           "sampler_step": _sampler_step, "q_sample": _q_sample}


def _backward(operation, args, options):
    """The backward pass alone: the forward pass has been taken, as in training, and its graph is kept."""
    dy, *rest = args
    wanted = [a.clone().requires_grad_() for a in rest if isinstance(a, torch.Tensor)]
    remaining = iter(wanted)
    inputs = [next(remaining) if isinstance(a, torch.Tensor) else a for a in rest]
    y = FORWARD[operation.removesuffix("_vjp")](*inputs, **options)
    if operation == "batch_norm_vjp":  # running statistics are no path for gradients
        y, wanted = y[0], wanted[:3]
    return lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)


def prepare(work, compiled, device="cpu"):
    """A function without arguments for a workload, or None where there is nothing to compile."""
    args = tuple(tensor(a, device) for a in work.case.args)
    options = {k: tensor(v, device) for k, v in work.case.options.items()}
    if work.operation == "q_sample":
        n = args[0].shape[0]
        args = (args[0], *(a.to(torch.float32).reshape(n, 1, 1, 1) for a in args[1:3]), args[3])
    if work.operation in FORWARD:
        function = FORWARD[work.operation]
        if compiled:
            if work.operation == "conv2d_vjp":
                return None
            function = torch.compile(function)
        with torch.no_grad():
            call = functools.partial(function, *args, **options)
        return torch.no_grad()(call)
    return None if compiled else _backward(work.operation, args, options)
