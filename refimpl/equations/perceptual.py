"""Losses that compare features instead of pixels or samples: of a network, or of a spectrogram; each with its vjp."""
import math

import numpy as np

from ..ops._check import alike, require, same_dtype


def _check_features(name, x, y):
    require(len(x) == len(y) and len(x), f"{name}: the same layers expected of x and y, got {len(x)} and {len(y)}")
    for k, (a, b) in enumerate(zip(x, y)):
        same_dtype(name, x=a, y=b)
        require(a.shape == b.shape and a.ndim >= 2 and a.size,
                f"{name}: layer {k} must be (N, C, ...) of one shape, got {a.shape} and {b.shape}")


def _unit(a, stabiliser):
    length = np.sqrt(np.sum(a * a, axis=1, keepdims=True) + stabiliser)
    return a / length, length


def feature_loss(features_x, features_y, stabiliser=1e-10):
    r"""Perceptual loss: squared distance between a fixed network's features, scaled to unit length in every pixel.

    $$\sum_l \frac{1}{N H_l W_l}\sum_{n,h,w}\left\|\hat\phi_l(x)_{nhw} - \hat\phi_l(y)_{nhw}\right\|^2, \qquad
      \hat\phi = \frac{\phi}{\sqrt{\|\phi\|^2+\epsilon}}$$

    Shapes: two tuples of layers (N, C_l, ...); returns a scalar. Analytic. The network belongs to the caller; its own
    pullback takes the gradient on to the pixels.
    Raises: ValueError when the layers differ in number or shape.
    Source: Johnson et al. 2016, arXiv:1603.08155, eq. 2; unit length: Zhang et al. 2018, arXiv:1801.03924, eq. 1.
    """
    _check_features("feature_loss", features_x, features_y)
    return sum(np.sum((_unit(a, stabiliser)[0] - _unit(b, stabiliser)[0]) ** 2) * (a.shape[1] / a.size)
               for a, b in zip(features_x, features_y))


def feature_loss_vjp(dy, features_x, features_y, stabiliser=1e-10):
    """With g = 2 dy (x_hat - y_hat)/(N H W): dx = (g - x_hat <x_hat, g>)/length, and dy with -g likewise."""
    dx, dy_ = [], []
    for a, b in zip(features_x, features_y):
        (u, length_u), (v, length_v) = _unit(a, stabiliser), _unit(b, stabiliser)
        g = 2 * dy * (a.shape[1] / a.size) * (u - v)
        dx.append((g - u * np.sum(u * g, axis=1, keepdims=True)) / length_u)
        dy_.append(-(g - v * np.sum(v * g, axis=1, keepdims=True)) / length_v)
    return tuple(dx), tuple(dy_)


def _starts(x, size, hop):
    """Where the overlapping pieces of signals (N, T) begin."""
    require(x.ndim == 2 and x.shape[1] >= size and 1 <= hop <= size,
            f"stft: x (N, T) with T >= size = {size} and hop in 1..size expected, got shape {x.shape} and hop {hop}")
    return range(0, x.shape[1] - size + 1, hop)


def _window(size):
    return 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(size) / size)


def _bases(size, x):
    angle = 2 * math.pi * np.outer(np.arange(size), np.arange(size // 2 + 1)) / size
    window = _window(size)[:, None]
    cos, sin = window * np.cos(angle), window * -np.sin(angle)
    return tuple(np.asarray(a, dtype=x.real.dtype, like=x) for a in (cos, sin))  # (size, bins)


def stft(x, size, hop):
    r"""Short-time Fourier transform under a Hann window, as real and imaginary parts.

    $$X_{f,k} = \sum_{j=0}^{S-1} w_j\, x_{fh+j}\, e^{-2\pi i jk/S}, \qquad
      w_j = \tfrac12 - \tfrac12\cos\tfrac{2\pi j}{S}$$

    Shapes: x (N, T); size (S), hop (h) ints; returns real and imaginary (N, F, S//2 + 1), F = (T - S)//h + 1. Linear.
    As a product with a small matrix, so that real and imaginary parts stay apart under the complex step.
    Raises: ValueError when x is shorter than a frame or hop leaves 1..size.
    Source: Allen and Rabiner 1977, Proc. IEEE 65(11).
    """
    _starts(x, size, hop)
    frames = np.lib.stride_tricks.sliding_window_view(x, size, axis=1)[:, ::hop]
    cos, sin = _bases(size, x)
    return frames @ cos, frames @ sin


def stft_vjp(dy, x, size, hop):
    """The adjoint: frames of w (dRe cos - dIm sin) added up where they overlap."""
    cos, sin = _bases(size, x)
    frames, dx = dy[0] @ cos.T + dy[1] @ sin.T, np.zeros_like(x)
    for k, start in enumerate(_starts(x, size, hop)):
        dx[:, start:start + size] += frames[:, k]
    return dx


def spectral_loss(x, y, size, hop, stabiliser=1e-8):
    r"""How far the magnitudes of two signals' spectrograms are apart, whatever their phases.

    $$\frac1N\sum_n \left\||\mathrm{STFT}(x_n)| - |\mathrm{STFT}(y_n)|\right\|^2$$

    Shapes: x, y (N, T); returns a scalar. Analytic, the magnitude being sqrt(Re^2 + Im^2 + stabiliser).
    Raises: ValueError when the shapes differ or a frame does not fit.
    Source: Dhariwal et al. 2020 (Jukebox), arXiv:2005.00341, sec. 3 (there summed over several sizes, unsquared).
    """
    alike("spectral_loss", x=x, y=y)
    gap = _magnitude(stft(x, size, hop), stabiliser) - _magnitude(stft(y, size, hop), stabiliser)
    return np.sum(gap**2) / len(x)


def _magnitude(parts, stabiliser):
    return np.sqrt(parts[0] ** 2 + parts[1] ** 2 + stabiliser)


def spectral_loss_vjp(dL, x, y, size, hop, stabiliser=1e-8):
    """With g = 2 dL (|X| - |Y|)/N: dx = STFT^T (g Re/|X|, g Im/|X|), and dy with -g and Y likewise."""
    back = []
    parts = [stft(a, size, hop) for a in (x, y)]
    lengths = [_magnitude(p, stabiliser) for p in parts]
    g = 2 * dL / len(x) * (lengths[0] - lengths[1])
    for sign, a, p, m in zip((1, -1), (x, y), parts, lengths):
        back.append(stft_vjp((sign * g * p[0] / m, sign * g * p[1] / m), a, size, hop))
    return tuple(back)
