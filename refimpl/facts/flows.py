"""Flows: gradients, determinants against the Jacobian, and densities that integrate to 1."""
import math

import numpy as np

from refimpl import ops
from refimpl.equations import dequantise, flow

from . import fact
from .gradients import pair


def _coupling(d):
    shape = (d.integer(1, 3), 2 * d.integer(1, 2), 2)
    mask = d.choice([flow.alternate, lambda s, odd: flow.checkerboard((1, *s), odd)[0]])(shape[1:], d.integer(0, 1))
    return {"x": d.array(*shape), "mask": mask, "s": d.array(*shape), "t": d.array(*shape)}


pair(flow.affine_coupling, flow.affine_coupling_vjp, "x", "s", "t")(_coupling)


@pair(flow.additive_coupling, flow.additive_coupling_vjp, "x", "t")
def _additive(d):
    inputs = _coupling(d)
    return {k: inputs[k] for k in ("x", "mask", "t")}


@pair(flow.diagonal_scaling, flow.diagonal_scaling_vjp, "x", "s")
def _diagonal(d):
    x = d.array(d.integer(1, 3), d.integer(1, 4))
    return {"x": x, "s": d.array(x.shape[1])}


def _image(d):
    return d.array(d.integer(1, 3), d.integer(1, 4), d.integer(1, 3), d.integer(1, 3))


@pair(flow.actnorm, flow.actnorm_vjp, "x", "log_scale", "bias")
def _actnorm(d):
    x = _image(d)
    return {"x": x, "log_scale": d.array(x.shape[1]), "bias": d.array(x.shape[1])}


@pair(flow.lu_weight, flow.lu_weight_vjp, "lower", "upper", "log_s")
def _lu(d):
    c = d.integer(1, 4)
    return {"permutation": np.eye(c)[d.rng.permutation(c)], "lower": d.array(c, c), "upper": d.array(c, c),
            "sign": np.sign(d.array(c)), "log_s": d.array(c)}


@pair(flow.mix_channels, flow.mix_channels_vjp, "x", "w")
def _mix(d):
    x = _image(d)
    c = x.shape[1]
    return {"x": x, "w": np.linalg.qr(d.array(c, c))[0] @ np.diag(np.exp(d.array(c) / 2)) + 0.1 * np.eye(c)}


@pair(flow.squeeze, flow.squeeze_vjp, "x")
def _squeeze(d):
    return {"x": d.array(d.integer(1, 2), d.integer(1, 3), 2 * d.integer(1, 2), 2 * d.integer(1, 3))}


@pair(flow.unsqueeze, flow.unsqueeze_vjp, "x")
def _unsqueeze(d):
    return {"x": d.array(d.integer(1, 2), 4 * d.integer(1, 2), d.integer(1, 3), d.integer(1, 2))}


@pair(dequantise.logistic_noise, dequantise.logistic_noise_vjp, "eps", "mean", "log_scale")
def _logistic_noise(d):
    shape = (d.integer(1, 3), d.integer(1, 4))
    return {n: d.array(*shape) for n in ("eps", "mean", "log_scale")}


@pair(dequantise.logit_map, dequantise.logit_map_vjp, "x")
def _logit(d):
    return {"x": np.tanh(d.array(d.integer(1, 3), d.integer(1, 4))), "alpha": d.real(0.01, 0.4)}


@pair(dequantise.log_logistic, dequantise.log_logistic_vjp, "x")
def _log_logistic(d):
    return {"x": 3 * d.array(d.integer(1, 3), d.integer(1, 4))}


def jacobian_log_det(f, x):
    """log abs det of the Jacobian of f at one sample x (1, ...), each column by a complex step."""
    columns = []
    for i in range(x.size):
        moved = x.astype(complex)
        moved.reshape(-1)[i] += 1e-30j
        columns.append(f(moved).imag.reshape(-1) / 1e-30)
    return np.linalg.slogdet(np.stack(columns, axis=1))[1]


@fact("F-D1", flow.affine_coupling, flow.affine_coupling_inverse, tolerance=1e-10)
def coupling_determinant(d):
    """The log-determinant is that of the complex-step Jacobian, s and t being functions of the kept part; the inverse
    gives x back."""
    c, odd = d.integer(2, 5), d.integer(0, 1)
    x, a, b = d.array(1, c), d.array(c, c), d.array(c, c)
    mask = flow.alternate((c,), odd)
    conditioned = lambda x: (np.tanh((mask * x) @ a), (mask * x) @ b)
    y, log_det = flow.affine_coupling(x, mask, *conditioned(x))
    exact = jacobian_log_det(lambda x: flow.affine_coupling(x, mask, *conditioned(x))[0], x)
    back = flow.affine_coupling_inverse(y, mask, *conditioned(y))
    return float(max(abs(log_det[0] - exact), np.max(abs(back - x))))


@fact("F-D1", flow.additive_coupling, flow.diagonal_scaling, flow.actnorm, dequantise.logit_map, tolerance=1e-10)
def elementary_determinants(d):
    """Shift, scaling, actnorm and the logit map have the log-determinants of their complex-step Jacobians."""
    c = d.integer(2, 4)
    x, s, a = d.array(1, c), d.array(c), d.array(c, c)
    mask, image, bias = flow.alternate((c,)), d.array(1, 2, 2, 1), d.array(2)
    maps = [(lambda x: flow.additive_coupling(x, mask, np.tanh((mask * x) @ a)), x),
            (lambda x: flow.diagonal_scaling(x, s.astype(x.dtype)), x),
            (lambda x: flow.actnorm(x, s[:2].astype(x.dtype), bias.astype(x.dtype)), image),
            (dequantise.logit_map, np.tanh(x))]
    return float(max(abs(f(x)[1][0] - jacobian_log_det(lambda v, f=f: f(v)[0], x)) for f, x in maps))


@fact("F-D2", flow.mix_channels, flow.lu_weight, flow.lu_factors, tolerance=1e-10)
def determinant_of_the_1x1(d):
    """h w sum log abs s = the Jacobian's log-determinant, and the LU factors of a matrix multiply to it."""
    inputs = _lu(d)
    c, h = len(inputs["log_s"]), d.integer(1, 2)
    w, x = flow.lu_weight(**inputs), d.array(1, c, h, 2)
    _, log_det = flow.mix_channels(x, w)
    exact = jacobian_log_det(lambda x: flow.mix_channels(x, w.astype(x.dtype))[0], x)
    product = np.max(abs(flow.lu_weight(*flow.lu_factors(w)) - w)) / np.max(abs(w))
    scale = 1 + abs(exact)
    return float(max(abs(log_det[0] - exact) / scale, abs(2 * h * np.sum(inputs["log_s"]) - exact) / scale, product))


@fact("F-D2", flow.mix_channels, flow.mix_channels_vjp, tolerance=1e-6)
def gradient_of_a_determinant(d):
    """d log abs det W / dW = W^-T, by central differences."""
    w = _mix(d)["w"]
    v = d.array(*w.shape)
    at = lambda h: flow.mix_channels(np.zeros((1, len(w), 1, 1)), w + h * v)[1][0]
    dw = flow.mix_channels_vjp((np.zeros((1, len(w), 1, 1)), np.ones(1)), np.zeros((1, len(w), 1, 1)), w)[1]
    slope = (at(1e-6) - at(-1e-6)) / 2e-6
    return float(abs(np.sum(dw * v) - slope) / (1 + abs(slope)))


@fact("F-D3", flow.squeeze, flow.unsqueeze, ops.pixel_shuffle, tolerance=0)
def squeeze_is_a_permutation(d):
    """Squeeze moves every value and changes none, unsqueeze moves it back; it is the pixel shuffle's inverse."""
    x = _squeeze(d)["x"]
    y = flow.squeeze(x)
    return float(max(np.max(abs(np.sort(y, axis=None) - np.sort(x, axis=None))), np.max(abs(flow.unsqueeze(y) - x)),
                     np.max(abs(ops.pixel_shuffle(y, 2) - x))))


@fact("F-D3", flow.checkerboard, flow.alternate, tolerance=0)
def masks_halve(d):
    """A mask and its odd counterpart share out all entries, and the checkerboard's neighbours differ."""
    shape = (d.integer(1, 3), d.integer(1, 4), d.integer(2, 4))
    errors = [np.max(abs(f(shape) + f(shape, True) - 1)) for f in (flow.checkerboard, flow.alternate)]
    board = flow.checkerboard(shape)
    return float(max(*errors, np.max(abs(board[:, :, 1:] + board[:, :, :-1] - 1))))


@fact("F-D3", flow.affine_coupling, tolerance=1e-3)
def density_integrates_to_one(d):
    """The density that two couplings and a normal prior give the plane integrates to 1 over a grid."""
    a, b = 0.5 * d.array(2, 2), 0.5 * d.array(2, 2)
    g = np.linspace(-14, 14, 113)
    x = np.stack(np.meshgrid(g, g), axis=-1).reshape(-1, 2)
    total = 0.0
    for odd in (0, 1):
        mask = flow.alternate((2,), odd)
        kept = mask * x
        x, log_det = flow.affine_coupling(x, mask, 0.5 * np.tanh(kept @ a), np.tanh(kept @ b))
        total = total + log_det
    return float(abs(np.sum(np.exp(total - np.sum(x * x, axis=1) / 2)) / (2 * math.pi) * 0.25**2 - 1))


@fact("F-D3", dequantise.logistic_noise, tolerance=1e-5)
def density_of_learnt_noise(d):
    """E_q[1/q] is the length of the interval: the reported density is that of the noise."""
    mean, log_scale = d.real(-1, 1), d.real(-0.5, 0.3)
    eps = np.linspace(-7, 7, 701)[:, None]
    u, minus_log_q = dequantise.logistic_noise(eps, mean + 0 * eps, log_scale + 0 * eps)
    inverse = np.exp(minus_log_q - eps[:, 0] ** 2 / 2) / (2 * math.pi) ** 0.5 * 0.02
    return float(abs(np.sum(inverse[1:] + inverse[:-1]) / 2 - (u[-1] - u[0])[0]))
