"""Convolution (cross-correlation, as the papers use the word) and its adjoint, each with its vjp.

`conv2d_sum` is the definition. `conv2d` is the fast form of the same: the windows of the image copied into the rows of
one matrix, times the filters. Its result is a view with channels last in memory, where the product left it; everything
else here accepts any strides and is fastest on those.
"""
import numpy as np

from ._check import require, same_dtype
from ._window import int_pair, output_size, pad, sides, taps


def _check(name, x, w, b, stride, padding, dilation, groups, transposed=False):
    """The options in full: stride, ((top, bottom), (left, right)), dilation."""
    same_dtype(name, x=x, w=w, b=b)
    require(x.ndim == 4, f"{name}: x must be (N, C, H, W), got shape {x.shape}")
    axes = "(I, O/g, R, S)" if transposed else "(O, I/g, R, S)"
    require(w.ndim == 4 and min(w.shape) >= 1, f"{name}: w must be {axes} and not empty, got shape {w.shape}")
    require(isinstance(groups, (int, np.integer)) and groups >= 1,
            f"{name}: groups must be a positive int, got {groups!r}")
    require(w.shape[0] % groups == 0, f"{name}: groups {groups} must divide the first axis of w, got shape {w.shape}")
    expected, filters = (w.shape[0], w.shape[1] * groups) if transposed else (w.shape[1] * groups, w.shape[0])
    require(x.shape[1] == expected, f"{name}: x must have {expected} channels for w {w.shape} and groups {groups}, "
                                    f"got {x.shape[1]}")
    require(b is None or b.shape == (filters,),
            f"{name}: b must be None or ({filters},), one per output channel, got shape {np.shape(b)}")
    return (int_pair(f"{name}: stride", stride, 1), sides(f"{name}: padding", padding),
            int_pair(f"{name}: dilation", dilation, 1))


def _columns(x, kernel, out, stride, padding, dilation, groups):
    """Windows of x (N, C, H, W) as the rows of one matrix per group: (g, N Ho Wo, R S C/g)."""
    padded = pad(np.moveaxis(x, 1, -1), padding)
    span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(1, 2))
    windows = windows[:, :(out[0] - 1) * stride[0] + 1:stride[0], :(out[1] - 1) * stride[1] + 1:stride[1], :,
                      ::dilation[0], ::dilation[1]]  # (N, Ho, Wo, C, R, S)
    n, channels = x.shape[:2]
    windows = windows.reshape(n, *out, groups, channels // groups, *kernel)
    # Channels innermost: of channels-last data the copy then moves runs of C/g (of S C when dilation is 1).
    return windows.transpose(3, 0, 1, 2, 5, 6, 4).reshape(
        groups, n * out[0] * out[1], kernel[0] * kernel[1] * (channels // groups))


def _filters(w, groups):
    """w (O, I/g, R, S) as (g, O/g, R S I/g), in the order of the columns."""
    o, i, r, s = w.shape
    return w.reshape(groups, o // groups, i, r, s).transpose(0, 1, 3, 4, 2).reshape(groups, o // groups, r * s * i)


def _rows(y, groups):
    """y (N, O, Ho, Wo) as (g, N Ho Wo, O/g)."""
    n, o, ho, wo = y.shape
    return np.moveaxis(np.moveaxis(y, 1, -1).reshape(n * ho * wo, groups, o // groups), 1, 0)


def _images(rows, n, out):
    """The inverse of _rows, channels last: (g, N Ho Wo, O/g) as (N, Ho, Wo, O)."""
    groups, _, channels = rows.shape
    return np.moveaxis(rows, 0, 1).reshape(n, *out, groups * channels)


def _gather(x, w, out, stride, padding, dilation, groups):
    """Convolution without bias, its first `out` outputs."""
    columns = _columns(x, w.shape[2:], out, stride, padding, dilation, groups)
    rows = np.matmul(columns, np.swapaxes(_filters(w, groups), 1, 2))
    return np.moveaxis(_images(rows, x.shape[0], out), -1, 1)


def _scatter(y, w, size, stride, padding, dilation, groups):
    """The adjoint of _gather in x: every output spreads over its window of an image of `size`."""
    n, o, *out = y.shape
    _, i, *kernel = w.shape
    y, w = _rows(y, groups), np.moveaxis(w.reshape(groups, o // groups, i, *kernel), (3, 4), (0, 1)).copy()
    (top, bottom), (left, right) = padding
    x = np.zeros((n, top + size[0] + bottom, left + size[1] + right, groups * i), dtype=y.dtype, like=y)
    for r, s, rows, cols in taps(kernel, out, stride, dilation):
        # One product per tap: all taps at once would be a matrix R S times the image, written and read again.
        x[:, rows, cols] += _images(np.matmul(y, w[r, s]), n, out)
    return np.moveaxis(x[:, top:top + size[0], left:left + size[1]], -1, 1)


def _dw(x, y, w_shape, stride, padding, dilation, groups):
    """Gradient of <y, gather(x, w)> in w: the windows of x weighted by y."""
    o, i, r, s = w_shape
    columns = _columns(x, (r, s), y.shape[2:], stride, padding, dilation, groups)
    dw = np.matmul(np.swapaxes(_rows(y, groups), 1, 2), columns)  # (g, O/g, R S I/g)
    return dw.reshape(o, r, s, i).transpose(0, 3, 1, 2)


def conv2d_sum(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    r"""Two-dimensional convolution, as the sum that defines it. Slow: it is there to be read and to check conv2d.

    $$y_{noij} = b_o + \sum_{c,r,s} w_{ocrs}\, \tilde x_{n,\,c_o+c,\; i\,\mathrm{stride}+r\,\mathrm{dilation},\;
      j\,\mathrm{stride}+s\,\mathrm{dilation}}, \qquad c_o = \Big\lfloor \frac{o}{O/g} \Big\rfloor \frac{I}{g}$$

    with x~ the image in its border of zeros.

    Shapes: x (N, I, H, W); w (O, I/g, R, S); b (O,) or None; returns (N, O, Ho, Wo). stride, dilation: int or pair;
    padding: int, (vertical, horizontal) or ((top, bottom), (left, right)). Analytic.
    Raises: ValueError when shapes or options do not fit, TypeError when the dtypes differ.
    Source: LeCun et al. 1989, Neural Computation 1(4); Dumoulin and Visin 2016, arXiv:1603.07285.
    """
    stride, padding, dilation = _check("conv2d_sum", x, w, b, stride, padding, dilation, groups)
    (o, i, r, s), (dr, ds) = w.shape, dilation
    out = output_size("conv2d_sum", x.shape[2:], (r, s), stride, padding, dilation)
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    y = np.zeros((x.shape[0], o, *out), dtype=x.dtype, like=x)
    for filter in range(o):
        first = filter // (o // groups) * i
        for row in range(out[0]):
            for col in range(out[1]):
                top, left = row * stride[0], col * stride[1]
                window = padded[:, first:first + i, top:top + dr * (r - 1) + 1:dr, left:left + ds * (s - 1) + 1:ds]
                y[:, filter, row, col] = np.sum(w[filter] * window, axis=(1, 2, 3))
    return y if b is None else y + b[:, None, None]


def conv2d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    r"""Two-dimensional convolution as one matrix product: rows are windows, columns are filters.

    $$y_{noij} = b_o + \sum_{c,r,s} w_{ocrs}\, \tilde x_{n,\,c_o+c,\; i\,\mathrm{stride}+r\,\mathrm{dilation},\;
      j\,\mathrm{stride}+s\,\mathrm{dilation}}, \qquad c_o = \Big\lfloor \frac{o}{O/g} \Big\rfloor \frac{I}{g}$$

    Shapes: x (N, I, H, W); w (O, I/g, R, S); b (O,) or None; returns (N, O, Ho, Wo), channels last in memory.
    stride, dilation: int or pair; padding: int, (vertical, horizontal) or ((top, bottom), (left, right)). Analytic.
    Raises: ValueError when shapes or options do not fit, TypeError when the dtypes differ.
    Source: Chellapilla et al. 2006, IWFHR (the matrix form); Dumoulin and Visin 2016, arXiv:1603.07285.
    """
    stride, padding, dilation = _check("conv2d", x, w, b, stride, padding, dilation, groups)
    out = output_size("conv2d", x.shape[2:], w.shape[2:], stride, padding, dilation)
    y = _gather(x, w, out, stride, padding, dilation, groups)
    if b is not None:
        y += b[:, None, None]
    return y


def conv2d_vjp(dy, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """dx spreads dy w over the windows, dw = sum of dy times the windows, db = sum of dy (None when b is None)."""
    stride, padding, dilation = _check("conv2d_vjp", x, w, b, stride, padding, dilation, groups)
    out = output_size("conv2d_vjp", x.shape[2:], w.shape[2:], stride, padding, dilation)
    _check_dy("conv2d_vjp", dy, x, (w.shape[0], *out))
    return (_scatter(dy, w, x.shape[2:], stride, padding, dilation, groups),
            _dw(x, dy, w.shape, stride, padding, dilation, groups),
            None if b is None else np.sum(dy, axis=(0, 2, 3)))


def _transposed_size(name, x, w, stride, padding, output_padding, dilation):
    """Size of a transposed convolution's output: (H - 1) stride - padding + dilation (R - 1) + 1 + output padding."""
    extra = int_pair(f"{name}: output_padding", output_padding, 0)
    require(all(e < max(s, d) for e, s, d in zip(extra, stride, dilation)),
            f"{name}: output_padding must be smaller than stride or dilation, got {output_padding!r} with "
            f"stride {stride} and dilation {dilation}")
    size = tuple((n - 1) * s - sum(p) + d * (k - 1) + 1 + e for n, s, p, d, k, e in
                 zip(x.shape[2:], stride, padding, dilation, w.shape[2:], extra))
    require(min(x.shape[2:]) >= 1 and min(size) >= 1,
            f"{name}: the output would be {size} for an image of {x.shape[2:]}; both must be at least 1 by 1")
    return size


def _check_dy(name, dy, x, shape):
    same_dtype(name, dy=dy, x=x)
    require(dy.shape == (x.shape[0], *shape),
            f"{name}: dy must have the output's shape {(x.shape[0], *shape)}, got {dy.shape}")


def conv_transpose2d(x, w, b=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    r"""Transposed convolution: the adjoint of conv2d with the same w, plus a bias.

    $$\langle \mathrm{conv}(u, w),\, x\rangle = \langle u,\, \mathrm{convT}(x, w)\rangle \quad\text{for all } u, x$$

    Shapes: x (N, I, H, W); w (I, O/g, R, S); b (O,) or None; returns (N, O, Ho, Wo) with
    Ho = (H - 1) stride - padding + dilation (R - 1) + 1 + output_padding. output_padding: int or pair, rows and columns
    added at the bottom and right, where several input sizes of conv2d share one output size. Analytic.
    Raises: ValueError when shapes or options do not fit, TypeError when the dtypes differ.
    Source: Zeiler et al. 2010, CVPR; Dumoulin and Visin 2016, arXiv:1603.07285, ch. 4.
    """
    name = "conv_transpose2d"
    stride, padding, dilation = _check(name, x, w, b, stride, padding, dilation, groups, transposed=True)
    size = _transposed_size(name, x, w, stride, padding, output_padding, dilation)
    y = _scatter(x, w, size, stride, padding, dilation, groups)
    if b is not None:
        y += b[:, None, None]
    return y


def conv_transpose2d_vjp(dy, x, w, b=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """dx = conv(dy, w), dw as conv2d's with x and dy in each other's place, db = sum of dy (None when b is None)."""
    name = "conv_transpose2d_vjp"
    stride, padding, dilation = _check(name, x, w, b, stride, padding, dilation, groups, transposed=True)
    size = _transposed_size(name, x, w, stride, padding, output_padding, dilation)
    _check_dy(name, dy, x, (w.shape[1] * groups, *size))
    return (_gather(dy, w, x.shape[2:], stride, padding, dilation, groups),
            _dw(dy, x, w.shape, stride, padding, dilation, groups),
            None if b is None else np.sum(dy, axis=(0, 2, 3)))
