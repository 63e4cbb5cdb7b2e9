"""Convolution against its definition and its adjoint, for any stride, padding, dilation, groups and output padding."""
import numpy as np

from refimpl import ops

from . import fact
from .gradients import pair


def _options(d):
    """Kernel, what it spans when dilated, and the options of a convolution."""
    def both(low, high):
        return d.integer(low, high), d.integer(low, high)

    kernel, dilation = both(1, 3), both(1, 2)
    span = tuple(t * (k - 1) + 1 for k, t in zip(kernel, dilation))
    return kernel, span, {"stride": both(1, 3), "padding": (both(0, 2), both(0, 2)), "dilation": dilation,
                          "groups": d.integer(1, 2)}


@pair(ops.conv2d, ops.conv2d_vjp, "x", "w", "b")
def _conv2d(d):
    kernel, span, options = _options(d)
    g, i, o = options["groups"], d.integer(1, 2), d.integer(1, 2)
    size = [max(1, s - sum(p)) + d.integer(0, 3) for s, p in zip(span, options["padding"])]
    return {"x": d.array(d.integer(1, 2), g * i, *size), "w": d.array(g * o, i, *kernel), "b": d.array(g * o)} | options


@pair(ops.conv_transpose2d, ops.conv_transpose2d_vjp, "x", "w", "b")
def _conv_transpose2d(d):
    kernel, span, options = _options(d)
    g, i, o = options["groups"], d.integer(1, 2), d.integer(1, 2)
    extra = tuple(d.integer(0, max(s, t) - 1) for s, t in zip(options["stride"], options["dilation"]))
    # enough rows that cropping the padding leaves at least one
    size = [max(1, -(-(sum(p) + 1 - e - k) // s) + 1) + d.integer(0, 2)
            for s, p, e, k in zip(options["stride"], options["padding"], extra, span)]
    return {"x": d.array(d.integer(1, 2), g * i, *size), "w": d.array(g * i, o, *kernel), "b": d.array(g * o),
            "output_padding": extra} | options


@fact("definition", ops.conv2d, ops.conv2d_sum, tolerance=1e-13)
def product_is_sum(d):
    """The matrix product of windows and filters = the sum that defines convolution."""
    inputs = _conv2d(d)
    y = ops.conv2d_sum(**inputs)
    return np.max(abs(ops.conv2d(**inputs) - y)) / (1 + np.max(abs(y)))


@fact("F-F1", ops.conv2d, ops.conv_transpose2d, tolerance=1e-12)
def transposed_is_adjoint(d):
    """<conv(x), y> = <x, convT(y)>, the rows that a stride leaves over being the output padding."""
    inputs = _conv2d(d) | {"b": None}
    y = d.array(*ops.conv2d(**inputs).shape)
    x = inputs.pop("x")
    _, _, *kernel = inputs["w"].shape
    extra = [(n + sum(p) - t * (k - 1) - 1) % s for n, p, t, k, s in
             zip(x.shape[2:], inputs["padding"], inputs["dilation"], kernel, inputs["stride"])]
    left = ops.conv2d(x, **inputs) * y
    right = x * ops.conv_transpose2d(y, output_padding=extra, **inputs)
    return abs(np.sum(left) - np.sum(right)) / (1 + np.sum(abs(left)))


@fact("F-F2", ops.conv_transpose2d, tolerance=1e-12)
def transposed_is_convolution(d):
    """convT = conv with flipped, channel-swapped kernel on the zero-inserted input, padding dilation (k-1) - p."""
    inputs = _conv_transpose2d(d)
    x, w, b, stride, dilation, g = (inputs[k] for k in ("x", "w", "b", "stride", "dilation", "groups"))
    (n, i, *size), (_, o, *kernel) = x.shape, w.shape
    reach = [t * (k - 1) for t, k in zip(dilation, kernel)]
    inputs["padding"] = [tuple(min(q, r) for q in p) for p, r in zip(inputs["padding"], reach)]
    spaced = np.zeros((n, i, *((m - 1) * s + 1 for m, s in zip(size, stride))))
    spaced[:, :, ::stride[0], ::stride[1]] = x
    swapped = np.swapaxes(w.reshape(g, i // g, o, *kernel), 1, 2).reshape(g * o, i // g, *kernel)[:, :, ::-1, ::-1]
    padding = [(r - p[0], r - p[1] + e) for r, p, e in zip(reach, inputs["padding"], inputs["output_padding"])]
    y = ops.conv2d_sum(spaced, swapped, b, padding=padding, dilation=dilation, groups=g)
    return np.max(abs(ops.conv_transpose2d(**inputs) - y)) / (1 + np.max(abs(y)))
