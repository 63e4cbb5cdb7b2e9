"""Charts are drawn, and the errors in the one of all samplers fall (their orders: equations/test_solvers.py)."""
import numpy as np
import pytest

from refimpl import charts
from refimpl.equations import catalogue


def test_errors_fall():
    found, _ = charts.errors((40, 80), last=0.3)
    for name, (coarse, fine) in found.items():
        assert np.log2(coarse / fine) > min(catalogue.SAMPLERS[name].order, 2) - 0.35, name


def test_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    for draw in (charts.schedules_chart, lambda: charts.trajectories_chart(4, 10),
                 lambda: charts.forward_chart(np.zeros((4, 4)))):
        assert draw().startswith(b"\x89PNG")
