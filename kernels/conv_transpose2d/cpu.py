"""Transposed convolution on the CPU: the adjoint's two halves, scattering forward and gathering back."""
import numpy as np

from ..arrays import NONE, channels_last, flat, write
from ..contract import Kernel, register
from ..conv2d.cpu import geometry
from ..windows import filter_gradient, filters, windows_product, windows_scatter


def conv_transpose2d(out, x, w, b=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """Fill out (N, O, Ho, Wo); at once where it is channels-last."""
    if out.size:
        numbers = geometry(out.shape, w.shape, x.shape[2:], stride, padding, dilation, groups)
        write(out, "channels_last", (x, w, b), lambda y: windows_scatter(
            y, channels_last(x), filters(w, groups, transposed=True), NONE if b is None else flat(b), numbers))


def conv_transpose2d_vjp(out, dy, x, w, b=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """Fill out = (dx, dw, db); dx at once where it is channels-last."""
    dx, dw, db = out
    numbers = geometry(dy.shape, w.shape, x.shape[2:], stride, padding, dilation, groups)
    above = channels_last(dy)
    if dx.size:
        write(dx, "channels_last", (dy, x, w, b), lambda to: windows_product(
            to, above, filters(w, groups), NONE, numbers))
    if x.size and dw.size:
        write(dw, "C", (dy, x, w, b, dx), lambda to: filter_gradient(
            to, NONE, above, channels_last(x), numbers))
    else:
        dw[...] = 0
    if db is not None:
        np.sum(dy, axis=(0, 2, 3), out=db)


register(Kernel("conv_transpose2d", "cpu", "direct", conv_transpose2d, layout="channels_last"))
register(Kernel("conv_transpose2d_vjp", "cpu", "direct", conv_transpose2d_vjp, layout="channels_last"))
