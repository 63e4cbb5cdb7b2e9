"""One equation is one function with one docstring: what it computes, the shapes, the source."""
import importlib
import inspect
import pkgutil
import types

import pytest

import refimpl


def modules():
    """The public modules of the rooms that hold mathematics."""
    found = []
    for room in ("ops", "equations", "nets", "systems"):
        package = importlib.import_module(f"{refimpl.__name__}.{room}")
        found += [package.__name__, *(m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + "."))]
    return [name for name in found if not name.rsplit(".", 1)[1].startswith("_")]


def complaints(module):
    """One sentence per public function of the module whose docstring does not say what it must."""
    sentences = []
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if name.startswith("_") or function.__module__ != module.__name__:
            continue
        doc, where = inspect.getdoc(function) or "", f"{module.__name__}.{name}"
        is_gradient = name.endswith("_vjp") or "grad" in name.split("_") or "gradient" in name.split("_")
        if not doc:
            sentences.append(f"{where} has no docstring")
        elif not function.__doc__.replace("\n", "").isprintable():
            sentences.append(f"{where} has a control character in its docstring: a command of TeX lost its backslash")
        elif ".systems" in module.__name__:  # a system is a composition: its papers stand once, in the module's docstring
            if name == "build" and module.__name__ != "refimpl.systems" and "arXiv" not in (module.__doc__ or ""):
                sentences.append(f"{module.__name__} names no paper in its docstring")
        elif not is_gradient:
            sentences += [f"{where} has no '{part}' in its docstring" for part in ("Shapes:", "Source:")
                          if part not in doc]
    return sentences


@pytest.mark.parametrize("name", modules())
def test_docstrings(name):
    found = complaints(importlib.import_module(name))
    assert not found, "\n".join(["", *found])


def test_a_system_without_a_paper_is_found():
    def build(config, data):
        """The system."""

    planted = types.ModuleType("refimpl.systems.planted", "A system.")
    build.__module__, planted.build = planted.__name__, build
    assert complaints(planted) == ["refimpl.systems.planted names no paper in its docstring"]


def test_bad_functions_are_found():
    def bare(x):
        return x

    def vague(x):
        """It helps.

        Shapes: x any.
        """

    def torn(x):
        """$\text{good}$. Shapes: x any. Source: Euler 1748."""

    def good(x):
        """Shapes: x any. Source: Euler 1748."""

    def good_vjp(dy, x):
        """dx = dy."""

    def good_gradient(x):
        return x

    def _private(x):
        return x

    planted = types.ModuleType("planted")
    for function in (bare, vague, torn, good, good_vjp, good_gradient, _private):
        function.__module__ = "planted"
        setattr(planted, function.__name__, function)
    planted.imported = modules
    assert complaints(planted) == ["planted.bare has no docstring", "planted.good_gradient has no docstring",
                                   "planted.torn has a control character in its docstring: a command of TeX lost its "
                                   "backslash", "planted.vague has no 'Source:' in its docstring"]
