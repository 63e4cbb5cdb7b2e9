"""Layers and initial values that the adversarial networks share, beside those of blocks.py."""
import math
import zlib

import numpy as np

from refimpl.ops.random import fold, normal

from .blocks import layer


def conv_transpose(params, name, x, ops, **options):
    """Transposed convolution, the options being conv_transpose2d's.

    Shapes: x (N, I, H, W), y (N, O, H', W'). pullback(dy) -> grads, dx.
    Source: see blocks.layer.
    """
    return layer(ops.conv_transpose2d, ops.conv_transpose2d_vjp, params, name, x, **options)


def batch_norm(params, state, name, x, ops, train):
    """Batch norm as a layer: scale and shift from params where they hold them, running statistics in and out of state.

    Shapes: x (N, C, ...). Returns y, pullback(dy) -> grads, dx, and the new entries of state.
    Source: Ioffe and Szegedy 2015, arXiv:1502.03167.
    """
    w, b = params.get(f"{name}.weight"), params.get(f"{name}.bias")
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    y, new_mean, new_var = ops.batch_norm(x, w, b, mean, var, train)

    def pullback(dy):
        dx, dw, db = ops.batch_norm_vjp(dy, x, w, b, mean, var, train)
        return {} if w is None else {f"{name}.weight": dw, f"{name}.bias": db}, dx

    return y, pullback, {f"{name}.running_mean": new_mean, f"{name}.running_var": new_var}


def statistics(channels, dtype=np.float32):
    """Running statistics of batch norms before the first batch: mean 0, variance 1.

    Shapes: channels a dict from the norms' names to their numbers of channels. Returns a state, entries (C,).
    Source: PyTorch, BatchNorm2d.
    """
    state = {f"{name}.running_mean": np.zeros(c, dtype) for name, c in channels.items()}
    return state | {f"{name}.running_var": np.ones(c, dtype) for name, c in channels.items()}


def gaussian(key, shapes, deviation=None, dtype=np.float32):
    r"""Initial parameters: weights normal with the deviation given or He's for their fan-in, scales 1, all else 0.

    $$w \sim N(0, \sigma^2), \qquad \sigma = \sqrt{2/\mathrm{fan}} \text{ if not given}$$

    Every parameter has a key of its own, from its name. Vectors named .weight are the scales of norms.
    Shapes: shapes a dict from names to shapes; returns a dict from names to arrays of the dtype.
    Source: Radford et al. 2016, arXiv:1511.06434, sec. 4 (sigma = .02); He et al. 2015, arXiv:1502.01852.
    """
    params = {}
    for name, shape in shapes.items():
        if len(shape) < 2:
            value = np.full(shape, float(name.endswith(".weight")))
        else:
            scale = math.sqrt(2 / math.prod(shape[1:])) if deviation is None else deviation
            value = scale * normal(fold(key, zlib.crc32(name.encode())), np.zeros(1, int), 0, shape, np.float64)[0]
        params[name] = value.astype(dtype)
    return params
