"""Folders of weights: what opens, and one sentence for each thing that can be wrong with one."""
import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from refimpl import ops
from refimpl.nets.unet import unet, unet_config, unet_init
from refimpl.pretrained import WEIGHTS, load_folder

SETTINGS = dict(in_channels=1, out_channels=1, block_out_channels=[4, 4], layers_per_block=1, norm_num_groups=2,
                down_block_types=["DownBlock2D", "AttnDownBlock2D"], up_block_types=["AttnUpBlock2D", "UpBlock2D"],
                attention_head_dim=2)


def write(folder, params=None, settings=None):
    """A network's folder as diffusers writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    params = unet_init(1, unet_config(SETTINGS)) if params is None else params
    settings = {"_class_name": "UNet2DModel", "_diffusers_version": "0.38.0"} | SETTINGS | (settings or {})
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(params, folder / WEIGHTS)
    return folder


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)


def test_network_folder(tmp_path):
    params = unet_init(1, unet_config(SETTINGS))
    found = load_folder(write(tmp_path))
    assert same(found.params, params) and found.config == unet_config(SETTINGS) and found.scheduler is None
    wide = load_folder(tmp_path, dtype=np.float64).params
    assert all(p.dtype == np.float64 for p in wide.values())
    y, _ = unet(wide, np.ones((1, 1, 4, 4)), [1.0], config=found.config, ops=ops)
    assert y.shape == (1, 1, 4, 4)


def test_pipeline_folder(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps({"beta_schedule": "linear"}))
    write(tmp_path / "unet")
    assert load_folder(tmp_path).scheduler == {"beta_schedule": "linear"}


def test_shards_half_precision_and_old_names(tmp_path):
    write(tmp_path)
    params = {n: p.astype(np.float16) for n, p in load_file(tmp_path / WEIGHTS).items()}
    old = params
    for new_name, old_name in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        old = {n.replace(new_name, old_name): p for n, p in old.items()}
    assert old.keys() != params.keys()
    (tmp_path / WEIGHTS).unlink()
    names, index = sorted(old), {}
    for i, part in enumerate((names[::2], names[1::2])):
        save_file({n: old[n] for n in part}, tmp_path / f"part-{i}.safetensors")
        index |= {n: f"part-{i}.safetensors" for n in part}
    (tmp_path / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": index}))
    assert same(load_folder(tmp_path).params, {n: p.astype(np.float32) for n, p in params.items()})


def broken(change):
    def apply(folder):
        params = unet_init(1, unet_config(SETTINGS))
        change(params)
        write(folder, params)
    return apply


def cut(folder):
    data = (write(folder) / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:len(data) // 2])


def bfloat16(folder):
    """safetensors' NumPy reader gives no array for a type that NumPy lacks."""
    header = json.dumps({"conv_in.bias": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    write(folder)
    (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


@pytest.mark.parametrize("damage, message", [
    (lambda f: f.rmdir(), "is not a folder"),
    (lambda f: None, "config.json cannot be read"),
    (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
    (lambda f: (f / "config.json").write_text("[]"), "must hold a JSON object"),
    (lambda f: write(f, settings={"_class_name": "PixArt"}), "describes PixArt; expected one of UNet2DModel"),
    (lambda f: write(f, settings={"act_fn": "mish"}), "setting act_fn = 'mish' is not supported"),
    (lambda f: (write(f) / WEIGHTS).unlink(), "does not exist"),
    (lambda f: (write(f) / WEIGHTS).rename(f / "diffusion_pytorch_model.bin"), "only PyTorch's .bin is there"),
    (cut, "no complete safetensors file"),
    (lambda f: (write(f) / WEIGHTS).write_bytes(b"PK\x03\x04" * 100), "no complete safetensors file"),
    (lambda f: (write(f) / WEIGHTS).write_bytes(b""), "no complete safetensors file"),
    (bfloat16, "that NumPy can hold: .*bfloat16"),
    (broken(lambda p: p.pop("conv_in.bias")), "lacks the tensor conv_in.bias"),
    (broken(lambda p: p.update(extra=p["conv_in.bias"])), "unexpected tensor extra"),
    (broken(lambda p: p.update({"conv_in.bias": np.zeros(5, np.float32)})), r"shape \(5,\), expected \(4,\)"),
    (broken(lambda p: p.update({"conv_in.bias": np.zeros(4, np.int64)})), "is int64, expected floating point"),
    (broken(lambda p: p["conv_in.bias"].__setitem__(2, np.nan)), "conv_in.bias holds NaN or infinity"),
    (lambda f: (write(f) / f"{WEIGHTS}.index.json").write_text('{"weight_map": 3}'), "weight_map"),
])
def test_errors(damage, message, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    damage(folder)
    with pytest.raises(ValueError, match=message) as error:
        load_folder(folder)
    assert "\n" not in str(error.value) and re.match("weights: |U-Net: ", str(error.value))
