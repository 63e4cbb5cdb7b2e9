"""k-diffusion's samplers in float64 from one start, one noise and one exact denoiser: the ends agree to 1e-9.

Its package imports much that its samplers do not need, so only its sampling.py is loaded:
pip install --no-deps k-diffusion torchdiffeq torchsde trampoline boltons
"""
import importlib.machinery
import importlib.util
import inspect
import sys
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from refimpl import ops  # noqa: E402
from refimpl.equations import continuous, mixture, multistep, samplers, solvers  # noqa: E402


def load():
    """k_diffusion.sampling without its package's __init__, or None where it is not installed."""
    spec = importlib.machinery.PathFinder.find_spec("k_diffusion")
    if spec is None or importlib.util.find_spec("torchsde") is None or importlib.util.find_spec("torchdiffeq") is None:
        return None
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__, package.utils = list(spec.submodule_search_locations), utils
    utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
    before = {name: sys.modules.get(name) for name in ("k_diffusion", "k_diffusion.utils")}
    sys.modules.update({"k_diffusion": package, "k_diffusion.utils": utils})
    try:
        return importlib.import_module("k_diffusion.sampling")
    finally:
        for name, module in before.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})


sampling = load()
pytestmark = pytest.mark.skipif(sampling is None, reason="needs k-diffusion without the packages that its "
                                "training asks for: see the first lines of this file")

RNG = np.random.default_rng(3)
MIXTURE = mixture.mixture(np.full(3, 1 / 3), RNG.standard_normal((3, 6)), 0.1)
LEVELS = continuous.karras_levels(14, 0.05, 20.0)
START = 20 * RNG.standard_normal((4, 6))


def predict(x, signal, noise):
    return mixture.mixture_denoiser(x, MIXTURE, signal, noise)


def theirs(name, **options):
    noise = np.random.default_rng(5)

    def model(x, sigma):
        return torch.tensor(predict(x.numpy(), 1.0, float(sigma[0])))

    function = getattr(sampling, f"sample_{name}")
    if "noise_sampler" in inspect.signature(function).parameters:
        options["noise_sampler"] = lambda *_: torch.tensor(noise.standard_normal(START.shape))
    return function(model, torch.tensor(START), torch.tensor(LEVELS[:, 1]), disable=True, **options).numpy()


def ours(rule):
    noise = np.random.default_rng(5)
    return samplers.sample(predict, START, LEVELS, rule, ops=ops, prediction="x0",
                           noise=lambda draw: noise.standard_normal(START.shape))


CASES = {
    "euler": (solvers.euler(), {}),
    "heun": (solvers.heun(), {}),
    "dpm_2": (solvers.dpm_solver(2, "ve"), {}),
    "dpmpp_2m": (multistep.dpm_solver_pp(2, lower_last=False), {}),
    "euler_ancestral": (solvers.ancestral(solvers.euler(), 0.7), {"eta": 0.7}),
    "dpm_2_ancestral": (solvers.ancestral(solvers.dpm_solver(2, "ve")), {}),
    "dpmpp_2s_ancestral": (solvers.ancestral(solvers.dpm_solver_pp_2s("ve"), 0.6), {"eta": 0.6}),
    "dpmpp_sde": (solvers.dpm_solver_pp_2s("ve", 0.8), {"eta": 0.8}),
    "dpmpp_2m_sde": (multistep.dpm_solver_pp(2, eta=0.5, lower_last=False), {"eta": 0.5}),
    "dpmpp_2m_sde heun": (multistep.dpm_solver_pp(2, "heun", 1.0, lower_last=False), {"solver_type": "heun"}),
    # like its authors' code, it gives the second difference half its weight
    "dpmpp_3m_sde": (multistep.dpm_solver_pp(3, "heun", 0.9, lower_last=False, halved=True), {"eta": 0.9}),
}


@pytest.mark.parametrize("name", CASES)
def test_trajectory_ends(name):
    rule, options = CASES[name]
    a, b = ours(rule), theirs(name.split()[0], **options)
    assert np.max(abs(a - b)) <= 1e-9 * np.max(abs(b))


def test_churn():
    """It draws noise at every step, raised or not, from torch's global generator."""
    torch.manual_seed(1)
    b = theirs("heun", s_churn=5.0, s_tmin=0.1, s_tmax=10.0, s_noise=1.01)
    torch.manual_seed(1)
    noises = [torch.randn(START.shape, dtype=torch.float64).numpy() for _ in range(len(LEVELS) - 1)]
    raised = iter([z for z, (_, sigma) in zip(noises, LEVELS) if 0.1 <= sigma <= 10.0])
    a = samplers.sample(predict, START, LEVELS, solvers.heun(5.0, 0.1, 10.0, 1.01), ops=ops, prediction="x0",
                        noise=lambda draw: next(raised))
    assert np.max(abs(a - b)) <= 1e-9 * np.max(abs(b))


def test_vp_schedule():
    n = 12
    sigmas = sampling.get_sigmas_vp(n).numpy()
    levels = continuous.path_levels(continuous.vp_level, n, 1e-3)
    np.testing.assert_allclose(sigmas[:-1], levels[:-1, 1] / levels[:-1, 0], rtol=1e-3)  # exp(.) - 1 in float32
