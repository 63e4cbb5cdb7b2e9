"""Every adversarial acceptance, cut to a few steps: all its figures are there and finite, and it judges them."""
import math

import pytest

pytest.importorskip("sklearn")

from benchmarks import quality_adversarial
from refimpl import score

EVERY = {"gan", "lsgan", "wgan", "wgan-gp", "cgan", "dcgan", "sngan", "sagan", "biggan", "progressive", "stylegan",
         "stylegan2", "text-to-image", "pix2pix", "cyclegan", "srgan"}


def test_every_adversarial_system_has_an_acceptance():
    assert set(quality_adversarial.ACCEPTANCE) == EVERY


@pytest.fixture(autouse=True, scope="module")
def one_judge():
    """The digits' judge fitted once for all tests of this file; one set of samples to a score."""
    known, fit = {}, score.judge
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "judge", lambda data: known.get(data.spec) or known.setdefault(data.spec, fit(data)))
        patch.setattr(quality_adversarial, "SEEDS", 1)
        yield


@pytest.mark.parametrize("name", sorted(EVERY))
def test_a_few_steps(name):
    out = quality_adversarial.ACCEPTANCE[name](steps=3)
    passed = out.pop("passed")
    assert passed and all(type(holds) is bool for holds in passed.values())
    assert all(math.isfinite(v) for v in out.values() if v is not None) and len(out) > 1
    assert not all(passed.values())  # three steps reach nothing
