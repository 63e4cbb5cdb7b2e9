"""Inputs for the gradients of the norms, and how the norms follow from each other."""
import numpy as np

from refimpl import ops

from . import fact
from .gradients import pair


def _images(d, channels=None):
    c = d.integer(1, 4) if channels is None else channels
    return 3 * d.array(d.integer(1, 3), c, d.integer(1, 3), d.integer(2, 4)) + d.real(-2, 2)


def _channels(d, x):
    return {"x": x, "gamma": d.array(x.shape[1]), "beta": d.array(x.shape[1]), "stabiliser": d.real(1e-5, 0.5)}


def _grouped(d):
    groups = d.integer(1, 3)
    return groups, _images(d, groups * d.integer(1, 3))


@pair(ops.group_norm, ops.group_norm_vjp, "x", "gamma", "beta")
def _group_norm(d):
    groups, x = _grouped(d)
    return _channels(d, x) | {"groups": groups, "silu": d.choice([False, True])}


@pair(ops.instance_norm, ops.instance_norm_vjp, "x", "gamma", "beta")
def _instance_norm(d):
    return _channels(d, _images(d))


@pair(ops.layer_norm, ops.layer_norm_vjp, "x", "gamma", "beta")
def _layer_norm(d):
    x, axes = _images(d), d.integer(1, 4)
    shape = x.shape[4 - axes:]
    return {"x": x, "gamma": d.array(*shape), "beta": d.array(*shape), "axes": axes, "stabiliser": d.real(1e-5, 0.5)}


@pair(ops.batch_norm, ops.batch_norm_vjp, "x", "gamma", "beta", output=lambda y: y[0])
def _batch_norm(d):
    x = _images(d)
    c = x.shape[1]
    return _channels(d, x) | {"running_mean": d.array(c), "running_var": 0.1 + d.array(c) ** 2,
                              "train": d.choice([False, True])}


@fact("F-F4", ops.group_norm, tolerance=1e-10)
def scale_and_shift(d):
    """GN_e(A x + B) = GN_(e/A^2)(x) for A > 0."""
    groups, x = _grouped(d)
    scale, stabiliser = d.real(0.1, 10), d.real(1e-5, 0.5)
    moved = ops.group_norm(scale * x + d.real(-5, 5), None, None, groups, stabiliser)
    return np.max(abs(moved - ops.group_norm(x, None, None, groups, stabiliser / scale**2)))


@fact("F-F4", ops.group_norm_vjp, tolerance=1e-10)
def gradient_is_orthogonal(d):
    """Per group sum dx = 0 and <dx, x_hat> = e/(v+e) <g, x_hat>/sqrt(v+e), g = gamma dy."""
    groups, x = _grouped(d)
    stabiliser, gamma, dy = d.real(1e-3, 0.5), d.array(x.shape[1]), d.array(*x.shape)
    per_group = (x.shape[0], groups, -1)
    dx = ops.group_norm_vjp(dy, x, gamma, None, groups, stabiliser)[0].reshape(per_group)
    x_hat = ops.group_norm(x, None, None, groups, stabiliser).reshape(per_group)
    g = (gamma[:, None, None] * dy).reshape(per_group)
    v = np.var(x.reshape(per_group), axis=2)
    left, right = np.sum(dx * x_hat, axis=2), np.sum(g * x_hat, axis=2) * stabiliser / (v + stabiliser) ** 1.5
    return max(np.max(abs(np.sum(dx, axis=2))), np.max(abs(left - right)))


@fact("one group", ops.group_norm, ops.layer_norm, tolerance=1e-10)
def one_group_is_layer_norm(d):
    """Group norm with one group is layer norm over all axes but the first, gradient included."""
    x = _images(d)
    dy = d.array(*x.shape)
    value = ops.group_norm(x, None, None, 1) - ops.layer_norm(x, axes=3)
    gradient = ops.group_norm_vjp(dy, x, None, None, 1)[0] - ops.layer_norm_vjp(dy, x, axes=3)[0]
    return max(np.max(abs(value)), np.max(abs(gradient)) * 3e-3)  # the gradient's scale is 1/sqrt(stabiliser)


@fact("C groups", ops.instance_norm, tolerance=1e-12)
def instance_norm_knows_one_channel(d):
    """Instance norm of a channel does not depend on the others: it is that channel's group norm."""
    inputs = _channels(d, _images(d))
    x, gamma, beta, stabiliser = inputs.values()
    alone = [ops.group_norm(x[:, c:c + 1], gamma[c:c + 1], beta[c:c + 1], 1, stabiliser) for c in range(x.shape[1])]
    return np.max(abs(ops.instance_norm(**inputs) - np.concatenate(alone, axis=1)))


@fact("batch axis", ops.batch_norm, ops.instance_norm, tolerance=1e-12)
def batch_norm_is_instance_norm_of_the_batch(d):
    """Training batch norm is instance norm of the batch as one image; evaluation with its statistics agrees."""
    inputs = _channels(d, _images(d))
    x, gamma, beta, stabiliser = inputs.values()
    c = x.shape[1]
    mean, var = np.mean(x, axis=(0, 2, 3)), np.var(x, axis=(0, 2, 3))
    train = ops.batch_norm(x, gamma, beta, np.zeros(c), np.ones(c), True, stabiliser=stabiliser)[0]
    evaluated = ops.batch_norm(x, gamma, beta, mean, var, False, stabiliser=stabiliser)[0]
    image = ops.instance_norm(np.swapaxes(x, 0, 1).reshape(1, c, -1), gamma, beta, stabiliser)
    image = np.swapaxes(image.reshape(c, x.shape[0], *x.shape[2:]), 0, 1)
    return max(np.max(abs(train - image)), np.max(abs(train - evaluated)))


@fact("running", ops.batch_norm, tolerance=1e-12)
def running_statistics_forget_geometrically(d):
    """k equal batches leave (1-m)^k of the old statistics; the rest is the mean and the unbiased variance."""
    x, momentum, steps = _images(d), d.real(0.05, 0.95), d.integer(1, 5)
    first = mean, var = d.array(x.shape[1]), d.array(x.shape[1]) ** 2
    for _ in range(steps):
        _, mean, var = ops.batch_norm(x, None, None, mean, var, True, momentum)
    kept, axes = (1 - momentum) ** steps, (0, 2, 3)
    return max(np.max(abs(mean - kept * first[0] - (1 - kept) * np.mean(x, axis=axes))),
               np.max(abs(var - kept * first[1] - (1 - kept) * np.var(x, axis=axes, ddof=1))))
