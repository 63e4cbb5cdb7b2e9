"""The U-Net beside diffusers' UNet2DModel: random weights saved there, opened here; same output, same gradients."""
import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel  # noqa: E402

from refimpl import ops  # noqa: E402
from refimpl.nets.unet import UNetConfig, unet  # noqa: E402
from refimpl.pretrained import load_folder  # noqa: E402

TINY = dict(in_channels=2, out_channels=3, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=4, downsample_padding=0, num_class_embeds=5, center_input_sample=True,
            mid_block_scale_factor=1.5)
ADAPTIVE = TINY | dict(resnet_time_scale_shift="scale_shift", attn_norm_num_groups=2, downsample_padding=1,
                       time_embedding_dim=12, freq_shift=1, flip_sin_to_cos=False)
UNUSUAL = dict(in_channels=1, out_channels=1, block_out_channels=(4, 8, 8), layers_per_block=2, norm_num_groups=2,
               down_block_types=("AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
               up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D"), attention_head_dim=None,
               add_attention=False, norm_eps=1e-3)
CIFAR10 = dict(in_channels=3, out_channels=3, block_out_channels=(128, 256, 256, 256), layers_per_block=2,
               down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
               up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"), attention_head_dim=None,
               downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6, norm_num_groups=32)


def random_model(settings, seed=0):
    """A UNet2DModel whose every parameter is random, norms around 1 and 0."""
    torch.manual_seed(seed)
    model = UNet2DModel(**settings).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(float(name.endswith("weight")) + 0.3 * torch.randn_like(p))
    return model


def inputs(settings, batch, size, rng):
    x = rng.standard_normal((batch, settings["in_channels"], size, size))
    t = rng.integers(0, 1000, batch)
    labels = rng.integers(0, settings["num_class_embeds"], batch) if "num_class_embeds" in settings else None
    return x, t, labels


class Float64Embedding(torch.nn.Module):
    """diffusers computes the sinusoids in float32 whatever the model's dtype: in float64 it is given ours."""

    def __init__(self, config):
        super().__init__()
        self.args = dict(dim=config.block_out_channels[0], cos_first=config.flip_sin_to_cos, shift=config.freq_shift)

    def forward(self, t):
        return torch.from_numpy(ops.sinusoidal_embedding(t.numpy(), **self.args))


@pytest.mark.parametrize("settings, batch, size", [(TINY, 3, 8), (ADAPTIVE, 2, 8), (UNUSUAL, 2, 12), (CIFAR10, 1, 32)],
                         ids=["tiny", "adaptive", "unusual", "cifar10"])
def test_output_and_gradients(settings, batch, size, tmp_path, rng):
    model = random_model(settings)
    model.save_pretrained(tmp_path)
    x, t, labels = inputs(settings, batch, size, rng)
    torch_labels = None if labels is None else torch.from_numpy(labels)

    params, config, _ = load_folder(tmp_path)
    y, _ = unet(params, x.astype(np.float32), t, labels, config=config, ops=ops)
    with torch.no_grad():
        expected = model(torch.from_numpy(x).float(), torch.from_numpy(t), torch_labels).sample.numpy()
    assert y.dtype == np.float32 and np.max(abs(y - expected)) <= 1e-4 * max(1, np.max(abs(expected)))

    params, config, _ = load_folder(tmp_path, dtype=np.float64)
    y, pullback = unet(params, x, t, labels, config=config, ops=ops)
    u = rng.standard_normal(y.shape)
    dparams, dx = pullback(u)
    model = model.double()
    model.time_proj = Float64Embedding(config)
    x_torch = torch.from_numpy(x).requires_grad_()
    y_torch = model(x_torch, torch.from_numpy(t), torch_labels).sample
    y_torch.backward(torch.from_numpy(u))
    expected = {name: p.grad.numpy() for name, p in model.named_parameters()} | {"x": x_torch.grad.numpy()}
    assert np.max(abs(y - y_torch.detach().numpy())) <= 1e-9
    assert dparams.keys() == params.keys() == expected.keys() - {"x"}
    for name, g in (dparams | {"x": dx}).items():
        assert np.max(abs(g - expected[name])) <= 1e-9 * max(1, np.max(abs(expected[name]))), name


def test_defaults():
    """Every setting and every default of UNet2DModel is here under the same name."""
    theirs = {n: p.default for n, p in inspect.signature(UNet2DModel.__init__).parameters.items() if n != "self"}
    assert UNetConfig()._asdict() == theirs


def test_pipeline_folder(tmp_path, rng):
    """A whole pipeline's folder, with the network in unet/ and the scheduler's settings; a folder in several files."""
    model = random_model(TINY)
    DDPMPipeline(model, DDPMScheduler(beta_schedule="squaredcos_cap_v2")).save_pretrained(tmp_path / "whole")
    params, config, scheduler = load_folder(tmp_path / "whole")
    assert scheduler["beta_schedule"] == "squaredcos_cap_v2" and config.block_out_channels == (8, 16)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    sharded = load_folder(tmp_path / "shards").params
    assert params.keys() == sharded.keys() and all(np.array_equal(params[n], sharded[n]) for n in params)
