"""Closed-form facts: measured errors that theory says are zero. The tests run them all; `show` a function's own.

A fact is a function of a `Draw`, the source of its random sizes and values, that returns an error. Tests hand it a
Draw backed by hypothesis, so that failures shrink; everything else uses the one here, backed by a NumPy generator.
"""
from typing import NamedTuple

import numpy as np


class Fact(NamedTuple):
    """id from the literature table (or 'vjp'), the functions it holds to account, tolerance, and how it is measured."""

    id: str
    functions: tuple
    tolerance: float
    measure: object

    @property
    def statement(self):
        return self.measure.__doc__.strip().split("\n")[0]


FACTS = []


def fact(id, *functions, tolerance):
    """Register measure(draw) -> error as a fact about the functions. Its docstring's first line states the identity."""

    def register(measure):
        FACTS.append(Fact(id, functions, tolerance, measure))
        return measure

    return register


class Draw:
    """Random sizes and values for facts. Values come from a seed, so that a failing case shrinks by its sizes."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def integer(self, low, high):
        """An integer in low..high, both included."""
        return int(self.rng.integers(low, high, endpoint=True))

    def real(self, low, high):
        """A float in [low, high]."""
        return float(self.rng.uniform(low, high))

    def choice(self, options):
        """One of the options."""
        return options[self.integer(0, len(options) - 1)]

    def array(self, *shape):
        """Standard normal float64 values."""
        return self.rng.standard_normal(shape)

    def key(self):
        """A 64-bit key for the counter-based generator."""
        return self.integer(0, 2**63 - 1)


def load():
    """Import every module of facts, so that FACTS is complete; returns it."""
    import importlib
    import pkgutil

    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return FACTS
