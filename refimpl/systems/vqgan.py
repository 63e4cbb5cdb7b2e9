"""VQGAN: a VQ-VAE whose reconstructions a discriminator judges, weighted so that both gradients are equally long at
the decoder's last layer.

Esser, Rombach, Ommer 2021, arXiv:2012.09841 (without its perceptual loss: there is no public network for 8x8 digits).
"""
import math

from refimpl.equations.adversarial import hinge_d, hinge_d_vjp, wasserstein_g, wasserstein_g_vjp
from refimpl.equations.quantise import adaptive_weight, perplexity
from refimpl.nets.mlp import mlp, mlp_init
from refimpl.train import Player

from . import codes, flows
from .vqvae import one_level

DEFAULTS = codes.DEFAULTS | {"adversarial": 0.8, "discriminator_rate": 5e-4, "discriminator_start": 300}


def build(config, data):
    """The system: players autoencoder, discriminator, prior. Shapes: config as DEFAULTS. Returns a System."""
    codes.check("vqgan", config)
    model, features = one_level(config, data), math.prod(data.shape)

    def judge(params, x, ops):
        y, back = mlp(params["discriminator"], x.reshape(len(x), -1), ops=ops, activation="leaky_relu")

        def pullback(dy):
            grads, dx = back(dy[:, None])
            return grads, dx.reshape(x.shape)

        return y[:, 0], pullback

    def autoencoder(params, state, batch, key, ops):
        own, kept = params["autoencoder"], state["autoencoder"]
        x_hat, k, extra, back, after = model.autoencode(own, kept, batch.x, key, ops)
        loss, dx_hat = codes.reconstruction(x_hat, batch.x)
        metrics = {"error": loss, "perplexity": perplexity(k, config["codes"])}
        after = after | {"step": kept["step"] + 1}
        plain = back(0 * dx_hat)  # what comes from the bottleneck alone: in both pullbacks, counted once
        grads = back(dx_hat)
        if kept["step"] >= config["discriminator_start"]:
            logits, judged = judge(params, x_hat, ops)
            adversarial = back(judged(wasserstein_g_vjp(1.0, logits))[1])
            weight = config["adversarial"] * adaptive_weight(grads[model.last], adversarial[model.last])
            grads = {name: g + g.dtype.type(weight) * (adversarial[name] - plain[name]) for name, g in grads.items()}
            loss = loss + weight * float(wasserstein_g(logits))
            metrics["weight"] = weight
        return loss + extra, grads, state | {"autoencoder": after}, metrics

    def discriminator(params, state, batch, key, ops):
        own, kept = params["autoencoder"], state["autoencoder"]
        fake = model.decode(own, kept, model.quantised(own, kept, model.encode(own, kept, batch.x, ops), ops), ops)
        (real_logits, back_real), (fake_logits, back_fake) = judge(params, batch.x, ops), judge(params, fake, ops)
        d_real, d_fake = hinge_d_vjp(1.0, real_logits, fake_logits)
        one, two = back_real(d_real)[0], back_fake(d_fake)[0]
        return hinge_d(real_logits, fake_logits), {k: one[k] + two[k] for k in one}, state, {}

    def init(key):
        params, kept = model.init(key)
        return params, kept | {"step": codes.np.zeros(1, "int64")}

    own = Player(init, autoencoder, flows.optimiser(config), ema=config["ema"])
    sizes = [features, *[config["width"]] * config["depth"], 1]
    other = Player(lambda key: (mlp_init(key, sizes), {}), discriminator,
                   flows.optimiser(config | {"rate": config["discriminator_rate"]}))
    return codes.system("vqgan", config, data, model, {"autoencoder": own, "discriminator": other})
