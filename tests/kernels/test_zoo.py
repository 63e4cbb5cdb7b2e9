"""Every wrong kernel of the zoo is rejected, and for what is wrong with it."""
import pytest
from zoo import ZOO, winograd

from kernels import verify as verdicts
from kernels.contract import Kernel


@pytest.fixture(autouse=True)
def short_shrinking(monkeypatch):
    monkeypatch.setattr(verdicts, "SHRINKING", 0.3)


@pytest.mark.parametrize("name, operation, function, kinds, defect, raw, where", ZOO, ids=[z[0] for z in ZOO])
def test_wrong_kernel_is_rejected(name, operation, function, kinds, defect, raw, where):
    verdict = verdicts.verify(Kernel(operation, "zoo", "direct", function, raw=raw, where=where), examples=60)
    assert not verdict.passed, f"not found: {defect}"
    assert verdict.failure.defect.kind in kinds, f"{defect}: found as {verdict.failure.defect}"


def test_zoo_is_large_and_each_defect_has_a_name():
    assert len(ZOO) >= 25 and len({z[4] for z in ZOO}) == len(ZOO)


def test_winograd_passes_as_what_it_is():
    where = {"window": 3, "stride": 1, "dilation": 1, "groups": 1}
    verdict = verdicts.verify(Kernel("conv2d", "zoo", "winograd", winograd, raw=False, where=where), examples=60)
    assert verdict.passed and verdict.share < 0.6
