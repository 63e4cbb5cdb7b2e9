"""Cold diffusion: any degradation, undone by a restorer. Levels are degrees of degradation here, not of noise."""
import numpy as np

from ..ops._check import require
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
