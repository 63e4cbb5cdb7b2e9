"""Losses, guidance and editing of diffusion models: gradients, and values known in closed form."""
import itertools

import numpy as np

from refimpl import ops
from refimpl.equations import (
    bound,
    diffusion,
    editing,
    guidance,
    mixture,
    objectives,
    samplers,
    schedules,
)

from . import fact
from .diffusion import _discrete, _level, _times
from .gaussian import expectation
from .gradients import pair
from .samplers import any_mixture


@pair(objectives.edm_target, objectives.edm_target_vjp, "x0", "x")
def _edm_target(d):
    return {"x0": d.array(2, 3), "x": d.array(2, 3), "sigma": np.exp(d.array(2)), "sigma_data": d.real(0.3, 2)}


@pair(objectives.hybrid_loss, objectives.hybrid_loss_vjp, "e", "o", analytic=False)
def _hybrid_loss(d):
    schedule, x0 = schedules.linear(d.integer(2, 40), 1e-3, 0.1), _discrete(d)["x0"]
    t, eps, shape = _times(d, schedule, len(x0)), d.array(*x0.shape), x0.shape
    signal, noise = (a[:, None] for a in schedules.level_at(schedule, t))
    return {"e": eps + 0.3 * d.array(*shape), "o": d.array(*shape), "x0": x0, "x_t": signal * x0 + noise * eps,
            "eps": eps, "t": t, "schedule": schedule, "bins": 17, "vlb_weight": d.real(0.01, 1),
            "frozen": eps + 0.3 * d.array(*shape)}


@pair(guidance.rescaled, guidance.rescaled_vjp, "e", "e_c")
def _rescaled(d):
    return {"e": d.array(2, 3, 2), "e_c": d.array(2, 3, 2), "phi": d.real(0, 1)}


@fact("weights", objectives.loss_weight, diffusion.convert, tolerance=1e-9)
def one_loss_for_every_target(d):
    """A named loss is one number whichever prediction it weighs."""
    at = _level(d)
    x_t, e, wrong = d.array(1, 3), d.array(1, 3), d.array(1, 3)
    kind, values = d.choice(objectives.WEIGHTS), []
    for p in diffusion.PREDICTIONS:
        told, truth = (diffusion.convert(eps, x_t, **at, source="eps", to=p) for eps in (wrong, e))
        values.append(objectives.loss_weight(kind, p, **at) * np.sum((told - truth) ** 2))
    return np.max(abs(np.array(values) / values[0] - 1))


@fact("weights", objectives.loss_weight, tolerance=1e-9)
def published_weights(d):
    """min-SNR min(S,g)/S, min(S,g), min(S,g)/(S+1) on eps, x0, v; P2 1/(k+S)^g on eps; EDM and S + 1 (v) on x0."""
    phi, g, k = d.real(0.1, 1.4), d.real(0.5, 6), d.real(0.5, 2)
    at = {"signal": np.cos(phi), "noise": np.sin(phi)}
    s, sigma, data = np.tan(phi) ** -2, np.tan(phi), d.real(0.3, 2)
    m = min(s, g)
    cases = {("min_snr", "eps"): m / s, ("min_snr", "x0"): m, ("min_snr", "v"): m / (s + 1),
             ("p2", "eps"): (k + s) ** -g, ("edm", "x0"): (sigma**2 + data**2) / (sigma * data) ** 2,
             ("v", "x0"): s + 1, ("eps", "x0"): s, ("truncated_snr", "x0"): max(s, 1),
             ("eps", "score"): at["noise"] ** 2}
    return max(abs(objectives.loss_weight(kind, p, **at, gamma=g, k=k, sigma_data=data) / w - 1)
               for (kind, p), w in cases.items())


@fact("weights", objectives.bound_weight, bound.eps_weight, tolerance=1e-8)
def two_forms_of_the_bound(d):
    """(SNR_s - SNR_t)/2 on x0 is beta^2/(2 beta_tilde alpha (1 - alpha_bar)) on eps, at variance beta_tilde."""
    s = schedules.linear(d.integer(3, 1000))
    t = d.integer(2, s.T)
    level, level_s = schedules.levels(s, [t, t - 1])[:2]
    on_eps = objectives.bound_weight(level, level_s) * (level[1] / level[0]) ** 2
    return abs(on_eps / bound.eps_weight(t, s, diffusion.posterior_coefficients(t, s)[2]) - 1)


@fact("F-E12", objectives.edm_coefficients, objectives.edm_target, objectives.loss_weight, tolerance=1e-12)
def edm_is_standardised(d):
    """EDM: input and target have variance 1, lambda c_out^2 = 1; for N(0, sigma_data^2) the best F is 0."""
    sigma, data = np.exp(d.real(-4, 4)), d.real(0.3, 2)
    c_skip, c_out, c_in, _ = objectives.edm_coefficients(sigma, data)
    target_variance = ((1 - c_skip) ** 2 * data**2 + c_skip**2 * sigma**2) / c_out**2
    weight = objectives.loss_weight("edm", "x0", 1.0, sigma, sigma_data=data)
    x = d.array(2, 1)
    best = mixture.mixture_denoiser(x, mixture.mixture([1.0], [[0.0]], data**2), 1.0, sigma)
    return max(abs(c_in**2 * (sigma**2 + data**2) - 1), abs(target_variance - 1), abs(weight * c_out**2 - 1),
               np.max(abs(objectives.edm_target(best, x, sigma, data))) * min(sigma, 1))


def _small_net(w, b, v):
    """A score network s = v tanh(w x + b) and its pullback, by hand."""
    def net(x):
        h = np.tanh(x @ w.T + b)

        def pullback(ds):
            dh = (ds @ v) * (1 - h**2)
            return {"w": dh.T @ x, "b": dh.sum(0), "v": ds.T @ h}, dh @ w

        return h @ v.T, pullback

    return net


@fact("ssm", objectives.sliced_score_matching, tolerance=1e-6)
def sliced_score_matching_gradient(d):
    """Parameter gradients of sliced score matching by the complex pass = central differences of its value."""
    params = {"w": d.array(3, 2), "b": d.array(3), "v": d.array(2, 3)}
    direction = {n: d.array(*p.shape) for n, p in params.items()}
    x, v = d.array(4, 2), d.array(4, 2)

    def at(h):
        moved = {n: p + h * direction[n] for n, p in params.items()}
        return objectives.sliced_score_matching(_small_net(**moved), x, v)

    slope = (at(1e-5)[0] - at(-1e-5)[0]) / 2e-5
    inner = sum(np.sum(g * direction[n]) for n, g in at(0.0)[1].items())
    return abs(slope - inner) / (1 + abs(slope))


@fact("ssm", objectives.sliced_score_matching, tolerance=1e-9)
def sliced_score_matching_value(d):
    """For a linear score s = -a x on N(0, 1), E_v and E_x give -a + a^2/2: least at the truth, a = 1."""
    a = d.real(0.2, 3)
    z, w = np.polynomial.hermite_e.hermegauss(8)

    def net(x):
        return -a * x, lambda ds: ({}, -a * ds)

    values = [objectives.sliced_score_matching(net, np.array([[x]]), np.ones((1, 1)))[0] for x in z]
    return abs(w @ values / w.sum() - (-a + a**2 / 2))


@fact("importance", objectives.importance_of_t, objectives.draw_t, objectives.record_losses, tolerance=1e-12)
def importance_sampling_is_unbiased(d):
    """sum p_t w_t f(t) is the plain mean of f; p follows the root of the second moment; full history only."""
    T, K = d.integer(1, 6), d.integer(1, 4)
    history, counts = np.zeros((T, K)), np.zeros(T, dtype=int)
    losses = abs(d.array(K + 1, T)) + 0.1
    for row in losses:
        uniform = objectives.importance_of_t(history, counts)
        if (counts < K).any() and np.max(abs(uniform - 1 / T)) > 0:
            return np.inf
        history, counts = objectives.record_losses(history, counts, np.arange(1, T + 1), row)
    p = objectives.importance_of_t(history, counts, uniform=1e-3)
    root = np.sqrt(np.mean(losses[1:] ** 2, axis=0))
    edges = np.concatenate([[0], np.cumsum(p)])
    t, w = objectives.draw_t(p, (edges[1:] + edges[:-1]) / 2)
    if list(t) != list(range(1, T + 1)):
        return np.inf
    f = d.array(T)
    return max(abs(np.sum(p * w * f) - f.mean()), np.max(abs(p - 0.999 * root / root.sum() - 1e-3 / T)))


@fact("G1", guidance.classifier_guided, mixture.mixture_score, tolerance=1e-10)
def classifier_guidance_is_bayes(d):
    """With the exact classifier's gradient at scale 1, the guided prediction is the exact conditional one."""
    m, signal, noise, x = any_mixture(d), d.real(0.2, 1), d.real(0.3, 1.5), d.array(3, 2)
    c, prediction = d.integer(0, len(m.weights) - 1), d.choice(diffusion.PREDICTIONS)
    given = mixture.mixture([1.0], m.means[c:c + 1], m.variances[c:c + 1])

    def score(x, q):
        return mixture.mixture_score(x, q, signal, noise)

    def predict(q):
        return lambda x, *level: diffusion.convert(score(x, q), x, *level, "score", prediction)

    guided = guidance.classifier_guided(predict(m), lambda x, *_: score(x, given) - score(x, m), 1.0, prediction)
    exact = predict(given)(x, signal, noise)
    return np.max(abs(guided(x, signal, noise) - exact) / (1 + abs(exact)))


@fact("G13", guidance.loss_guided, tolerance=1e-9)
def loss_guidance_is_the_gradient_through_x0(d):
    """The guided score moves by the gradient of the loss of x0_hat with respect to x_t, here by complex step."""
    w, x, goal, scale = d.array(2, 2), d.array(1, 2), d.array(1, 2), d.real(0.1, 2)
    prediction, at = d.choice(diffusion.PREDICTIONS), _level(d)

    def network(x, *_):
        h = np.tanh(x @ w)
        return h, lambda de: (de * (1 - h**2)) @ w.T

    a, b, _, _ = diffusion.estimate_coefficients(prediction, **at)

    def loss(x):
        return np.sum((a * x + b * network(x)[0] - goal) ** 2) / 2

    guided = guidance.loss_guided(network, lambda x0_hat: x0_hat - goal, scale, prediction)(x, *at.values())
    moved = diffusion.convert(guided, x, **at, source=prediction, to="score") \
        - diffusion.convert(network(x)[0], x, **at, source=prediction, to="score")
    gradient = np.array([[loss(x + 1e-30j * row).imag / 1e-30 for row in np.eye(2)]])
    return np.max(abs(moved + scale * gradient)) / (1 + scale * np.max(abs(gradient)))


@fact("G6", guidance.dynamic_threshold, guidance.rescaled, tolerance=1e-12)
def thresholds_and_rescaling(d):
    """Within [-1, 1] the dynamic threshold is the identity, beyond it ends at +-1; phi = 1 restores std(e_c)."""
    x = d.array(2, 3, 2)
    inside = x / np.max(abs(x))
    out = guidance.dynamic_threshold(3 * x / np.max(abs(x), axis=(1, 2), keepdims=True), d.real(0.3, 1))
    e, e_c = d.array(2, 3, 2), d.array(2, 3, 2)
    full, none = guidance.rescaled(e, e_c, 1.0), guidance.rescaled(e, e_c, 0.0)
    return max(np.max(abs(guidance.dynamic_threshold(inside, 0.995) - inside)), abs(np.max(abs(out)) - 1),
               np.max(abs(full.std(axis=(1, 2)) - e_c.std(axis=(1, 2)))), np.max(abs(none - e)))


@fact("G14", editing.sdedit_start, editing.keep_known, editing.repaint_levels, editing.resampling, tolerance=1e-12)
def editing_keeps_what_it_must(d):
    """Strength 0 returns the input; known pixels are exact; RePaint's order starts, ends and steps as it must."""
    s = schedules.cosine(d.integer(6, 40))
    levels = schedules.levels(s, schedules.timesteps(s.T, d.integer(2, 6), "trailing"))
    x, key = np.tanh(d.array(2, 4)), d.key()
    start, rest = editing.sdedit_start(x, levels, 0.0, (key, np.arange(2), 0), ops=ops)
    unchanged = samplers.sample(None, start, rest, samplers.ddpm(), ops=ops)
    mask, jump, repeats = d.array(4) > 0, d.integer(1, 3), d.integer(1, 3)
    order = editing.repaint_levels(levels, jump, repeats)
    up = np.sum(np.diff(order[:, 1]) > 0)
    jumps = len(range(1, len(levels) - jump, jump))
    if up != jump * (repeats - 1) * jumps or (order[0] != levels[0]).any() or (order[-1] != levels[-1]).any():
        return np.inf
    painted = samplers.sample(lambda x, *_: np.tanh(x), d.array(2, 4), order, editing.resampling(samplers.ddpm()),
                              ops=ops, key=1, after=editing.keep_known(x, mask, order, ops=ops, key=key))
    return max(np.max(abs(unchanged - x)), np.max(abs(painted - x)[:, mask], initial=0))


@fact("F-E7", bound.bound_term, bound.prior_kl, bound.optimal_variance, tolerance=1e-9)
def bound_is_entropy_by_its_terms(d):
    """The bound's own terms, in expectation over Gaussian data, sum to the entropy if the reverse process is exact."""
    s, s2 = schedules.linear(d.integer(2, 12), 1e-2, 0.3), d.real(0.3, 3)
    z, w = np.polynomial.hermite_e.hermegauss(3)  # terms are quadratic in the data and the noise
    zz, ww = np.array(list(itertools.product(z, z))), np.outer(w, w).ravel() / w.sum() ** 2
    x0, eps, total = s2**0.5 * zz[:, :1], zz[:, 1:], 0.0
    for t in range(2, s.T + 1):
        signal, noise = schedules.level_at(s, t)
        before, after = (s.alpha_bar[k] * s2 + 1 - s.alpha_bar[k] for k in (t - 1, t))
        x_t, variance = signal * x0 + noise * eps, bound.optimal_variance(t, s, s2)
        mean = s.alpha[t] ** 0.5 * before / after * x_t
        total += ww @ bound.bound_term(x0, x_t, np.full(9, t), s, mean, np.log(variance) + 0 * x0, 256)
    end = s.alpha_bar[-1] * s2 + 1 - s.alpha_bar[-1]  # variance of q(x_T), the prior in the place of N(0, 1)
    prior = ww @ bound.prior_kl(x0, s) + expectation(lambda x: x**2 / end - x**2, 0.0, end) / 2 + np.log(end) / 2
    decoder = (np.log(2 * np.pi * bound.optimal_variance(1, s, s2)) + 1) / 2
    return abs(total + prior + decoder - (np.log(2 * np.pi * s2) + 1) / 2)
