"""Multilayer perceptrons: a plain one, for games and flat data, and one that is told the time, for diffusion."""
import itertools
import math
from typing import NamedTuple

import numpy as np

from refimpl.ops._check import require

from .blocks import linear
from .embed import embed, embed_shapes
from .initial import initialise, linear_shapes

ACTIVATIONS = {"relu": (), "leaky_relu": (0.2,), "tanh": (), "silu": (), "softplus": ()}


def mlp(params, x, *, ops, activation="silu"):
    r"""Affine maps with a non-linearity between them.

    $$h_0 = x, \qquad h_{i+1} = \phi(W_i h_i + b_i), \qquad y = W_n h_n + b_n$$

    Shapes: x (N, ...), flattened to (N, D); y (N, O). As many maps as params hold. leaky_relu has the slope .2.
    pullback(dy) -> dparams, dx. Analytic where the activation is.
    Raises: ValueError for an unknown activation, or when x does not fit the first map.
    Source: Rumelhart, Hinton, Williams 1986, Nature 323; slope: Radford et al. 2016, arXiv:1511.06434.
    """
    require(activation in ACTIVATIONS, f"mlp: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    require("layers.0.weight" in params, "mlp: params must hold at least one layer, named layers.0.weight")
    phi, phi_vjp = getattr(ops, activation), getattr(ops, f"{activation}_vjp")
    options = ACTIVATIONS[activation]
    shape, h = x.shape, x.reshape(x.shape[0], math.prod(x.shape[1:]))
    before, backs, i = [], [], 0
    while f"layers.{i}.weight" in params:
        if i:
            before.append(h)
            h = phi(h, *options)
        h, back = linear(params, f"layers.{i}", h, ops)
        backs.append(back)
        i += 1

    def pullback(dy):
        grads, dh = backs[-1](dy)
        for back, a in zip(reversed(backs[:-1]), reversed(before)):
            g, dh = back(phi_vjp(dh, a, *options))
            grads = g | grads
        return grads, dh.reshape(shape)

    return h, pullback


def mlp_shapes(sizes):
    """Names and shapes of an mlp with these widths, input and output included.

    Shapes: sizes at least two ints. Raises: ValueError otherwise.
    Source: the project's own names.
    """
    require(len(sizes) >= 2 and min(sizes) >= 1, f"mlp: sizes must be two or more positive ints, got {sizes}")
    shapes = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        shapes |= linear_shapes(f"layers.{i}", inputs, outputs)
    return shapes


def mlp_init(key, sizes, dtype=np.float32):
    """Initial parameters of an mlp.

    Shapes: key an int; sizes as mlp_shapes. Returns a dict from names to arrays.
    Source: see initialise.
    """
    return initialise(key, mlp_shapes(sizes), dtype)


class TimeMLPConfig(NamedTuple):
    """features: values in a sample; width and depth: of the residual layers; num_class_embeds counts a null class;
    outputs: times features given, along x's first axis after N."""

    features: int = 2
    width: int = 128
    depth: int = 3
    time_dim: int = 64
    num_class_embeds: int | None = None
    outputs: int = 1


def time_mlp(params, x, t, labels=None, *, config, ops):
    r"""A residual perceptron that is told the time and optionally the class: the U-Net's counterpart for flat data.

    $$h_0 = W_{in} x, \qquad h_{i+1} = h_i + W_i'\,\mathrm{silu}(W_i\,\mathrm{silu}(h_i) + U_i a), \qquad
      y = W_{out}\,\mathrm{silu}(h_n)$$

    a is the embedding of time and class, as the U-Net's.

    Shapes: x (N, ...) with features elements a sample, flattened; t (N,) real host numbers; labels (N,) integers,
    expected exactly when the config has classes. Returns y (N, outputs x.shape[1], ...), and pullback(dy) -> dparams, dx.
    Raises: ValueError when a shape does not fit or labels are missing or not expected.
    Source: He et al. 2016, arXiv:1603.05027 (residual, activation first); Ho et al. 2020, arXiv:2006.11239 (time).
    """
    N, shape = x.shape[0], x.shape
    require(math.prod(shape[1:]) == config.features,
            f"time_mlp: x must hold {config.features} values a sample, got shape {shape}")
    act, embed_back = embed(params, t, labels, x, ops, dim=config.time_dim, cos_first=True, shift=0,
                            classes=config.num_class_embeds)
    h, into = linear(params, "linear_in", x.reshape(N, config.features), ops)
    steps = []
    for i in range(config.depth):
        before = h
        e, project = linear(params, f"layers.{i}.time_emb_proj", act, ops)
        m, first = linear(params, f"layers.{i}.linear_1", ops.silu(h), ops)
        m = m + e
        r, second = linear(params, f"layers.{i}.linear_2", ops.silu(m), ops)
        h = h + r
        steps.append((before, project, first, m, second))
    y, out = linear(params, "linear_out", ops.silu(h), ops)

    def pullback(dy):
        grads, dh = out(dy.reshape(N, -1))
        dh, dact = ops.silu_vjp(dh, h), 0.0
        for before, project, first, m, second in reversed(steps):
            g2, dm = second(dh)
            dm = ops.silu_vjp(dm, m)
            g1, da = first(dm)
            ge, de = project(dm)
            dh = dh + ops.silu_vjp(da, before)
            grads, dact = grads | g2 | g1 | ge, dact + de
        g, dx = into(dh)
        grads = grads | g | embed_back(dact)
        return {name: grads[name] for name in params}, dx.reshape(shape)

    return y.reshape(N, config.outputs * shape[1], *shape[2:]), pullback


def time_mlp_init(key, config, dtype=np.float32):
    """Initial parameters; those of the last map of every residual and of the output are 0.

    Shapes: key an int; config a TimeMLPConfig. Returns a dict from names to arrays.
    Source: see initialise; zeros as the U-Net's.
    """
    return initialise(key, time_mlp_shapes(config), dtype, zero=("linear_2.", "linear_out."))


def time_mlp_shapes(config):
    """Name and shape of every parameter of time_mlp.

    Shapes: config a TimeMLPConfig; returns a dict from names to shapes.
    Source: the project's own names.
    """
    c, E = config, 2 * config.time_dim
    shapes = linear_shapes("linear_in", c.features, c.width) | embed_shapes(c.time_dim, E, c.num_class_embeds)
    for i in range(c.depth):
        shapes |= linear_shapes(f"layers.{i}.time_emb_proj", E, c.width)
        shapes |= linear_shapes(f"layers.{i}.linear_1", c.width, c.width)
        shapes |= linear_shapes(f"layers.{i}.linear_2", c.width, c.width)
    return shapes | linear_shapes("linear_out", c.width, c.outputs * c.features)
