"""Convolutional encoders and decoders, in the form and with the names of diffusers' AutoencoderKL and VQModel.

`encode` and `decode` serve both. What stands between them belongs to the equations: for AutoencoderKL the first half of
the encoder's channels is the mean and the second the log-variance of the latent, for VQModel the nearest row of
`quantize.embedding.weight` takes the place of each pixel.
"""
from typing import NamedTuple

import numpy as np

from refimpl.ops._check import require
from refimpl.ops.random import fold, uniform

from .blocks import Form, conv, down_stage, mid_stage, norm, up_stage
from .config import read_settings
from .initial import attention_shapes, conv_shapes, initialise, norm_shapes, stage_shapes


class AutoencoderKLConfig(NamedTuple):
    """Settings, named and preset as in an AutoencoderKL's config.json."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple = ("DownEncoderBlock2D",)
    up_block_types: tuple = ("UpDecoderBlock2D",)
    block_out_channels: tuple = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int | tuple = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple | None = None
    latents_std: tuple | None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True


class VQModelConfig(NamedTuple):
    """Settings, named and preset as in a VQModel's config.json."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple = ("DownEncoderBlock2D",)
    up_block_types: tuple = ("UpDecoderBlock2D",)
    block_out_channels: tuple = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 3
    sample_size: int | tuple = 32
    num_vq_embeddings: int = 256
    norm_num_groups: int = 32
    vq_embed_dim: int | None = None
    scaling_factor: float = 0.18215
    norm_type: str = "group"
    mid_block_add_attention: bool = True
    lookup_from_codebook: bool = False
    force_upcast: bool = False


def autoencoder_config(settings):
    """AutoencoderKLConfig or VQModelConfig from the settings of a config.json, as its _class_name says, checked.

    Shapes: settings a dict.
    Raises: ValueError naming the setting that is unknown, unsupported or does not fit the others.
    Source: diffusers, AutoencoderKL and VQModel.
    """
    kinds = {"AutoencoderKL": AutoencoderKLConfig, "VQModel": VQModelConfig}
    name = settings.get("_class_name")
    require(name in kinds, f"autoencoder: setting _class_name must be one of {', '.join(kinds)}, got {name!r}")
    supported = {"act_fn": ("silu", "swish")} | ({"norm_type": ("group",)} if name == "VQModel" else {})
    c = read_settings(name, kinds[name], settings, supported)
    levels = len(c.block_out_channels)
    for setting, parts in (("down_block_types", ("DownEncoderBlock2D", "AttnDownEncoderBlock2D")),
                           ("up_block_types", ("UpDecoderBlock2D", "AttnUpDecoderBlock2D"))):
        require(levels == len(getattr(c, setting)) and set(getattr(c, setting)) <= set(parts),
                f"{name}: setting {setting} must hold one of {parts} for each of the {levels} block_out_channels, "
                f"got {getattr(c, setting)}")
    counts = ["in_channels", "out_channels", "layers_per_block", "norm_num_groups", "latent_channels"]
    for setting in counts + (["num_vq_embeddings"] if name == "VQModel" else []):
        require(getattr(c, setting) >= 1, f"{name}: setting {setting} must be at least 1, got {getattr(c, setting)}")
    require(all(channels >= 1 and channels % c.norm_num_groups == 0 for channels in c.block_out_channels),
            f"{name}: setting norm_num_groups = {c.norm_num_groups} must divide block_out_channels "
            f"{c.block_out_channels}")
    return c


def _form(config):
    return Form(config.norm_num_groups, 1e-6)


def encode(params, x, *, config, ops):
    r"""Latents of images: for AutoencoderKL mean and log-variance, one after the other in the channels.

    $$h = W_q * W_o * \mathrm{silu}(\mathrm{GN}(\mathrm{mid}(\mathrm{down}_n(\cdots\mathrm{down}_1(W_i * x)))))$$

    Shapes: x (N, C, H, W), H and W multiples of 2^(levels - 1). Returns h (N, 2 latent_channels, h, w) for
    AutoencoderKL or (N, vq_embed_dim, h, w) for VQModel, and pullback(dh) -> dparams of the encoder, dx.
    Raises: ValueError when x does not fit.
    Source: Esser et al. 2021, arXiv:2012.09841; Rombach et al. 2022, arXiv:2112.10752; diffusers, Encoder.
    """
    form, factor = _form(config), 2 ** (len(config.block_out_channels) - 1)
    require(x.ndim == 4 and x.shape[1] == config.in_channels and x.shape[2] % factor == x.shape[3] % factor == 0,
            f"encode: x must be (N, {config.in_channels}, H, W) with H and W multiples of {factor}, got {x.shape}")
    h, conv_in = conv(params, "encoder.conv_in", x, ops, padding=1)
    downs = []
    for i in range(len(config.block_out_channels)):
        outputs, back = down_stage(params, f"encoder.down_blocks.{i}", h, None, form, ops, padding=0)
        h = outputs[-1]
        downs.append((back, len(outputs)))
    h, mid = mid_stage(params, "encoder.mid_block", h, None, form, ops)
    h, norm_out = norm(params, "encoder.conv_norm_out", h, ops, form.groups, form.stabiliser, silu=True)
    h, conv_out = conv(params, "encoder.conv_out", h, ops, padding=1)
    quant = lambda dh: ({}, dh)
    if "quant_conv.weight" in params:
        h, quant = conv(params, "quant_conv", h, ops)

    def pullback(dh):
        g_quant, dh = quant(dh)
        g_out, dh = conv_out(dh)
        g_norm, dh = norm_out(dh)
        g_mid, dh, _ = mid(dh)
        grads = g_quant | g_out | g_norm | g_mid
        for back, n in reversed(downs):
            g, dh, _ = back([0.0] * (n - 1) + [dh])
            grads = g | grads
        g_in, dx = conv_in(dh)
        return g_in | grads, dx

    return h, pullback


def decode(params, z, *, config, ops):
    r"""Images from latents: AutoencoderKL's samples, or the rows of VQModel's codebook.

    $$x = W_o * \mathrm{silu}(\mathrm{GN}(\mathrm{up}_n(\cdots\mathrm{up}_1(\mathrm{mid}(W_i * W_p * z)))))$$

    Shapes: z (N, latent_channels, h, w) for AutoencoderKL or (N, vq_embed_dim, h, w) for VQModel. Returns
    x (N, C, 2^(levels - 1) h, 2^(levels - 1) w), and pullback(dx) -> dparams of the decoder, dz.
    Raises: ValueError when z does not fit.
    Source: Esser et al. 2021, arXiv:2012.09841; Rombach et al. 2022, arXiv:2112.10752; diffusers, Decoder.
    """
    form, channels = _form(config), getattr(config, "vq_embed_dim", None) or config.latent_channels
    require(z.ndim == 4 and z.shape[1] == channels, f"decode: z must be (N, {channels}, h, w), got {z.shape}")
    h, post = z, lambda dh: ({}, dh)
    if "post_quant_conv.weight" in params:
        h, post = conv(params, "post_quant_conv", z, ops)
    h, conv_in = conv(params, "decoder.conv_in", h, ops, padding=1)
    h, mid = mid_stage(params, "decoder.mid_block", h, None, form, ops)
    ups = []
    for i in range(len(config.block_out_channels)):
        h, back = up_stage(params, f"decoder.up_blocks.{i}", h, (), None, form, ops)
        ups.append(back)
    h, norm_out = norm(params, "decoder.conv_norm_out", h, ops, form.groups, form.stabiliser, silu=True)
    x, conv_out = conv(params, "decoder.conv_out", h, ops, padding=1)

    def pullback(dx):
        g_out, dh = conv_out(dx)
        g_norm, dh = norm_out(dh)
        grads = g_out | g_norm
        for back in reversed(ups):
            g, dh, _, _ = back(dh)
            grads = g | grads
        g_mid, dh, _ = mid(dh)
        g_in, dh = conv_in(dh)
        g_post, dz = post(dh)
        return g_post | g_in | g_mid | grads, dz

    return x, pullback


def autoencoder_shapes(config):
    """Name and shape of every parameter, those of the encoder first.

    Shapes: config an AutoencoderKLConfig or a VQModelConfig; returns a dict from names to shapes.
    Source: diffusers, AutoencoderKL and VQModel.
    """
    c, channels, latents = config, config.block_out_channels, config.latent_channels
    vq = isinstance(config, VQModelConfig)
    codes, moments = ((c.vq_embed_dim or latents), latents) if vq else (latents, 2 * latents)
    last = len(channels) - 1

    def middle(name):
        shapes = stage_shapes(name, [channels[-1]] * 2, channels[-1], None, False, False, None)
        return shapes | (attention_shapes(f"{name}.attentions.0", channels[-1]) if c.mid_block_add_attention else {})

    shapes, width = conv_shapes("encoder.conv_in", c.in_channels, channels[0]), channels[0]
    for i, kind in enumerate(c.down_block_types):
        inputs = [width] + [channels[i]] * (c.layers_per_block - 1)
        shapes |= stage_shapes(f"encoder.down_blocks.{i}", inputs, channels[i], None, False, kind.startswith("Attn"),
                               "downsamplers" if i < last else None)
        width = channels[i]
    shapes |= middle("encoder.mid_block") | norm_shapes("encoder.conv_norm_out", width)
    shapes |= conv_shapes("encoder.conv_out", width, moments)
    if vq or c.use_quant_conv:
        shapes |= conv_shapes("quant_conv", moments, codes if vq else moments, 1)
    if vq:
        shapes["quantize.embedding.weight"] = (c.num_vq_embeddings, codes)
    if vq or c.use_post_quant_conv:
        shapes |= conv_shapes("post_quant_conv", codes, latents, 1)
    shapes |= conv_shapes("decoder.conv_in", latents, width) | middle("decoder.mid_block")
    for i, kind in enumerate(c.up_block_types):
        out = channels[last - i]
        shapes |= stage_shapes(f"decoder.up_blocks.{i}", [width] + [out] * c.layers_per_block, out, None, False,
                               kind.startswith("Attn"), "upsamplers" if i < last else None)
        width = out
    return shapes | norm_shapes("decoder.conv_norm_out", width) | conv_shapes("decoder.conv_out", width, c.out_channels)


def autoencoder_init(key, config, dtype=np.float32):
    r"""Initial parameters; those of a codebook of K rows are uniform in (-1/K, 1/K).

    Shapes: key an int; config as autoencoder_shapes. Returns a dict from names to arrays of the dtype.
    Source: see initialise; codebook: van den Oord et al. 2017, arXiv:1711.00937, the authors' code.
    """
    shapes = autoencoder_shapes(config)
    params = initialise(key, shapes, dtype)
    if isinstance(config, VQModelConfig):
        K, D = shapes["quantize.embedding.weight"]
        u = uniform(fold(key, 0), np.arange(K), 0, (D,), np.float64)
        params["quantize.embedding.weight"] = ((2 * u - 1) / K).astype(dtype)
    return params
