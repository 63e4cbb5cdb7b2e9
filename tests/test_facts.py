"""Every registered fact, on sizes and hyper-parameters that hypothesis draws."""
import pytest
from conftest import draws
from hypothesis import given, note

from refimpl.facts import load


@pytest.mark.parametrize("fact", load(), ids=lambda f: f"{f.id}-{f.measure.__module__.split('.')[-1]}-{f.functions[0].__name__}-{f.measure.__name__}")
@given(d=draws())
def test_fact(fact, d):
    error = fact.measure(d)
    note(f"{fact.id}: {fact.statement}")
    assert error <= fact.tolerance
