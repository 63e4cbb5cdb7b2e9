"""Profiles, and the Draw of the facts backed by hypothesis, so that failing sizes shrink."""
import os
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from kernels import conduct
from kernels.cases import HypothesisDraw
from refimpl import ops
from refimpl.facts import Draw

_common = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck))
settings.register_profile("quick", max_examples=15, derandomize=True, **_common)
settings.register_profile("thorough", max_examples=500, **_common)
settings.load_profile(os.environ.get("REFIMPL_PROFILE", "quick"))


@st.composite
def draws(draw):
    """A HypothesisDraw, for @given(draws())."""
    return HypothesisDraw(draw(st.data()))


def rejected(measure, tolerance):
    """Whether a fact fails on some draw, as it does in the suite."""
    return any(not measure(Draw(seed)) <= tolerance for seed in range(20))


def with_own(*functions):
    """The operations, these in place of those of their names."""
    return SimpleNamespace(**vars(ops) | {f.__name__: f for f in functions})


def refuses(call, words):
    """The call raises ValueError in one sentence that holds the words, a regular expression."""
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def pytest_collection_modifyitems(config, items):
    if os.environ.get("REFIMPL_PROFILE", "quick") != "thorough":
        items[:] = [i for i in items if not i.get_closest_marker("thorough")]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="session")
def arithmetic_stays():
    """No test, and no library that one loads, may leave rounding or subnormal numbers changed for those after it."""
    before = conduct.settings()
    yield
    after = conduct.settings()
    assert {k: after[k] for k in before} == before
