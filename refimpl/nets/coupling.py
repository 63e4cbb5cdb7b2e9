"""The network inside a coupling: what the kept entries say about the others."""
import math

import numpy as np

from .blocks import conv
from .initial import conv_shapes, initialise
from .mlp import mlp, mlp_shapes


def part(params, name):
    """The entries under a dotted name, without it.

    Shapes: params a flat dict; returns a flat dict. Source: the project's own names.
    """
    return {k[len(name) + 1:]: v for k, v in params.items() if k.startswith(name + ".")}


def whole(grads, name):
    """The opposite of part. Shapes: as part. Source: the project's own names."""
    return {f"{name}.{k}": v for k, v in grads.items()}


def conditioner(params, step, x, config, ops):
    r"""The network in a coupling: log scale and shift of every entry, from the kept entries alone.

    $$(r, t) = f(m \odot x), \qquad s = b\tanh(r/b)$$

    Shapes: x (N, ...); returns s (None in an additive coupling) and t of x's shape, pullback(ds, dt) -> grads, dx.
    Source: Dinh et al. 2017, arXiv:1605.08803, sec. 3.4 (tanh); Kingma and Dhariwal 2018, arXiv:1807.03039, sec. 4.
    """
    mask = np.asarray(step.mask, dtype=x.dtype, like=x)
    affine, own = step.kind == "affine", part(params, f"{step.name}.net")
    kept = mask * x
    if config.net == "mlp":
        y, back = mlp(own, kept, ops=ops, activation="silu")
        y = y.reshape(len(x), 1 + affine, *x.shape[1:])
    else:
        h1, conv_1 = conv(own, "conv_1", kept, ops, padding=1)
        h2, conv_2 = conv(own, "conv_2", ops.silu(h1), ops)
        y, conv_3 = conv(own, "conv_out", ops.silu(h2), ops, padding=1)
        y = y.reshape(len(x), 1 + affine, *x.shape[1:])

        def back(dy):
            g3, dh = conv_3(dy.reshape(len(x), -1, *x.shape[2:]))
            g2, dh = conv_2(ops.silu_vjp(dh, h2))
            g1, dkept = conv_1(ops.silu_vjp(dh, h1))
            return g1 | g2 | g3, dkept

    raw = y[:, 0] / config.bound

    def pullback(ds, dt):
        dy = [ops.tanh_vjp(ds, raw), dt] if affine else [dt]
        dy = np.stack(dy, axis=1)
        grads, dkept = back(dy.reshape(len(x), -1) if config.net == "mlp" else dy)
        return whole(grads, f"{step.name}.net"), mask * dkept.reshape(x.shape)

    return config.bound * ops.tanh(raw) if affine else None, y[:, -1], pullback


def conditioner_init(key, step, config, dtype):
    """Initial parameters, the last layer 0: a coupling starts as the identity.

    Shapes: key an int; returns a dict from names to arrays of the dtype.
    Source: Kingma and Dhariwal 2018, arXiv:1807.03039, sec. 3.3 (zero initialisation).
    """
    c, outputs, channels = config, 1 + (step.kind == "affine"), step.shape[0]
    if c.net == "mlp":
        size = math.prod(step.shape)
        shapes, zero = mlp_shapes([size, *[c.width] * c.depth, outputs * size]), f"layers.{c.depth}."
    else:
        shapes = conv_shapes("conv_1", channels, c.width) | conv_shapes("conv_2", c.width, c.width, 1)
        shapes, zero = shapes | conv_shapes("conv_out", c.width, outputs * channels), "conv_out"
    return whole(initialise(key, shapes, dtype, (zero,)), f"{step.name}.net")
