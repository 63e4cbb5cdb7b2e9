"""`show`: every formula of the reference renders as plain text, and the verdict it prints is the fact's own."""
import numpy as np
import pytest
from rich.console import Console

from refimpl import facts, show
from refimpl.__main__ import main

FORMULAS = [(name, formula) for name, f in show.functions().items() if "." in name for formula in show.parts(f)[1]]


@pytest.mark.parametrize("name, formula", FORMULAS, ids=[name for name, _ in FORMULAS])
def test_formula_renders(name, formula):
    lines = show.plain(formula)
    assert lines
    assert not any(c in line for line in lines for c in "\\$&"), lines


def test_fraction_and_root_stay_readable():
    assert show.plain(r"\tilde\mu = \frac{\sqrt{\alpha}}{1-\beta}\,x") == ["μ̃ = (√α)/(1-β) x"]


def test_code_has_no_docstring_and_keeps_the_rest():
    assert show.code(show.find("silu")) == "def silu(x):\n    return x * sigmoid(x)"


def test_a_broken_gradient_is_reported(capsys, monkeypatch):
    """The command's exit status and its word come from the error measured now, not from a table."""
    broken = facts.Fact("vjp", (show.find("silu"),), 1e-10, lambda d: float(np.nan))
    broken.measure.__doc__ = "planted"
    monkeypatch.setattr(show, "load", lambda: [broken])
    assert main(["show", "silu"]) == 1
    assert "FAILS" in capsys.readouterr().out


def test_screen(capsys):
    console = Console(width=100, record=True, force_terminal=False)
    rows = show.show("silu", console)
    text = console.export_text()
    assert {k.id for k, _ in rows} == {"vjp"}
    assert "x σ(x)" in text and "def silu_vjp(dy, x):" in text and "arXiv:1606.08415" in text
    assert max(map(len, text.splitlines())) <= 100


def test_unknown_name(capsys):
    assert main(["show", "silo"]) == 1
    assert "did you mean silu" in capsys.readouterr().err
