"""The U-Net: gradients on small configs of every kind, what holds at initialisation, and its errors."""
import numpy as np
import pytest
from conftest import draws, refuses
from hypothesis import given

from refimpl import ops
from refimpl.facts.nets import pullback_error, random_params
from refimpl.nets.unet import UNetConfig, unet, unet_config, unet_init, unet_shapes

SMALL = dict(in_channels=1, out_channels=2, block_out_channels=[4, 8], layers_per_block=1, norm_num_groups=2,
             down_block_types=["DownBlock2D", "AttnDownBlock2D"], up_block_types=["AttnUpBlock2D", "UpBlock2D"],
             attention_head_dim=4, num_class_embeds=11)


def draw_config(d):
    """Any supported setting, on one to three levels."""
    levels, groups = d.integer(1, 3), d.integer(1, 2)
    return unet_config(dict(
        in_channels=d.integer(1, 3), out_channels=d.integer(1, 3), layers_per_block=d.integer(1, 2),
        block_out_channels=[2 * groups * d.integer(1, 2) for _ in range(levels)], norm_num_groups=groups,
        down_block_types=[d.choice(["DownBlock2D", "AttnDownBlock2D"]) for _ in range(levels)],
        up_block_types=[d.choice(["UpBlock2D", "AttnUpBlock2D"]) for _ in range(levels)],
        mid_block_type=d.choice(["UNetMidBlock2D", None]), add_attention=d.choice([True, False]),
        attention_head_dim=d.choice([None, 1, 2]), attn_norm_num_groups=d.choice([None, 1]),
        mid_block_scale_factor=d.choice([1, 1.5]), downsample_padding=d.choice([0, 1]),
        resnet_time_scale_shift=d.choice(["default", "scale_shift"]), time_embedding_dim=d.choice([None, 3]),
        num_class_embeds=d.choice([None, 3]), center_input_sample=d.choice([True, False]),
        flip_sin_to_cos=d.choice([True, False]), freq_shift=d.choice([0, 0.5]), dropout=d.choice([0.0, 0.5])))


def draw_inputs(d, config):
    N, factor = d.integer(1, 3), 2 ** (len(config.block_out_channels) - 1)
    x = d.array(N, config.in_channels, factor * d.integer(1, 2), factor * d.integer(1, 2))
    labels = None if config.num_class_embeds is None else np.array([d.integer(0, 2) for _ in range(N)])
    return x, np.array([d.real(0, 1000) for _ in range(N)]), labels


@given(d=draws())
def test_gradients(d):
    config = draw_config(d)
    params, (x, t, labels) = random_params(unet_shapes(config), d), draw_inputs(d, config)
    key = d.key() if d.choice([True, False]) else None
    net = lambda p, x: unet(p, x, t, labels, config=config, ops=ops, key=key)
    assert pullback_error(net, params, (x,), d) <= 1e-10


@given(d=draws())
def test_zero_at_initialisation(d):
    """The last convolutions start at 0, those of each branch too: so does the output, and all gradients but theirs."""
    config = draw_config(d)
    (x, t, labels), params = draw_inputs(d, config), unet_init(d.key(), config, np.float64)
    y, pullback = unet(params, x, t, labels, config=config, ops=ops)
    expected = {n for n in params if any(part in n for part in (".conv2.", ".to_out.0.", "conv_out."))
                or ("norm" in n and n.endswith("bias"))}
    assert {n for n, p in params.items() if not np.any(p)} == expected
    assert y.shape == (x.shape[0], config.out_channels, *x.shape[2:]) and not np.any(y)
    grads, dx = pullback(d.array(*y.shape))
    assert np.any(grads["conv_out.weight"]) and not np.any(dx)
    assert not any(np.any(g) for name, g in grads.items() if not name.startswith("conv_out"))
    assert {n: p.shape for n, p in params.items()} == {n: tuple(s) for n, s in unet_shapes(config).items()}


def test_middle_scale(rng):
    """mid_block_scale_factor divides what the middle's blocks put out, and nothing else."""
    config = unet_config(SMALL | dict(mid_block_scale_factor=2.0, down_block_types=["DownBlock2D"] * 2,
                                      up_block_types=["UpBlock2D"] * 2))
    params = unet_init(1, config, np.float64) | {"conv_out.weight": rng.standard_normal((2, 4, 3, 3))}
    inputs = rng.standard_normal((1, 1, 4, 4)), np.ones(1), np.ones(1, int)
    # At initialisation the three blocks of the middle carry their input, each divided by 2.
    with_scale, _ = unet(params, *inputs, config=config, ops=ops)
    without = unet_config(config._asdict() | dict(mid_block_type=None))
    rest = {n: params[n] for n in unet_shapes(without)}
    plain, _ = unet(rest, *inputs, config=without, ops=ops)
    assert not np.allclose(with_scale, plain)
    same, _ = unet(params, *inputs, config=config._replace(mid_block_scale_factor=1), ops=ops)
    np.testing.assert_allclose(same, plain, rtol=1e-12)


@given(d=draws())
def test_samples_do_not_see_each_other(d):
    config = draw_config(d)
    params, (x, t, labels) = random_params(unet_shapes(config), d), draw_inputs(d, config)
    whole, _ = unet(params, x, t, labels, config=config, ops=ops)
    for n in range(x.shape[0]):
        label = None if labels is None else labels[n:n + 1]
        one, _ = unet(params, x[n:n + 1], t[n:n + 1], label, config=config, ops=ops)
        np.testing.assert_allclose(one[0], whole[n], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [8, 32, pytest.param(256, marks=pytest.mark.thorough)])
def test_float32_stays_float32(size, rng):
    config = unet_config(SMALL | dict(down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2,
                                      add_attention=False))
    params = {n: p + np.float32(0.1) for n, p in unet_init(1, config).items()}
    x = rng.standard_normal((1, 1, size, size), dtype=np.float32)
    y, pullback = unet(params, x, np.array([3.0]), np.array([10]), config=config, ops=ops)
    grads, dx = pullback(y)
    assert y.dtype == dx.dtype == np.float32 and all(g.dtype == np.float32 for g in grads.values())
    assert dx.shape == x.shape and y.shape == (1, 2, size, size)


def test_initial_values_by_name():
    """A parameter depends on the key and its own name only, and has the variance 1/(3 fan-in)."""
    a = unet_init(7, unet_config(SMALL), np.float64)
    b = unet_init(7, unet_config(SMALL | dict(layers_per_block=2, num_class_embeds=3)), np.float64)
    assert np.array_equal(a["conv_in.weight"], b["conv_in.weight"])
    assert not np.array_equal(a["conv_in.weight"], unet_init(8, unet_config(SMALL), np.float64)["conv_in.weight"])
    w = a["down_blocks.1.resnets.0.conv1.weight"]
    assert abs(np.var(w) * 3 * np.prod(w.shape[1:]) - 1) < 0.2 and abs(np.max(w) * 6 - 1) < 0.05


def test_dropout_needs_a_key(rng):
    config = unet_config(SMALL | dict(dropout=0.5))
    params = {n: p + 0.1 for n, p in unet_init(1, config, np.float64).items()}
    inputs = params, np.ones((1, 1, 4, 4)), np.ones(1), np.ones(1, int)
    run = lambda key: unet(*inputs, config=config, ops=ops, key=key)[0]
    assert np.array_equal(run(5), run(5)) and not np.array_equal(run(5), run(6))
    assert np.array_equal(run(None), unet(*inputs, config=unet_config(SMALL), ops=ops, key=5)[0])


@pytest.mark.parametrize("setting, message", [
    (dict(time_embedding_type="fourier"), "time_embedding_type = 'fourier' is not supported"),
    (dict(act_fn="mish"), "act_fn = 'mish'"),
    (dict(down_block_types=["SkipDownBlock2D", "DownBlock2D"]), "down_block_types"),
    (dict(up_block_types=["UpBlock2D"]), "up_block_types"),
    (dict(norm_num_groups=3), "norm_num_groups = 3 must divide"),
    (dict(block_out_channels=64), "block_out_channels must be like"),
    (dict(block_out_channels=[4, "8"]), "block_out_channels must be like"),
    (dict(norm_eps="small"), "norm_eps must be like 1e-05"),
    (dict(layers_per_block=True), "layers_per_block must be like 2"),
    (dict(block_out_channels=[]), "block_out_channels must be like"),
    (dict(colour="red"), "unknown setting colour"),
    (dict(dropout=1.0), "dropout"),
    (dict(norm_num_groups=None), "norm_num_groups must be like 32, got None"),
    (dict(in_channels=0), "in_channels must be at least 1"),
    (dict(attention_head_dim=3), "attention_head_dim = 3 must divide"),
])
def test_config_errors(setting, message):
    refuses(lambda: unet_config(SMALL | setting), message)


@pytest.mark.parametrize("change, message", [
    (dict(x=np.zeros((2, 1, 5, 4))), "multiples of 2"),
    (dict(x=np.zeros((2, 3, 4, 4))), r"x must be \(N, 1, H, W\)"),
    (dict(t=np.zeros(3)), r"t must be \(N,\)"),
    (dict(t=np.array([1, np.nan])), "t must be finite"),
    (dict(labels=None), "labels must be given exactly when"),
    (dict(labels=np.array([0, 11])), "0..10"),
    (dict(labels=np.zeros(3, int)), r"labels must be \(N,\)"),
])
def test_input_errors(change, message):
    config = unet_config(SMALL)
    inputs = dict(x=np.zeros((2, 1, 4, 4)), t=np.zeros(2), labels=np.zeros(2, int)) | change
    with pytest.raises(ValueError, match=message):
        unet(unet_init(1, config, np.float64), **inputs, config=config, ops=ops)


def test_config_round_trip():
    """The file's own entries are skipped, lists become tuples, and the rest comes back."""
    assert unet_config(UNetConfig()._asdict() | {"_class_name": "UNet2DModel"}) == UNetConfig()
    assert unet_config({"block_out_channels": [224, 448, 672, 896]}) == UNetConfig()
