"""Convolution and its gradients on the CPU: windows times filters anywhere, Winograd's transform where it pays."""
import numpy as np

from refimpl.ops._window import int_pair, sides

from ..arrays import NONE, channels_last, flat, write
from ..contract import Kernel, register
from ..simd import WIDTH
from ..windows import filter_gradient, filters, windows_product, windows_scatter
from .cases import AXES
from .winograd import winograd


def geometry(x_shape, w_shape, out, stride, padding, dilation, groups):
    """The sixteen numbers that the kernels know a convolution by."""
    n, c, h, w = x_shape
    (top, _), (left, _) = sides("padding", padding)
    return (n, h, w, c, *out, w_shape[0], *w_shape[2:], *int_pair("stride", stride, 1), top, left,
            *int_pair("dilation", dilation, 1), groups)


def fits_winograd(numbers):
    """Whether Winograd's algorithm computes this convolution and its dx."""
    r, s, down, right, top, left, dilate_r, dilate_s, groups = numbers[7:]
    return (r, s, down, right, dilate_r, dilate_s, groups) == (3, 3, 1, 1, 1, 1, 1) and max(top, left) <= 2


def prefers_winograd(numbers):
    """Whether Winograd's algorithm fits and takes less work: products, and the transforms of tiles and filters."""
    n, _, _, c, ho, wo, o, *_ = numbers
    tiles = n * -(-ho // 4) * -(-wo // 4)
    work = 36 * tiles * c * o + 200 * tiles * (c + o) + 60 * c * o
    return fits_winograd(numbers) and c % WIDTH == o % WIDTH == 0 and work < 9 * n * ho * wo * c * o


def forward_im2col(y, x, w, b, numbers):
    """y = x * w + b, flat and channels-last but for w (O, C, R, S); b may be empty."""
    windows_product(y, x, filters(w, numbers[-1]), b, numbers)


def forward_winograd(y, x, w, b, numbers):
    """The same where fits_winograd."""
    winograd(y, x, w, b, numbers)


def back_im2col(dx, dy, w, numbers):
    """The gradient in x. With stride 1 it is a convolution of dy with the filters turned and transposed."""
    n, h, wide, c, ho, wo, o, r, s, down, right, top, left, dilate_r, dilate_s, groups = numbers
    above, before = dilate_r * (r - 1) - top, dilate_s * (s - 1) - left
    if down == right == 1 and above >= 0 and before >= 0:
        back = (n, ho, wo, o, h, wide, c, r, s, 1, 1, above, before, dilate_r, dilate_s, groups)
        windows_product(dx, dy, filters(w, groups, transposed=True, turned=True), NONE, back)
    else:
        windows_scatter(dx, dy, filters(w, groups, transposed=True), NONE, numbers)


def back_winograd(dx, dy, w, numbers):
    """The same where fits_winograd."""
    n, h, wide, c, ho, wo, o, *same, top, left, _, _, _ = numbers
    winograd(dx, dy, w, NONE, (n, ho, wo, o, h, wide, c, *same, 2 - top, 2 - left, 1, 1, 1), back=True)


def _filled(forward, out, x, w, b, *options):
    if out.size:
        numbers = geometry(x.shape, w.shape, out.shape[2:], *options)
        write(out, "channels_last", (x, w, b), lambda y: forward(
            y, channels_last(x), w, NONE if b is None else flat(b), numbers))


def _filled_vjp(back, out, dy, x, w, b, *options):
    dx, dw, db = out
    numbers, above = geometry(x.shape, w.shape, dy.shape[2:], *options), channels_last(dy)
    if dx.size:
        write(dx, "channels_last", (dy, x, w, b), lambda to: back(to, above, w, numbers))
    sums = np.zeros(0 if db is None else db.size, np.float32)
    if dw.size and dy.size:
        write(dw, "C", (dy, x, w, b, dx), lambda to: filter_gradient(to, sums, channels_last(x), above, numbers))
    else:
        dw[...] = 0
    if db is not None:
        db[...] = sums


def conv2d(out, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """Fill out (N, O, Ho, Wo); at once where it is channels-last."""
    _filled(forward_im2col, out, x, w, b, stride, padding, dilation, groups)


def conv2d_winograd(out, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """The same where fits_winograd."""
    _filled(forward_winograd, out, x, w, b, stride, padding, dilation, groups)


def conv2d_vjp(out, dy, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """Fill out = (dx, dw, db); dx at once where it is channels-last."""
    _filled_vjp(back_im2col, out, dy, x, w, b, stride, padding, dilation, groups)


def conv2d_winograd_vjp(out, dy, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """The same where fits_winograd, dx by that algorithm."""
    _filled_vjp(back_winograd, out, dy, x, w, b, stride, padding, dilation, groups)


register(Kernel("conv2d", "cpu", "im2col", conv2d, layout="channels_last"))
register(Kernel("conv2d_vjp", "cpu", "im2col", conv2d_vjp, layout="channels_last"))
WINOGRAD_AXES = tuple(a for a in AXES if a != "padding")  # which is at most 2 there
for _name, _function in (("conv2d", conv2d_winograd), ("conv2d_vjp", conv2d_winograd_vjp)):
    register(Kernel(_name, "cpu", "winograd", _function, layout="channels_last",
                    where={"window": 3, "stride": 1, "dilation": 1, "groups": 1, "large": WINOGRAD_AXES}))
