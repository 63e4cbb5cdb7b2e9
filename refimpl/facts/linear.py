"""Inputs for the gradients of the affine map."""
from refimpl import ops

from .gradients import pair


@pair(ops.linear, ops.linear_vjp, "x", "w", "b")
def _linear(d):
    i, o = d.integer(1, 4), d.integer(1, 4)
    lead = [d.integer(1, 3) for _ in range(d.integer(0, 2))]
    return {"x": d.array(*lead, i), "w": d.array(o, i), "b": d.array(o)}
