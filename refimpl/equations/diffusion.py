"""Forward process, posterior, the five things a network may predict, and the simplified loss."""
import numpy as np

from ..ops._check import alike, per_sample, require
from .schedules import level_at

# What a network may predict, as a row (m_0, m_e): prediction = m_0 x0 + m_e eps, at the level (signal, noise).
_ROWS = {
    "eps": lambda signal, noise: (0 * signal, 1 + 0 * noise),
    "x0": lambda signal, noise: (1 + 0 * signal, 0 * noise),
    "v": lambda signal, noise: (-noise, signal),
    "score": lambda signal, noise: (0 * signal, -1 / noise),
    "flow": lambda signal, noise: (-1 + 0 * signal, 1 + 0 * noise),
}
PREDICTIONS = tuple(_ROWS)


def _times(name, t, schedule, x):
    t = np.asarray(t)
    require(np.issubdtype(t.dtype, np.integer), f"{name}: t must be integers, got {t.dtype}")
    require(t.shape == x.shape[:1], f"{name}: t must be (N,) = {x.shape[:1]}, got shape {t.shape}")
    require(t.size == 0 or (t.min() >= 1 and t.max() <= schedule.T),
            f"{name}: t must be in 1..{schedule.T}, got {t.min()}..{t.max()}" if t.size else "")
    return t


def forward_step(x_prev, t, schedule):
    r"""Mean and variance of q(x_t | x_{t-1}): one step of the noising chain, alpha_t = 1 - beta_t.

    $$q(x_t|x_{t-1}) = N\left(\sqrt{\alpha_t}\,x_{t-1},\ \beta_t I\right)$$

    Shapes: x_prev (N, ...); t (N,) host integers in 1..T. Returns mean (N, ...), beta_t (N,) float64.
    Raises: ValueError when t leaves 1..T.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 2.
    """
    t = _times("forward_step", t, schedule, x_prev)
    return per_sample(np.sqrt(schedule.alpha[t]), x_prev) * x_prev, schedule.beta[t]


def marginal(x0, t, schedule):
    r"""Mean and variance of q(x_t | x_0): t steps of the chain at once. A sample of it is the operation q_sample.

    $$q(x_t|x_0) = N\left(\sqrt{\bar\alpha_t}\,x_0,\ (1-\bar\alpha_t) I\right)$$

    Shapes: x0 (N, ...); t (N,) host integers in 1..T. Returns mean (N, ...), variance (N,) float64.
    Raises: ValueError when t leaves 1..T.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 4.
    """
    signal, noise = level_at(schedule, _times("marginal", t, schedule, x0))
    return per_sample(signal, x0) * x0, noise**2


def posterior_coefficients(t, schedule):
    r"""What the posterior mean takes of x0 and of x_t, and its variance.

    $$\frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}, \qquad
      \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}, \qquad
      \tilde\beta_t = \frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\,\beta_t$$

    Shapes: t an integer or integers in 1..T, on the host. Returns three of t's shape, float64; t = 1 gives 1, 0, 0.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 7.
    """
    beta, alpha = schedule.beta[t], schedule.alpha[t]
    before, rest = schedule.alpha_bar[np.asarray(t) - 1], 1 - schedule.alpha_bar[t]
    # at t = 1, 1 - alpha_bar_1 is beta_1 but for the rounding of 1 - (1 - beta_1)
    return np.sqrt(before) * np.where(before == 1, 1, beta / rest), np.sqrt(alpha) * (1 - before) / rest, \
        (1 - before) / rest * beta


def posterior(x0, x_t, t, schedule):
    r"""Mean and variance of q(x_{t-1} | x_t, x_0).

    $$\tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t} x_0
                  + \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t} x_t ,\qquad
      \tilde\beta_t = \frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\,\beta_t$$

    Shapes: x0, x_t (N, ...); t (N,) host integers in 1..T. Returns mu_tilde (N, ...), beta_tilde (N,) float64.
    Raises: ValueError when t leaves 1..T or the shapes differ.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 6-7.
    """
    alike("posterior", x0=x0, x_t=x_t)
    c_0, c_t, beta_tilde = posterior_coefficients(_times("posterior", t, schedule, x_t), schedule)
    return per_sample(c_0, x0) * x0 + per_sample(c_t, x_t) * x_t, beta_tilde


def posterior_vjp(dy, x0, x_t, t, schedule):
    """dx0 = c_0 dy; dx_t = c_t dy, dy the mean's cotangent: the variance does not depend on the data."""
    c_0, c_t, _ = posterior_coefficients(t, schedule)
    return per_sample(c_0, x0) * dy, per_sample(c_t, x_t) * dy


def posterior_from_eps(eps, x_t, t, schedule):
    r"""Mean and variance of the same posterior where x0 is known through the noise that made x_t.

    $$\tilde\mu_t = \frac{1}{\sqrt{\alpha_t}}\left(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon\right)$$

    Shapes: eps, x_t (N, ...); t (N,) host integers in 1..T. Returns mu_tilde (N, ...), beta_tilde (N,) float64.
    Raises: ValueError when t leaves 1..T, the shapes differ, or alpha_t = 0 (zero terminal SNR: x0 is not in x_t).
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 10-11.
    """
    alike("posterior_from_eps", eps=eps, x_t=x_t)
    t = _times("posterior_from_eps", t, schedule, x_t)
    require((schedule.alpha[t] > 0).all(), "posterior_from_eps: alpha_t is 0 there, so eps does not determine x0")
    c_t, c_e = _eps_form(t, schedule)
    return per_sample(c_t, x_t) * x_t - per_sample(c_e, x_t) * eps, posterior_coefficients(t, schedule)[2]


def _eps_form(t, schedule):
    c_t = schedule.alpha[t] ** -0.5
    return c_t, c_t * schedule.beta[t] / np.sqrt(1 - schedule.alpha_bar[t])


def posterior_from_eps_vjp(dy, eps, x_t, t, schedule):
    """deps = -beta/sqrt(alpha (1 - alpha_bar)) dy; dx_t = dy/sqrt(alpha), dy the mean's cotangent."""
    c_t, c_e = _eps_form(t, schedule)
    return -per_sample(c_e, eps) * dy, per_sample(c_t, x_t) * dy


def estimate_coefficients(prediction, signal, noise):
    r"""How x0 and eps follow from x_t and a prediction e: invert two equations in two unknowns.

    $$\begin{pmatrix}x_t\\e\end{pmatrix} = \begin{pmatrix}\mathrm{signal}&\mathrm{noise}\\ m_0&m_e\end{pmatrix}
      \begin{pmatrix}x_0\\ \epsilon\end{pmatrix}, \quad (m_0,m_e):\ \epsilon\,(0,1),\ x_0\,(1,0),\
      v\,(-\mathrm{noise},\mathrm{signal}),\ \mathrm{score}\,(0,\tfrac{-1}{\mathrm{noise}}),\ \mathrm{flow}\,(-1,1)$$

    Shapes: signal, noise one number or (N,). Returns a, b, p, q: x0 = a x_t + b e, eps = p x_t + q e, float64.
    Raises: ValueError for another prediction, or where the two equations are one (eps or score without signal, x0
    without noise, v or flow at (0, 0)).
    Source: Salimans and Ho 2022, arXiv:2202.00512, app. D (v); Lipman et al. 2023, arXiv:2210.02747 (flow).
    """
    require(prediction in _ROWS, f"prediction must be one of {', '.join(PREDICTIONS)}, got {prediction!r}")
    signal, noise = np.asarray(signal, dtype=np.float64), np.asarray(noise, dtype=np.float64)
    require(prediction != "score" or (noise > 0).all(), "a score is infinite at noise 0")
    m_0, m_e = _ROWS[prediction](signal, noise)
    det = signal * m_e - noise * m_0
    require((det != 0).all(),
            f"prediction '{prediction}' does not determine x0 and eps at signal {signal}, noise {noise}")
    return m_e / det, -noise / det, -m_0 / det, signal / det


def training_target(prediction, x0, eps, signal, noise):
    r"""What the network is asked for, from the data and the noise that made x_t.

    $$\epsilon,\quad x_0,\quad v = \mathrm{signal}\,\epsilon - \mathrm{noise}\,x_0,\quad
      \mathrm{score} = -\epsilon/\mathrm{noise},\quad \mathrm{flow} = \epsilon - x_0$$

    Shapes: x0, eps (N, ...); signal, noise one number or (N,). Returns (N, ...). Linear.
    Raises: ValueError for another prediction, when the shapes differ, or for a score at noise 0.
    Source: Salimans and Ho 2022, arXiv:2202.00512; Song et al. 2021, arXiv:2011.13456; Lipman et al. 2023.
    """
    alike("training_target", x0=x0, eps=eps)
    c_0, c_e = _row(prediction, signal, noise)
    return per_sample(c_0, x0) * x0 + per_sample(c_e, eps) * eps


def _row(prediction, signal, noise):
    require(prediction in _ROWS, f"prediction must be one of {', '.join(PREDICTIONS)}, got {prediction!r}")
    require(prediction != "score" or (np.asarray(noise) > 0).all(), "a score is infinite at noise 0")
    return _ROWS[prediction](np.asarray(signal, dtype=np.float64), np.asarray(noise, dtype=np.float64))


def training_target_vjp(dy, prediction, x0, eps, signal, noise):
    """dx0 = m_0 dy; deps = m_e dy."""
    c_0, c_e = _row(prediction, signal, noise)
    return per_sample(c_0, x0) * dy, per_sample(c_e, eps) * dy


def convert(e, x_t, signal, noise, source, to):
    r"""One prediction as another: through the x0 and the eps that it stands for.

    $$e' = m'_0\,(a x_t + b e) + m'_e\,(p x_t + q e)$$

    Shapes: e, x_t (N, ...); signal, noise one number or (N,). source, to: 'eps', 'x0', 'v', 'score' or 'flow'.
    Returns (N, ...). Linear.
    Raises: ValueError where the source does not determine x0 and eps (see estimate_coefficients).
    Source: Salimans and Ho 2022, arXiv:2202.00512, app. D; Song et al. 2021, arXiv:2011.13456.
    """
    alike("convert", e=e, x_t=x_t)
    c_x, c_e = _conversion(signal, noise, source, to)
    return per_sample(c_x, x_t) * x_t + per_sample(c_e, e) * e


def _conversion(signal, noise, source, to):
    a, b, p, q = estimate_coefficients(source, signal, noise)
    c_0, c_e = _row(to, signal, noise)
    return c_0 * a + c_e * p, c_0 * b + c_e * q


def convert_vjp(dy, e, x_t, signal, noise, source, to):
    """de = (m'_0 b + m'_e q) dy; dx_t = (m'_0 a + m'_e p) dy."""
    c_x, c_e = _conversion(signal, noise, source, to)
    return per_sample(c_e, e) * dy, per_sample(c_x, x_t) * dy


def simple_loss(e, target, weight=1.0):
    r"""The simplified loss of DDPM, and with a weight per sample every other weighting of it.

    $$L = \frac1N \sum_n w_n \frac1D \sum_i (e_{ni} - \mathrm{target}_{ni})^2, \qquad L_{\mathrm{simple}}: w = 1$$

    Shapes: e, target (N, ...); weight one number or (N,). Returns a scalar. Analytic.
    Raises: ValueError when the shapes differ or the batch is empty.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 14.
    """
    alike("simple_loss", e=e, target=target)
    require(e.size > 0, f"simple_loss: an empty batch has no mean, got shape {e.shape}")
    return np.mean(per_sample(weight, e) * (e - target) ** 2)


def simple_loss_vjp(dy, e, target, weight=1.0):
    """de = dy 2 w (e - target)/(N D) = -dtarget."""
    de = dy * 2 / e.size * per_sample(weight, e) * (e - target)
    return de, -de
