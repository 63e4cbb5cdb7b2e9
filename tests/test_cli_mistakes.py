"""Every user's mistake is one sentence on stderr with a non-zero exit; so is a training that diverges or is stopped."""
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import TINY, refused

from refimpl import checkpoint, train
from refimpl.__main__ import main


@pytest.mark.parametrize("arguments, sentence", [
    (["train", "diffusion"], "system must be one of ddpm, "),
    (["systems", "diffusion"], "system must be one of ddpm, "),
    (["train"], "name a system to train, one of ddpm"),
    (["train", "ddpm", "--backend", "abacus"], "backend must be one of reference, cpu, numba_cuda, cupy, got 'abacus'"),
    (["train", "ddpm", "--data", "mnits"], "'mnits' is neither one of digits, moons"),
    (["train", "ddpm", "--set", "rat=1"], "ddpm has no setting 'rat'; it has T, attention"),
    (["train", "ddpm", "--set", "rate=fast"], "setting rate is like 0.002, got 'fast'"),
    (["train", "ddpm", "--set", "rate"], "--set takes NAME=VALUE, got 'rate'"),
    (["train", "ddpm", "--set", "steps=0"], "steps must be at least 1, got 0"),
    (["train", "ddpm", "--set", "schedule=quadratic"], "schedule must be one of linear, cosine, sigmoid"),
    (["train", "ddpm", "--set", "multipliers=[1,1,1,1,1]"], "needs sides divisible by 16"),
    (["train", "ddpm", "--data", "moons", "--set", "net=unet"], "a U-Net needs images"),
    (["train", "ddpm", "--set", "T=-5"], "T must be at least 1, got -5"),
    (["train", "--resume", "nowhere"], "no such folder: nowhere"),
    (["train", "gan", "--resume", "nowhere"], "--resume takes system from the run itself"),
    (["sample", "nowhere"], "no such folder: nowhere"),
    (["score", "nowhere"], "no such folder: nowhere"),
    (["score", "nothing.npz", "--data", "digits"], "no file nothing.npz"),
    (["score", "nothing.npz"], "scoring a file needs --data"),
    (["show", "posteriro"], "no function 'posteriro' in the reference; did you mean posterior"),
])
def test_mistakes_are_one_sentence(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(capsys, *arguments)
    assert not list(tmp_path.rglob(train.CHECKPOINT))


@pytest.mark.parametrize("arguments", [["paint"], [], ["train", "ddpm", "--steps", "0"], ["score"],
                                       ["train", "ddpm", "--seed", "-1"], ["sample", "x", "-n", "many"]])
def test_wrong_usage_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("usage: python -m refimpl")


def test_data_files_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + b"\0" * 9)
    assert "is cut off" in refused(capsys, "train", "ddpm", "--data", tmp_path, "--out", tmp_path / "run")
    (tmp_path / "train-images-idx3-ubyte").unlink()
    assert "holds no image" in refused(capsys, "train", "ddpm", "--data", tmp_path, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_diverging_training_is_one_sentence(tmp_path, capsys):
    sentence = refused(capsys, "train", "ddpm", "--data", "moons", *TINY, "--steps", "30", "--set", "rate=1e38",
                       "--set", "clip=0", "--out", tmp_path / "run")
    assert "of model is" in sentence and "still holds step 0" in sentence


def test_a_game_that_diverges_names_its_last_good_checkpoint(tmp_path, capsys):
    folder = tmp_path / "run"
    sentence = refused(capsys, "train", "wgan", "--data", "moons", "--batch", "8", "--preview-every", "0", "--steps", "60",
                       "--checkpoint-every", "1", "--set", "width=4", "--set", "rate=1e18", "--set", "clip_weights=0",
                       "--out", folder)
    step = int(re.search(r"checkpoint.safetensors still holds step (\d+)$", sentence)[1])
    assert re.match(r"refimpl: the (loss|gradient) of (discriminator|generator) is (nan|-?inf) at step", sentence)
    assert step == int(re.search(r"at step (\d+)", sentence)[1]) - 1 and str(folder) in sentence
    tensors, meta = checkpoint.load(folder / train.CHECKPOINT)
    assert meta["step"] == step and all(np.isfinite(a).all() for a in tensors.values())


@pytest.mark.parametrize("system, changes, sentence", [
    ("progressive", ["--batch", "6"], "batch must be a multiple of the group of 4 for the minibatch deviation, got 6"),
    ("dcgan", ["--set", "latent=0"], "dcgan: latent must be at least 1, got 0"),
    ("biggan", ["--set", "latent=7"], "latent a multiple of 3, got 7"),
    ("pix2pix", ["--data", "moons"], "pix2pix translates images, and samples of moons have shape"),
    ("cgan", ["--data", "swissroll"], "cgan needs labels, and swissroll has none")])
def test_games_that_do_not_fit_are_one_sentence(system, changes, sentence, tmp_path, capsys):
    assert sentence in refused(capsys, "train", system, *changes, "--preview-every", "0", "--out", tmp_path / "run")


def test_ctrl_c_is_one_sentence_and_130(tmp_path):
    folder = tmp_path / "run"
    heard = ("import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
             "from refimpl.__main__ import main; sys.exit(main(sys.argv[1:]))")
    process = subprocess.Popen([sys.executable, "-c", heard, "train", "ddpm", "--data", "moons", *TINY, "--steps",
                                "1000000", "--out", str(folder)], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (folder / train.CHECKPOINT).exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert err.splitlines()[-1].startswith("refimpl: interrupted at step ") and str(folder / train.CHECKPOINT) in err
    checkpoint.load(folder / train.CHECKPOINT)
