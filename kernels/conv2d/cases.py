"""Sizes and options that convolution and transposed convolution share, and the Winograd algorithm's error."""
import numpy as np

from kernels.cases import nonfinite, values
from kernels.contract import Large

B = np.array([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
              [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]], dtype=np.float64).T
G = np.array([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
              [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]], dtype=np.float64)
A = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=np.float64).T


def pair(d, value, low, high):
    """An option as an int or as a pair of ints, in low..high unless it is pinned; returned as given and as a pair."""
    if value is None:
        value = d.integer(low, high) if d.choice((True, False)) else (d.integer(low, high), d.integer(low, high))
    return value, as_pair(value)


def as_pair(value):
    """An int or a pair as a pair."""
    return value if isinstance(value, tuple) else (value, value)


AXES = {"samples": 65543, "depth": 4103, "filters": 4103, "groups": 259, "height": 65543, "width": 65543, "image": 303,
        "window": 16, "stride": 9, "dilation": 9, "padding": 9}
LARGE = Large(AXES, ("integer", "sparse"))


def channels(d, deep):
    """Channels of a group: few, or around the widths that blocked loops work in."""
    return d.choice((16, 17, 32, 40, 64, 96, 256)) if deep else d.integer(1, 9)


def sizes(d, family, window, stride, dilation, groups, padding, large=None):
    """What a convolution needs: a dict of its options, the filter's size, and the numbers of channels and samples."""
    if large:
        return large_sizes(d, window, stride, dilation, groups, padding, *large)
    stride, _ = pair(d, stride, 1, 3)
    dilation, (dr, ds) = pair(d, dilation, 1, 3)
    _, (r, s) = pair(d, window, 1, 4)
    padding = d.choice((0, 1, 2, (1, 0), (0, 2), ((1, 0), (2, 1)))) if padding is None else padding
    groups = d.choice((1, 1, 2, 3)) if groups is None else groups
    # Integers find a single wrong tap at any depth: half of them have a thousand taps.
    deep_in, deep_out = d.choice(((False, False), (True, False)) if family == "integer" else (
        (False, False), (False, False), (True, False), (False, True)))
    options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    span = (dr * (r - 1) + 1, ds * (s - 1) + 1)
    inputs = 1024 // (r * s) + d.integer(0, 9) if family == "integer" and deep_in else channels(d, deep_in)
    samples = 0 if family == "empty" else d.integer(1, 3)
    return options, (r, s), span, groups, inputs, channels(d, deep_out), samples


def large_sizes(d, window, stride, dilation, groups, padding, axis, length):
    """The same where one axis is `length` long, unless it is pinned, and the others as short as they may be."""
    def least(name, pinned, other):
        return (length if axis == name else other) if pinned is None else pinned

    stride, dilation = least("stride", stride, d.integer(1, 2)), least("dilation", dilation, 1)
    (dr, ds), (r, s) = as_pair(dilation), as_pair(least("window", window, 1 + d.integer(0, 1)))
    if axis == "window" and window is None:
        r, s = d.choice(((length, length), (length, 1), (1, length)))
        padding = d.choice((0, (r // 2, s // 2))) if padding is None else padding
    options = dict(stride=stride, padding=least("padding", padding, d.integer(0, 1)), dilation=dilation,
                   groups=least("groups", groups, 1))
    inputs, filters, samples = (length if axis == name else d.integer(1, 2) for name in ("depth", "filters", "samples"))
    return options, (r, s), (dr * (r - 1) + 1, ds * (s - 1) + 1), options["groups"], inputs, filters, samples


def image(d, family, span, padding, deep, large=None):
    """Height and width such that the window fits: small where there are many channels, with integers never so small
    that a tap meets nothing but the border."""
    if large:
        axis, length = large
        return tuple(max(length if axis in (name, "image") else 1, k + 1) for name, k in zip(("height", "width"), span))
    (top, bottom), (left, right) = sides(padding)
    least = [k + 2 if family == "integer" else max(1, k - p) for k, p in zip(span, (top + bottom, left + right))]
    return tuple(d.integer(n, k + (4 if deep else 9)) for n, k in zip(least, span))


def sides(padding):
    """Padding in full: ((top, bottom), (left, right))."""
    return tuple(map(as_pair, as_pair(padding)))


def chunks(offset, count, few):
    """0..count-1 in runs of at most `few`: each run as a slice, and as the slice `offset` further on."""
    few = max(1, few)
    for first in range(0, count, few):
        last = min(first + few, count)
        yield slice(first, last), slice(offset + first, offset + last)


def filled(d, family, x_shape, w_shape, bias, filters):
    """x, w, b of a family. Non-finite values go to x alone: what they are times a border of zeros is left open."""
    x, w = values(d, family, *x_shape), values(d, family, *w_shape)
    b = values(d, family, filters) if (d.choice((True, False)) if bias is None else bias) else None
    if family == "sparse" and b is not None:
        b = b / 256  # so that it does not make up for the products that are not there
    return (nonfinite(d, x) if family == "nonfinite" else x), w, b


def winograd_size(x, w, padding):
    """Winograd's own sum of absolute values, W: the algorithm with |A|, |B|, |G| on |x|, |w|, one value an output.

    Tiles of 4x4 outputs start at the first output. w (O, I, 3, 3), stride 1, no dilation, no groups. A negative padding
    cuts the image.
    """
    (top, bottom), (left, right) = padding
    n, _, height, width = x.shape
    out = (height + top + bottom - 2, width + left + right - 2)
    tiles = [-(-k // 4) for k in out]
    x = x[:, :, max(0, -top):height - max(0, -bottom), max(0, -left):width - max(0, -right)]
    top, bottom, left, right = (max(0, p) for p in (top, bottom, left, right))
    padded = np.pad(np.abs(x), ((0, 0), (0, 0), (top, bottom + 4 * tiles[0] - out[0]),
                                (left, right + 4 * tiles[1] - out[1])))
    d = np.lib.stride_tricks.sliding_window_view(padded, (6, 6), axis=(2, 3))[:, :, ::4, ::4]  # (N, I, th, tw, 6, 6)
    with np.errstate(invalid="ignore"):  # an infinite element makes its tile infinite or NaN: nothing is promised there
        v = np.abs(B.T) @ d @ np.abs(B)
        u = np.abs(G) @ np.abs(w) @ np.abs(G.T)
        m = np.einsum("nihwab,oiab->nohwab", v, u, optimize=True)
        y = np.abs(A.T) @ m @ np.abs(A)  # (N, O, th, tw, 4, 4)
    return y.transpose(0, 1, 2, 4, 3, 5).reshape(n, w.shape[0], 4 * tiles[0], 4 * tiles[1])[:, :, :out[0], :out[1]]
