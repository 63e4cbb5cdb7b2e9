"""Optimisers as equations: pure functions of flat dicts, state in and state out.

Every rule is `rule(params, grads, state, rate, ...) -> params, state`. A state is one flat dict: the number of steps
taken under "count", each moving average under its letter and the parameter's name ("m.conv.weight"). The empty dict
is the state before the first step, in which every average is 0.
"""
import math
from typing import NamedTuple

import numpy as np

from .ops._check import require


def sgd(params, grads, state, rate, momentum=0.0):
    r"""Stochastic gradient descent with (heavy-ball) momentum.

    $$m \leftarrow \rho\,m + g, \qquad \theta \leftarrow \theta - \eta\,m$$

    Shapes: params, grads flat dicts of the same names and shapes; rate (eta) and momentum (rho) numbers.
    Raises: ValueError when params, grads and state do not name the same arrays.
    Source: Polyak 1964, USSR Comput. Math. Math. Phys. 4(5); in the form of Sutskever et al. 2013, ICML.
    """
    (m,) = _averages(params, grads, state, "m")
    m = {k: momentum * m[k] + g for k, g in grads.items()}
    return {k: p - rate * m[k] for k, p in params.items()}, _state(state, m=m)


def rmsprop(params, grads, state, rate, decay=0.99, stabiliser=1e-8):
    r"""RMSprop: each step divided by a running root mean square of its gradient.

    $$v \leftarrow \alpha\,v + (1-\alpha)\,g^2, \qquad \theta \leftarrow \theta - \eta\,\frac{g}{\sqrt v + \epsilon}$$

    Shapes: as sgd; decay (alpha), stabiliser (epsilon, outside the root) numbers.
    Raises: ValueError when params, grads and state do not name the same arrays.
    Source: Tieleman and Hinton 2012, Coursera Neural Networks for Machine Learning, lecture 6.5; Graves 2013,
    arXiv:1308.0850, without its centring.
    """
    (v,) = _averages(params, grads, state, "v")
    v = {k: decay * v[k] + (1 - decay) * g * g for k, g in grads.items()}
    return {k: p - rate * grads[k] / (np.sqrt(v[k]) + stabiliser) for k, p in params.items()}, _state(state, v=v)


def adam(params, grads, state, rate, beta1=0.9, beta2=0.999, stabiliser=1e-8):
    r"""Adam: first and second moments of the gradient, both corrected for their start at 0.

    $$m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \quad
      \theta \leftarrow \theta - \eta\,\frac{m/(1-\beta_1^k)}{\sqrt{v/(1-\beta_2^k)} + \epsilon}$$

    Shapes: as sgd; k is the number of this step, from 1. GANs use beta1 = 0 or .5, so the default is only a default.
    Raises: ValueError when params, grads and state do not name the same arrays.
    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.
    Facts: the first step does not change when the gradient is scaled (F-F7): training success proves no scale.
    """
    m, v = _averages(params, grads, state, "m", "v")
    k = int(state.get("count", 0)) + 1
    step, root = rate / (1 - beta1**k), math.sqrt(1 - beta2**k)
    m = {n: beta1 * m[n] + (1 - beta1) * g for n, g in grads.items()}
    v = {n: beta2 * v[n] + (1 - beta2) * g * g for n, g in grads.items()}
    params = {n: p - step * m[n] / (np.sqrt(v[n]) / root + stabiliser) for n, p in params.items()}
    return params, _state(state, m=m, v=v)


def adamw(params, grads, state, rate, beta1=0.9, beta2=0.999, stabiliser=1e-8, weight_decay=0.01):
    r"""Adam with decoupled weight decay, in PyTorch's scaling (the decay is multiplied by the rate).

    $$\theta \leftarrow (1-\eta\lambda)\,\theta - \eta\,\mathrm{Adam}(g)$$

    Shapes: as adam; weight_decay (lambda) a number.
    Raises: ValueError when params, grads and state do not name the same arrays.
    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2 with eta_t alpha = rate in front of the decay.
    """
    shrunk = {n: (1 - rate * weight_decay) * p for n, p in params.items()}
    return adam(shrunk, grads, state, rate, beta1, beta2, stabiliser)


def ema(average, params, decay):
    r"""Exponential moving average of the parameters, the weights that samples are drawn with.

    $$\bar\theta \leftarrow d\,\bar\theta + (1-d)\,\theta$$

    Shapes: average, params flat dicts of the same names and shapes; decay (d) in [0, 1].
    Raises: ValueError when d leaves [0, 1] or the names differ.
    Source: Polyak and Juditsky 1992, SIAM J. Control Optim. 30(4); Ho et al. 2020, arXiv:2006.11239, app. B.
    """
    require(0 <= decay <= 1, f"ema: decay must be in [0, 1], got {decay}")
    require(average.keys() == params.keys(), "ema: the average and the parameters name different arrays")
    return {k: decay * average[k] + (1 - decay) * p for k, p in params.items()}


def ema_decay(step, decay):
    r"""Decay of the average after `step` steps: short at first, so that the random start is forgotten.

    $$d_k = \min\left(d, \frac{1+k}{10+k}\right)$$

    Shapes: step an integer, decay (d) a number; returns a number.
    Source: TensorFlow's ExponentialMovingAverage(num_updates), used by most diffusion code since.
    """
    return min(decay, (1 + step) / (10 + step))


def global_norm(grads):
    r"""Euclidean norm of all gradients taken as one vector, in float64.

    $$\|g\| = \sqrt{\textstyle\sum_k \sum_i g_{k,i}^2}$$

    Shapes: grads a flat dict; returns a number.
    Source: Pascanu et al. 2013, arXiv:1211.5063.
    """
    return math.sqrt(sum(float(np.sum(g * g, dtype=np.float64)) for g in grads.values()))


def clip_by_global_norm(grads, limit):
    r"""Scale all gradients by one number so that their global norm is at most the limit.

    $$g \leftarrow g \min\left(1, \frac{c}{\|g\|}\right)$$

    Shapes: grads a flat dict; limit (c) a positive number. Returns the clipped dict and the norm before clipping.
    Raises: ValueError for a limit that is not positive.
    Source: Pascanu et al. 2013, arXiv:1211.5063, algorithm 1.
    """
    require(limit > 0, f"clip_by_global_norm: limit must be positive, got {limit}")
    norm = global_norm(grads)
    scale = limit / norm if norm > limit else 1.0
    return {k: g * scale for k, g in grads.items()} if scale != 1 else grads, norm


def cosine_rate(step, steps, rate, warmup=0):
    r"""Learning rate that rises linearly for `warmup` steps and then falls to 0 along half a cosine.

    $$\eta_k = \frac{\eta}{2}\left(1+\cos\frac{\pi\,(k-w)}{K-w}\right) \;(k \ge w), \quad
      \eta_k = \eta\,\frac{k+1}{w} \;(k < w)$$

    Shapes: step (k) in 0..steps-1, steps (K), warmup (w) integers; returns a number.
    Raises: ValueError unless 0 <= warmup < steps.
    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.
    """
    require(0 <= warmup < steps, f"cosine_rate: warmup must be in 0..{steps - 1}, got {warmup}")
    if step < warmup:
        return rate * (step + 1) / warmup
    return rate / 2 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


class Optimiser(NamedTuple):
    """How a player moves: update(params, grads, state, rate) -> params, state; rate(step) -> number; clip or None."""

    update: object
    rate: object
    clip: float | None = None


def _averages(params, grads, state, *letters):
    """The moving averages of every parameter; 0 in the empty state. Names must agree: a lost average is no average."""
    require(params.keys() == grads.keys(),
            f"optimiser: gradients are missing or foreign: {sorted(params.keys() ^ grads.keys())[:3]}")
    if not state:
        return [dict.fromkeys(params, 0.0) for _ in letters]
    names = {"count"} | {f"{letter}.{k}" for letter in letters for k in params}
    require(state.keys() == names, f"optimiser: the state belongs to other parameters or another rule: "
            f"{sorted(state.keys() ^ names)[:3]}")
    return [{k: state[f"{letter}.{k}"] for k in params} for letter in letters]


def _state(state, **averages):
    """The state after one more step, flat."""
    new = {"count": np.asarray(int(state.get("count", 0)) + 1)}
    return new | {f"{letter}.{k}": a for letter, values in averages.items() for k, a in values.items()}
