"""The command line: a run from training to score, and what can be wrong with a run."""
import json
import os
import shutil

import numpy as np
import pytest
from command_line import TINY, refused
from PIL import Image
from safetensors.numpy import load_file, save_file

from refimpl import checkpoint, commands, score, train
from refimpl.__main__ import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a small finished run on the digits."""
    folder = tmp_path_factory.mktemp("run") / "digits"
    assert main(["train", "ddpm", "--set", "net=mlp", *TINY, "--steps", "6", "--out", str(folder),
                 "--preview-every", "6"]) == 0
    return folder


@pytest.fixture(autouse=True, scope="module")
def one_judge():
    """The digits' judge takes seconds to fit: once is enough."""
    judge, known = score.judge, {}
    with pytest.MonkeyPatch.context() as patch:
        def remembered(data):
            if data.spec not in known:
                known[data.spec] = judge(data)
            return known[data.spec]

        patch.setattr(score, "judge", remembered)
        yield


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_training_leaves_a_checkpoint_and_a_picture(run):
    assert sorted(os.listdir(run)) == [train.CHECKPOINT, "samples_000006.png"]
    assert Image.open(run / "samples_000006.png").size[0] > 300
    meta = checkpoint.load(run / train.CHECKPOINT)[1]
    assert meta["step"] == 6 and meta["settings"]["data"] == "digits" and meta["settings"]["width"] == 8


def test_sample_writes_pictures_and_arrays(run, tmp_path, capsys):
    common = ["sample", str(run), "-n", "6", "--steps", "3", "--labels", "3,8", "--guidance", "0.5", "--seed", "7"]
    assert main([*common, "--out", str(tmp_path / "a.png")]) == 0
    assert main([*common, "--out", str(tmp_path / "new" / "a.npz"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer == {"out": str(tmp_path / "new" / "a.npz"), "n": 6, "step": 6}
    arrays = np.load(tmp_path / "new" / "a.npz")
    assert arrays["images"].shape == (6, 1, 8, 8) and arrays["labels"].tolist() == [3, 8, 3, 8, 3, 8]
    assert np.abs(arrays["images"]).max() <= 1
    assert Image.open(tmp_path / "a.png").format == "PNG"


def test_samples_follow_the_seed_and_not_the_batch(run):
    _, _, system, state = commands.opened(run)
    from refimpl import ops
    five, three, other = (commands.draw(system, state, n, key, ops, steps=2) for n, key in ((5, 1), (3, 1), (3, 2)))
    assert np.allclose(five[:3], three, atol=1e-6) and not np.allclose(three, other, atol=0.1)


def test_score_of_a_run_and_of_a_file(run, tmp_path, capsys):
    assert main(["score", str(run), "--steps", "2", "--seeds", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() == {"fd", "precision", "recall", "density", "coverage", "one_nn", "distance", "agreement",
                              "kid", "inception", "memorised", "intervals", "nll", "nll_interval", "nll_unit"}
    assert figures["nll_unit"] == "bits/dim" and figures["nll"] > 1
    assert figures["intervals"].keys() == {"fd", "kid", "precision", "recall", "coverage", "agreement"}
    from refimpl import data
    digits = data.load("digits")
    np.savez(tmp_path / "real.npz", images=digits.train[:597], labels=digits.train_labels[:597])
    assert main(["score", str(tmp_path / "real.npz"), "--data", "digits"]) == 0
    out = capsys.readouterr().out
    assert "yardsticks" in out and max(map(len, out.splitlines())) <= 100
    assert main(["score", str(tmp_path / "real.npz"), "--data", "digits", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)  # the protocol's published yardstick for real images
    assert abs(figures["fd"] - 1.30) < 0.05 and abs(figures["recall"] - 0.97) < 0.005
    assert abs(figures["one_nn"] - 0.49) < 0.01 and figures["distance"] == 0 and figures["agreement"] > 0.99


@pytest.mark.parametrize("system, spec, changes, more", [
    ("wgan-gp", "gaussians8", ["width=4", "critic_steps=1"], {"modes", "at_modes"}),
    ("cyclegan", "digits", ["width=4", "blocks=1", "patch_widths=[4,4]"], {"psnr", "ssim"})])
def test_score_of_modes_and_of_translations(system, spec, changes, more, tmp_path, capsys):
    train_it = ["train", system, "--data", spec, "--steps", "1", "--preview-every", "0", "--out", str(tmp_path / "run")]
    assert main([*train_it, *(word for change in changes for word in ("--set", change))]) == 0
    capsys.readouterr()
    assert main(["score", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert ("of 8 modes reached" in out) == ("modes" in more) and ("PSNR" in out) == ("psnr" in more)
    assert max(map(len, out.replace(str(tmp_path), "").splitlines())) <= 100
    assert main(["score", str(tmp_path / "run"), "--json"]) == 0
    assert more <= json.loads(capsys.readouterr().out).keys()


def test_modes_of_the_data_and_a_perfect_translation():
    from refimpl import data, systems
    eight, digits = data.load("gaussians8"), data.load("digits")
    assert score.modes(eight.train[:2000], eight)["modes"] == 8 and score.modes(eight.train[:2000], eight)["at_modes"] > 0.98
    assert score.modes(eight.train[eight.train_labels < 5], eight)["modes"] == 5
    assert score.restored(digits.test, digits.test) == {"psnr": np.inf, "ssim": 1.0}
    for name, sign in (("pix2pix", 1), ("srgan", 1), ("cyclegan", -1)):
        system = systems.build(name, systems.configure(name, digits, {}), digits)
        assert np.array_equal(system.truth(5), sign * digits.test[:5])


def test_systems_and_help(capsys):
    assert main(["systems"]) == 0
    text = capsys.readouterr().out
    assert "\nddpm " in text and "\ngan " in text and max(map(len, text.splitlines())) <= 100
    assert main(["systems", "ddpm"]) == 0
    text = capsys.readouterr().out
    assert "label_dropout=0.1" in text and "arXiv:2006.11239" in text and max(map(len, text.splitlines())) <= 100
    assert main(["systems", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ddpm"]["settings"]["T"] == 1000
    for command in ([], ["train"], ["sample"], ["score"], ["systems"], ["demo"], ["show"]):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--help"])
        text = capsys.readouterr().out
        assert stop.value.code == 0 and len(text) > 150 and max(map(len, text.splitlines())) <= 100


def test_resume_continues(copy, capsys):
    assert main(["train", "--resume", str(copy), "--steps", "9", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["step"] == 9 and answer["loss"].keys() == {"model"}
    assert main(["train", "--resume", str(copy)]) == 0
    assert "has all of its 9 steps already" in capsys.readouterr().err


@pytest.mark.parametrize("name, more", [
    ("improved-ddpm", ["--sampler", "unipc-3", "--steps", "5"]), ("ncsn", ["--sampler", "edm", "--set", "churn=4"]),
    ("score-sde", ["--sampler", "euler-maruyama", "--guidance", "1"]), ("edm", ["--sampler", "dpm++-2m", "--steps", "6"]),
    ("flow-matching", ["--sampler", "ddim", "--eta", "0.5", "--set", "shift=3"]), ("cold", ["--set", "improved=false"])])
def test_diffusion_systems_from_the_command_line(name, more, tmp_path, capsys):
    """Train on points with classes, draw by its own sampler and by another."""
    folder, common = str(tmp_path / "run"), ["--backend", "reference"]
    assert main(["train", name, "--data", "moons", "--set", "width=8", "--set", "depth=1", "--steps", "2", "--out", folder,
                 "--preview-every", "0", *common]) == 0
    for k, options in enumerate(([], more)):
        assert main(["sample", folder, "-n", "4", "--out", str(tmp_path / f"{k}.npz"), *common, *options]) == 0
    one, other = (np.load(tmp_path / f"{k}.npz")["images"] for k in range(2))
    assert one.shape == other.shape == (4, 2) and np.isfinite(other).all() and not np.array_equal(one, other)
    assert "cannot" not in capsys.readouterr().err
    sentence = "has no sampling option 'guidance'" if name == "cold" else "guidance is like 0.0, got 'much'"
    assert sentence in refused(capsys, "sample", folder, "--set", "guidance=much", *common)


def test_guidance_without_a_condition(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", "flow-matching", "--data", "swissroll", "--set", "width=8", "--set", "depth=1", "--steps", "1",
                 "--out", str(folder), "--preview-every", "0", "--backend", "reference"]) == 0
    assert "guidance 2.0 needs labels, and swissroll has none" in refused(capsys, "sample", folder, "--guidance", "2")


def test_nothing_is_overwritten(copy, capsys):
    before = (copy / train.CHECKPOINT).read_bytes()
    assert "already holds a run: continue it with train --resume" in refused(
        capsys, "train", "ddpm", *TINY, "--out", copy)
    assert (copy / train.CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize("arguments, sentence", [
    (["--labels", "3,11"], "each must be in 0..9, got '11'"),
    (["--labels", "x"], "each must be in 0..9, got 'x'"),
    (["--steps", "21"], "steps must be in 1..20, got 21"),
    (["--set", "eta=2"], "eta must be in [0, 1], got 2"),
    (["--set", "speed=2"], "ddpm has no sampling option 'speed'; it has by_norms, churn, eta, guidance"),
    (["--eta", "-1"], "eta must be in [0, 1], got -1"),
    (["--eta", "0.5", "--sampler", "heun"], "sampler 'heun' has no option 'eta'"),
    (["--sampler", "dpm-solver-4"], "sampler must be one of ddpm, ddim, euler"),
    (["--sampler", "flow-heun"], "flow-heun solves the straight path's ODE, not that of 'vp'"),
    (["--sampler", "dpm++-2m", "--set", "kind=late"], "kind must be 'midpoint' or 'heun', got 'late'"),
    (["--sampler", "unipc-3", "--set", "order=4"], "ddpm has no sampling option 'order'"),
    (["--set", "guidance=strong"], "sampling option guidance is like 0.0, got 'strong'"),
    (["--out", "x.jpg"], "--out must end in .png (a picture) or .npz (arrays), got x.jpg"),
    (["--out", "/proc/refimpl/x.png"], "cannot write into /proc/refimpl: no such file or directory"),
    (["--backend", "abacus"], "backend must be one of reference"),
])
def test_sampling_mistakes(run, arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(capsys, "sample", run, *arguments)


def test_damaged_checkpoints(copy, capsys):
    path = copy / train.CHECKPOINT
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert "is no whole safetensors file" in refused(capsys, "sample", copy)
    save_file({"w": np.ones(2)}, path)
    assert "no checkpoint of this project" in refused(capsys, "train", "--resume", copy)
    path.write_bytes(whole)
    tensors, meta = load_file(path), checkpoint.load(path)[1]
    tensors["params/model/linear_in.bias"][0] = np.nan
    save_file(tensors, path, {checkpoint.META: json.dumps(meta)})
    assert "hold NaN or infinity, the first is 'params/model/linear_in.bias'" in refused(capsys, "score", copy)
    del tensors["params/model/linear_in.bias"]
    save_file(tensors, path, {checkpoint.META: json.dumps(meta)})
    assert "holds the parameters of another network" in refused(capsys, "sample", copy)
    path.unlink()
    assert f"no checkpoint at {path}" in refused(capsys, "sample", copy)


def test_output_that_cannot_be_written(copy, capsys):
    assert "cannot write into" in refused(capsys, "train", "ddpm", *TINY, "--out", copy / train.CHECKPOINT / "x")
    assert "cannot write into" in refused(capsys, "demo", "--out", copy / train.CHECKPOINT)


def test_demo_from_end_to_end(tmp_path, capsys, monkeypatch):
    """Everything the demo does, with a model that has learnt nothing; resumed, it does not train again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(score, "count", lambda data: 100)
    arguments = ["demo", "--steps", "1", "--sampling-steps", "1", "--seeds", "1"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "yardsticks" in out and "MISSED   FDfeat" in out and "step 1 of 1" in err
    assert max(map(len, out.splitlines())) <= 100
    folder = tmp_path / "demo"
    pictures = ["denoising.gif", "loss.png", "neighbours.png", "samples.png"]
    assert sorted(os.listdir(folder)) == [train.CHECKPOINT, *pictures]
    assert Image.open(folder / "denoising.gif").format == "GIF"
    before = (folder / "samples.png").read_bytes()
    (folder / "samples.png").unlink()
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "step 1 of 1" not in err and (folder / "samples.png").read_bytes() == before
    assert json.loads(out)["figures"]["w=0.5"]["agreement"] < 0.5
    assert "holds another run" in refused(capsys, *arguments, "--seed", "1")


def test_the_reference_computes_where_the_cpu_backend_cannot(monkeypatch, capsys):
    from refimpl import commands, ops, train

    assert commands.computer()[0] == "cpu" and commands.computer("reference") == ("reference", ops)
    real = train.backend

    def without_numba(name):
        if name == "cpu":
            raise ImportError("backend 'cpu' cannot be used here: No module named 'numba'")
        return real(name)

    monkeypatch.setattr(train, "backend", without_numba)
    assert commands.computer() == ("reference", ops)
    assert "the reference computes: backend 'cpu' cannot be used here" in capsys.readouterr().err
    with pytest.raises(ImportError):
        commands.computer("cpu")
