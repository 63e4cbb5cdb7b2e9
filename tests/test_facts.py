"""Every registered fact, on sizes and hyper-parameters that hypothesis draws."""
import pytest
from conftest import draws
from hypothesis import given, note

from refimpl.facts import load


def name(fact):
    return f"{fact.id}-{fact.functions[0].__name__}-{fact.measure.__name__}"


@pytest.mark.parametrize("fact", load(), ids=name)
@given(d=draws())
def test_fact(fact, d):
    error = fact.measure(d)
    note(f"{fact.id}: {fact.statement}")
    assert error <= fact.tolerance
