"""Samplers, guidance and exact mixtures: gradients, and what holds of every schedule, stride and eta."""
import numpy as np

from refimpl import ops
from refimpl.equations import bound, diffusion, guidance, mixture, samplers, schedules

from . import fact
from .diffusion import any_schedule
from .gaussian import expectation
from .gradients import pair


def any_mixture(d, dim=2, least=0.05):
    """A mixture of two to four Gaussians of various widths."""
    k = d.integer(2, 4)
    weights = np.exp(d.array(k))
    return mixture.mixture(weights / weights.sum(), 2 * d.array(k, dim), least + np.exp(d.array(k, dim)))


def _at_level(d):
    m = any_mixture(d)
    return {"x": 2 * d.array(d.integer(1, 4), 2), "m": m, "signal": d.real(0.2, 1), "noise": d.real(0.1, 2)}


pair(mixture.mixture_log_density, mixture.mixture_log_density_vjp, "x")(_at_level)
pair(mixture.mixture_score, mixture.mixture_score_vjp, "x")(_at_level)


@pair(mixture.tweedie, mixture.tweedie_vjp, "x", "score")
def _tweedie(d):
    return {"x": d.array(2, 3), "score": d.array(2, 3), "signal": d.real(0.2, 1), "noise": d.real(0.1, 2)}


for _f, _vjp, _s in ((guidance.guided_by_weight, guidance.guided_by_weight_vjp, "w"),
                     (guidance.guided_by_scale, guidance.guided_by_scale_vjp, "s")):
    pair(_f, _vjp, "e_c", "e_u")(lambda d, s=_s: {"e_c": d.array(2, 3), "e_u": d.array(2, 3), s: d.real(-1, 5)})


def _sublevels(d, schedule, most=8):
    """Levels at a random decreasing choice of timesteps."""
    n = d.integer(1, min(most, schedule.T))
    t = np.sort(d.rng.choice(np.arange(1, schedule.T + 1), n, replace=False))[::-1]
    return t, schedules.levels(schedule, t)


@fact("F-E5", samplers.ddim, samplers.ddpm, samplers.step_coefficients, tolerance=1e-10)
def ddim_keeps_the_marginal(d):
    """With x0 known, DDIM of any eta and stride maps q(x_t | x0) to q(x_s | x0); so does DDPM of the small variance."""
    s = any_schedule(d, 4)
    t, levels = _sublevels(d, s)
    rule = d.choice([samplers.ddim(d.real(0, 1)), samplers.ddpm()])
    error = 0.0
    for i in range(len(t)):
        (signal, noise), (signal_s, noise_s) = levels[i], levels[i + 1]
        (stage,) = rule(levels, i)
        c, _ = samplers.step_coefficients(stage, "x0")  # x0 itself is the prediction, clipped or not
        mean = c["c_x"] * signal + c["c_0"] + c["c_e"]
        error = max(error, abs(mean - signal_s), abs(c["c_x"] ** 2 * noise**2 + stage.sigma**2 - noise_s**2))
    return error


@fact("F-E5", samplers.ddim, samplers.ddpm, diffusion.posterior, tolerance=1e-10)
def eta_one_is_ancestral(d):
    """On adjacent levels DDIM at eta 1, DDPM's rule and the posterior are one step; sigma^2 is beta_tilde or beta."""
    s = schedules.linear(d.integer(2, 1000))
    t, x0, x_t = np.array([d.integer(1, s.T)]), d.array(1, 3), d.array(1, 3)
    levels = schedules.levels(s, t) if t[0] == 1 else schedules.levels(s, [t[0], t[0] - 1])
    mean, beta_tilde = diffusion.posterior(x0, x_t, t, s)
    error = 0.0
    for rule, variance in ((samplers.ddim(1.0), beta_tilde[0]), (samplers.ddpm(), beta_tilde[0]),
                           (samplers.ddpm("large"), s.beta[t[0]] if t[0] > 1 else 0.0)):
        (stage,) = rule(levels, 0)
        stage_mean, _ = ops.sampler_step(x_t, x0, **samplers.step_coefficients(stage, "x0")[0])
        error = max(error, np.max(abs(stage_mean - mean)), abs(stage.sigma**2 - variance))
    return error


@fact("F-E5b", samplers.sample, samplers.ddim, tolerance=1e-10)
def point_mass_is_hit(d):
    """When all data are one point, every sampler lands on it exactly at any stride, whatever the prediction."""
    s = schedules.cosine(d.integer(4, 1000))
    _, levels = _sublevels(d, s)
    prediction, point = d.choice(["eps", "x0", "v", "score", "flow"]), d.array(1, 3)
    rule = d.choice([samplers.ddim(), samplers.ddim(d.real(0, 1)), samplers.ddpm(), samplers.ddpm("large")])

    def predict(x, signal, noise):
        return diffusion.convert(point + 0 * x, x, signal, noise, "x0", prediction)

    x = samplers.sample(predict, d.array(4, 3), levels, rule, ops=ops, prediction=prediction, key=d.key())
    return np.max(abs(x - point)) * levels[0, 0]  # eps is divided by the first signal


@fact("F-E5", samplers.step_coefficients, samplers.ddim, tolerance=1e-9)
def predictions_agree(d):
    """One DDIM step is the same whichever prediction it is told, and, unclipped, whether eps is raw or re-derived."""
    s = schedules.cosine(d.integer(4, 1000))
    _, levels = _sublevels(d, s)
    x, e = d.array(2, 3), d.array(2, 3)
    stage = samplers.ddim(d.real(0, 1))(levels, 0)[0]._replace(sigma=0.0)
    steps = []
    for prediction in diffusion.PREDICTIONS:
        told = diffusion.convert(e, x, *stage.level, "eps", prediction)
        steps += [ops.sampler_step(x, told, **samplers.step_coefficients(stage, prediction, rederive)[0])[0]
                  for rederive in (False, True)]
    return max(np.max(abs(y - steps[0])) for y in steps) * stage.level[0] * stage.level[1]


@fact("F-E9", mixture.mixture_denoiser, mixture.tweedie, mixture.mixture_score, tolerance=1e-8)
def tweedie_and_quadrature(d):
    """E[x0 | x_t] of a mixture: closed form = Tweedie on the score = quadrature of Bayes' rule."""
    m, signal, noise = any_mixture(d, 1), d.real(0.2, 1), d.real(0.3, 1.5)
    x = 2 * d.array(1, 1)
    exact = mixture.mixture_denoiser(x, m, signal, noise)
    by_score = mixture.tweedie(x, mixture.mixture_score(x, m, signal, noise), signal, noise)

    def likelihood(x0):
        return np.exp(-((x.item() - signal * x0) ** 2) / (2 * noise**2))

    top, bottom = 0.0, 0.0
    for w, mean, variance in zip(m.weights, m.means[:, 0], m.variances[:, 0]):
        total = signal**2 * variance + noise**2  # integrate over each component's own posterior, where the mass is
        centre = mean + signal * variance / total * (x.item() - signal * mean)
        spread = variance * noise**2 / total

        def ratio(x0, mean=mean, variance=variance, centre=centre, spread=spread):
            return np.exp(((x0 - centre) ** 2 / spread - (x0 - mean) ** 2 / variance) / 2) * (spread / variance) ** 0.5

        bottom += w * expectation(lambda x0: likelihood(x0) * ratio(x0), centre, spread)
        top += w * expectation(lambda x0: x0 * likelihood(x0) * ratio(x0), centre, spread)
    return max(np.max(abs(exact - by_score)), abs(exact.item() - top / bottom))


@fact("F-E10", guidance.guided_by_weight, guidance.guided_by_scale, guidance.scale_of_weight, tolerance=1e-10)
def guidance_is_a_sharpened_score(d):
    """Guided score = gradient of (1+w) log p(x|c) - w log p(x) at fixed t; scale s = 1 + w; so is the fused step."""
    m, w, signal, noise = any_mixture(d), d.real(-0.5, 4), d.real(0.2, 1), d.real(0.3, 1.5)
    c, x = d.integer(0, len(m.weights) - 1), d.array(3, 2)
    given = mixture.mixture([1.0], m.means[c:c + 1], m.variances[c:c + 1])
    s_c, s_u = (mixture.mixture_score(x, q, signal, noise) for q in (given, m))

    def log_density(y):
        return (1 + w) * mixture.mixture_log_density(y, given, signal, noise) \
            - w * mixture.mixture_log_density(y, m, signal, noise)

    step = np.zeros((3, 2), dtype=complex)
    error = 0.0
    for i in range(2):
        step[:] = 0
        step[:, i] = 1e-30j
        exact = log_density(x + step).imag / 1e-30
        for guided in (guidance.guided_by_weight(s_c, s_u, w),
                       guidance.guided_by_scale(s_c, s_u, guidance.scale_of_weight(w)),
                       ops.sampler_step(x, s_c, s_u, guidance.scale_of_weight(w), a=0.0, b=1.0, c_0=1.0)[0]):
            error = max(error, np.max(abs(guided[:, i] - exact) / (1 + abs(exact))))
    return error


@fact("F-E8", samplers.transition, bound.log_variance_bounds, tolerance=1e-10)
def transition_of_adjacent_levels(d):
    """Between adjacent levels, transition gives sqrt(alpha_t), beta_t and beta_tilde_t."""
    s = schedules.linear(d.integer(3, 1000))
    t = d.integer(2, s.T)
    low, high = bound.log_variance_bounds(t, s)
    ratio, large, small = samplers.transition(*schedules.levels(s, [t, t - 1])[:2])
    return max(abs(ratio - s.alpha[t] ** 0.5), abs(large - np.exp(high)), abs(small - np.exp(low)))
