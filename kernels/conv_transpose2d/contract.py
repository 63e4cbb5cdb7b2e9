"""The contracts of transposed convolution and of its gradients."""
import math

import numpy as np

from kernels.bounds import product_bound
from kernels.cases import PRODUCTS, nonfinite, values
from kernels.contract import Contract, contract
from kernels.conv2d import contract as conv2d
from kernels.conv2d.cases import LARGE, as_pair, chunks, filled, sides, sizes
from refimpl import ops

DEFAULTS = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}


def cases(d, family, window=None, stride=None, dilation=None, groups=None, padding=None, output_padding=None,
          bias=None, large=None):
    """x, w, b and the options of a transposed convolution."""
    options, (r, s), span, groups, i, o, n = sizes(d, family, window, stride, dilation, groups, padding, large)
    (top, bottom), (left, right) = sides(options["padding"])
    strides, dilations = as_pair(options["stride"]), as_pair(options["dilation"])
    # An output of at least one row: (H - 1) stride + span > padding.
    low = [1 + max(0, -(-(1 + p - k) // step)) for p, k, step in zip((top + bottom, left + right), span, strides)]
    if large:
        h, w = (max(large[1] if large[0] in (name, "image") else 1, least) for name, least in zip(("height", "width"), low))
    else:
        extra = 2 if max(i, o) > 9 else 5
        h, w = (d.integer(least, least + extra) for least in low)
    if output_padding is None:
        output_padding = tuple(d.integer(0, max(s, e) - 1) for s, e in zip(strides, dilations))
    x, w, b = filled(d, family, (n, groups * i, h, w), (groups * i, o, r, s), bias, groups * o)
    return (x, w, b), options | {"output_padding": output_padding}


def taps(w_shape, options):
    """Products in one output: the taps on its phase of the stride, for each input channel of its group."""
    per_axis = [-(-k // (s // math.gcd(s, e))) for k, s, e in zip(
        w_shape[2:], as_pair(options["stride"]), as_pair(options["dilation"]))]
    return w_shape[0] // options["groups"] * math.prod(per_axis)


def bound(args, options, outputs, arithmetic, proof, chain):
    """c(K) u (convT(|x|, |w|) + |b|), K the products in one output, the bias one more addition."""
    x, w, b = conv2d.absolute(*args)
    length = taps(w.shape, options)
    return (product_bound(ops.conv_transpose2d(x, w, b, **options), length, arithmetic, proof),)


def output_shape(x_shape, w_shape, options):
    """(N, O, Ho, Wo)."""
    size = [(n - 1) * s - sum(p) + e * (k - 1) + 1 + o for n, s, p, e, k, o in zip(
        x_shape[2:], as_pair(options["stride"]), sides(options["padding"]), as_pair(options["dilation"]), w_shape[2:],
        as_pair(options["output_padding"]))]
    return (x_shape[0], w_shape[1] * options["groups"], *size)


def flops(args, options):
    """Two per multiplication: every input element meets every tap of its filters."""
    x, w, _ = args
    return 2 * x.size * math.prod(w.shape[1:])


def moved(args, options):
    """Every input read once, the output written once."""
    x, w, b = args
    y = math.prod(output_shape(x.shape, w.shape, DEFAULTS | options))
    return x.itemsize * (x.size + w.size + y) + (0 if b is None else b.nbytes)


def slices(args, options, budget):
    """One sample and a few output channels of a group at a time."""
    x, w, b = args
    options = DEFAULTS | options
    i, o = w.shape[0] // options["groups"], w.shape[1]
    row = 8 * math.prod(x.shape[2:]) * math.prod(w.shape[2:])  # bytes of one output channel's scattered products
    for n in range(x.shape[0]):
        for g in range(options["groups"]):
            inputs = slice(g * i, (g + 1) * i)
            for within, chosen in chunks(g * o, o, budget // row):
                yield ((x[n:n + 1, inputs], w[inputs, within], None if b is None else b[chosen]),
                       options | {"groups": 1}, (np.s_[n:n + 1, chosen],))


contract(Contract("conv_transpose2d", ops.conv_transpose2d, ("y",), PRODUCTS, cases,
                  dict.fromkeys(("direct", "im2col"), bound), flops, moved, slices, large=LARGE))


def vjp_cases(d, family, **where):
    """dy of the output's shape, then a transposed convolution's arguments. A border of zeros stands round dy, not x."""
    (x, w, b), options = cases(d, "normal" if family == "nonfinite" else family, **where)
    dy = values(d, family, *output_shape(x.shape, w.shape, options))
    return (nonfinite(d, dy) if family == "nonfinite" else dy, x, w, b), options


def vjp_bound(args, options, outputs, arithmetic, proof, chain):
    """dx sums (O/g) R S products, dw N H W, db N Ho Wo."""
    dy, x, w, b = args
    dx, dw, db = ops.conv_transpose2d_vjp(*conv2d.absolute(dy, x, w, b), **options)
    return (product_bound(dx, math.prod(w.shape[1:]), arithmetic, proof),
            product_bound(dw, x.shape[0] * math.prod(x.shape[2:]), arithmetic, proof),
            None if b is None else product_bound(db, dy.shape[0] * math.prod(dy.shape[2:]), arithmetic, proof))


def vjp_flops(args, options):
    """dx and dw cost a transposed convolution each."""
    return 2 * flops(args[1:], options)


def vjp_slices(args, options, budget):
    """dx by sample and group; dw and db by group and a few output channels, over all samples."""
    dy, x, w, b = args
    some = DEFAULTS | options | {"groups": 1}
    groups = (DEFAULTS | options)["groups"]
    i, o = w.shape[0] // groups, w.shape[1]
    row = 8 * math.prod(x.shape[2:]) * math.prod(w.shape[2:])
    for g in range(groups):
        inputs, outputs = slice(g * i, (g + 1) * i), slice(g * o, (g + 1) * o)
        for n in range(x.shape[0]):
            yield ((dy[n:n + 1, outputs], x[n:n + 1, inputs], w[inputs], None), some,
                   (np.s_[n:n + 1, inputs], None, None))
        for within, chosen in chunks(g * o, o, budget // (row * max(1, x.shape[0]))):
            yield ((dy[:, chosen], x[:, inputs], w[inputs, within], None if b is None else b[chosen]), some,
                   (None, np.s_[inputs, within], None if b is None else np.s_[chosen]))


contract(Contract("conv_transpose2d_vjp", ops.conv_transpose2d_vjp, ("dx", "dw", "db"), PRODUCTS, vjp_cases,
                  dict.fromkeys(("direct", "im2col"), vjp_bound), vjp_flops, conv2d.vjp_moved, vjp_slices,
                  large=LARGE))
