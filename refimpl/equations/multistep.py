"""Multistep solvers of the probability-flow ODE and of the reverse SDE: one evaluation a step, and a memory.

They start at first order and gain an order with each step. With h the step in lambda = log(signal/noise):
to noise 0 h is infinite, and the step is x0_hat; from signal 0, and after it, no slope is formed across it.
"""
import math

import numpy as np

from ..ops._check import require
from .samplers import Stage
from .solvers import first_order, half_log_snr


def plms():
    r"""Pseudo linear multistep (PNDM without Runge-Kutta): Adams and Bashforth's combination of eps in DDIM's step.

    $$\epsilon' = \frac{55\hat\epsilon_i - 59\hat\epsilon_{i-1} + 37\hat\epsilon_{i-2} - 9\hat\epsilon_{i-3}}{24}, \quad
      x_s = \frac{\alpha_s}{\alpha_t}x_t + \left(\sigma_s-\frac{\alpha_s}{\alpha_t}\sigma_t\right)\epsilon'$$

    Shapes: returns a rule for timesteps that are evenly spaced in t. The first step averages eps at both its ends, the
    next two take (3, -1)/2 and (23, -16, 5)/12. Order 2: the weights know t, the step does not. Last: x0_hat of eps'.
    Raises: ValueError at signal 0.
    Source: Liu et al. 2022, arXiv:2202.09778; the first step: Rombach et al. 2022, their code.
    """
    weights = {1: (3 / 2, -1 / 2), 2: (23 / 12, -16 / 12, 5 / 12)}

    def rule(levels, i):
        (signal, noise), (signal_s, noise_s) = levels[i], levels[i + 1]
        require(signal > 0, "plms divides by the signal, which is 0 at its first level")
        ratio = signal_s / signal
        c = noise_s - ratio * noise
        if i == 0:
            second = Stage((signal_s, noise_s), c_eps=c / 2, earlier={("x", 1): ratio, ("eps", 1): c / 2})
            return (*first_order(levels, i), *([second] if noise_s > 0 else []))
        now, *before = weights.get(i, (55 / 24, -59 / 24, 37 / 24, -9 / 24))
        # step i - j began at evaluation j before this one, but for step 0, whose second evaluation came between
        earlier = {("eps", j + (j == i)): c * w for j, w in enumerate(before, 1)}
        return (Stage((signal, noise), c_x=ratio, c_eps=c * now, earlier=earlier),)

    return rule


def _memory(levels, i, order):
    """How many x0_hats a step may combine, and their distances in lambda before level i, in units of the step h."""
    lambdas = [half_log_snr(level) for level in levels[max(i + 1 - order, 0):i + 2]]
    finite = [v for v in lambdas if math.isfinite(v)]
    if not math.isfinite(lambdas[-1]) or len(finite) < 2:
        return 1, math.inf, []
    h = finite[-1] - finite[-2]
    return len(finite) - 1, h, [(finite[-2] - v) / h for v in finite[-3::-1]]


def _slopes(distances):
    """Weights of x0_hat at i, i-1, ... in D1 = h x0' (one distance), or in D1 and D2 = h^2 x0'' (two)."""
    if len(distances) == 1:
        return (1 / distances[0], -1 / distances[0]), (0.0, 0.0)
    r0, r1 = distances[0], distances[1] - distances[0]
    first, second = np.array([1 / r0, -1 / r0, 0]), np.array([0, 1 / r1, -1 / r1])
    divided = (first - second) / (r0 + r1)  # half of h^2 x0''
    return first + r0 * divided, 2 * divided


def dpm_solver_pp(order, kind="midpoint", eta=0.0, lower_last=True, halved=False):
    r"""DPM-Solver++ 1, 2M, 3M: exponential integrators of x0_hat in lambda, of the ODE (eta 0) and of the SDE (eta 1).

    $$x_s = \frac{\sigma_s}{\sigma_t}e^{-\eta h}x_t + \alpha_s(1-e^{-k})\,\hat x_0 + \alpha_s\,\varphi\,D_1
      + \alpha_s\left(\frac12-\frac{\varphi}{k}\right)D_2 + \sigma_s\sqrt{1-e^{-2\eta h}}\;z$$
    $$k = (1+\eta)h, \qquad \varphi = 1-\frac{1-e^{-k}}{k}, \qquad D_1 = h\,\hat x_0', \quad D_2 = h^2\,\hat x_0''
      \ \text{ by divided differences}$$

    At order 2 kind='midpoint', the paper's 2M, has (1 - e^-k)/2 in place of phi; 'heun' the above.
    Shapes: returns a rule. Order k from exact starting values (eta 0); 3M reaches 2 from its own start. Order 1 is
    DDIM, at eta 1 DDPM. No noise at the last step, which returns x0_hat. lower_last: fewer terms towards the end (one
    at the last step, two before it), as is usual below 15 steps. halved: D2 counts half, as in the authors' code and
    the libraries that follow it; 3M is then of order 2 from any start.
    Raises: ValueError for another order or kind, or eta outside [0, 1].
    Source: Lu et al. 2022, arXiv:2211.01095, alg. 2 and app. B.5 (1, 2M); their code (3M, heun); k-diffusion (eta).
    """
    require(order in (1, 2, 3), f"dpm_solver_pp has orders 1, 2 and 3, got {order!r}")
    require(kind in ("midpoint", "heun"), f"kind must be 'midpoint' or 'heun', got {kind!r}")
    require(0 <= eta <= 1, f"eta must be in [0, 1], got {eta}")

    def rule(levels, i):
        (signal, noise), (signal_s, noise_s) = levels[i], levels[i + 1]
        terms, h, distances = _memory(levels, i, min(order, len(levels) - 1 - i) if lower_last else order)
        if eta > 0 and signal == 0 and noise_s > 0:  # the limit of h: all noise is new
            return (Stage((signal, noise), c_0=signal_s, sigma=noise_s),)
        if math.isinf(h):
            return first_order(levels, i)
        k = (1 + eta) * h
        gone = -math.expm1(-k)  # 1 - exp(-k)
        phi = 1 - gone / k
        c_1 = gone / 2 if terms == 2 and kind == "midpoint" else phi
        c_2 = (0.5 - phi / k) * (0.5 if halved else 1)
        return (_combine((signal, noise), noise_s / noise * math.exp(-eta * h), signal_s * gone, signal_s * c_1,
                         signal_s * c_2, distances, noise_s * (-math.expm1(-2 * eta * h)) ** 0.5),)

    return rule


def _combine(level, c_x, c_0, c_1, c_2, distances, sigma):
    """The stage c_x x + c_0 x0_hat + c_1 D1 + c_2 D2 + sigma z, the differences written out."""
    if not distances:
        return Stage(level, c_x=c_x, c_0=c_0, sigma=sigma)
    d_1, d_2 = _slopes(distances)
    now, *before = [c_1 * a + c_2 * b for a, b in zip(d_1, d_2)]
    return Stage(level, c_x=c_x, c_0=c_0 + now, earlier={("x0", j): w for j, w in enumerate(before, 1)}, sigma=sigma)


def _unipc_weights(distances, h, kind):
    """B(h) and, for the nodes -r_j of the past (and 1, the point ahead), predictor and corrector weights."""
    r = np.array([-d for d in distances] + [1.0])
    big = -h if kind == "bh1" else math.expm1(-h)
    b, phi, factorial = [], math.expm1(-h) / -h - 1, 1.0
    for k in range(1, len(r) + 1):
        b.append(phi * factorial / big)
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    rows = np.stack([r**k for k in range(len(r))])
    predictor = np.linalg.solve(rows[:-1, :-1], b[:-1]) if len(r) > 2 else np.full(len(r) - 1, 0.5)
    corrector = np.linalg.solve(rows, b) if len(r) > 1 else np.array([0.5])
    return big, r, predictor, corrector


def unipc(order, kind="bh2", corrector=True, lower_last=True):
    r"""UniPC: a multistep predictor of x0_hat in lambda, corrected for free once the next evaluation is there.

    $$x^p_s = \frac{\sigma_s}{\sigma_t}x_t - \alpha_s(e^{-h}-1)\,\hat x_0 - \alpha_s B(h)\sum_{m<k}\rho_m
      \frac{\hat x_{0,m}-\hat x_0}{r_m}, \qquad
      x^c_s = x^p_s - \alpha_s B(h)\left[\sum_{m<k}(\rho^c_m-\rho_m)\frac{\hat x_{0,m}-\hat x_0}{r_m}
      + \rho^c_k(\hat x_0(x^p_s)-\hat x_0)\right]$$

    Both in one stage: correct the step before, then predict. B is -h (bh1) or e^-h - 1 (bh2), the rho solve Vandermonde
    systems in the distances r_m (one half each where there is one unknown, by the authors' rule).
    Shapes: returns a rule. Order k + 1 with the corrector, k without; lower_last as in dpm_solver_pp.
    Raises: ValueError for an order outside 1..3 or another kind.
    Source: Zhao et al. 2023, arXiv:2302.04867, alg. 1-3, data prediction.
    """
    require(order in (1, 2, 3), f"unipc has orders 1, 2 and 3, got {order!r}")
    require(kind in ("bh1", "bh2"), f"kind must be 'bh1' or 'bh2', got {kind!r}")

    def at(levels, i):
        allowed = min(order, len(levels) - 1 - i) if lower_last else order
        return _memory(levels, i, allowed)

    def rule(levels, i):
        (signal, noise), (signal_s, noise_s) = levels[i], levels[i + 1]
        _, h, distances = at(levels, i)
        if math.isinf(h):
            return first_order(levels, i)
        c_x, taken = noise_s / noise, np.zeros(order + 2)  # what is taken of x0_hat now, one before, two before, ...
        if corrector and i > 0 and math.isfinite((past := at(levels, i - 1))[1]):
            big, r, rho_p, rho_c = _unipc_weights(past[2], past[1], kind)
            differences = (rho_c[:-1] - rho_p) / r[:-1]
            correction = np.concatenate([[rho_c[-1], -rho_c[-1] - differences.sum()], differences])
            taken[:len(correction)] = -c_x * signal * big * correction
        big, r, rho_p, _ = _unipc_weights(distances, h, kind)
        taken[0] -= signal_s * math.expm1(-h)
        slopes = rho_p / r[:-1]
        taken[:1 + len(slopes)] -= signal_s * big * np.concatenate([[-slopes.sum()], slopes])
        return (Stage((signal, noise), c_x=c_x, c_0=taken[0],
                      earlier={("x0", j): w for j, w in enumerate(taken[1:], 1) if w}),)

    return rule
