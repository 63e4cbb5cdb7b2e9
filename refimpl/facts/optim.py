"""What the optimisers' equations must do on gradients whose answer is known."""
import numpy as np

from refimpl import optim

from . import fact


def _params(d):
    return {"w": d.array(d.integer(1, 3), d.integer(1, 3)), "b": d.array(d.integer(1, 3))}


def _gap(a, b):
    return max(float(np.max(abs(a[k] - b[k]))) for k in a)


@fact("F-F7", optim.adam, optim.adamw, tolerance=0)
def first_step_ignores_scale(d):
    """Adam's first step does not change when the gradient is scaled (exactly, by powers of two, stabiliser 0)."""
    params = _params(d)
    grads = {k: d.array(*p.shape) for k, p in params.items()}
    scaled = {k: 2.0 ** d.integer(-40, 40) * g for k, g in grads.items()}
    rule = d.choice([optim.adam, optim.adamw])
    rest = dict(rate=d.real(1e-4, 1), beta1=d.real(0, 0.95), beta2=d.real(0.5, 0.999), stabiliser=0.0)
    return _gap(rule(params, grads, {}, **rest)[0], rule(params, scaled, {}, **rest)[0])


@fact("sign", optim.adam, tolerance=1e-12)
def constant_gradient_moves_by_the_rate(d):
    """Under a constant gradient Adam with stabiliser 0 moves by exactly rate * sign(g) at every step."""
    params, rate, steps = _params(d), d.real(0.01, 1), d.integer(1, 6)
    grads = {k: d.array(*p.shape) for k, p in params.items()}
    moved, state, beta1, beta2 = params, {}, d.real(0, 0.95), d.real(0.5, 0.999)
    for _ in range(steps):
        moved, state = optim.adam(moved, grads, state, rate, beta1, beta2, stabiliser=0.0)
    return _gap(moved, {k: p - steps * rate * np.sign(grads[k]) for k, p in params.items()})


@fact("decay", optim.adamw, tolerance=1e-12)
def decoupled_decay_is_geometric(d):
    """With a zero gradient AdamW shrinks the weights by (1 - rate * decay)^k."""
    params, rate, decay, steps = _params(d), d.real(0.01, 1), d.real(0, 0.9), d.integer(1, 6)
    moved, state = params, {}
    for _ in range(steps):
        moved, state = optim.adamw(moved, {k: p * 0 for k, p in params.items()}, state, rate, weight_decay=decay)
    return _gap(moved, {k: p * (1 - rate * decay) ** steps for k, p in params.items()})


@fact("momentum", optim.sgd, tolerance=1e-12)
def momentum_sums_geometrically(d):
    """A constant gradient with momentum r moves by rate g sum_j (k - j) r^j, j = 0..k-1."""
    params, rate, r, steps = _params(d), d.real(0.01, 1), d.real(0, 0.95), d.integer(1, 6)
    grads = {k: d.array(*p.shape) for k, p in params.items()}
    moved, state = params, {}
    for _ in range(steps):
        moved, state = optim.sgd(moved, grads, state, rate, r)
    travel = rate * sum((steps - j) * r**j for j in range(steps))
    return _gap(moved, {k: p - travel * grads[k] for k, p in params.items()})


@fact("rms", optim.rmsprop, tolerance=1e-12)
def rmsprop_of_a_constant_gradient(d):
    """A constant gradient has v_k = g^2 (1 - a^k), so the k-th step is rate sign(g) / sqrt(1 - a^k)."""
    params, rate, a, steps = _params(d), d.real(0.01, 1), d.real(0.1, 0.95), d.integer(1, 6)
    grads = {k: d.array(*p.shape) for k, p in params.items()}
    moved, state = params, {}
    for _ in range(steps):
        moved, state = optim.rmsprop(moved, grads, state, rate, a, stabiliser=0.0)
    travel = rate * sum((1 - a**k) ** -0.5 for k in range(1, steps + 1))
    return _gap(moved, {k: p - travel * np.sign(grads[k]) for k, p in params.items()}) / travel


@fact("average", optim.ema, tolerance=1e-12)
def average_forgets_geometrically(d):
    """The average of constant parameters approaches them as decay^k."""
    start, decay, steps = _params(d), d.real(0, 1), d.integer(1, 6)
    target = {k: d.array(*p.shape) for k, p in start.items()}
    average = start
    for _ in range(steps):
        average = optim.ema(average, target, decay)
    return _gap(average, {k: target[k] + decay**steps * (start[k] - target[k]) for k in start})


@fact("clip", optim.clip_by_global_norm, optim.global_norm, tolerance=1e-12)
def clipped_norm_is_the_smaller(d):
    """After clipping the norm is min(norm, limit) and the direction is the same."""
    grads, limit = _params(d), d.real(0.05, 4)
    clipped, norm = optim.clip_by_global_norm(grads, limit)
    whole, cut = (np.concatenate([g.ravel() for g in x.values()]) for x in (grads, clipped))
    return max(abs(norm - np.linalg.norm(whole)), abs(optim.global_norm(clipped) - min(norm, limit)),
               abs(whole @ cut - np.linalg.norm(whole) * np.linalg.norm(cut)) / norm**2)


@fact("rate", optim.cosine_rate, tolerance=1e-12)
def cosine_rate_averages_to_half(d):
    """Without warm-up the rates at k and K - k add up to the full rate, and the first one is the full rate."""
    steps, rate = d.integer(2, 50), d.real(1e-4, 1)
    k = d.integer(1, steps - 1)
    return max(abs(optim.cosine_rate(k, steps, rate) + optim.cosine_rate(steps - k, steps, rate) - rate),
               abs(optim.cosine_rate(0, steps, rate) - rate))
