"""What every diffusion system is made of: a network, the levels it is trained at, a loss, and any sampler.

A system states a Model, which holds what sets it apart; `build` makes a System of it. That the published losses differ
by prediction, levels and weight alone: Kingma and Gao 2023, arXiv:2303.00848; Karras et al. 2022, arXiv:2206.00364.
"""
from typing import NamedTuple

import numpy as np

from refimpl.equations import diffusion, likelihood
from refimpl.equations.bound import bits_per_dim
from refimpl.equations.continuous import level_of_log_snr
from refimpl.equations.gaussian import log_normal
from refimpl.equations.objectives import WEIGHTS, loss_weight
from refimpl.nets.mlp import TimeMLPConfig, time_mlp, time_mlp_init
from refimpl.nets.unet import unet, unet_config, unet_init
from refimpl.ops._check import per_sample, require
from refimpl.ops.random import fold
from refimpl.optim import Optimiser, adamw, cosine_rate
from refimpl.train import Player, System

from .drawing import sampling, scaled

IMAGES = {
    "net": "unet", "channels": 32, "multipliers": [1, 2], "layers": 1, "attention": [4], "dropout": 0.0,
    "width": 256, "depth": 3, "label_dropout": 0.1, "steps": 825, "batch": 128, "rate": 2e-3, "weight_decay": 0.01,
    "warmup": 30, "ema": 0.995, "clip": 1.0,
}
POINTS = {"net": "mlp", "width": 128, "steps": 3000, "rate": 3e-3, "ema": 0.998}


class Model(NamedTuple):
    """What sets one diffusion model apart from another.

    path: the family of its levels, 'vp', 've', 'subvp' or 'flow'. draw(u) -> signal, noise, told, (N,) each: the levels
    of a training step, from uniforms in [0, 1), and what the network is told of them; told(signal, noise) the same for
    one level. levels(steps, **own options) -> the rows that a sampler passes. own: those options, with defaults.
    prediction: what the network's output stands for; with denoiser(signal, noise) -> (a, b) it is x0 = a x + b output.
    scale(signal, noise): what its input is multiplied by. loss(output, x0, x_t, eps, signal, noise, told) -> value,
    d output. outputs: 2 where the network also gives a variance. sampler: (name, steps, options) unless others are
    asked for. nll: as System's, but nll(ask, x, key, ops, **options) with ask(x, signal, noise) -> the prediction, which
    is x0 where there is a denoiser, and its pullback to x.
    """

    path: str
    draw: object
    told: object
    levels: object
    loss: object
    prediction: str = "eps"
    sampler: tuple = ("ddim", 50, {})
    own: dict = {}  # noqa: RUF012 - never written to
    denoiser: object = None
    scale: object = None
    outputs: int = 1
    nll: object = None


def squared(prediction, weight="plain"):
    """The loss of a Model: the squared error of a prediction, under the weight of that name.

    Raises: ValueError for another prediction or weight.
    Source: refimpl.equations.objectives.loss_weight.
    """
    require(prediction in diffusion.PREDICTIONS,
            f"prediction must be one of {', '.join(diffusion.PREDICTIONS)}, got {prediction!r}")
    require(weight in ("plain", *WEIGHTS), f"weight must be plain or one of {', '.join(WEIGHTS)}, got {weight!r}")

    def loss(e, x0, x_t, eps, signal, noise, told):
        target = diffusion.training_target(prediction, x0, eps, signal, noise)
        w = 1.0 if weight == "plain" else loss_weight(weight, prediction, signal, noise)
        return diffusion.simple_loss(e, target, w), diffusion.simple_loss_vjp(1.0, e, target, w)[0]

    return loss


def build(name, config, data, model):
    """The System of a Model for a data set. net, channels ... dropout: the U-Net; width, depth: the perceptron."""
    for entry in ("channels", "layers", "width", "depth", "steps", "batch"):
        require(config[entry] >= 1, f"{name}: {entry} must be at least 1, got {config[entry]}")
    require(0 <= config["label_dropout"] < 1, f"label_dropout must be in [0, 1), got {config['label_dropout']}")
    init, net = network(config, data, model.outputs)

    def loss_and_grads(params, state, batch, key, ops):
        u, eps, labels = corruption(key, batch, data.classes, config["label_dropout"], ops)
        signal, noise, told = model.draw(u)
        x_t = ops.q_sample(batch.x, signal, noise, eps)
        e, pullback = net(params["model"], scaled(model, x_t, signal, noise), told, labels, ops, fold(key, 3))
        loss, de = model.loss(e, batch.x, x_t, eps, signal, noise, told)
        return loss, pullback(de)[0], state, {}

    def nll(params, state, x, key, ops, **options):
        """As the Model says, of a model without condition: its class, where it has them, is the null class."""
        labels = np.full(len(x), data.classes) if data.classes else None

        def ask(x, signal, noise):
            x = x.astype(next(iter(params["model"].values())).dtype)
            told = np.broadcast_to(np.asarray(model.told(signal, noise), np.float64), len(x))
            e, pullback = net(params["model"], scaled(model, x, signal, noise), told, labels, ops)
            back = lambda de: scaled(model, pullback(de)[1], signal, noise)
            if not model.denoiser:
                return e, back
            a, b = (per_sample(c, x) for c in model.denoiser(signal, noise))
            return a * x + b * e, lambda de: a * de + back(b * de)

        return model.nll(ask, x, key, ops, **options)

    sample, options = sampling(name, model, net, data, (-1, 1) if len(data.shape) == 3 else None)
    return System(name, {"model": player(config, init, loss_and_grads)}, sample, data.classes, options,
                  nll=nll if model.nll else None)


def ode_likelihood(data, path, least, most, prediction="eps"):
    r"""nll of a Model by its probability-flow ODE: nats of points, and of grid data a bound in bits per dimension.

    $$-\log P(x_0) \le -E_q\left[\log p_s(x_s) + \log P(x_0|x_s) - \log q(x_s|x_0)\right], \qquad
      q(x_s|x_0) = N(\mathrm{signal}_s\,x_0,\ \mathrm{noise}_s^2)$$

    Shapes: least, most: noise/signal where the ODE begins and ends; on a grid it begins where the noise is a sixth of the
    grid's width, which leaves hardly a doubt about x0. The divergence is exact for points, Hutchinson's for images.
    Source: Song et al. 2021, arXiv:2011.13456, app. D.2; the bound: Kingma et al. 2021, arXiv:2107.00630, eq. 11.
    """
    grid = data.levels and len(data.shape) == 3

    def nll(ask, x, key, ops, steps=16):
        n, x = len(x), x.astype(np.float64)
        index, first = np.arange(n), max(least, 1 / (3 * (data.levels - 1))) if grid else least
        rows = np.stack(level_of_log_snr(-2 * np.linspace(np.log(first), np.log(most), steps + 1), path), axis=1)
        signal, noise = (float(v) for v in rows[0])
        last = float(rows[-1, 1]) if path == "ve" else 1.0  # deviation of the noise that sampling starts from
        v = np.sign(ops.uniform(fold(key, 1), index, 0, x.shape[1:], np.float64) - 0.5) if grid else None

        def predict(x, signal, noise):
            e, pullback = ask(x, signal, noise)
            return e, lambda de: pullback(de.astype(e.dtype))

        x_s = ops.q_sample(x, signal, noise, (fold(key, 0), index, 0)) if grid else x
        density = likelihood.ode_log_likelihood(
            predict, x_s, rows, lambda x: log_normal(x, 0 * x, 0 * x + 2 * np.log(last)), path=path,
            prediction=prediction, v=v, pullback=True)
        if not grid:
            return -density
        spent = log_normal(x_s, signal * x, 0 * x + 2 * np.log(noise))
        return bits_per_dim(spent - density - likelihood.grid_posterior(x, x_s, signal, noise, data.levels), x)

    return nll


def player(config, init, loss_and_grads):
    """One network under AdamW, its rate rising and then falling along a cosine, with an average of its parameters."""
    steps, rate = config["steps"], config["rate"]
    optimiser = Optimiser(lambda p, g, s, r: adamw(p, g, s, r, weight_decay=config["weight_decay"]),
                          lambda step: cosine_rate(min(step, steps - 1), steps, rate, min(config["warmup"], steps - 1)),
                          config["clip"])
    return Player(init, loss_and_grads, optimiser, ema=config["ema"])


def corruption(key, batch, classes, label_dropout, ops):
    r"""What a training step draws: uniforms, noise, and labels of which some are replaced by the null class.

    $$u_i = (u + i/N) \bmod 1, \qquad \epsilon \sim N(0, I)$$

    One uniform u is shared, so that the u_i lie evenly: each is uniform, and the mean of the levels that follow from
    them varies less.
    Shapes: batch of N; returns u (N,) in [0, 1), eps (N, ...), labels (N,) or None.
    Source: Kingma et al. 2021, arXiv:2107.00630, app. I.1 (times); Ho and Salimans 2022, arXiv:2207.12598 (labels).
    """
    n = len(batch.x)
    index = np.arange(n)
    u = (1 - float(ops.uniform(fold(key, 0), index[:1], 0, (), np.float64)[0]) + index / n) % 1
    eps = ops.normal(fold(key, 1), index, 0, batch.x.shape[1:], dtype=batch.x.dtype, like=batch.x)
    if not classes:
        return u, eps, None
    drop = ops.uniform(fold(key, 2), index, 0, ()) <= label_dropout
    return u, eps, np.where(drop & (label_dropout > 0), classes, batch.labels)


def network(config, data, outputs=1):
    """init(key) -> params, state and net(params, x, t, labels, ops, key=None) -> y, pullback, sized for the data.

    outputs: how many times the data's channels it gives. The key is dropout's; without one nothing is dropped, as in
    sampling.
    """
    require(config["net"] in ("unet", "mlp"), f"net must be 'unet' or 'mlp', got {config['net']!r}")
    embeds = data.classes + 1 if data.classes else None
    if config["net"] == "mlp":
        require(config["dropout"] == 0, "the perceptron has no dropout: leave dropout at 0 or set net=unet")
        c = TimeMLPConfig(int(np.prod(data.shape)), config["width"], config["depth"],
                          num_class_embeds=embeds, outputs=outputs)
        return (lambda key: (time_mlp_init(key, c), {}),
                lambda params, x, t, labels, ops, key=None: time_mlp(params, x, t, labels, config=c, ops=ops))
    require(len(data.shape) == 3, f"a U-Net needs images, {data.spec} has samples of shape {data.shape}: set net=mlp")
    channels, height, width = data.shape
    widths = [config["channels"] * m for m in config["multipliers"]]
    factor = 2 ** (len(widths) - 1)
    require(height % factor == width % factor == 0, f"a U-Net with {len(widths)} multipliers needs sides divisible by "
            f"{factor}, {data.spec} has images of {height}x{width}: set fewer multipliers or net=mlp")
    attends = [height // 2**i in config["attention"] for i in range(len(widths))]
    c = unet_config({
        "in_channels": channels, "out_channels": outputs * channels, "block_out_channels": widths, "mid_block_type": None,
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["UpBlock2D"] * len(widths), "layers_per_block": config["layers"],
        "norm_num_groups": 8, "attention_head_dim": None, "flip_sin_to_cos": False, "freq_shift": 1,
        "num_class_embeds": embeds, "dropout": config["dropout"]})
    return (lambda key: (unet_init(key, c), {}),
            lambda params, x, t, labels, ops, key=None: unet(params, x, t, labels, config=c, ops=ops, key=key))
