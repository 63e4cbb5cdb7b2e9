"""StyleGAN: a mapping network turns z into a style that sets the statistics of every layer; noise adds the details.

Karras et al. 2019, arXiv:1812.04948. The discriminator is the progressive GAN's at full size; R1.
"""
from typing import NamedTuple

import numpy as np

from refimpl.nets import progressive, stylegan
from refimpl.nets.reparametrise import equalised, through
from refimpl.ops._check import require
from refimpl.ops.random import fold

from . import two_player
from .progressive import widths

DEFAULTS = two_player.DEFAULTS | {
    "penalty": "r1", "base": 4, "width": 32, "depth": 2, "group": 4, "mixing": 0.5, "rate": 2e-2, "rate_g": 2e-2,
    "beta2": 0.99, "ema": 0.99, "steps": 3000}
OPTIONS = {"truncation": 1.0}  # how far styles may be from their mean, as a share
SLOW = {"mapping.": 0.01}
MEMORY = 0.99  # of the mean style


class Latent(NamedTuple):
    """Two latent vectors (N, D), the layer (N,) from which the second one's style holds, noise for each layer, and the
    share of its distance from the mean that a style keeps."""

    z: np.ndarray
    other: np.ndarray
    cut: np.ndarray
    noise: list
    truncation: float

    def __len__(self):
        return len(self.z)


def latents(config, mixing):
    r"""What an image is made of: two z, the layer where their styles change over, noise.

    $$z_1, z_2 \sim N(0, I), \qquad \mathrm{cut} \sim U\{1..L-1\} \text{ with the share mixing, else } L$$

    Shapes: config a StyleConfig. Returns latents(key, index, like, ops, truncation=None) -> Latent; with a truncation,
    that is when sampling, styles are not mixed.
    Source: Karras et al. 2019, arXiv:1812.04948, sec. 3.1.
    """
    def draw(key, index, like, ops, truncation=None):
        normal = lambda k, shape: ops.normal(fold(key, k), index, 0, shape, dtype=like.dtype, like=like)
        noise = [normal(2 + k, shape) for k, shape in enumerate(stylegan.noise_shapes(config))]
        cut = np.full(len(index), config.layers)
        if truncation is None:
            u = ops.uniform(fold(key, 1), index, 0, (2,), np.float64)
            cut = np.where(u[:, 0] <= mixing, 1 + np.floor((1 - u[:, 1]) * (config.layers - 1)).astype(int), cut)
        return Latent(normal(0, (config.latent,)), normal(1, (config.latent,)), cut, noise,
                      1.0 if truncation is None else truncation)

    return draw


def styles(weights, latent, mean, config, ops):
    r"""One style per layer: the first z's up to the cut, the second's from there; drawn towards the mean if truncated.

    $$w_k = \bar w + \psi\,(w - \bar w), \qquad w = f(z_1) \;(k < \mathrm{cut}), \; f(z_2) \;(k \ge \mathrm{cut})$$

    Shapes: mean (D,). Returns ws (N, L, D), the first z's w (N, D), pullback(dws) -> grads of the mapping.
    Source: Karras et al. 2019, arXiv:1812.04948, sec. 3.1 and app. B.
    """
    w1, back1 = stylegan.mapping(weights, latent.z, config=config, ops=ops)
    early = np.asarray(np.arange(config.layers) < latent.cut[:, None], like=w1)[:, :, None]  # (N, L, 1)
    mixed = bool(np.any(latent.cut < config.layers))
    w2, back2 = stylegan.mapping(weights, latent.other, config=config, ops=ops) if mixed else (w1, None)
    ws = np.where(early, w1[:, None], w2[:, None])
    if latent.truncation != 1:
        ws = mean + latent.truncation * (ws - mean)

    def pullback(dws):
        dws = latent.truncation * dws
        grads, _ = back1(np.sum(np.where(early, dws, 0 * dws), axis=1))
        if mixed:
            grads = two_player.add(grads, back2(np.sum(np.where(early, 0 * dws, dws), axis=1))[0])
        return grads

    return ws, w1, pullback


def generator_of(synthesis, config):
    r"""Generator of the two-player game from a synthesis network; its state remembers the mean style.

    $$x = g(w_1, \dots, w_L, \mathrm{noise}), \qquad \bar w \leftarrow .99\,\bar w + .01\,\mathrm{mean}(w)$$

    Shapes: synthesis as nets.stylegan's. Returns generator, see two_player.Networks.
    Source: Karras et al. 2019, arXiv:1812.04948, fig. 1.
    """
    def generator(params, state, z, labels, ops, train):
        weights, to_params = equalised(params, slow=SLOW)
        ws, w, to_mapping = styles(weights, z, state["mean_w"], config, ops)
        x, back = synthesis(weights, ws, z.noise, config=config, ops=ops)
        if train:
            state = state | {"mean_w": MEMORY * state["mean_w"] + (1 - MEMORY) * np.mean(w, axis=0)}

        def pullback(dx):
            grads, dws = back(dx)
            return to_params(grads | to_mapping(dws))

        return x, pullback, state

    return generator


def configure(config, data):
    """StyleConfig for the data.

    Shapes: config with base, width, latent, depth.
    Raises: ValueError when a number does not fit.
    Source: Karras et al. 2019, arXiv:1812.04948.
    """
    require(config["depth"] >= 1, f"depth of the mapping must be at least 1, got {config['depth']}")
    require(0 <= config["mixing"] <= 1, f"mixing must be in [0, 1], got {config['mixing']}")
    return stylegan.StyleConfig(config["base"], widths(config, data), data.shape[0], config["latent"], config["depth"])


def build(config, data):
    """The system for square images.

    Shapes: config as DEFAULTS; sampling takes truncation, psi. Returns a System.
    Raises: ValueError when the data are no square images of a fitting size, or the group does not divide the batch.
    Source: Karras et al. 2019, arXiv:1812.04948.
    """
    c = configure(config, data)
    d = progressive.ProgressiveConfig(c.base, c.widths, c.channels, c.latent, config["group"])

    def discriminator(params, state, x, labels, ops, train):
        weights, to_params = equalised(params)
        logits, back = progressive.discriminator(weights, x, len(c.widths) - 1, 1.0, config=d, ops=ops)
        return logits, through(to_params, back), state

    def generator_init(key):
        params = stylegan.generator_init(key, c)
        return params, {"mean_w": np.zeros(c.latent, params["constant"].dtype)}

    nets = two_player.Networks(
        generator_of(stylegan.synthesis, c), generator_init, discriminator,
        lambda key: (progressive.discriminator_init(key, d), {}), latents(c, config["mixing"]), joint=False)
    return two_player.two_player("stylegan", config, data, nets, options=OPTIONS)
