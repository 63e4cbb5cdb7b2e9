"""Cold diffusion: any degradation, undone by a restorer. Levels are degrees of degradation here, not of noise."""
import numpy as np

from ..ops._check import per_sample, require
from .samplers import Stage


def cold_levels(steps):
    r"""Degrees s = steps, ..., 0 in the form that the sampler loop takes, and labels for the restorer.

    $$(s, 1)_{s = \mathrm{steps}..0}$$

    Shapes: returns (steps+1, 2) float64; the second column is a constant.
    Raises: ValueError when steps < 1.
    Source: Bansal et al. 2022, arXiv:2208.09392.
    """
    require(steps >= 1, f"steps must be at least 1, got {steps}")
    return np.stack([np.arange(steps, -1, -1.0), np.ones(steps + 1)], axis=1)


def cold(improved=True):
    r"""Step of cold diffusion, given what cold_prediction returns in the place of x0_hat.

    $$x_{s-1} = x_s - \left[D(\hat x_0, s) - D(\hat x_0, s-1)\right] \ \text{(algorithm 2)}, \qquad
      x_{s-1} = D(\hat x_0, s-1) \ \text{(algorithm 1)}$$

    Shapes: returns a rule for cold_levels, with prediction='x0'. Algorithm 2 is exact for D(x, s) = x + s e with any
    restorer; algorithm 1 only for a perfect restorer.
    Source: Bansal et al. 2022, arXiv:2208.09392, alg. 1 and 2.
    """
    def rule(levels, i):
        return (Stage(tuple(levels[i]), c_x=1.0 if improved else 0.0, c_0=-1.0 if improved else 1.0),)

    return rule


def cold_prediction(restore, degrade, improved=True):
    r"""What the rule `cold` subtracts (or returns): degradations of the restored image.

    $$D(R(x, s), s) - D(R(x, s), s-1) \ \text{(algorithm 2)}, \qquad D(R(x, s), s-1) \ \text{(algorithm 1)}$$

    Shapes: restore(x, s), degrade(x0, s): (N, ...) and an integer to (N, ...), degrade(x0, 0) = x0; returns a predict
    for the sampler loop.
    Source: Bansal et al. 2022, arXiv:2208.09392, alg. 1 and 2.
    """
    def predict(x, s, _):
        s = round(s)
        x0_hat = restore(x, s)
        return degrade(x0_hat, s) - degrade(x0_hat, s - 1) if improved else degrade(x0_hat, s - 1)

    return predict


def blurred(x, s, width):
    r"""Images under a Gaussian blur applied s times, symmetric about their edges, in closed form by the cosine transform.

    $$D(x, s) = A^s x, \qquad A = C^T\,\mathrm{diag}\left(e^{-\frac{w^2}{2}\left(\frac{\pi k}{H}\right)^2}
      e^{-\frac{w^2}{2}\left(\frac{\pi l}{W}\right)^2}\right) C$$

    Shapes: x (N, C, H, W); s (N,) at least 0, whole or not; width w in pixels; returns x's shape. Linear in x; C is the
    orthonormal cosine transform of type 2, so that s = 0 is the identity and the mean never changes.
    Raises: ValueError when x is no images, or s is negative.
    Source: Bansal et al. 2022, arXiv:2208.09392, sec. 5.2; in frequencies: Rissanen et al. 2023, arXiv:2206.13397.
    """
    s = np.asarray(s, dtype=np.float64)
    require(x.ndim == 4 and s.shape == x.shape[:1] and (s >= 0).all(),
            f"blurred: x (N, C, H, W) and s (N,) of at least 0 expected, got {x.shape} and {s}")
    sides = []
    for size in x.shape[2:]:
        k, i = np.arange(size)[:, None], np.arange(size)
        basis = np.cos(np.pi * k * (2 * i + 1) / (2 * size)) * np.where(k == 0, 1, 2**0.5) * size**-0.5
        damping = np.exp(-((width * np.pi * k[:, 0] / size) ** 2) / 2 * s[:, None])  # (N, size)
        sides.append(np.einsum("ki,nk,kj->nij", basis, damping, basis))
    rows, columns = (np.asarray(a, dtype=x.dtype, like=x)[:, None] for a in sides)
    return rows @ x @ columns


def faded(x, share, z):
    r"""Data on their way to a fixed noise.

    $$D(x, s) = \left(1-\tfrac sT\right)x + \tfrac sT\,z$$

    Shapes: x, z (N, ...); share s/T (N,) in [0, 1]; returns (N, ...). Linear. With z fixed, algorithm 2 goes from z straight
    to the mean of what the restorer says on the way: its error stays, since at s = T nothing of the data is left.
    Raises: ValueError when the shapes differ.
    Source: Bansal et al. 2022, arXiv:2208.09392, sec. 5.1 (fixed noise), with the straight path's levels.
    """
    require(x.shape == z.shape, f"faded: z in x's shape {x.shape} expected, got {z.shape}")
    return per_sample(1 - np.asarray(share), x) * x + per_sample(share, x) * z


def gaussian_like(x, z):
    r"""Samples of the Gaussian that has the mean and covariance of data, from standard normal noise.

    $$y = \bar x + \Sigma^{1/2} z$$

    Shapes: x (M, ...) data; z (N, ...); returns z's shape.
    Raises: ValueError when a sample of x and one of z have different shapes.
    Source: Bansal et al. 2022, arXiv:2208.09392, sec. 5.2 (a Gaussian fitted to fully degraded images).
    """
    require(x.shape[1:] == z.shape[1:] and len(x) > 0, f"gaussian_like: one shape expected, got {x.shape} and {z.shape}")
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    mean = flat.mean(axis=0)
    values, vectors = np.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    bring = lambda a: np.asarray(a, dtype=z.dtype, like=z)
    return (bring(mean) + z.reshape(len(z), len(mean)) @ bring(root)).reshape(z.shape)
