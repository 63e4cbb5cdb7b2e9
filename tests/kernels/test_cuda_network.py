"""The glue as well as the kernels: a U-Net that trains and samples on the CUDA backends, and never leaves the device."""
import importlib.util
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from real_gpu import needs_gpu
from strict import StrictArray, to_device, to_host
from strict_device import strict_device

import kernels
from kernels import cuda, cupy, versions
from refimpl import ops, systems
from refimpl.train import Batch, begin

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the CPU model of CUDA needs g++")
DATA = SimpleNamespace(shape=(1, 8, 8), classes=3, spec="toy", levels=None, train=np.zeros((4, 1, 8, 8), np.float32))
TINY = {"channels": 8, "multipliers": [1, 2], "attention": [4], "layers": 1, "batch": 3, "T": 50}


@pytest.fixture(scope="module")
def tiny():
    """A system, its parameters with something to do in every layer, and a batch."""
    system = systems.build("ddpm", systems.configure("ddpm", DATA, TINY), DATA)
    rng = np.random.default_rng(0)
    params = {k: (v + 0.05 * rng.standard_normal(v.shape)).astype(np.float32)
              for k, v in begin(system, 0).params["model"].items()}
    batch = Batch(rng.standard_normal((3, 1, 8, 8), dtype=np.float32), np.array([0, 2, 1]))
    return system, {"model": params}, batch


def step_and_sample(tiny, namespace):
    """Loss and gradients of a training step, and two samples drawn in three steps, one of them guided."""
    system, params, batch = tiny
    loss, grads, *_ = system.players["model"].loss_and_grads(params, {}, batch, 5, namespace)
    return loss, grads, system.sample(params, {}, 2, 7, namespace, np.array([1, 2]), steps=3, guidance=0.5, eta=1.0)


def close(got, want):
    """Within float32's roundings through some thirty layers, relative to the largest number of the kind."""
    loss, grads, x = want
    assert abs(float(got[0]) - float(loss)) <= 1e-5 * abs(float(loss))
    largest = max(np.max(np.abs(g)) for g in grads.values())
    for name, g in grads.items():
        assert np.max(np.abs(got[1][name] - g)) <= 2e-5 * largest, name
    assert np.max(np.abs(got[2] - x)) <= 1e-4


@pytest.mark.parametrize("backend", ["cupy", "numba_cuda"])
def test_a_unet_trains_and_samples_as_the_reference_does(tiny, backend):
    if backend == "numba_cuda" and importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed: extra cuda-check")
    close(step_and_sample(tiny, kernels.backend(backend, "host")), step_and_sample(tiny, ops))


@needs_gpu
@pytest.mark.parametrize("backend", ["cupy", "numba_cuda"])
def test_a_unet_trains_and_samples_on_the_gpu(tiny, backend):
    space, (system, params, batch) = kernels.backend(backend), tiny
    there = {"model": {k: space.to_device(v) for k, v in params["model"].items()}}
    loss, grads, x = step_and_sample((system, there, batch._replace(x=space.to_device(batch.x))), space)
    close((float(loss), {k: space.to_host(g) for k, g in grads.items()}, space.to_host(x)), step_and_sample(tiny, ops))


@needs_gpu
def test_the_current_stream_is_used_and_torch_shares_the_memory():
    xp, space = cuda.array_module(), kernels.backend("cupy")
    x = np.random.default_rng(0).standard_normal((2, 4, 8, 8), dtype=np.float32)
    with xp.cuda.Stream(non_blocking=True) as stream:
        y = space.group_norm(space.to_device(x), None, None, 2)
        stream.synchronize()
    assert np.max(np.abs(y.get() - ops.group_norm(x, None, None, 2))) < 1e-5
    torch = pytest.importorskip("torch")
    shared = torch.from_dlpack(y)
    shared.zero_()
    torch.cuda.synchronize()
    assert not np.any(y.get())


def test_nothing_leaves_the_device(tiny):
    """Arrays that refuse NumPy go through the same network, and come out with the same bits as NumPy's."""
    device = strict_device()
    functions = [f for module in cupy.MODULES for f in module.FUNCTIONS]
    namespace = SimpleNamespace(**{n: f for n, f in vars(ops).items() if not n.startswith("_")}
                                | versions.namespace(device, functions))
    system, params, batch = tiny
    on_device = system, to_device(params), batch._replace(x=StrictArray(batch.x))
    loss, grads, x = step_and_sample(on_device, namespace)
    assert all(isinstance(a, StrictArray) for a in (x, *grads.values()))
    want = step_and_sample(tiny, kernels.backend("cupy", "host"))
    assert float(loss) == float(want[0]) and np.array_equal(to_host(x), want[2])
    for name, g in want[1].items():
        assert np.array_equal(to_host(grads[name]), g), name


def test_host_arrays_are_refused_in_one_sentence():
    functions = [f for module in cupy.MODULES for f in module.FUNCTIONS]
    space = SimpleNamespace(**versions.namespace(strict_device(), functions))
    x, w = np.ones((1, 2, 4, 4), np.float32), np.ones((3, 2, 3, 3), np.float32)
    for call in (lambda: space.conv2d(x, StrictArray(w)), lambda: space.conv2d(StrictArray(x), w),
                 lambda: space.silu(x), lambda: space.q_sample(StrictArray(x), 1.0, 1.0, x),
                 lambda: space.sampler_step(StrictArray(x), x, a=1.0, b=1.0)):
        with pytest.raises(TypeError, match=r"is a NumPy array, but this backend works on strict arrays: move it expl"):
            call()
    with pytest.raises(TypeError, match="x is a strict.StrictArray, but this backend works on numpy arrays"):
        kernels.backend("cupy", "host").conv2d(StrictArray(x), StrictArray(w))


def test_what_the_kernels_do_not_take_the_reference_does():
    """Other dtypes, heads and histories too large, wrong shapes: the same results, the same sentences."""
    space, rng = kernels.backend("cupy", "host"), np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 5, 5))
    assert np.array_equal(space.group_norm(x, None, None, 2), ops.group_norm(x, None, None, 2))
    q = rng.standard_normal((1, 1, 3, 130)).astype(np.float32)
    assert np.array_equal(space.attention(q, q, q), ops.attention(q, q, q))
    history, e = [x] * 4, x.astype(np.float32)
    assert np.array_equal(space.sampler_step(e, e, a=1, b=1, history=[e] * 4, c_h=[1] * 4)[0],
                          ops.sampler_step(e, e, a=1, b=1, history=[e] * 4, c_h=[1] * 4)[0])
    complex_x = x + 1e-30j
    assert np.array_equal(space.conv2d(complex_x, complex_x[:, :, :3, :3]), ops.conv2d(complex_x, complex_x[:, :, :3, :3]))
    for bad in (lambda s: s.conv2d(e, e[:, :3]), lambda s: s.group_norm(e, None, None, 3), lambda s: s.attention(e, e[:1], e),
                lambda s: s.q_sample(e, 1, 1, e[:1]), lambda s: s.sampler_step(e, e, a=1, b=1, lo=1, hi=-1),
                lambda s: s.noise_mse(e, e[:1]), lambda s: s.conv2d(e, x)):
        with pytest.raises((ValueError, TypeError)) as ours:
            bad(space)
        with pytest.raises(type(ours.value)) as theirs:
            bad(ops)
        assert str(ours.value) == str(theirs.value)
    assert len(history) == 4


def test_backends_and_devices_by_name():
    assert kernels.backend("cupy:host").__name__ == kernels.backend("cupy", "host").__name__ == "cupy:host"
    for name, device in (("cpu", "host"), ("reference", "gpu"), ("cupy", "tpu")):
        with pytest.raises(ValueError, match="device must be gpu or host with backend numba_cuda or cupy"):
            kernels.backend(name, device)


def test_a_missing_gpu_is_one_sentence(monkeypatch):
    class Error(RuntimeError):
        pass

    def count():
        raise Error("cudaErrorInsufficientDriver")

    fake = SimpleNamespace(cuda=SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count, CUDARuntimeError=Error)))
    monkeypatch.setitem(__import__("sys").modules, "cupy", fake)
    with pytest.raises(ImportError, match=r"CuPy finds no usable GPU \(cudaErrorInsufficientDriver\); device 'host' runs"):
        cuda.array_module()
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(ImportError, match=r"CuPy is not installed: pip install 'refimpl-diffusion-gan\[cuda13\]'"):
        cuda.array_module()
