"""The verdict's own false alarms: honest kernels in five summation orders, none of which it may reject."""
import os

import numpy as np
import pytest
from honest import HONEST, ORDERS

from kernels.cases import SeededDraw, draw_case
from kernels.contract import Kernel, contracts
from kernels.judge import expected, settle, together
from kernels.verify import directions

# 13,000 cases in the thorough profile; a case is one input under one order.
CASES = {"conv2d": 1000, "group_norm": 600, "batch_norm": 600, "attention": 380, "conv2d_vjp": 20}
FAMILIES = {"conv2d_vjp": ("normal", "positive", "constant")}
LARGE = {"conv2d_vjp": {"large": ("samples", "height", "width")}}


def worst(operation, seeds, where=None):
    """The largest share of an operation's honest kernels on many inputs, each input under every order."""
    contract, top = contracts()[operation], 0.0
    for seed in seeds:
        kernel = Kernel(operation, "honest", "direct", None, raw=False, where=where or {})
        families = FAMILIES.get(operation, (*contract.families, "integer", "nonfinite"))
        case = draw_case(SeededDraw(seed), kernel, contract, families[seed % len(families)])
        want = expected(kernel, contract, case)
        for order in ORDERS:
            with np.errstate(all="ignore"):
                got = together(HONEST[operation](order)(*case.args, **case.options))
            top = max(top, settle(contract, case, got, want))
    return top


@pytest.mark.parametrize("operation", HONEST)
def test_honest_kernels_pass_large_cases(operation):
    """Every axis that a verdict makes long; a gradient that is formed filter by filter keeps to few filters."""
    contract, kernel = contracts()[operation], Kernel(operation, "honest", "direct", None, raw=False, where=LARGE.get(
        operation, {}))
    for family, long in directions(kernel, contract, 100, 0):
        case = draw_case(SeededDraw(long.seed), kernel, contract, family, long[:2])
        want = expected(kernel, contract, case)
        for order in ORDERS:
            with np.errstate(all="ignore"):
                got = together(HONEST[operation](order)(*case.args, **case.options))
            assert settle(contract, case, got, want) < 0.7


@pytest.mark.parametrize("operation", HONEST)
def test_honest_kernels_pass(operation):
    where = {"window": 2, "groups": 1} if operation == "conv2d_vjp" else {}
    assert worst(operation, range(max(1, CASES[operation] // 25)), where) < 0.7


@pytest.mark.thorough
@pytest.mark.parametrize("operation", HONEST)
def test_honest_kernels_pass_thousands_of_cases(operation):
    assert os.environ.get("REFIMPL_PROFILE") == "thorough"
    where = {"window": 2, "groups": 1} if operation == "conv2d_vjp" else {}
    assert worst(operation, range(1000, 1000 + CASES[operation]), where) < 0.7
