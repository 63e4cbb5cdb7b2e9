"""Losses beyond the simple loss: weights, learned variance, score matching, EDM; choice of t."""
import numpy as np

from ..ops._check import per_sample, require, same_dtype
from .bound import bits_per_dim, bound_term, bound_term_vjp, learned_log_variance, learned_log_variance_vjp
from .diffusion import PREDICTIONS, estimate_coefficients, posterior, simple_loss, simple_loss_vjp
from .schedules import level_at

WEIGHTS = (*PREDICTIONS, "truncated_snr", "min_snr", "p2", "edm")


def loss_weight(kind, prediction, signal, noise, gamma=None, k=1.0, sigma_data=0.5):
    r"""Weight of the squared error of any prediction that makes the loss a named one: all are weights of x0's error.

    $$w_e = w_{x_0} b^2 \ \text{ since } \ \hat x_0 = a x_t + b e, \qquad w_{x_0}:\ \
      \frac1{b_p^2} \text{ (plain error of } p), \quad \max(S,1), \quad \min(S,\gamma),\quad \frac{S}{(k+S)^\gamma},
      \quad \frac{\sigma^2+\sigma_d^2}{(\sigma\sigma_d)^2}$$

    Shapes: kind one of WEIGHTS, in that order; prediction what the network predicts; signal, noise one number or (N,);
    returns their shape, float64. S = signal^2/noise^2, sigma = noise/signal. gamma is 5 for min_snr and 1 for p2 unless
    given. The weight of DDPM is 'eps', of score matching 'score' times noise^2, which is 'eps' too; S + 1 is 'v'.
    Raises: ValueError for another kind, or where the prediction does not determine x0.
    Source: Hang et al. 2023, arXiv:2303.09556 (min_snr); Choi et al. 2022, arXiv:2204.00227 (p2); Salimans and Ho 2022,
    arXiv:2202.00512 (truncated_snr, v); Karras et al. 2022, arXiv:2206.00364 (edm).
    """
    require(kind in WEIGHTS, f"kind must be one of {', '.join(WEIGHTS)}, got {kind!r}")
    b = estimate_coefficients(prediction, signal, noise)[1]
    if kind in PREDICTIONS:
        return (b / estimate_coefficients(kind, signal, noise)[1]) ** 2
    signal, noise = np.asarray(signal, dtype=np.float64), np.asarray(noise, dtype=np.float64)
    require((noise > 0).all(), f"the weight '{kind}' divides by the noise, which is 0")
    snr = (signal / noise) ** 2
    if kind == "truncated_snr":
        return np.maximum(snr, 1) * b**2
    if kind == "min_snr":
        return np.minimum(snr, 5.0 if gamma is None else gamma) * b**2
    if kind == "p2":
        return snr / (k + snr) ** (1.0 if gamma is None else gamma) * b**2
    return (1 / sigma_data**2 + snr) * b**2  # (sigma^2 + sigma_d^2)/(sigma sigma_d)^2


def bound_weight(level, level_s):
    r"""Weight of x0's squared error in the bound's divergence between two levels, at the posterior's own variance.

    $$L = \tfrac12\left(\mathrm{SNR}_s-\mathrm{SNR}_t\right)\|x_0-\hat x_0\|^2$$

    Shapes: pairs (signal, noise), s the cleaner; returns a float.
    Raises: ValueError at noise 0 or when s is not the cleaner.
    Source: Kingma et al. 2021, arXiv:2107.00630, eq. 13.
    """
    (signal, noise), (signal_s, noise_s) = level, level_s
    require(noise > 0 and noise_s > 0, "the divergence is infinite at noise 0: the last term is a likelihood")
    weight = ((signal_s / noise_s) ** 2 - (signal / noise) ** 2) / 2
    require(weight > 0, f"s must be the cleaner level, got {tuple(level)} to {tuple(level_s)}")
    return float(weight)


def hybrid_loss(e, o, x0, x_t, eps, t, schedule, bins, vlb_weight=1e-3, frozen=None):
    r"""Improved DDPM's loss: the mean is trained by the simple loss alone, the variance by the bound alone.

    $$L = L_{\mathrm{simple}}(e) + \lambda T\,\frac1N\sum_n \frac{L_{t-1}(\mathrm{sg}(e), o)}{D\ln 2}$$

    Shapes: e (eps_hat), o (the variance channels), x0, x_t, eps (N, ...); t (N,); frozen is the e inside the bound, e's
    own values unless given: it passes no gradient. Returns a scalar.
    Raises: ValueError when t leaves 1..T or the shapes differ.
    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 16; lambda = .001 (at T = 1000: plus the bound in bits).
    """
    terms = bound_term(x0, x_t, t, schedule, *_model(e if frozen is None else frozen, o, x_t, t, schedule), bins)
    return simple_loss(e, eps) + vlb_weight * schedule.T * np.mean(bits_per_dim(terms, x0))


def _model(e, o, x_t, t, schedule):
    """Mean and log variance of the reverse step that e and o stand for."""
    signal, noise = level_at(schedule, t)
    a, b, _, _ = estimate_coefficients("eps", signal, noise)
    x0_hat = per_sample(a, x_t) * x_t + per_sample(b, e) * e
    return posterior(x0_hat, x_t, t, schedule)[0], learned_log_variance(o, t, schedule)


def hybrid_loss_vjp(dy, e, o, x0, x_t, eps, t, schedule, bins, vlb_weight=1e-3, frozen=None):
    """de from the simple loss; do from the bound, through the log variance."""
    mean, log_var = _model(e if frozen is None else frozen, o, x_t, t, schedule)
    each = bits_per_dim(vlb_weight * schedule.T * dy / len(x0) * np.ones(len(x0), dtype=x0.dtype, like=x0), x0)
    dlog_var = bound_term_vjp(each, x0, x_t, t, schedule, mean, log_var, bins)[1]
    return simple_loss_vjp(dy, e, eps)[0], learned_log_variance_vjp(dlog_var, o, t, schedule)


def sliced_score_matching(net, x, v):
    r"""Sliced score matching with its variance reduced, and its parameter gradients, by one complex pass.

    $$L = \frac1N\sum_n\left[v^T\nabla_x s(x)\,v + \tfrac12\|s(x)\|^2\right], \qquad
      \frac{\partial}{\partial\theta} v^TJv = \frac{d}{de}\,\mathrm{pullback}_{x+ev}(v)\Big|_{e=0}$$

    Shapes: net(x) returns s (N, ...) and pullback(ds) -> dparams (a dict), dx, and takes complex128; x, v (N, ...)
    float64, v of covariance I. Returns the loss and dparams. It differs from E norm(s - true score)^2/2 by a constant.
    Raises: TypeError unless x and v have one dtype; ValueError when their shapes differ.
    Source: Song et al. 2019, arXiv:1905.07088 (its form with variance reduction).
    """
    same_dtype("sliced_score_matching", x=x, v=v)
    require(x.shape == v.shape and len(x) > 0, f"v must have x's shape {x.shape}, got {v.shape}")
    s, pullback = net(x + 1e-30j * v)
    loss = (np.sum(v * s.imag) / 1e-30 + np.sum(s.real**2) / 2) / len(x)
    along, _ = pullback((v + 0j) / len(x))
    plain, _ = pullback((s.real + 0j) / len(x))
    return loss, {name: along[name].imag / 1e-30 + plain[name].real for name in plain}


def edm_coefficients(sigma, sigma_data=0.5):
    r"""EDM's preconditioning: the denoiser is D(x) = c_skip x + c_out F(c_in x, c_noise).

    $$c_{\mathrm{skip}} = \frac{\sigma_d^2}{\sigma^2+\sigma_d^2}, \quad
      c_{\mathrm{out}} = \frac{\sigma\sigma_d}{\sqrt{\sigma^2+\sigma_d^2}}, \quad
      c_{\mathrm{in}} = \frac{1}{\sqrt{\sigma^2+\sigma_d^2}}, \quad c_{\mathrm{noise}} = \tfrac14\log\sigma$$

    Shapes: sigma positive, one number or (N,); returns four of its shape, float64.
    Raises: ValueError when sigma is not positive.
    Source: Karras et al. 2022, arXiv:2206.00364, table 1.
    """
    sigma = np.asarray(sigma, dtype=np.float64)
    require((sigma > 0).all(), f"sigma must be positive, got {sigma}")
    total = sigma**2 + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data / np.sqrt(total), 1 / np.sqrt(total), np.log(sigma) / 4


def edm_target(x0, x, sigma, sigma_data=0.5):
    r"""What F is asked for, so that its plain mean squared error is EDM's weighted loss.

    $$F^* = \frac{x_0 - c_{\mathrm{skip}}\,x}{c_{\mathrm{out}}}, \qquad \lambda(\sigma)\,c_{\mathrm{out}}^2 = 1$$

    Shapes: x0, x = x0 + sigma z (N, ...); sigma one number or (N,); returns (N, ...). Linear.
    Raises: ValueError when sigma is not positive.
    Source: Karras et al. 2022, arXiv:2206.00364, eq. 8.
    """
    c_skip, c_out, _, _ = edm_coefficients(sigma, sigma_data)
    return per_sample(1 / c_out, x0) * x0 - per_sample(c_skip / c_out, x) * x


def edm_target_vjp(dy, x0, x, sigma, sigma_data=0.5):
    """dx0 = dy/c_out; dx = -c_skip/c_out dy."""
    c_skip, c_out, _, _ = edm_coefficients(sigma, sigma_data)
    return per_sample(1 / c_out, x0) * dy, -per_sample(c_skip / c_out, x) * dy


def edm_sigma(z, mean=-1.2, deviation=1.2):
    r"""Training noise levels of EDM, from normal noise.

    $$\log\sigma = \mathrm{mean} + \mathrm{deviation}\; z$$

    Shapes: z (N,); returns (N,) float64.
    Source: Karras et al. 2022, arXiv:2206.00364, table 1.
    """
    return np.exp(mean + deviation * np.asarray(z, dtype=np.float64))


def importance_of_t(history, counts, uniform=1e-3):
    r"""How often to train each t: by the root of its loss's second moment, once every t has been seen often enough.

    $$p_t \propto \sqrt{E[L_t^2]}, \qquad p_t \leftarrow (1-u)\,p_t + \frac uT$$

    Shapes: history (T, K), the last K losses of t = 1..T; counts (T,), how many of them are there; returns (T,), sum 1,
    uniform until every count is K.
    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 18, with 10 losses a timestep; the floor is their code's.
    """
    T, K = history.shape
    require(len(counts) == T and T > 0 and K > 0, f"history (T, K) and counts (T,) expected, got {history.shape}")
    root = np.sqrt(np.mean(np.asarray(history, dtype=np.float64) ** 2, axis=1))
    if (np.asarray(counts) < K).any() or root.sum() == 0:
        return np.full(T, 1 / T)
    return (1 - uniform) * root / root.sum() + uniform / T


def draw_t(p, u):
    r"""Timesteps from uniform noise, and the weights that keep a loss's expectation.

    $$t = \min\{t : u \le p_1+\dots+p_t\}, \qquad w_t = \frac{1}{T p_t}$$

    Shapes: p (T,); u (N,) in (0, 1]; returns t (N,) in 1..T and w (N,) float64.
    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 18.
    """
    t = 1 + np.searchsorted(np.cumsum(p)[:-1], u)
    return t, 1 / (len(p) * np.asarray(p)[t - 1])


def record_losses(history, counts, t, losses):
    r"""Remember losses: the newest K of every timestep, the oldest dropped.

    $$\mathrm{history}_t \leftarrow (\mathrm{history}_{t,2}, \dots, \mathrm{history}_{t,K}, L)$$

    Shapes: history (T, K), counts (T,), t and losses (N,), in order; returns a new history and new counts.
    Raises: ValueError when t leaves 1..T.
    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, their code.
    """
    history, counts = np.array(history, dtype=np.float64), np.array(counts)
    require(len(t) == 0 or (min(t) >= 1 and max(t) <= len(history)), f"t must be in 1..{len(history)}, got {t}")
    for at, loss in zip(t, losses):
        if counts[at - 1] == history.shape[1]:
            history[at - 1, :-1] = history[at - 1, 1:]
        else:
            counts[at - 1] += 1
        history[at - 1, counts[at - 1] - 1] = loss
    return history, counts
