"""The command `benchmarks quality`: what it prints, its exit status, and that an unknown name is one sentence."""
import json

from benchmarks import quality
from benchmarks.__main__ import main


def test_quality(monkeypatch, tmp_path, capsys):
    rows = {"good": lambda: {"figure": 1.5, "passed": {"is there": True}},
            "bad": lambda: {"figure": 2.5, "passed": {"is there": True, "is small": False}}}
    monkeypatch.setattr(quality, "acceptance", lambda: rows)
    assert main(["quality", "good", "--json", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["good"]["figure"] == 1.5
    assert main(["quality"]) == 1
    out = capsys.readouterr().out
    assert "holds  is there" in out and "FAILS  is small" in out and "figure 2.5" in out
    assert main(["quality", "else"]) == 1
    assert "no acceptance of that name: else; there are good, bad" in " ".join(capsys.readouterr().err.split())


def test_every_likelihood_family_has_an_acceptance():
    assert {"autoencoder", "vae", "vqvae", "vqvae2", "vqgan", "dvae", "nice", "realnvp", "glow", "ebm"} <= set(
        quality.acceptance())
