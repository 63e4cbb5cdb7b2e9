"""Modulated convolution on the CPU: input channels scaled, the convolution's own kernels, output channels scaled.

Weights of a sample's own would be one convolution each, with filters to pack each time; scaled channels are one
convolution for the whole batch.
"""
import functools

import numpy as np
from numba import prange

from refimpl.ops.modulate import _demodulation, _energies

from ..arrays import NONE, channels_last, flat, write
from ..contract import Kernel, register
from ..conv2d import cpu as conv2d
from ..jit import IN, INT, OUT, helper, kernel
from ..memory import address, load_up_to, store_up_to
from ..simd import WIDTH, fma, splat
from ..sums import BLOCK
from ..windows import filter_gradient


@kernel((OUT, IN, IN, INT, INT, INT))
def _scale(y, x, s, n, pixels, c):
    """y (n, pixels, c) = x times s (n, c); y may be x."""
    blocks = -(-pixels // BLOCK)
    for task in prange(n * blocks):
        sample, first = task // blocks, task % blocks * BLOCK
        last = min(first + BLOCK, pixels)
        for j in range(0, c, WIDTH):
            v = load_up_to(address(s) + 4 * (sample * c + j), c - j)
            for p in range(first, last):
                at = 4 * ((sample * pixels + p) * c + j)
                store_up_to(address(y) + at, load_up_to(address(x) + at, c - j) * v, c - j)


@helper
def _dot(to, a, b, pixels, c, count):
    """Sum over pixels of a b, for up to WIDTH channels; in blocks, so that chains of additions stay short."""
    whole = splat(0.0)
    for first in range(0, pixels, BLOCK):
        part = splat(0.0)
        for p in range(first, min(first + BLOCK, pixels)):
            part = fma(load_up_to(a + 4 * p * c, count), load_up_to(b + 4 * p * c, count), part)
        whole = whole + part
    store_up_to(to, whole, count)


@kernel((OUT, IN, IN, INT, INT, INT))
def _dots(to, a, b, n, pixels, c):
    """to (n, c) = sum over pixels of a b, both (n, pixels, c)."""
    strips = -(-c // WIDTH)
    for task in prange(n * strips):
        sample, j = task // strips, task % strips * WIDTH
        shift = 4 * (sample * pixels * c + j)
        _dot(address(to) + 4 * (sample * c + j), address(a) + shift, address(b) + shift, pixels, c, c - j)


def modulated_conv2d(out, x, w, style, padding=0, demodulate=True, stabiliser=1e-8, winograd=False):
    """Fill out (N, O, Ho, Wo); at once where it is channels-last. winograd: by that algorithm, where it fits."""
    if not out.size:
        return
    numbers = conv2d.geometry(x.shape, w.shape, out.shape[2:], 1, padding, 1, 1)
    n, h, wide, c, ho, wo, o, *_ = numbers
    convolve = conv2d.forward_winograd if winograd else conv2d.forward_im2col

    def compute(y):
        scaled = np.empty(x.size, np.float32)
        _scale(scaled, channels_last(x), flat(style), n, h * wide, c)
        convolve(y, scaled, w, NONE, numbers)
        if demodulate:
            _scale(y, y, _demodulation(w, style, stabiliser).reshape(-1), n, ho * wo, o)

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
    _scale(scaled, x, s, n, h * wide, c)
    if demodulate:
        d, above = _demodulation(w, style, stabiliser), np.empty(dy.size, np.float32)
        _scale(above, dy, d.reshape(-1), n, ho * wo, o)
    filter_gradient(filters, NONE, scaled, above, numbers)
    to_style, to_filters = np.empty(style.shape, np.float32), filters.reshape(w.shape)

    def compute(to):
        back(to, above, w, numbers)
        _dots(to_style.reshape(-1), to, x, n, h * wide, c)
        _scale(to, to, s, n, h * wide, c)

    write(dx, "channels_last", inputs, compute)
    if demodulate:
        convolve(above, scaled, w, NONE, numbers)
        dq = np.empty(d.shape, np.float32)
        _dots(dq.reshape(-1), dy, above, n, ho * wo, o)
        dq *= -(d**3) / 2
        to_style += 2 * style * (dq @ _energies(w))
        to_filters += 2 * w * (dq.T @ (style * style))[:, :, None, None]
    dw[...], dstyle[...] = to_filters, to_style


for _name, _function in (("modulated_conv2d", modulated_conv2d), ("modulated_conv2d_vjp", modulated_conv2d_vjp)):
    register(Kernel(_name, "cpu", "im2col", _function, layout="channels_last"))
    register(Kernel(_name, "cpu", "winograd", functools.partial(_function, winograd=True), layout="channels_last",
                    where={"window": 3}))
