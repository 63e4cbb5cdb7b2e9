"""The verdict's own machinery: what it draws, how it lays arrays out, what it shrinks to, and what it says."""
import os
import subprocess
import sys

import numpy as np
import pytest
import zoo
import zoo_large  # noqa: F401, these enter their kernels
import zoo_numbers  # noqa: F401
import zoo_sampling  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st
from zoo import judged

from kernels import conduct, report, verify
from kernels.bounds import ARITHMETICS, growth, radius
from kernels.cases import Case, SeededDraw, digest, draw_case, on_case, round_to
from kernels.contract import Kernel, contracts
from kernels.judge import Defect, expected, judge
from kernels.testing import check
from refimpl import ops

CONTRACTS = contracts()


def test_same_seed_same_inputs_and_other_seed_others():
    kernel = Kernel("q_sample", "test", "direct", ops.q_sample, raw=False)
    first, again, other = (verify.verify(kernel, 10, seed) for seed in (0, 0, 1))
    assert first.inputs == again.inputs != other.inputs and first.cases == again.cases and first.share == again.share


def test_no_folder_is_left_behind(tmp_path):
    source = ("from kernels import verify; from kernels.contract import Kernel; from refimpl import ops;"
              "verify.verify(Kernel('q_sample', 'test', 'direct', ops.q_sample, raw=False), 5)")
    env = os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", source], cwd=tmp_path, env=env, check=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", [n for n in conduct.LAYOUTS if n != "broadcast view"])
@given(shape=st.lists(st.integers(0, 4), min_size=0, max_size=4))
def test_layouts_keep_shape_dtype_and_values(layout, shape):
    for dtype in (np.float32, np.float64, np.float16, bool, np.int64):
        array = (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2).astype(dtype)
        made, _ = conduct.LAYOUTS[layout](array)
        assert made.dtype == array.dtype
        np.testing.assert_array_equal(made, array)


def test_layouts_are_what_they_are_called():
    array = np.arange(48.0, dtype=np.float32).reshape(2, 3, 4, 2)
    made = {name: lay(array)[0] for name, lay in conduct.LAYOUTS.items()}
    assert made["plain"].flags.c_contiguous and made["Fortran-ordered array"].flags.f_contiguous
    assert np.moveaxis(made["channels-last view"], 1, -1).flags.c_contiguous
    assert made["strided view"].strides == (2 * 192, 64, 16, 8) and min(made["reversed view"].strides) == -96
    assert max(made["reversed view"].strides) < 0 and not made["read-only array"].flags.writeable
    assert made["far-strided view"].strides[0] > 2**31 * 4 and made["broadcast view"].strides[0] == 0


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bool", "int64"])
def test_guards_and_poison(dtype):
    for shape in ((), (3,), (2, 0), (2, 3, 4)):
        for layout in ("C", "channels_last"):
            array, buffer = conduct.guarded(shape, dtype, layout)
            assert array.shape == shape and not conduct.breached(buffer) and np.all(conduct.unwritten(array))
            array[...] = 0
            assert not conduct.breached(buffer) and not np.any(conduct.unwritten(array))
            buffer[conduct.GUARD + array.size] = 0
            assert conduct.breached(buffer)


def test_unwritten_memory_is_not_any_nan():
    assert not np.any(conduct.unwritten(np.array([np.nan, -np.nan, np.inf - np.inf], np.float32)))


def test_the_smallest_failure_is_small():
    failure = judged("turned").failure
    x, w, _ = failure.case.args
    assert x.size <= 9 and w.size <= 4 and failure.case.options["groups"] == 1


def test_a_kernel_without_random_defects_is_not_called_flaky():
    assert "not every time" in judged("replayed_address").failure.defect.sentence
    assert "not every time" not in judged("turned").failure.defect.sentence


GUESSES = {
    "zeros": "every element is zero", "stale_column": "only the last one along axis 3 wrong",
    "batch_of_one": "every element is 0.99 times the reference: a constant factor",
    "swapped_axis": "as if axes 2 and 3 of w were exchanged", "turned": "as if w were turned round in its last",
    "long_stride": "as if stride were 3 instead of 2", "turned_padding": "as if the ends of padding were exchanged",
    "top_padding": "the reference shifted by one along axis 2", "short_index": "as if a sample's index had 31 bits",
    "wrong_scale": "as if logits were 1.01 times what they should be", "no_silu": "as if silu were False",
    "half_inside": "as if all inputs were rounded to float16", "tf32": "as if dy kept 11 bits, as TF32 does",
    "causal_off_by_one": "as if query i saw keys j <= i + 1", "masked_mean": "as if a query that no key is shown to",
    "by_place": "as if a sample's index were its place in the batch",
    "one_more": "as if guidance were e_c + w (e_c - e_u)", "replayed_address": "something is remembered between calls",
    "blind_to_strides": "strides or memory mishandled", "needs_writeable": "not for a read-only array"}


@pytest.mark.parametrize("name", GUESSES)
def test_the_cause_is_guessed(name):
    guesses = report.entry(judged(name))["failure"]["guesses"]
    assert any(GUESSES[name] in g for g in guesses), guesses


@pytest.mark.parametrize("name", ["turned", "wrong_scale", "one_more", "through_clip", "short_index", "no_silu",
                                  "stale_column", "short_db", "blind_to_strides", "dropped_tap"])
def test_the_script_shows_the_failure(name, capsys):
    load = f"from {judged(name).kernel.function.__module__} import {name} as kernel"
    entry = report.entry(judged(name), load=load)
    exec(compile(entry["failure"]["script"], "script", "exec"), {})
    lines = capsys.readouterr().out.strip().split("\n")
    assert any(not float(line.rsplit(" ", 1)[1]) < 1e-6 for line in lines), lines
    assert load in report.explain(entry)


def test_the_script_shows_what_is_remembered(capsys):
    for zoo_file, name, words in (("zoo", "one_buffer", "the first result has changed by"),
                                  ("zoo_large", "larger_of_both", "again: largest difference")):
        entry = report.entry(judged(name), load=f"from {zoo_file} import {name} as kernel")
        exec(compile(entry["failure"]["script"], "script", "exec"), {})
        lines = [line for line in capsys.readouterr().out.split("\n") if line.startswith(words)]
        assert any(float(line.rsplit(" ", 1)[1]) > 0 for line in lines), lines


def test_a_large_failure_is_shrunk_to_the_limit_and_named():
    entry = report.entry(judged("short_grid"))["failure"]
    assert entry["guesses"] == ["right in small cases, wrong from a size of 65536 on in samples: some limit is passed"]
    assert len(entry["script"]) < 3000 and "65536" in entry["script"]


def test_a_right_kernel_has_no_failure_and_check_returns_it():
    verdict = check("attention", ops.attention, examples=10)
    assert verdict.passed and verdict.failure is None and 0 < verdict.share < 1
    with pytest.raises(AssertionError, match="as if w were turned round"):
        check("conv2d", zoo.turned, examples=20)


def test_growth_is_the_theorem_or_less():
    k = np.arange(0, 5000)
    assert np.all(growth(k, True) == k + 2) and np.all(growth(k, False) <= growth(k, True))
    assert growth(10**4, False) == 600


def test_radius_is_what_noise_is_formed_from():
    z = (2**63 + 5, np.array([0, 7]), 3)
    r = radius(z, (3, 3))
    noise = ops.normal(*z, (3, 3), dtype=np.float64)
    pairs = noise.reshape(2, 9)[:, :8].reshape(2, 4, 2)
    np.testing.assert_allclose(r.reshape(2, 9)[:, :8:2], np.hypot(pairs[..., 0], pairs[..., 1]), rtol=1e-14)
    assert np.all(r >= np.abs(noise)) and r.shape == (2, 3, 3) and np.all(r <= 5.77)


@pytest.mark.parametrize("bits, dtype", [(8, "bfloat16"), (11, "float16")])
def test_rounding_to_half_types(bits, dtype, rng):
    x = rng.standard_normal(1000)
    error = np.abs(round_to(x, dtype).astype(np.float64) - x)
    assert np.all(error <= 2.0**-bits * np.abs(x)) and np.max(error / np.abs(x)) > 0.9 * 2.0**-bits
    assert ARITHMETICS[dtype].u == 2.0**-bits
    torch_like = round_to(np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, np.nan, np.inf]), "bfloat16")
    np.testing.assert_array_equal(torch_like, np.array([1, 1 + 2.0**-6, np.nan, np.inf], np.float32))


def test_every_part_of_a_case_counts_in_its_digest():
    kernel = Kernel("sampler_step", "test", "direct", None)
    case = draw_case(SeededDraw(3), kernel, CONTRACTS["sampler_step"], "normal")
    moved = on_case(lambda a, path: a + 1 if path == "x" else a, case, CONTRACTS["sampler_step"].names)
    others = case._replace(dtype="float64"), case._replace(options=case.options | {"a": 7.0}), moved
    assert len({digest(c) for c in (case, *others)}) == 4


@pytest.mark.parametrize("operation", CONTRACTS)
def test_bounds_are_positive_and_half_of_one_is_allowed(operation, rng):
    """A result anywhere inside its bound passes and one just outside fails: nothing else is measured."""
    contract = CONTRACTS[operation]
    for seed in range(8):
        kernel = Kernel(operation, "test", "direct", contract.reference, raw=False)
        case = draw_case(SeededDraw(seed), kernel, contract, "normal")
        want = expected(kernel, contract, case)
        for share, passes in ((0.5, True), (1.5, False)):
            moved = tuple(None if y is None else np.where(np.isfinite(b), y + share * b, y).astype(np.float64)
                          for y, b in zip(want.outputs, want.bounds))
            exact = Kernel(operation, "test", "direct", lambda *a, m=moved, **o: m, "float32", "float64", raw=False)
            wide = on_case(lambda a, path: a.astype(np.float64) if a.dtype == np.float32 else a, case, contract.names,
                           contract.host)._replace(dtype="float64")
            if passes:
                assert judge(exact, contract, wide) < 0.51
            elif any(y is not None and y.size for y in want.outputs):
                with pytest.raises(Defect, match="outside the error bound"):
                    judge(exact, contract, wide)


def test_float64_is_held_to_float64():
    def single(x0, signal, noise, z):
        return ops.q_sample(x0.astype(np.float32), signal, noise, z.astype(np.float32)).astype(np.float64)

    kernel = Kernel("q_sample", "test", "direct", single, "float64", raw=False, where={"z": "array"})
    assert not verify.verify(kernel, 20).passed


def test_half_precision_with_float32_sums_passes_and_half_sums_fail():
    def widened(x, w, b=None, **options):
        return np.ascontiguousarray(ops.conv2d(x.astype(np.float32), w.astype(np.float32),
                                               None if b is None else b.astype(np.float32), **options)).astype(x.dtype)

    assert check("conv2d", widened, 40, dtype="float16").passed
    with pytest.raises(AssertionError):
        check("conv2d", lambda *a, **o: np.ascontiguousarray(ops.conv2d(*a, **o)), 40, dtype="float16")


def test_a_case_may_be_judged_by_itself():
    x = np.ones((1, 1, 2, 2), np.float32)
    options = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    case = Case((x, x[:, :, :1, :1], None), options, "normal", "float32")
    assert judge(Kernel("conv2d", "test", "direct", ops.conv2d, raw=False), CONTRACTS["conv2d"], case) == 0
