"""Gaussians: gradients, and values against quadrature."""
import numpy as np

from refimpl.equations import gaussian

from . import fact
from .gradients import pair


def _arrays(*names):
    def inputs(d):
        shape = (d.integer(1, 3), d.integer(1, 4))
        return {n: d.array(*shape) for n in names}

    return inputs


for _f, _vjp, _names in ((gaussian.log_normal, gaussian.log_normal_vjp, ("x", "mean", "log_var")),
                         (gaussian.kl_normal, gaussian.kl_normal_vjp, ("mean_q", "log_var_q", "mean_p", "log_var_p")),
                         (gaussian.entropy_normal, gaussian.entropy_normal_vjp, ("log_var",)),
                         (gaussian.reparametrise, gaussian.reparametrise_vjp, ("mean", "log_var", "z"))):
    pair(_f, _vjp, *_names)(_arrays(*_names))


def expectation(f, mean, variance, nodes=60):
    """E f(x) for a scalar x ~ N(mean, variance), by Gauss and Hermite: exact for polynomials below degree 2 nodes."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    return np.sum(w * f(mean + variance**0.5 * x)) / (2 * np.pi) ** 0.5


def _one(value):
    return np.array([[value]])


@fact("F-C1", gaussian.kl_normal, gaussian.log_normal, gaussian.entropy_normal, tolerance=1e-9)
def kl_against_quadrature(d):
    """KL(q || p) = E_q[log q - log p] and H(q) = -E_q log q, the expectations by quadrature."""
    m_q, l_q, m_p, l_p = (_one(d.real(-1.5, 1.5)) for _ in range(4))

    def log_density(mean, log_var):
        return lambda x: gaussian.log_normal(x[:, None], mean + 0 * x[:, None], log_var + 0 * x[:, None])

    own = expectation(log_density(m_q, l_q), m_q.item(), np.exp(l_q.item()))
    other = expectation(log_density(m_p, l_p), m_q.item(), np.exp(l_q.item()))
    return max(abs(gaussian.kl_normal(m_q, l_q, m_p, l_p)[0] - own + other),
               abs(gaussian.entropy_normal(l_q)[0] + own))


@fact("F-C3", gaussian.reparametrise, gaussian.reparametrise_vjp, tolerance=1e-10)
def pathwise_gradient(d):
    """Through the sample, dE x^3/dmu = 3 mu^2 + 3 var and dE x^3/dlog_var = 3 mu var; Var x = exp(log_var)."""
    mean, log_var = d.real(-1.5, 1.5), d.real(-1.5, 1.5)
    var = np.exp(log_var)
    z, w = np.polynomial.hermite_e.hermegauss(10)
    w, column = w / w.sum(), z[:, None]
    x = gaussian.reparametrise(0 * column + mean, 0 * column + log_var, column)
    dmean, dlog_var, _ = gaussian.reparametrise_vjp(3 * x**2, 0 * column + mean, 0 * column + log_var, column)
    return max(abs(w @ dmean[:, 0] - 3 * mean**2 - 3 * var), abs(w @ dlog_var[:, 0] - 3 * mean * var),
               abs(w @ (x[:, 0] - mean) ** 2 - var))
