"""Autoencoder: squared error through a bottleneck. A linear one (depth=0) finds the span of the principal components.

Rumelhart, Hinton, Williams 1986, Nature 323; linear: Baldi and Hornik 1989, Neural Networks 2; the denoising view that
links it to diffusion: Vincent 2011; Vincent et al. 2010, JMLR 11; Alain and Bengio 2014, arXiv:1211.4246.
"""
import numpy as np

from refimpl.ops.random import fold
from refimpl.train import Player, System

from . import flows
from .coder import DEFAULTS as CODER
from .coder import coder

DEFAULTS = CODER | {"latent": 8, "noise": 0.0}


def build(config, data):
    """The system: noise > 0 corrupts the input (a denoising autoencoder).

    It has no distribution of its own: samples are decoded from the Gaussian of the training data's codes.
    Shapes: config as DEFAULTS. Returns a System.
    """
    net = coder(config, data, config["latent"], config["latent"], 1)

    def loss_and_grads(params, state, batch, key, ops):
        own, n = params["autoencoder"], len(batch.x)
        z = ops.normal(key, np.arange(n), 0, data.shape, dtype=batch.x.dtype, like=batch.x) if config["noise"] else 0.0
        h, enc = net.encode(own, batch.x + batch.x.dtype.type(config["noise"]) * z, ops)
        x_hat, dec = net.decode(own, h, ops)
        dx_hat, _ = ops.mse_vjp(1.0, x_hat, batch.x)
        g_dec, dh = dec(dx_hat)
        g_enc, _ = enc(dh)
        return ops.mse(x_hat, batch.x), g_enc | g_dec, state, {}

    def encode(params, state, x, ops):
        h = net.encode(params["autoencoder"], x, ops)[0]
        return h.reshape(len(x), -1)

    def decode(params, state, z, ops):
        x, _ = net.decode(params["autoencoder"], z.reshape(len(z), net.positions, -1), ops)
        return np.clip(x, -1, 1) if len(data.shape) == 3 else x

    def sample(params, state, n, key, ops, labels=None, first=0):
        flows.no_labels("autoencoder", labels)
        dtype = next(iter(params["autoencoder"].values())).dtype
        codes = encode(params, state, data.train.astype(dtype), ops).astype(np.float64)
        mean, cov = codes.mean(axis=0), np.cov(codes.T).reshape(codes.shape[1], -1)
        values, vectors = np.linalg.eigh(cov)
        z = ops.normal(fold(key, 0), first + np.arange(n), 0, (codes.shape[1],), np.float64)
        return decode(params, state, (mean + (z * np.sqrt(np.maximum(values, 0))) @ vectors.T).astype(dtype), ops)

    player = Player(lambda key: (net.init(key), {}), loss_and_grads, flows.optimiser(config), ema=config["ema"])
    return System("autoencoder", {"autoencoder": player}, sample, encode=encode, decode=decode)
