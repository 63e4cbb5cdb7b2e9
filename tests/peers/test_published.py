"""Pipelines of random weights, saved by diffusers and sampled here: the same images from the same noise, to 1e-3."""
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler  # noqa: E402

from refimpl import ops  # noqa: E402
from refimpl.__main__ import main  # noqa: E402
from refimpl.systems import published  # noqa: E402

SETTINGS = dict(sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=1,
                norm_num_groups=4, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=4)


def network(seed=0, **changes):
    torch.manual_seed(seed)
    return diffusers.UNet2DModel(**SETTINGS | changes).eval()


def drawn(folder, noises, n=2, **options):
    """Images from the folder with the given noises, as a pipeline returns them."""
    system, params = published.opened(folder)
    x = system.sample(params, {}, n, 0, ops, noise=lambda draw: noises[draw], **options)
    return np.moveaxis(x / 2 + 0.5, 1, -1)


def noises(seed, count, shape=(2, 3, 8, 8)):
    """What a generator hands a pipeline, in its order."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).numpy() for _ in range(count)]


@pytest.mark.parametrize("settings, steps", [
    ({}, 1000), ({"variance_type": "fixed_large", "clip_sample": False}, 25),
    ({"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}, 20),
    ({"beta_schedule": "scaled_linear", "prediction_type": "sample", "clip_sample_range": 0.7}, 10),
    ({"timestep_spacing": "trailing", "num_train_timesteps": 100, "thresholding": True}, 20),
    ({"variance_type": "learned_range"}, 20),
    ({"beta_schedule": "sigmoid", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction",
      "timestep_spacing": "trailing"}, 10)])
def test_ddpm_pipeline(settings, steps, tmp_path):
    outputs = {"out_channels": 6} if settings.get("variance_type") == "learned_range" else {}
    pipeline = DDPMPipeline(network(**outputs), DDPMScheduler(**settings))
    pipeline.save_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(batch_size=2, num_inference_steps=steps, output_type="np",
                      generator=torch.Generator().manual_seed(3)).images
    ours = drawn(tmp_path, noises(3, steps + 1), **({} if steps == 1000 else {"steps": steps}))
    assert np.max(abs(ours - theirs)) < 1e-3 and theirs.std() > 0.05


@pytest.mark.parametrize("settings, steps, eta", [
    ({}, 50, 0.0), ({}, 20, 0.7), ({"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}, 10, 0.0),
    ({"prediction_type": "v_prediction", "timestep_spacing": "trailing"}, 25, 0.0)])
def test_ddim_pipeline(settings, steps, eta, tmp_path):
    pipeline = DDIMPipeline(network(1), DDIMScheduler(**settings))
    pipeline.save_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(batch_size=2, num_inference_steps=steps, eta=eta, output_type="np",
                      generator=torch.Generator().manual_seed(4)).images
    ours = drawn(tmp_path, noises(4, steps + 1), steps=steps, **({"eta": eta} if eta else {}))
    assert np.max(abs(ours - theirs)) < 1e-3 and theirs.std() > 0.05


@pytest.mark.parametrize("name, options", [("DPMSolverMultistepScheduler", {"timestep_spacing": "trailing"}),
                                           ("UniPCMultistepScheduler", {"timestep_spacing": "trailing"}),
                                           ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
                                           ("DPMSolverMultistepScheduler", {"solver_order": 3,
                                                                            "timestep_spacing": "trailing"})])
def test_other_schedulers(name, options, tmp_path):
    """Schedulers whose own rule is the one here: the same images from the same start."""
    pipeline = DDPMPipeline(network(2), getattr(diffusers, name)(**options))
    pipeline.save_pretrained(tmp_path)
    start, scheduler = noises(5, 1)[0], pipeline.scheduler
    scheduler.set_timesteps(20)
    x = torch.tensor(start) * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(pipeline.unet(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
    theirs = np.moveaxis(np.clip(x.numpy(), -1, 1) / 2 + 0.5, 1, -1)
    assert np.max(abs(drawn(tmp_path, [start], steps=20) - theirs)) < 2e-3


def test_command(tmp_path, capsys, monkeypatch):
    """From the command line: its own settings, another sampler, its classes; what there is none of is one sentence."""
    monkeypatch.chdir(tmp_path)
    DDPMPipeline(network(num_class_embeds=3), DDPMScheduler(num_train_timesteps=20)).save_pretrained("weights")
    common = ["sample", "--checkpoint", "weights", "-n", "3", "--labels", "2", "--json"]
    assert main([*common, "--out", "a.npz"]) == 0 and np.load("a.npz")["images"].shape == (3, 3, 8, 8)
    assert main([*common, "--out", "b.npz", "--sampler", "dpm++-2m", "--steps", "5"]) == 0
    assert np.load("b.npz")["labels"].tolist() == [2, 2, 2]
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"out": "b.npz", "n": 3}
    for more, sentence in ((["--guidance", "1"], "has no sampling option 'guidance'"),
                           (["--steps", "21"], "steps must be in 1..20, got 21"),
                           (["weights"], "leave weights out"), (["--labels", "3"], "each must be in 0..2, got '3'")):
        assert main([*common, *more]) == 1
        assert sentence in capsys.readouterr().err
