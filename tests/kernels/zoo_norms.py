"""Wrong batch norms and modulated convolutions, entered in the zoo."""
import numpy as np
from zoo import wrong

from refimpl import ops


def _batch_moments(x):
    axes = (0, *range(2, x.ndim))
    mu = x.mean(axis=axes, keepdims=True)
    return axes, mu, ((x - mu) ** 2).mean(axis=axes, keepdims=True)


def _batch_normalised(x, gamma, beta, mu, v, stabiliser):
    column = (-1,) + (1,) * (x.ndim - 2)
    y = (x - mu) / np.sqrt(v + x.dtype.type(stabiliser))
    y = y if gamma is None else y * gamma.reshape(column)
    return y if beta is None else y + beta.reshape(column)


@wrong("batch_norm", "value", "integer", "non-finite", defect="momentum and stabiliser exchanged")
def exchanged_numbers(x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    return ops.batch_norm(x, gamma, beta, running_mean, running_var, train, stabiliser, momentum)


@wrong("batch_norm", "value", "integer", defect="momentum is the share of the old running value")
def old_share(x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    return ops.batch_norm(x, gamma, beta, running_mean, running_var, train, 1 - momentum, stabiliser)


@wrong("batch_norm", "value", "non-finite", defect="E[x^2] - E[x]^2 over the batch")
def batch_one_pass(x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    right = ops.batch_norm(x, gamma, beta, running_mean, running_var, train, momentum, stabiliser)
    if not train or not x.size:
        return right
    axes, mu, _ = _batch_moments(x)
    v = np.maximum((x * x).mean(axis=axes, keepdims=True) - mu * mu, 0)
    return _batch_normalised(x, gamma, beta, mu, v, stabiliser), *right[1:]


@wrong("batch_norm", "value", defect="the running variance takes the biased one")
def biased_running(x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    y, mean, var = ops.batch_norm(x, gamma, beta, running_mean, running_var, train, momentum, stabiliser)
    if train and x.size:
        var = (1 - momentum) * running_var + momentum * _batch_moments(x)[2].reshape(-1)
    return y, mean, var


@wrong("batch_norm", "value", "integer", defect="the batch divided by its unbiased deviation")
def unbiased_batch(x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    right = ops.batch_norm(x, gamma, beta, running_mean, running_var, train, momentum, stabiliser)
    if not train or not x.size:
        return right
    _, mu, v = _batch_moments(x)
    size = x.size // x.shape[1]
    return _batch_normalised(x, gamma, beta, mu, v * x.dtype.type(size / (size - 1)), stabiliser), *right[1:]


@wrong("batch_norm", "value", "integer", "raises", defect="the mean of every sample by itself", where={"spatial": 2})
def per_sample_mean(x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    right = ops.batch_norm(x, gamma, beta, running_mean, running_var, train, momentum, stabiliser)
    if not train or not x.size:
        return right
    mu = x.mean(axis=(2, 3), keepdims=True)
    v = ((x - mu) ** 2).mean(axis=(2, 3), keepdims=True)
    return _batch_normalised(x, gamma, beta, mu, v, stabiliser), *right[1:]


@wrong("batch_norm", "value", "integer", defect="stale running statistics: they stay as they came")
def stale_running(x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    y, _, _ = ops.batch_norm(x, gamma, beta, running_mean, running_var, train, momentum, stabiliser)
    return y, running_mean.copy(), running_var.copy()


@wrong("batch_norm", "value", "integer", defect="the batch's statistics where the running ones are asked for")
def always_training(x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    if x.size <= x.shape[1]:
        return ops.batch_norm(x, gamma, beta, running_mean, running_var, train, momentum, stabiliser)
    y, mean, var = ops.batch_norm(x, gamma, beta, running_mean, running_var, True, momentum, stabiliser)
    return (y, mean, var) if train else (y, running_mean.copy(), running_var.copy())


@wrong("batch_norm", "value", "integer", defect="the running statistics normalise in training too")
def never_training(x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    _, mean, var = ops.batch_norm(x, gamma, beta, running_mean, running_var, train, momentum, stabiliser)
    return ops.batch_norm(x, gamma, beta, mean, var, False, momentum, stabiliser)[0], mean, var


@wrong("batch_norm", "mutated", defect="updates the running statistics where they lie")
def in_place(x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    y, mean, var = ops.batch_norm(x, gamma, beta, running_mean, running_var, train, momentum, stabiliser)
    if running_mean.flags.writeable and running_var.flags.writeable:
        running_mean[...], running_var[...] = mean, var
    return y, mean, var


@wrong("batch_norm_vjp", "value", "integer", defect="the batch's statistics taken for constants")
def constant_statistics(dy, x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    right = ops.batch_norm_vjp(dy, x, gamma, beta, running_mean, running_var, train, momentum, stabiliser)
    if not train or not x.size:
        return right
    _, mu, v = _batch_moments(x)
    return _batch_normalised(dy, gamma, None, np.zeros_like(mu), v, stabiliser), *right[1:]


@wrong("batch_norm_vjp", "value", "integer", defect="a gradient through statistics that were given")
def through_running(dy, x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    return ops.batch_norm_vjp(dy, x, gamma, beta, running_mean, running_var, train or x.size > x.shape[1], momentum,
                              stabiliser)


@wrong("modulated_conv2d", "value", defect="demodulation is missing")
def not_demodulated(x, w, style, padding=0, demodulate=True, stabiliser=1e-8):
    return np.ascontiguousarray(ops.modulated_conv2d(x, w, style, padding, False, stabiliser))


@wrong("modulated_conv2d", "value", defect="demodulation before modulation: the filters' own norm")
def demodulated_first(x, w, style, padding=0, demodulate=True, stabiliser=1e-8):
    if demodulate:
        w = w / np.sqrt(np.sum(w * w, axis=(1, 2, 3), keepdims=True) + x.dtype.type(stabiliser))
    return np.ascontiguousarray(ops.modulated_conv2d(x, w, style, padding, False, stabiliser))


@wrong("modulated_conv2d", "value", "integer", defect="the first sample's style for the whole batch")
def first_style(x, w, style, padding=0, demodulate=True, stabiliser=1e-8):
    style = np.broadcast_to(style[:1], style.shape)
    return np.ascontiguousarray(ops.modulated_conv2d(x, w, style, padding, demodulate, stabiliser))


@wrong("modulated_conv2d", "value", "integer", defect="styles are offsets from 1 inside the operation too")
def style_plus_one(x, w, style, padding=0, demodulate=True, stabiliser=1e-8):
    return np.ascontiguousarray(ops.modulated_conv2d(x, w, style + 1, padding, demodulate, stabiliser))


@wrong("modulated_conv2d", "value", defect="demodulation's stabiliser outside the root")
def root_then_stabiliser(x, w, style, padding=0, demodulate=True, stabiliser=1e-8):
    y = np.ascontiguousarray(ops.modulated_conv2d(x, w, style, padding, False, stabiliser))
    if not demodulate:
        return y
    q = np.tensordot(style * style, np.sum(w * w, axis=(2, 3)), axes=(1, 1))
    return y / (np.sqrt(q) + x.dtype.type(stabiliser))[:, :, None, None]


@wrong("modulated_conv2d_vjp", "value", defect="demodulation taken for a constant")
def constant_demodulation(dy, x, w, style, padding=0, demodulate=True, stabiliser=1e-8):
    if demodulate:
        q = np.tensordot(style * style, np.sum(w * w, axis=(2, 3)), axes=(1, 1)) + x.dtype.type(stabiliser)
        dy = dy / np.sqrt(q)[:, :, None, None]
    return ops.modulated_conv2d_vjp(dy, x, w, style, padding, False, stabiliser)


@wrong("modulated_conv2d_vjp", "value", "integer", defect="the weights' gradient without the style")
def unstyled_dw(dy, x, w, style, padding=0, demodulate=True, stabiliser=1e-8):
    dx, _, dstyle = ops.modulated_conv2d_vjp(dy, x, w, style, padding, demodulate, stabiliser)
    return dx, ops.modulated_conv2d_vjp(dy, x, w, np.ones_like(style), padding, demodulate, stabiliser)[1], dstyle
