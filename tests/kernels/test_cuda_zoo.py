"""Every broken CUDA kernel is caught, by the checker or by the contract, for what is wrong with it."""
import re

import numpy as np
import pytest
from cuda_zoo import ZOO

from kernels import cuda, cupy
from kernels import verify as verdicts
from kernels.contract import Kernel
from kernels.hostcuda import HostCudaError, RawModule
from kernels.versions import judged

VERSIONS = {(v.function.__name__, v.name, t): v for m in cupy.MODULES for v in m.VERSIONS for t in v.dtypes}


def edited(edits, launch, tried):
    """The CPU model as a Device whose sources have texts exchanged, and whose launches are edited."""
    modules = {}

    def find(path, name):
        if (path, name) not in modules:
            code = cuda.source(path)
            for old, new in edits:
                tried.add((old, old in code))
                code = code.replace(old, new)
            names = {"name_expressions": [name]} if "<" in name else {}
            modules[path, name] = RawModule(code=code, time_limit=5, **names).get_function(name)
        function = modules[path, name]

        def call(grid, block, args, shared_mem=0):
            function(*(launch(grid, block, args, shared_mem) if launch else (grid, block, args, shared_mem)))

        return call

    return cuda.Device("host", np, 132, find, chunk=64)


def kernel_on(device, operation, version, dtype, where=None):
    v = VERSIONS[operation, version, dtype]
    return Kernel(operation, "zoo", v.algorithm, judged(v, device, dtype), "float32", dtype, v.chain, raw=False,
                  where=v.where | (where or {}) | {"large": False}, version=version)


@pytest.fixture(autouse=True)
def short_shrinking(monkeypatch):
    monkeypatch.setattr(verdicts, "SHRINKING", 0.3)


@pytest.mark.parametrize("broken", ZOO, ids=[z.name for z in ZOO])
def test_broken_kernel_is_caught(broken):
    tried = set()
    device = edited(broken.edits, broken.launch, tried)
    verdict = verdicts.verify(kernel_on(device, broken.operation, broken.version, broken.dtype, broken.where), examples=60)
    assert {old for old, hit in tried if hit} == {old for old, _ in broken.edits}, "an edit has nothing to edit"
    assert not verdict.passed, f"not found: {broken.defect}"
    defect = verdict.failure.defect
    assert re.search(broken.found, f"{defect.kind}: {defect}"), f"{broken.defect}: found as {defect.kind}: {defect}"
    print("caught by", "checker" if isinstance(defect.__cause__, HostCudaError) else "contract", f"{defect.kind}: {defect}"[:160])
