"""Pictures of games and GANs are drawn, from short runs."""
import numpy as np
import pytest

from refimpl import charts_adversarial as charts
from refimpl import commands, ops

pytest.importorskip("matplotlib")
pytest.importorskip("PIL")


def test_those_without_training():
    assert charts.games_chart(0.2, 20).startswith(b"\x89PNG")
    assert charts.generator_gradients_chart().startswith(b"\x89PNG")


def test_walks_keep_to_the_sphere(rng):
    a, b = rng.standard_normal((2, 5, 40))
    assert np.allclose(charts.great_circle(a, b, 0.0), a) and np.allclose(charts.great_circle(a, b, 1.0), b)
    half = np.linalg.norm(charts.great_circle(a, b, 0.5), axis=1)
    assert np.all(half > 0.8 * np.minimum(*(np.linalg.norm(v, axis=1) for v in (a, b))))


@pytest.mark.parametrize("name, data, names", [
    ("wgan-gp", "gaussians8", {"modes"}), ("dcgan", "digits", {"walk"}), ("stylegan", "digits", {"truncation"}),
    ("cgan", "digits", {"walk"}), ("srgan", "digits", set())])
def test_of_a_run(name, data, names, tmp_path, capsys):
    changes = {"steps": 2, "batch": 8, "width": 4} | ({"critic_steps": 1} if name == "wgan-gp" else {})
    commands.start(tmp_path / "run", name, data, 0, changes, ops, checkpoint_every=0, preview_every=0)
    found = charts.of_run(tmp_path / "run")
    assert names <= set(found) and all(png.startswith(b"\x89PNG") for png in found.values())
    charts.main([str(tmp_path / "out"), str(tmp_path / "run")])
    assert len(list((tmp_path / "out").iterdir())) == 2 + len(found)


def test_no_run_is_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        charts.main([str(tmp_path / "out"), str(tmp_path / "missing")])
    assert stop.value.code == 1 and "no such folder" in capsys.readouterr().err
