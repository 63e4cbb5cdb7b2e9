"""Modulated convolution on the CPU: input channels scaled, the convolution's own kernels, output channels scaled.

Weights of a sample's own would be one convolution each, with filters to pack each time; scaled channels are one
convolution for the whole batch.
"""
import functools

import numpy as np

from refimpl.ops.modulate import _demodulation, _energies

from ..arrays import NONE, channels_last, flat, write
from ..contract import Kernel, register
from ..conv2d import cpu as conv2d
from ..scale import dots, scale
from ..windows import filter_gradient


def modulated_conv2d(out, x, w, style, padding=0, demodulate=True, stabiliser=1e-8, winograd=False):
    """Fill out (N, O, Ho, Wo); at once where it is channels-last. winograd: by that algorithm, where it fits."""
    if not out.size:
        return
    numbers = conv2d.geometry(x.shape, w.shape, out.shape[2:], 1, padding, 1, 1)
    n, h, wide, c, ho, wo, o, *_ = numbers
    convolve = conv2d.forward_winograd if winograd else conv2d.forward_im2col

    def compute(y):
        scaled = np.empty(x.size, np.float32)
        scale(scaled, channels_last(x), flat(style), n, h * wide, c)
        convolve(y, scaled, w, NONE, numbers)
        if demodulate:
            scale(y, y, _demodulation(w, style, stabiliser).reshape(-1), n, ho * wo, o)

    write(out, "channels_last", (x, w, style), compute)


def modulated_conv2d_vjp(out, dy, x, w, style, padding=0, demodulate=True, stabiliser=1e-8, winograd=False):
    """Fill out = (dx, dw, dstyle); dx at once where it is channels-last. refimpl.ops.modulated_conv2d_vjp says how."""
    dx, dw, dstyle = out
    if not dy.size:
        dx[...], dw[...], dstyle[...] = 0, 0, 0
        return
    numbers = conv2d.geometry(x.shape, w.shape, dy.shape[2:], 1, padding, 1, 1)
    n, h, wide, c, ho, wo, o, *_ = numbers
    convolve, back = ((conv2d.forward_winograd, conv2d.back_winograd) if winograd else
                      (conv2d.forward_im2col, conv2d.back_im2col))
    inputs, dy, x, s = (dy, x, w, style), channels_last(dy), channels_last(x), flat(style)
    scaled, above, filters = np.empty(x.size, np.float32), dy, np.empty(w.size, np.float32)
    scale(scaled, x, s, n, h * wide, c)
    if demodulate:
        d, above = _demodulation(w, style, stabiliser), np.empty(dy.size, np.float32)
        scale(above, dy, d.reshape(-1), n, ho * wo, o)
    filter_gradient(filters, NONE, scaled, above, numbers)
    to_style, to_filters = np.empty(style.shape, np.float32), filters.reshape(w.shape)

    def compute(to):
        back(to, above, w, numbers)
        dots(to_style.reshape(-1), to, x, n, h * wide, c)
        scale(to, to, s, n, h * wide, c)

    write(dx, "channels_last", inputs, compute)
    if demodulate:
        convolve(above, scaled, w, NONE, numbers)
        dq = np.empty(d.shape, np.float32)
        dots(dq.reshape(-1), dy, above, n, ho * wo, o)
        dq *= -(d**3) / 2
        to_style += 2 * style * np.tensordot(dq, _energies(w), axes=(1, 0))
        to_filters += 2 * w * np.tensordot(dq, style * style, axes=(0, 0))[:, :, None, None]
    dw[...], dstyle[...] = to_filters, to_style


for _name, _function in (("modulated_conv2d", modulated_conv2d), ("modulated_conv2d_vjp", modulated_conv2d_vjp)):
    register(Kernel(_name, "cpu", "im2col", _function, layout="channels_last"))
    register(Kernel(_name, "cpu", "winograd", functools.partial(_function, winograd=True), layout="channels_last",
                    where={"window": 3, "large": conv2d.WINOGRAD_AXES}))
