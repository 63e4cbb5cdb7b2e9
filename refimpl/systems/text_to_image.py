"""Text to image: captions such as "three, thick" condition both networks; the discriminator also sees wrong captions.

Reed et al. 2016, arXiv:1605.05396 (matching-aware discriminator, interpolated captions). Captions are made from the
digit and from how much ink its image has.
"""
import numpy as np

from refimpl.equations import adversarial, penalty, translation
from refimpl.ops._check import require
from refimpl.ops.random import fold
from refimpl.train import Player, System

from . import gan, two_player

DEFAULTS = gan.DEFAULTS | {"steps": 3000}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
STROKES = ("thin", "thick")


def caption(digit, thick):
    r"""A caption in words.

    $$(3, 1) \mapsto \text{"three, thick"}$$

    Shapes: digit and thick ints. Returns a str; classes beyond nine go by their number.
    Source: Reed et al. 2016, arXiv:1605.05396, whose captions were written by people.
    """
    return f"{DIGITS[digit] if digit < len(DIGITS) else digit}, {STROKES[thick]}"


def embed(digit, thick, classes, dtype):
    r"""A caption as a vector: one-hot words, which the networks' first layers project.

    $$\phi = [e_{\mathrm{digit}}, e_{\mathrm{stroke}}]$$

    Shapes: digit, thick (N,) ints. Returns (N, classes + 2).
    Source: Reed et al. 2016, arXiv:1605.05396, sec. 4 (their embedding is a network trained beforehand).
    """
    return np.concatenate([np.eye(classes)[digit], np.eye(2)[thick]], axis=1).astype(dtype)


def is_thick(x, labels, medians):
    r"""Whether an image has more ink than the usual one of its class.

    $$\bar x > \mathrm{median}_{y}(\bar x)$$

    Shapes: x (N, ...), labels (N,), medians (classes,). Returns (N,) of 0 and 1.
    Source: the project's own captions.
    """
    return (np.mean(x.reshape(len(x), -1), axis=1) > medians[labels]).astype(int)


def ink_medians(data):
    """The median mean pixel of each class of the training images.

    Shapes: returns (classes,). Raises: ValueError when a class has no image.
    Source: the project's own captions.
    """
    ink = np.mean(data.train.reshape(len(data.train), -1), axis=1)
    counts = np.bincount(data.train_labels, minlength=data.classes)
    require(counts.min() > 0, f"class {int(counts.argmin())} of {data.spec} has no training image to caption")
    return np.array([np.median(ink[data.train_labels == k]) for k in range(data.classes)])


def build(config, data):
    """The system for labelled images; sampling takes thickness: thin, thick, or both in turn.

    Shapes: config as DEFAULTS. Returns a System.
    Raises: ValueError when the data are no labelled images.
    Source: Reed et al. 2016, arXiv:1605.05396.
    """
    require(data.classes and len(data.shape) == 3, f"text_to_image needs labelled images, and {data.spec} has none")
    two_player.check("text_to_image", config)
    k, medians = data.classes, ink_medians(data)
    nets = gan.perceptrons(config, data, k + 2)

    def texts(batch):
        return embed(batch.labels, is_thick(batch.x, batch.labels, medians), k, batch.x.dtype)

    def draw(params, key, text, ops):
        z = nets.latents(key, np.arange(len(text)), text, ops)
        x, back, _ = nets.generator(params["generator"], {}, z, text, ops, True)
        return x, back

    def judge(params, x, text, ops):
        return nets.discriminator(params, {}, x, text, ops, True)[:2]

    def discriminator_loss(params, state, batch, key, ops):
        own, text, n = params["discriminator"], texts(batch), len(batch.x)
        wrong = np.roll(text, 1, axis=0)
        differs = np.any(wrong != text, axis=1)  # a neighbour may have the same caption: that pair is left out
        fake, _ = draw(params, fold(key, 0), text, ops)
        x = np.concatenate([batch.x, batch.x[differs], fake])
        logits, back = judge(own, x, np.concatenate([text, wrong[differs], text]), ops)
        three = logits[:n], logits[n:-n], logits[-n:]
        require(len(three[1]) > 0, "text_to_image: all captions of the batch are the same, none can be wrong")
        grads, _ = back(np.concatenate(translation.matching_d_vjp(1.0, *three)))
        r1, more, _, _ = penalty.penalise(
            penalty.zero_centred_penalty, penalty.zero_centred_penalty_vjp,
            lambda p, x, ops: judge(p, x, text, ops), own, batch.x, ops, gamma=config["penalty_weight"])
        metrics = {"right": float(np.mean(three[0])), "wrong": float(np.mean(three[1])), "r1": float(r1)}
        return translation.matching_d(*three), two_player.add(grads, more), state, metrics

    def generator_loss(params, state, batch, key, ops):
        text = texts(batch)
        text = np.concatenate([text, translation.interpolate(text, np.roll(text, 1, axis=0))])
        fake, back = draw(params, fold(key, 0), text, ops)
        logits, pullback = judge(params["discriminator"], fake, text, ops)
        _, dx = pullback(adversarial.non_saturating_g_vjp(1.0, logits))
        return adversarial.non_saturating_g(logits), back(dx), state, {}

    def sample(params, state, n, key, ops, labels=None, first=0, thickness="both"):
        labels = np.arange(n) % k if labels is None else np.asarray(labels)
        require(labels.shape == (n,), f"{n} labels expected, got shape {labels.shape}")
        require(thickness in (*STROKES, "both"), f"thickness must be thin, thick or both, got {thickness!r}")
        index = first + np.arange(n)
        thick = index // k % 2 if thickness == "both" else np.full(n, STROKES.index(thickness))
        z = nets.latents(fold(key, 0), index, data.train, ops)
        return nets.generator(params["generator"], {}, z, embed(labels, thick, k, z.dtype), ops, False)[0]

    return System("text_to_image", {
        "discriminator": Player(nets.discriminator_init, discriminator_loss,
                                two_player.optimiser(config, config["rate"])),
        "generator": Player(lambda key: nets.generator_init(fold(key, 1)), generator_loss,
                            two_player.optimiser(config, config["rate_g"]), ema=config["ema"])},
        sample, k, {"thickness": "both"})
