"""Every adversarial acceptance, cut to a few steps: all its figures are there and finite, and it judges them."""
import math

import pytest

pytest.importorskip("sklearn")

from benchmarks import quality_adversarial

EVERY = {"gan", "lsgan", "wgan", "wgan-gp", "cgan", "dcgan", "sngan", "sagan", "biggan", "progressive", "stylegan",
         "stylegan2", "text-to-image", "pix2pix", "cyclegan", "srgan"}


def test_every_adversarial_system_has_an_acceptance():
    assert set(quality_adversarial.ACCEPTANCE) == EVERY


@pytest.mark.parametrize("name", sorted(EVERY))
def test_a_few_steps(name, monkeypatch):
    monkeypatch.setattr(quality_adversarial, "SEEDS", 1)
    out = quality_adversarial.ACCEPTANCE[name](steps=3)
    passed = out.pop("passed")
    assert passed and all(type(holds) is bool for holds in passed.values())
    assert all(math.isfinite(v) for v in out.values() if v is not None) and len(out) > 1
    assert not all(passed.values())  # three steps reach nothing
