"""Solvers, SDEs and continuous paths: where samplers coincide, what they hit exactly, what Langevin dynamics leaves."""
import itertools

import numpy as np

from refimpl import ops
from refimpl.equations import catalogue, cold, continuous, diffusion, multistep, samplers, schedules, sde, solvers

from . import fact
from .gradients import pair

PATHS = {
    "vp": (continuous.vp_level, continuous.vp_time, "vp"),
    "sub-vp": (continuous.subvp_level, continuous.subvp_time, "subvp"),
    "ve": (continuous.ve_level, continuous.ve_time, "ve"),
    "flow": (continuous.flow_level, continuous.flow_time, "flow"),
    "shifted cosine": (lambda t: continuous.shifted_cosine_level(t, 256),
                       lambda log_snr: continuous.shifted_cosine_time(log_snr, 256), "vp"),
}


def _drift(d):
    return {"x": d.array(2, 3), "score": d.array(2, 3), "f": d.real(-3, 0), "g2": d.real(0.1, 5)}


pair(sde.reverse_drift, sde.reverse_drift_vjp, "x", "score")(_drift)
pair(sde.flow_drift, sde.flow_drift_vjp, "x", "score")(_drift)


@fact("paths", continuous.level_of_log_snr, continuous.vp_level, continuous.subvp_level, continuous.ve_level,
      continuous.flow_level, continuous.shifted_cosine_level, tolerance=1e-10)
def log_snr_and_its_inverse(d):
    """On every path, the time of a level's log-SNR is the time, and the level of the log-SNR is the level."""
    t, error = d.real(0.01, 0.99), 0.0
    for level, time, family in PATHS.values():
        signal, noise = level(t)
        ell = schedules.log_snr(signal, noise)
        again = continuous.level_of_log_snr(ell, family)
        error = max(error, abs(time(ell) - t), abs(again[0] - signal) / signal, abs(again[1] - noise) / noise)
    return error


@fact("paths", continuous.karras_levels, continuous.exponential_levels, continuous.flow_levels, tolerance=1e-6)
def published_levels(d):
    """EDM's 18 sigmas; exponential levels are geometric; a flow shift lowers the log-SNR by 2 log(shift)."""
    karras = continuous.karras_levels(18)[:, 1]
    sigma = np.log(continuous.exponential_levels(d.integer(3, 30))[:-1, 1])
    shift, n = d.real(0.5, 6), d.integer(2, 30)
    plain, shifted = continuous.flow_levels(n)[1:-1], continuous.flow_levels(n, shift)[1:-1]
    moved = schedules.log_snr(plain[:, 0], plain[:, 1]) - schedules.log_snr(shifted[:, 0], shifted[:, 1])
    known = {0: 80, 1: 57.585985, 2: 40.785574, 15: 0.0229345, 16: 0.00752802, 17: 0.002, 18: 0}
    return max(max(abs(karras[i] - v) / (v or 1) * 1e-1 for i, v in known.items()),  # six digits are given
               np.max(abs(np.diff(sigma, 2)), initial=0), np.max(abs(moved - 2 * np.log(shift))))


@fact("sde", sde.drift_and_diffusion, continuous.vp_level, tolerance=1e-6)
def drift_follows_from_the_path(d):
    """f = d log signal/dt and g^2 = d noise^2/dt - 2 f noise^2, by central differences of the path."""
    kind = d.choice(["vp", "subvp", "ve"])
    level = {"vp": continuous.vp_level, "subvp": continuous.subvp_level, "ve": continuous.ve_level}[kind]
    t, h = d.real(0.1, 0.9), 1e-5
    (low, low_n), (high, high_n) = level(t - h), level(t + h)
    f, g2 = sde.drift_and_diffusion(t, kind)
    slope = (np.log(high) - np.log(low)) / (2 * h)
    growth = (high_n**2 - low_n**2) / (2 * h) - 2 * slope * level(t)[1] ** 2
    return max(abs(f - slope), abs(g2 / growth - 1))


def any_levels(d, path=None):
    """Levels from much noise to little on a path, ending at noise 0."""
    family = path or d.choice(["vp", "ve", "flow"])
    half = d.real(-3, -1) + np.cumsum(0.1 + abs(d.array(d.integer(2, 6))))
    return family, continuous.with_end(*continuous.level_of_log_snr(2 * half, family))


def all_rules(path):
    """Every deterministic rule for levels on the path, by name; the kinds of a rule are names of their own."""
    return {f"{name} {kind}": catalogue.sampler(name, path, **{"kind": kind} if kind else {})
            for name, s in catalogue.SAMPLERS.items() if not s.noise and (name != "flow-heun" or path == "flow")
            for kind in (("midpoint", "heun") if name == "dpm++-2m" else ("bh1", "bh2") if "unipc" in name else ("",))}


def stochastic_rules(path):
    """Every stochastic rule for levels on the path, by name."""
    elsewhere = {"langevin"} if path != "ve" else set()
    elsewhere |= {"euler-maruyama"} if path == "flow" else set()
    few = {"langevin": {"step": 1e-9, "inner": 2}}
    return {name: catalogue.sampler(name, path, **few.get(name, {}))
            for name, s in catalogue.SAMPLERS.items() if s.noise and name not in elsewhere} \
        | {"ddpm large": samplers.ddpm("large"), "ddim eta": samplers.ddim(0.7)} \
        | ({"2S ancestral": solvers.ancestral(solvers.dpm_solver_pp_2s("ve"))} if path == "ve" else {})


@fact("F-E5b", solvers.heun, solvers.dpm_solver, solvers.dpm_solver_pp_2s, multistep.plms, multistep.dpm_solver_pp,
      multistep.unipc, solvers.ancestral, sde.reverse_diffusion, tolerance=1e-8)
def every_sampler_hits_a_point_mass(d):
    """When all data are one point, every sampler ends on it exactly, at any stride, on every path."""
    path, levels = any_levels(d)
    rules = all_rules(path) | stochastic_rules(path)
    name, point = d.choice(sorted(rules)), d.array(1, 2)
    x = levels[0, 0] * point + levels[0, 1] * d.array(3, 2)
    y = samplers.sample(lambda x, *_: point + 0 * x, x, levels, rules[name], ops=ops, prediction="x0", key=d.key())
    return np.max(abs(y - point))


@fact("F-E5b", solvers.heun, solvers.dpm_solver, solvers.dpm_solver_pp_2s, multistep.plms, multistep.dpm_solver_pp,
      multistep.unipc, tolerance=1e-8)
def constant_eps_is_a_straight_line(d):
    """Where eps does not change along the path, every deterministic solver is exact at every step."""
    path, levels = any_levels(d)
    rules, x0, eps = all_rules(path), d.array(2, 2), d.array(2, 2)
    errors = []

    def after(i, x, x0_hat):
        errors.append(np.max(abs(x - levels[i + 1, 0] * x0 - levels[i + 1, 1] * eps)))

    samplers.sample(lambda x, *_: eps, levels[0, 0] * x0 + levels[0, 1] * eps, levels, rules[d.choice(sorted(rules))],
                    ops=ops, after=after)
    return max(errors) * min(levels[0, 0], 1)


def _same(d, levels, *rules):
    """Largest difference between rules on one linear network, from one start and with one noise."""
    w, b, x, key = d.array(2, 2), d.array(2), d.array(3, 2), d.key()
    runs = [samplers.sample(lambda x, signal, noise: np.tanh(x @ w + b), x, levels, rule, ops=ops, prediction="x0",
                            key=key) for rule in rules]
    return max(np.max(abs(run - runs[0])) for run in runs)


@fact("same", solvers.euler, solvers.dpm_solver, multistep.dpm_solver_pp, multistep.unipc, samplers.ddim,
      tolerance=1e-9)
def first_order_solvers_are_ddim(d):
    """Euler in noise/signal, DPM-Solver-1, DPM-Solver++1 and UniP-1 are all DDIM at eta 0."""
    path, levels = any_levels(d)
    return _same(d, levels, samplers.ddim(), solvers.euler(), solvers.dpm_solver(1, path), multistep.dpm_solver_pp(1),
                 multistep.unipc(1, corrector=False))


@fact("same", solvers.ancestral, multistep.dpm_solver_pp, samplers.ddim, samplers.ddpm, tolerance=1e-9)
def first_order_stochastic_samplers_are_ddpm(d):
    """Euler ancestral of any eta is DDIM of that eta; at eta 1 both are DDPM with beta_tilde, and SDE-DPM-Solver++1."""
    eta, (_, levels) = d.real(0, 1), any_levels(d)
    return max(_same(d, levels, samplers.ddim(eta), solvers.ancestral(solvers.euler(), eta)),
               _same(d, levels, samplers.ddpm(), solvers.ancestral(solvers.euler()),
                     multistep.dpm_solver_pp(1, eta=1.0)))


@fact("same", solvers.flow_heun, solvers.euler, tolerance=1e-9)
def euler_on_the_straight_path(d):
    """x + (s - t) velocity, Euler on the straight path in its own time, is the same Euler step."""
    _, levels = any_levels(d, "flow")

    def own_time(levels, i):
        h = levels[i + 1][1] - levels[i][1]
        return (samplers.Stage(tuple(levels[i]), c_x=1.0, c_eps=h, c_0=-h),)

    return _same(d, levels, own_time, solvers.euler())


@fact("order", multistep.dpm_solver_pp, multistep.unipc, tolerance=1e-8)
def multistep_integrates_polynomials(d):
    """If x0_hat is a polynomial of degree k-1 in lambda, order k is exact: 2M heun, 3M, their SDEs' mean, UniPC-3."""
    eta = d.real(0, 1)
    rule, order, rate, starts = d.choice([
        (multistep.dpm_solver_pp(2, "heun", eta, False), 2, 1 + eta, 1),
        (multistep.dpm_solver_pp(3, eta=eta, lower_last=False), 3, 1 + eta, 2),
        (multistep.unipc(3, lower_last=False), 3, 1, 3)])  # its corrector looks one step further back
    _, levels = any_levels(d)
    levels, c = levels[:-1], d.array(order)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    exact = [d.array(1, 1)]
    for level, level_s in itertools.pairwise(levels):  # variation of constants
        end, h = solvers.half_log_snr(level_s), solvers.half_log_snr(level_s) - solvers.half_log_snr(level)
        u = h * (nodes + 1) / 2
        integral = h / 2 * np.sum(weights * np.exp(-rate * u) * np.polyval(c, end - u))
        exact.append(level_s[1] / level[1] * np.exp((1 - rate) * h) * exact[-1] + rate * level_s[0] * integral)

    def predict(x, *level):
        return np.polyval(c, solvers.half_log_snr(level)) + 0 * x

    y = samplers.sample(predict, exact[0], levels, rule, ops=ops, prediction="x0", noise=lambda draw: np.zeros((1, 1)),
                        after=lambda i, x, _: exact[i + 1] if i < starts else None)
    return abs(y - exact[-1]).item() / max(abs(e).item() for e in exact)


@fact("F-E6", solvers.euler, solvers.heun, samplers.sample, tolerance=0.1)
def orders_on_a_gaussian(d):
    """For data N(0, s^2) the ODE's x grows as sqrt(s^2 + sigma^2): Euler's error has order 1, Heun's 2."""
    s2 = d.real(0.5, 2) ** 2
    error = []
    for rule, order in ((solvers.euler(), 1), (solvers.heun(), 2)):
        ends = []
        for n in (20, 40):
            sigma = np.exp(np.linspace(np.log(5.0), np.log(0.5), n + 1))
            levels = np.stack([np.ones(n + 1), sigma], axis=1)
            x = samplers.sample(lambda x, _, noise: noise * x / (s2 + noise**2), np.ones((1, 1)), levels, rule, ops=ops)
            ends.append(abs(x.item() - ((s2 + 0.25) / (s2 + 25)) ** 0.5))
        error.append(abs(np.log2(ends[0] / ends[1]) - order))
    return max(error)


@fact("F-E11", sde.langevin, sde.predictor_corrector, tolerance=1e-10)
def stationary_variance_of_langevin(d):
    """On N(0, 1) x + a/2 s + sqrt(a) z leaves variance 1/(1 - a/4), and x + h s + sqrt(2 h) z leaves 1/(1 - h/2)."""
    noise = d.real(0.1, 0.9)
    levels = np.array([[1.0, 2 * noise], [1.0, noise]])
    error = 0.0
    snr = d.real(0.1, 0.9)
    for stage, expected in (
            (sde.langevin(d.real(0.1, 3), 1)(np.array([[1.0, noise], [1.0, noise]]), 0)[0], lambda a: 1 / (1 - a / 4)),
            (sde.predictor_corrector(samplers.ddim(), snr, by_norms=False)(levels, 0)[-1], lambda a: 1 / (1 - a / 4))):
        a = stage.sigma**2  # sigma^2 is a, or 2 step: 1/(1 - step/2) is the same 1/(1 - a/4)
        factor = stage.c_x + stage.c_eps * noise  # the score is -x, so eps_hat = noise x
        error = max(error, abs(a / (1 - factor**2) / expected(a) - 1))
    return error


@fact("F-E13", cold.cold, cold.cold_prediction, tolerance=1e-10)
def cold_diffusion_is_exact(d):
    """Algorithm 2 undoes D(x, s) = x + s e exactly with any restorer; algorithm 1 does not."""
    x0, e, steps, w = d.array(2, 3), d.array(1, 3), d.integer(1, 8), d.array(3, 3)

    def degrade(x, s):
        return x + s * e

    def restore(x, s):
        return np.tanh(x @ w)

    ends = [samplers.sample(cold.cold_prediction(restore, degrade, improved), degrade(x0, steps),
                            cold.cold_levels(steps), cold.cold(improved), ops=ops, prediction="x0")
            for improved in (True, False)]
    return np.max(abs(ends[0] - x0)) if np.max(abs(ends[1] - x0)) > 1e-3 else np.inf


@fact("F-E13", cold.faded, cold.cold, tolerance=1e-10)
def fading_to_fixed_noise_is_undone(d):
    """D(x, s) = (1 - s/T) x + (s/T) z with fixed z: algorithm 2 goes from z to the mean of what the restorer says."""
    z, steps = d.array(2, 3), d.integer(1, 8)
    says = d.array(steps, 2, 3)

    def degrade(x, s):
        return cold.faded(x, np.full(2, s / steps), z)

    predict = cold.cold_prediction(lambda x, s: says[s - 1], degrade)
    end = samplers.sample(predict, z, cold.cold_levels(steps), cold.cold(), ops=ops, prediction="x0")
    return np.max(abs(end - says.mean(axis=0)))  # of x_T = z nothing of x0 is left: only what is said about it counts


@fact("F-E13", cold.blurred, tolerance=1e-10)
def blurs_compose(d):
    """A^s A^r = A^(s+r), A^0 = 1, means stay, and a cosine of the transform is damped by its own factor."""
    x, w = d.array(2, 1, 4, 6), d.real(0.2, 2)
    s, r = (d.rng.uniform(0, 3, 2) for _ in range(2))
    k, i = d.integer(0, 5), np.arange(6)
    wave = np.tile(np.cos(np.pi * k * (2 * i + 1) / 12), (2, 1, 4, 1))
    factor = np.exp(-((w * np.pi * k / 6) ** 2) / 2 * s).reshape(2, 1, 1, 1)
    once, axes = cold.blurred(x, s, w), (1, 2, 3)
    return max(np.max(abs(cold.blurred(once, r, w) - cold.blurred(x, s + r, w))), np.max(abs(cold.blurred(x, 0 * s, w) - x)),
               np.max(abs(once.mean(axes) - x.mean(axes))), np.max(abs(cold.blurred(wave, s, w) - factor * wave)))


@fact("F-E13", cold.blurred, cold.cold_prediction, tolerance=1e-9)
def blurs_are_not_undone(d):
    """A restorer that is off by delta leaves (1 - A^T) delta under algorithm 2, where for x + s e nothing is left, and delta
    under algorithm 1: low frequencies come out right, the highest do not."""
    x0, delta, steps, w = d.array(2, 1, 4, 4), d.array(2, 1, 4, 4), d.integer(1, 8), d.real(0.3, 1.5)
    blur = lambda x, s: cold.blurred(x, np.full(2, float(s)), w)
    ends = [samplers.sample(cold.cold_prediction(lambda x, s: x0 + delta, blur, improved), blur(x0, steps),
                            cold.cold_levels(steps), cold.cold(improved), ops=ops, prediction="x0") - x0
            for improved in (True, False)]
    return max(np.max(abs(ends[0] - delta + blur(delta, steps))), np.max(abs(ends[1] - delta)))


@fact("F-E13", cold.gaussian_like, tolerance=1e-8)
def gaussian_of_data(d):
    """Noise whose mean is 0 and covariance 1 exactly takes the data's own mean and covariance."""
    x, z = d.array(9, 3) @ d.array(3, 3) + d.array(3), d.array(7, 3)
    z -= z.mean(axis=0)
    z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / 7)).T
    y = cold.gaussian_like(x, z)
    return max(np.max(abs(y.mean(axis=0) - x.mean(axis=0))),
               np.max(abs(np.cov(y.T, bias=True) - np.cov(x.T, bias=True)))) / (1 + np.max(abs(x)) ** 2)


@fact("F-E4", diffusion.convert, solvers.ddim_inversion, tolerance=1e-8)
def inversion_undoes_ddim(d):
    """Where eps does not change along the path, DDIM inversion and DDIM return the image."""
    _, levels = any_levels(d)
    x, eps = d.array(2, 2), d.array(2, 2)
    up = samplers.sample(lambda *_: eps, x, levels[::-1], solvers.ddim_inversion(), ops=ops)
    return np.max(abs(samplers.sample(lambda *_: eps, up, levels, samplers.ddim(), ops=ops) - x)) * min(levels[0, 0], 1)
