"""Every wrong kernel of the zoo is rejected, and for what is wrong with it."""
import pytest
import zoo_large  # noqa: F401, these enter their kernels
import zoo_norms  # noqa: F401
import zoo_sampling  # noqa: F401
from zoo import ZOO, judged
from zoo_numbers import winograd

from kernels.contract import Kernel
from kernels.verify import verify


@pytest.mark.parametrize("name, kinds, defect", [(z[0], z[3], z[4]) for z in ZOO], ids=[z[0] for z in ZOO])
def test_wrong_kernel_is_rejected(name, kinds, defect):
    verdict = judged(name)
    assert not verdict.passed, f"not found: {defect}"
    assert verdict.failure.defect.kind in kinds, f"{defect}: found as {verdict.failure.defect}"


def test_zoo_is_large_and_each_defect_has_a_name():
    assert len(ZOO) >= 25 and len({z[4] for z in ZOO}) == len(ZOO)


def test_winograd_passes_as_what_it_is():
    where = {"window": 3, "stride": 1, "dilation": 1, "groups": 1}
    verdict = verify(Kernel("conv2d", "zoo", "winograd", winograd, raw=False, where=where), examples=60)
    assert verdict.passed and verdict.share < 0.6
