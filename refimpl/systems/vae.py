"""VAE: a Gaussian encoder, a standard normal prior, and a decoder whose likelihood is an argument.

Kingma and Welling 2014, arXiv:1312.6114; beta: Higgins et al. 2017, ICLR; free bits: Kingma et al. 2016,
arXiv:1606.04934; the bound that `score` reports: Burda et al. 2016, arXiv:1509.00519.
"""
import math

import numpy as np

from refimpl.equations import elbo, gaussian
from refimpl.equations.bound import bits_per_dim, discretised_gaussian
from refimpl.ops._check import require
from refimpl.ops.random import fold
from refimpl.train import Player, System

from . import flows
from .coder import DEFAULTS as CODER
from .coder import coder

DEFAULTS = CODER | {"latent": 8, "likelihood": "gaussian", "beta": 1.0, "free_bits": 0.0, "importance": 16,
                    "steps": 3000, "width": 128}


def build(config, data):
    r"""The system. likelihood: gaussian (one learnt variance), bernoulli (pixels as intensities) or logistic
    (discretised, one learnt scale); the loss is -ELBO in nats.

    Shapes: config as DEFAULTS. Returns a System.
    Raises: ValueError for settings that do not fit.
    """
    kind, bins, image = config["likelihood"], data.levels, len(data.shape) == 3
    require(kind in ("gaussian", "bernoulli", "logistic"),
            f"vae: likelihood must be gaussian, bernoulli or logistic, got {kind!r}")
    require(kind == "gaussian" or image, f"vae: the {kind} likelihood is for images")
    require(kind != "logistic" or bins, "vae: the logistic likelihood is for data on a grid of levels")
    require(config["beta"] >= 0 and config["free_bits"] >= 0 and config["importance"] >= 1,
            "vae: beta and free_bits must not be negative, importance at least 1")
    net = coder(config, data, 2 * config["latent"], config["latent"], 1)

    def posterior(params, x, ops):
        """Mean and log variance (N, L), and pullback(dmean, dlog_var) -> grads."""
        h, back = net.encode(params, x, ops)
        mean, log_var = np.split(h, 2, axis=2)
        flat = lambda a: a.reshape(len(x), -1)
        back_to = lambda dmean, dlog_var: back(np.concatenate(
            [dmean.reshape(mean.shape), dlog_var.reshape(mean.shape)], axis=2))[0]
        return flat(mean), flat(log_var), back_to

    def likelihood(params, x, z, ops):
        """log p(x|z) (N,), and pullback(dy) -> grads, dz."""
        y, back = net.decode(params, z.reshape(len(z), net.positions, -1), ops)

        def pullback(dy):
            scale = {}
            if kind == "bernoulli":
                dout = elbo.log_bernoulli_vjp(dy, (x + 1) / 2, y)
            elif kind == "logistic":
                dout, ds = elbo.discretised_logistic_vjp(dy, x, y, spread(params, y), bins)
                scale = {"spread": np.sum(ds)[None]}
            else:
                _, dout, ds = gaussian.log_normal_vjp(dy, x, y, spread(params, y))
                scale = {"spread": np.sum(ds)[None]}
            grads, dz = back(dout)
            return grads | scale, dz.reshape(z.shape)

        if kind == "bernoulli":
            return elbo.log_bernoulli((x + 1) / 2, y), pullback
        if kind == "logistic":
            return elbo.discretised_logistic(x, y, spread(params, y), bins), pullback
        return gaussian.log_normal(x, y, spread(params, y)), pullback

    def spread(params, y):
        return params["spread"] + 0 * y

    def loss_and_grads(params, state, batch, key, ops):
        own, x, n = params["vae"], batch.x, len(batch.x)
        mean, log_var, enc = posterior(own, x, ops)
        eps = ops.normal(key, np.arange(n), 0, mean.shape[1:], dtype=x.dtype, like=x)
        z = gaussian.reparametrise(mean, log_var, eps)
        log_p, dec = likelihood(own, x, z, ops)
        each = lambda a: a.reshape(-1, 1)  # every latent dimension as a sample of its own
        kl = gaussian.kl_normal(each(mean), each(log_var), 0 * each(mean), 0 * each(mean)).reshape(mean.shape)
        if config["free_bits"]:
            total = elbo.free_bits(kl, config["free_bits"])
            dkl = elbo.free_bits_vjp(config["beta"], kl, config["free_bits"])
            loss = config["beta"] * total - np.mean(log_p)
        else:
            loss = elbo.negative_elbo(log_p, np.sum(kl, axis=1), config["beta"])
            dkl = np.full(kl.shape, config["beta"] / n, x.dtype)
        g_dec, dz = dec(np.full(n, -1 / n, x.dtype))
        dmean, dlog_var, _ = gaussian.reparametrise_vjp(dz, mean, log_var, eps)
        dmean_kl, dlog_var_kl, _, _ = gaussian.kl_normal_vjp(each(dkl)[:, 0], each(mean), each(log_var), 0 * each(mean),
                                                    0 * each(mean))
        grads = enc(dmean + dmean_kl.reshape(mean.shape), dlog_var + dlog_var_kl.reshape(mean.shape)) | g_dec
        return loss, {k: grads[k].astype(own[k].dtype) for k in own}, state, {"kl": float(np.mean(np.sum(kl, axis=1)))}

    def nll(params, state, x, key, ops, importance=config["importance"], discrete=True):
        """The importance-weighted bound; a Gaussian likelihood is integrated over the bins of data on a grid."""
        own, log_w = params["vae"], []
        mean, log_var, _ = posterior(own, x, ops)
        for k in range(importance):
            eps = ops.normal(key, np.arange(len(x)), k, mean.shape[1:], dtype=x.dtype, like=x)
            z = gaussian.reparametrise(mean, log_var, eps)
            if kind == "gaussian" and bins and discrete:
                y, _ = net.decode(own, z.reshape(len(z), net.positions, -1), ops)
                log_p = discretised_gaussian(x, y, spread(own, y), bins)
            else:
                log_p, _ = likelihood(own, x, z, ops)
            log_w.append(log_p + gaussian.log_normal(z, 0 * z, 0 * z) - gaussian.log_normal(z, mean, log_var))
        nats = -elbo.importance_weighted_bound(np.stack(log_w, axis=1))
        return bits_per_dim(nats, x) if bins and discrete and kind != "bernoulli" else nats

    def encode(params, state, x, ops):
        return posterior(params["vae"], x, ops)[0]

    def decode(params, state, z, ops):
        x, _ = net.decode(params["vae"], z.reshape(len(z), net.positions, -1), ops)
        x = 2 * ops.sigmoid(x) - 1 if kind == "bernoulli" else x
        return np.clip(x, -1, 1) if image else x

    def sample(params, state, n, key, ops, labels=None, first=0, noise=False):
        """noise: draw from the decoder's distribution too, instead of its mean (whose blur is the VAE's)."""
        flows.no_labels("vae", labels)
        index = first + np.arange(n)
        z = ops.normal(fold(key, 0), index, 0, (net.positions * config["latent"],))
        x = decode(params, state, z, ops)
        if noise and kind == "gaussian":
            x = x + np.exp(params["vae"]["spread"] / 2) * ops.normal(fold(key, 1), index, 0, data.shape)
            x = np.clip(x, -1, 1) if image else x
        return x

    def init(key):
        extra = {} if kind == "bernoulli" else {"spread": np.full(1, math.log(0.1), np.float32)}
        return net.init(key) | extra, {}

    return System("vae", {"vae": Player(init, loss_and_grads, flows.optimiser(config), ema=config["ema"])}, sample,
                  options={"noise": False}, nll=nll, encode=encode, decode=decode)
