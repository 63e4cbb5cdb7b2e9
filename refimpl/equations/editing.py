"""Editing with an unconditional model: keep what is known, start from a sketch, go back and forth to harmonise."""
import numpy as np

from ..ops._check import require
from .samplers import Stage, transition


def keep_known(known, mask, levels, *, ops, key, index=None):
    r"""Inpainting by replacement: after every step the known pixels are noised afresh to the level arrived at.

    $$x_s \leftarrow m\odot(\alpha_s\,\mathrm{known} + \sigma_s z) + (1-m)\odot x_s$$

    Shapes: known (N, ...); mask broadcastable to it, True where known; levels as for the sampler; returns the loop's
    `after`. At noise 0 the known pixels are exact. Noise: draw i + 1 of (key, index) in step i: give another key than
    the sampler's.
    Source: Song et al. 2021, arXiv:2011.13456, app. I.2; Lugmayr et al. 2022, arXiv:2201.09865, eq. 8.
    """
    index = np.arange(len(known)) if index is None else index

    def after(i, x, x0_hat):
        signal, noise = (float(v) for v in levels[i + 1])
        return np.where(mask, ops.q_sample(known, signal, noise, (key, index, i + 1)) if noise > 0 else known, x)

    return after


def repaint_levels(levels, jump, repeats):
    r"""RePaint's order: every `jump` steps, go back up as far and come down again, `repeats` times in all.

    $$t+j \to \dots \to t \to \underbrace{t+1 \to \dots \to t+j \to \dots \to t}_{r-1 \text{ times}} \to t-1 \to \dots,
      \qquad t = 1, 1+j, 1+2j, \dots$$

    Shapes: levels (steps+1, 2), downwards; returns (more, 2). Use with the rule `resampling`.
    Raises: ValueError when jump or repeats is below 1.
    Source: Lugmayr et al. 2022, arXiv:2201.09865, app. B (jump 10, repeats 10).
    """
    require(jump >= 1 and repeats >= 1, f"jump and repeats must be at least 1, got {jump} and {repeats}")
    steps = len(levels) - 1
    left = {t: repeats - 1 for t in range(1, steps - jump + 1, jump)}  # t steps from the clean image
    order, t = [steps], steps
    while t > 0:
        t -= 1
        order.append(t)
        if left.get(t, 0) > 0:
            left[t] -= 1
            order += range(t + 1, t + jump + 1)
            t += jump
    return np.asarray(levels)[[steps - t for t in order]]


def resampling(rule):
    r"""A rule for levels that also go up: upwards, noise is added as by the forward process.

    $$x_t = \alpha_{t|s}\,x_s + \sigma_{t|s}\,z$$

    Shapes: rule, of one-step kind, for the way down; returns a rule.
    Source: Lugmayr et al. 2022, arXiv:2201.09865, alg. 1.
    """
    def both(levels, i):
        (signal, noise), (signal_s, noise_s) = levels[i], levels[i + 1]
        if signal * noise_s <= signal_s * noise:
            return rule(levels, i)
        ratio, variance, _ = transition(levels[i + 1], levels[i])
        return (Stage(None, c_x=ratio, sigma=variance**0.5),)

    return both


def sdedit_start(x, levels, strength, z, *, ops):
    r"""SDEdit: an image, or a sketch of one, noised part of the way, and the levels from there.

    $$x_{t_0} = \alpha_{t_0} x + \sigma_{t_0} z, \qquad t_0 = \mathrm{round}(\mathrm{strength}\cdot\mathrm{steps})
      \text{ steps from the end}$$

    Shapes: x (N, ...); strength in [0, 1]; z an array or (key, index, draw); returns x_t0 and the rest of the levels.
    strength 0 returns x and the last level: the sampler then returns x.
    Raises: ValueError when strength leaves [0, 1].
    Source: Meng et al. 2022, arXiv:2108.01073, alg. 1.
    """
    require(0 <= strength <= 1, f"strength must be in [0, 1], got {strength}")
    rest = levels[len(levels) - 1 - round(strength * (len(levels) - 1)):]
    signal, noise = (float(v) for v in rest[0])
    return (ops.q_sample(x, signal, noise, z) if noise > 0 else x), rest
