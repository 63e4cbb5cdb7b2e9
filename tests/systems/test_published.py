"""Folders of public weights that cannot be sampled: one sentence each (the images themselves: tests/peers)."""
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from refimpl import ops
from refimpl.__main__ import main
from refimpl.nets.unet import unet_config, unet_init
from refimpl.pretrained import WEIGHTS
from refimpl.systems import published

SETTINGS = dict(sample_size=4, in_channels=1, out_channels=1, block_out_channels=[4, 4], layers_per_block=1,
                norm_num_groups=2, down_block_types=["DownBlock2D", "AttnDownBlock2D"],
                up_block_types=["AttnUpBlock2D", "UpBlock2D"], attention_head_dim=2)


def pipeline(folder, scheduler, **settings):
    """A pipeline's folder with weights that say nothing."""
    (folder / "unet").mkdir(parents=True)
    (folder / "scheduler").mkdir()
    settings = SETTINGS | settings
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    (folder / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"} | settings))
    save_file(unet_init(1, unet_config(settings)), folder / "unet" / WEIGHTS)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


@pytest.mark.parametrize("scheduler, settings, sentence", [
    ({"_class_name": "LMSDiscreteScheduler"}, {}, "LMSDiscreteScheduler has no counterpart here"),
    ({"_class_name": "DDPMScheduler", "variance_type": "learned"}, {}, "variance_type must be one of fixed_small"),
    ({"_class_name": "DDPMScheduler", "variance_type": "learned_range"}, {}, "needs a network that gives one"),
    ({"_class_name": "DDPMScheduler", "prediction_type": "flow_prediction"}, {}, "prediction_type must be one of epsilon"),
    ({"_class_name": "DDPMScheduler", "beta_schedule": "laplace"}, {}, "beta_schedule must be one of linear"),
    ({"_class_name": "DDPMScheduler", "num_train_timesteps": 0}, {}, "num_train_timesteps must be a positive integer"),
    ({"_class_name": "DDIMScheduler", "thresholding": True, "sample_max_value": 2}, {}, "beyond sample_max_value 1"),
    ({"_class_name": "PNDMScheduler"}, {}, "skip_prk_steps = False has no counterpart here"),
    ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True}, {}, "use_karras_sigmas = True has no"),
    ({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}, {}, "algorithm_type must be one of"),
    ({"_class_name": "UniPCMultistepScheduler", "solver_order": 4}, {}, "sampler must be one of ddpm"),
    ({"_class_name": "DDPMScheduler"}, {"sample_size": None}, "does not say its sample_size"),
    ({"_class_name": "DDPMScheduler"}, {"out_channels": 3}, "3 channels for 1 are neither"),
])
def test_what_cannot_be_sampled(scheduler, settings, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = pipeline(tmp_path / "weights", scheduler, **settings)
    assert main(["sample", "--checkpoint", str(folder), "-n", "1"]) == 1
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("refimpl: ")]
    assert len(err) == 1 and sentence in err[0]


def test_a_folder_without_its_parts(tmp_path, capsys):
    for folder, sentence in (("nowhere", "is not a folder"), ("empty", "cannot be read")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert main(["sample", "--checkpoint", str(tmp_path / folder)]) == 1
        assert sentence in capsys.readouterr().err
    folder = pipeline(tmp_path / "weights", {})
    (folder / "scheduler" / "scheduler_config.json").unlink()
    assert main(["sample", "--checkpoint", str(folder)]) == 1
    assert "has no scheduler/scheduler_config.json" in capsys.readouterr().err
    assert main(["sample"]) == 1
    assert "name the folder of a run, or with --checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("scheduler, steps, name", [
    ({"_class_name": "DDPMScheduler"}, 1000, ("ddpm", {"variance": "small"})),
    ({"_class_name": "DDIMScheduler"}, 50, ("ddim", {})),
    ({"_class_name": "DPMSolverMultistepScheduler"}, 50, ("dpm++-2m", {"kind": "midpoint", "lower_last": False})),
    ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 1}, 50, ("dpm++-1", {})),
    ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3, "algorithm_type": "sde-dpmsolver++"}, 10,
     ("dpm++-3m-sde", {"halved": True, "lower_last": True})),
    ({"_class_name": "UniPCMultistepScheduler", "solver_order": 1}, 50, ("unipc-1", {"kind": "bh2"})),
    ({"_class_name": "PNDMScheduler", "skip_prk_steps": True}, 50, ("plms", {})),
])
def test_samplers_that_settings_ask_for(scheduler, steps, name, tmp_path):
    assert published.own_sampler(scheduler, steps) == name
    system, params = published.opened(pipeline(tmp_path / "weights", scheduler))
    assert system.options["steps"] == (1000 if "DDPM" in scheduler["_class_name"] else 50)
    x = system.sample(params, {}, 2, 0, ops, steps=4)
    assert x.shape == (2, 1, 4, 4) and np.abs(x).max() <= 1
