"""Commands that look inside: reconstruct, interpolate, latent, and the likelihood that score prints."""
import json

import numpy as np
import pytest
from PIL import Image

from refimpl import commands, ops, score
from refimpl.__main__ import main

TINY = ["--set", "width=8", "--set", "depth=1", "--batch", "16", "--preview-every", "0", "--steps", "2"]
CODES = ["--set", "codes=8", "--set", "positions=2", "--set", "prior_width=8", "--set", "prior_depth=1"]
RUNS = {"vae": ["vae", *TINY], "vqvae": ["vqvae", *TINY, *CODES], "realnvp": ["realnvp", *TINY, "--set", "couplings=1"],
        "moons": ["realnvp", *TINY, "--set", "couplings=2", "--data", "moons"],
        "ebm": ["ebm", *TINY, "--set", "langevin=1", "--data", "moons"]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of small finished runs."""
    folder = tmp_path_factory.mktemp("runs")
    for name, argv in RUNS.items():
        assert main(["train", *argv, "--out", str(folder / name)]) == 0
    return folder


def printed(capsys, *argv):
    capsys.readouterr()
    assert main([*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["vae", "vqvae", "realnvp", "moons"])
def test_pictures(runs, capsys, name):
    for command in ("reconstruct", "latent") if name == "moons" else ("reconstruct", "interpolate", "latent"):
        figures = printed(capsys, command, runs / name)
        with Image.open(figures["out"]) as image:
            assert min(image.size) > 50 and len(np.unique(np.asarray(image))) > 10
        if command == "reconstruct":
            (error,) = figures["errors"].values()
            assert figures["n"] == 10 and (error < 1e-6) == (name in ("realnvp", "moons"))
        if (name, command) == ("vqvae", "latent"):
            assert 1 <= figures["perplexity"] <= 8
    assert main(["latent", str(runs / name), "--out", str(runs / "other.png")]) == 0
    assert str(runs / "other.png") in capsys.readouterr().out


def test_score_prints_the_likelihood(runs, capsys, monkeypatch):
    figures = printed(capsys, "score", runs / "moons")
    assert figures["nll_unit"] == "nats" and 1 < figures["nll"] < 6 and 0 < figures["nll_interval"] < 0.2
    assert main(["score", str(runs / "moons")]) == 0
    assert "nats (95 %) on the 2000 test samples of moons" in capsys.readouterr().out
    monkeypatch.setattr(score, "judge", lambda data: score.Judge(score._flat))
    for name in ("vae", "realnvp"):
        assert printed(capsys, "score", runs / name)["nll_unit"] == "bits/dim"


def test_several_runs_beside_each_other(runs, capsys):
    figures = printed(capsys, "reconstruct", runs / "vae", runs / "realnvp", "--out", runs / "both.png", "-n", "12")
    assert len(figures["errors"]) == 2
    assert main(["reconstruct", str(runs / "vae"), str(runs / "moons")]) == 1
    assert "were trained on different data" in capsys.readouterr().err


def test_what_is_refused(runs, capsys):
    for argv, message in [(["reconstruct", runs / "ebm"], "reconstruct has nothing to show of ebm"),
                          (["latent", runs / "vae", "--out", "x.gif"], "--out must end in .png"),
                          (["interpolate", runs / "nowhere"], "no such folder")]:
        capsys.readouterr()
        assert main([str(a) for a in argv]) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["reconstruct", str(runs / "vae"), "-n", "500"])


@pytest.mark.parametrize("system, settings, message", [
    ("vae", ["--set", "rate=1000.0", "--steps", "5"], "exp(log_var) must exist in float32"),
    ("glow", ["--set", "levels=4"], "set fewer levels"),
    ("vae", ["--set", "likelihood=bernoulli", "--data", "moons"], "the bernoulli likelihood is for images"),
    ("ebm", ["--set", "step=1e9", "--set", "langevin=1", "--data", "moons"], "of energy is inf at step 1: try a smaller"),
    ("vqgan", ["--data", "moons"], "vqgan judges patches of images")])
def test_training_that_cannot_be(system, settings, message, tmp_path, capsys, recwarn):
    """One sentence and exit status 1, and not a warning before it."""
    small = [*TINY[:4], "--batch", "16", "--preview-every", "0", "--backend", "reference", "--steps", "2"]
    assert main(["train", system, *small, *settings, "--out", str(tmp_path / "run")]) == 1
    assert message in " ".join(capsys.readouterr().err.split()) and not recwarn.list


def test_a_likelihood_that_is_no_number_is_said(runs):
    _, data, system, run = commands.opened(str(runs / "moons"))
    broken = system._replace(nll=lambda params, state, x, key, ops: np.where(np.arange(len(x)) < 3, np.nan, 1.0))
    with pytest.raises(ValueError, match="realnvp finds 3 of the 2000 test samples of moons impossible or of no number"):
        commands.likelihood(data, broken, run, 0, ops)
