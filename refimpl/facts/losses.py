"""Losses that are means: gradients, and what doubling the batch does to them."""
import numpy as np

from refimpl import ops

from . import fact
from .gradients import pair


def _images(d):
    shape = [d.integer(1, 3) for _ in range(d.integer(1, 3))]
    return {"x": d.array(*shape), "y": d.array(*shape)}


pair(ops.mse, ops.mse_vjp, "x", "y")(_images)
pair(ops.l1, ops.l1_vjp, "x", "y")(_images)


@pair(ops.cross_entropy, ops.cross_entropy_vjp, "logits")
def _cross_entropy(d):
    n, k = d.integer(1, 4), d.integer(1, 4)
    return {"logits": 3 * d.array(n, k), "labels": np.array([d.integer(0, k - 1) for _ in range(n)])}


@fact("F-A11", ops.mse, ops.l1, ops.cross_entropy, tolerance=1e-12)
def doubled_batch(d):
    """A batch beside its copy: the mean loss does not change and every gradient halves."""
    errors = []
    for f, vjp, inputs in ((ops.mse, ops.mse_vjp, _images(d)), (ops.l1, ops.l1_vjp, _images(d)),
                           (ops.cross_entropy, ops.cross_entropy_vjp, _cross_entropy(d))):
        twice = {name: np.concatenate([a, a]) for name, a in inputs.items()}
        once, half = (g if isinstance(g, np.ndarray) else g[0] for g in (vjp(1.0, **inputs), vjp(1.0, **twice)))
        errors += [abs(f(**inputs) - f(**twice)), np.max(abs(np.concatenate([once, once]) / 2 - half))]
    return max(errors)


@fact("F-C6", ops.cross_entropy_vjp, tolerance=1e-12)
def rows_sum_to_zero(d):
    """Rows of dlogits sum to 0: adding a constant to all logits changes no probability."""
    return np.max(abs(np.sum(ops.cross_entropy_vjp(1.0, **_cross_entropy(d)), axis=1)))
