"""Five ways to the same numbers, compared pairwise: NumPy, the CPU's kernels, Numba's PTX, the CUDA source, its PTX."""
import importlib.util
import itertools
import os
import shutil

import numpy as np
import pytest

from kernels import cuda, cupy, twins
from kernels.cases import SeededDraw, draw_case
from kernels.contract import Kernel, contracts, registered
from kernels.hostcuda import HostCudaError, compiled
from kernels.judge import call, expected
from kernels.versions import judged

THOROUGH = os.environ.get("REFIMPL_PROFILE") == "thorough"
QUICK = ("sampler_step", "group_norm")  # Numba takes seconds to compile a product
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the CPU model of CUDA needs g++")
CHOSEN = {"best", "vector", "tiled"}  # a backend's last version of these names is its best


def kernel_of(module, operation, place):
    """A backend's best version of an operation in float32, on a place."""
    v = [v for m in module.MODULES for v in m.VERSIONS if v.function.__name__ == operation and v.name in CHOSEN
         and "float32" in v.dtypes][-1]
    device = place()._replace(processors=132, chunk=64)
    return Kernel(operation, "cuda", v.algorithm, judged(v, device, "float32"), chain=v.chain, raw=False, version=v.name)


def ways(operation):
    """{name: kernel} of the ways that there are on this machine."""
    found = {"NumPy": next(k for k in registered("reference") if k.operation == operation and k.data == "float32"),
             "CUDA source": kernel_of(cupy, operation, cuda.host)}
    if ours := [k for k in registered("cpu") if k.operation == operation and not k.where and k.data == "float32"]:
        found["CPU"] = ours[-1]
    try:
        compiled.nvrtc()
        found["CUDA PTX"] = kernel_of(cupy, operation, cuda.compiled_host)
    except HostCudaError:
        pass
    if importlib.util.find_spec("numba_cuda") is not None:
        from kernels import numba_cuda

        found["Numba PTX"] = kernel_of(numba_cuda, operation, twins.host)
    return found


OPERATIONS = sorted({v.function.__name__ for m in cupy.MODULES for v in m.VERSIONS})


@pytest.mark.parametrize("operation", OPERATIONS)
def test_pairs_agree(operation):
    """Two results differ by no more than their two bounds, and on integers, where sums are exact, not at all."""
    if not THOROUGH and operation not in QUICK:
        pytest.skip("only in the thorough profile")
    contract, kernels = contracts()[operation], ways(operation)
    where = {"head": 16} if operation.startswith("attention") else {}
    compared = 0
    for family, seed in itertools.product(("normal", "integer", "spike"), range(8 if THOROUGH else 3)):
        case = draw_case(SeededDraw(seed), next(iter(kernels.values()))._replace(where=where), contract, family)
        wants = {name: expected(k, contract, case) for name, k in kernels.items()}
        got = {name: call(k, case, wants[name].outputs) for name, k in kernels.items()}
        for one, other in itertools.combinations(kernels, 2):
            slack = [contract.slack.get(wants[n].algorithm, (0,) * len(got[n])) for n in (one, other)]
            for i, (a, b) in enumerate(zip(got[one], got[other])):
                if a is None or b is None:
                    assert a is b, (one, other)
                    continue
                exact = family == "integer" and not slack[0][i] and not slack[1][i]
                room = 0 if exact else wants[one].bounds[i] + wants[other].bounds[i]
                apart = np.abs(a.astype(np.float64) - b)
                assert np.all(apart <= room), (one, other, contract.outputs[i], family, seed, float(np.max(apart - room)))
                compared += a.size
    assert compared > 0
    missing = {"NumPy", "CPU", "CUDA source", "CUDA PTX", "Numba PTX"} - set(kernels)
    if operation in ("sampler_step", "group_norm", "conv2d", "attention"):
        assert "CPU" in kernels and missing <= {"CUDA PTX", "Numba PTX"}, missing
