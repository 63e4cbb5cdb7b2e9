"""Convolution, transposed convolution and their vjps on the CUDA backends: the reference's arguments to the kernels'."""
import math

import numpy as np

from kernels import fits
from kernels.cuda import ELEMENTS, NULL, PIXELS, PRODUCTS, THREADS, WMMA, blocks, element, form
from kernels.versions import FLOATS, HALVES, Version
from refimpl.ops import conv as reference
from refimpl.ops._window import output_size

FORWARD, BACKWARD = "conv2d/conv2d.cu", "conv2d/conv2d_vjp.cu"


def _geometry(image, filters, out, w, stride, padding, dilation, groups):
    """The kernels' integers, for a convolution from `image` (N, I, H, W) to `out` (N, O, P, Q)."""
    (top, _), (left, _) = padding
    n, i, h, width = image
    return tuple(map(np.int32, (n, i, h, width, filters, *out, *w[2:], *stride, top, left, *dilation, groups)))


def _instance(name, dtype, version):
    """A kernel's name in its module: naive, or the tiled one with its tile sizes."""
    if version in ("naive", "wmma"):
        return f"{name}_{version}<{element(dtype)}>"
    return f"{name}_tiled<{', '.join(map(str, (element(dtype), *PRODUCTS[version])))}>"


def _product(device, path, name, out, args, rows, columns, groups, version):
    """Launch a product with rows x columns results a group, or its naive form, one thread an element of out."""
    version = device.product(version, rows, columns)
    if version == "naive":
        grid, threads = (blocks(out.size, THREADS),), THREADS
    else:
        high, wide, threads = WMMA if version == "wmma" else (*PRODUCTS[version][:2], PRODUCTS[version].threads)
        grid = blocks(rows, high), blocks(columns, wide), groups
    device.launch(path, _instance(name, out.dtype, version), grid, (threads,), args)
    return out


def _gather(device, x, w, b, out, options, version):
    """y (N, O, P, Q) from x (N, I, H, W): convolution."""
    y = device.empty((x.shape[0], w.shape[0], *out), x.dtype)
    if not y.size:
        return y
    args = (y, x, w, b, *_geometry(x.shape, w.shape[0], out, w.shape, *options))
    return _product(device, FORWARD, "conv2d", y, args, x.shape[0] * math.prod(out), w.shape[0] // options[-1],
                    options[-1], version)


def _scatter(device, y, w, b, size, options, version):
    """x (N, I, H, W) from y (N, O, P, Q): the adjoint, which is transposed convolution."""
    groups = options[-1]
    x = device.empty((y.shape[0], w.shape[1] * groups, *size), y.dtype)
    if not x.size:
        return x
    args = (x, y, w, b, *_geometry(x.shape, w.shape[0], y.shape[2:], w.shape, *options))
    return _product(device, BACKWARD, "conv2d_dx", x, args, x.shape[0] * math.prod(size), w.shape[1], groups, version)


def _filters(device, x, y, w_shape, options, version):
    """dw (O, I/g, R, S) from the image x and the cotangent y."""
    groups, filters, taps = options[-1], w_shape[0] // options[-1], math.prod(w_shape[1:])
    dw = device.empty(w_shape, x.dtype)
    geometry = _geometry(x.shape, w_shape[0], y.shape[2:], w_shape, *options)
    pixels = x.shape[0] * math.prod(y.shape[2:])
    version = device.product(version, taps, filters)
    if version == "naive":
        return _product(device, BACKWARD, "conv2d_dw", dw, (dw, y, x, *geometry), 0, 0, 0, version)
    tile = PRODUCTS[version]
    grid = blocks(taps, tile.rows), blocks(filters, tile.columns)
    wanted = max(blocks(pixels, PIXELS[1]), blocks(2 * device.processors, grid[0] * grid[1] * groups))
    parts = max(1, min(blocks(pixels, PIXELS[0]), wanted))
    shares = device.empty((parts, dw.size))
    device.launch(BACKWARD, _instance("conv2d_dw", x.dtype, version), (*grid, groups * parts), (tile.threads,),
                  (shares, y, x, np.int32(parts), *geometry))
    device.launch(BACKWARD, f"conv2d_sum_shares<{element(x.dtype)}>", (blocks(dw.size, THREADS),), (THREADS,),
                  (dw, shares, np.int32(parts), np.int64(dw.size)))
    return dw


def _bias(device, dy):
    n, o, p, q = dy.shape
    db = device.empty((o,), dy.dtype)
    device.launch(BACKWARD, f"conv2d_db<{element(dy.dtype)}>", (o,), (256,), (db, dy, *map(np.int32, (n, o, p * q))))
    return db


def _checked(device, name, x, w, b, stride, padding, dilation, groups, transposed=False):
    """The arrays on the device, and the options in full, after the reference's checks."""
    options = reference._check(name, form(x), form(w), form(b), stride, padding, dilation, groups, transposed)
    return *(device.data(n, a) for n, a in (("x", x), ("w", w), ("b", b))), (*options, groups)


def conv2d(device, x, w, b=None, stride=1, padding=0, dilation=1, groups=1, version=None):
    """refimpl.ops.conv2d as an implicit matrix product. version: naive, tiled, best, small or, for half types, wmma."""
    x, w, b, options = _checked(device, "conv2d", x, w, b, stride, padding, dilation, groups)
    version = version or (None if x.dtype == np.float32 else "wmma")
    out = output_size("conv2d", x.shape[2:], w.shape[2:], *options[:3])
    return _gather(device, x, w, b, out, options, version)


def conv2d_vjp(device, dy, x, w, b=None, stride=1, padding=0, dilation=1, groups=1, version=None):
    """refimpl.ops.conv2d_vjp."""
    x, w, b, options = _checked(device, "conv2d_vjp", x, w, b, stride, padding, dilation, groups)
    out = output_size("conv2d_vjp", x.shape[2:], w.shape[2:], *options[:3])
    reference._check_dy("conv2d_vjp", form(dy), form(x), (w.shape[0], *out))
    dy = device.data("dy", dy)
    return (_scatter(device, dy, w, NULL, x.shape[2:], options, version),
            _filters(device, x, dy, w.shape, options, version), None if b is NULL else _bias(device, dy))


def conv_transpose2d(device, x, w, b=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1, version=None):
    """refimpl.ops.conv_transpose2d: the data gradient's kernel, its adjoint's arguments exchanged."""
    x, w, b, options = _checked(device, "conv_transpose2d", x, w, b, stride, padding, dilation, groups, True)
    size = reference._transposed_size("conv_transpose2d", x, w, *options[:2], output_padding, options[2])
    return _scatter(device, x, w, b, size, options, version)


def conv_transpose2d_vjp(device, dy, x, w, b=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1,
                         version=None):
    """refimpl.ops.conv_transpose2d_vjp: a convolution of dy, and the filters' gradient with x and dy exchanged."""
    name = "conv_transpose2d_vjp"
    x, w, b, options = _checked(device, name, x, w, b, stride, padding, dilation, groups, True)
    size = reference._transposed_size(name, x, w, *options[:2], output_padding, options[2])
    reference._check_dy(name, form(dy), form(x), (w.shape[1] * groups, *size))
    dy = device.data("dy", dy)
    return (_gather(device, dy, w, NULL, x.shape[2:], options, version),
            _filters(device, dy, x, w.shape, options, version), None if b is NULL else _bias(device, dy))


def _fits(*arrays):
    return fits.alike(arrays, ELEMENTS) and all(a is None or a.size < 2**31 for a in arrays)


FUNCTIONS = [(conv2d, lambda x, w, b=None, *_, **__: _fits(x, w, b)),
             (conv2d_vjp, lambda dy, x, w, b=None, *_, **__: _fits(dy, x, w, b)),
             (conv_transpose2d, lambda x, w, b=None, *_, **__: _fits(x, w, b)),
             (conv_transpose2d_vjp, lambda dy, x, w, b=None, *_, **__: _fits(dy, x, w, b))]
BACKWARDS = conv2d_vjp, conv_transpose2d, conv_transpose2d_vjp
VERSIONS = [*(Version(conv2d, v, "direct", FLOATS) for v in ("naive", "tiled", "best")),
            Version(conv2d, "small", "direct"), Version(conv2d, "wmma", "direct", HALVES),
            *(Version(f, v, "direct") for f in BACKWARDS for v in ("naive", "tiled", "best")),
            *(Version(f, "best", "direct", HALVES) for f in BACKWARDS)]
