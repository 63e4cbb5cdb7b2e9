"""Image blending by a Poisson equation: the gradients of one image inside the borders of another."""
import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from ..ops._check import require


def _operators(mask):
    """The unknown pixels, numbered; and each pair (p, q) of neighbours of which p is unknown."""
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    here = np.argwhere(mask)
    pairs = [(here, here + step) for step in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    return number, np.concatenate([p for p, _ in pairs]), np.concatenate([q for _, q in pairs])


def guidance(source, target=None):
    r"""The field of differences between neighbours that the blend is to follow.

    $$v_{pq} = g_p - g_q, \quad\text{or, mixed, whichever of } g_p-g_q,\, f_p-f_q \text{ is larger in size}$$

    Shapes: source (H, W), target (H, W) or None. Returns v(p, q) for arrays p, q (K, 2) of pixels.
    Source: Pérez, Gangnet, Blake 2003, ACM TOG 22(3), eq. 11 to 13.
    """
    def v(p, q):
        own = source[tuple(p.T)] - source[tuple(q.T)]
        if target is None:
            return own
        other = target[tuple(p.T)] - target[tuple(q.T)]
        return np.where(np.abs(other) > np.abs(own), other, own)

    return v


def poisson_blend(target, mask, v):
    r"""The image that equals the target outside the mask and whose gradient inside is nearest to the field v.

    $$\min_f \int_\Omega \|\nabla f - v\|^2, \quad f|_{\partial\Omega} = f^*; \qquad
      \sum_{q\sim p}(f_p - f_q) = \sum_{q\sim p} v_{pq} \;\; (p\in\Omega)$$

    Shapes: target (H, W); mask (H, W) bool, clear of the image's border; v as `guidance` returns. Returns (H, W).
    Raises: ValueError when the mask touches the border, is empty or has another shape.
    Source: Pérez, Gangnet, Blake 2003, ACM TOG 22(3), eq. 3 and 7; as used with GANs: Wu et al. 2019, arXiv:1703.07195.
    """
    mask = np.asarray(mask)
    require(mask.shape == target.shape and mask.dtype == np.bool_ and mask.any(),
            f"poisson_blend: a bool mask of shape {target.shape} with at least one pixel expected, got {mask.dtype} "
            f"{mask.shape}")
    edge = mask.copy()
    edge[1:-1, 1:-1] = False
    require(not edge.any(), "poisson_blend: the mask must not touch the border of the image")
    number, p, q = _operators(mask)
    rows, inside = number[tuple(p.T)], mask[tuple(q.T)]
    n = int(mask.sum())
    off = sparse.coo_array((np.ones(inside.sum()), (rows[inside], number[tuple(q[inside].T)])), shape=(n, n))
    known = np.bincount(rows[~inside], target[tuple(q[~inside].T)], minlength=n)
    right = known + np.bincount(rows, v(p, q), minlength=n)
    blend = np.array(target, dtype=np.float64)
    blend[mask] = spsolve((4 * sparse.eye_array(n) - off).tocsc(), right)
    return blend


def poisson_residual(blend, mask, v):
    r"""How far the blend's differences, summed around each pixel of the mask, are from the field's.

    $$\max_{p\in\Omega}\left|\sum_{q\sim p}(f_p-f_q-v_{pq})\right|$$

    Shapes: blend (H, W); mask (H, W) bool; v as `guidance` returns. Returns a float.
    Source: Pérez, Gangnet, Blake 2003, ACM TOG 22(3), eq. 7.
    """
    number, p, q = _operators(mask)
    defect = blend[tuple(p.T)] - blend[tuple(q.T)] - v(p, q)
    return float(np.max(np.abs(np.bincount(number[tuple(p.T)], defect))))
