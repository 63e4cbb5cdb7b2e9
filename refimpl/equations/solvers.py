"""One-step solvers of the probability-flow ODE: every step starts afresh, with one to three evaluations.

With y = x/signal and tau = noise/signal the ODE is dy/dtau = eps(x): Euler and Heun solve it in tau, the DPM-Solvers
in lambda = -log tau. The step to noise 0 is x0_hat in all of them: lambda is infinite there.
"""
import math

from ..ops._check import require
from .continuous import level_of_log_snr
from .samplers import Stage, transition


def half_log_snr(level):
    r"""DPM-Solver's time variable, of one level.

    $$\lambda = \log\frac{\mathrm{signal}}{\mathrm{noise}}$$

    Shapes: level a pair (signal, noise); returns a float, infinite at noise 0 and at signal 0.
    Source: Lu et al. 2022, arXiv:2206.00927, sec. 3.
    """
    signal, noise = level
    return math.inf if noise == 0 else -math.inf if signal == 0 else math.log(signal / noise)


def first_order(levels, i):
    r"""The step that all solvers share at first order: keep the two estimates, change the level. It is DDIM's.

    $$x_s = \alpha_s\,\hat x_0 + \sigma_s\,\hat\epsilon$$

    Shapes: levels (steps+1, 2), i a step; returns one stage in a tuple. Also in the direction of noise.
    Source: Song et al. 2021, arXiv:2010.02502, eq. 12 at eta = 0; Lu et al. 2022, arXiv:2206.00927, prop. 4.1.
    """
    return (Stage(tuple(levels[i]), c_0=levels[i + 1][0], c_eps=levels[i + 1][1]),)


def euler():
    r"""Euler's step in tau, as k-diffusion writes it. The same as DDIM at eta = 0, and as Euler on the straight path.

    $$\frac{x_s}{\alpha_s} = \frac{x_t}{\alpha_t} + (\tau_s-\tau_t)\,\hat\epsilon$$

    Shapes: returns a rule. Order 1. At signal 0, where tau is infinite, its limit, first_order.
    Source: Karras et al. 2022, arXiv:2206.00364, alg. 1 without its correction.
    """
    def rule(levels, i):
        (signal, noise), (signal_s, noise_s) = levels[i], levels[i + 1]
        if signal == 0:
            return first_order(levels, i)
        ratio = signal_s / signal
        return (Stage((signal, noise), c_x=ratio, c_eps=noise_s - ratio * noise),)

    return rule


def heun(churn=0.0, s_min=0.0, s_max=math.inf, s_noise=1.0, within=False):
    r"""EDM's sampler: raise the noise a little, then the trapezoidal rule in tau; Euler to noise 0.

    $$\hat\tau = (1+\gamma)\,\tau_t, \quad \hat x = x_t + \alpha_t\sqrt{\hat\tau^2-\tau_t^2}\;S_{\mathrm{noise}}\,z$$
    $$\frac{x_s}{\alpha_s} = \frac{\hat x}{\alpha_t} + (\tau_s-\hat\tau)\,\frac{\hat\epsilon+\hat\epsilon'}{2}$$

    Shapes: returns a rule; gamma = min(churn/steps, sqrt 2 - 1) while s_min <= tau <= s_max, else 0. Order 2 without
    churn. (With signal below 1 the raised level leaves its path: the network must know levels by their ratio.) within:
    never raise above the first level, where it may be the noisiest that the network knows.
    Raises: ValueError when churn or s_noise is negative; at signal 0 with churn.
    Source: Karras et al. 2022, arXiv:2206.00364, alg. 1 (churn 0) and 2.
    """
    require(churn >= 0 and s_noise >= 0, f"churn and s_noise must not be negative, got {churn} and {s_noise}")

    def rule(levels, i):
        (signal, noise), (signal_s, noise_s) = levels[i], levels[i + 1]
        if signal == 0:
            require(churn == 0, "churn has no meaning at signal 0: there is no more noise than all")
            return first_order(levels, i)
        raised, stages = noise, []
        if churn > 0 and s_min <= noise / signal <= s_max:
            raised = noise * (1 + min(churn / (len(levels) - 1), 2**0.5 - 1))
            raised = min(raised, levels[0][1] / levels[0][0] * signal) if within else raised
            stages = [Stage(None, c_x=1.0, sigma=(raised**2 - noise**2) ** 0.5 * s_noise)]
        ratio = signal_s / signal
        c = noise_s - ratio * raised  # alpha_s (tau_s - tau)
        stages.append(Stage((signal, raised), c_x=ratio, c_eps=c))
        if noise_s > 0:
            stages.append(Stage((signal_s, noise_s), c_eps=c / 2, earlier={("x", 1): ratio, ("eps", 1): c / 2}))
        return tuple(stages)

    return rule


def flow_heun():
    r"""The trapezoidal rule in the straight path's own time, where the velocity is eps - x0; Euler to noise 0.

    $$x_s = x_t + (s-t)\,\frac{\hat u + \hat u'}{2}, \qquad \hat u = \hat\epsilon-\hat x_0, \quad t = \mathrm{noise}$$

    Shapes: returns a rule. Order 2. (Its Euler step is `euler`, here as on every path.)
    Raises: ValueError for levels off the straight path.
    Source: Lipman et al. 2023, arXiv:2210.02747 (the ODE); Heun 1900.
    """
    def rule(levels, i):
        for level in levels[i:i + 2]:
            _on_path(level, "flow")
        h = levels[i + 1][1] - levels[i][1]
        first = Stage(tuple(levels[i]), c_x=1.0, c_eps=h, c_0=-h)
        if levels[i + 1][1] == 0:
            return (first,)
        return first, Stage(tuple(levels[i + 1]), c_eps=h / 2, c_0=-h / 2,
                            earlier={("x", 1): 1.0, ("eps", 1): h / 2, ("x0", 1): -h / 2})

    return rule


def _on_path(level, path):
    signal, noise = level
    if noise > 0 and signal > 0:
        exact = level_of_log_snr(2 * half_log_snr(level), path)
        require(abs(exact[0] - signal) <= 1e-9 * signal and abs(exact[1] - noise) <= 1e-9 * noise,
                f"level ({signal}, {noise}) is not on the path '{path}': say which path the levels follow")


def _between(levels, i, fractions, path):
    """Levels inside step i at fractions of it in lambda, and the step h in lambda."""
    start, end = half_log_snr(levels[i]), half_log_snr(levels[i + 1])
    for level in levels[i:i + 2]:
        _on_path(level, path)
    middles = [level_of_log_snr(2 * (start + r * (end - start)), path) for r in fractions]
    return [(float(signal), float(noise)) for signal, noise in middles], end - start


def dpm_solver(order, path="vp"):
    r"""DPM-Solver-1, 2, 3: exponential integrators of eps in lambda, single-step.

    $$x_s = \frac{\alpha_s}{\alpha_t}x_t - \sigma_s(e^h-1)\,\hat\epsilon_t
      - \begin{cases}\sigma_s(e^h-1)\,(\hat\epsilon_{1/2}-\hat\epsilon_t) & k=2\\
      \frac{\sigma_s}{2/3}\left(\frac{e^h-1}{h}-1\right)(\hat\epsilon_{2/3}-\hat\epsilon_t) & k=3\end{cases}$$

    Shapes: returns a rule; intermediate evaluations at 1/2, or 1/3 and 2/3, of the step h in lambda, on the path
    ('vp', 've', 'subvp' or 'flow') that the levels follow. Order k. To noise 0, and from signal 0: first order.
    Raises: ValueError for another order, or levels off the path.
    Source: Lu et al. 2022, arXiv:2206.00927, alg. 1 and 2 (r1 = 1/2; r1 = 1/3, r2 = 2/3).
    """
    require(order in (1, 2, 3), f"dpm_solver has orders 1, 2 and 3, got {order!r}")

    def rule(levels, i):
        (signal, _), (signal_s, noise_s) = levels[i], levels[i + 1]
        if order == 1 or noise_s == 0 or signal == 0:
            return first_order(levels, i)
        middles, h = _between(levels, i, {2: [1 / 2], 3: [1 / 3, 2 / 3]}[order], path)
        stages = [_exponential_eps(levels[i], middles[0], h / order)]
        if order == 2:  # D = eps_m - eps_t; earlier 1 is at t
            c = -noise_s * math.expm1(h)
            stages.append(Stage(middles[0], c_eps=c, earlier={("x", 1): signal_s / signal}))
        else:
            (signal_2, noise_2), r = middles[1], 2 / 3
            c, d = -noise_2 * math.expm1(r * h), -noise_2 * 2 * (math.expm1(r * h) / (r * h) - 1)
            stages.append(Stage(middles[0], c_eps=d, earlier={("x", 1): signal_2 / signal, ("eps", 1): c - d}))
            c, d = -noise_s * math.expm1(h), -noise_s / r * (math.expm1(h) / h - 1)
            stages.append(Stage(middles[1], c_eps=d, earlier={("x", 2): signal_s / signal, ("eps", 2): c - d}))
        return tuple(stages)

    return rule


def _exponential_eps(level, target, h):
    return Stage(tuple(level), c_x=target[0] / level[0], c_eps=-target[1] * math.expm1(h))


def dpm_solver_pp_2s(path="vp", eta=0.0):
    r"""DPM-Solver++ 2S: exponential integrator of x0_hat in lambda, with one evaluation in the middle; eta 1: its SDE.

    $$u = \frac{\sigma_m'}{\sigma_t}x_t + \left(\alpha_m - \alpha_t\frac{\sigma_m'}{\sigma_t}\right)\hat x_0
      + \sigma_m'' z, \qquad x_s = \frac{\sigma_s'}{\sigma_t}x_t
      + \left(\alpha_s - \alpha_t\frac{\sigma_s'}{\sigma_t}\right)\hat x_0(u) + \sigma_s'' z'$$

    with sigma'' = eta sqrt(beta_tilde) from t to that level, sigma'^2 + sigma''^2 = sigma^2: both moves are DDIM's.
    Shapes: returns a rule. Order 2 at eta 0. To noise 0, and from signal 0: first order, one such move.
    Raises: ValueError for levels off the path, or eta outside [0, 1].
    Source: Lu et al. 2022, arXiv:2211.01095, alg. 1 with r = 1/2; eta: k-diffusion's dpmpp_sde.
    """
    require(0 <= eta <= 1, f"eta must be in [0, 1], got {eta}")

    def rule(levels, i):
        level = tuple(levels[i])

        def move(target):
            up = eta * transition(level, target)[2] ** 0.5 if eta else 0.0
            kept = max(target[1] ** 2 - up**2, 0.0) ** 0.5 / level[1]
            return kept, target[0] - level[0] * kept, up

        if levels[i + 1][1] == 0 or level[0] == 0:
            c_x, c_0, up = move(levels[i + 1])
            return (Stage(level, c_x=c_x, c_0=c_0, sigma=up),)
        (middle,), _ = _between(levels, i, [1 / 2], path)
        c_x, c_0, up = move(middle)
        first = Stage(level, c_x=c_x, c_0=c_0, sigma=up)
        c_x, c_0, up = move(levels[i + 1])
        return first, Stage(middle, c_0=c_0, earlier={("x", 1): c_x}, sigma=up)

    return rule


def ancestral(rule, eta=1.0):
    r"""Make a one-step solver stochastic: solve to less noise than the next level has, and add the difference.

    $$\sigma_{\mathrm{up}} = \eta\sqrt{\tilde\beta}, \qquad
      \sigma_{\mathrm{down}} = \sqrt{\sigma_s^2-\sigma_{\mathrm{up}}^2}, \qquad
      x_s = \mathrm{solve}\left(x_t;\ (\alpha_s, \sigma_{\mathrm{down}})\right) + \sigma_{\mathrm{up}}\, z$$

    Shapes: rule, a one-step rule; returns a rule. On euler() it is Euler ancestral, and equals DDIM with this eta; on
    dpm_solver_pp_2s('ve') it is 2S ancestral. No noise is left to add at the last step.
    Raises: ValueError when eta leaves [0, 1].
    Source: k-diffusion (Crowson 2022); Song et al. 2021, arXiv:2010.02502, eq. 16 (sigma_up).
    """
    require(0 <= eta <= 1, f"eta must be in [0, 1], got {eta}")

    def noisy(levels, i):
        up = eta * transition(levels[i], levels[i + 1])[2] ** 0.5
        down = levels.copy()
        down[i + 1, 1] = max(levels[i + 1, 1] ** 2 - up**2, 0.0) ** 0.5
        *before, last = rule(down, i)
        return (*before, last._replace(sigma=up))

    return noisy


def ddim_inversion():
    r"""DDIM towards noise: the image is encoded by the same step taken upwards, the network being told the level ahead.

    $$x_{t'} = \alpha_{t'}\hat x_0 + \sigma_{t'}\,\hat\epsilon(x_t, t'), \qquad t' > t$$

    Shapes: returns a rule for levels that get noisier, the clean (1, 0) first. Exact where eps does not change along
    the step; the level ahead is told because a network knows no level 0.
    Raises: ValueError for levels that do not get noisier.
    Source: Song et al. 2021, arXiv:2010.02502, sec. 4.3; Dhariwal and Nichol 2021, arXiv:2105.05233, app. F.
    """
    def rule(levels, i):
        (signal, noise), (signal_s, noise_s) = levels[i], levels[i + 1]
        require(signal * noise_s > signal_s * noise, "inversion goes to noisier levels: give them from clean to noise")
        return (first_order(levels, i)[0]._replace(asked=(signal_s, noise_s)),)

    return rule
