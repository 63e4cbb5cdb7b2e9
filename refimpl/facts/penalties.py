"""Penalties, batch-wise losses and constraints on weights: their gradients, and values known in closed form."""
import numpy as np

from refimpl import ops
from refimpl.equations import adversarial, batchwise, penalty, weights
from refimpl.nets import blocks

from . import fact
from .gradients import pair


def critic(params, x, ops):
    """Convolution, group norm, SiLU, convolution, minibatch stddev, linear: one of each kind of layer."""
    h, conv1 = blocks.conv(params, "conv1", x, ops, stride=1, padding=1)
    n, norm = blocks.norm(params, "norm", h, ops, groups=2, stabiliser=1e-5, silu=True)
    m, conv2 = blocks.conv(params, "conv2", n, ops, stride=2, padding=1)
    a = ops.tanh(m)
    s = batchwise.minibatch_stddev(a, 2)
    y, head = blocks.linear(params, "head", s.reshape(len(x), -1), ops)

    def pullback(dy):
        g4, ds = head(dy)
        da = batchwise.minibatch_stddev_vjp(ds.reshape(s.shape), a, 2)
        g3, dn = conv2(ops.tanh_vjp(da, m))
        g2, dh = norm(dn)
        g1, dx = conv1(dh)
        return g1 | g2 | g3 | g4, dx

    return y, pullback


def _critic(d):
    """Parameters and images for it."""
    c, shapes = d.integer(1, 2), {}
    for name, o, i in (("conv1", 4, c), ("conv2", 3, 4)):
        shapes |= {f"{name}.weight": (o, i, 3, 3), f"{name}.bias": (o,)}
    shapes |= {"norm.weight": (4,), "norm.bias": (4,), "head.weight": (1, 16), "head.bias": (1,)}
    return {name: d.array(*s) / (s[-1] if len(s) > 1 else 1) for name, s in shapes.items()}, d.array(4, c, 4, 4)


PENALTIES = {penalty.norm_penalty: (penalty.norm_penalty_vjp, {"weight": 10.0, "target": 0.7}),
             penalty.zero_centred_penalty: (penalty.zero_centred_penalty_vjp, {"gamma": 3.0}),
             penalty.max_penalty: (penalty.max_penalty_vjp, {"weight": 2.0})}


@fact("F-A6", penalty.penalise, penalty.second_order_complex, penalty.norm_penalty, penalty.zero_centred_penalty,
      penalty.max_penalty, tolerance=1e-10)
def penalty_gradient_by_the_complex_step(d):
    """<dP/dparams, v> + <dP/dx, w> = Im P(params + ihv, x + ihw)/h, for WGAN-GP, R1 and the largest gradient."""
    params, x = _critic(d)
    f = d.choice(list(PENALTIES))
    f_vjp, options = PENALTIES[f]
    _, dparams, dx, _ = penalty.penalise(f, f_vjp, critic, params, x, ops, **options)
    v, w = {name: d.array(*p.shape) for name, p in params.items()}, d.array(*x.shape)
    moved = {name: p + 1e-30j * v[name] for name, p in params.items()}
    y, pullback = critic(moved, x + 1e-30j * w, ops)
    step = f(pullback(np.ones_like(y))[1], **options).imag / 1e-30
    terms = [np.sum(dparams[name] * v[name]) for name in params] + [np.sum(dx * w)]
    return abs(sum(terms) - step) / sum(map(abs, terms))


@fact("F-A7", penalty.second_order, penalty.second_order_complex, tolerance=1e-10)
def duals_equal_the_complex_step(d):
    """The fast form of the second-order rule equals the reference form, for every parameter and the input."""
    params, x = _critic(d)
    dy, u = d.array(4, 1), d.array(*x.shape)
    one, two = (f(critic, params, x, dy, u, *extra) for f, extra in
                ((penalty.second_order, (ops,)), (penalty.second_order_complex, ())))
    pairs = [(one[0][name], two[0][name]) for name in params] + [(one[1], two[1])]
    scale = max(np.max(abs(b)) for _, b in pairs)
    return max(np.max(abs(a - b)) for a, b in pairs) / scale


@fact("F-A7", penalty.norm_penalty, penalty.gradient_norms, tolerance=1e-12)
def unit_critic_pays_nothing(d):
    """A linear critic of unit slope has penalty 0 for every batch size, and gradient 0 where its slope is 0."""
    n, m = d.integer(1, 9), d.integer(1, 5)
    slope = d.array(1, m)
    g = np.repeat(slope / np.linalg.norm(slope), n, axis=0)
    return max(abs(penalty.norm_penalty(g, 10.0)), np.max(abs(penalty.norm_penalty_vjp(1.0, 0 * g, 10.0))),
               abs(penalty.norm_penalty(2 * g, 10.0) - 10))


def _g(d):
    return {"g": d.array(d.integer(1, 4), d.integer(1, 3), 2)}


@pair(penalty.norm_penalty, penalty.norm_penalty_vjp, "g")
def _norm_penalty(d):
    return _g(d) | {"weight": d.real(0.1, 10), "target": d.real(0, 2)}


@pair(penalty.zero_centred_penalty, penalty.zero_centred_penalty_vjp, "g")
def _zero_centred_penalty(d):
    return _g(d) | {"gamma": d.real(0.1, 10)}


@pair(penalty.max_penalty, penalty.max_penalty_vjp, "g")
def _max_penalty(d):
    return _g(d) | {"weight": d.real(0.1, 10)}


pair(penalty.gradient_norms, penalty.gradient_norms_vjp, "g")(_g)


@pair(adversarial.energy_d, adversarial.energy_d_vjp, "energy_real", "energy_fake")
def _energy_d(d):
    return {"energy_real": d.array(3) ** 2, "energy_fake": d.array(d.integer(1, 5)) ** 2, "margin": d.real(0.1, 2)}


@pair(adversarial.energy_g, adversarial.energy_g_vjp, "energy_fake")
def _energy_g(d):
    return {"energy_fake": d.array(d.integer(1, 5)) ** 2}


@pair(batchwise.relativistic_d, batchwise.relativistic_d_vjp, "logit_real", "logit_fake")
def _relativistic_d(d):
    return {"logit_real": d.array(d.integer(1, 4), 2), "logit_fake": d.array(d.integer(1, 4), 1)}


@pair(batchwise.feature_matching, batchwise.feature_matching_vjp, "features_real", "features_fake")
def _feature_matching(d):
    return {"features_real": d.array(d.integer(1, 4), 2, 3), "features_fake": d.array(d.integer(1, 4), 2, 3)}


@pair(batchwise.pulling_away, batchwise.pulling_away_vjp, "s")
def _pulling_away(d):
    return {"s": d.array(d.integer(2, 5), d.integer(2, 4))}


@pair(batchwise.minibatch_stddev, batchwise.minibatch_stddev_vjp, "x")
def _minibatch_stddev(d):
    group = d.integer(1, 3)
    return {"x": d.array(group * d.integer(1, 3), d.integer(1, 3), *d.choice([(), (2, 3)])), "group": group,
            "stabiliser": d.real(0.01, 0.1)}


@pair(batchwise.minibatch_discrimination, batchwise.minibatch_discrimination_vjp, "x", "t")
def _minibatch_discrimination(d):
    a = d.integer(1, 4)
    return {"x": d.array(d.integer(1, 4), a) / 2, "t": d.array(a, d.integer(1, 3), d.integer(1, 3)) / 2}


@pair(weights.spectral_normalise, weights.spectral_normalise_vjp, "w")
def _spectral_normalise(d):
    o, rest = d.integer(1, 4), d.choice([(3,), (2, 2, 1)])
    return {"w": d.array(o, *rest), "u": d.array(o), "v": d.array(int(np.prod(rest)))}


@pair(weights.orthogonal_regularisation, weights.orthogonal_regularisation_vjp, "w")
def _orthogonal_regularisation(d):
    return {"w": d.array(d.integer(1, 4), *d.choice([(3,), (2, 2, 1)])), "weight": d.real(0.1, 2)}


@pair(weights.historical_averaging, weights.historical_averaging_vjp, "theta", "mean")
def _historical_averaging(d):
    n = d.integer(1, 4)
    return {"theta": d.array(n), "mean": d.array(n)}


@fact("F-A8", weights.spectral_normalise_vjp, weights.power_iteration, tolerance=1e-6)
def spectral_gradient_is_that_of_the_true_norm(d):
    """With converged u and v the gradient is that of W/sigma_1(W), sigma_1 by SVD, by central differences."""
    w, dy, move = d.array(3, 4), d.array(3, 4), d.array(3, 4)
    u, v = weights.power_iteration(w, d.array(3), 500)
    at = lambda h: np.sum(dy * (w + h * move) / np.linalg.norm(w + h * move, 2))
    slope = (at(1e-6) - at(-1e-6)) / 2e-6
    s = np.linalg.svd(w, compute_uv=False)
    close = (s[1] / s[0]) ** 1000 < 1e-12  # else u and v are not converged, and nothing is claimed
    got = np.sum(weights.spectral_normalise_vjp(dy, w, u, v) * move)
    return abs(got - slope) / (1 + abs(slope)) if close else 0.0


@fact("F-A9", weights.power_iteration, tolerance=1e-10)
def power_iteration_from_below(d):
    """u^T W v <= sigma_1 always, and k more iterations shrink the angle to u_1 as (sigma_2/sigma_1)^(2k)."""
    w, k = d.array(3, 5), d.integer(1, 6)
    left, s, _ = np.linalg.svd(w)
    u0 = d.array(3)
    u, v = weights.power_iteration(w, u0, k)
    share = (left.T @ u0) * s ** (2 * k)  # u is proportional to (W W^T)^k u0
    expected = left @ (share / np.linalg.norm(share))
    return max(u @ w @ v - s[0], np.max(abs(u - expected)))


@fact("F-A10", weights.circular_convolution_norm, tolerance=1e-10)
def circular_convolution_by_its_matrix(d):
    """The largest singular value over frequencies is that of the whole circular convolution as a matrix."""
    o, i, h, w = d.integer(1, 2), d.integer(1, 2), 3, 4
    kernel = d.array(o, i, 2, 3)
    matrix = np.zeros((o, h, w, i, h, w))
    for r, s in np.ndindex(2, 3):
        for y, x in np.ndindex(h, w):
            matrix[:, y, x, :, (y + r) % h, (x + s) % w] += kernel[:, :, r, s]
    norm = np.linalg.norm(matrix.reshape(o * h * w, -1), 2)
    return abs(weights.circular_convolution_norm(kernel, (h, w)) - norm) / norm


@fact("A11", batchwise.minibatch_stddev, tolerance=1e-12)
def collapsed_batch_shows(d):
    """A collapsed batch gives a channel of sqrt(stabiliser), 0 with none; otherwise the mean of the deviations."""
    x, n = d.array(1, 2, 3, 3), d.integer(1, 4)
    tiny = d.choice([0.0, 1e-8])
    collapsed = batchwise.minibatch_stddev(np.repeat(x, n, axis=0), n, tiny)[:, -1]
    y = d.array(2 * n, 3)
    spread = batchwise.minibatch_stddev(y, n, 0.0)[:, -1]
    expected = [np.mean([np.std(y[i % 2::2, j]) for j in range(3)]) for i in range(2 * n)]
    return max(np.max(abs(collapsed - tiny**0.5)), np.max(abs(spread - expected)))


@fact("A13", batchwise.pulling_away, tolerance=1e-12)
def pulling_away_in_closed_form(d):
    """Orthonormal rows give 0, parallel ones 1, a change of sign or length changes nothing."""
    q, _ = np.linalg.qr(d.array(4, 4))
    s, scale = d.array(4, 3), np.array([[-1.0], [2], [0.5], [-3]])
    return max(abs(batchwise.pulling_away(q)), abs(batchwise.pulling_away(scale * s[:1]) - 1),
               abs(batchwise.pulling_away(s) - batchwise.pulling_away(scale * s)))


@fact("orthogonal", weights.orthogonal_regularisation, tolerance=1e-10)
def orthogonal_filters_pay_nothing(d):
    """Orthogonal filters of any lengths give 0; two filters give 2 beta <w_1, w_2>^2."""
    q, _ = np.linalg.qr(d.array(4, 4))
    w = d.array(2, 3)
    return max(abs(weights.orthogonal_regularisation(d.array(4, 1) * q, 1.0)),
               abs(weights.orthogonal_regularisation(w, 0.5) - (w[0] @ w[1]) ** 2))
