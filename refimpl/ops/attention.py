"""Scaled dot-product attention and its vjp."""
import numpy as np

from ._check import require, same_dtype, same_dtype_as
from .activation import softmax


def _weights(q, k, v, mask, causal, scale):
    """The attention weights P (N, h, L, S) and the scale, after checking the inputs."""
    same_dtype("attention", q=q, k=k, v=v)
    got = f"got q {q.shape}, k {k.shape}, v {v.shape}"
    require(q.ndim == k.ndim == v.ndim == 4,
            f"attention: q (N, h, L, d), k (N, h, S, d), v (N, h, S, e) expected, {got}")
    require(q.shape[:2] == k.shape[:2] == v.shape[:2], f"attention: q, k and v must agree in samples and heads, {got}")
    require(q.shape[3] == k.shape[3], f"attention: q and k must agree in their last axis, {got}")
    require(k.shape[2] == v.shape[2], f"attention: k and v must agree in their length, {got}")
    scale = max(q.shape[3], 1) ** -0.5 if scale is None else float(scale)
    logits = np.matmul(q, np.swapaxes(k, 2, 3)) * scale  # (N, h, L, S)
    if mask is not None:
        if mask.dtype != np.bool_:
            raise TypeError(f"attention: a bool mask expected (True = attend), got {mask.dtype}")
        # Broadcasting one way only: the mask may not enlarge the logits.
        fits = mask.ndim <= 4 and all(m in (1, n) for m, n in zip(mask.shape[::-1], logits.shape[::-1]))
        require(fits, f"attention: a mask that broadcasts to {logits.shape} expected, got {mask.shape}")
        logits = np.where(mask, logits, -np.inf)
    if causal:
        rows, columns = (np.arange(n, like=q) for n in logits.shape[2:])
        logits = np.where(rows[:, None] >= columns, logits, -np.inf)
    return (softmax(logits) if k.shape[2] else logits), scale


def attention(q, k, v, mask=None, causal=False, scale=None):
    r"""Scaled dot-product attention.

    $$O = P V, \qquad P = \mathrm{softmax}\!\left(\mathrm{scale}\; Q K^\top + \log \mathrm{mask}\right)$$

    Shapes: q (N, h, L, d); k (N, h, S, d); v (N, h, S, e); mask bool, True = attend, broadcastable to (N, h, L, S).
    causal: query i sees keys j <= i, both counted from 0 (top-left, as PyTorch). scale: 1/sqrt(d) unless given.
    Returns (N, h, L, e). A row with nothing to attend to gives 0. Analytic.
    Raises: ValueError when shapes do not fit; TypeError when dtypes differ or the mask is not bool.
    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1.
    """
    p, _ = _weights(q, k, v, mask, causal, scale)
    return np.matmul(p, v)


def attention_vjp(dy, q, k, v, mask=None, causal=False, scale=None):
    """dS = P (dP - rowsum(P dP)), dP = dy V^T; then dq = scale dS K, dk = scale dS^T Q, dv = P^T dy."""
    p, scale = _weights(q, k, v, mask, causal, scale)
    same_dtype_as("attention_vjp", q, dy=dy)
    out = (*q.shape[:3], v.shape[3])
    require(dy.shape == out, f"attention_vjp: dy {out} expected, got {dy.shape}")
    dp = np.matmul(dy, np.swapaxes(v, 2, 3))  # (N, h, L, S)
    ds = p * (dp - np.sum(dp * p, axis=3, keepdims=True)) * scale
    return np.matmul(ds, k), np.matmul(np.swapaxes(ds, 2, 3), q), np.matmul(np.swapaxes(p, 2, 3), dy)
