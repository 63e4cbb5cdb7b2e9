"""Profiles, and the Draw of the facts backed by hypothesis, so that failing sizes shrink."""
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

_common = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck))
settings.register_profile("quick", max_examples=15, derandomize=True, **_common)
settings.register_profile("thorough", max_examples=500, **_common)
settings.load_profile(os.environ.get("REFIMPL_PROFILE", "quick"))


class HypothesisDraw:
    """Same face as refimpl.facts.Draw: sizes from hypothesis, values from one seed that it also draws."""

    def __init__(self, data):
        self.data = data
        self.rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))

    def integer(self, low, high):
        return self.data.draw(st.integers(low, high))

    def real(self, low, high):
        return self.data.draw(st.floats(low, high))

    def choice(self, options):
        return self.data.draw(st.sampled_from(options))

    def array(self, *shape):
        return self.rng.standard_normal(shape)

    def key(self):
        return self.data.draw(st.integers(0, 2**63 - 1))


@st.composite
def draws(draw):
    """A HypothesisDraw, for @given(draws())."""
    return HypothesisDraw(draw(st.data()))


def pytest_collection_modifyitems(config, items):
    if os.environ.get("REFIMPL_PROFILE", "quick") != "thorough":
        items[:] = [i for i in items if not i.get_closest_marker("thorough")]


@pytest.fixture
def rng():
    return np.random.default_rng(0)
