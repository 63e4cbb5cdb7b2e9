"""Forward process, posterior, predictions and schedules: gradients, and closed forms against the chain itself."""
import numpy as np

from refimpl.equations import bound, diffusion, schedules
from refimpl.equations.game import rotation

from . import fact
from .gradients import pair

SCHEDULES = {"linear": schedules.linear, "cosine": schedules.cosine, "scaled linear": schedules.scaled_linear,
             "bare cosine": schedules.bare_cosine, "sigmoid": schedules.sigmoid, "sigmoid beta": schedules.sigmoid_beta,
             "zero terminal SNR": lambda T: schedules.zero_terminal_snr(schedules.scaled_linear(T))}


def any_schedule(d, low=2, high=1000):
    """A schedule of any kind, T within low..high."""
    return SCHEDULES[d.choice(sorted(SCHEDULES))](d.integer(low, high))


def _times(d, schedule, n, first=1):
    return np.array([d.integer(first, schedule.T) for _ in range(n)])


def _two(*names):
    def inputs(d):
        schedule = schedules.cosine(d.integer(2, 50))
        shape = (d.integer(1, 3), d.integer(1, 4), 2)
        return {n: d.array(*shape) for n in names} | {"t": _times(d, schedule, shape[0]), "schedule": schedule}

    return inputs


def _mean(y):
    return y[0]


pair(diffusion.posterior, diffusion.posterior_vjp, "x0", "x_t", output=_mean)(_two("x0", "x_t"))
pair(diffusion.posterior_from_eps, diffusion.posterior_from_eps_vjp, "eps", "x_t", output=_mean)(_two("eps", "x_t"))


def _level(d):
    phi = d.real(0.1, 1.4)
    return {"signal": np.cos(phi) * d.real(0.5, 2), "noise": np.sin(phi)}


def _predictions(d):
    return d.choice(diffusion.PREDICTIONS), d.choice(diffusion.PREDICTIONS)


@pair(diffusion.training_target, diffusion.training_target_vjp, "x0", "eps")
def _training_target(d):
    shape = (d.integer(1, 3), d.integer(1, 4))
    return {"prediction": _predictions(d)[0], "x0": d.array(*shape), "eps": d.array(*shape)} | _level(d)


@pair(diffusion.convert, diffusion.convert_vjp, "e", "x_t")
def _convert(d):
    shape, (source, to) = (d.integer(1, 3), d.integer(1, 4)), _predictions(d)
    return {"e": d.array(*shape), "x_t": d.array(*shape), "source": source, "to": to} | _level(d)


@pair(diffusion.simple_loss, diffusion.simple_loss_vjp, "e", "target")
def _simple_loss(d):
    shape = (d.integer(1, 3), d.integer(1, 4))
    return {"e": d.array(*shape), "target": d.array(*shape), "weight": d.array(shape[0])}


@fact("F-E1", diffusion.marginal, diffusion.forward_step, schedules.from_beta, tolerance=1e-11)
def chain_equals_closed_form(d):
    """Running mean and variance step by step through q(x_t | x_{t-1}) gives sqrt(alpha_bar) x0 and 1 - alpha_bar."""
    s = any_schedule(d)
    mean, variance, n = d.array(1, 3), 0.0, d.integer(1, s.T)
    x0 = mean
    for t in range(1, n + 1):
        mean, beta = diffusion.forward_step(mean, np.array([t]), s)
        variance = (1 - beta[0]) * variance + beta[0]
    closed, closed_variance = diffusion.marginal(x0, np.array([n]), s)
    return max(np.max(abs(mean - closed)), abs(variance - closed_variance[0]))


@fact("F-E2", diffusion.posterior, diffusion.posterior_from_eps, tolerance=1e-10)
def posterior_is_bayes(d):
    """q(x_{t-1} | x_t, x0) by Bayes' rule on the two Gaussians = the x0 form = the eps form; t = 1 gives (x0, 0)."""
    s = any_schedule(d)
    t, x0, eps = _times(d, s, 1), d.array(1, 3), d.array(1, 3)
    signal, noise = schedules.level_at(s, t)
    x_t = signal * x0 + noise * eps
    mean, variance = diffusion.posterior(x0, x_t, t, s)
    prior_mean, prior_variance = s.alpha_bar[t - 1] ** 0.5 * x0, 1 - s.alpha_bar[t - 1]
    gain = prior_variance * s.alpha[t] ** 0.5 / (s.alpha[t] * prior_variance + s.beta[t])
    error = max(np.max(abs(mean - prior_mean - gain * (x_t - s.alpha[t] ** 0.5 * prior_mean))),
                abs(variance - prior_variance * (1 - gain * s.alpha[t] ** 0.5))[0])
    if s.alpha[t][0] > 1e-3:  # the eps form divides by sqrt(alpha_t): its rounding grows with that
        error = max(error, np.max(abs(mean - diffusion.posterior_from_eps(eps, x_t, t, s)[0])))
    first, none = diffusion.posterior(x0, x_t, np.array([1]), s)
    return max(error, np.max(abs(first - x0)), none[0])


@fact("F-E4", diffusion.training_target, diffusion.convert, diffusion.estimate_coefficients, tolerance=1e-12)
def velocity_is_a_rotation(d):
    """[x_t; v] = R(-phi) [x0; eps] with the rotation of the game x*y; score = -eps/noise; conversions invert."""
    phi, x0, eps = d.real(0.05, 1.5), d.array(2, 3), d.array(2, 3)
    signal, noise = np.cos(phi), np.sin(phi)
    x_t, v = np.tensordot(rotation(-phi), np.stack([x0, eps]), 1)
    source, to = _predictions(d)
    e = diffusion.training_target(source, x0, eps, signal, noise)
    return max(np.max(abs(x_t - signal * x0 - noise * eps)),
               np.max(abs(diffusion.training_target("v", x0, eps, signal, noise) - v)),
               np.max(abs(diffusion.convert(v, x_t, signal, noise, "v", "score") + eps / noise)) * noise,
               np.max(abs(diffusion.convert(e, x_t, signal, noise, source, to)
                          - diffusion.training_target(to, x0, eps, signal, noise))) * noise * signal)


CONSTANTS = {"linear": {1000: 4.035829765e-5, 500: 0.0785872429}, "cosine": {1000: 2.428766907e-9},
             "scaled linear": {1000: 4.660098513e-3}}


@fact("constants", schedules.linear, schedules.cosine, schedules.scaled_linear, tolerance=1e-9)
def reference_constants(d):
    """alpha_bar of the published T = 1000 schedules, relative to the reference constants."""
    name = d.choice(sorted(CONSTANTS))
    alpha_bar = SCHEDULES[name](1000).alpha_bar
    return max(abs(alpha_bar[t] / value - 1) for t, value in CONSTANTS[name].items())


@fact("labels", schedules.label_of_level, schedules.levels, schedules.log_snr, tolerance=1e-9)
def labels_invert_levels(d):
    """A level's label is its t: exactly on the grid; between, the label's log-SNR is the level's; any scale will do."""
    s = any_schedule(d, 3)
    t = _times(d, s, 1)
    signal, noise = schedules.level_at(s, t)
    label, scale = schedules.label_of_level(s, signal, noise), d.real(0.1, 10)
    if label[0] != t[0]:
        return np.inf
    scaled = schedules.label_of_level(s, scale * signal, scale * noise)
    k, f = d.integer(1, s.T - 2), d.real(0, 1)
    grid = schedules.log_snr(*schedules.level_at(s, np.array([k, k + 1])))
    between = schedules.label_of_level(s, np.exp(((1 - f) * grid[0] + f * grid[1]) / 2), 1.0)
    return max(abs(scaled - t)[0] * 1e-3, abs(between - k - f) * 1e-3)  # a log-SNR step can be as small as 1e-3


@pair(bound.prior_kl, bound.prior_kl_vjp, "x0")
def _prior_kl(d):
    return {"x0": d.array(d.integer(1, 3), d.integer(1, 4)), "schedule": schedules.linear(d.integer(2, 40))}


def _discrete(d):
    """Data on a grid, and a mean and log variance somewhere near."""
    bins, shape = d.choice([2, 17, 256]), (d.integer(1, 3), d.integer(1, 4))
    x0 = np.clip(np.round((d.array(*shape) + 1) / 2 * (bins - 1)), 0, bins - 1) * 2 / (bins - 1) - 1
    return {"x0": x0, "mean": x0 + 0.3 * d.array(*shape), "log_var": d.real(-6, 0) + d.array(*shape), "bins": bins}


pair(bound.discretised_gaussian, bound.discretised_gaussian_vjp, "mean", "log_var")(_discrete)


@pair(bound.learned_log_variance, bound.learned_log_variance_vjp, "o")
def _learned_log_variance(d):
    schedule = schedules.cosine(d.integer(2, 40))
    return {"o": d.array(2, 3), "t": _times(d, schedule, 2), "schedule": schedule}


@pair(bound.bound_term, bound.bound_term_vjp, "mean", "log_var", analytic=False)
def _bound_term(d):
    schedule, i = schedules.linear(d.integer(2, 40)), _discrete(d)
    t = _times(d, schedule, len(i["x0"]))
    t[0] = 1
    i["bins"] = d.choice([i["bins"], None])
    return i | {"x_t": i["x0"] + d.array(*i["x0"].shape), "t": t, "schedule": schedule}


@fact("F-E3", bound.eps_weight, bound.bound_term, tolerance=1e-8)
def bound_weight(d):
    """L_{t-1} of a fixed-variance model = weight ||eps - eps_hat||^2 + the constant of the two variances."""
    s = schedules.linear(d.integer(2, 1000))
    t, x0, eps, eps_hat = _times(d, s, 2, 2), d.array(2, 3), d.array(2, 3), d.array(2, 3)
    signal, noise = (a[:, None] for a in schedules.level_at(s, t))
    x_t = signal * x0 + noise * eps
    mean, beta_tilde = diffusion.posterior_from_eps(eps_hat, x_t, t, s)
    variance = s.beta[t] * d.real(0.5, 2)
    term = bound.bound_term(x0, x_t, t, s, mean, np.log(variance)[:, None] + 0 * x0, 256)
    constant = 3 / 2 * (beta_tilde / variance - 1 + np.log(variance / beta_tilde))
    expected = bound.eps_weight(t, s, variance) * np.sum((eps - eps_hat) ** 2, axis=1) + constant
    return np.max(abs(term - expected) / expected)


@fact("F-E7", bound.bound_term, bound.optimal_variance, bound.prior_kl, tolerance=1e-10)
def bound_is_entropy(d):
    """-ELBO of the exact reverse process of Gaussian data, with the prior q(x_T), is the entropy of the data."""
    s, s2 = schedules.linear(d.integer(2, 300), 1e-3, 0.05), d.real(0.2, 4)
    t = np.arange(2, s.T + 1)
    after, before = s.alpha_bar[t] * s2 + 1 - s.alpha_bar[t], s.alpha_bar[t - 1] * s2 + 1 - s.alpha_bar[t - 1]
    reverse = bound.optimal_variance(t, s, s2)
    # E KL(q(x_{t-1}|x_t,x_0) || p) with means gain x_t and c_0 x_0 + c_t x_t; zero-mean data, so only second moments
    c_0, c_t, beta_tilde = diffusion.posterior_coefficients(t, s)
    gain = np.sqrt(s.alpha[t]) * before / after
    cross = np.sqrt(s.alpha_bar[t]) * s2
    squared = c_0**2 * s2 + (c_t - gain) ** 2 * after + 2 * c_0 * (c_t - gain) * cross
    middle = np.sum(np.log(reverse / beta_tilde) + (beta_tilde + squared) / reverse - 1) / 2
    first = 0.5 * (np.log(2 * np.pi * bound.optimal_variance(1, s, s2)) + 1)  # -E log p(x0 | x1), p exact
    signal_power = s.alpha_bar[-1]
    end = 0.5 * (np.log((signal_power * s2 + 1 - signal_power) / (1 - signal_power)))  # E KL(q(x_T|x_0) || q(x_T))
    return abs(middle + first + end - 0.5 * (np.log(2 * np.pi * s2) + 1)) / (1 + s.T)


@fact("F-E8", bound.optimal_variance, bound.log_variance_bounds, bound.learned_log_variance, tolerance=1e-10)
def reverse_variance_extremes(d):
    """Data variance 0 gives beta_tilde and 1 gives beta; a learned variance at o = -1 and 1 gives the same two."""
    s = schedules.linear(d.integer(3, 1000))
    t = _times(d, s, 2, 2)
    low, high = bound.log_variance_bounds(t, s)
    ends = [bound.learned_log_variance(np.full((2, 3), o), t, s)[:, 0] for o in (-1.0, 1.0)]
    return max(np.max(abs(np.log(bound.optimal_variance(t, s, 0.0)) - low)), np.max(abs(ends[0] - low)),
               np.max(abs(np.log(bound.optimal_variance(t, s, 1.0)) - high)), np.max(abs(ends[1] - high)))


@fact("bins", bound.discretised_gaussian, tolerance=1e-10)
def bins_sum_to_one(d):
    """The probabilities of all values of the grid sum to 1, wherever the Gaussian is."""
    bins = d.integer(2, 256)
    grid = np.linspace(-1, 1, bins)[:, None]
    mean, log_var = 0 * grid + d.real(-1.5, 1.5), 0 * grid + d.real(-12, 2)
    return abs(np.sum(np.exp(bound.discretised_gaussian(grid, mean, log_var, bins))) - 1)


@fact("schedules", schedules.sigmoid, schedules.sigmoid_beta, schedules.bare_cosine, schedules.cosine,
      schedules.scaled_linear, schedules.linear, schedules.zero_terminal_snr, tolerance=1e-10)
def schedules_follow_their_formulas(d):
    """Every schedule against another way to write it, away from its clip; zero terminal SNR keeps t = 1, ends at 0."""
    T = d.integer(3, 60)
    k, u = d.integer(1, T - 1), np.arange(T + 1) / T
    sig = schedules.sigmoid_beta(T, 1e-3, 0.05).beta[1:]
    lin, scaled = schedules.linear(T, 1e-3, 0.05), schedules.scaled_linear(T, 1e-3, 0.05)
    start, end, tau = d.real(-4, 0), d.real(1, 4), d.real(0.5, 1.5)
    curve = np.tanh((start + u * (end - start)) / (2 * tau))  # sigma(x) = (1 + tanh(x/2))/2
    jabri = schedules.sigmoid(T, start, end, tau, max_beta=1.0).alpha_bar
    zero, s = schedules.zero_terminal_snr(lin), np.sqrt(lin.alpha_bar)
    cosine = schedules.cosine(T, max_beta=1.0).alpha_bar
    angle = (u + 0.008) / 1.008 * np.pi / 2
    rescaled = schedules.linear(T + 20, rescale=True).beta * (T + 20) / 1000
    return max(
        np.max(abs(sig + sig[::-1] - 0.051)), abs(sig[0] - 1e-3 - 0.049 / (1 + np.exp(6))),
        np.max(abs(np.diff(lin.beta[1:], 2)), initial=0), abs(lin.beta[1] - 1e-3), abs(lin.beta[-1] - 0.05),
        np.max(abs(np.diff(np.sqrt(scaled.beta[1:]), 2)), initial=0), abs(scaled.beta[-1] - 0.05),
        abs(rescaled[1] - 1e-4), abs(rescaled[-1] - 0.02),
        abs(jabri[k] - (curve[-1] - curve[k]) / (curve[-1] - curve[0])),
        abs(schedules.bare_cosine(T).alpha_bar[k] - np.cos(np.pi * k / (2 * T)) ** 2),
        abs(cosine[k] - (np.cos(2 * angle[k]) + 1) / (np.cos(2 * angle[0]) + 1)),
        abs(zero.alpha_bar[1] - lin.alpha_bar[1]), zero.alpha_bar[-1],
        abs(zero.alpha_bar[k] ** 0.5 - (s[k] - s[-1]) / (s[1] - s[-1]) * s[1]))


@fact("labels", schedules.label_of_level, schedules.zero_terminal_snr, tolerance=1e-9)
def labels_at_the_ends(d):
    """Above t = 1 a label is linear in noise/signal, from 0; below the last finite log-SNR, in signal/noise, to T."""
    s, f = schedules.zero_terminal_snr(schedules.linear(d.integer(3, 200), 1e-3, 0.05)), d.real(0, 1)
    (signal, noise), (signal_l, noise_l) = (schedules.level_at(s, t) for t in (1, s.T - 1))
    return max(abs(schedules.label_of_level(s, 1.0, f * noise / signal) - f),
               abs(schedules.label_of_level(s, f * signal_l / noise_l, 1.0) - (s.T - f)),
               abs(schedules.label_of_level(s, 1.0, 0.0)), abs(schedules.label_of_level(s, 0.0, 1.0) - s.T))


@fact("spacing", schedules.timesteps, tolerance=0)
def timesteps_by_the_published_code(d):
    """The three index rules as diffusers writes them, which counts from 0."""
    T = d.integer(1, 1000)
    steps = d.integer(1, T)
    leading = (np.arange(0, steps) * (T // steps)).round()[::-1]
    trailing = np.round(np.arange(T, 0, -T / steps))[:steps] - 1  # floating-point ranges may have one entry too many
    linspace = np.linspace(0, T - 1, steps).round()[::-1]
    return max(np.max(abs(schedules.timesteps(T, steps, spacing) - 1 - published)) for spacing, published in
               (("leading", leading), ("trailing", trailing), ("linspace", linspace)))
