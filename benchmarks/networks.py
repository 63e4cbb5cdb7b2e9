"""Whole-network rows: one training step of the demo's U-Net, and one of its sampling steps, by every backend."""
import importlib.util

import numpy as np

from kernels import backend
from refimpl import data, systems
from refimpl.ops.random import fold
from refimpl.train import Batch, advance, begin

from . import clock
from .run import Refused

TOLERANCE = 1e-4  # of the largest gradient: float32 sums in another order, through some thirty layers


def system():
    """The demo's system, its first parameters and a batch of digits."""
    digits = data.load("digits")
    config = systems.configure("ddpm", digits, {})
    built = systems.build("ddpm", config, digits)
    run = begin(built, 0)
    rng = np.random.default_rng(0)  # the last convolutions start at 0: give every layer something to do
    params = {k: (v + 0.02 * rng.standard_normal(v.shape)).astype(v.dtype) for k, v in run.params["model"].items()}
    run = run._replace(params={"model": params})
    size = config["batch"]
    return built, run, Batch(digits.train[:size], digits.train_labels[:size]), config, digits


def ours(name):
    """training step, sampling of 64 digits in 5 steps, and the loss and gradients of the step, by a backend."""
    built, run, batch, _, _ = system()
    ops = backend(name)
    player = built.players["model"]
    step = lambda: advance(built, run, batch, 0, ops)
    sample = lambda: built.sample(run.params, {}, 64, 0, ops, steps=5)
    loss, grads, *_ = player.loss_and_grads(run.params, {}, batch, fold(0, 1), ops)
    return step, sample, (float(loss), grads)


def theirs():
    """The same by PyTorch: diffusers' UNet2DModel with our parameters, AdamW, the average, the clip."""
    import torch
    from diffusers import UNet2DModel

    from refimpl.systems.prior import corruption, network

    _, run, batch, config, digits = system()
    settings = _unet_settings(network, config, digits)
    net = UNet2DModel(**settings)
    net.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in run.params["model"].items()})
    optimiser = torch.optim.AdamW(net.parameters(), lr=config["rate"], weight_decay=config["weight_decay"])
    average = [p.detach().clone() for p in net.parameters()]
    from refimpl import ops
    from refimpl.equations import schedules

    schedule = schedules.cosine(config["T"])
    signals = torch.from_numpy(np.sqrt(schedule.alpha_bar)).float()
    noises = torch.from_numpy(np.sqrt(1 - schedule.alpha_bar)).float()
    x, labels = torch.from_numpy(batch.x.copy()), torch.from_numpy(np.asarray(batch.labels)).long()

    def loss_of(t, eps, y):
        level = (slice(None), None, None, None)
        e = net(signals[t][level] * x + noises[t][level] * eps, t - 1, class_labels=y).sample
        return torch.nn.functional.mse_loss(e, eps)

    def step():
        t = torch.randint(1, config["T"] + 1, (len(x),))
        y = torch.where(torch.rand(len(x)) < config["label_dropout"], digits.classes, labels)
        optimiser.zero_grad(set_to_none=True)
        loss_of(t, torch.randn_like(x), y).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config["clip"])
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, [p.detach() for p in net.parameters()], 1 - config["ema"])

    @torch.no_grad()
    def sample():
        z, y = torch.randn(64, *digits.shape), torch.arange(64) % digits.classes
        times = schedules.timesteps(config["T"], 5, "trailing")
        for t, s in zip(times, [*times[1:], 0]):
            e = net(z, torch.full((64,), int(t) - 1), class_labels=y).sample
            x0 = ((z - noises[t] * e) / signals[t]).clamp(-1, 1)
            z = signals[s] * x0 + noises[s] * (z - signals[t] * x0) / noises[t]

    u, eps, y = corruption(fold(0, 1), batch, digits.classes, config["label_dropout"], ops)
    t = 1 + np.floor(config["T"] * u).astype(np.int64)
    loss = loss_of(torch.from_numpy(t), torch.from_numpy(eps), torch.from_numpy(y).long())
    loss.backward()
    return step, sample, (loss.item(), {k: p.grad.numpy().copy() for k, p in net.named_parameters()})


def _unet_settings(network, config, digits):
    """The U-Net's settings, as network() of the system hands them to unet_config."""
    from unittest import mock

    from refimpl.systems import prior

    with mock.patch.object(prior, "unet_config", side_effect=prior.unet_config) as spy:
        network(config, digits)
    return spy.call_args[0][0]


def rows(providers, rounds, say):
    """Rows of the training step and of sampling. Raises: Refused when a provider's gradients are wrong."""
    made = {}
    for name in providers:
        if name == "torch" and not (importlib.util.find_spec("torch") and importlib.util.find_spec("diffusers")):
            say("torch: PyTorch and diffusers are not installed")
        elif name in ("reference", "cpu"):
            made[name] = ours(name)
        elif name == "torch":
            made[name] = theirs()
    loss, grads = (made["reference"] if "reference" in made else ours("reference"))[2]
    scale = max(np.max(np.abs(g)) for g in grads.values())
    for name, (_, _, (other, theirs_)) in made.items():
        worst = max(float(np.max(np.abs(grads[k] - theirs_[k]))) for k in grads) / scale
        if not (worst <= TOLERANCE and abs(other - loss) <= TOLERANCE * abs(loss)):
            raise Refused(f"the U-Net's gradients by {name} are {worst:.1e} of the largest away from the reference's, "
                          f"so its step is not timed")
    for which, label in ((0, "training step"), (1, "sampling, 64 digits, 5 steps")):
        samples = clock.interleaved({name: m[which] for name, m in made.items()}, rounds)
        for name in made:
            time, low, high = clock.median(samples[name])
            row = {"operation": "unet", "sizes": label, "provider": name, "algorithm": "", "seconds": time, "low": low,
                   "high": high, "samples": samples[name].tolist()}
            for other in ("reference", "torch"):
                if other in made and other != name:
                    row[f"vs_{other}"] = clock.ratio(samples[other], samples[name])
            yield row
