"""Pictures of the likelihood families are drawn, from short runs; the measure of blur sees blur."""
import numpy as np
import pytest

from refimpl import charts_latent as charts

pytest.importorskip("matplotlib")
pytest.importorskip("PIL")


def test_every_picture(tmp_path, capsys, monkeypatch):
    small = ["--set", "width=8", "--set", "depth=1", "--batch", "8", "--backend", "reference"]
    monkeypatch.setattr(charts, "RUNS", {name: argv + small for name, argv in charts.RUNS.items()})
    charts.main([str(tmp_path), "--steps", "2"])
    drawn = {path.stem for path in tmp_path.glob("*.png")}
    assert drawn == {*charts.PICTURES, "gradient_variances"}
    out = capsys.readouterr().out
    assert out.count("sharpness of reconstructions") == 4 and "realnvp: 1.00" in out


def test_what_fails_is_said(tmp_path, capsys):
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(SystemExit) as stop:
        charts.main([str(tmp_path), "--steps", "2"])
    assert stop.value.code == 1 and "refimpl train failed" in capsys.readouterr().err


def test_blur_is_less_than_1(rng):
    x = rng.standard_normal((3, 1, 8, 8))
    assert abs(charts.sharpness(x, x) - 1) < 1e-12 and abs(charts.sharpness(x, x / 2) - 0.25) < 1e-12
    assert charts.sharpness(x, (x + np.roll(x, 1, axis=3)) / 2) < 0.8
