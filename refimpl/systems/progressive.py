"""Progressive GAN: both networks grow from small images to large ones, each size faded in while it is new.

Karras et al. 2018, arXiv:1710.10196. With R1 in place of the paper's WGAN-GP, as its successors.
"""
import numpy as np

from refimpl.nets import progressive as nets
from refimpl.nets.reparametrise import equalised, through
from refimpl.ops._check import require

from . import two_player

DEFAULTS = two_player.DEFAULTS | {
    "penalty": "r1", "base": 4, "width": 32, "group": 4, "grow": 0.3, "fade": 0.5, "rate": 2e-2, "rate_g": 1e-2,
    "beta2": 0.99, "ema": 0.99, "steps": 2000}


def widths(config, data):
    r"""Channels at each size from base to the image's.

    $$\mathrm{base}\cdot 2^k = S$$

    Shapes: returns a tuple of ints.
    Raises: ValueError when the data are no square images of base times a power of two, or the group does not divide
    the batch.
    Source: Karras et al. 2018, arXiv:1710.10196, table 2.
    """
    require(len(data.shape) == 3 and data.shape[1] == data.shape[2],
            f"convolutional GANs need square images, and samples of {data.spec} have shape {data.shape}")
    base, size = config["base"], data.shape[1]
    ratio = size // base if base else 0
    require(ratio >= 2 and ratio & (ratio - 1) == 0 and ratio * base == size,
            f"the image's size must be base {base} times 2, 4, 8, ..., got {size}")
    require(config["group"] >= 1 and config["batch"] % config["group"] == 0,
            f"batch must be a multiple of the group of {config['group']} for the minibatch deviation, "
            f"got {config['batch']}")
    return (config["width"],) * ratio.bit_length()


def stage(step, steps, levels, grow, fade):
    r"""Which size is being trained at a step, and how far it has faded in.

    $$\mathrm{level} = \min\left(\left\lfloor \frac{\mathrm{step}}{g K}\right\rfloor, L-1\right), \qquad
      \alpha = \min\left(1, \frac{\mathrm{step} - g K\,\mathrm{level}}{f g K}\right)$$

    Every size but the last has the share g = grow/(L-1) of the K steps; a new one fades in for f = fade of that.
    Shapes: step in 0..steps-1, levels L. Returns an int and a number in [0, 1]; the smallest size needs no fading.
    Source: Karras et al. 2018, arXiv:1710.10196, sec. 2 and app. A, in shares instead of counts of images.
    """
    if levels == 1 or grow == 0:
        return levels - 1, 1.0
    share = grow / (levels - 1) * steps
    level = min(int(step // share), levels - 1)
    return level, 1.0 if level == 0 or fade == 0 else min(1.0, (step - share * level) / (fade * share))


def build(config, data):
    """The system for square images. grow: the share of the steps before the full size; fade: of a size's, to fade in.

    Shapes: config as DEFAULTS. Returns a System.
    Raises: ValueError when the data are no square images of a fitting size, or the group does not divide the batch.
    Source: Karras et al. 2018, arXiv:1710.10196.
    """
    w = widths(config, data)
    c = nets.ProgressiveConfig(config["base"], w, data.shape[0], config["latent"], config["group"])
    require(0 <= config["grow"] < 1 and 0 <= config["fade"] <= 1, "grow must be in [0, 1) and fade in [0, 1]")
    system = two_player.two_player("progressive", config, data, networks(c, len(w) - 1, 1.0))

    def grown(before):
        """A player's loss at the size of the step, which the discriminator's state counts: it moves before the other."""
        def loss_and_grads(params, state, batch, key, ops):
            count = int(state["discriminator"]["step"])
            level, alpha = stage(count - (1 - before), config["steps"], len(w), config["grow"], config["fade"])
            at = networks(c, level, alpha)
            loss = (two_player.discriminator_loss if before else two_player.generator_loss)(at, config, False)
            value, grads, state, metrics = loss(params, state, batch._replace(x=shrink(batch.x, level, alpha, c, ops)),
                                                key, ops)
            if before:
                state = state | {"discriminator": {"step": np.asarray(count + 1)}}
            return value, grads, state, metrics | {"alpha": alpha}

        return loss_and_grads

    def sample(params, state, n, key, ops, labels=None, first=0):
        level, alpha = stage(int(state["discriminator"]["step"]), config["steps"], len(w), config["grow"],
                             config["fade"])
        x = two_player.sampler(networks(c, level, alpha), data._replace(train=data.train[:1]), False, {})(
            params, state, n, key, ops, labels, first)
        return ops.upsample_nearest(x, data.shape[1] // x.shape[2])

    d, g = system.players["discriminator"], system.players["generator"]
    return system._replace(sample=sample, players={
        "discriminator": d._replace(loss_and_grads=grown(True)),
        "generator": g._replace(loss_and_grads=grown(False))})


def shrink(x, level, alpha, config, ops):
    r"""Training images at the size of a level, as blurred as the networks' own while it fades in.

    $$(1-\alpha)\,\mathrm{up}(\mathrm{pool}\,x_k) + \alpha\,x_k, \qquad x_k = \mathrm{pool}^{L-1-k}(x)$$

    Shapes: x (N, C, S, S). Returns (N, C, base 2^level, .).
    Source: Karras et al. 2018, arXiv:1710.10196, sec. 2.
    """
    times = 2 ** (len(config.widths) - 1 - level)
    x = ops.average_pool(x, times) if times > 1 else x
    if level == 0 or alpha == 1:
        return x
    return nets.fade(ops.upsample_nearest(ops.average_pool(x, 2), 2), x, alpha)


def networks(c, level, alpha):
    r"""Both networks at a level, on equalised weights.

    $$G_{k,\alpha},\; D_{k,\alpha}$$

    Shapes: c a ProgressiveConfig. Returns Networks.
    Source: Karras et al. 2018, arXiv:1710.10196.
    """
    def generator(params, state, z, labels, ops, train):
        weights, to_params = equalised(params)
        x, back = nets.generator(weights, z, level, alpha, config=c, ops=ops)
        return x, lambda dx: to_params(back(dx)[0]), state

    def discriminator(params, state, x, labels, ops, train):
        weights, to_params = equalised(params)
        logits, back = nets.discriminator(weights, x, level, alpha, config=c, ops=ops)
        return logits, through(to_params, back), state

    return two_player.Networks(generator, lambda key: (nets.generator_init(key, c), {}), discriminator,
                               lambda key: (nets.discriminator_init(key, c), {"step": np.asarray(0)}),
                               two_player.normal_latents(c.latent), joint=False)
