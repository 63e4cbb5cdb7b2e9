"""Diffusion as a stochastic differential equation: drift and noise of the three published ones, reversed, as an ODE.

t runs from 0 (data) to 1; the marginals are those of the paths in continuous.py.
"""
import math

import numpy as np

from ..ops._check import require, same_dtype, sample_sum
from .continuous import subvp_time, ve_time, vp_time
from .samplers import Stage, transition
from .schedules import log_snr
from .solvers import first_order

TIMES = {"vp": vp_time, "subvp": subvp_time, "ve": ve_time}


def drift_and_diffusion(t, kind, beta_min=0.1, beta_max=20.0, sigma_min=0.01, sigma_max=50.0):
    r"""Coefficients of dx = f x dt + g dw for the path of that name.

    $$\text{vp: } f = -\tfrac12\beta(t),\ g^2 = \beta(t); \quad
      \text{subvp: } f = -\tfrac12\beta(t),\ g^2 = \beta(t)\left(1-e^{-2\int_0^t\beta}\right); \quad
      \text{ve: } f = 0,\ g^2 = 2\sigma^2\log\frac{\sigma_{\max}}{\sigma_{\min}}$$

    Shapes: t in [0, 1], any shape; returns f, g^2 of it, float64. beta(t) is linear from beta_min to beta_max.
    Raises: ValueError for another kind.
    Source: Song et al. 2021, arXiv:2011.13456, sec. 3.4, app. B and C.
    Facts: f = d log signal/dt and g^2 = d noise^2/dt - 2 f noise^2 of the path.
    """
    require(kind in ("vp", "subvp", "ve"), f"kind must be 'vp', 'subvp' or 've', got {kind!r}")
    t = np.asarray(t, dtype=np.float64)
    if kind == "ve":
        return 0 * t, 2 * (sigma_min * (sigma_max / sigma_min) ** t) ** 2 * math.log(sigma_max / sigma_min)
    beta, total = beta_min + t * (beta_max - beta_min), t * beta_min + t**2 * (beta_max - beta_min) / 2
    return -beta / 2, beta * (-np.expm1(-2 * total) if kind == "subvp" else 1)


def reverse_drift(x, score, f, g2):
    r"""Drift of the SDE that runs backwards in time, with noise g dw.

    $$dx = \left[f x - g^2\,\nabla\log p_t(x)\right]dt + g\,d\bar w$$

    Shapes: x, score (N, ...); f, g2 numbers; returns (N, ...). Linear.
    Source: Anderson 1982; Song et al. 2021, arXiv:2011.13456, eq. 6.
    """
    same_dtype("reverse_drift", x=x, score=score)
    return float(f) * x - float(g2) * score


def reverse_drift_vjp(dy, x, score, f, g2):
    """dx = f dy; dscore = -g^2 dy."""
    return float(f) * dy, -float(g2) * dy


def flow_drift(x, score, f, g2):
    r"""Velocity of the probability-flow ODE: no noise, the same marginals.

    $$\frac{dx}{dt} = f x - \tfrac12 g^2\,\nabla\log p_t(x)$$

    Shapes: x, score (N, ...); f, g2 numbers; returns (N, ...). Linear.
    Source: Song et al. 2021, arXiv:2011.13456, eq. 13.
    """
    same_dtype("flow_drift", x=x, score=score)
    return float(f) * x - float(g2) / 2 * score


def flow_drift_vjp(dy, x, score, f, g2):
    """dx = f dy; dscore = -g^2 dy/2."""
    return float(f) * dy, -float(g2) / 2 * dy


def euler_maruyama(times, kind, **options):
    r"""Euler and Maruyama on the reverse SDE; the last step adds no noise.

    $$x_s = x_t - (t-s)\left[f x_t - g^2\,\hat s\right] + g\sqrt{t-s}\;z, \qquad
      \hat s = -\hat\epsilon/\mathrm{noise}$$

    Shapes: times (steps+1,) decreasing, the levels being the path's there, or None: the times at which the path has the
    levels' SNRs (any levels of that family do: a path is another one at another pace), and to noise 0 x0_hat; options
    as in drift_and_diffusion; returns a rule. Weak order 1.
    Raises: ValueError when the times do not decrease or their number is not that of the levels, or for another kind.
    Source: Song et al. 2021, arXiv:2011.13456, app. D; Kloeden and Platen 1992.
    """
    require(kind in TIMES, f"euler-maruyama needs the drift of 'vp', 'subvp' or 've', and a path '{kind}' has none here")
    given = None if times is None else np.asarray(times, dtype=np.float64)
    require(given is None or (given.ndim == 1 and (np.diff(given) < 0).all()), "times must decrease")

    def rule(levels, i):
        require(given is None or len(given) == len(levels),
                f"{len(levels)} levels need as many times, got {0 if given is None else len(given)}")
        if given is None and levels[i + 1][1] == 0:
            return first_order(levels, i)
        require(given is not None or levels[i][0] > 0,
                "euler-maruyama cannot start where the signal is 0: the time is infinite there")
        start, end = given[i:i + 2] if given is not None else TIMES[kind](
            log_snr(*np.asarray(levels[i:i + 2]).T), **options)
        f, g2 = drift_and_diffusion(start, kind, **options)
        h, (signal, noise) = start - end, levels[i]
        sigma = (g2 * h) ** 0.5 if i + 2 < len(levels) else 0.0
        return (Stage((signal, noise), c_x=1 - f * h, c_eps=-g2 * h / noise, sigma=sigma),)

    return rule


def reverse_diffusion():
    r"""Song et al.'s predictor: the reverse SDE discretised as the forward chain is.

    $$x_s = (2-\alpha_{t|s})\,x_t + \sigma^2_{t|s}\,\hat s + \sigma_{t|s}\,z, \quad \hat s = -\hat\epsilon/\sigma_t$$

    Shapes: returns a rule. To noise 0 it is x0_hat.
    Source: Song et al. 2021, arXiv:2011.13456, app. E.
    """
    def rule(levels, i):
        ratio, variance, _ = transition(levels[i], levels[i + 1])
        if levels[i + 1][1] == 0:
            return first_order(levels, i)
        return (Stage(tuple(levels[i]), c_x=2 - ratio, c_eps=-variance / levels[i][1], sigma=variance**0.5),)

    return rule


def langevin(step, inner):
    r"""Annealed Langevin dynamics: at each level, `inner` steps up the score, with noise; then the next level.

    $$x \leftarrow x + \frac{a_i}{2}\,\hat s(x, \sigma_i) + \sqrt{a_i}\,z, \qquad
      a_i = \mathrm{step}\;\sigma_i^2/\sigma_L^2$$

    Shapes: returns a rule for levels of signal 1; sigma_L is the last above 0. Where a level of noise 0 follows, the
    result is denoised once more, to x0_hat.
    Raises: ValueError for levels whose signal changes, step not positive or inner < 1.
    Source: Song and Ermon 2019, arXiv:1907.05600, alg. 1; the denoising: Jolicoeur-Martineau et al. 2021.
    """
    require(step > 0 and inner >= 1, f"step > 0 and inner >= 1 expected, got {step} and {inner}")

    def rule(levels, i):
        require((levels[:, 0] == 1).all(), "annealed Langevin dynamics keeps the signal at 1: give levels (1, sigma)")
        level = tuple(levels[i])
        a = step * (level[1] / levels[:, 1][levels[:, 1] > 0].min()) ** 2
        stages = (Stage(level, c_x=1.0, c_eps=-a / (2 * level[1]), sigma=a**0.5),) * inner
        return stages + (first_order(levels, i) if levels[i + 1][1] == 0 else ())

    return rule


def predictor_corrector(predictor, snr, inner=1, by_norms=True):
    r"""After each step of a one-step predictor, Langevin steps at the level arrived at, sized by a ratio of norms.

    $$x \leftarrow x + \eta\,\hat s + \sqrt{2\eta}\,z, \qquad
      \eta = 2\alpha\left(\mathrm{snr}\,\frac{\|z\|}{\|\hat s\|}\right)^2, \quad \alpha = \alpha_{t|s}^2$$

    Shapes: predictor, a rule; returns a rule. The norms are averaged over the batch; by_norms=False puts the exact
    score's expected ratio, sigma_s, in their place, and then a sample does not depend on its batch. alpha is 1 where
    the signal is constant. No correction at noise 0, nor after signal 0.
    Raises: ValueError when snr is not positive or inner < 1.
    Source: Song et al. 2021, arXiv:2011.13456, app. G, alg. 2-5.
    """
    require(snr > 0 and inner >= 1, f"snr > 0 and inner >= 1 expected, got {snr} and {inner}")

    def norm(x):
        return float(np.mean(np.sqrt(sample_sum(x**2))))

    def rule(levels, i):
        level, noise = tuple(levels[i + 1]), levels[i + 1][1]
        alpha = transition(levels[i], levels[i + 1])[0] ** 2
        if noise == 0 or alpha == 0:
            return predictor(levels, i)
        fixed = sized(Stage(level, c_x=1.0), 2 * alpha * (snr * noise) ** 2)

        def adapt(stage, eps_hat, z):
            below = norm(eps_hat)
            return stage if below == 0 else sized(stage, 2 * alpha * (snr * noise * norm(z) / below) ** 2)

        corrector = fixed._replace(adapt=adapt) if by_norms else fixed
        return (*predictor(levels, i), *[corrector] * inner)

    def sized(stage, eta):
        return stage._replace(c_eps=-eta / stage.level[1], sigma=(2 * eta) ** 0.5)

    return rule
