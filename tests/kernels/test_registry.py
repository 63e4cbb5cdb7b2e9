"""Every kernel that works on this machine against its contract, and its worst share against its committed ceiling."""
import ast
import inspect
import os
import re
from pathlib import Path

import pytest

from kernels import BACKENDS, backend
from kernels.contract import CONTRACTS, contracts, registered
from kernels.shares import ceilings
from kernels.verify import verify
from refimpl import ops

THOROUGH = os.environ.get("REFIMPL_PROFILE") == "thorough"
CEILINGS = ceilings()


def here(name):
    """Kernels of a backend, none where it cannot be used; in the quick profile float64 of the reference is left out."""
    try:
        backend(name)
    except ImportError:
        return []
    return [k for k in registered(name) if THOROUGH or name != "reference" or k.data == "float32"]


def test_an_installed_copy_has_every_file_that_the_code_reads():
    root = Path(__file__).parents[2]
    patterns = ast.literal_eval(re.search(r'package_data=\{"kernels": (\[.*?\])\}', (root / "setup.py").read_text())[1])
    kinds = {p.suffix for p in (root / "kernels").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert kinds - {".py", ".md"} == {Path(p).suffix for p in patterns}


# CUDA kernels have tests of their own: they run on a GPU or on the model of one.
KERNELS = [k for name in ("reference", "cpu") for k in here(name)]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.label)
def test_kernel_meets_its_contract_below_its_ceiling(kernel):
    verdict = verify(kernel, 100 if THOROUGH else 10)
    assert verdict.passed, verdict.failure
    assert kernel.label in CEILINGS, "no ceiling is committed: run python -m kernels shares"
    assert verdict.share <= CEILINGS[kernel.label]


def namespace_kernels():
    """The cpu namespace's own functions, which check, allocate and choose: judged as a user calls them."""
    raw = {k.operation: k for k in reversed(here("cpu")) if k.raw}
    return [k._replace(function=getattr(backend("cpu"), name), raw=False) for name, k in raw.items()
            if not any(other.operation == name and not other.raw for other in here("cpu"))]


@pytest.mark.parametrize("kernel", namespace_kernels(), ids=lambda k: k.label)
def test_namespace_function_meets_the_contract_too(kernel):
    verdict = verify(kernel, 100 if THOROUGH else 8, seed=3)
    assert verdict.passed, verdict.failure


def test_labels_are_unique():
    labels = [k.label for k in KERNELS]
    assert len(set(labels)) == len(labels)


def test_every_ceiling_belongs_to_a_kernel_or_an_absent_backend():
    labels, absent = {k.label for n in ("reference", "cpu") for k in registered(n)}, {"numba_cuda", "cupy"}
    assert all(label in labels or label.split("/")[1] in absent for label in CEILINGS)
    assert all(0 < c < 1 for c in CEILINGS.values())


@pytest.mark.parametrize("operation", contracts())
def test_contract_is_complete(operation):
    contract = CONTRACTS[operation]
    assert contract.reference is getattr(ops, operation) and contract.outputs and contract.families
    assert "direct" in contract.bounds and operation.removesuffix("_vjp") in CONTRACTS
    assert f"{operation.removesuffix('_vjp')}_vjp" in CONTRACTS, "each vjp is a contract of its own"
    assert all(f.__doc__ for f in (contract.flops, contract.bytes, contract.slices))


@pytest.mark.parametrize("name", ["cpu"])
def test_a_namespace_has_the_reference_s_functions_with_their_signatures(name):
    try:
        namespace = backend(name)
    except ImportError as error:
        pytest.skip(str(error))
    for function in (n for n in vars(ops) if not n.startswith("_")):
        theirs = getattr(ops, function)
        if inspect.isfunction(theirs):
            mine = getattr(namespace, function)
            assert list(inspect.signature(mine).parameters) == list(inspect.signature(theirs).parameters), function


def test_backends_are_asked_for_by_name():
    assert backend("reference") is ops and backend("cpu") is backend("cpu")
    with pytest.raises(ValueError, match=f"one of {', '.join(BACKENDS)}, got 'tpu'"):
        backend("tpu")
