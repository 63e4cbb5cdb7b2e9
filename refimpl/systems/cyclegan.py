"""CycleGAN: two maps between two domains without pairs, held together by coming back: digits and inverted digits.

Zhu et al. 2017, arXiv:1703.10593. The weight 10 stands beside halved squares: twice the paper's.
"""
import numpy as np

from refimpl.equations import adversarial, translation
from refimpl.nets import translate as nets
from refimpl.ops.random import fold
from refimpl.train import Player, System

from .pix2pix import images_only, sources
from .two_player import add, optimiser

DEFAULTS = {"width": 16, "blocks": 2, "patch_widths": [32, 64], "weight": 10.0, "rate": 1e-3, "rate_g": 1e-3,
            "beta1": 0.5, "beta2": 0.99, "steps": 800, "batch": 64, "ema": 0.99}


def domains(x):
    r"""The two domains of a batch: its first half as it is, its second half inverted. No image has its partner.

    $$a = x_{1..N/2}, \qquad b = -x_{N/2+1..N}$$

    Shapes: x (N, ...). Returns a (N/2, ...), b.
    Source: the project's own task.
    """
    half = len(x) // 2
    return x[:half], -x[half:]


def part(params, prefix):
    """The parameters under a prefix, without it.

    Shapes: params a flat dict. Returns a flat dict.
    Source: the project's own form.
    """
    return {name[len(prefix):]: p for name, p in params.items() if name.startswith(prefix)}


def under(prefix, params):
    """The parameters renamed to stand under a prefix.

    Shapes: params a flat dict. Returns a flat dict.
    Source: the project's own form.
    """
    return {prefix + name: p for name, p in params.items()}


def build(config, data):
    """The system for images. Samples are the test images translated to the second domain, in their order.

    Shapes: config as DEFAULTS. Returns a System.
    Raises: ValueError when the data are no images.
    Source: Zhu et al. 2017, arXiv:1703.10593.
    """
    images_only("cyclegan", data)
    channels = data.shape[0]
    c = nets.TranslateConfig(channels, channels, config["width"], config["blocks"])

    def to(domain, params, x, ops):
        return nets.translator(part(params["generators"], f"to_{domain}."), x, ops=ops)

    def judge(domain, params, x, ops):
        return nets.patch_discriminator(part(params["discriminators"], f"{domain}."), x, ops=ops)

    def discriminators_loss(params, state, batch, key, ops):
        a, b = domains(batch.x)
        loss, grads = 0.0, {}
        for domain, real, source in (("a", a, b), ("b", b, a)):
            fake, _ = to(domain, params, source, ops)
            real_logits, real_back = judge(domain, params, real, ops)
            fake_logits, fake_back = judge(domain, params, fake, ops)
            dreal, dfake = adversarial.lsgan_d_vjp(1.0, real_logits, fake_logits, 0.0, 1.0)
            loss = loss + adversarial.lsgan_d(real_logits, fake_logits, 0.0, 1.0)
            grads |= under(f"{domain}.", add(real_back(dreal)[0], fake_back(dfake)[0]))
        return loss, grads, state, {}

    def generators_loss(params, state, batch, key, ops):
        a, b = domains(batch.x)
        fake_b, back_b = to("b", params, a, ops)
        cycle_a, back_cycle_a = to("a", params, fake_b, ops)
        fake_a, back_a = to("a", params, b, ops)
        cycle_b, back_cycle_b = to("b", params, fake_a, ops)
        logit_a, pull_a = judge("a", params, fake_a, ops)
        logit_b, pull_b = judge("b", params, fake_b, ops)
        given = logit_a, logit_b, a, cycle_a, b, cycle_b, config["weight"]
        dlogit_a, dlogit_b, _, dcycle_a, _, dcycle_b = translation.cyclegan_g_vjp(1.0, *given)
        g_cycle_a, dfake_b = back_cycle_a(dcycle_a)
        g_cycle_b, dfake_a = back_cycle_b(dcycle_b)
        g_b, _ = back_b(dfake_b + pull_b(dlogit_b)[1])
        g_a, _ = back_a(dfake_a + pull_a(dlogit_a)[1])
        grads = under("to_a.", add(g_a, g_cycle_a))
        grads |= under("to_b.", add(g_b, g_cycle_b))
        cycle = float(np.mean(np.abs(cycle_a - a)) + np.mean(np.abs(cycle_b - b))) / 2
        return translation.cyclegan_g(*given), grads, state, {"cycle": cycle}

    def sample(params, state, n, key, ops, labels=None, first=0, back=False):
        """back: also translate to the first domain again."""
        x, _ = to("b", params, sources(data, n, first, labels), ops)
        return to("a", params, x, ops)[0] if back else x

    def generators_init(key):
        return under("to_a.", nets.translator_init(fold(key, 1), c)) | under(
            "to_b.", nets.translator_init(fold(key, 2), c)), {}

    def discriminators_init(key):
        return under("a.", nets.patch_discriminator_init(fold(key, 1), channels, config["patch_widths"])) | under(
            "b.", nets.patch_discriminator_init(fold(key, 2), channels, config["patch_widths"])), {}

    return System("cyclegan", {
        "discriminators": Player(discriminators_init, discriminators_loss, optimiser(config, config["rate"])),
        "generators": Player(generators_init, generators_loss, optimiser(config, config["rate_g"]),
                             ema=config["ema"])}, sample, 0, {"back": False},
        truth=lambda n: -sources(data, n, 0, None))
