"""The one sampler loop, and the rules of DDPM and DDIM.

A sampler is a rule: rule(levels, i) gives the stages that lead from level i to level i+1. A stage evaluates the network
once and moves to an affine combination of what is known, so a new sampler costs a function that returns coefficients.
"""
from collections import deque
from typing import NamedTuple

import numpy as np

from ..ops._check import require
from .diffusion import estimate_coefficients

_MEMORY = 4  # evaluations that a stage may look back on: four-step Adams-Bashforth and third-order UniPC need three


class Stage(NamedTuple):
    r"""One evaluation and one move: x <- c_x x + c_0 x0_hat + c_eps eps_hat + sum of earlier terms + sigma z.

    level is the (signal, noise) of x, where the network is evaluated, or None for a move without evaluation
    (x <- c_x x + sigma z). earlier maps (what, j) to a coefficient: what is 'x', 'x0' or 'eps', the input or the
    estimates of the j-th evaluation before this one. The rest is for single samplers:
    asked: the level that the network is told, where it is not x's own (inversion).
    log_variance = (low, high): the network's second half of channels, o in [-1, 1], chooses the noise's log variance
    between the two, per pixel; sigma is then 1 or 0.
    adapt(stage, eps_hat, z) -> stage: coefficients that depend on the data (Langevin steps set by norms).
    nudge(x, past) -> an addition to x before the noise of a move without evaluation; past[0] is (x, x0_hat, level) of
    the last evaluation (guidance of the posterior's mean).
    """

    level: tuple | None
    c_x: float = 0.0
    c_0: float = 0.0
    c_eps: float = 0.0
    earlier: dict = {}  # noqa: RUF012 - never written to
    sigma: float = 0.0
    asked: tuple | None = None
    log_variance: tuple | None = None
    adapt: object = None
    nudge: object = None


def step_coefficients(stage, prediction, rederive_eps=False, past=()):
    r"""A stage in the terms of the operation sampler_step: what it takes of x, x0_hat and the raw prediction e.

    $$\hat x_0 = a x + b e, \qquad \hat\epsilon = p x + q e \ \text{(raw)} \quad\text{or}\quad
      \hat\epsilon = (x - \mathrm{signal}\,\hat x_0)/\mathrm{noise} \ \text{(re-derived)}$$

    Shapes: past holds the levels of earlier evaluations, newest first. Returns the coefficients a, b, c_x, c_0, c_e as
    a dict of floats, and the earlier terms as a dict {('x' or 'x0', j): float}. The two forms of eps differ only where
    x0_hat was clipped; an earlier eps is always re-derived.
    Raises: ValueError where the prediction does not determine what is asked for.
    Source: Song et al. 2021, arXiv:2010.02502, eq. 12; the clipping orders: guided-diffusion, diffusers.
    """
    signal, noise = stage.level
    a, b, p, q = estimate_coefficients(prediction, signal, noise)
    c = {"a": a, "b": b, "c_x": stage.c_x, "c_0": stage.c_0, "c_e": 0.0}
    if stage.c_eps and rederive_eps:
        require(noise > 0, "eps cannot be re-derived from x0_hat at noise 0")
        c["c_x"] += stage.c_eps / noise
        c["c_0"] -= stage.c_eps * signal / noise
    elif stage.c_eps:
        c["c_x"] += stage.c_eps * p
        c["c_e"] = stage.c_eps * q
    earlier = {}
    for (what, j), c_h in stage.earlier.items():
        signal_j, noise_j = past[j - 1]
        for of, factor in (("x", 1 / noise_j), ("x0", -signal_j / noise_j)) if what == "eps" else ((what, 1.0),):
            earlier[of, j] = earlier.get((of, j), 0.0) + c_h * factor
    return {name: float(value) for name, value in c.items()}, {k: float(v) for k, v in earlier.items() if v}


def sample(predict, x, levels, rule, *, ops, prediction="eps", guidance=1.0, clip=None, rederive_eps=None, key=None,
           index=None, noise=None, after=None):
    r"""Follow a rule from levels[0] to levels[-1], the network being asked wherever a stage says so.

    $$x^{(i+1)} = c_x x^{(i)} + c_0\,\hat x_0 + c_\epsilon\,\hat\epsilon + \sum_j c_{h,j} h_j + \sigma z$$

    Shapes: x (N, ...), a sample at levels[0]; levels (steps+1, 2) rows (signal, noise), host float64. Returns (N, ...).
    predict(x, signal, noise) returns the prediction e ('eps', 'x0', 'v', 'score' or 'flow'), or (e_c, e_u) for
    guidance: e = e_u + guidance (e_c - e_u), guidance a number or a function of (signal, noise). clip: (lo, hi), or a
    function of x0_hat that returns them, one number or (N,) each; with it rederive_eps must say what becomes of eps.
    Noise: draw 1, 2, ... of (key, index) (draw 0 is left for x itself), or noise(draw) -> z. index defaults to 0..N-1.
    after(i, x, x0_hat), called at every step's end, may return another x.
    Raises: ValueError for levels that are not finite, guidance without a condition, noise without a key, a clip without
    rederive_eps, a prediction that says nothing at a level, a result that is not finite.
    Source: Ho et al. 2020, arXiv:2006.11239, alg. 2; Song et al. 2021, arXiv:2010.02502; Karras et al. 2022.
    """
    levels = np.asarray(levels, dtype=np.float64)
    require(levels.ndim == 2 and levels.shape[1] == 2 and len(levels) > 0 and np.isfinite(levels).all()
            and (levels >= 0).all(), "levels must be (steps+1, 2) finite rows (signal, noise), at least one of them")
    index = np.arange(x.shape[0]) if index is None else index
    past, draw, x0_hat = deque(maxlen=_MEMORY), 0, None

    def next_noise():
        nonlocal draw
        draw += 1
        require(noise is not None or key is not None, "this sampler adds noise: give key (or noise)")
        return noise(draw) if noise is not None else (key, index, draw)

    for i in range(len(levels) - 1):
        for stage in rule(levels, i):
            z = next_noise() if stage.sigma else None
            if stage.level is None:
                x = x if stage.nudge is None else x + stage.nudge(x, past)
                x = ops.q_sample(x, stage.c_x, stage.sigma, z) if stage.sigma else x * float(stage.c_x)
                continue
            x_next, x0_hat = _move(predict, x, stage, past, z, ops, prediction, guidance, clip, rederive_eps)
            past.appendleft((x, x0_hat, stage.level))
            x = x_next
        if after is not None:
            replaced = after(i, x, x0_hat)
            x = x if replaced is None else replaced
    require(bool(np.isfinite(x).all()), "the sample is not finite: the network's prediction overflowed or is NaN")
    return x


def _ask(predict, x, stage, guidance):
    """The prediction at a stage: e_c, e_u or None, the guidance scale, the channels o of a learned variance or None."""
    level = [float(v) for v in stage.asked or stage.level]  # NumPy's float64 scalars would widen float32 data
    e, w = predict(x, *level), float(guidance(*level) if callable(guidance) else guidance)
    e_c, e_u = e if isinstance(e, tuple) else (e, None)
    require(w == 1 or e_u is not None, f"guidance {w} needs a condition: predict must return (e_c, e_u)")
    if stage.log_variance is None:
        return e_c, e_u, w, None
    n = x.shape[1]
    require(e_c.shape[1] == 2 * n, f"a learned variance needs {2 * n} channels, got {e_c.shape[1]}")
    return e_c[:, :n], None if e_u is None else e_u[:, :n], w, e_c[:, n:]


def _move(predict, x, stage, past, z, ops, prediction, guidance, clip, rederive_eps):
    """One stage with its evaluation: returns the next x and x0_hat."""
    e_c, e_u, w, o = _ask(predict, x, stage, guidance)
    if isinstance(z, tuple) and (o is not None or stage.adapt is not None):
        z = ops.normal(*z, x.shape[1:], dtype=x.dtype, like=x)  # wanted as an array, before the step
    if o is not None and z is not None:
        low, high = stage.log_variance
        z = z * np.exp(((1 + o) * float(high) + (1 - o) * float(low)) / 4)  # half the log variance chosen at (1 + o)/2
    a, b, p, q = (float(c) for c in estimate_coefficients(prediction, *stage.level))
    if callable(clip) or stage.adapt is not None:
        e = e_c if e_u is None else e_u + w * (e_c - e_u)
        stage = stage if stage.adapt is None else stage.adapt(stage, p * x + q * e, z)
        clip = clip(a * x + b * e) if callable(clip) else clip
    remembers_eps = any(what == "eps" for what, _ in stage.earlier)
    require(clip is None or rederive_eps is not None or not (stage.c_eps or remembers_eps),
            "with clip, rederive_eps must say whether eps follows the clipped x0_hat (True) or stays raw (False)")
    require(clip is None or rederive_eps or not remembers_eps,
            "with clip, a rule that remembers eps needs rederive_eps=True: only x and x0_hat are kept")
    c, earlier = step_coefficients(stage, prediction, bool(rederive_eps), [level for _, _, level in past])
    lo, hi = (None, None) if clip is None else clip
    history = [past[j - 1][what == "x0"] for what, j in earlier]
    return ops.sampler_step(x, e_c, e_u, w, **c, lo=lo, hi=hi, history=history, c_h=list(earlier.values()), z=z,
                            sigma=float(stage.sigma))


def transition(level, level_s):
    r"""What lies between two levels, s the cleaner: the forward step from s to t, and the posterior variance.

    $$\alpha_{t|s} = \frac{\alpha_t}{\alpha_s}, \qquad \sigma^2_{t|s} = \sigma_t^2 - \alpha_{t|s}^2\sigma_s^2, \qquad
      \tilde\beta = \sigma^2_{t|s}\,\frac{\sigma_s^2}{\sigma_t^2}$$

    Shapes: two pairs (signal, noise) = (alpha, sigma). Returns three floats. For adjacent levels of a schedule they are
    sqrt(alpha_t), beta_t and beta_tilde_t; a rule that uses them works at any stride, and for sigma-only levels too.
    Raises: ValueError when s is not the cleaner, or has no signal.
    Source: Kingma et al. 2021, arXiv:2107.00630, app. A.
    """
    (signal, noise), (signal_s, noise_s) = level, level_s
    require(signal_s > 0 and noise > 0 and signal * noise_s < signal_s * noise,
            f"a step must go to a cleaner level, got {tuple(level)} to {tuple(level_s)}")
    ratio = signal / signal_s
    variance = noise**2 - (ratio * noise_s) ** 2
    return ratio, variance, variance * (noise_s / noise) ** 2


def ddpm(variance="small"):
    r"""Ancestral sampling: draw from the posterior with x0_hat in x0's place. No noise at the last step.

    $$x_s = \frac{\alpha_{t|s}\sigma_s^2}{\sigma_t^2} x_t
          + \frac{\alpha_s\sigma^2_{t|s}}{\sigma_t^2}\hat x_0 + \sigma z$$
    $$\sigma^2 = \tilde\beta \text{ (small)},\quad \sigma^2_{t|s} \text{ (large)},\quad \text{between (learned)}$$

    Shapes: returns a rule. 'learned': the network's second half of channels chooses, per pixel, between the two.
    Raises: ValueError for another variance.
    Source: Ho et al. 2020, arXiv:2006.11239, alg. 2 and sec. 3.2; learned: Nichol and Dhariwal 2021, arXiv:2102.09672.
    """
    require(variance in ("small", "large", "learned"),
            f"variance must be 'small', 'large' or 'learned', got {variance!r}")

    def rule(levels, i):
        level, (signal_s, noise_s) = tuple(levels[i]), levels[i + 1]
        ratio, large, small = transition(level, levels[i + 1])
        sigma = {"small": small**0.5, "large": large**0.5, "learned": 1.0}[variance] if noise_s > 0 else 0.0
        bounds = (np.log(small) if noise_s > 0 else 0.0, np.log(large)) if variance == "learned" else None
        return (Stage(level, c_x=ratio * (noise_s / level[1]) ** 2, c_0=signal_s * large / level[1] ** 2, sigma=sigma,
                      log_variance=bounds),)

    return rule


def ddim(eta=0.0):
    r"""The family that keeps every marginal q(x_t | x_0): deterministic at eta 0, ancestral at eta 1.

    $$x_s = \alpha_s\hat x_0 + \sqrt{\sigma_s^2-\sigma^2}\;\hat\epsilon + \sigma z, \qquad
      \sigma = \eta\sqrt{\tilde\beta}$$

    Shapes: returns a rule, for any stride.
    Raises: ValueError when eta leaves [0, 1].
    Source: Song et al. 2021, arXiv:2010.02502, eq. 12 and 16.
    """
    require(0 <= eta <= 1, f"eta must be in [0, 1], got {eta}")

    def rule(levels, i):
        signal_s, noise_s = levels[i + 1]
        sigma = eta * transition(levels[i], levels[i + 1])[2] ** 0.5
        return (Stage(tuple(levels[i]), c_0=signal_s, c_eps=(noise_s**2 - sigma**2) ** 0.5, sigma=sigma),)

    return rule
