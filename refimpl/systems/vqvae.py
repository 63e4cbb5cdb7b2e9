"""VQ-VAE: an autoencoder whose latent vectors are replaced by the nearest rows of a codebook, and a prior over codes.

van den Oord et al. 2017, arXiv:1711.00937; restarts of unused rows: Dhariwal et al. 2020, arXiv:2005.00341.
"""
from refimpl.ops.random import fold

from . import codes
from .coder import coder

DEFAULTS = codes.DEFAULTS


def build(config, data):
    """The system: players autoencoder and prior. Shapes: config as DEFAULTS. Returns a System."""
    codes.check("vqvae", config)
    model = one_level(config, data)
    return codes.system("vqvae", config, data, model, {"autoencoder": codes.autoencoder_player(model, config)})


def one_level(config, data):
    """The Model of one codebook."""
    net = coder(config, data, config["latent"], config["latent"], config["positions"])

    def init(key):
        params, state = codes.bottleneck_init(fold(key, 9), config)
        return net.init(key) | params, state

    def autoencode(own, kept, x, key, ops):
        h, enc = net.encode(own, x, ops)
        e, k, loss, back, kept = codes.bottleneck(own, kept, h, config, key, ops)
        x_hat, dec = net.decode(own, e, ops)

        def pullback(dx_hat):
            g_dec, de = dec(dx_hat)
            g_book, dh = back(de)
            grads = enc(dh)[0] | g_dec | g_book
            return {name: grads[name] for name in own}

        return x_hat, k, loss, pullback, kept

    return codes.Model(
        init, autoencode, lambda own, kept, x, ops: net.encode(own, x, ops)[0],
        lambda own, kept, z, ops: codes.quantise.nearest_code(z, codes.table(own, kept)),
        lambda own, kept, k, ops: net.decode(own, codes.quantise.quantise(k, codes.table(own, kept)), ops)[0],
        net.positions, net.last)
