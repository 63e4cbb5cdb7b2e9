"""Trajectories of a diffusers scheduler and of ours, from one start, one noise and one exact denoiser.

The reference runs in float64 on the peer's own noise levels; the peer in float32. Where a peer follows another
convention, the adapter here does so too and says it in one sentence: the reference stays the paper's.
"""
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from refimpl import ops  # noqa: E402
from refimpl.equations import (  # noqa: E402
    continuous,
    diffusion,
    mixture,
    samplers,
    schedules,
)

RNG = np.random.default_rng(7)
MIXTURE = mixture.mixture(np.full(4, 0.25), 0.8 * RNG.standard_normal((4, 12)), 0.05)
START = RNG.standard_normal((3, 12))
SHAPE = (3, 3, 2, 2)  # what the peers are shown: they ask for images
NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


def tensor(a):
    return torch.tensor(np.asarray(a, dtype=np.float32).reshape(SHAPE))


def array(t):
    return t.numpy().astype(np.float64).reshape(START.shape)


def predict(prediction):
    """The exact network for any prediction, at any level."""
    def network(x, signal, noise):
        x0_hat = mixture.mixture_denoiser(x, MIXTURE, signal, noise)
        return diffusion.convert(x0_hat, x, signal, noise, "x0", prediction)

    return network


def rows(sigmas, family="vp"):
    """Levels of noise/signal ratios in a family: the peers keep them in float32."""
    sigmas = np.asarray(sigmas, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.stack(continuous.level_of_log_snr(-2 * np.log(sigmas), family), axis=1)


def table(scheduler):
    """The peer's schedule as ours: its t counts from 0, its products are float32."""
    alpha_bar = scheduler.alphas_cumprod.numpy().astype(np.float64)
    return schedules.from_beta(1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]]))


def theirs(scheduler, x, network, level_of_step, noise_seed=0, every=1, **options):
    """The peer's trajectory; level_of_step(k) is the level at its k-th evaluation, input scaling included."""
    states, x = [], tensor(x)
    generator = torch.Generator().manual_seed(noise_seed)
    if "generator" in scheduler.step.__code__.co_varnames:
        options["generator"] = generator
    for k, t in enumerate(scheduler.timesteps):
        level = level_of_step(k)
        e = network(array(scheduler.scale_model_input(x, t)), *level)
        shape = (SHAPE[0], -1, *SHAPE[2:])
        x = scheduler.step(torch.tensor(e.astype(np.float32)).reshape(shape), t, x, **options).prev_sample
        states.append(array(x))
    return states[every - 1::every]


def peer_noise(seed=0):
    """The normals that a peer draws, in its order."""
    generator = torch.Generator().manual_seed(seed)
    return lambda draw: array(torch.randn(SHAPE, generator=generator))


def ours(levels, rule, x, prediction="eps", network=None, **options):
    states = []
    options.setdefault("noise", peer_noise())
    samplers.sample(network or predict(prediction), np.asarray(x, dtype=np.float32).astype(np.float64), levels, rule,
                    ops=ops, prediction=prediction, after=lambda i, x, _: states.append(x), **options)
    return states


def agree(a, b, tolerance=1e-4):
    assert len(a) == len(b)
    scale = max(np.max(abs(x)) for x in b)
    error = max(np.max(abs(x - y)) for x, y in zip(a, b)) / scale
    assert error <= tolerance, f"{error:.1e} of the largest value"
