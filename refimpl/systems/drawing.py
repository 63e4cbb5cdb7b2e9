"""How every diffusion system is sampled: its network, asked by any sampler at any level."""
from functools import lru_cache

import numpy as np

from refimpl.equations import catalogue, diffusion, samplers, schedules
from refimpl.equations.continuous import level_of_log_snr
from refimpl.equations.guidance import scale_of_weight
from refimpl.ops._check import per_sample, require
from refimpl.ops.random import fold


def scaled(model, x, signal, noise):
    """The network's input."""
    return x if model.scale is None else per_sample(model.scale(signal, noise), x) * x


def sampling(name, model, net, data, clip, rederive_eps=True):
    """A System's sample, through any sampler of the catalogue, and its options with their defaults.

    data: shape, classes and spec are used; clip: None, or (lo, hi) for the estimates of x0 and for what is returned.
    """
    classes, shape, (own, usual, own_options) = data.classes, data.shape, model.sampler
    prediction = "x0" if model.denoiser else model.prediction

    @lru_cache(maxsize=4096)  # every chunk of samples passes the same levels
    def asked(signal, noise):
        at, about = on_path(signal, noise, model.path)
        return at, about, float(model.told(at, about))

    def sample(params, state, n, key, ops, labels=None, steps=usual, guidance=0.0, sampler=own, first=0, after=None,
               noise=None, **options):
        """n samples, numbered from `first` on; guidance is the paper's weight w. after, noise: as in samplers.sample,
        noise(0) being what sampling starts from."""
        labels = wanted(labels, n, classes)
        require(classes or guidance == 0, f"guidance {guidance} needs labels, and {data.spec} has none")
        options = {k: v for k, v in options.items() if v is not None}
        spacing = {k: options.pop(k) for k in model.own if k in options}
        options = own_options | options if sampler == own else options
        require(options.get("variance") != "learned" or model.outputs == 2, f"variance 'learned' needs a network that "
                f"gives one, as improved-ddpm's does: for {name} take 'small' or 'large'")
        rule, levels = catalogue.sampler(sampler, model.path, **options), model.levels(steps, **model.own | spacing)
        like, pieces = next(iter(params["model"].values())), []
        chunk = together(shape) if noise is None else max(n, 1)
        for start in range(0, n, chunk):
            index = first + np.arange(start, min(start + chunk, n))
            predict = predictor(params["model"], None if labels is None else labels[index - first], guidance, ops,
                                options.get("variance") == "learned")
            x = noise(0) if noise else ops.normal(fold(key, 0), index, 0, shape, dtype=like.dtype, like=like)
            x = x * float(levels[0, 1]) if model.path == "ve" else x
            pieces.append(samplers.sample(
                predict, x, levels, rule, ops=ops, prediction=prediction, guidance=scale_of_weight(guidance), clip=clip,
                rederive_eps=rederive_eps if clip else None, key=fold(key, 1), index=index, noise=noise, after=after))
        x = np.concatenate(pieces) if pieces else np.zeros((0, *shape), like.dtype)
        return np.clip(x, *clip) if clip else x

    def predictor(params, labels, guidance, ops, whole=False):
        """predict for the sampler loop: the network, told the level of its path that has the SNR of the level asked."""
        def predict(x, signal, noise):
            at, about, told = asked(signal, noise)
            y = x if at == signal else x * (at / signal)
            t = np.full(len(x), told)
            given = scaled(model, y, at, about)
            if guidance == 0:
                e = net(params, given, t, labels, ops)[0]
            else:  # one pass for both halves
                both = np.concatenate([labels, np.full(len(x), classes)])
                e = net(params, np.concatenate([given, given]), np.concatenate([t, t]), both, ops)[0]
                x, y = np.concatenate([x, x]), np.concatenate([y, y])
            e = e if whole else e[:, :shape[0]]
            if model.denoiser:
                a, b = (float(c) for c in model.denoiser(at, about))
                e = a * y + b * e
            elif at != signal and prediction in ("v", "score"):  # the others do not know the level
                x0_hat = diffusion.convert(e, y, at, about, prediction, "x0")
                e = diffusion.convert(x0_hat, x, signal, noise, "x0", prediction)
            return e if guidance == 0 else (e[:len(e) // 2], e[len(e) // 2:])

        return predict

    choices = {option: None for s in catalogue.SAMPLERS.values() for option in s.options}
    return sample, {"steps": usual, "guidance": 0.0, "sampler": own} | choices | own_options | model.own


def on_path(signal, noise, path):
    """The level of a path that has a level's SNR: the level itself where it lies on the path.

    Shapes: numbers; returns two floats.
    """
    at, about = (float(v) for v in level_of_log_snr(schedules.log_snr(signal, noise), path))
    return (signal, noise) if abs(at - signal) + abs(about - noise) < 1e-9 * (1 + noise) else (at, about)


def together(shape):
    """How many samples of this shape are drawn together: few enough for the cache, and it changes no sample.

    Shapes: returns an integer of at least 8. On digits 32 take two thirds of the time, per sample, of 256.
    Source: measured.
    """
    return max(8, 2048 // int(np.prod(shape)))


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
