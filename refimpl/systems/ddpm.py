"""DDPM: a network that predicts the noise in an image or point, given its class; DDIM with classifier-free guidance.

Ho et al. 2020, arXiv:2006.11239 (objective, U-Net); Nichol and Dhariwal 2021, arXiv:2102.09672 (cosine schedule); Song
et al. 2021, arXiv:2010.02502 (DDIM); Ho and Salimans 2022, arXiv:2207.12598 (guidance).
"""
import numpy as np

from refimpl.equations import diffusion, samplers, schedules
from refimpl.equations.guidance import scale_of_weight
from refimpl.nets.mlp import TimeMLPConfig, time_mlp, time_mlp_init
from refimpl.nets.unet import unet, unet_config, unet_init
from refimpl.ops._check import require
from refimpl.ops.random import fold
from refimpl.optim import Optimiser, adamw, cosine_rate
from refimpl.train import Player, System

DEFAULTS = {
    "net": "unet", "channels": 32, "multipliers": [1, 2], "layers": 1, "attention": [4], "dropout": 0.0,
    "width": 256, "depth": 3, "prediction": "eps", "T": 1000, "schedule": "cosine", "label_dropout": 0.1,
    "steps": 825, "batch": 128, "rate": 2e-3, "weight_decay": 0.01, "warmup": 30, "ema": 0.995, "clip": 1.0,
}
# Points have no known range to clip estimates to, and near t = T only v, not eps, determines x0 without one.
POINTS = {"net": "mlp", "width": 128, "prediction": "v", "steps": 3000, "rate": 3e-3, "ema": 0.998}
SCHEDULES = {"linear": schedules.linear, "cosine": schedules.cosine, "sigmoid": schedules.sigmoid}


def defaults(data):
    """The config to start from: a U-Net for images, a perceptron for points."""
    return DEFAULTS if len(data.shape) == 3 else DEFAULTS | POINTS


def build(config, data):
    """The system for a data set. net, channels ... dropout: the U-Net; width, depth: the perceptron."""
    for name in ("channels", "layers", "width", "depth", "T", "steps", "batch"):
        require(config[name] >= 1, f"ddpm: {name} must be at least 1, got {config[name]}")
    require(config["schedule"] in SCHEDULES,
            f"schedule must be one of {', '.join(SCHEDULES)}, got {config['schedule']!r}")
    require(config["prediction"] in diffusion.PREDICTIONS,
            f"prediction must be one of {', '.join(diffusion.PREDICTIONS)}, got {config['prediction']!r}")
    require(0 <= config["label_dropout"] < 1, f"label_dropout must be in [0, 1), got {config['label_dropout']}")
    schedule = SCHEDULES[config["schedule"]](config["T"])
    init, net = network(config, data)
    usual = min(50, schedule.T)
    classes, shape, bounded = data.classes, data.shape, len(data.shape) == 3

    def loss_and_grads(params, state, batch, key, ops):
        t, eps, labels = corruption(key, batch, schedule.T, classes, config["label_dropout"], ops)
        signal, noise = schedules.level_at(schedule, t)
        target = diffusion.training_target(config["prediction"], batch.x, eps, signal, noise)
        e, pullback = net(params["model"], ops.q_sample(batch.x, signal, noise, eps), t - 1, labels, ops, fold(key, 3))
        de, _ = diffusion.simple_loss_vjp(1.0, e, target)
        return diffusion.simple_loss(e, target), pullback(de)[0], state, {}

    def sample(params, state, n, key, ops, labels=None, steps=usual, guidance=0.0, eta=0.0, first=0, after=None):
        """n samples, numbered from `first` on; guidance is the paper's weight w. after: as in samplers.sample."""
        labels = wanted(labels, n, classes)
        require(classes or guidance == 0, f"guidance {guidance} needs labels, and {data.spec} has none")
        levels = schedules.levels(schedule, schedules.timesteps(schedule.T, steps, "trailing"))
        like, pieces = next(iter(params["model"].values())), []
        chunk = together(shape)
        for start in range(0, n, chunk):
            index = first + np.arange(start, min(start + chunk, n))
            predict = predictor(params["model"], None if labels is None else labels[index - first], guidance, ops)
            x = ops.normal(fold(key, 0), index, 0, shape, dtype=like.dtype, like=like)
            pieces.append(samplers.sample(
                predict, x, levels, samplers.ddim(eta), ops=ops, prediction=config["prediction"],
                guidance=scale_of_weight(guidance), clip=(-1, 1) if bounded else None, rederive_eps=bounded,
                key=fold(key, 1), index=index, after=after))
        x = np.concatenate(pieces) if pieces else np.zeros((0, *shape), like.dtype)
        return np.clip(x, -1, 1) if bounded else x

    def predictor(params, labels, guidance, ops):
        def predict(x, signal, noise):
            t = np.full(len(x), float(schedules.label_of_level(schedule, signal, noise)) - 1)
            if guidance == 0:
                return net(params, x, t, labels, ops)[0]
            both = np.concatenate([labels, np.full(len(x), classes)])  # one pass for both halves
            e = net(params, np.concatenate([x, x]), np.concatenate([t, t]), both, ops)[0]
            return e[:len(x)], e[len(x):]

        return predict

    steps, rate = config["steps"], config["rate"]
    optimiser = Optimiser(lambda p, g, s, r: adamw(p, g, s, r, weight_decay=config["weight_decay"]),
                          lambda step: cosine_rate(min(step, steps - 1), steps, rate, min(config["warmup"], steps - 1)),
                          config["clip"])
    player = Player(init, loss_and_grads, optimiser, ema=config["ema"])
    return System("ddpm", {"model": player}, sample, classes, {"steps": usual, "guidance": 0.0, "eta": 0.0})


def together(shape):
    """How many samples of this shape are drawn together: few enough for the cache, and it changes no sample.

    Shapes: returns an integer of at least 8. On digits 32 take two thirds of the time, per sample, of 256.
    Source: measured.
    """
    return max(8, 2048 // int(np.prod(shape)))


def corruption(key, batch, T, classes, label_dropout, ops):
    r"""What a training step draws: times 1..T, noise, and labels of which some are replaced by the null class.

    $$t_i = 1 + \lfloor T\,((u + i/N) \bmod 1)\rfloor, \qquad \epsilon \sim N(0, I)$$

    The times are spread evenly over 1..T by one shared uniform u: each t_i is uniform, and their mean varies less.
    Shapes: batch of N; returns t (N,), eps (N, ...), labels (N,) or None.
    Source: Kingma et al. 2021, arXiv:2107.00630, app. I.1 (times); Ho and Salimans 2022, arXiv:2207.12598 (labels).
    """
    n = len(batch.x)
    index = np.arange(n)
    shared = 1 - float(ops.uniform(fold(key, 0), index[:1], 0, (), np.float64)[0])
    t = 1 + np.floor(T * ((shared + index / n) % 1)).astype(np.int64)
    eps = ops.normal(fold(key, 1), index, 0, batch.x.shape[1:], dtype=batch.x.dtype, like=batch.x)
    if not classes:
        return t, eps, None
    drop = ops.uniform(fold(key, 2), index, 0, ()) <= label_dropout
    return t, eps, np.where(drop & (label_dropout > 0), classes, batch.labels)


def wanted(labels, n, classes):
    """The labels to sample: those asked for, checked, or all classes in turn; None for data without classes."""
    if not classes:
        require(labels is None, "this model knows no classes, so no labels can be asked for")
        return None
    labels = np.arange(n) % classes if labels is None else np.asarray(labels)
    require(labels.shape == (n,) and np.issubdtype(labels.dtype, np.integer)
            and (n == 0 or 0 <= labels.min() <= labels.max() < classes),
            f"labels must be {n} integers in 0..{classes - 1}, got {labels if labels.size < 9 else labels.shape}")
    return labels


def network(config, data):
    """init(key) -> params, state and net(params, x, t, labels, ops, key=None) -> y, pullback, sized for the data.

    The key is dropout's; without one nothing is dropped, as in sampling.
    """
    require(config["net"] in ("unet", "mlp"), f"net must be 'unet' or 'mlp', got {config['net']!r}")
    embeds = data.classes + 1 if data.classes else None
    if config["net"] == "mlp":
        require(config["dropout"] == 0, "the perceptron has no dropout: leave dropout at 0 or set net=unet")
        c = TimeMLPConfig(int(np.prod(data.shape)), config["width"], config["depth"], num_class_embeds=embeds)
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
        "in_channels": channels, "out_channels": channels, "block_out_channels": widths, "mid_block_type": None,
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["UpBlock2D"] * len(widths), "layers_per_block": config["layers"],
        "norm_num_groups": 8, "attention_head_dim": None, "flip_sin_to_cos": False, "freq_shift": 1,
        "num_class_embeds": embeds, "dropout": config["dropout"]})
    return (lambda key: (unet_init(key, c), {}),
            lambda params, x, t, labels, ops, key=None: unet(params, x, t, labels, config=c, ops=ops, key=key))
