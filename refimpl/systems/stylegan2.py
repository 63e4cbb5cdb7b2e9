"""StyleGAN2: styles scale convolution weights, which are demodulated; images add up over sizes; path lengths are kept.

Karras et al. 2020, arXiv:1912.04958. R1 on the discriminator, at every step.
"""
import numpy as np

from refimpl.equations import penalty
from refimpl.nets import stylegan2 as nets
from refimpl.nets.reparametrise import equalised, through
from refimpl.ops._check import require
from refimpl.ops.random import fold

from . import two_player
from .stylegan import DEFAULTS as STYLEGAN
from .stylegan import OPTIONS, SLOW, configure, generator_of, latents, styles

DEFAULTS = STYLEGAN | {"path_weight": 2.0, "path_share": 0.25, "path_every": 4, "rate_g": 1e-2, "steps": 2500}
MEMORY = 0.96  # of the mean path length


def build(config, data):
    """The system for square images. path_weight, path_share, path_every: of path length regularisation, the share of a
    batch that it sees, and every how many steps it is taken, times as many.

    Shapes: config as DEFAULTS; sampling takes truncation, psi. Returns a System.
    Raises: ValueError when the data are no square images of a fitting size, or the group does not divide the batch.
    Source: Karras et al. 2020, arXiv:1912.04958.
    """
    c = configure(config, data)

    def discriminator(params, state, x, labels, ops, train):
        weights, to_params = equalised(params)
        logits, back = nets.discriminator(weights, x, config=c, group=config["group"], ops=ops)
        return logits, through(to_params, back), state

    def generator_init(key):
        params = nets.generator_init(key, c)
        return params, {"mean_w": np.zeros(c.latent, params["constant"].dtype), "mean_path": np.zeros((), np.float64),
                        "step": np.asarray(0)}

    networks = two_player.Networks(
        generator_of(nets.synthesis, c), generator_init, discriminator,
        lambda key: (nets.discriminator_init(key, c), {}), latents(c, config["mixing"]), joint=False)
    extra = path_length(c, config) if config["path_weight"] else None
    return two_player.two_player("stylegan2", config, data, networks, options=OPTIONS, extra=extra)


def path_length(c, config):
    r"""The generator's extra term: a step in w is to move the image equally far everywhere.

    $$\lambda\,E\left(\|J_w^T y\| - a\right)^2, \qquad y \sim N(0, I)/\sqrt{HW}, \quad
      \|J_w^T y\|^2 = \frac1L \sum_k \left\|\partial_{w_k} \langle g, y\rangle\right\|^2$$

    a is the running mean of the lengths. The derivative in the parameters is of second order: penalty.penalise. Taken
    lazily: at every path_every-th step, with path_every times the weight.
    Shapes: c a StyleConfig. Returns extra, see two_player.generator_loss.
    Source: Karras et al. 2020, arXiv:1912.04958, sec. 3.1 (lazily), 3.2 and app. B.
    """
    size = c.base * 2 ** (len(c.widths) - 1)
    n, every = max(1, int(config["path_share"] * config["batch"])), config["path_every"]
    require(every >= 1, f"path_every must be at least 1, got {every}")

    def extra(params, state, key, ops):
        own, mean, step = params["generator"], state["generator"]["mean_path"], int(state["generator"]["step"])
        if step % every:
            return {}, {}, {"step": np.asarray(step + 1)}
        weights, to_params = equalised(own, slow=SLOW)
        like = own["constant"]
        latent = latents(c, config["mixing"])(fold(key, 0), np.arange(n), like, ops)
        ws, _, to_mapping = styles(weights, latent, state["generator"]["mean_w"], c, ops)
        y = ops.normal(fold(key, 1), np.arange(n), 0, (c.channels, size, size), dtype=like.dtype, like=like)
        synthesis = lambda p, ws, ops: nets.synthesis(p, ws, latent.noise, config=c, ops=ops)
        mapping = {k: w for k, w in weights.items() if k.startswith("mapping.")}
        value, grads, dws, g = penalty.penalise(
            penalty.norm_penalty, penalty.norm_penalty_vjp, synthesis,
            {k: w for k, w in weights.items() if k not in mapping}, ws, ops, dy=y / (size * c.layers**0.5),
            weight=every * config["path_weight"], target=float(mean))
        length = float(np.mean(penalty.gradient_norms(g)))
        entries = {"mean_path": np.asarray(MEMORY * float(mean) + (1 - MEMORY) * length), "step": np.asarray(step + 1)}
        return {"path": float(value), "length": length}, to_params(grads | to_mapping(dws)), entries

    return extra
