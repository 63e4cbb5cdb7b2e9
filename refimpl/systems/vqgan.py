"""VQGAN: a VQ-VAE whose reconstructions are compared by their features too, and judged patch by patch by a
discriminator, weighted so that both gradients are equally long at the decoder's last layer.

Esser, Rombach, Ommer 2021, arXiv:2012.09841. Their features are those of a classifier of ImageNet; ours those of a small
one of the training data's own classes, learnt in the same run and fixed before they are used.
"""
import math

from refimpl.equations import perceptual
from refimpl.equations.adversarial import hinge_d, hinge_d_vjp, wasserstein_g, wasserstein_g_vjp
from refimpl.equations.quantise import adaptive_weight, perplexity
from refimpl.nets.classifier import classifier, classifier_init
from refimpl.nets.translate import patch_discriminator, patch_discriminator_init
from refimpl.ops._check import require
from refimpl.train import Player

from . import codes, flows
from .two_player import add
from .vqvae import one_level

DEFAULTS = codes.DEFAULTS | {"positions": 2, "perceptual": 30.0, "adversarial": 0.2, "start": 600, "judge_rate": 1e-3,
                             "judge_width": 64, "feature_widths": [16, 32]}
UNLABELLED = {"perceptual": 0.0}  # features are a classifier's


def build(config, data):
    r"""The system: players autoencoder, discriminator, features (with a perceptual loss), prior.

    $$L = \|x-\hat x\|^2 + L_{VQ} + p\,L_{features} - \lambda a\,D(\hat x)$$

    The last two terms begin at the step `start`: by then there is something to judge, and the features are learnt.
    Shapes: config as DEFAULTS. Returns a System.
    Raises: ValueError for settings that do not fit.
    """
    codes.check("vqgan", config)
    require(len(data.shape) == 3, f"vqgan judges patches of images, and samples of {data.spec} have shape {data.shape}")
    require(data.classes or not config["perceptual"], f"vqgan: the perceptual loss compares features of a classifier, "
            f"and {data.spec} has no classes: set perceptual=0")
    require(config["start"] >= 0, f"vqgan: start must not be negative, got {config['start']}")
    model = one_level(config, data)
    halvings = max(1, int(math.log2(min(data.shape[1:]) / 4)))
    widths = [config["judge_width"] * 2**k for k in range(halvings)]

    def judge(params, x, ops):
        return patch_discriminator(params["discriminator"], x, ops=ops)

    def unlike(params, x_hat, x, ops):
        """The perceptual loss and its gradient for x_hat."""
        features, _, back = classifier(params["features"], x_hat, ops=ops)
        wanted, _, _ = classifier(params["features"], x, ops=ops)
        return (perceptual.feature_loss(features, wanted),
                back(perceptual.feature_loss_vjp(1.0, features, wanted)[0])[1])

    def autoencoder(params, state, batch, key, ops):
        own, kept = params["autoencoder"], state["autoencoder"]
        x_hat, k, extra, back, after = model.autoencode(own, kept, batch.x, key, ops)
        loss, dx_hat = codes.reconstruction(x_hat, batch.x)
        metrics = {"error": loss, "perplexity": perplexity(k, config["codes"])}
        after = after | {"step": kept["step"] + 1}
        if kept["step"] >= config["start"]:
            if config["perceptual"]:
                distance, dx = unlike(params, x_hat, batch.x, ops)
                loss, dx_hat = loss + config["perceptual"] * distance, dx_hat + x_hat.dtype.type(config["perceptual"]) * dx
                metrics["perceptual"] = float(distance)
            logits, judged = judge(params, x_hat, ops)
            dx = judged(wasserstein_g_vjp(1.0, logits))[1]
            last = (back(d)[model.last] for d in (dx_hat, dx))  # nothing of the bottleneck's in the decoder
            weight = config["adversarial"] * adaptive_weight(*last)
            loss, dx_hat = loss + weight * float(wasserstein_g(logits)), dx_hat + x_hat.dtype.type(weight) * dx
            metrics["weight"] = weight
        return loss + extra, back(dx_hat), state | {"autoencoder": after}, metrics

    def discriminator(params, state, batch, key, ops):
        own, kept = params["autoencoder"], state["autoencoder"]
        fake = model.decode(own, kept, model.quantised(own, kept, model.encode(own, kept, batch.x, ops), ops), ops)
        (real_logits, back_real), (fake_logits, back_fake) = judge(params, batch.x, ops), judge(params, fake, ops)
        d_real, d_fake = hinge_d_vjp(1.0, real_logits, fake_logits)
        grads = add(back_real(d_real)[0], back_fake(d_fake)[0])
        return hinge_d(real_logits, fake_logits), grads, state, {}

    def features(params, state, batch, key, ops):
        layers, logits, back = classifier(params["features"], batch.x, ops=ops)
        grads, _ = back([0 * layer for layer in layers], ops.cross_entropy_vjp(1.0, logits, batch.labels))
        return ops.cross_entropy(logits, batch.labels), grads, state, {}

    def init(key):
        params, kept = model.init(key)
        return params, kept | {"step": codes.np.zeros(1, "int64")}

    own = Player(init, autoencoder, flows.optimiser(config), ema=config["ema"])
    other = Player(lambda key: (patch_discriminator_init(key, data.shape[0], widths), {}), discriminator,
                   flows.optimiser(config | {"rate": config["judge_rate"]}))
    players = {"autoencoder": own, "discriminator": other}
    if config["perceptual"]:
        learnt = flows.optimiser(config | {"steps": max(2, config["start"])})
        learnt = learnt._replace(rate=lambda step, rate=learnt.rate: rate(step) if step < config["start"] else 0.0)
        players["features"] = Player(lambda key: (classifier_init(key, data.shape, config["feature_widths"],
                                                                  data.classes), {}), features, learnt)
    return codes.system("vqgan", config, data, model, players)
