"""Autoencoders: gradients on small configs of every kind, shapes, device arrays, initial values, errors."""
import numpy as np
import pytest
from conftest import draws, refuses, with_own
from hypothesis import given
from strict import StrictArray, to_device, to_host

from refimpl import ops
from refimpl.facts import Draw
from refimpl.facts.nets import pullback_error, random_params
from refimpl.nets.autoencoder import (
    AutoencoderKLConfig,
    VQModelConfig,
    autoencoder_config,
    autoencoder_init,
    autoencoder_shapes,
    decode,
    encode,
)

SMALL = dict(_class_name="AutoencoderKL", in_channels=1, out_channels=2, block_out_channels=[4, 8], norm_num_groups=2,
             latent_channels=3, down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
             up_block_types=["UpDecoderBlock2D", "AttnUpDecoderBlock2D"])
SMALL_VQ = SMALL | dict(_class_name="VQModel", vq_embed_dim=2, num_vq_embeddings=5)


def draw_config(d):
    levels, groups, kl = d.integer(1, 2), d.integer(1, 2), d.choice([True, False])
    return autoencoder_config(dict(
        _class_name="AutoencoderKL" if kl else "VQModel", in_channels=d.integer(1, 2), out_channels=d.integer(1, 2),
        block_out_channels=[2 * groups * d.integer(1, 2) for _ in range(levels)], norm_num_groups=groups,
        layers_per_block=d.integer(1, 2), latent_channels=d.integer(1, 3),
        mid_block_add_attention=d.choice([True, False]),
        down_block_types=[d.choice(["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]) for _ in range(levels)],
        up_block_types=[d.choice(["UpDecoderBlock2D", "AttnUpDecoderBlock2D"]) for _ in range(levels)],
        **(dict(use_quant_conv=d.choice([True, False]), use_post_quant_conv=d.choice([True, False])) if kl else
           dict(vq_embed_dim=d.choice([None, 2]), num_vq_embeddings=3))))


def parts(params):
    """The encoder's parameters and the decoder's."""
    first = {n: p for n, p in params.items() if n.startswith(("encoder", "quant_conv"))}
    return first, {n: p for n, p in params.items() if n.startswith(("decoder", "post_quant_conv"))}


@given(d=draws())
def test_gradients(d):
    config = draw_config(d)
    encoder, decoder = parts(random_params(autoencoder_shapes(config), d))
    factor = 2 ** (len(config.block_out_channels) - 1)
    x = d.array(d.integer(1, 2), config.in_channels, factor * d.integer(1, 2), factor)
    h, _ = encode(encoder, x, config=config, ops=ops)
    channels = 2 * config.latent_channels if isinstance(config, AutoencoderKLConfig) else \
        config.vq_embed_dim or config.latent_channels
    assert h.shape == (x.shape[0], channels, x.shape[2] // factor, x.shape[3] // factor)
    assert pullback_error(lambda p, x: encode(p, x, config=config, ops=ops), encoder, (x,), d) <= 1e-10
    z = d.array(x.shape[0], getattr(config, "vq_embed_dim", None) or config.latent_channels, *h.shape[2:])
    y, _ = decode(decoder, z, config=config, ops=ops)
    assert y.shape == (x.shape[0], config.out_channels, *x.shape[2:])
    assert pullback_error(lambda p, z: decode(p, z, config=config, ops=ops), decoder, (z,), d) <= 1e-10


@pytest.mark.parametrize("settings", [SMALL, SMALL_VQ], ids=["kl", "vq"])
def test_on_device(settings):
    d, config = Draw(0), autoencoder_config(settings)
    params = {n: p.astype(np.float32) for n, p in random_params(autoencoder_shapes(config), d).items()}
    z = d.array(2, 2 if settings is SMALL_VQ else 3, 2, 2).astype(np.float32)
    for net, x in ((encode, d.array(2, 1, 4, 4).astype(np.float32)), (decode, z)):
        y, pullback = net(params, x, config=config, ops=ops)
        grads, dx = pullback(y)
        y_device, pullback = net(to_device(params), to_device(x), config=config, ops=ops)
        grads_device, dx_device = pullback(y_device)
        for host, device in ((y, y_device), (dx, dx_device), *((grads[n], grads_device[n]) for n in grads)):
            assert isinstance(device, StrictArray) and device.dtype == np.float32
            assert np.array_equal(host, to_host(device))


def test_initial_values():
    config = autoencoder_config(SMALL_VQ | dict(num_vq_embeddings=64, vq_embed_dim=8))
    params = autoencoder_init(3, config)
    assert {n: p.shape for n, p in params.items()} == autoencoder_shapes(config)
    table = params["quantize.embedding.weight"]
    assert table.dtype == np.float32 and 0.95 / 64 < np.max(abs(table)) <= 1 / 64 and abs(np.mean(table)) < 0.2 / 64
    assert np.any(params["encoder.mid_block.resnets.0.conv2.weight"])


@pytest.mark.parametrize("settings, message", [
    (dict(_class_name="AutoencoderTiny"), "_class_name must be one of AutoencoderKL, VQModel, got 'AutoencoderTiny'"),
    (dict(act_fn="relu"), "AutoencoderKL: setting act_fn = 'relu' is not supported"),
    (dict(down_block_types=["DownBlock2D"] * 2), "setting down_block_types must hold"),
    (dict(up_block_types=["UpDecoderBlock2D"]), "setting up_block_types must hold"),
    (dict(norm_num_groups=3), "norm_num_groups = 3 must divide"),
    (dict(latent_channels=0), "latent_channels must be at least 1"),
    (dict(vq_embed_dim=2), "unknown setting vq_embed_dim"),
    (SMALL_VQ | dict(norm_type="spatial"), "VQModel: setting norm_type = 'spatial' is not supported"),
    (SMALL_VQ | dict(num_vq_embeddings=0), "num_vq_embeddings must be at least 1"),
])
def test_config_errors(settings, message):
    refuses(lambda: autoencoder_config(SMALL | settings), message)


def test_input_errors():
    config = autoencoder_config(SMALL)
    params = autoencoder_init(1, config)
    with pytest.raises(ValueError, match=r"x must be \(N, 1, H, W\) with H and W multiples of 2, got \(1, 1, 5, 4\)"):
        encode(params, np.zeros((1, 1, 5, 4), np.float32), config=config, ops=ops)
    with pytest.raises(ValueError, match=r"z must be \(N, 3, h, w\), got \(1, 6, 2, 2\)"):
        decode(params, np.zeros((1, 6, 2, 2), np.float32), config=config, ops=ops)


def test_config_round_trip():
    assert autoencoder_config({"_class_name": "VQModel", **VQModelConfig()._asdict()}) == VQModelConfig()
    assert autoencoder_config({"_class_name": "AutoencoderKL", "block_out_channels": [64]}) == AutoencoderKLConfig()


def test_published_constants():
    """What no config says: downsampling pads below and to the right only, and every norm's stabiliser is 1e-6."""
    config, seen = autoencoder_config(SMALL), {"padding": set(), "stabiliser": set()}

    def conv2d(x, w, b, **options):
        if options.get("stride") == 2:
            seen["padding"].add(options["padding"])
        return ops.conv2d(x, w, b, **options)

    def group_norm(x, gamma, beta, groups, stabiliser, silu):
        seen["stabiliser"].add(stabiliser)
        return ops.group_norm(x, gamma, beta, groups, stabiliser, silu)

    spies = with_own(conv2d, group_norm)
    params = autoencoder_init(1, config)
    h, _ = encode(params, np.ones((1, 1, 2, 2), np.float32), config=config, ops=spies)
    decode(params, h[:, :3], config=config, ops=spies)
    assert seen == {"padding": {((0, 1), (0, 1))}, "stabiliser": {1e-6}}
