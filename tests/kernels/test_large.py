"""Slices cover every output exactly once, agree with the whole, find one wrong element, and stay within memory."""
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.cases import Case, SeededDraw, draw_case
from kernels.contract import Kernel, contracts
from kernels.judge import Defect, expected, judge, together
from kernels.large import judge_large

CONTRACTS = contracts()


def reference(operation):
    return Kernel(operation, "test", "direct", CONTRACTS[operation].reference, raw=False)


@pytest.mark.parametrize("operation", CONTRACTS)
@given(seed=st.integers(0, 2**32 - 1), budget=st.sampled_from([1, 2000, 10**9]))
def test_slices_cover_every_output_once_and_agree_with_the_whole(operation, seed, budget):
    contract, kernel = CONTRACTS[operation], reference(operation)
    case = draw_case(SeededDraw(seed), kernel, contract, "normal")
    outputs = expected(kernel, contract, case).outputs
    seen = [None if y is None else np.zeros(y.shape, int) for y in outputs]
    for args, options, picks in contract.slices(case.args, case.options, budget):
        part = together(contract.reference(*args, **options))
        for y, whole, count, pick in zip(part, outputs, seen, picks):
            if pick is not None:
                count[pick] += 1
                np.testing.assert_allclose(y, whole[pick].astype(np.float64), rtol=1e-3, atol=1e-4)
    assert all(count is None or np.all(count == 1) for count in seen)


@pytest.mark.parametrize("operation", CONTRACTS)
def test_one_wrong_element_is_found(operation):
    contract, kernel = CONTRACTS[operation], reference(operation)
    for seed in range(5):
        case = draw_case(SeededDraw(seed), kernel, contract, "normal")
        got = together(contract.reference(*case.args, **case.options))
        assert judge_large(kernel, contract, case, 2000, got) <= max(1e-6, 2 * judge(kernel, contract, case))
        got = [None if y is None else np.array(y) for y in got]
        y = next(y for y in reversed(got) if y is not None)
        y[(-1,) * y.ndim] += 1
        with pytest.raises(Defect):
            judge_large(kernel, contract, case, 2000, got)


@pytest.mark.parametrize("operation, args, options, limit", [
    ("conv2d", ((2, 32, 96, 96), (32, 32, 3, 3), (32,)), {"padding": 1}, 2**26),
    ("conv2d_vjp", ((2, 32, 96, 96), (2, 32, 96, 96), (32, 32, 3, 3), (32,)), {"padding": 1}, 2**26),
    ("attention", ((1, 4, 1024, 32),) * 3 + (None,), {"causal": True}, 2**26),
], ids=lambda v: v if isinstance(v, str) else "")
def test_memory_stays_within_the_budget(operation, args, options, limit, rng):
    args = tuple(s if s is None else rng.standard_normal(s, dtype=np.float32) for s in args)
    case, contract = Case(args, options, "normal", "float32"), CONTRACTS[operation]
    got = together(contract.reference(*case.args, **case.options))
    tracemalloc.start()
    judge_large(reference(operation), contract, case, 2**22, got)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < limit
