"""Point-wise non-linearities and the softmax, each followed by its vjp."""
import numpy as np

from ._check import require
from ._special import special


def sigmoid(x):
    r"""Logistic sigmoid.

    $$\sigma(x) = \frac{1}{1+e^{-x}}$$

    Shapes: x any; returns x's shape. Analytic. Never overflows: the exponent is always -|x|.
    Source: Goodfellow, Bengio, Courville 2016, Deep Learning, sec. 3.10.
    """
    # minimum orders complex numbers by their real part, so -|x| keeps its imaginary part; np.where is 5 times slower.
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(np.minimum(x, -x)))


def sigmoid_vjp(dy, x):
    """dx = dy s (1 - s)."""
    s = sigmoid(x)
    return dy * s * (1 - s)


def softplus(x):
    r"""Softplus, the negative log of sigmoid(-x).

    $$\zeta(x) = \log(1+e^{x}) = \max(x, 0) + \log(1+e^{-|x|})$$

    Shapes: x any; returns x's shape. Analytic.
    Source: Goodfellow, Bengio, Courville 2016, Deep Learning, sec. 3.10.
    """
    return np.maximum(x, 0) + np.log1p(np.exp(np.minimum(x, -x)))


def softplus_vjp(dy, x):
    """dx = dy sigmoid(x)."""
    return dy * sigmoid(x)


def silu(x):
    r"""Sigmoid-weighted linear unit (swish with unit slope).

    $$\mathrm{silu}(x) = x\,\sigma(x)$$

    Shapes: x any; returns x's shape. Analytic.
    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415; Ramachandran et al. 2017, arXiv:1710.05941.
    """
    return x * sigmoid(x)


def silu_vjp(dy, x):
    """dx = dy s (1 + x (1 - s))."""
    s = sigmoid(x)
    return dy * s * (1 + x * (1 - s))


def relu(x):
    r"""Rectified linear unit.

    $$\mathrm{relu}(x) = \max(x, 0)$$

    Shapes: x any; returns x's shape. Piecewise: the mask comes from the real part; the derivative at 0 is 0.
    Source: Nair and Hinton 2010, ICML.
    """
    return x * (x.real > 0)  # the same bits as np.where, which mispredicts its branch at every other element


def relu_vjp(dy, x):
    """dx = dy where x > 0."""
    return dy * (x.real > 0)


def leaky_relu(x, slope):
    r"""Leaky rectified linear unit.

    $$f(x) = x \;(x > 0), \quad \mathrm{slope}\cdot x \;(x \le 0)$$

    Shapes: x any; returns x's shape. The slope has no default: PyTorch's is .01, DCGAN's .2.
    Source: Maas, Hannun, Ng 2013, ICML workshop.
    """
    return x * _slopes(x, slope)


def leaky_relu_vjp(dy, x, slope):
    """dx = dy where x > 0, slope dy elsewhere."""
    return dy * _slopes(x, slope)


def _slopes(x, slope):
    """1 where x > 0, slope elsewhere, exactly; by arithmetic, since np.where mispredicts its branch."""
    positive = x.real > 0
    return positive + x.real.dtype.type(slope) * ~positive


def prelu(x, slope):
    r"""Leaky rectified linear unit whose slope is learnt, one per channel or one for all.

    $$f(x)_c = x_c \;(x_c > 0), \quad a_c\,x_c \;(x_c \le 0)$$

    Shapes: x (N, C, ...); slope (C,) or (1,). Returns x's shape. Piecewise: the mask comes from the real part.
    Raises: ValueError when slope is neither (C,) nor (1,).
    Source: He et al. 2015, arXiv:1502.01852.
    """
    require(x.ndim >= 2 and slope.shape in ((x.shape[1],), (1,)),
            f"prelu: slope must be (C,) or (1,) for x (N, C, ...), got slope {slope.shape} for x {x.shape}")
    return np.where(x.real > 0, x, slope.reshape((-1,) + (1,) * (x.ndim - 2)) * x)


def prelu_vjp(dy, x, slope):
    """dx = dy where x > 0, slope dy elsewhere; dslope = sum of dy x where x <= 0."""
    dx = np.where(x.real > 0, dy, slope.reshape((-1,) + (1,) * (x.ndim - 2)) * dy)
    dslope = np.sum(np.where(x.real > 0, 0 * x, x) * dy, axis=(0, *range(2, x.ndim)))
    return dx, dslope if slope.shape[0] == x.shape[1] else np.sum(dslope)[None]


def tanh(x):
    r"""Hyperbolic tangent.

    $$\tanh x = \frac{e^{x}-e^{-x}}{e^{x}+e^{-x}}$$

    Shapes: x any; returns x's shape. Analytic.
    Source: Abramowitz and Stegun 1964, 4.5.3.
    """
    return np.tanh(x)


def tanh_vjp(dy, x):
    """dx = dy (1 - tanh(x)^2)."""
    return dy * (1 - np.tanh(x) ** 2)


def gelu(x, approximate):
    r"""Gaussian error linear unit, in both published forms.

    $$\mathrm{gelu}(x) = x\,\Phi(x) = \frac{x}{2}\left(1+\mathrm{erf}\left(\frac{x}{\sqrt2}\right)\right) \approx
      \frac{x}{2}\left(1+\tanh\left(\sqrt{2/\pi}\,(x+.044715\,x^{3})\right)\right)$$

    Shapes: x any; returns x's shape. Analytic. approximate: "none" (erf) or "tanh", PyTorch's names; no default.
    Raises: ValueError for another form.
    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415.
    """
    require(approximate in ("none", "tanh"), f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    if approximate == "tanh":
        return x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x * x * x)))
    return x / 2 * (1 + special(x).erf(x * 0.5**0.5))


def gelu_vjp(dy, x, approximate):
    """erf form: dx = dy (Phi(x) + x phi(x)); tanh form: the product rule on x/2 (1 + tanh u(x))."""
    if approximate == "tanh":
        th = np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x * x * x))
        return dy * (1 + th + x * (1 - th**2) * (2 / np.pi) ** 0.5 * (1 + 3 * 0.044715 * x**2)) / 2
    return dy * ((1 + special(x).erf(x * 0.5**0.5)) / 2 + x * np.exp(-(x**2) / 2) * (2 * np.pi) ** -0.5)


def softmax(x, axis=-1):
    r"""Softmax, shifted by the maximum so that no exponential overflows.

    $$p_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$

    Shapes: x any; returns x's shape. Analytic. A row that is -inf throughout gives 0.
    Source: Bridle 1990; Goodfellow, Bengio, Courville 2016, sec. 6.2.2.3.
    """
    m = np.max(x.real, axis=axis, keepdims=True)
    e = np.exp(x - np.where(np.isneginf(m), 0, m))
    total = np.sum(e, axis=axis, keepdims=True)
    return e / np.where(total.real == 0, 1, total)


def softmax_vjp(dy, x, axis=-1):
    """dx = p (dy - <dy, p>)."""
    p = softmax(x, axis)
    return p * (dy - np.sum(dy * p, axis=axis, keepdims=True))


def logsumexp(x, axis=-1):
    r"""Logarithm of a sum of exponentials, shifted by the maximum.

    $$\mathrm{lse}(x) = m + \log\sum_i e^{x_i-m}, \quad m = \max_i x_i$$

    Shapes: x any; returns x without that axis. Analytic. All -inf gives -inf.
    Source: Blanchard, Higham, Higham 2021, IMA J. Numer. Anal. 41(4).
    """
    m = np.max(x.real, axis=axis, keepdims=True)
    m = np.where(np.isfinite(m), m, 0)
    with np.errstate(divide="ignore"):  # log 0 = -inf is the value wanted
        return np.log(np.sum(np.exp(x - m), axis=axis)) + np.squeeze(m, axis=axis)


def logsumexp_vjp(dy, x, axis=-1):
    """dx = dy softmax(x)."""
    return np.expand_dims(dy, axis) * softmax(x, axis)
