"""A public checkpoint in diffusers' layout, as a system that is only sampled: as its scheduler says, or any other way.

Its network is told t - 1, as it was in training. Where a scheduler there differs from the paper (docs/diffusion.md), the
paper's rule runs here, on the settings of scheduler_config.json: von Platen et al. 2022, github.com/huggingface/diffusers.
"""
from types import SimpleNamespace

import numpy as np

from refimpl.equations import schedules
from refimpl.nets.unet import UNetConfig, unet
from refimpl.ops._check import require
from refimpl.pretrained import load_folder
from refimpl.train import System

from . import prior
from .drawing import sampling

PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
VARIANCES = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "fixed_large_log": "large",
             "learned_range": "learned"}
PLAIN = {"DDPMScheduler": "ddpm", "DDIMScheduler": "ddim", "PNDMScheduler": "plms", "EulerDiscreteScheduler": "euler",
         "EulerAncestralDiscreteScheduler": "euler-ancestral", "HeunDiscreteScheduler": "heun"}
SOLVERS = {"DPMSolverMultistepScheduler": {"dpmsolver++": "", "sde-dpmsolver++": "-sde"}, "UniPCMultistepScheduler": {}}
UNLIKE = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False, "use_lu_lambdas": False,
          "use_flow_sigmas": False, "euler_at_final": False, "final_sigmas_type": "zero", "predict_x0": True,
          "skip_prk_steps": True, "timestep_type": "discrete", "use_dynamic_shifting": False}
PRESET = {"skip_prk_steps": False}  # what is missing from a PNDM's settings


def opened(folder):
    """The System of a folder, its parameters as {player: dict}, and the shape of an image.

    Raises: ValueError with one sentence for a folder, a network or a scheduler that cannot be opened or sampled.
    """
    found = load_folder(folder)
    require(isinstance(found.config, UNetConfig), f"weights: {folder} holds no U-Net to sample")
    require(found.scheduler is not None, f"weights: {folder} has no scheduler/scheduler_config.json: to sample, the "
                                         f"folder of a pipeline is needed (model_index.json, unet, scheduler)")
    c, s = found.config, found.scheduler
    require(c.sample_size is not None, f"weights: {folder} does not say its sample_size")
    shape = (c.in_channels, *(c.sample_size if isinstance(c.sample_size, (tuple, list)) else (c.sample_size,) * 2))
    outputs = c.out_channels // c.in_channels
    require(c.out_channels in (c.in_channels, 2 * c.in_channels),
            f"weights: {c.out_channels} channels for {c.in_channels} are neither an estimate nor one with a variance")
    kind, steps = s.get("_class_name"), 50
    model = denoising(s)._replace(outputs=outputs)
    if kind == "DDPMScheduler":
        steps = s.get("num_train_timesteps", 1000)
    data = SimpleNamespace(shape=shape, classes=c.num_class_embeds or 0, spec=str(folder))
    reach = s.get("clip_sample_range", 1.0) if s.get("clip_sample", kind in ("DDPMScheduler", "DDIMScheduler")) else (
        1.0 if s.get("thresholding") else None)
    clip = None if reach is None else (-reach, reach)

    def net(params, x, t, labels, ops):
        return unet(params, x, t, labels, config=c, ops=ops)

    def sample(params, state, n, key, ops, labels=None, steps=steps, sampler=None, **options):
        name, own = own_sampler(s, steps) if sampler is None else (sampler, {})
        # DDIM there keeps the raw eps beside a clipped x0_hat; the other samplers here need the two to agree.
        draw, _ = sampling(str(folder), model._replace(sampler=(name, steps, own)), net, data, clip,
                           sampler is not None or kind != "DDIMScheduler")
        return np.clip(draw(params, state, n, key, ops, labels, steps=steps, sampler=name, **options), -1, 1)

    _, options = sampling(str(folder), model, net, data, clip)
    options = {k: v for k, v in options.items() if k != "guidance"}  # there is no class that stands for none
    return System(str(folder), {}, sample, data.classes, options | {"steps": steps, "sampler": ""}), {"model": found.params}


def denoising(s):
    """The Model of a scheduler's settings: its schedule, its levels, and what its network predicts."""
    kind, T = s.get("prediction_type", "epsilon"), s.get("num_train_timesteps", 1000)
    require(kind in PREDICTIONS, f"weights: prediction_type must be one of {', '.join(PREDICTIONS)}, got {kind!r}")
    require(not s.get("thresholding") or s.get("sample_max_value", 1.0) == 1,
            f"weights: thresholding beyond sample_max_value 1 is not supported, got {s.get('sample_max_value')}")
    require(isinstance(T, int) and T >= 1, f"weights: num_train_timesteps must be a positive integer, got {T!r}")
    ends = [s.get(name, usual) for name, usual in (("beta_start", 1e-4), ("beta_end", 0.02))]
    shapes = {"linear": lambda: schedules.linear(T, *ends), "scaled_linear": lambda: schedules.scaled_linear(T, *ends),
              "squaredcos_cap_v2": lambda: schedules.cosine(T), "sigmoid": lambda: schedules.sigmoid_beta(T, *ends)}
    shape = s.get("beta_schedule", "linear")
    require(s.get("trained_betas") is not None or shape in shapes,
            f"weights: beta_schedule must be one of {', '.join(shapes)}, got {shape!r}")
    schedule = shapes[shape]() if s.get("trained_betas") is None else schedules.from_beta(s["trained_betas"])
    if s.get("rescale_betas_zero_snr"):
        schedule = schedules.zero_terminal_snr(schedule)
    usual = "leading" if s.get("_class_name") in ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler") else "linspace"
    spacing, to_one = s.get("timestep_spacing", usual), s.get("set_alpha_to_one", s.get("_class_name") != "PNDMScheduler")

    def levels(steps, spacing):
        t = schedules.timesteps(schedule.T, steps, spacing, s.get("steps_offset", 0) if spacing == "leading" else 0)
        rows = schedules.levels(schedule, t)
        if not to_one:  # the last step ends at t = 1, which is no step if it began there
            rows[-1] = schedules.level_at(schedule, 1)
        return rows if to_one or t[-1] > 1 else rows[:-1]

    return prior.Model("vp", None, lambda signal, noise: schedules.label_of_level(schedule, signal, noise) - 1, levels, None,
                       PREDICTIONS[kind], own={"spacing": spacing})


def own_sampler(s, steps):
    """Name and options of the sampler that a scheduler's settings ask for.

    Raises: ValueError with one sentence where there is none here.
    """
    kind = s.get("_class_name")
    preset = PRESET if kind == "PNDMScheduler" else {}
    for name, usual in UNLIKE.items():
        value = s.get(name, preset.get(name, usual))
        require(value in (usual, None), f"weights: scheduler setting {name} = {value!r} has no counterpart here: name a "
                                        f"sampler with --sampler")
    if kind in PLAIN:
        variance = s.get("variance_type", "fixed_small")
        require(kind != "DDPMScheduler" or variance in VARIANCES,
                f"weights: variance_type must be one of {', '.join(VARIANCES)}, got {variance!r}")
        return PLAIN[kind], {"variance": VARIANCES[variance]} if kind == "DDPMScheduler" else {}
    require(kind in SOLVERS, f"weights: scheduler {kind} has no counterpart here ({', '.join((*PLAIN, *SOLVERS))} have): "
                             f"name a sampler with --sampler")
    order, lower = s.get("solver_order", 2), s.get("lower_order_final", True)
    if kind == "UniPCMultistepScheduler":
        return f"unipc-{order}", {"kind": s.get("solver_type", "bh2")} | ({"lower_last": lower} if order > 1 else {})
    form, known = s.get("algorithm_type", "dpmsolver++"), SOLVERS[kind]
    require(form in known, f"weights: algorithm_type must be one of {', '.join(known)}, got {form!r}")
    options = {1: {}, 2: {"kind": s.get("solver_type", "midpoint")}, 3: {"halved": True}}.get(order, {})
    return (f"dpm++-1{known[form]}" if order == 1 else f"dpm++-{order}m{known[form]}"), options | (
        {"lower_last": lower and steps < 15} if order > 1 else {})
