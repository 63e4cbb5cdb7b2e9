"""Look-up and sinusoidal embeddings, each with its vjp."""
import numpy as np

from ._check import require, same_dtype


def _check_indices(name, indices, table):
    require(table.ndim == 2, f"{name}: table must be (K, D), got shape {table.shape}")
    indices = np.asarray(indices, like=table)
    if not np.issubdtype(indices.dtype, np.integer):
        raise TypeError(f"{name}: indices must be integers, got {indices.dtype}")
    require(bool(np.all((indices >= 0) & (indices < table.shape[0]))),
            f"{name}: indices must lie in 0..{table.shape[0] - 1}, the rows of the table")
    return indices


def embedding(indices, table):
    r"""Rows of a table.

    $$y_{\ldots d} = E_{k_{\ldots}\,d}$$

    Shapes: indices any, integers in 0..K-1; table (K, D); returns (..., D). Analytic in the table.
    Raises: ValueError when an index leaves the table, TypeError when it is no integer.
    Source: Bengio et al. 2003, JMLR 3.
    """
    same_dtype("embedding", table=table)
    return table[_check_indices("embedding", indices, table)]


def embedding_vjp(dy, indices, table):
    """dtable: row k is the sum of dy where the index is k."""
    indices = _check_indices("embedding_vjp", indices, table)
    same_dtype("embedding_vjp", dy=dy, table=table)
    require(dy.shape == indices.shape + table.shape[1:],
            f"embedding_vjp: dy must have the output's shape {indices.shape + table.shape[1:]}, got {dy.shape}")
    # A product with one-hot rows: np.add.at does not dispatch to other arrays, and is not deterministic on a GPU.
    onehot = (indices.reshape(-1, 1) == np.arange(table.shape[0], like=table)).astype(table.dtype)
    return np.tensordot(onehot, dy.reshape(-1, table.shape[1]), axes=(0, 0))


def _angles(name, t, dim, shift, max_period):
    """t times each frequency: (N, half)."""
    require(t.ndim == 1, f"{name}: t must be (N,), got shape {t.shape}")
    require(isinstance(dim, (int, np.integer)) and dim >= 2, f"{name}: dim must be an int of at least 2, got {dim!r}")
    half = dim // 2
    require(half > shift, f"{name}: half of dim must exceed shift = {shift}, got dim = {dim}")
    require(max_period > 0, f"{name}: max_period must be positive, got {max_period}")
    if not np.issubdtype(t.dtype, np.inexact):
        t = t.astype(float)
    omega = float(max_period) ** (-np.arange(half) / (half - shift))
    omega = np.asarray(omega, dtype=t.dtype, like=t)
    return t[:, None] * omega, omega


def sinusoidal_embedding(t, dim, *, cos_first, shift, max_period=1e4):
    r"""Time as sines and cosines of geometrically spaced frequencies.

    $$y = [\sin(\omega_i t)\,|\,\cos(\omega_i t)], \qquad
      \omega_i = \mathrm{max\_period}^{-i/(\mathrm{half}-\mathrm{shift})}, \quad i = 0..\mathrm{half}-1$$

    DDPM's code: cos_first=False, shift=1. OpenAI's: cos_first=True, shift=0. An odd dim ends with a zero.

    Shapes: t (N,) of any real values (integers become float64); returns (N, dim) in t's dtype. Analytic.
    Raises: ValueError when t is not one-dimensional or dim, shift, max_period leave no frequencies.
    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.5; Ho et al. 2020, arXiv:2006.11239; Dhariwal and Nichol 2021,
    arXiv:2105.05233 (code).
    """
    angles, _ = _angles("sinusoidal_embedding", t, dim, shift, max_period)
    parts = [np.cos(angles), np.sin(angles)] if cos_first else [np.sin(angles), np.cos(angles)]
    if dim % 2:
        parts.append(np.zeros_like(angles[:, :1]))
    return np.concatenate(parts, axis=1)


def sinusoidal_embedding_vjp(dy, t, dim, *, cos_first, shift, max_period=1e4):
    """dt = sum_i omega_i (d sin_i cos(omega_i t) - d cos_i sin(omega_i t))."""
    angles, omega = _angles("sinusoidal_embedding_vjp", t, dim, shift, max_period)
    require(dy.shape == (t.shape[0], dim),
            f"sinusoidal_embedding_vjp: dy must have the output's shape {(t.shape[0], dim)}, got {dy.shape}")
    half = dim // 2
    first, second = dy[:, :half], dy[:, half:2 * half]
    dsin, dcos = (second, first) if cos_first else (first, second)
    return np.sum(omega * (dsin * np.cos(angles) - dcos * np.sin(angles)), axis=1)
