"""A function and its vjp beside PyTorch's function of the same arguments, on the inputs of the facts."""
import numpy as np
import torch

from refimpl.facts.gradients import random_like


def t(a, grad=True):
    """A float64 tensor of an array, a leaf."""
    return torch.tensor(np.asarray(a), dtype=torch.float64, requires_grad=grad)


def same(ours, theirs):
    """Up to rounding."""
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-9, atol=1e-11)


def together(y):
    """Outputs as a tuple."""
    return y if isinstance(y, tuple) else (y,)


def beside_torch(p, function, d):
    """[(ours, PyTorch's)] of the outputs of a pair, and of its gradients."""
    inputs = p.inputs(d)
    y = p.output(p.f(**inputs))
    dy = random_like(y, d)
    tensors = {n: torch.tensor(a) if isinstance(a, np.ndarray) else a for n, a in inputs.items()}
    for n in p.wrt:
        tensors[n].requires_grad_()
    theirs = together(function(**tensors))
    sum((torch.as_tensor(u) * v).sum() for u, v in zip(together(dy), theirs)).backward()
    return (list(zip(together(y), (v.detach().numpy() for v in theirs), strict=True)),
            list(zip(together(p.vjp(dy, **inputs)), (tensors[n].grad.numpy() for n in p.wrt), strict=True)))
