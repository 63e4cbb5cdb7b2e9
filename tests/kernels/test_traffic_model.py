"""Element-wise kernels and group norm move what the contract's model says, 1.1 times at most, whatever the sizes."""
import functools
import math
import shutil

import numpy as np
import pytest

from kernels import budgets, cuda
from kernels.contract import contracts
from kernels.group_norm.cupy_cuda import arrays_moved, group_norm, group_norm_vjp, kept
from kernels.hostcuda import HostCudaError, compiled
from kernels.noise_mse.cupy_cuda import noise_mse, noise_mse_vjp
from kernels.q_sample.cupy_cuda import q_sample
from kernels.sampler_step.cupy_cuda import sampler_step
from refimpl import ops


def missing():
    """Why nothing can be compiled and executed here, or None."""
    try:
        compiled.nvrtc()
    except HostCudaError as error:
        return str(error)
    return None if shutil.which("g++") else "the CPU model of CUDA needs g++"


needs_compiler = pytest.mark.skipif(missing() is not None, reason=str(missing()))
SHARED = {arch: limit.shared - (compiled.RESERVED if arch >= 80 else 0) for arch, limit in compiled.LIMITS.items()}
STEP = dict(a=1.25, b=-0.75, lo=-1.0, hi=1.0, c_x=0.3, c_0=0.7, c_e=0.0)


def made(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape, dtype=np.float32)


def called(function, args, options, device):
    return function(device, *args, **options)


def steps(*shape):
    """Calls of the element-wise kernels for a batch: noise none, given and formed inside; guidance and history."""
    x, key = made(*shape), (7, np.arange(shape[0]), 3)
    return {"step": (sampler_step, (x, x + 1), STEP), "step given": (sampler_step, (x, x + 1), STEP | {"z": x, "sigma": 0.1}),
            "step formed": (sampler_step, (x, x + 1), STEP | {"z": key, "sigma": 0.1}),
            "step guided": (sampler_step, (x, x + 1, x + 2, 2.0), STEP | {
                "z": key, "sigma": 0.1, "history": (x + 3, x + 4), "c_h": (0.5, 0.25), "lo": np.full(shape[0], -1.0)}),
            "q given": (q_sample, (x, 0.8, 0.6, x + 1), {}), "q formed": (q_sample, (x, 0.8, 0.6, key), {}),
            "mse given": (noise_mse, (x, x + 1), {}), "mse formed": (noise_mse, (x, key), {}),
            "mse_vjp given": (noise_mse_vjp, (made(shape[0]), x, x + 1), {}),
            "mse_vjp formed": (noise_mse_vjp, (made(shape[0]), x, key), {})}


def least(function, args, options):
    full = args if function is not sampler_step or len(args) == 4 else (*args, None, 1.0)
    return contracts()[function.__name__].bytes(full, options)


@needs_compiler
@pytest.mark.parametrize("name", steps(1, 1))
@pytest.mark.parametrize("shape", [(8, 3, 31, 31), (2, 3, 47, 53)], ids=str)
def test_samples_that_do_not_start_on_a_sector(shape, name):
    call = steps(*shape)[name]
    found = budgets.counted(functools.partial(called, *call), least(*call))
    assert found["traffic"] <= 1.1 and found["sectors"] <= 1.02 and found["bank conflicts"] <= 2, found


@needs_compiler
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 9, 105, 2883])
def test_banks_of_the_shared_noise(size):
    call = q_sample, (made(600 if size < 10 else 8, size), 0.8, 0.6, (7, np.arange(600 if size < 10 else 8), 3)), {}
    assert budgets.counted(functools.partial(called, *call), 1)["bank conflicts"] <= 2


REGIMES = [(75, 1, 44, 1), (75, 1, 60, 1), (75, 1, 72, 0), (75, 2, 44, 2), (75, 2, 60, 1), (75, 2, 72, 0), (75, 2, 47, 1),
           (80, 2, 100, 1), (120, 2, 76, 1), (90, 1, 120, 1), (90, 1, 124, 0), (90, 2, 84, 2), (90, 2, 120, 1), (90, 2, 124, 0)]


@needs_compiler
@pytest.mark.parametrize("arch, inputs, side, held", REGIMES)
def test_groups_that_an_architecture_holds_or_does_not(arch, inputs, side, held):
    """The launcher keeps what it can, and what moves is the model of that, neither less nor 1.1 times as much."""
    x, affine = made(1, 4, side, side), made(4)
    function, args = (group_norm, ()) if inputs == 1 else (group_norm_vjp, (x + 1,))
    assert kept(inputs, x.size, SHARED[arch]) == held
    args, results = (*args, x, affine, affine, 1), []
    found = budgets.counted(lambda device: results.append(function(device, *args, silu=True)),
                            arrays_moved(inputs, held) * x.nbytes, SHARED[arch])
    assert 1 <= found["traffic"] <= 1.1 and found["sectors"] <= 1.02 and found["bank conflicts"] <= 2, found
    wide = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in args]
    wanted = ops.group_norm(*wide, silu=True) if inputs == 1 else ops.group_norm_vjp(*wide, silu=True)[0]
    assert np.max(np.abs((results[0] if inputs == 1 else results[0][0]) - wanted)) < 1e-5


def test_the_model_of_group_norm():
    assert [arrays_moved(1, held) for held in (1, 0)] == [2, 3]
    assert [arrays_moved(2, held) for held in (2, 1, 0)] == [3, 4, 6]
    for name, inputs in (("group_norm", 1), ("group_norm_vjp", 2)):  # where everything is kept it is the contract's
        x = made(1, 4, 8, 8)
        assert contracts()[name].bytes((x,) * inputs + (None, None, 1), {}) == arrays_moved(inputs, inputs) * x.nbytes


@pytest.mark.skipif(shutil.which("g++") is None, reason="the CPU model of CUDA needs g++")
@pytest.mark.parametrize("shape", [(3, 1), (5, 2), (3, 3), (700, 5), (3, 3, 31, 31), (1, 95, 97)], ids=str)
def test_noise_in_runs_of_blocks_is_that_of_single_elements(shape):
    """Bit for bit the noise of the naive kernel, whose threads each form their own; the loss and its gradient likewise."""
    device, key = cuda.host(), (2**63 + 5, np.arange(shape[0]) + 2**31, 2**32 - 1)
    x = np.zeros(shape, np.float32)
    noise = {v: q_sample(device, x, 0.0, 1.0, key, version=v) for v in ("naive", "vector")}
    assert (noise["naive"] == noise["vector"]).all()
    stepped = sampler_step(device, x, x, **STEP | {"lo": None, "hi": None}, z=key, sigma=1.0)
    assert (stepped[0] == noise["naive"]).all() and not stepped[1].any()
    size = math.prod(shape[1:])
    assert np.allclose(noise_mse(device, x, key), np.mean(noise["naive"].reshape(-1, size).astype(float) ** 2, 1), rtol=1e-5)
    de, _ = noise_mse_vjp(device, np.full(shape[0], size / 2, np.float32), x, key)
    assert np.allclose(de, -noise["naive"], rtol=1e-6)
    assert np.allclose(noise["naive"], ops.normal(key[0], key[1], key[2], shape[1:]), atol=1e-5)
