"""Penalties on a network's own gradient, and the second-order rule that gives their gradient in the parameters.

A critic is critic(params, x, ops) -> y, pullback. g = dD/dx is what its pullback returns for dy = 1, one gradient per
sample (with batch statistics there would be none). A penalty is a function of g; its vjp gives U = dP/dg. Then, for
every network and every layer in it,

    dP/dparams = d/de [ what the pullback gives at x + e U ] at e = 0,

by the complex step (`second_order_complex`, the reference) or on Duals (`second_order`, the fast form): equal by test.
"""
import numpy as np

from .. import ops as reference
from ..ops._check import per_sample, require, sample_sum
from ..ops.tangent import Dual, derivative, tangent


def gradient_norms(g):
    r"""Length of every sample's gradient.

    $$\|g_n\| = \sqrt{\textstyle\sum_d g_{nd}^2}$$

    Shapes: g (N, ...). Returns (N,), one norm per sample: that of the whole batch would depend on N. Analytic but at 0.
    Source: Gulrajani et al. 2017, arXiv:1704.00028.
    """
    require(g.ndim >= 2 and len(g) > 0, f"gradient_norms: g (N, ...) expected, got shape {g.shape}")
    return np.sqrt(sample_sum(g * g))


def gradient_norms_vjp(dy, g):
    """dg_n = dy_n g_n/|g_n|, and 0 where g_n = 0."""
    norms = gradient_norms(g)
    scale = np.where(norms.real > 0, dy, 0 * dy) / np.where(norms.real > 0, norms, 1)
    return g * per_sample(scale, g)


def norm_penalty(g, weight, target=1.0):
    r"""Keep the gradient's length at a target: WGAN-GP with target 1 at points between data and samples, and
    StyleGAN2's path length with the running mean of the lengths.

    $$P = \lambda\,E\left(\|g\| - a\right)^2$$

    Shapes: g (N, ...); weight, target numbers. Returns a scalar. Analytic but at g = 0.
    Source: Gulrajani et al. 2017, arXiv:1704.00028, eq. 3 (lambda = 10); Karras et al. 2020, arXiv:1912.04958, eq. 4.
    """
    return weight * np.mean((gradient_norms(g) - target) ** 2)


def norm_penalty_vjp(dy, g, weight, target=1.0):
    """dg_n = 2 weight (|g_n| - target) g_n/(N |g_n|)."""
    return gradient_norms_vjp(2 * weight * dy / len(g) * (gradient_norms(g) - target), g)


def zero_centred_penalty(g, gamma):
    r"""R1 at data, R2 at samples: the mean squared gradient.

    $$P = \frac\gamma2\,E\,\|g\|^2$$

    Shapes: g (N, ...); gamma a number. Returns a scalar. Analytic.
    Source: Mescheder et al. 2018, arXiv:1801.04406, eq. 9-10.
    """
    return gamma / 2 * np.sum(g * g) / len(g)


def zero_centred_penalty_vjp(dy, g, gamma):
    """dg = gamma g/N."""
    return gamma * dy / len(g) * g


def max_penalty(g, weight):
    r"""Lipschitz GAN's penalty: the square of the largest gradient, an estimate of the Lipschitz constant.

    $$P = \lambda\,\max_n \|g_n\|^2$$

    Shapes: g (N, ...); weight a number. Returns a scalar. Piecewise: of equal lengths the first counts.
    Source: Zhou et al. 2019, arXiv:1902.05687.
    """
    squares = sample_sum(g * g)
    return weight * squares[np.argmax(squares.real)]


def max_penalty_vjp(dy, g, weight):
    """dg = 2 weight g at the sample of the largest gradient, 0 elsewhere."""
    longest = np.arange(len(g), like=g) == np.argmax(gradient_norms(g).real)
    return 2 * weight * dy * g * per_sample(longest, g)


def between(x_real, x_fake, u):
    r"""Random points on the lines from data to samples, where WGAN-GP asks for unit gradients.

    $$\hat x = u\,x + (1-u)\,\tilde x, \qquad u \sim U(0, 1)$$

    Shapes: x_real, x_fake (N, ...), u (N,): one number per sample. Returns (N, ...).
    Source: Gulrajani et al. 2017, arXiv:1704.00028, alg. 1.
    """
    require(x_real.shape == x_fake.shape and u.shape == x_real.shape[:1],
            f"between: equal shapes and one u per sample expected, got {x_real.shape}, {x_fake.shape} and {u.shape}")
    u = per_sample(u, x_real)
    return u * x_real + (1 - u) * x_fake


def second_order_complex(critic, params, x, dy, direction):
    r"""Derivative along a direction of x of the gradients that the pullback gives, by the complex step.

    $$\frac{d}{d\epsilon}\left[\nabla_\theta \langle dy, D(x+\epsilon U;\theta)\rangle\right]_{\epsilon=0} =
      \frac{\mathrm{Im}\,\nabla_\theta \langle dy, D(x + \mathrm{i}hU)\rangle}{h}, \qquad h = 10^{-30}$$

    Shapes: dy as the critic's output, direction as x, float64. Returns (dparams, dx) as the critic's pullback.
    Source: Squire and Trapp 1998, SIAM Review 40(1); Pearlmutter 1994, Neural Computation 6(1).
    """
    lifted = {name: w.astype(np.complex128) for name, w in params.items()}
    _, pullback = critic(lifted, x + 1e-30j * direction, reference)
    dparams, dx = pullback(dy.astype(np.complex128))
    return {name: d.imag / 1e-30 for name, d in dparams.items()}, dx.imag / 1e-30


def second_order(critic, params, x, dy, direction, ops):
    r"""The same derivative on Duals: any dtype, a backend's own kernels, real arithmetic only.

    $$\frac{d}{d\epsilon}\left[\nabla_\theta \langle dy, D(x+\epsilon U;\theta)\rangle\right]_{\epsilon=0}$$

    Shapes: dy as the critic's output, direction as x. Returns (dparams, dx) as the critic's pullback.
    Source: Pearlmutter 1994, Neural Computation 6(1).
    """
    _, pullback = critic(params, Dual(x, direction), tangent(ops))
    dparams, dx = pullback(dy)
    return {name: derivative(d) for name, d in dparams.items()}, derivative(dx)


def penalise(penalty, penalty_vjp, critic, params, x, ops, dy=None, **options):
    r"""A penalty on the critic's input gradient, and its gradients in the parameters and in x.

    $$P(g), \quad g = \nabla_x \langle dy, D(x;\theta)\rangle; \qquad U = \nabla_g P$$

    Shapes: x (N, ...); dy as the critic's output, 1 unless given (StyleGAN2's path length gives noise).
    Returns P, dparams, dx, and g (N, ...).
    Source: Gulrajani et al. 2017, arXiv:1704.00028; the rule: Pearlmutter 1994.
    """
    y, pullback = critic(params, x, ops)
    dy = y * 0 + 1 if dy is None else dy
    _, g = pullback(dy)
    u = penalty_vjp(1.0, g, **options)
    return (penalty(g, **options), *second_order(critic, params, x, dy, u, ops), g)
