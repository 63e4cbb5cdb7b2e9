"""The best CUDA kernels keep their budgets: compiled for every architecture, and counted by executing their PTX."""
import os
import shutil
from pathlib import Path

import pytest

from kernels import budgets, cuda
from kernels.hostcuda import HostCudaError, compiled

THOROUGH = os.environ.get("REFIMPL_PROFILE") == "thorough"
QUICK = {"sampler_step best", "sampler_step best, odd", "group_norm best", "group_norm best, odd", "conv2d best",
         "attention best"}


def missing():
    """Why nothing can be compiled here, or None."""
    try:
        compiled.nvrtc(), compiled.cuobjdump()
    except HostCudaError as error:
        return str(error)


needs_nvrtc = pytest.mark.skipif(missing() is not None, reason=str(missing()))
TABLE = budgets.committed()
FILES = sorted({path for call, *_ in budgets.calls().values() for path, *_ in budgets.launches(call)})  # quick: every second
ARCHITECTURES = compiled.ARCHITECTURES


@needs_nvrtc
@pytest.mark.parametrize("arch", compiled.ARCHITECTURES)
def test_compiled_for(arch):
    """No spills, no float64 instruction, and no more registers, shared memory or instructions than the table has."""
    found = budgets.needs(arch, None if THOROUGH else FILES[ARCHITECTURES.index(arch) % 2::2])
    assert set(found) == set(TABLE["kernels"]) or not THOROUGH
    over = [f"{name}: {text}" for name, n in found.items() for text in budgets.exceeded(n, TABLE["kernels"][name][str(arch)])]
    assert not over, "\n".join(over)


TYPES = ("float", "__half", "__nv_bfloat16")


def instances():
    """{file: every instance of its best kernels that a launcher can ask for}, tensor cores last."""
    products = {k: ", ".join(map(str, tile)) for k, tile in cuda.PRODUCTS.items() if k != "tiled"}
    of = lambda kernel, d: f"{d}, {', '.join(map(str, cuda.heads(kernel, 'best', d)))}"
    return {
        "conv2d/conv2d.cu": [f"conv2d_tiled<{t}, {p}>" for t in TYPES for p in products.values()] + [
            f"conv2d_wmma<{t}>" for t in TYPES[1:]],
        "conv2d/conv2d_vjp.cu": [f"conv2d_{k}_tiled<{t}, {p}>" for t in TYPES for p in products.values() for k in ("dx", "dw")],
        "attention/attention.cu": [f"attention_best<{t}, {o}, {of('attention', d)}>" for t in TYPES for o in {t, "float"}
                                   for d in cuda.HEADS] + [f"attention_wmma<{t}, {t}, {d}>" for t in TYPES[1:]
                                                           for d in cuda.HEADS],
        "attention/attention_vjp.cu": [f"attention_{k}_tiled<{t}, {of(f'attention_{k}', d)}>" for t in TYPES
                                       for d in cuda.HEADS for k in ("dq", "dkv")],
        "group_norm/group_norm.cu": [f"group_norm_{k}<{v}>" for k in ("best", "partial", "apply") for v in (1, 4)],
        "group_norm/group_norm_vjp.cu": [f"group_norm_vjp_{k}" for v in (1, 4) for k in (
            f"best<{v}, 1>", f"best<{v}, 2>", f"shares<{v}>", f"apply<{v}>")],
        "sampler_step/sampler_step.cu": [f"sampler_step_vector<{n}>" for n in cuda.QUADS.values()]}


@needs_nvrtc
@pytest.mark.skipif(not THOROUGH, reason="only in the thorough profile")
@pytest.mark.parametrize("arch", compiled.ARCHITECTURES)
@pytest.mark.parametrize("path", instances())
def test_no_instance_spills(path, arch):
    """Every element type, head size and tile. (Turing has no tensor cores for bfloat16.)"""
    names = [n for n in instances()[path] if arch > 75 or "wmma<__nv" not in n]
    cubin, lowered = compiled.compile_cuda(cuda.source(path), names, arch, name=Path(path).name)
    found = compiled.needs(cubin, arch)
    assert not {n: found[low] for n, low in zip(names, lowered) if found[low].stack or found[low].instructions.get("float64")}


@needs_nvrtc
@pytest.mark.skipif(not THOROUGH, reason="only in the thorough profile: Numba takes a minute")
def test_numba_twins_compile_without_float64():
    found = budgets.twin_needs()
    assert set(found) == set(TABLE["twins"])
    over = [f"{name}: {text}" for name, n in found.items() for text in budgets.exceeded(n, TABLE["twins"][name]["90"])]
    assert not over, "\n".join(over)


@needs_nvrtc
@pytest.mark.skipif(shutil.which("g++") is None, reason="the CPU model of CUDA needs g++")
@pytest.mark.parametrize("name", budgets.calls())
def test_counted(name):
    """Bytes against the contract's model or the tiles', sectors, bank conflicts: as few as promised, and as the table says."""
    if not THOROUGH and name not in QUICK:
        pytest.skip("only in the thorough profile")
    found = budgets.moves(name)
    assert all(found[k] <= 1.01 * v for k, v in TABLE["calls"][name].items()), (found, TABLE["calls"][name])


def test_the_table_keeps_what_is_promised():
    for kernel, by_arch in TABLE["kernels"].items():
        assert set(by_arch) == {str(a) for a in compiled.ARCHITECTURES}
        for n in by_arch.values():
            assert n["spills"] == 0 and n["float64"] == 0, kernel
    assert all(n["float64"] == 0 for by_arch in TABLE["twins"].values() for n in by_arch.values())
    assert set(TABLE["calls"]) == set(budgets.calls())
    for name, (_, _, room) in budgets.calls().items():
        moved = TABLE["calls"][name]
        assert moved["traffic"] <= room and moved["sectors"] <= 1.25 and moved["bank conflicts"] <= 2, name


def test_the_table_names_every_best_kernel_with_its_wide_accesses():
    wide = {k for call, *_ in budgets.calls().values() for _, k, *_ in budgets.launches(call)
            if not k.endswith("_sum") and not k.startswith(("attention_delta", "conv2d_db", "conv2d_sum"))
            and "best<1" not in k}  # of group norm, where rows do not start on 16 bytes
    for kernel in wide:
        for arch, n in TABLE["kernels"][kernel].items():
            assert n["global 16 bytes"] + n["shared 16 bytes"] > 0, (kernel, arch)
            assert n["tensor"] > 0 or "wmma" not in kernel, (kernel, arch)


@pytest.mark.parametrize("change", [{"registers": 1.2}, {"instructions": 1.2}, {"occupancy": 0.8}], ids=str)
def test_more_than_the_budget_is_a_sentence(change):
    budget = TABLE["kernels"]["conv2d_tiled<float, 128, 64, 8, 8, 8, 2>"]["80"]
    (what, factor), = change.items()
    assert not list(budgets.exceeded(budget, budget))
    sentence, = budgets.exceeded(budget | {what: factor * budget[what]}, budget)
    assert sentence.startswith(what)
    for what in ("spills", "float64"):
        assert list(budgets.exceeded(budget | {what: 1}, budget)) == [f"{what}: 1, the budget is 0"]
    assert list(budgets.exceeded(budget | {"shared 16 bytes": 0}, budget))


def test_the_readme_shows_the_table():
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert budgets.markdown(TABLE) in text, "paste what `python -m kernels budgets` prints"


NVCC = ["sampler_step/sampler_step.cu", "group_norm/group_norm.cu", "conv2d/conv2d.cu", "attention/attention.cu"]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("path", NVCC)
def test_nvcc_takes_the_same_sources(path):
    """A second front end: it sees faults that NVRTC lets pass, and the reverse."""
    names = [k for call, *_ in budgets.calls().values() for p, k, *_ in budgets.launches(call) if p == path]
    for arch in compiled.ARCHITECTURES if THOROUGH else (90,):
        assert compiled.nvcc(cuda.source(path), dict.fromkeys(names), arch, Path(path).name)
