"""Commands that look inside: reconstruct, interpolate, latent, and the likelihood that score prints."""
import json

import numpy as np
import pytest
from PIL import Image

from refimpl import score
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
    monkeypatch.setattr(score, "judge", lambda data: score.Judge(score._flat, None, None))
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
