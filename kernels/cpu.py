"""The cpu backend: functions of refimpl.ops by Numba kernels, which take NumPy's float32.

What a kernel cannot take (another dtype or device, a shape that does not fit) the reference computes or refuses, so
both backends accept the same input and raise the same errors. Results lie in memory as kernels write them: those of
convolutions channels last, of norms like their input, of attention like the query.
"""
import functools

import numpy as np

from refimpl import ops
from refimpl.ops import conv as reference_conv
from refimpl.ops._window import output_size

from . import fits
from .arrays import NONE, channels_last, empty_channels_last, flat, supported
from .attention import cpu as attention_cpu
from .attention import cpu_vjp as attention_cpu_vjp
from .batch_norm import cpu as batch_norm_cpu
from .contract import Kernel, register
from .conv2d import cpu as conv2d_cpu
from .conv_transpose2d import cpu as conv_transpose2d_cpu
from .group_norm import cpu as group_norm_cpu
from .modulated_conv2d import cpu as modulated_cpu
from .q_sample import cpu as q_sample_cpu
from .sampler_step import cpu as sampler_step_cpu
from .windows import filter_gradient


def _empty(*arrays):
    """An uninitialised array in the memory order of each, None for None."""
    return tuple(None if a is None else np.empty_like(a) for a in arrays)


def _remembered(f):
    """f(name, *arrays, *options), a matter of shapes and options, worked out once for each: it costs a small kernel."""
    @functools.lru_cache(1024)
    def of_shapes(name, shapes, options):
        stand_ins = [None if s is None else np.broadcast_to(np.float32(0), s) for s in shapes]
        return f(name, *stand_ins, *options)

    @functools.wraps(f)
    def call(name, *arguments):
        arrays, options = arguments[:3], arguments[3:]
        try:
            return of_shapes(name, tuple(None if a is None else a.shape for a in arrays), options)
        except TypeError:  # an option that is a list cannot be remembered
            return f(name, *arguments)
    return call


@_remembered
def _conv2d_geometry(name, x, w, b, stride, padding, dilation, groups):
    """The kernels' sixteen numbers, after the reference's checks."""
    full = reference_conv._check(name, x, w, b, stride, padding, dilation, groups)
    out = output_size(name, x.shape[2:], w.shape[2:], *full)
    return conv2d_cpu.geometry(x.shape, w.shape, out, *full, groups)


def conv2d_algorithm(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """"winograd" where it takes less work than "im2col", borders, transforms and all."""
    numbers = _conv2d_geometry("conv2d", x, w, b, stride, padding, dilation, groups)
    return "winograd" if conv2d_cpu.prefers_winograd(numbers) else "im2col"


def conv2d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """As refimpl.ops.conv2d."""
    if not supported(x, w, b):
        return ops.conv2d(x, w, b, stride, padding, dilation, groups)
    numbers = _conv2d_geometry("conv2d", x, w, b, stride, padding, dilation, groups)
    y = np.empty((*numbers[:1], *numbers[4:7]), np.float32)
    forward = conv2d_cpu.forward_winograd if conv2d_cpu.prefers_winograd(numbers) else conv2d_cpu.forward_im2col
    if y.size:
        forward(y.reshape(-1), channels_last(x), w, NONE if b is None else flat(b), numbers)
    return y.transpose(0, 3, 1, 2)


def conv2d_vjp(dy, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """As refimpl.ops.conv2d_vjp."""
    if not supported(dy, x, w, b):
        return ops.conv2d_vjp(dy, x, w, b, stride, padding, dilation, groups)
    numbers = _conv2d_geometry("conv2d_vjp", x, w, b, stride, padding, dilation, groups)
    reference_conv._check_dy("conv2d_vjp", dy, x, (w.shape[0], *numbers[4:6]))
    back = conv2d_cpu.back_winograd if conv2d_cpu.prefers_winograd(numbers) else conv2d_cpu.back_im2col
    dx, dw, db = _gradients(back, channels_last(dy), channels_last(x), w, b, numbers)
    return dx.reshape(numbers[:4]).transpose(0, 3, 1, 2), dw.reshape(w.shape), db


def _gradients(back, dy, x, w, b, numbers):
    """dx, dw, db of a convolution, dx and dw flat."""
    dx, dw = np.empty(x.size, np.float32), np.empty(w.size, np.float32)
    db = np.empty(0 if b is None else b.size, np.float32)
    if not (x.size and dy.size):
        dx[...], dw[...], db[...] = 0, 0, 0
    else:
        back(dx, dy, w, numbers)
        filter_gradient(dw, db, x, dy, numbers)
    return dx, dw, None if b is None else db


def _modulated_geometry(x, w, style, padding):
    """The convolution's sixteen numbers; None where the reference computes or refuses."""
    if not (supported(x, w, style) and x.ndim == 4 and style.shape == x.shape[:2]):
        return None
    return _conv2d_geometry("conv2d", x, w, None, 1, padding, 1, 1)


def modulated_conv2d_algorithm(x, w, style, padding=0, **options):
    """As conv2d_algorithm."""
    return conv2d_algorithm(x, w, padding=padding)


def modulated_conv2d(x, w, style, padding=0, demodulate=True, stabiliser=1e-8):
    """As refimpl.ops.modulated_conv2d."""
    numbers = _modulated_geometry(x, w, style, padding)
    if numbers is None:
        return ops.modulated_conv2d(x, w, style, padding, demodulate, stabiliser)
    y = empty_channels_last(*numbers[:1], *numbers[6:7], *numbers[4:6])
    modulated_cpu.modulated_conv2d(y, x, w, style, padding, demodulate, stabiliser, conv2d_cpu.prefers_winograd(numbers))
    return y


def modulated_conv2d_vjp(dy, x, w, style, padding=0, demodulate=True, stabiliser=1e-8):
    """As refimpl.ops.modulated_conv2d_vjp."""
    options = padding, demodulate, stabiliser
    numbers = _modulated_geometry(x, w, style, padding) if supported(dy) else None
    if numbers is None or dy.shape != (*numbers[:1], *numbers[6:7], *numbers[4:6]):
        return ops.modulated_conv2d_vjp(dy, x, w, style, *options)
    out = empty_channels_last(*x.shape), *_empty(np.ascontiguousarray(w), np.ascontiguousarray(style))
    modulated_cpu.modulated_conv2d_vjp(out, dy, x, w, style, *options, conv2d_cpu.prefers_winograd(numbers))
    return out


@_remembered
def _transposed_size(name, x, w, b, stride, padding, output_padding, dilation, groups):
    full = reference_conv._check(name, x, w, b, stride, padding, dilation, groups, transposed=True)
    return reference_conv._transposed_size(name, x, w, *full[:2], output_padding, full[2])


def conv_transpose2d(x, w, b=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """As refimpl.ops.conv_transpose2d."""
    options = stride, padding, output_padding, dilation, groups
    if not supported(x, w, b):
        return ops.conv_transpose2d(x, w, b, *options)
    size = _transposed_size("conv_transpose2d", x, w, b, *options)
    y = empty_channels_last(x.shape[0], w.shape[1] * groups, *size)
    conv_transpose2d_cpu.conv_transpose2d(y, x, w, b, *options)
    return y


def conv_transpose2d_vjp(dy, x, w, b=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """As refimpl.ops.conv_transpose2d_vjp."""
    options = stride, padding, output_padding, dilation, groups
    if not supported(dy, x, w, b):
        return ops.conv_transpose2d_vjp(dy, x, w, b, *options)
    size = _transposed_size("conv_transpose2d_vjp", x, w, b, *options)
    reference_conv._check_dy("conv_transpose2d_vjp", dy, x, (w.shape[1] * groups, *size))
    out = empty_channels_last(*x.shape), *_empty(np.ascontiguousarray(w), b)
    conv_transpose2d_cpu.conv_transpose2d_vjp(out, dy, x, w, b, *options)
    return out


def _linear_fits(x, w, b):
    return (supported(x, w, b) and w.ndim == 2 and x.ndim and x.shape[-1] == w.shape[1] and x.size and w.size
            and (b is None or b.shape == w.shape[:1]))


def _pixel_geometry(x, w):
    """An affine map is a convolution of images of one pixel."""
    return (x.size // w.shape[1], 1, 1, w.shape[1], 1, 1, w.shape[0], 1, 1, 1, 1, 0, 0, 1, 1, 1)


def linear(x, w, b=None):
    """As refimpl.ops.linear."""
    if not _linear_fits(x, w, b):
        return ops.linear(x, w, b)
    y = np.empty((*x.shape[:-1], w.shape[0]), np.float32)
    conv2d_cpu.forward_im2col(y.reshape(-1), flat(x), w[:, :, None, None], NONE if b is None else flat(b),
                              _pixel_geometry(x, w))
    return y


def linear_vjp(dy, x, w, b=None):
    """As refimpl.ops.linear_vjp."""
    if not _linear_fits(x, w, b) or not supported(dy) or dy.shape != (*x.shape[:-1], w.shape[0]):
        return ops.linear_vjp(dy, x, w, b)
    dx, dw, db = _gradients(conv2d_cpu.back_im2col, flat(dy), flat(x), w[:, :, None, None], b, _pixel_geometry(x, w))
    return dx.reshape(x.shape), dw.reshape(w.shape), db


def group_norm(x, gamma, beta, groups, stabiliser=1e-5, silu=False):
    """As refimpl.ops.group_norm."""
    if not (supported(x, gamma, beta) and fits.group_norm(x, gamma, beta, groups)):
        return ops.group_norm(x, gamma, beta, groups, stabiliser, silu)
    y = np.empty_like(x)
    group_norm_cpu.group_norm(y, x, gamma, beta, groups, stabiliser, silu)
    return y


def group_norm_vjp(dy, x, gamma, beta, groups, stabiliser=1e-5, silu=False):
    """As refimpl.ops.group_norm_vjp."""
    if not (supported(dy, x, gamma, beta) and fits.group_norm(x, gamma, beta, groups, dy)):
        return ops.group_norm_vjp(dy, x, gamma, beta, groups, stabiliser, silu)
    out = _empty(x, gamma, beta)
    group_norm_cpu.group_norm_vjp(out, dy, x, gamma, beta, groups, stabiliser, silu)
    return out


def batch_norm(x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    """As refimpl.ops.batch_norm."""
    arrays = x, gamma, beta, running_mean, running_var
    if not (supported(*arrays) and fits.batch_norm(*arrays, train)):
        return ops.batch_norm(*arrays, train, momentum, stabiliser)
    out = _empty(x, running_mean, running_var)
    batch_norm_cpu.batch_norm(out, *arrays, train, momentum, stabiliser)
    return out


def batch_norm_vjp(dy, x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    """As refimpl.ops.batch_norm_vjp."""
    arrays = x, gamma, beta, running_mean, running_var
    if not (supported(dy, *arrays) and fits.batch_norm(*arrays, train, dy)):
        return ops.batch_norm_vjp(dy, *arrays, train, momentum, stabiliser)
    out = _empty(x, gamma, beta)
    batch_norm_cpu.batch_norm_vjp(out, dy, *arrays, train, momentum, stabiliser)
    return out


def _host(mask):
    return mask is None or type(mask) is np.ndarray


def attention(q, k, v, mask=None, causal=False, scale=None):
    """As refimpl.ops.attention."""
    if not (supported(q, k, v) and _host(mask) and fits.attention(q, k, v, mask)):
        return ops.attention(q, k, v, mask, causal, scale)
    y = _heads_like(q, v.shape[3])
    attention_cpu.attention(y, q, k, v, mask, causal, scale)
    return y


def attention_vjp(dy, q, k, v, mask=None, causal=False, scale=None):
    """As refimpl.ops.attention_vjp."""
    if not (supported(dy, q, k, v) and _host(mask) and fits.attention(q, k, v, mask, dy)):
        return ops.attention_vjp(dy, q, k, v, mask, causal, scale)
    out = tuple(_heads_like(x, x.shape[3]) for x in (q, k, v))
    attention_cpu_vjp.attention_vjp(out, dy, q, k, v, mask, causal, scale)
    return out


def _heads_like(x, width):
    """An uninitialised (N, h, L, width), its heads inside its tokens in memory where x's are: joining them is free."""
    n, h, length, _ = x.shape
    if x.strides[1] < x.strides[2]:
        return np.empty((n, length, h, width), np.float32).swapaxes(1, 2)
    return np.empty((n, h, length, width), np.float32)


def _given(z):
    """The noise where it is an array, None where it is a key or there is none."""
    return None if isinstance(z, tuple) else z


def q_sample(x0, signal, noise, z):
    """As refimpl.ops.q_sample."""
    if not (supported(x0, _given(z)) and fits.q_sample(x0, signal, noise, z)):
        return ops.q_sample(x0, signal, noise, z)
    y = np.empty(x0.shape, np.float32)
    q_sample_cpu.q_sample(y, x0, signal, noise, z)
    return y


def sampler_step(x, e_c, e_u=None, w=1.0, *, a, b, lo=None, hi=None, c_x=0.0, c_0=0.0, c_e=0.0, history=(), c_h=(),
                 z=None, sigma=0.0):
    """As refimpl.ops.sampler_step."""
    options = dict(a=a, b=b, lo=lo, hi=hi, c_x=c_x, c_0=c_0, c_e=c_e, history=history, c_h=c_h, z=z, sigma=sigma)
    arrays = [v for v in (x, e_c, e_u, *history) if v is not None]
    numbers = (w, a, b, c_x, c_0, c_e, sigma, *c_h)
    if not (supported(*arrays, _given(z) if sigma else None)
            and fits.sampler_step(x, arrays, numbers, lo, hi, history, c_h, z, sigma)):
        return ops.sampler_step(x, e_c, e_u, w, **options)
    out = tuple(np.empty((2, *x.shape), np.float32))  # as one block, which malloc gives back to us and not to the system
    sampler_step_cpu.sampler_step(out, x, e_c, e_u, w, **options)
    return out


FUNCTIONS = {f.__name__: f for f in (
    conv2d, conv2d_vjp, modulated_conv2d, modulated_conv2d_vjp, conv_transpose2d, conv_transpose2d_vjp, linear, linear_vjp,
    group_norm, group_norm_vjp, batch_norm, batch_norm_vjp, attention, attention_vjp, q_sample, sampler_step)}

register(Kernel("conv2d", "cpu", conv2d_algorithm, conv2d, raw=False))
register(Kernel("conv2d_vjp", "cpu", lambda dy, *conv, **options: conv2d_algorithm(*conv, **options), conv2d_vjp,
                raw=False))
register(Kernel("modulated_conv2d", "cpu", modulated_conv2d_algorithm, modulated_conv2d, raw=False))
register(Kernel("modulated_conv2d_vjp", "cpu", lambda dy, *args, **options: modulated_conv2d_algorithm(*args, **options),
                modulated_conv2d_vjp, raw=False))
