"""What is asked of a network's weights themselves: clipping, spectral normalisation, orthogonality, their own history.

A filter bank (O, I, R, S) is the matrix (O, I R S): rows are filters.
"""
import numpy as np

from ..ops._check import require, same_dtype


def _matrix(name, w):
    require(w.ndim >= 2 and w.size > 0, f"{name}: w must have at least two axes and not be empty, got shape {w.shape}")
    return w.reshape(w.shape[0], -1)


def clip_weights(params, c):
    r"""Weight clipping, the first WGAN's crude Lipschitz constraint.

    $$w \leftarrow \min(\max(w, -c), c)$$

    Shapes: params a flat dict of arrays, c > 0. Returns a dict of the same shapes.
    Raises: ValueError when c is not positive.
    Source: Arjovsky et al. 2017, arXiv:1701.07875, alg. 1.
    """
    require(c > 0, f"clip_weights: c must be positive, got {c}")
    return {name: np.clip(w, -c, c) for name, w in params.items()}


def power_iteration(w, u, steps=1):
    r"""Approximate the leading singular vectors of w, starting from last step's u.

    $$v \leftarrow \frac{W^T u}{\|W^T u\|}, \qquad u \leftarrow \frac{W v}{\|W v\|}$$

    Shapes: w (O, ...), u (O,). Returns u (O,), v (I,), for which u^T W v <= sigma_1 always.
    Raises: ValueError when u is not (O,) or steps < 1.
    Source: Miyato et al. 2018, arXiv:1802.05957, alg. 1.
    """
    m = _matrix("power_iteration", w)
    require(u.shape == m.shape[:1] and steps >= 1,
            f"power_iteration: u {m.shape[:1]} and steps >= 1 expected, got {u.shape} and {steps}")
    for _ in range(steps):
        v = np.matmul(m.T, u)
        v = v / np.maximum(np.sqrt(np.sum(v * v)), np.finfo(m.dtype).tiny)
        u = np.matmul(m, v)
        u = u / np.maximum(np.sqrt(np.sum(u * u)), np.finfo(m.dtype).tiny)
    return u, v


def spectral_normalise(w, u, v):
    r"""Divide a weight by its spectral norm, estimated by u and v, which count as constants.

    $$\bar W = \frac{W}{\sigma}, \qquad \sigma = u^T W v$$

    Shapes: w (O, ...), u (O,), v (I,), of one dtype. Returns w's shape. Analytic in w.
    Raises: ValueError when the shapes do not fit.
    Source: Miyato et al. 2018, arXiv:1802.05957, eq. 8.
    """
    m = _matrix("spectral_normalise", w)
    require((u.shape, v.shape) == (m.shape[:1], m.shape[1:]),
            f"spectral_normalise: u {m.shape[:1]} and v {m.shape[1:]} expected, got {u.shape} and {v.shape}")
    return w / np.sum(np.matmul(m, v) * u)


def spectral_normalise_vjp(dy, w, u, v):
    """dw = (dy - <dy, W_bar> u v^T)/sigma."""
    m, g = _matrix("spectral_normalise_vjp", w), dy.reshape(dy.shape[0], -1)
    sigma = np.sum(np.matmul(m, v) * u)
    return ((g - np.sum(g * m) / sigma * u[:, None] * v) / sigma).reshape(w.shape)


def circular_convolution_norm(w, size):
    r"""The spectral norm of a convolution with circular borders: the largest over frequencies. Not that of its matrix.

    $$\|\mathrm{conv}_w\| = \max_f\, \sigma_1(\hat W(f)), \; \hat W_{oi}(f) = \sum_r w_{oir}\,e^{-2\pi\mathrm{i} fr}$$

    Shapes: w (O, I, R, S), size (H, W) of the image, at least (R, S). Returns a float.
    Source: Sedghi, Gupta, Long 2019, arXiv:1805.10408.
    """
    require(w.ndim == 4 and all(n >= k for n, k in zip(size, w.shape[2:])),
            f"circular_convolution_norm: w (O, I, R, S) no larger than the image {tuple(size)} expected, got {w.shape}")
    transform = np.fft.fft2(w, s=tuple(size)).transpose(2, 3, 0, 1)  # (H, W, O, I)
    return float(np.linalg.svd(transform, compute_uv=False).max())


def orthogonal_regularisation(w, weight):
    r"""BigGAN's relaxed orthogonality: filters are to be orthogonal, their lengths are free.

    $$\beta\,\left\|W W^T \odot (1-I)\right\|_F^2$$

    Shapes: w (O, ...), weight a number. Returns a scalar. Analytic.
    Source: Brock et al. 2019, arXiv:1809.11096, eq. 3, whose columns are our rows.
    """
    m = _matrix("orthogonal_regularisation", w)
    gram = np.matmul(m, m.T)
    return weight * (np.sum(gram * gram) - np.sum(np.diagonal(gram) ** 2))


def orthogonal_regularisation_vjp(dy, w, weight):
    """dw = 4 weight (W W^T (1 - I)) W."""
    m = _matrix("orthogonal_regularisation_vjp", w)
    gram = np.matmul(m, m.T) * (1 - np.eye(len(m), dtype=m.dtype, like=m))
    return (4 * weight * dy * np.matmul(gram, m)).reshape(w.shape)


def historical_averaging(theta, mean):
    r"""Pull a player towards the mean of its own past, which damps the orbits of a game.

    $$\left\|\theta - \frac1t\sum_{i=1}^{t}\theta_i\right\|^2$$

    Shapes: theta, mean of one shape; mean is a constant. Returns a scalar. Analytic.
    Source: Salimans et al. 2016, arXiv:1606.03498, sec. 3.3.
    """
    same_dtype("historical_averaging", theta=theta, mean=mean)
    require(theta.shape == mean.shape,
            f"historical_averaging: one shape expected, got theta {theta.shape} and mean {mean.shape}")
    return np.sum((theta - mean) ** 2)


def historical_averaging_vjp(dy, theta, mean):
    """dtheta = 2 (theta - mean), dmean = -dtheta (unused: the past is a constant)."""
    return 2 * dy * (theta - mean), -2 * dy * (theta - mean)
