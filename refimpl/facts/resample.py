"""Resampling and pooling against their definitions and their adjoints."""
import numpy as np

from refimpl import ops

from . import fact
from .gradients import pair


@pair(ops.upsample_nearest, ops.upsample_nearest_vjp, "x")
def _upsample(d):
    return {"x": d.array(*(d.integer(1, 3) for _ in range(4))), "k": d.integer(1, 3)}


@pair(ops.average_pool, ops.average_pool_vjp, "x")
def _average_pool(d):
    k = d.integer(1, 3)
    return {"x": d.array(d.integer(1, 2), d.integer(1, 3), k * d.integer(1, 3), k * d.integer(1, 3)), "k": k}


@pair(ops.max_pool, ops.max_pool_vjp, "x")
def _max_pool(d):
    k = d.integer(1, 3), d.integer(1, 3)
    return {"x": d.array(d.integer(1, 2), d.integer(1, 3), d.integer(3, 6), d.integer(3, 6)), "k": k,
            "stride": d.choice([None, 1, 2, (3, 1)]), "padding": tuple(
                (d.integer(0, n // 2), d.integer(0, n // 2)) for n in k)}


@pair(ops.concatenate, ops.concatenate_vjp, "arrays")
def _concatenate(d):
    axis, shape = d.choice([0, 1, 2, -1]), [d.integer(1, 3) for _ in range(3)]
    lengths = [d.integer(0, 3), *(d.integer(1, 3) for _ in range(d.integer(0, 2)))]
    shapes = [[n if i == axis % 3 else m for i, m in enumerate(shape)] for n in lengths]
    return {"arrays": tuple(d.array(*s) for s in shapes), "axis": axis}


@fact("F-F8", ops.average_pool, ops.upsample_nearest, tolerance=1e-13)
def pool_is_adjoint_of_enlargement(d):
    """k^2 <average_pool(x), y> = <x, upsample_nearest(y)>, and pooling undoes enlarging."""
    inputs = _average_pool(d)
    x, k = inputs["x"], inputs["k"]
    y = d.array(*ops.average_pool(x, k).shape)
    left, right = ops.average_pool(x, k) * y * k * k, x * ops.upsample_nearest(y, k)
    return max(abs(np.sum(left) - np.sum(right)) / (1 + np.sum(abs(left))),
               np.max(abs(ops.average_pool(ops.upsample_nearest(y, k), k) - y)))


@fact("definition", ops.average_pool, ops.max_pool, tolerance=1e-14)
def pools_of_blocks(d):
    """The mean and the maximum over blocks, written with the blocks as axes."""
    inputs = _average_pool(d)
    x, k = inputs["x"], inputs["k"]
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // k, k, w // k, k)
    return max(np.max(abs(ops.average_pool(x, k) - blocks.mean(axis=(3, 5)))),
               np.max(abs(ops.max_pool(x, k) - blocks.max(axis=(3, 5)))))
