"""DALL-E's discrete VAE: categorical codes relaxed by Gumbel-softmax, a uniform prior while they are learnt, and a
transformer that then models caption and codes; the caption of a digit is its class.

Ramesh et al. 2021, arXiv:2102.12092; relaxation: Jang et al. 2017, arXiv:1611.01144.
"""
import math

import numpy as np

from refimpl.equations import gaussian, quantise
from refimpl.equations.bound import bits_per_dim, discretised_gaussian
from refimpl.ops._check import require
from refimpl.ops.random import fold
from refimpl.train import Player

from . import codes, flows
from .coder import CODEBOOK, codebook_init, coder

DEFAULTS = codes.DEFAULTS | {"tau": 1.0, "tau_end": 0.3, "beta": 1.0, "variance": 0.1}


def build(config, data):
    r"""The system: players autoencoder and prior.

    $$-\mathrm{ELBO} = \frac{\|x-\hat x\|^2}{2\sigma^2} + \beta\,\mathrm{KL}(q\,\|\,U) + \mathrm{const}$$

    The temperature falls from tau to tau_end along a cosine over the run; codes are the likeliest ones afterwards.
    Shapes: config as DEFAULTS. Returns a System.
    Its nll is that bound, the codes drawn and not relaxed.
    Raises: ValueError for settings that do not fit.
    """
    codes.check("dvae", config)
    require(config["net"] == "mlp", f"dvae is built of perceptrons: net must be mlp, got {config['net']!r}")
    require(min(config["tau"], config["tau_end"], config["variance"]) > 0,
            "dvae: tau, tau_end and variance must be positive")
    net = coder(config, data, config["codes"], config["latent"], config["positions"])
    L, K = net.positions, config["codes"]

    def loss_and_grads(params, state, batch, key, ops):
        own, step, x = params["autoencoder"], int(state["autoencoder"]["step"][0]), batch.x
        done = min(step / config["steps"], 1.0)
        tau = config["tau_end"] + (config["tau"] - config["tau_end"]) * (1 + math.cos(math.pi * done)) / 2
        logits, enc = net.encode(own, x, ops)
        g = quantise.gumbel(ops.uniform(key, np.arange(len(x)), 0, (L, K), np.float64)).astype(x.dtype)
        y = quantise.gumbel_softmax(logits, g, tau)
        e = y @ own[CODEBOOK]
        x_hat, dec = net.decode(own, e, ops)
        error, dx_hat = codes.reconstruction(x_hat, x)
        scale = 1 / (2 * config["variance"])
        g_dec, de = dec(x.dtype.type(scale) * dx_hat)
        dtable = np.tensordot(y, de, axes=((0, 1), (0, 1)))
        dlogits = quantise.gumbel_softmax_vjp(de @ own[CODEBOOK].T, logits, g, tau)[0]
        dlogits = dlogits + quantise.kl_uniform_vjp(np.full(len(x), config["beta"] / len(x), x.dtype), logits)
        grads = enc(dlogits)[0] | g_dec | {CODEBOOK: dtable}
        kl = float(np.mean(quantise.kl_uniform(logits)))
        after = state | {"autoencoder": {"step": state["autoencoder"]["step"] + 1}}
        return scale * error + config["beta"] * kl, {name: grads[name] for name in own}, after, {
            "error": error, "kl": kl, "perplexity": quantise.perplexity(np.argmax(logits, axis=-1), K)}

    def nll(params, state, x, key, ops):
        """The bound with codes drawn from q, none of them relaxed; on grid data the Gaussian is integrated over bins."""
        own = params["autoencoder"]
        logits, _ = net.encode(own, x, ops)
        g = quantise.gumbel(ops.uniform(key, np.arange(len(x)), 0, (L, K), np.float64))
        k = np.argmax(logits + g, axis=-1)
        x_hat, _ = net.decode(own, quantise.quantise(k, own[CODEBOOK]), ops)
        spread = math.log(config["variance"]) + 0 * x_hat
        log_p = discretised_gaussian(x, x_hat, spread, data.levels) if data.levels else gaussian.log_normal(
            x, x_hat, spread)
        nats = quantise.kl_uniform(logits) - log_p
        return bits_per_dim(nats, x) if data.levels else nats

    def init(key):
        params = net.init(key) | {CODEBOOK: codebook_init(fold(key, 9), K, config["latent"])}
        return params, {"step": np.zeros(1, np.int64)}

    model = codes.Model(init, None, lambda own, kept, x, ops: net.encode(own, x, ops)[0],
                        lambda own, kept, z, ops: np.argmax(z, axis=-1),
                        lambda own, kept, k, ops: net.decode(own, quantise.quantise(k, own[CODEBOOK]), ops)[0],
                        L, net.last)
    own = Player(init, loss_and_grads, flows.optimiser(config), ema=config["ema"])
    return codes.system("dvae", config, data, model, {"autoencoder": own})._replace(nll=nll)
