"""Ho et al.'s U-Net, in the form and with the parameter and setting names of diffusers' UNet2DModel."""
from typing import NamedTuple

import numpy as np

from refimpl.ops._check import require

from .blocks import Form, conv, down_stage, mid_stage, norm, up_stage
from .config import read_settings
from .embed import embed, embed_shapes
from .initial import attention_shapes, conv_shapes, initialise, norm_shapes, stage_shapes


class UNetConfig(NamedTuple):
    """Settings, named and preset as in a UNet2DModel's config.json. num_class_embeds counts a null class too."""

    sample_size: int | tuple | None = None
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    time_embedding_type: str = "positional"
    time_embedding_dim: int | None = None
    freq_shift: float = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    mid_block_type: str | None = "UNetMidBlock2D"
    up_block_types: tuple = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: tuple = (224, 448, 672, 896)
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    dropout: float = 0.0
    act_fn: str = "silu"
    attention_head_dim: int | None = 8
    norm_num_groups: int = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    add_attention: bool = True
    class_embed_type: str | None = None
    num_class_embeds: int | None = None
    num_train_timesteps: int | None = None


SUPPORTED = {
    "time_embedding_type": ("positional",), "mid_block_type": ("UNetMidBlock2D", None), "downsample_type": ("conv",),
    "upsample_type": ("conv",), "act_fn": ("silu", "swish"), "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None,), "downsample_padding": (0, 1),
}


def unet_config(settings):
    """UNetConfig from the settings of a config.json, checked.

    Shapes: settings a dict.
    Raises: ValueError naming the setting that is unknown, unsupported or does not fit the others.
    Source: diffusers, UNet2DModel.
    """
    c = read_settings("U-Net", UNetConfig, settings, SUPPORTED)
    levels = len(c.block_out_channels)
    for name, kinds in (("down_block_types", ("DownBlock2D", "AttnDownBlock2D")),
                        ("up_block_types", ("UpBlock2D", "AttnUpBlock2D"))):
        require(levels == len(getattr(c, name)) and set(getattr(c, name)) <= set(kinds),
                f"U-Net: setting {name} must hold one of {kinds} for each of the {levels} block_out_channels, "
                f"got {getattr(c, name)}")
    for name in ("in_channels", "out_channels", "layers_per_block", "norm_num_groups"):
        require(getattr(c, name) >= 1, f"U-Net: setting {name} must be at least 1, got {getattr(c, name)}")
    require(0 <= c.dropout < 1, f"U-Net: setting dropout must be in [0, 1), got {c.dropout}")
    require(min(c.block_out_channels) >= 1, f"U-Net: setting block_out_channels must be positive, got "
                                            f"{c.block_out_channels}")
    middle = c.block_out_channels[-1:] if c.mid_block_type and c.add_attention else ()
    attending = middle + tuple(channels for channels, *kinds in zip(
        c.block_out_channels, c.down_block_types, reversed(c.up_block_types)) if "Attn" in "".join(kinds))
    for name, parts, wholes in (("norm_num_groups", c.norm_num_groups, c.block_out_channels),
                                ("attn_norm_num_groups", c.attn_norm_num_groups, middle),
                                ("attention_head_dim", c.attention_head_dim, attending)):
        require(parts is None or (parts >= 1 and not any(whole % parts for whole in wholes)),
                f"U-Net: setting {name} = {parts} must divide the channels it is used on, {wholes}")
    return c


def _forms(c):
    """The form of the stages going down and up, and that of the middle."""
    form = Form(c.norm_num_groups, c.norm_eps, c.attention_head_dim, None, c.resnet_time_scale_shift == "scale_shift",
                1.0, c.dropout)
    return form, form._replace(attention_groups=c.attn_norm_num_groups, scale=c.mid_block_scale_factor)


def unet(params, x, t, labels=None, *, config, ops, key=None):
    r"""Noise (or x0, or v) predicted from a noisy image, its time and optionally its class.

    $$a = \mathrm{embed}(t, c), \quad h_0 = W' * x, \quad
      h_{i+1} = \mathrm{down}_i(h_i, a), \quad u_i = \mathrm{up}_i([u_{i+1}, h_i], a), \quad
      y = W * \mathrm{silu}(\mathrm{GN}(u_0))$$

    Shapes: x (N, C, H, W), H and W multiples of 2^(levels - 1); t (N,) real host numbers, the labels of time that the
    model was trained with; labels (N,) integers, expected exactly when the config has classes; key for dropout.
    Returns y (N, out_channels, H, W) and pullback(dy) -> dparams, dx.
    Raises: ValueError when a shape does not fit or labels are missing or not expected.
    Source: Ho et al. 2020, arXiv:2006.11239, app. B; diffusers, UNet2DModel.
    """
    form, mid_form = _forms(config)
    factor = 2 ** (len(config.block_out_channels) - 1)
    require(x.ndim == 4 and x.shape[1] == config.in_channels and x.shape[2] % factor == x.shape[3] % factor == 0,
            f"U-Net: x must be (N, {config.in_channels}, H, W) with H and W multiples of {factor}, got {x.shape}")
    stage_key = lambda i: None if key is None else ops.fold(key, i)

    act, embed_back = embed(params, t, labels, x, ops, dim=config.block_out_channels[0],
                            cos_first=config.flip_sin_to_cos, shift=config.freq_shift, classes=config.num_class_embeds)
    h = 2 * x - 1 if config.center_input_sample else x
    h, conv_in = conv(params, "conv_in", h, ops, padding=1)
    skips, downs, ups = [h], [], []
    for i in range(len(config.down_block_types)):
        outputs, back = down_stage(params, f"down_blocks.{i}", h, act, form, ops, config.downsample_padding,
                                   stage_key(i))
        h = outputs[-1]
        skips += outputs
        downs.append((back, len(outputs)))
    mid = None
    if config.mid_block_type:
        h, mid = mid_stage(params, "mid_block", h, act, mid_form, ops, stage_key(len(downs)))
    for i in range(len(config.up_block_types)):
        n = config.layers_per_block + 1
        skips, own = skips[:-n], skips[-n:]
        h, back = up_stage(params, f"up_blocks.{i}", h, own, act, form, ops, stage_key(len(downs) + 1 + i))
        ups.append(back)
    h, norm_out = norm(params, "conv_norm_out", h, ops, form.groups, form.stabiliser, silu=True)
    y, conv_out = conv(params, "conv_out", h, ops, padding=1)

    def pullback(dy):
        grads, dh = conv_out(dy)
        g, dh = norm_out(dh)
        grads, dskips, dact = grads | g, [], 0.0
        for back in reversed(ups):
            g, dh, own, da = back(dh)
            grads, dskips, dact = grads | g, dskips + own, dact + da
        if mid:
            g, dh, da = mid(dh)
            grads, dact = grads | g, dact + da
        for back, n in reversed(downs):
            dskips, own = dskips[:-n], dskips[-n:]
            g, dh, da = back([*own[:-1], own[-1] + dh])
            grads, dact = grads | g, dact + da
        g, dx = conv_in(dskips[0] + dh)
        grads = grads | g | embed_back(dact)
        return {name: grads[name] for name in params}, 2 * dx if config.center_input_sample else dx

    return y, pullback


def unet_shapes(config):
    """Name and shape of every parameter.

    Shapes: config a UNetConfig; returns a dict from names to shapes.
    Source: diffusers, UNet2DModel.
    """
    c = config
    channels, E = c.block_out_channels, c.time_embedding_dim or 4 * c.block_out_channels[0]
    adaptive = c.resnet_time_scale_shift == "scale_shift"
    shapes = conv_shapes("conv_in", c.in_channels, channels[0])
    shapes |= embed_shapes(channels[0], E, c.num_class_embeds)
    skips, width, last = [channels[0]], channels[0], len(channels) - 1
    for i, kind in enumerate(c.down_block_types):
        inputs = [width] + [channels[i]] * (c.layers_per_block - 1)
        shapes |= stage_shapes(f"down_blocks.{i}", inputs, channels[i], E, adaptive, kind.startswith("Attn"),
                               "downsamplers" if i < last else None)
        width = channels[i]
        skips += [width] * (c.layers_per_block + (i < last))
    if c.mid_block_type:
        shapes |= stage_shapes("mid_block", [width, width], width, E, adaptive, False, None)
        if c.add_attention:
            normed = not adaptive or c.attn_norm_num_groups is not None
            shapes |= attention_shapes("mid_block.attentions.0", width, normed)
    for i, kind in enumerate(c.up_block_types):
        out = channels[last - i]
        inputs = [w + skips.pop() for w in [width] + [out] * c.layers_per_block]
        shapes |= stage_shapes(f"up_blocks.{i}", inputs, out, E, adaptive, kind.startswith("Attn"),
                               "upsamplers" if i < last else None)
        width = out
    return shapes | norm_shapes("conv_norm_out", width) | conv_shapes("conv_out", width, c.out_channels)


def unet_init(key, config, dtype=np.float32):
    """Initial parameters; those of the last convolutions are 0, so that every residual branch and the output are 0.

    Shapes: key an int; returns a dict from names to arrays of the dtype.
    Source: Ho et al. 2020, arXiv:2006.11239, the authors' code (zeros); PyTorch's bounds for the others.
    """
    return initialise(key, unet_shapes(config), dtype, zero=(".conv2.", ".to_out.0.", "conv_out."))
