"""The embedding of time and class that conditions a denoiser."""
import numpy as np

from refimpl.ops._check import require

from .blocks import linear
from .initial import linear_shapes


def embed(params, t, labels, x, ops, *, dim, cos_first, shift, classes):
    r"""Sinusoids of the time through two affine maps, plus a row for the class, and a last SiLU.

    $$a = \mathrm{silu}\left(W_2\,\mathrm{silu}(W_1 \mathrm{PE}(t)) + E_c\right)$$

    Shapes: t (N,) real host numbers; labels (N,) integers, expected exactly when classes is not None; x (N, ...), whose
    dtype and device the result takes; dim, cos_first, shift as sinusoidal_embedding. Returns a (N, E) and
    pullback(da) -> grads.
    Raises: ValueError when t or labels do not fit.
    Source: Ho et al. 2020, arXiv:2006.11239, app. B; classes: Dhariwal and Nichol 2021, arXiv:2105.05233.
    """
    N = x.shape[0]
    t = np.asarray(t, dtype=float)
    require(t.shape == (N,), f"t must be (N,) with N = {N} as in x, got shape {t.shape}")
    require(bool(np.all(np.isfinite(t))), "t must be finite, got NaN or infinity")
    require((labels is not None) == (classes is not None), "labels must be given exactly when num_class_embeds is set")
    # Angles reach T radians: in float64 on the host, then brought to the data.
    e = ops.sinusoidal_embedding(t, dim, cos_first=cos_first, shift=shift)
    e = np.asarray(e, dtype=x.dtype, like=x)
    h, linear_1 = linear(params, "time_embedding.linear_1", e, ops)
    s, linear_2 = linear(params, "time_embedding.linear_2", ops.silu(h), ops)
    if classes is not None:
        require(np.shape(labels) == (N,), f"labels must be (N,) with N = {N} as in x, got shape {np.shape(labels)}")
        s = s + ops.embedding(labels, params["class_embedding.weight"])

    def pullback(da):
        ds = ops.silu_vjp(da, s)
        g2, dh = linear_2(ds)
        g1, _ = linear_1(ops.silu_vjp(dh, h))
        if classes is None:
            return g1 | g2
        return g1 | g2 | {"class_embedding.weight": ops.embedding_vjp(ds, labels, params["class_embedding.weight"])}

    return ops.silu(s), pullback


def embed_shapes(dim, width, classes):
    """Names and shapes of embed's parameters.

    Shapes: dim of the sinusoids, width E of the result, number of classes or None. Returns a dict.
    Source: diffusers, TimestepEmbedding.
    """
    shapes = linear_shapes("time_embedding.linear_1", dim, width)
    shapes |= linear_shapes("time_embedding.linear_2", width, width)
    return shapes | ({} if classes is None else {"class_embedding.weight": (classes, width)})
