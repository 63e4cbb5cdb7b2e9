"""Coupling flows: NICE, RealNVP and Glow as lists of invertible steps, walked forwards, backwards, and for gradients.

What a step is stands in refimpl.equations.flow; here stands in which order, and with which small networks inside the
couplings. Constants of the 1x1 convolutions (permutation, signs) are the flow's state: checkpointed, never trained.
"""
import math
import zlib
from typing import NamedTuple

import numpy as np

from refimpl.equations import flow
from refimpl.ops._check import require
from refimpl.ops.random import fold, normal

from .coupling import conditioner, conditioner_init, part, whole


class FlowConfig(NamedTuple):
    """shape of one sample; kind: nice, realnvp or glow; couplings: per level and mask; levels: factored out in between;
    net: mlp or conv, inside the couplings; width and depth: of it; bound: the largest log scale of a coupling."""

    shape: tuple
    kind: str = "realnvp"
    couplings: int = 4
    levels: int = 1
    net: str = "mlp"
    width: int = 64
    depth: int = 2
    bound: float = 2.0


class Step(NamedTuple):
    """What is done (a name of equations.flow, or factor), under which name its parameters stand, on samples of which
    shape, and with which mask."""

    kind: str
    name: str
    shape: tuple
    mask: object = None


def plan(config):
    """The steps of a flow, first to last. What `factor` sets aside, half of the channels, no later step changes.

    Shapes: config a FlowConfig; returns a list of Steps.
    Raises: ValueError for settings that do not fit.
    Source: Dinh et al. 2015, arXiv:1410.8516; Dinh et al. 2017, arXiv:1605.08803, sec. 3.6; Kingma and Dhariwal 2018,
    arXiv:1807.03039, fig. 2.
    """
    c = config
    require(c.kind in ("nice", "realnvp", "glow"), f"flow: kind must be nice, realnvp or glow, got {c.kind!r}")
    require(c.net in ("mlp", "conv"), f"flow: net must be mlp or conv, got {c.net!r}")
    require(min(c.couplings, c.levels, c.width, c.depth) >= 1 and c.bound > 0,
            f"flow: couplings, levels, width, depth and bound must be positive, got {c}")
    shape, steps = tuple(c.shape), []
    points = len(shape) == 1
    require(points or len(shape) == 3, f"flow: samples (D,) or (C, H, W) expected, got shape {shape}")
    require(not points or (c.net == "mlp" and c.levels == 1), "flow: points have one level and couplings with net=mlp")

    def add(kind, mask=None):
        steps.append(Step(kind, f"steps.{len(steps)}", shape, mask))

    def couple(mask_of):
        for k in range(c.couplings):
            if c.kind == "glow":
                add("actnorm")
                add("mix")
            add("additive" if c.kind == "nice" else "affine", mask_of(shape, bool(k % 2)))

    if points or c.kind == "nice":
        require(math.prod(shape) >= 2, "flow: a coupling needs two dimensions at least")
        couple(flow.alternate if points else lambda s, odd: flow.alternate((math.prod(s),), odd).reshape(s))
    else:
        for level in range(c.levels):
            if c.kind == "realnvp":
                couple(flow.checkerboard)
            require(shape[1] % 2 == shape[2] % 2 == 0, f"flow: level {level + 1} needs an even height and width to "
                    f"squeeze, got {shape[1]}x{shape[2]}: set fewer levels")
            add("squeeze")
            shape = (4 * shape[0], shape[1] // 2, shape[2] // 2)
            couple(flow.alternate)
            if level < c.levels - 1:
                add("factor")
                shape = (shape[0] // 2, *shape[1:])
    if c.kind == "nice":
        add("scale")
    return steps


def _lu(params, state, step):
    """The factors of a 1x1 convolution, as lu_weight takes them."""
    p, s = part(params, step.name), part(state, step.name)
    return s["permutation"], p["lower"], p["upper"], s["sign"], p["log_s"]


def _forward(params, state, step, x, config, ops):
    """y, log_det and pullback(dy, dlog_det) -> grads, dx of one step that changes x."""
    name = step.name
    if step.kind in ("affine", "additive"):
        s, t, net = conditioner(params, step, x, config, ops)
        if step.kind == "affine":
            y, log_det = flow.affine_coupling(x, step.mask, s, t)
        else:
            y, log_det = flow.additive_coupling(x, step.mask, t)

        def pullback(dy, dlog_det):
            if step.kind == "affine":
                dx, ds, dt = flow.affine_coupling_vjp((dy, dlog_det), x, step.mask, s, t)
            else:
                (dx, dt), ds = flow.additive_coupling_vjp((dy, dlog_det), x, step.mask, t), None
            grads, more = net(ds, dt)
            return grads, dx + more

    elif step.kind == "squeeze":
        y, log_det = flow.squeeze(x), 0 * x.reshape(len(x), -1)[:, 0]
        pullback = lambda dy, dlog_det: ({}, flow.squeeze_vjp(dy, x))
    elif step.kind == "mix":
        factors = _lu(params, state, step)
        w = flow.lu_weight(*factors)
        y, log_det = flow.mix_channels(x, w)

        def pullback(dy, dlog_det):
            dx, dw = flow.mix_channels_vjp((dy, dlog_det), x, w)
            dlower, dupper, dlog_s = flow.lu_weight_vjp(dw, *factors)
            return whole({"lower": dlower, "upper": dupper, "log_s": dlog_s}, name), dx

    elif step.kind == "actnorm":
        own = (params[f"{name}.log_scale"], params[f"{name}.bias"])
        y, log_det = flow.actnorm(x, *own)

        def pullback(dy, dlog_det):
            dx, ds, db = flow.actnorm_vjp((dy, dlog_det), x, *own)
            return whole({"log_scale": ds, "bias": db}, name), dx

    else:
        s = params[f"{name}.log_scale"]
        y, log_det = flow.diagonal_scaling(x, s)

        def pullback(dy, dlog_det):
            dx, ds = flow.diagonal_scaling_vjp((dy, dlog_det), x, s)
            return {f"{name}.log_scale": ds}, dx

    return y, log_det, pullback


def forward(params, state, x, *, config, ops, until=None):
    r"""Latent vectors of samples, and the log-determinant of the whole map.

    $$z = f_n \circ \cdots \circ f_1(x), \qquad \log|\det| = \sum_k \log|\det_k|$$

    Shapes: x (N, *shape); until: how many steps to take, all by default. Returns z (N, D), what was factored out first
    standing first; log_det (N,); pullback(dz, dlog_det) -> grads, dx.
    Raises: ValueError when x does not fit.
    Source: Dinh et al. 2017, arXiv:1605.08803, eq. 2-3.
    """
    require(x.shape[1:] == tuple(config.shape), f"flow: x (N, *{tuple(config.shape)}) expected, got {x.shape}")
    n, log_det, backs, kept = len(x), 0, [], []
    for step in plan(config)[:until]:
        if step.kind == "factor":
            half = x.shape[1] // 2
            kept.append(x[:, :half].reshape(n, -1))
            x, back = x[:, half:], None
        else:
            x, change, back = _forward(params, state, step, x, config, ops)
            log_det = log_det + change
        backs.append((step, back))
    last = x.shape
    z = np.concatenate([*kept, x.reshape(n, -1)], axis=1)

    def pullback(dz, dlog_det):
        parts = np.split(dz, np.cumsum([k.shape[1] for k in kept]), axis=1)
        dx, aside, grads = parts[-1].reshape(last), parts[:-1], {}
        for step, back in reversed(backs):
            if step.kind == "factor":
                dx = np.concatenate([aside.pop().reshape(n, step.shape[0] // 2, *step.shape[1:]), dx], axis=1)
            else:
                g, dx = back(dx, dlog_det)
                grads |= g
        return {name: grads[name] for name in params}, dx

    return z, log_det, pullback


def inverse(params, state, z, *, config, ops):
    r"""Samples from latent vectors: every step undone, the last one first.

    $$x = f_1^{-1}\circ\cdots\circ f_n^{-1}(z)$$

    Shapes: z (N, D); returns x (N, *shape).
    Raises: ValueError when z does not fit.
    Source: Dinh et al. 2017, arXiv:1605.08803, sec. 3.6.
    """
    steps, size = plan(config), math.prod(config.shape)
    require(z.ndim == 2 and z.shape[1] == size, f"flow: z (N, {size}) expected, got {z.shape}")
    n, aside = len(z), [step for step in steps if step.kind == "factor"]
    sizes = [math.prod(step.shape) // 2 for step in aside]
    parts = np.split(z, np.cumsum(sizes), axis=1)
    kept, last = parts[:-1], steps[-1].shape
    x = parts[-1].reshape(n, *(4 * last[0], last[1] // 2, last[2] // 2) if steps[-1].kind == "squeeze" else last)
    for step in reversed(steps):
        if step.kind == "factor":
            x = np.concatenate([kept.pop().reshape(n, step.shape[0] // 2, *step.shape[1:]), x], axis=1)
        elif step.kind in ("affine", "additive"):
            s, t, _ = conditioner(params, step, x, config, ops)
            x = flow.affine_coupling_inverse(x, step.mask, 0 * t if s is None else s, t)
        elif step.kind == "squeeze":
            x = flow.unsqueeze(x)
        elif step.kind == "mix":
            w = flow.lu_weight(*_lu(params, state, step))
            x, _ = flow.mix_channels(x, np.linalg.inv(w))
        elif step.kind == "actnorm":
            scale, bias = (params[f"{step.name}.{p}"].reshape((-1,) + (1,) * (x.ndim - 2))
                           for p in ("log_scale", "bias"))
            x = x * np.exp(-scale) - bias
        else:
            x = x * np.exp(-params[f"{step.name}.log_scale"])
    return x


def flow_init(key, config, x, ops):
    r"""Initial parameters and state: couplings the identity, 1x1 convolutions rotations, actnorms from a batch of data.

    Shapes: key an int; x (N, *shape), a batch that fixes the actnorms and the dtype. Returns params and state.
    Source: Kingma and Dhariwal 2018, arXiv:1807.03039, sec. 3 (actnorm, rotation, last layer 0).
    """
    c, params, state = config, {}, {}
    for step in plan(config):
        own = fold(key, zlib.crc32(step.name.encode()))
        if step.kind == "factor":
            x = x[:, x.shape[1] // 2:]
            continue
        if step.kind in ("affine", "additive"):
            params |= conditioner_init(own, step, c, x.dtype)
        elif step.kind == "mix":
            n = step.shape[0]
            w = np.linalg.qr(normal(own, np.arange(n), 0, (n,), np.float64))[0]
            permutation, lower, upper, sign, log_s = (a.astype(x.dtype) for a in flow.lu_factors(w))
            params |= whole({"lower": lower, "upper": upper, "log_s": log_s}, step.name)
            state |= whole({"permutation": permutation, "sign": sign}, step.name)
        elif step.kind == "actnorm":
            scale, bias = flow.actnorm_start(x)
            params |= whole({"log_scale": scale, "bias": bias}, step.name)
        elif step.kind == "scale":
            params[f"{step.name}.log_scale"] = np.zeros(step.shape, x.dtype)
        x = _forward(params, state, step, x, config, ops)[0]
    return params, state
