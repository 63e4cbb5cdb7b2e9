"""conv2d, conv_transpose2d and their vjps on the CUDA backends: the reference's arguments to the kernels'."""
import numpy as np

from kernels.cuda import NULL, element
from refimpl.ops._window import int_pair, output_size, sides

FILE = "conv2d/conv2d.cu"
TILES = {"tiled": (64, 64, 256), "best": (128, 64, 128), "wmma": (64, 64, 128)}  # rows and columns of c a block, threads a block
PARTS = 4096  # pixels a block sums before it leaves its share of the filters' gradient


def _geometry(image, filters, out, w, stride, padding, dilation, groups):
    """The kernels' integers, for a convolution from `image` (N, I, H, W) to `out` (N, O, P, Q)."""
    (top, _), (left, _) = padding
    n, i, h, width = image
    return tuple(map(np.int32, (n, i, h, width, filters, *out, *w[2:], *stride, top, left, *dilation, groups)))


def _options(name, stride, padding, dilation):
    return int_pair(f"{name}: stride", stride, 1), sides(f"{name}: padding", padding), int_pair(
        f"{name}: dilation", dilation, 1)


def _gather(device, x, w, b, out, stride, padding, dilation, groups, algorithm):
    """y (N, O, P, Q) from x (N, I, H, W): convolution."""
    n, o = x.shape[0], w.shape[0]
    y = device.empty((n, o, *out), x.dtype)
    geometry = _geometry(x.shape, o, out, w.shape, stride, padding, dilation, groups)
    if not y.size:
        return y
    args = (y, x, w, NULL if b is None else b, *geometry)
    if algorithm == "naive":
        device.launch(FILE, f"conv2d_naive<{element(x.dtype)}>", (-(-y.size // 256),), (256,), args)
    else:
        rows, cols, threads = TILES[algorithm]
        device.launch(FILE, f"conv2d_{algorithm}<{element(x.dtype)}>",
                      (-(-n * out[0] * out[1] // rows), -(-(o // groups) // cols), groups), (threads,), args)
    return y


def _scatter(device, y, w, b, size, stride, padding, dilation, groups, algorithm):
    """x (N, I, H, W) from y (N, O, P, Q): the adjoint, which is transposed convolution."""
    n, (o, i) = y.shape[0], (w.shape[0], w.shape[1] * groups)
    x = device.empty((n, i, *size), y.dtype)
    geometry = _geometry(x.shape, o, y.shape[2:], w.shape, stride, padding, dilation, groups)
    if x.size:
        rows, cols, threads = TILES["tiled" if algorithm == "naive" else algorithm]
        device.launch(FILE, f"conv2d_dx_{'tiled' if algorithm == 'naive' else algorithm}<{element(y.dtype)}>",
                      (-(-n * size[0] * size[1] // rows), -(-(i // groups) // cols), groups), (threads,),
                      (x, y, w, NULL if b is None else b, *geometry))
    return x


def _filters(device, x, y, w_shape, stride, padding, dilation, groups):
    """dw (O, I/g, R, S) from the image x and the cotangent y."""
    n, o = x.shape[0], w_shape[0]
    pixels, taps = n * y.shape[2] * y.shape[3], int(np.prod(w_shape[1:]))
    parts = max(1, -(-pixels // PARTS))
    shares, dw = device.empty((parts, o * taps)), device.empty(w_shape, x.dtype)
    geometry = _geometry(x.shape, o, y.shape[2:], w_shape, stride, padding, dilation, groups)
    grid = (-(-(o // groups) // 64), -(-taps // 64), groups * parts)
    device.launch(FILE, f"conv2d_dw_tiled<{element(x.dtype)}>", grid, (256,), (
        shares, y, x, np.int32(parts), *geometry))
    device.launch(FILE, f"conv2d_sum_shares<{element(x.dtype)}>", (-(-o * taps // 256),), (256,), (
        dw, shares, np.int32(parts), np.int64(o * taps)))
    return dw


def _bias(device, dy):
    n, o, p, q = dy.shape
    db = device.empty((o,), dy.dtype)
    device.launch(FILE, f"conv2d_db<{element(dy.dtype)}>", (o,), (256,), (db, dy, *map(np.int32, (n, o, p * q))))
    return db


def conv2d(device, x, w, b=None, stride=1, padding=0, dilation=1, groups=1, algorithm="best"):
    """refimpl.ops.conv2d as an implicit matrix product. algorithm: naive, tiled, best, or wmma (half types)."""
    stride, padding, dilation = _options("conv2d", stride, padding, dilation)
    x, w, b = device.data("x", x), device.data("w", w), None if b is None else device.data("b", b)
    out = output_size("conv2d", x.shape[2:], w.shape[2:], stride, padding, dilation)
    return _gather(device, x, w, b, out, stride, padding, dilation, groups, algorithm)


def conv2d_vjp(device, dy, x, w, b=None, stride=1, padding=0, dilation=1, groups=1, algorithm="best"):
    """refimpl.ops.conv2d_vjp."""
    stride, padding, dilation = _options("conv2d_vjp", stride, padding, dilation)
    dy, x, w = (device.data(n, a) for n, a in (("dy", dy), ("x", x), ("w", w)))
    return (_scatter(device, dy, w, None, x.shape[2:], stride, padding, dilation, groups, algorithm),
            _filters(device, x, dy, w.shape, stride, padding, dilation, groups),
            None if b is None else _bias(device, dy))


def conv_transpose2d(device, x, w, b=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1,
                     algorithm="best"):
    """refimpl.ops.conv_transpose2d: the data gradient's kernel, its adjoint's arguments exchanged."""
    stride, padding, dilation = _options("conv_transpose2d", stride, padding, dilation)
    extra = int_pair("conv_transpose2d: output_padding", output_padding, 0)
    x, w, b = device.data("x", x), device.data("w", w), None if b is None else device.data("b", b)
    size = tuple((n - 1) * s - sum(p) + d * (k - 1) + 1 + e for n, s, p, d, k, e in
                 zip(x.shape[2:], stride, padding, dilation, w.shape[2:], extra))
    return _scatter(device, x, w, b, size, stride, padding, dilation, groups, algorithm)


def conv_transpose2d_vjp(device, dy, x, w, b=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1,
                         algorithm="best"):
    """refimpl.ops.conv_transpose2d_vjp: a convolution of dy, and the filters' gradient with x and dy exchanged."""
    stride, padding, dilation = _options("conv_transpose2d_vjp", stride, padding, dilation)
    dy, x, w = (device.data(n, a) for n, a in (("dy", dy), ("x", x), ("w", w)))
    return (_gather(device, dy, w, None, x.shape[2:], stride, padding, dilation, groups, algorithm),
            _filters(device, dy, x, w.shape, stride, padding, dilation, groups),
            None if b is None else _bias(device, dy))
