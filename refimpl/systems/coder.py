"""Encoders and decoders that the latent-variable systems share: perceptrons, or the convolutional ones of nets."""
import math
from typing import NamedTuple

import numpy as np

from refimpl.nets.autoencoder import autoencoder_config, autoencoder_init, decode, encode
from refimpl.nets.coupling import part, whole
from refimpl.nets.initial import initialise
from refimpl.nets.mlp import mlp, mlp_init
from refimpl.ops._check import require
from refimpl.ops.random import fold

DEFAULTS = {"net": "mlp", "width": 256, "depth": 2, "channels": 32, "rate": 1e-3, "warmup": 50, "clip": 10.0,
            "weight_decay": 0.0, "steps": 2000, "batch": 64, "ema": 0.99}
CODEBOOK = "quantize.embedding.weight"  # diffusers' name


class Coder(NamedTuple):
    """encode(params, x, ops) -> h (N, P, outputs), pullback(dh) -> grads, dx; decode(params, z (N, P, D), ops) -> x and
    pullback(dx) -> grads, dz; init(key) -> params; positions P; last, the name of the decoder's last weight."""

    encode: object
    decode: object
    init: object
    positions: int
    last: str


def coder(config, data, outputs, latent, positions):
    """The coder for the data: `positions` latent vectors of `latent` entries a sample, `outputs` encoder outputs each.

    Shapes: config with net, width, depth, channels. A convolutional coder halves the image twice, so that it has
    H W/16 positions whatever was asked for; its parameters are AutoencoderKL's where outputs = 2 latent, else those of
    VQModel.
    Raises: ValueError for settings that do not fit.
    """
    require(config["net"] in ("mlp", "conv"), f"net must be mlp or conv, got {config['net']!r}")
    return (perceptrons if config["net"] == "mlp" else convolutions)(config, data, outputs, latent, positions)


def perceptrons(config, data, outputs, latent, positions):
    """A coder of two perceptrons; depth hidden layers each, and with none of them two linear maps."""
    require(min(config["width"], latent, positions) >= 1 and config["depth"] >= 0,
            "width and the sizes of the latent must be at least 1, depth at least 0")
    hidden, features = [config["width"]] * config["depth"], math.prod(data.shape)
    sizes = {"encoder": [features, *hidden, positions * outputs], "decoder": [positions * latent, *hidden, features]}

    def run(name, params, x, shape, ops):
        y, back = mlp(part(params, name), x.reshape(len(x), -1), ops=ops, activation="silu")

        def pullback(dy):
            grads, dx = back(dy.reshape(len(x), -1))
            return whole(grads, name), dx.reshape(x.shape)

        return y.reshape(len(x), *shape), pullback

    return Coder(lambda params, x, ops: run("encoder", params, x, (positions, outputs), ops),
                 lambda params, z, ops: run("decoder", params, z, data.shape, ops),
                 lambda key: {k: v for i, name in enumerate(sizes)
                              for k, v in whole(mlp_init(fold(key, i), sizes[name]), name).items()},
                 positions, f"decoder.layers.{config['depth']}.weight")


def convolutions(config, data, outputs, latent, positions):
    """A coder in diffusers' form, with three levels."""
    require(len(data.shape) == 3 and data.shape[1] % 4 == data.shape[2] % 4 == 0,
            f"net=conv needs images with sides divisible by 4, samples of {data.spec} have shape {data.shape}")
    require(outputs in (latent, 2 * latent), "net=conv has as many encoder outputs as latent entries, or twice as many")
    kl, width = outputs == 2 * latent, config["channels"]
    c = autoencoder_config({
        "_class_name": "AutoencoderKL" if kl else "VQModel", "in_channels": data.shape[0],
        "out_channels": data.shape[0], "block_out_channels": [width, 2 * width, 2 * width],
        "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3,
        "latent_channels": latent, "norm_num_groups": 8} | ({} if kl else {"num_vq_embeddings": 2}))
    h, w = data.shape[1] // 4, data.shape[2] // 4
    to_rows = lambda a: np.moveaxis(a, 1, -1).reshape(len(a), h * w, -1)
    to_image = lambda a: np.moveaxis(a.reshape(len(a), h, w, -1), -1, 1)

    def encoded(params, x, ops):
        y, back = encode(params, x, config=c, ops=ops)
        return to_rows(y), lambda dh: back(to_image(dh))

    def decoded(params, z, ops):
        y, back = decode(params, to_image(z), config=c, ops=ops)

        def pullback(dx):
            grads, dz = back(dx)
            return grads, to_rows(dz)

        return y, pullback

    def init(key):
        params = autoencoder_init(key, c)
        return {k: v for k, v in params.items() if k != CODEBOOK}

    return Coder(encoded, decoded, init, h * w, "decoder.conv_out.weight")


def codebook_init(key, size, latent):
    """A codebook of standard normal rows, divided by sqrt(D). Shapes: (size, latent)."""
    return initialise(key, {CODEBOOK: (size, latent)})[CODEBOOK] / np.float32(math.sqrt(latent))
