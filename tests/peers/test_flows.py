"""Transforms, and whole flows written in PyTorch: values, log-determinants and gradients."""
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from beside_torch import same, t  # noqa: E402
from torch import distributions as dist  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from refimpl import ops  # noqa: E402
from refimpl.equations import dequantise, flow  # noqa: E402
from refimpl.nets import flow as nets  # noqa: E402


def test_transforms(rng):
    x, s, dy = np.tanh(rng.standard_normal((3, 4))), rng.standard_normal(4), rng.standard_normal((3, 4))
    dl = rng.standard_normal(3)

    def both(ours, back, transform, *inputs):
        """Values and gradients of <dy, y> + <dl, log det>."""
        tensors = [t(a) for a in inputs]
        y = transform(*tensors)
        same(ours[0], y[0])
        same(ours[1], y[1])
        ((y[0] * t(dy.reshape(y[0].shape), False)).sum() + (y[1] * t(dl, False)).sum()).backward()
        for a, tensor in zip(back, tensors, strict=True):
            same(a, tensor.grad)

    def logit(x):
        alpha = 0.05
        chain = dist.ComposeTransform([dist.AffineTransform(0.5, (1 - 2 * alpha) / 2), dist.SigmoidTransform().inv])
        return chain(x), chain.log_abs_det_jacobian(x, chain(x)).sum(1)

    both(dequantise.logit_map(x), [dequantise.logit_map_vjp((dy, dl), x)], logit, x)
    both(flow.diagonal_scaling(x, s), flow.diagonal_scaling_vjp((dy, dl), x, s),
         lambda x, s: (x * s.exp(), s.sum().expand(3)), x, s)
    image, w = rng.standard_normal((3, 2, 1, 2)), rng.standard_normal((2, 2))
    both(flow.mix_channels(image, w), flow.mix_channels_vjp((dy.reshape(image.shape), dl), image, w),
         lambda x, w: (F.conv2d(x, w[:, :, None, None]), 2 * torch.linalg.slogdet(w)[1].expand(3)), image, w)
    squeezed = rng.standard_normal((2, 3, 4, 6))
    same(flow.squeeze(squeezed), F.pixel_unshuffle(t(squeezed), 2))
    z, m, u = rng.standard_normal((3, 3, 4)) / 2  # theirs goes back through the logit, which loses digits far out
    v = t(m) + t(u).exp() * t(z)
    noise, minus_log_q = dequantise.logistic_noise(z, m, u)
    base = dist.TransformedDistribution(dist.Normal(t(m), t(u).exp()), [dist.SigmoidTransform()])
    same(noise, torch.sigmoid(v))
    same(minus_log_q, -base.log_prob(torch.sigmoid(v)).sum(1))


def torch_flow(p, state, config, y):
    """A flow step by step: its latent and log-determinant."""
    log_det, kept = torch.zeros(len(y), dtype=torch.float64), []
    for step in nets.plan(config):
        own = {n.removeprefix(step.name + "."): v for n, v in (p | state).items() if n.startswith(step.name + ".")}
        pixels = math.prod(step.shape[1:])
        if step.kind == "squeeze":
            y = F.pixel_unshuffle(y, 2)
        elif step.kind == "factor":
            aside, y = y.chunk(2, dim=1)
            kept.append(aside.flatten(1))
        elif step.kind == "scale":
            y, log_det = y * own["log_scale"].exp(), log_det + own["log_scale"].sum()
        elif step.kind == "actnorm":
            y = (y + own["bias"][:, None, None]) * own["log_scale"].exp()[:, None, None]
            log_det = log_det + pixels * own["log_scale"].sum()
        elif step.kind == "mix":
            upper = torch.triu(own["upper"], 1) + torch.diag(own["sign"] * own["log_s"].exp())
            w = own["permutation"] @ (torch.tril(own["lower"], -1) + torch.eye(len(upper), dtype=torch.float64)) @ upper
            y, log_det = F.conv2d(y, w[:, :, None, None]), log_det + pixels * torch.linalg.slogdet(w)[1]
        else:
            mask = torch.tensor(np.array(step.mask))
            h = mask * y if config.net == "conv" else (mask * y).flatten(1)
            for i, name in enumerate(("conv_1", "conv_2", "conv_out") if config.net == "conv" else
                                     ("layers.0", "layers.1", "layers.2")):
                h, w, b = F.silu(h) if i else h, own[f"net.{name}.weight"], own[f"net.{name}.bias"]
                h = F.conv2d(h, w, b, padding="same") if config.net == "conv" else F.linear(h, w, b)
            h = h.reshape(len(y), -1, *y.shape[1:])
            s = (1 - mask) * 2 * torch.tanh(h[:, 0] / 2) if step.kind == "affine" else torch.zeros_like(y)
            y, log_det = y * s.exp() + (1 - mask) * h[:, -1], log_det + s.flatten(1).sum(1)
    return torch.cat([*kept, y.flatten(1)], 1), log_det


FLOWS = {"nice": nets.FlowConfig((4,), "nice", 3, width=6), "realnvp": nets.FlowConfig((4,), "realnvp", 3, width=6),
         "realnvp on images": nets.FlowConfig((1, 4, 4), "realnvp", 2, 2, "conv", width=3),
         "glow": nets.FlowConfig((1, 4, 4), "glow", 2, 2, "conv", width=3)}


@pytest.mark.parametrize("kind", FLOWS)
def test_flows(rng, kind):
    """A whole flow written in PyTorch: latent, log-determinant, and the gradient of every parameter and of the input."""
    config = FLOWS[kind]
    x = rng.standard_normal((5, *config.shape))
    params, state = nets.flow_init(0, config, x, ops)
    params = {k: p + 0.3 * rng.standard_normal(p.shape) for k, p in params.items()}
    p, tx = {k: t(v) for k, v in params.items()}, t(x)
    y, log_det = torch_flow(p, {k: t(v, False) for k, v in state.items()}, config, tx)
    z, ours, pullback = nets.forward(params, state, x, config=config, ops=ops)
    same(z, y)
    same(ours, log_det)
    dz, dl = rng.standard_normal(z.shape), rng.standard_normal(5)
    ((y * t(dz, False)).sum() + (log_det * t(dl, False)).sum()).backward()
    grads, dx = pullback(dz, dl)
    same(dx, tx.grad)
    for name, g in grads.items():
        same(g, p[name].grad)
