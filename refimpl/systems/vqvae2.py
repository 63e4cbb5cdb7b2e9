"""VQ-VAE-2: two levels of codes; the lower encoder sees the upper codes, the decoder both, one prior runs over all.

Razavi, van den Oord, Vinyals 2019, arXiv:1906.00446.
"""
import math

import numpy as np

from refimpl.nets.coupling import part, whole
from refimpl.nets.mlp import mlp, mlp_init
from refimpl.ops._check import require
from refimpl.ops.random import fold

from . import codes

DEFAULTS = codes.DEFAULTS | {"positions": 6, "top": 2}


def build(config, data):
    """The system; top of its positions are the upper level's. Shapes: config as DEFAULTS. Returns a System."""
    codes.check("vqvae2", config)
    require(config["net"] == "mlp", f"vqvae2 is built of perceptrons: net must be mlp, got {config['net']!r}")
    require(config["top"] >= 1, f"vqvae2: top must be at least 1, got {config['top']}")
    model = two_levels(config, data)
    return codes.system("vqvae2", config, data, model, {"autoencoder": codes.autoencoder_player(model, config)})


def two_levels(config, data):
    """The Model of two codebooks, whose codes stand one level after the other, top first."""
    D, features, hidden = config["latent"], math.prod(data.shape), [config["width"]] * config["depth"]
    top, bottom = config["top"], config["positions"]
    sizes = {"encoder_top": [features, *hidden, top * D], "encoder_bottom": [features + top * D, *hidden, bottom * D],
             "decoder": [(top + bottom) * D, *hidden, features]}
    flat = lambda a: a.reshape(len(a), -1)

    def run(name, own, x, ops):
        y, back = mlp(part(own, name), x, ops=ops, activation="silu")

        def pullback(dy):
            grads, dx = back(dy)
            return whole(grads, name), dx

        return y, pullback

    def init(key):
        params, state = {}, {}
        for i, name in enumerate(sizes):
            params |= whole(mlp_init(fold(key, i), sizes[name]), name)
        for i, name in enumerate(("top.", "bottom.")):
            p, s = codes.bottleneck_init(fold(key, 9 + i), config, name)
            params, state = params | p, state | s
        return params, state

    def autoencode(own, kept, x, key, ops):
        n = len(x)
        h_top, enc_top = run("encoder_top", own, flat(x), ops)
        e_top, k_top, loss_top, back_top, kept = codes.bottleneck(
            own, kept, h_top.reshape(n, top, D), config, fold(key, 0), ops, "top.")
        h, enc = run("encoder_bottom", own, np.concatenate([flat(x), flat(e_top)], axis=1), ops)
        e, k, loss, back, kept = codes.bottleneck(
            own, kept, h.reshape(n, bottom, D), config, fold(key, 1), ops, "bottom.")
        x_hat, dec = run("decoder", own, np.concatenate([flat(e_top), flat(e)], axis=1), ops)

        def pullback(dx_hat):
            g_dec, de = dec(flat(dx_hat))
            g_book, dh = back(de[:, top * D:].reshape(e.shape))
            g_enc, dinput = enc(flat(dh))
            g_top_book, dh_top = back_top((de[:, :top * D] + dinput[:, features:]).reshape(e_top.shape))
            grads = enc_top(flat(dh_top))[0] | g_enc | g_dec | g_book | g_top_book
            return {name: grads[name] for name in own}

        return x_hat.reshape(x.shape), np.concatenate([k_top, k], axis=1), loss_top + loss, pullback, kept

    def encode(own, kept, x, ops):
        h_top, _ = run("encoder_top", own, flat(x), ops)
        h_top = h_top.reshape(len(x), top, D)
        book = codes.table(own, kept, "top.")
        e_top = codes.quantise.quantise(codes.quantise.nearest_code(h_top, book), book)
        h, _ = run("encoder_bottom", own, np.concatenate([flat(x), flat(e_top)], axis=1), ops)
        return np.concatenate([h_top, h.reshape(len(x), bottom, D)], axis=1)

    def quantised(own, kept, z, ops):
        return np.concatenate([codes.quantise.nearest_code(a, codes.table(own, kept, name))
                               for a, name in ((z[:, :top], "top."), (z[:, top:], "bottom."))], axis=1)

    def decode(own, kept, k, ops):
        e = np.concatenate([flat(codes.quantise.quantise(part_, codes.table(own, kept, name)))
                            for part_, name in ((k[:, :top], "top."), (k[:, top:], "bottom."))], axis=1)
        return run("decoder", own, e, ops)[0].reshape(len(k), *data.shape)

    return codes.Model(init, autoencode, encode, quantised, decode, top + bottom,
                       f"decoder.layers.{config['depth']}.weight")
