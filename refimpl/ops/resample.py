"""Changes of resolution, and joining along an axis, each with its vjp."""
import numpy as np

from ._check import require, same_dtype
from ._window import int_pair, output_size, pad, sides, taps


def _check(name, x, k):
    same_dtype(name, x=x)
    require(x.ndim == 4, f"{name}: x must be (N, C, H, W), got shape {x.shape}")
    require(isinstance(k, (int, np.integer)) and k >= 1, f"{name}: k must be a positive int, got {k!r}")


def upsample_nearest(x, k):
    r"""Nearest-neighbour enlargement: every pixel becomes a k x k block.

    $$y_{ncij} = x_{nc\lfloor i/k\rfloor\lfloor j/k\rfloor}$$

    Shapes: x (N, C, H, W); returns (N, C, kH, kW), channels last in memory. Analytic.
    Raises: ValueError when x is not four-dimensional or k is not a positive int.
    Source: Odena, Dumoulin, Olah 2016, Distill, doi:10.23915/distill.00003.
    """
    _check("upsample_nearest", x, k)
    n, c, h, w = x.shape
    blocks = np.broadcast_to(np.moveaxis(x, 1, -1)[:, :, None, :, None], (n, h, k, w, k, c))
    return np.moveaxis(blocks.reshape(n, h * k, w * k, c), -1, 1)


def upsample_nearest_vjp(dy, x, k):
    """dx = the sum of dy over each k x k block."""
    _check("upsample_nearest_vjp", x, k)
    n, c, h, w = x.shape
    require(dy.shape == (n, c, h * k, w * k),
            f"upsample_nearest_vjp: dy must have the output's shape {(n, c, h * k, w * k)}, got {dy.shape}")
    return _block_sum(dy, k)


def _block_sum(x, k):
    """Sums over k x k blocks."""
    return sum(x[:, :, i::k, j::k] for i in range(k) for j in range(k))


def _check_blocks(name, x, k):
    _check(name, x, k)
    require(x.shape[2] % k == 0 and x.shape[3] % k == 0,
            f"{name}: k = {k} must divide height and width, got shape {x.shape}")


def average_pool(x, k):
    r"""Mean of every k x k block.

    $$y_{ncij} = \frac{1}{k^2} \sum_{r,s<k} x_{nc,\,ki+r,\,kj+s}$$

    Shapes: x (N, C, H, W), H and W multiples of k; returns (N, C, H/k, W/k). Analytic.
    Raises: ValueError when k does not divide H and W.
    Source: LeCun et al. 1998, Proc. IEEE 86(11), sec. II.
    """
    _check_blocks("average_pool", x, k)
    return _block_sum(x, k) / (k * k)


def average_pool_vjp(dy, x, k):
    """dx = dy / k^2 on the whole block: average pooling is the adjoint of enlargement, divided by k^2."""
    _check_blocks("average_pool_vjp", x, k)
    n, c, h, w = x.shape
    require(dy.shape == (n, c, h // k, w // k),
            f"average_pool_vjp: dy must have the output's shape {(n, c, h // k, w // k)}, got {dy.shape}")
    return upsample_nearest(dy, k) / (k * k)


def _argmax(name, x, k, stride, padding):
    """The largest value of every window, the number of the tap where it stands, and the options in full."""
    same_dtype(name, x=x)
    require(x.ndim == 4, f"{name}: x must be (N, C, H, W), got shape {x.shape}")
    kernel = int_pair(f"{name}: k", k, 1)
    stride = kernel if stride is None else int_pair(f"{name}: stride", stride, 1)
    padding = sides(f"{name}: padding", padding)
    require(all(2 * max(p) <= n for p, n in zip(padding, kernel)),
            f"{name}: padding must be at most half of k, so that no window lies outside, got {padding} with k {kernel}")
    out = output_size(name, x.shape[2:], kernel, stride, padding, (1, 1))
    padded = pad(np.moveaxis(x, 1, -1), padding, -np.inf)
    best = which = None
    for r, s, rows, cols in taps(kernel, out, stride, (1, 1)):
        value, tap = padded[:, rows, cols], r * kernel[1] + s
        if best is None:
            best, which = value, np.zeros(value.shape, dtype=int, like=x)
            continue
        better = (value.real > best.real) | np.isnan(value)  # ties stay with the first; a NaN is kept, never dropped
        best, which = np.where(better, value, best), np.where(better, tap, which)
    return best, which, (kernel, out, stride, padding)


def max_pool(x, k, stride=None, padding=0):
    r"""Largest value of every window; the border never wins.

    $$y_{ncij} = \max_{r,s<k}\, \tilde x_{nc,\; i\,\mathrm{stride}+r,\; j\,\mathrm{stride}+s},
      \qquad \tilde x = -\infty \text{ in the border}$$

    Shapes: x (N, C, H, W); returns (N, C, Ho, Wo). k, stride: int or pair, stride None is k; padding: int, pair or
    ((top, bottom), (left, right)), at most k/2. Piecewise: compares real parts; of equals the first wins.
    Raises: ValueError when shapes or options do not fit.
    Source: Ranzato et al. 2007, CVPR; Scherer, Müller, Behnke 2010, ICANN.
    """
    return np.moveaxis(_argmax("max_pool", x, k, stride, padding)[0], -1, 1)


def max_pool_vjp(dy, x, k, stride=None, padding=0):
    """dx = the sum of dy over the windows in which x was the largest."""
    _, which, (kernel, out, stride, padding) = _argmax("max_pool_vjp", x, k, stride, padding)
    require(dy.shape == (*x.shape[:2], *out),
            f"max_pool_vjp: dy must have the output's shape {(*x.shape[:2], *out)}, got {dy.shape}")
    dy = np.moveaxis(dy, 1, -1)
    dx = pad(np.zeros_like(np.moveaxis(x, 1, -1), dtype=dy.dtype), padding)
    for r, s, rows, cols in taps(kernel, out, stride, (1, 1)):
        dx[:, rows, cols] += np.where(which == r * kernel[1] + s, dy, 0)
    (top, _), (left, _) = padding
    return np.moveaxis(dx[:, top:top + x.shape[2], left:left + x.shape[3]], -1, 1)


def pixel_shuffle(x, k):
    r"""Enlargement by rearrangement: k^2 channels become a k x k block of pixels.

    $$y_{n,c,\,ki+r,\,kj+s} = x_{n,\;ck^2+rk+s,\;i,\,j}$$

    Shapes: x (N, k^2 C, H, W); returns (N, C, kH, kW). Analytic.
    Raises: ValueError when k^2 does not divide the channels.
    Source: Shi et al. 2016, arXiv:1609.05158.
    """
    _check("pixel_shuffle", x, k)
    n, c, h, w = x.shape
    require(c % (k * k) == 0, f"pixel_shuffle: k^2 = {k * k} must divide the channels, got shape {x.shape}")
    return x.reshape(n, c // (k * k), k, k, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // (k * k), h * k, w * k)


def pixel_shuffle_vjp(dy, x, k):
    """dx = dy moved back: the map is a permutation."""
    _check("pixel_shuffle_vjp", x, k)
    n, c, h, w = x.shape
    require(dy.shape == (n, c // (k * k), h * k, w * k),
            f"pixel_shuffle_vjp: dy must be {(n, c // (k * k), h * k, w * k)}, got {dy.shape}")
    return dy.reshape(n, c // (k * k), h, k, w, k).transpose(0, 1, 3, 5, 2, 4).reshape(x.shape)


def concatenate(arrays, axis=1):
    r"""Arrays one after another along an axis (the U-Net's skip connections).

    $$y = [\,x_1 \,|\, x_2 \,|\, \cdots\,]$$

    Shapes: arrays equal except along axis; returns their join. Analytic.
    Raises: ValueError when there are none or their shapes differ elsewhere, TypeError when the dtypes differ.
    Source: Ronneberger, Fischer, Brox 2015, arXiv:1505.04597.
    """
    arrays = tuple(arrays)
    require(arrays, "concatenate: at least one array expected, got none")
    same_dtype("concatenate", **{f"arrays[{i}]": a for i, a in enumerate(arrays)})
    ndim = arrays[0].ndim
    require(-ndim <= axis < ndim, f"concatenate: axis must lie in {-ndim}..{ndim - 1}, got {axis}")
    others = {tuple(n for i, n in enumerate(a.shape) if i != axis % ndim) for a in arrays}
    require(len(others) == 1 and all(a.ndim == ndim for a in arrays),
            f"concatenate: shapes must be equal except along axis {axis}, got "
            + ", ".join(str(a.shape) for a in arrays))
    return np.concatenate(arrays, axis=axis)


def concatenate_vjp(dy, arrays, axis=1):
    """The pieces of dy, one per array (views)."""
    ends = np.cumsum([a.shape[axis] for a in arrays])
    shape = list(arrays[0].shape)
    shape[axis] = int(ends[-1])
    require(list(dy.shape) == shape,
            f"concatenate_vjp: dy must have the output's shape {tuple(shape)}, got {dy.shape}")
    return tuple(np.split(dy, ends[:-1].tolist(), axis=axis))
