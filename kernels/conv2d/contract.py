"""The contracts of convolution and of its gradients."""
import functools
import math

import numpy as np

from kernels.bounds import growth, product_bound
from kernels.cases import PRODUCTS, nonfinite, values
from kernels.contract import Contract, contract
from refimpl import ops
from refimpl.ops._window import output_size

from .cases import LARGE, as_pair, chunks, filled, image, sides, sizes, winograd_size


def cases(d, family, window=None, stride=None, dilation=None, groups=None, padding=None, bias=None, large=None):
    """x, w, b and the options of a convolution."""
    options, (r, s), span, groups, i, o, n = sizes(d, family, window, stride, dilation, groups, padding, large)
    h, w = image(d, family, span, options["padding"], max(i, o) > 9, large)
    return filled(d, family, (n, groups * i, h, w), (groups * o, i, r, s), bias, groups * o), options


@functools.wraps(cases)
def forward_cases(d, family, padding=None, **where):
    """The same; without a border, where nothing is left open, NaN may stand in a filter too."""
    if family == "nonfinite" and padding in (None, 0) and d.choice((False, True)):
        args, options = cases(d, "normal", padding=0, **where)
        args[1].reshape(-1)[d.rng.integers(args[1].size)] = np.nan
        return args, options
    return cases(d, family, padding=padding, **where)


def absolute(*arrays):
    """|a| of each, None of None."""
    return [None if a is None else np.abs(a) for a in arrays]


def bound(args, options, outputs, arithmetic, proof, chain):
    """c(K) u (|w| * |x| + |b|), K = (I/g) R S: an inner product, its bias one more addition."""
    x, w, b = absolute(*args)
    return (product_bound(ops.conv2d(x, w, b, **options), math.prod(w.shape[1:]), arithmetic, proof),)


def winograd_bound(args, options, outputs, arithmetic, proof, chain):
    """(c(C) + 22) u (W + |b|).

    A filter's transform takes 2 passes of a rounded constant, a product and two additions: 8. A tile's, 2 passes of at
    most one inexact product and two additions: 6. The output's, 2 passes of four additions (products by powers of two
    are exact): 8. The sum over C channels lies between, and the bias is its one more addition.
    """
    x, w, b = args
    size = winograd_size(x, w, sides(options["padding"]))
    return (winograd_error(size if b is None else size + np.abs(b)[:, None, None], w.shape[1], arithmetic, proof),)


def winograd_error(size, length, arithmetic, proof):
    """The bound above, for products of absolute values that add up to `size`."""
    error = (growth(length, proof) + 22) * arithmetic.u * size + 50 * (length + 2) * arithmetic.tiny
    # |A^T| sums intermediate values up to 100 times the output's before they cancel.
    return np.where(size < arithmetic.huge / 2, error, np.inf)


def output_shape(x_shape, w_shape, options):
    """(N, O, Ho, Wo)."""
    return (x_shape[0], w_shape[0], *output_size("conv2d", x_shape[2:], w_shape[2:], as_pair(options["stride"]),
                                                 sides(options["padding"]), as_pair(options["dilation"])))


def full(options):
    """All options, the reference's defaults where none is given."""
    return {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | options


def flops(args, options):
    """Two per multiplication; the bias is not counted."""
    x, w, _ = args
    return 2 * math.prod(output_shape(x.shape, w.shape, full(options))) * math.prod(w.shape[1:])


def moved(args, options):
    """Every input read once, the output written once."""
    x, w, b = args
    y = math.prod(output_shape(x.shape, w.shape, full(options)))
    return x.itemsize * (x.size + w.size + y) + (0 if b is None else b.nbytes)


def band(first, last, height, window, stride, dilation, padding):
    """Rows of the image that outputs first..last-1 see, and the border of zeros above and below them."""
    start, stop = first * stride - padding[0], (last - 1) * stride + dilation * (window - 1) + 1 - padding[0]
    return slice(max(start, 0), min(stop, height)), (max(-start, 0), max(stop - height, 0))


def slices(args, options, budget):
    """One sample, one group and a band of rows at a time, whole Winograd tiles in each."""
    x, w, b = args
    options = full(options)
    groups, (vertical, horizontal) = options["groups"], sides(options["padding"])
    stride, dilation = as_pair(options["stride"])[0], as_pair(options["dilation"])[0]
    o, i = w.shape[0] // groups, w.shape[1]
    height, width = output_shape(x.shape, w.shape, options)[2:]
    rows = max(1, budget // (8 * width * math.prod(w.shape[1:]) * 4)) * 4
    for n in range(x.shape[0]):
        for g in range(groups):
            part = slice(g * o, (g + 1) * o)
            for first in range(0, height, rows):
                last = min(first + rows, height)
                seen, border = band(first, last, x.shape[2], w.shape[2], stride, dilation, vertical)
                yield ((x[n:n + 1, g * i:(g + 1) * i, seen], w[part], None if b is None else b[part]),
                       options | {"groups": 1, "padding": (border, horizontal)}, (np.s_[n:n + 1, part, first:last],))


contract(Contract("conv2d", ops.conv2d, ("y",), PRODUCTS, forward_cases, dict.fromkeys(("direct", "im2col"), bound) | {
    "winograd": winograd_bound}, flops, moved, slices, {"winograd": (0.5,)}, ("winograd",), large=LARGE))


def vjp_cases(d, family, **where):
    """dy of the output's shape, then a convolution's arguments. What 0 times a non-finite dy is in a border is open."""
    (x, w, b), options = cases(d, family, **where)
    dy = values(d, family, *output_shape(x.shape, w.shape, options))
    if family == "nonfinite" and options["padding"] == 0:
        dy = nonfinite(d, dy)
    return (dy, x, w, b), options


def vjp_bound(args, options, outputs, arithmetic, proof, chain):
    """Each gradient is a product: dx sums (O/g) R S terms, dw and db N Ho Wo."""
    dy, x, w, b = args
    dx, dw, db = ops.conv2d_vjp(*absolute(dy, x, w, b), **options)
    taps = w.shape[0] // options["groups"] * math.prod(w.shape[2:])
    pixels = dy.shape[0] * math.prod(dy.shape[2:])
    return (product_bound(dx, taps, arithmetic, proof), product_bound(dw, pixels, arithmetic, proof),
            None if b is None else product_bound(db, pixels, arithmetic, proof))


def vjp_winograd_bound(args, options, outputs, arithmetic, proof, chain):
    """dx by Winograd, of dy with the filters turned round and padded by 2 - padding; dw and db as products."""
    dy, _, w, _ = args
    turned = np.ascontiguousarray(w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))
    size = winograd_size(dy, turned, tuple(tuple(2 - p for p in side) for side in sides(options["padding"])))
    return (winograd_error(size, w.shape[0], arithmetic, proof),
            *vjp_bound(args, options, outputs, arithmetic, proof, chain)[1:])


def vjp_flops(args, options):
    """dx and dw cost a convolution each; db is not counted."""
    return 2 * flops(args[1:], options)


def vjp_moved(args, options):
    """dy, x, w read once, dx and dw (and db) written once."""
    dy, x, w, b = args
    return x.itemsize * (dy.size + 2 * x.size + 2 * w.size) + (0 if b is None else b.nbytes)


def vjp_slices(args, options, budget):
    """A few input channels of a group at a time: dx by sample, dw and db over all samples."""
    dy, x, w, b = args
    groups = full(options)["groups"]
    some = full(options) | {"groups": 1}
    o, i = w.shape[0] // groups, w.shape[1]
    row = 8 * math.prod(dy.shape[2:]) * math.prod(w.shape[2:])  # bytes of one channel's windows in one sample
    for g in range(groups):
        part = slice(g * o, (g + 1) * o)
        for n in range(x.shape[0]):
            for within, chosen in chunks(g * i, i, budget // row):
                yield ((dy[n:n + 1, part], x[n:n + 1, chosen], w[part, within], None), some,
                       (np.s_[n:n + 1, chosen], None, None))
        for within, chosen in chunks(g * i, i, budget // (row * max(1, x.shape[0]))):
            bias = None if b is None or within.start else b[part]  # db once
            yield ((dy[:, part], x[:, chosen], w[part, within], bias), some,
                   (None, np.s_[part, within], None if bias is None else np.s_[part]))


contract(Contract("conv2d_vjp", ops.conv2d_vjp, ("dx", "dw", "db"), PRODUCTS, vjp_cases,
                  dict.fromkeys(("direct", "im2col"), vjp_bound) | {"winograd": vjp_winograd_bound},
                  vjp_flops, vjp_moved, vjp_slices, {"winograd": (0.5, 0, 0)}, ("winograd",), large=LARGE))
