"""Inputs for the gradients of the activations, and what is known of their values."""
import numpy as np

from refimpl import ops

from . import fact
from .gradients import pair


def _x(d):
    return {"x": 3 * d.array(d.integer(1, 3), d.integer(1, 5))}


pair(ops.sigmoid, ops.sigmoid_vjp, "x")(_x)
pair(ops.softplus, ops.softplus_vjp, "x")(_x)
pair(ops.silu, ops.silu_vjp, "x")(_x)
pair(ops.tanh, ops.tanh_vjp, "x")(_x)
pair(ops.relu, ops.relu_vjp, "x", analytic=False)(_x)


@pair(ops.leaky_relu, ops.leaky_relu_vjp, "x", analytic=False)
def _leaky_relu(d):
    return _x(d) | {"slope": d.real(0.01, 0.9)}


@pair(ops.gelu, ops.gelu_vjp, "x")
def _gelu(d):
    return _x(d) | {"approximate": d.choice(["none", "tanh"])}


@pair(ops.softmax, ops.softmax_vjp, "x")
def _softmax(d):
    return _x(d) | {"axis": d.choice([0, 1, -1])}


@pair(ops.logsumexp, ops.logsumexp_vjp, "x")
def _logsumexp(d):
    return _softmax(d)


@fact("F-A4", ops.softplus, ops.sigmoid, tolerance=1e-12)
def softplus_difference(d):
    """softplus(x) - softplus(-x) = x and softplus'(x) = 1 - sigmoid(-x)."""
    x = 20 * d.array(7)
    return max(np.max(abs(ops.softplus(x) - ops.softplus(-x) - x) / (1 + abs(x))),
               np.max(abs(ops.softplus_vjp(1.0, x) - 1 + ops.sigmoid(-x))))
