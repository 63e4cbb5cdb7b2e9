"""Networks on weights derived from their parameters: spectrally normalised ones, or scaled ones.

Each function maps a flat dict of parameters to the dict that the network is to run on, with the pullback that maps the
network's gradients to those of the parameters. So every network here takes either without knowing it.
"""
import math

import numpy as np

from refimpl.equations.weights import power_iteration, spectral_normalise, spectral_normalise_vjp
from refimpl.ops.random import fold, normal


def through(to_params, back):
    r"""A network's pullback, its gradients brought to the parameters that the weights were derived from.

    $$\frac{\partial L}{\partial\theta} = \left(\frac{\partial w}{\partial\theta}\right)^T \frac{\partial L}{\partial w}$$

    Shapes: to_params the pullback of a function of this module, back the network's, dy -> grads, dx. Returns the same.
    Source: the chain rule.
    """
    def pullback(dy):
        grads, dx = back(dy)
        return to_params(grads), dx

    return pullback


def matrices(params):
    r"""Names of the parameters that are weights of linear maps and convolutions.

    $$w \in R^{O\times I} \text{ or } R^{O\times I\times R\times S}$$

    Shapes: params a flat dict. Returns a list of names.
    Source: Miyato et al. 2018, arXiv:1802.05957, sec. 2.
    """
    return [name for name, w in params.items() if w.ndim in (2, 4)]


def spectral_init(key, params, names):
    r"""Starting vectors of the power iteration, one for each weight.

    $$u \sim N(0, I)/\|\cdot\|$$

    Shapes: params a flat dict, names those to normalise. Returns a state of f"{name}.u", each (O,).
    Source: Miyato et al. 2018, arXiv:1802.05957, alg. 1.
    """
    state = {}
    for i, name in enumerate(names):
        w = params[name]
        u = normal(fold(key, i), np.zeros(1, dtype=int), 0, w.shape[:1], dtype=w.dtype, like=w)[0]
        state[f"{name}.u"] = u / np.sqrt(np.sum(u * u))
    return state


def spectral(params, state, train):
    r"""Divide every weight whose u the state holds by its spectral norm. One power iteration per call in training.

    $$\bar W = W/\sigma(W), \qquad \frac{\partial L}{\partial W} = \frac{G - \langle G, \bar W\rangle\,u v^T}{\sigma}$$

    Shapes: params, state flat dicts. Returns params of the same shapes, pullback(dparams) -> dparams, state.
    Source: Miyato et al. 2018, arXiv:1802.05957, alg. 1.
    """
    pairs, state = {}, dict(state)
    for entry in [entry for entry in state if entry.endswith(".u")]:
        name = entry[:-2]
        u, v = power_iteration(params[name], state[entry])
        pairs[name] = (u, v)
        if train:
            state[entry] = u

    def pullback(dparams):
        return dparams | {name: spectral_normalise_vjp(dparams[name], params[name], u, v)
                          for name, (u, v) in pairs.items()}

    return params | {name: spectral_normalise(params[name], u, v) for name, (u, v) in pairs.items()}, pullback, state


def equalised(params, gain=2**0.5, slow=None):
    r"""Equalised learning rate: weights are stored with unit variance and scaled by He's constant where they are used.

    $$\hat w = \lambda\,\frac{\mathrm{gain}}{\sqrt{\mathrm{fan}}}\,w, \quad \hat b = \lambda\,b, \qquad
      \mathrm{fan} = I R S$$

    slow: {prefix of names: lambda}, parts that are to learn more slowly; lambda is 1 elsewhere. A parameter that the
    network made no use of has gradient 0. One gain for all layers; the authors' code takes 1 for those that no leaky
    ReLU follows (images, logits, styles).
    Shapes: params a flat dict; (O, I) and (O, I, R, S) are weights, vectors named .bias biases. Returns params,
    pullback(dparams) -> dparams.
    Source: Karras et al. 2018, arXiv:1710.10196, sec. 4.1; lambda: Karras et al. 2019, arXiv:1812.04948, app. C.
    """
    factors = {}
    for name, w in params.items():
        rate = next((rate for prefix, rate in (slow or {}).items() if name.startswith(prefix)), 1.0)
        if w.ndim in (2, 4) and name.endswith(".weight"):
            factors[name] = rate * gain / math.sqrt(math.prod(w.shape[1:]))
        elif rate != 1 and name.endswith(".bias"):
            factors[name] = rate

    def pullback(dparams):
        return {name: dparams[name] * factors.get(name, 1) if name in dparams else 0 * w for name, w in params.items()}

    return params | {name: params[name] * factor for name, factor in factors.items()}, pullback
