"""Adversarial losses in the logits, each with its gradient: l = logit, s = sigmoid(l).

Every loss is a mean over everything it is given, to be minimised by the player in its name: `_d` by the discriminator
(or critic), `_g` by the generator. Written with softplus, never with log(sigmoid(l) + tiny): that form's gradient
vanishes exactly where the generator needs it. Penalties on the discriminator's gradient are in penalty.py.
"""
import numpy as np

from ..ops._check import require, same_dtype
from ..ops.activation import sigmoid, softplus


def _spread(dy, x):
    """The gradient of a mean: dy over the number of entries, in x's own dtype."""
    return x * 0 + dy / x.size


def _logits(name, **logits):
    same_dtype(name, **logits)
    for label, l in logits.items():
        require(l.size > 0, f"{name}: {label} is empty, at least one logit expected")


def value_function(logit_real, logit_fake):
    r"""The value of the game that the discriminator maximises and the generator minimises.

    $$V(D, G) = E_x \log D(x) + E_z \log(1 - D(G(z))), \qquad D = \sigma(l)$$

    Shapes: logit_real, logit_fake any, of one dtype; returns a scalar.
    Raises: ValueError when empty, TypeError when the dtypes differ.
    Source: Goodfellow et al. 2014, arXiv:1406.2661, eq. 1.
    """
    _logits("value_function", logit_real=logit_real, logit_fake=logit_fake)
    return -np.mean(softplus(-logit_real)) - np.mean(softplus(logit_fake))


def value_function_vjp(dy, logit_real, logit_fake):
    """dl_real = (1 - s)/N, dl_fake = -s/M: the discriminator's ascent; the generator descends the second."""
    return _spread(dy, logit_real) * sigmoid(-logit_real), -_spread(dy, logit_fake) * sigmoid(logit_fake)


def optimal_discriminator(p, q):
    r"""The discriminator that maximises V against densities p of data and q of samples.

    $$D^*(x) = \frac{p(x)}{p(x)+q(x)}, \qquad V(D^*) = -\log 4 + 2\,\mathrm{JSD}(p, q)$$

    Shapes: p, q of one shape, non-negative. Returns that shape; 1/2 where both vanish (any value is optimal there).
    Source: Goodfellow et al. 2014, arXiv:1406.2661, prop. 1 and thm. 1.
    """
    return np.where(p + q > 0, p, 1) / np.where(p + q > 0, p + q, 2)


def jensen_shannon(p, q):
    r"""Jensen-Shannon divergence of discrete distributions, between 0 and log 2.

    $$\mathrm{JSD}(p, q) = \frac12\mathrm{KL}\left(p\,\|\,\tfrac{p+q}2\right) +
      \frac12\mathrm{KL}\left(q\,\|\,\tfrac{p+q}2\right)$$

    Shapes: p, q (K,), each summing to 1. Returns a scalar.
    Source: Lin 1991; Goodfellow et al. 2014, arXiv:1406.2661.
    """
    def kl(a, b):
        return np.sum(a * (np.log(np.where(a > 0, a, 1)) - np.log(np.where(a > 0, b, 1))))

    return (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2


def total_variation(p, q):
    r"""Total variation distance of discrete distributions, between 0 and 1.

    $$\mathrm{TV}(p, q) = \frac12\sum_k |p_k-q_k|$$

    Shapes: p, q (K,), each summing to 1. Returns a scalar.
    Source: Levin and Peres 2017, Markov Chains and Mixing Times, ch. 4.
    """
    return np.sum(np.abs(p - q)) / 2


def minimax_d(logit_real, logit_fake):
    r"""The discriminator's loss in the original game: -V, cross-entropy with targets 1 and 0.

    $$-E\log\sigma(l_r) - E\log(1-\sigma(l_f)) = E\,\zeta(-l_r) + E\,\zeta(l_f)$$

    Shapes: logit_real, logit_fake any; returns a scalar. Analytic.
    Source: Goodfellow et al. 2014, arXiv:1406.2661, eq. 1.
    """
    return -value_function(logit_real, logit_fake)


def minimax_d_vjp(dy, logit_real, logit_fake):
    """dl_real = (s - 1)/N, dl_fake = s/M."""
    return _spread(dy, logit_real) * -sigmoid(-logit_real), _spread(dy, logit_fake) * sigmoid(logit_fake)


def minimax_g(logit_fake):
    r"""The generator's saturating loss: its own part of V.

    $$E\log(1-\sigma(l_f)) = -E\,\zeta(l_f)$$

    Shapes: logit_fake any; returns a scalar. Analytic. Its gradient vanishes where the discriminator wins (l -> -inf).
    Source: Goodfellow et al. 2014, arXiv:1406.2661, eq. 1.
    """
    _logits("minimax_g", logit_fake=logit_fake)
    return -np.mean(softplus(logit_fake))


def minimax_g_vjp(dy, logit_fake):
    """dl_fake = -s/M."""
    return _spread(dy, logit_fake) * -sigmoid(logit_fake)


def non_saturating_g(logit_fake):
    r"""The generator's non-saturating loss: the same fixed point as the minimax game, different dynamics.

    $$-E\log\sigma(l_f) = E\,\zeta(-l_f)$$

    Shapes: logit_fake any; returns a scalar. Analytic. Its gradient tends to -1 as l -> -inf.
    Source: Goodfellow et al. 2014, arXiv:1406.2661, sec. 3.
    """
    _logits("non_saturating_g", logit_fake=logit_fake)
    return np.mean(softplus(-logit_fake))


def non_saturating_g_vjp(dy, logit_fake):
    """dl_fake = (s - 1)/M: (1 - s)/s times the saturating gradient."""
    return _spread(dy, logit_fake) * -sigmoid(-logit_fake)


def smoothed_d(logit_real, logit_fake, real, fake=0.0):
    r"""The discriminator's cross-entropy with softened targets. One-sided, fake = 0, is the form to use.

    $$E\left[\zeta(l_r) - a\,l_r\right] + E\left[\zeta(l_f) - b\,l_f\right], \qquad D^* = \frac{a\,p+b\,q}{p+q}$$

    With b > 0 the samples' density q stays in the numerator, and samples far from the data are rewarded.

    Shapes: logits any; targets real = a and fake = b are numbers in [0, 1]. Returns a scalar. Analytic.
    Raises: ValueError when a target leaves [0, 1].
    Source: Salimans et al. 2016, arXiv:1606.03498, sec. 3.4; Goodfellow 2016, arXiv:1701.00160, sec. 4.2.
    """
    _logits("smoothed_d", logit_real=logit_real, logit_fake=logit_fake)
    require(0 <= real <= 1 and 0 <= fake <= 1, f"smoothed_d: targets must lie in [0, 1], got {real} and {fake}")
    return np.mean(softplus(logit_real) - real * logit_real) + np.mean(softplus(logit_fake) - fake * logit_fake)


def smoothed_d_vjp(dy, logit_real, logit_fake, real, fake=0.0):
    """dl_real = (s - a)/N, dl_fake = (s - b)/M."""
    return (_spread(dy, logit_real) * (sigmoid(logit_real) - real),
            _spread(dy, logit_fake) * (sigmoid(logit_fake) - fake))


def lsgan_d(logit_real, logit_fake, a, b):
    r"""Least squares: real outputs to b, fake outputs to a.

    $$\frac12 E(l_r-b)^2 + \frac12 E(l_f-a)^2, \qquad l^* = \frac{b\,p+a\,q}{p+q}$$

    The two published codings: (a, b, c) = (0, 1, 1), and (-1, 1, 0), for which the generator minimises Pearson's
    chi-squared between p + q and 2q.

    Shapes: logits any; a, b numbers. Returns a scalar. Analytic.
    Source: Mao et al. 2017, arXiv:1611.04076.
    """
    _logits("lsgan_d", logit_real=logit_real, logit_fake=logit_fake)
    return np.mean((logit_real - b) ** 2) / 2 + np.mean((logit_fake - a) ** 2) / 2


def lsgan_d_vjp(dy, logit_real, logit_fake, a, b):
    """dl_real = (l_r - b)/N, dl_fake = (l_f - a)/M."""
    return _spread(dy, logit_real) * (logit_real - b), _spread(dy, logit_fake) * (logit_fake - a)


def lsgan_g(logit_fake, c):
    r"""Least squares for the generator: fake outputs to c.

    $$\frac12 E(l_f-c)^2$$

    Shapes: logit_fake any; c a number. Returns a scalar. Analytic.
    Source: Mao et al. 2017, arXiv:1611.04076.
    """
    _logits("lsgan_g", logit_fake=logit_fake)
    return np.mean((logit_fake - c) ** 2) / 2


def lsgan_g_vjp(dy, logit_fake, c):
    """dl_fake = (l_f - c)/M."""
    return _spread(dy, logit_fake) * (logit_fake - c)


def hinge_d(logit_real, logit_fake):
    r"""Hinge loss: no pull on samples already beyond the margin.

    $$E\max(0, 1-l_r) + E\max(0, 1+l_f), \qquad \min_D = 2\,(1-\mathrm{TV}(p, q))$$

    Shapes: logits any; returns a scalar. Piecewise linear.
    Source: Lim and Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957.
    """
    _logits("hinge_d", logit_real=logit_real, logit_fake=logit_fake)
    return (np.mean(np.where(logit_real.real < 1, 1 - logit_real, 0 * logit_real))
            + np.mean(np.where(logit_fake.real > -1, 1 + logit_fake, 0 * logit_fake)))


def hinge_d_vjp(dy, logit_real, logit_fake):
    """dl_real = -1/N where l_r < 1, dl_fake = 1/M where l_f > -1."""
    return -_spread(dy, logit_real) * (logit_real.real < 1), _spread(dy, logit_fake) * (logit_fake.real > -1)


def wasserstein_d(logit_real, logit_fake):
    r"""The critic's loss: minus the difference of means whose maximum over 1-Lipschitz functions is W_1(p, q).

    $$E\,l_f - E\,l_r$$

    Shapes: logits any; returns a scalar. Bounded only under a Lipschitz constraint: clipped or spectrally
    normalised weights (weights.py), or a gradient penalty (penalty.py).
    Source: Arjovsky et al. 2017, arXiv:1701.07875, eq. 2.
    """
    _logits("wasserstein_d", logit_real=logit_real, logit_fake=logit_fake)
    return np.mean(logit_fake) - np.mean(logit_real)


def wasserstein_d_vjp(dy, logit_real, logit_fake):
    """dl_real = -1/N, dl_fake = 1/M."""
    return -_spread(dy, logit_real), _spread(dy, logit_fake)


def wasserstein_g(logit_fake):
    r"""The generator's loss in the Wasserstein and hinge games: raise the critic's output.

    $$-E\,l_f$$

    Shapes: logit_fake any; returns a scalar.
    Source: Arjovsky et al. 2017, arXiv:1701.07875; Miyato et al. 2018, arXiv:1802.05957.
    """
    _logits("wasserstein_g", logit_fake=logit_fake)
    return -np.mean(logit_fake)


def wasserstein_g_vjp(dy, logit_fake):
    """dl_fake = -1/M."""
    return -_spread(dy, logit_fake)


def energy_d(energy_real, energy_fake, margin):
    r"""EBGAN's discriminator, an energy (its own reconstruction error): low on data, at least the margin on samples.

    $$E\,D(x) + E\max(0, m - D(G(z)))$$

    Shapes: energies any; margin a positive number. Returns a scalar. Piecewise linear.
    Source: Zhao et al. 2017, arXiv:1609.03126, eq. 1.
    """
    _logits("energy_d", energy_real=energy_real, energy_fake=energy_fake)
    return np.mean(energy_real) + np.mean(np.where(energy_fake.real < margin, margin - energy_fake, 0 * energy_fake))


def energy_d_vjp(dy, energy_real, energy_fake, margin):
    """denergy_real = 1/N, denergy_fake = -1/M where it is below the margin."""
    return _spread(dy, energy_real), -_spread(dy, energy_fake) * (energy_fake.real < margin)


def energy_g(energy_fake):
    r"""EBGAN's generator: lower the energy of its samples.

    $$E\,D(G(z))$$

    Shapes: energy_fake any; returns a scalar.
    Source: Zhao et al. 2017, arXiv:1609.03126, eq. 2.
    """
    _logits("energy_g", energy_fake=energy_fake)
    return np.mean(energy_fake)


def energy_g_vjp(dy, energy_fake):
    """denergy_fake = 1/M."""
    return _spread(dy, energy_fake)
