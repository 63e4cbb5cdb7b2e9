"""Charts are drawn, and the errors in the one of all samplers fall (their orders: equations/test_solvers.py)."""
import numpy as np
import pytest

from refimpl import charts
from refimpl.__main__ import main
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


def test_command(tmp_path, capsys, monkeypatch):
    """All four are written where they should be; a folder that cannot be written is one sentence."""
    for name in ("schedules_chart", "trajectories_chart", "convergence_chart"):
        monkeypatch.setattr(charts, name, lambda name=name: name.encode())
    monkeypatch.setattr(charts, "forward_chart", lambda image: image.shape[0].to_bytes())
    assert main(["charts", str(tmp_path / "new")]) == 0
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "convergence.png", "forward.png", "schedules.png", "trajectories.png"]
    assert (tmp_path / "new" / "forward.png").read_bytes() == b"\x08"
    assert main(["charts", str(tmp_path / "new" / "forward.png" / "x")]) == 1
    assert "cannot write into" in capsys.readouterr().err
