"""Points in the plane whose distribution is known: pure functions of a key, each with its class labels or None."""
import numpy as np

from .ops.random import normal, uniform


def _draw(key, n, noise):
    """Two uniforms and two normals times the noise for each of n points, in float64."""
    index = np.arange(n)
    u = uniform(key, index, 0, (2,), np.float64)
    return u[:, 0], u[:, 1], noise * normal(key, index, 0, (2,), np.float64)


def moons(key, n):
    r"""Two half circles that reach into each other.

    $$x = (\cos\theta, \sin\theta) \;\text{or}\; (1-\cos\theta, \tfrac12-\sin\theta), \qquad
      \theta = \pi u, \quad x \leftarrow x - (\tfrac12, \tfrac14) + .1\,z$$

    Shapes: key an int, n points; returns x (n, 2) float32 and the moon (n,) 0 or 1.
    Source: scikit-learn's make_moons with noise .1, centred.
    """
    u, side, z = _draw(key, n, 0.1)
    label, angle = (side > 0.5).astype(np.int64), np.pi * u
    x = np.where(label == 0, np.cos(angle), 1 - np.cos(angle)) - 0.5
    y = np.where(label == 0, np.sin(angle), 0.5 - np.sin(angle)) - 0.25
    return (np.stack([x, y], axis=1) + z).astype(np.float32), label


def eight_gaussians(key, n):
    r"""Eight narrow Gaussians on a circle: a GAN that forgets modes forgets them visibly here.

    $$x = \sqrt2\,\bigl((\cos\tfrac{\pi k}{4}, \sin\tfrac{\pi k}{4}) + .01\,z\bigr), \qquad k \in 0..7$$

    Shapes: key an int, n points; returns x (n, 2) float32 and the mode k (n,).
    Source: Gulrajani et al. 2017, arXiv:1704.00028, code of the toy experiments (radius 2, noise .02, over 1.414).
    """
    u, _, z = _draw(key, n, 0.01)
    k = (8 * (1 - u)).astype(np.int64)  # u in (0, 1], so 1 - u in [0, 1)
    centre = np.stack([np.cos(np.pi * k / 4), np.sin(np.pi * k / 4)], axis=1)
    return (2**0.5 * (centre + z)).astype(np.float32), k


def twenty_five_gaussians(key, n):
    r"""Twenty-five narrow Gaussians on a square grid.

    $$x = \frac{2\,(i, j) + .05\,z}{2\sqrt2}, \qquad i, j \in -2..2$$

    Shapes: key an int, n points; returns x (n, 2) float32 and the mode 5 (i+2) + (j+2) (n,).
    Source: Gulrajani et al. 2017, arXiv:1704.00028, code of the toy experiments.
    """
    u, v, z = _draw(key, n, 0.05)
    i, j = (5 * (1 - u)).astype(np.int64), (5 * (1 - v)).astype(np.int64)
    return ((2 * (np.stack([i, j], axis=1) - 2) + z) / 8**0.5).astype(np.float32), 5 * i + j


def swiss_roll(key, n):
    r"""A spiral, the plane section of the swiss roll.

    $$x = \frac{(\tau\cos\tau, \tau\sin\tau) + .25\,z}{7.5}, \qquad \tau = \tfrac{3\pi}{2}(1+2u)$$

    Shapes: key an int, n points; returns x (n, 2) float32 and None: there are no classes.
    Source: scikit-learn's make_swiss_roll, scaled as in Gulrajani et al. 2017, arXiv:1704.00028.
    """
    u, _, z = _draw(key, n, 0.25)
    t = 1.5 * np.pi * (1 + 2 * u)
    return ((np.stack([t * np.cos(t), t * np.sin(t)], axis=1) + z) / 7.5).astype(np.float32), None


TOYS = {"moons": moons, "gaussians8": eight_gaussians, "gaussians25": twenty_five_gaussians, "swissroll": swiss_roll}
