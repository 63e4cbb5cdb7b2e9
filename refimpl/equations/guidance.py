"""Guidance towards a condition or a goal: classifier-free in both conventions (the weight w, the scale s = 1 + w), its
rescaling, threshold and interval, by a classifier, and by the gradient of any loss of the estimate of x0."""
import numpy as np

from ..ops._check import alike, per_sample, require
from .diffusion import convert, estimate_coefficients
from .samplers import Stage


def scale_of_weight(w):
    r"""The scale that libraries ask for, from the weight of the paper.

    $$s = 1 + w$$

    Shapes: a number. w = 0, s = 1: the plain conditional model; s = 0: the unconditional one. The sampler loop's
    argument `guidance` and the w of the operation sampler_step are this s.
    Source: Ho and Salimans 2022, arXiv:2207.12598, eq. 6 (w); Saharia et al. 2022, arXiv:2205.11487, sec. 2.2 (s).
    """
    return 1 + w


def guided_by_weight(e_c, e_u, w):
    r"""Classifier-free guidance as its paper writes it: extrapolate from the conditional prediction.

    $$\tilde e = (1+w)\,e_c - w\,e_u = e_c + w\,(e_c-e_u)$$

    Shapes: e_c, e_u (N, ...); w a number; returns (N, ...). Linear.
    Raises: ValueError when the shapes differ.
    Source: Ho and Salimans 2022, arXiv:2207.12598, eq. 6.
    """
    alike("guided_by_weight", e_c=e_c, e_u=e_u)
    return e_c + w * (e_c - e_u)


def guided_by_weight_vjp(dy, e_c, e_u, w):
    """de_c = (1 + w) dy; de_u = -w dy."""
    return (1 + w) * dy, -w * dy


def guided_by_scale(e_c, e_u, s):
    r"""Classifier-free guidance as libraries write it: extrapolate from the unconditional prediction.

    $$\tilde e = e_u + s\,(e_c-e_u), \qquad s = 1 + w$$

    Shapes: e_c, e_u (N, ...); s a number; returns (N, ...). Linear.
    Raises: ValueError when the shapes differ.
    Source: Saharia et al. 2022, arXiv:2205.11487, sec. 2.2.
    """
    alike("guided_by_scale", e_c=e_c, e_u=e_u)
    return e_u + s * (e_c - e_u)


def guided_by_scale_vjp(dy, e_c, e_u, s):
    """de_c = s dy; de_u = (1 - s) dy."""
    return s * dy, (1 - s) * dy


def interval(scale, low, high):
    r"""Guidance on some levels only: neither where noise hides everything nor where it is nearly gone.

    $$s(\sigma) = s \ \text{ if } \ \sigma_{\mathrm{low}} < \sigma \le \sigma_{\mathrm{high}}, \ \text{ else } 1, \qquad
      \sigma = \mathrm{noise}/\mathrm{signal}$$

    Shapes: numbers; returns a function of (signal, noise), the sampler loop's `guidance`.
    Raises: ValueError unless 0 <= low < high.
    Source: Kynkäänniemi et al. 2024, arXiv:2404.07724.
    """
    require(0 <= low < high, f"0 <= low < high expected, got {low} and {high}")
    return lambda signal, noise: scale if low * signal < noise <= high * signal else 1.0


def _deviation(x):
    axes = tuple(range(1, x.ndim))
    d = x - np.mean(x, axis=axes, keepdims=True)
    n = x[0].size - 1
    require(n > 0, "a deviation needs at least two values per sample")
    return d, np.sqrt(np.sum(d**2, axis=axes, keepdims=True) / n), n


def rescaled(e, e_c, phi):
    r"""Bring a guided prediction's deviation back to the conditional one's, in part: strong guidance over-exposes.

    $$e' = \phi\,\frac{\mathrm{std}(e_c)}{\mathrm{std}(e)}\,e + (1-\phi)\,e$$

    Shapes: e (guided), e_c (N, ...); phi a number; returns (N, ...). std per sample, over all else, unbiased. Analytic.
    Raises: ValueError when the shapes differ or a sample of e is constant.
    Source: Lin et al. 2024, arXiv:2305.08891, eq. 15-16.
    """
    alike("rescaled", e_c=e_c, e=e)
    std = _deviation(e)[1]
    require(bool(np.all(std.real > 0)), "rescaled: a constant prediction has no deviation to scale by")
    return (phi * _deviation(e_c)[1] / std + (1 - phi)) * e


def rescaled_vjp(dy, e, e_c, phi):
    """With r = std_c/std and p = <dy, e>: de = (phi r + 1 - phi) dy - phi p r (e - mean)/((n-1) std^2);
    de_c = phi p (e_c - mean)/((n-1) std std_c)."""
    (d, std, n), (d_c, std_c, _) = _deviation(e), _deviation(e_c)
    p = np.sum(dy * e, axis=tuple(range(1, e.ndim)), keepdims=True)
    r, safe = std_c / std, np.where(std_c == 0, 1, std_c)  # a constant e_c has d_c = 0
    return (phi * r + 1 - phi) * dy - phi * p * r * d / (n * std**2), phi * p * d_c / (n * std * safe)


def dynamic_threshold(x0_hat, percentile):
    r"""Imagen's threshold: where guidance drives the estimate out of range, clip at a quantile and scale back.

    $$s = \max\left(1,\ \mathrm{quantile}_p(|\hat x_0|)\right), \qquad
      \hat x_0 \leftarrow \mathrm{clip}(\hat x_0, -s, s)/s$$

    Shapes: x0_hat (N, ...); percentile p in (0, 1]; returns (N, ...). The identity where the quantile is at most 1 and
    nothing beyond it leaves [-1, 1].
    Raises: ValueError when p leaves (0, 1].
    Source: Saharia et al. 2022, arXiv:2205.11487, sec. 2.3.
    """
    require(0 < percentile <= 1, f"percentile must be in (0, 1], got {percentile}")
    s = np.quantile(np.abs(x0_hat).reshape(len(x0_hat), -1), percentile, axis=1)
    s = per_sample(np.maximum(s, 1), x0_hat)
    return np.clip(x0_hat, -s, s) / s


def thresholded(predict, percentile, prediction="eps", guidance=1.0):
    r"""A predict whose estimate of x0 is guided and then dynamically thresholded. Its prediction is 'x0'.

    $$\hat x_0 = \mathrm{threshold}\left(a x + b\,[e_u + s\,(e_c-e_u)]\right)$$

    Shapes: predict as in the sampler loop; guidance a number or a function of (signal, noise); returns a predict, for
    prediction='x0', guidance=1: eps then follows the thresholded estimate.
    Source: Saharia et al. 2022, arXiv:2205.11487, sec. 2.3.
    """
    def x0_predict(x, signal, noise):
        e, s = predict(x, signal, noise), guidance(signal, noise) if callable(guidance) else guidance
        require(s == 1 or isinstance(e, tuple), f"guidance {s} needs a condition: predict must return (e_c, e_u)")
        e = guided_by_scale(*e, s) if isinstance(e, tuple) else e
        a, b, _, _ = (float(c) for c in estimate_coefficients(prediction, signal, noise))
        return dynamic_threshold(a * x + b * e, percentile)

    return x0_predict


def classifier_guided(predict, gradient, scale, prediction="eps"):
    r"""Classifier guidance of any sampler: the classifier's gradient joins the score, at x_t.

    $$\hat\epsilon' = \hat\epsilon - s\;\mathrm{noise}\;\nabla_x\log p(y|x_t), \qquad
      \nabla\log p(x_t)' = \nabla\log p(x_t) + s\,\nabla_x\log p(y|x_t)$$

    Shapes: gradient(x, signal, noise) -> (N, ...); returns a predict of the same prediction.
    Source: Dhariwal and Nichol 2021, arXiv:2105.05233, alg. 2; Song et al. 2021, arXiv:2011.13456, eq. 14.
    """
    def guided(x, signal, noise):
        score = convert(predict(x, signal, noise), x, signal, noise, prediction, "score")
        return convert(score + scale * gradient(x, signal, noise), x, signal, noise, "score", prediction)

    return guided


def classifier_shifted(rule, gradient, scale, at="mean"):
    r"""Classifier guidance of ancestral sampling: shift the mean by the variance times the classifier's gradient.

    $$x_s \sim N\left(\mu + s\,\sigma^2\,\nabla\log p(y|x)\big|_{x=\mu},\ \sigma^2\right) \ \text{(derived)}, \qquad
      \dots\big|_{x=x_t} \ \text{(the printed algorithm, and most code)}$$

    Shapes: rule of one stage with noise of a fixed variance (ddpm 'small' or 'large'); gradient(x, signal, noise) ->
    (N, ...), at the level of the x it is given; at 'mean' or 'x_t'; returns a rule. They differ in the second order of a
    step. A step without noise, the last, is not shifted.
    Raises: ValueError for another `at`, or a rule whose variance is learned.
    Source: Dhariwal and Nichol 2021, arXiv:2105.05233, eq. 3-10 and alg. 1.
    """
    require(at in ("mean", "x_t"), f"at must be 'mean' or 'x_t', got {at!r}")

    def shifted(levels, i):
        (stage,) = rule(levels, i)
        require(stage.log_variance is None, "classifier_shifted: a rule of fixed variance expected, this one's is learned")
        if stage.sigma == 0:
            return (stage,)

        def nudge(x, past):
            where, level = (x, tuple(levels[i + 1])) if at == "mean" else (past[0][0], past[0][2])
            return scale * stage.sigma**2 * gradient(where, *(float(v) for v in level))

        return stage._replace(sigma=0.0), Stage(None, c_x=1.0, sigma=stage.sigma, nudge=nudge)

    return shifted


def loss_guided(network, loss_gradient, scale, prediction="eps"):
    r"""Guidance by any loss of the estimate of x0: its gradient, through the network, joins the score.

    $$\hat s' = \hat s - s\,\nabla_{x_t} L(\hat x_0(x_t)), \qquad \hat x_0 = a x_t + b e, \quad
      \nabla_{x_t} L = a\,g + \mathrm{pullback}(b\,g), \quad g = \frac{dL}{d\hat x_0}$$

    Shapes: network(x, signal, noise) -> e, pullback(de) -> dx; loss_gradient(x0_hat) -> g (N, ...); returns a predict
    of the same prediction.
    Source: Chung et al. 2023, arXiv:2209.14687, alg. 1 (DPS); Kwon and Ye 2023, arXiv:2209.15264.
    """
    def guided(x, signal, noise):
        e, pullback = network(x, signal, noise)
        a, b, _, _ = (float(c) for c in estimate_coefficients(prediction, signal, noise))
        g = loss_gradient(a * x + b * e)
        score = convert(e, x, signal, noise, prediction, "score") - scale * (a * g + pullback(b * g))
        return convert(score, x, signal, noise, "score", prediction)

    return guided
