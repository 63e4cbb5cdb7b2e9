"""Sizes and places of sliding windows, for convolution and pooling."""
import numpy as np

from ._check import require


def _is_int(value):
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def int_pair(name, value, least):
    """An int or a pair of ints, each at least `least`, as (vertical, horizontal)."""
    both = (value, value) if _is_int(value) else value
    require(isinstance(both, (tuple, list)) and len(both) == 2 and all(_is_int(v) and v >= least for v in both),
            f"{name} must be an int or a pair of ints, each at least {least}, got {value!r}")
    return tuple(both)


def sides(name, padding):
    """Padding as an int, (vertical, horizontal) or ((top, bottom), (left, right)), in that last form."""
    nested = isinstance(padding, (tuple, list)) and len(padding) == 2 and all(
        isinstance(p, (tuple, list)) for p in padding)
    if nested:
        return int_pair(name, padding[0], 0), int_pair(name, padding[1], 0)
    vertical, horizontal = int_pair(name, padding, 0)
    return (vertical, vertical), (horizontal, horizontal)


def output_size(name, size, kernel, stride, padding, dilation):
    """How many windows fit along each axis: floor((size + padding - dilation (kernel - 1) - 1) / stride) + 1."""
    out = tuple((n + sum(p) - d * (k - 1) - 1) // s + 1
                for n, k, s, p, d in zip(size, kernel, stride, padding, dilation))
    require(min(out) >= 1, f"{name}: a window of {kernel} with dilation {dilation} does not fit an image of "
                           f"{tuple(size)} padded by {padding}")
    return out


def taps(kernel, out, stride, dilation):
    """Each tap (r, s) of the window, with the rows and columns of the padded image that it meets at all outputs."""
    for r in range(kernel[0]):
        rows = slice(r * dilation[0], r * dilation[0] + (out[0] - 1) * stride[0] + 1, stride[0])
        for s in range(kernel[1]):
            yield r, s, rows, slice(s * dilation[1], s * dilation[1] + (out[1] - 1) * stride[1] + 1, stride[1])


def pad(x, padding, value=0):
    """Channels-last images (N, H, W, C) with a border of `value`; x itself when there is no border."""
    (top, bottom), (left, right) = padding
    if not (top or bottom or left or right):
        return x
    n, h, w, c = x.shape
    padded = np.full((n, top + h + bottom, left + w + right, c), value, dtype=x.dtype, like=x)
    padded[:, top:top + h, left:left + w] = x
    return padded
