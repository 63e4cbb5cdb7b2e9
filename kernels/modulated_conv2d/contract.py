"""The contracts of modulated convolution and of its gradients: a convolution's, and what styles and demodulation add."""
import functools
import math

import numpy as np

from kernels.bounds import growth
from kernels.cases import values
from kernels.contract import Contract, Large, contract
from kernels.conv2d import contract as conv2d
from kernels.conv2d.cases import AXES, filled, image, sizes
from refimpl import ops

DEFAULTS = {"padding": 0, "demodulate": True, "stabiliser": 1e-8}
LARGE = Large({k: v for k, v in AXES.items() if k not in ("stride", "dilation", "groups")}, ("integer", "sparse"))
FAMILIES = ("normal", "positive", "cancelling", "spread", "spike", "constant", "small")  # demodulation sums squares


def cases(d, family, window=None, padding=None, demodulate=None, large=None):
    """x, w, style and the options. On integers nothing is demodulated and styles are -1, 0 or 1: all sums are exact."""
    options, taps, span, _, i, o, n = sizes(d, family, window, 1, 1, 1, padding, large)
    height, width = image(d, family, span, options["padding"], max(i, o) > 9, large)
    x, w, _ = filled(d, family, (n, i, height, width), (o, i, *taps), False, o)
    style = values(d, family, n, i)
    if family == "integer":
        return (x, w, np.clip(style, -1, 1)), DEFAULTS | {"padding": options["padding"], "demodulate": False}
    demodulate = d.choice((True, True, False)) if demodulate is None else demodulate
    return (x, w, style), {"padding": options["padding"], "demodulate": demodulate, "stabiliser": d.choice((1e-8, 1e-3))}


def plain(options):
    """The options of the convolution inside."""
    return conv2d.full({"padding": options["padding"]})


def demodulation(w, style, options, arithmetic, proof):
    r"""d = (q + stabiliser)^{-1/2} and its relative error; 1 and 0 where nothing is demodulated.

    q = sum (s w)^2 is a sum of K = I R S terms that are not negative, each of four roundings: relatively c(K) + 4. The
    root halves that; adding the rounded stabiliser, root and division are three more.
    """
    if not options["demodulate"]:
        return np.ones((style.shape[0], w.shape[0])), 0.0
    q = np.tensordot(style**2, np.sum(w**2, axis=(2, 3)), axes=(1, 1))
    relative = ((growth(math.prod(w.shape[1:]), proof) + 4) / 2 + 3) * arithmetic.u
    return (q + options["stabiliser"]) ** -0.5, relative


def spread_over(a):
    """One number for each sample and channel, to broadcast with images."""
    return a[:, :, None, None]


def bound(args, options, outputs, arithmetic, proof, chain, inner=conv2d.bound):
    """The inner convolution's bound at s x, which itself is rounded once, scaled by d: and d's own relative error.

    The weights may be scaled instead of the channels: the same terms, with as many roundings.
    """
    x, w, style = args
    u = arithmetic.u
    scaled = x * spread_over(style)
    d, relative = demodulation(w, style, options, arithmetic, proof)
    error, = inner((scaled, w, None), plain(options), None, arithmetic, proof, chain)
    size = ops.conv2d(np.abs(scaled), np.abs(w), **plain(options))
    floor = arithmetic.tiny * (1 + np.max(np.abs(w), initial=0)) * (math.prod(w.shape[1:]) + 2)
    return (1.01 * spread_over(d) * (error + (2 * u + relative) * size + floor) + arithmetic.tiny,)


def flops(args, options):
    """The convolution's; scaling channels is not counted."""
    x, w, _ = args
    return conv2d.flops((x, w, None), plain(DEFAULTS | options))


def moved(args, options):
    """Every input read once, the output written once."""
    x, w, style = args
    return conv2d.moved((x, w, None), plain(DEFAULTS | options)) + style.nbytes


def slices(args, options, budget):
    """One sample and a band of rows at a time."""
    x, w, style = args
    options = DEFAULTS | options
    for (part, _, _), how, (pick,) in conv2d.slices((x, w, None), plain(options), budget):
        yield (part, w, style[pick[0]]), options | {"padding": how["padding"]}, (pick,)


def slips(args, options):
    """Demodulation left out, or done by every sample with the first one's style."""
    x, w, style = args
    yield "as if nothing were demodulated", args, options | {"demodulate": False}
    yield "as if every sample had the first one's style", (x, w, np.broadcast_to(style[:1], style.shape)), options


BOUNDS = dict.fromkeys(("direct", "im2col"), bound) | {
    "winograd": functools.partial(bound, inner=conv2d.winograd_bound)}
contract(Contract("modulated_conv2d", ops.modulated_conv2d, ("y",), FAMILIES, cases, BOUNDS, flops, moved, slices,
                  {"winograd": (0.5,)}, ("winograd",), slips=slips, large=LARGE))


def vjp_cases(d, family, **where):
    """dy of the output's shape, then the arguments. What 0 times a non-finite dy is in a border is open."""
    args, options = cases(d, "normal" if family == "nonfinite" else family, **where)
    dy = values(d, family, *conv2d.output_shape(args[0].shape, args[1].shape, plain(options)))
    if family == "nonfinite" and options["padding"] == 0 and dy.size:
        dy.reshape(-1)[d.rng.integers(dy.size)] = np.nan
    return (dy, *args), options


def vjp_bound(args, options, outputs, arithmetic, proof, chain, inner=conv2d.vjp_bound, forward=conv2d.bound):
    r"""With t = conv(s x, w), g = d dy and dq = -(d^3/2) sum dy t: dx = s a, a = conv's dx at g; dw = conv's at g plus
    2 w sum dq s^2; dstyle = sum a x plus 2 s sum dq |w|^2.

    Each is a sum of products of what came before: its error is the sum of theirs, carried through absolute values, and
    c(length) u of the terms. d's relative error enters g once and dq three times.
    """
    dy, x, w, style = args
    u, inside, scaled = arithmetic.u, plain(options), x * spread_over(style)
    dy_, x_, w_, style_ = (np.abs(a) for a in (dy, x, w, style))
    d, relative = demodulation(w, style, options, arithmetic, proof)
    c = lambda length: (growth(length, proof) + 4) * u
    a_error, dw_error, _ = inner((dy * spread_over(d), scaled, w, None), inside, None, arithmetic, proof, chain)
    a_size, dw_size, _ = ops.conv2d_vjp(dy_ * spread_over(d), np.abs(scaled), w_, None, **inside)
    a_error, dw_error = a_error + (relative + 2 * u) * a_size, dw_error + (relative + 3 * u) * dw_size
    dx = spread_over(style_) * (a_error + u * a_size)
    dstyle = np.sum(x_ * a_error, axis=(2, 3)) + c(math.prod(x.shape[2:])) * np.sum(x_ * a_size, axis=(2, 3))
    if options["demodulate"]:
        t_error, = forward((scaled, w, None), inside, None, arithmetic, proof, chain)
        t_size = ops.conv2d(np.abs(scaled), w_, **inside)
        half = d**3 / 2
        dq_size = half * np.sum(dy_ * t_size, axis=(2, 3))
        dq_error = half * np.sum(dy_ * (t_error + u * t_size), axis=(2, 3)) + (
            c(math.prod(dy.shape[2:])) + 3 * relative) * dq_size
        energies, squares = np.sum(w_**2, axis=(2, 3)), style_**2
        both = lambda error, size, length: error + c(length) * size
        dstyle = dstyle + 2 * style_ * np.tensordot(
            both(dq_error, dq_size, w.shape[0] + math.prod(w.shape[2:])), energies, axes=(1, 0))
        dw_error = dw_error + 2 * w_ * np.tensordot(both(dq_error, dq_size, len(x)), squares, axes=(0, 0))[:, :, None, None]
    floor = arithmetic.tiny * (w.size + x.size + dy.size) * np.max(d, initial=1) ** 3
    return tuple(1.1 * e + floor for e in (dx, dw_error, dstyle))


def vjp_flops(args, options):
    """dx and dw cost a convolution each, and so does the output that demodulation's gradient asks for."""
    return (2 + (DEFAULTS | options)["demodulate"]) * flops(args[1:], options)


def vjp_moved(args, options):
    """dy, x, w and style read once, dx, dw and dstyle written once."""
    dy, x, w, style = args
    return x.itemsize * (dy.size + 2 * (x.size + w.size + style.size))


def vjp_slices(args, options, budget):
    """dx and dstyle a sample at a time; dw a few filters at a time, over all samples."""
    dy, x, w, style = args
    options = DEFAULTS | options
    for n in range(x.shape[0]):
        one = slice(n, n + 1)
        yield (dy[one], x[one], w, style[one]), options, (one, None, one)
    few = max(1, budget // (8 * max(1, dy.shape[0]) * math.prod(dy.shape[2:]) * math.prod(w.shape[1:])))
    for first in range(0, w.shape[0], few):
        some = slice(first, first + few)
        yield (dy[:, some], x, w[some], style), options, (None, some, None)


contract(Contract("modulated_conv2d_vjp", ops.modulated_conv2d_vjp, ("dx", "dw", "dstyle"), FAMILIES, vjp_cases,
                  dict.fromkeys(("direct", "im2col"), vjp_bound) | {"winograd": functools.partial(
                      vjp_bound, inner=conv2d.vjp_winograd_bound, forward=conv2d.winograd_bound)},
                  vjp_flops, vjp_moved, vjp_slices, {"winograd": (0.5, 0, np.inf)}, ("winograd",), large=LARGE))
