"""Guidance towards a condition, in both published conventions: the weight w of the paper, and the scale s = 1 + w."""
from ..ops._check import require, same_dtype


def scale_of_weight(w):
    r"""The scale that libraries ask for, from the weight of the paper.

    $$s = 1 + w$$

    Shapes: a number. w = 0, s = 1: the plain conditional model; s = 0: the unconditional one. The sampler loop's
    argument `guidance` and the w of the operation sampler_step are this s.
    Source: Ho and Salimans 2022, arXiv:2207.12598, eq. 6 (w); Saharia et al. 2022, arXiv:2205.11487, sec. 2.2 (s).
    """
    return 1 + w


def guided_by_weight(e_c, e_u, w):
    r"""Classifier-free guidance as its paper writes it: extrapolate from the conditional prediction.

    $$\tilde e = (1+w)\,e_c - w\,e_u = e_c + w\,(e_c-e_u)$$

    Shapes: e_c, e_u (N, ...); w a number; returns (N, ...). Linear.
    Raises: ValueError when the shapes differ.
    Source: Ho and Salimans 2022, arXiv:2207.12598, eq. 6.
    """
    _alike("guided_by_weight", e_c, e_u)
    return e_c + w * (e_c - e_u)


def guided_by_weight_vjp(dy, e_c, e_u, w):
    """de_c = (1 + w) dy; de_u = -w dy."""
    return (1 + w) * dy, -w * dy


def guided_by_scale(e_c, e_u, s):
    r"""Classifier-free guidance as libraries write it: extrapolate from the unconditional prediction.

    $$\tilde e = e_u + s\,(e_c-e_u), \qquad s = 1 + w$$

    Shapes: e_c, e_u (N, ...); s a number; returns (N, ...). Linear.
    Raises: ValueError when the shapes differ.
    Source: Saharia et al. 2022, arXiv:2205.11487, sec. 2.2.
    """
    _alike("guided_by_scale", e_c, e_u)
    return e_u + s * (e_c - e_u)


def guided_by_scale_vjp(dy, e_c, e_u, s):
    """de_c = s dy; de_u = (1 - s) dy."""
    return s * dy, (1 - s) * dy


def _alike(name, e_c, e_u):
    same_dtype(name, e_c=e_c, e_u=e_u)
    require(e_c.shape == e_u.shape, f"{name}: e_c and e_u in one shape expected, got {e_c.shape} and {e_u.shape}")
