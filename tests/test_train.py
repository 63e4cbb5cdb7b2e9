"""The trainer: exact resume whatever stops it, several players, and one sentence for everything that goes wrong."""
import errno
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from refimpl import checkpoint, data, ops, optim, train
from refimpl.ops.random import fold, normal
from refimpl.systems import ddpm, prior

SMALL = ddpm.DEFAULTS | prior.POINTS | {"width": 8, "depth": 1, "T": 20, "batch": 16, "steps": 24, "warmup": 2}


@pytest.fixture(scope="module")
def moons():
    return data.load("moons")


def settings(**changes):
    return SMALL | {"seed": 3, "checkpoint_every": 5, "preview_every": 0, "system": "ddpm", "data": "moons"} | changes


def run_to_the_end(folder, moons, resume=False, **changes):
    s = settings(**changes)
    return train.train(ddpm.build(s, moons), moons, ops=ops, folder=folder, settings=s, resume=resume)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, moons):
    """Bytes of the checkpoint of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    run_to_the_end(folder, moons)
    return (folder / train.CHECKPOINT).read_bytes()


class Raising:
    """ops, but q_sample raises at its n-th call."""

    def __init__(self, n, error):
        self.n, self.error = n, error

    def __getattr__(self, name):
        if name == "q_sample":
            self.n -= 1
            if self.n == 0:
                raise self.error
        return getattr(ops, name)


def test_training_lowers_the_loss(tmp_path, moons):
    run = run_to_the_end(tmp_path, moons, steps=100, width=32, rate=1e-2, checkpoint_every=0, prediction="eps")
    losses = run.history["model"]
    assert run.step == len(losses) == 100 and losses[-30:].mean() < 0.6 * losses[:5].mean()
    assert os.listdir(tmp_path) == [train.CHECKPOINT]


@pytest.mark.parametrize("at", [1, 5, 6, 13, 24])
def test_interrupted_and_resumed_ends_with_the_same_bits(at, tmp_path, moons, whole):
    s = settings()
    with pytest.raises(train.Interrupted, match=rf"interrupted at step {at - 1} of 24; .*train --resume {tmp_path}"):
        train.train(ddpm.build(s, moons), moons, ops=Raising(at, KeyboardInterrupt()), folder=tmp_path, settings=s)
    assert checkpoint.load(tmp_path / train.CHECKPOINT)[1]["step"] == at - 1
    run_to_the_end(tmp_path, moons, resume=True)
    assert (tmp_path / train.CHECKPOINT).read_bytes() == whole


CHILD = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children ignore it otherwise
from refimpl import data, ops, train
from refimpl.systems import ddpm, prior
sys.path.insert(0, sys.argv[1])
from test_train import settings
step = train.advance
train.advance = lambda *args: (time.sleep(0.004), step(*args))[1]
folder, s, moons = Path(sys.argv[2]), settings(), data.load("moons")
resume = (folder / train.CHECKPOINT).exists()
train.train(ddpm.build(s, moons), moons, ops=ops, folder=folder, settings=s, resume=resume)
"""


def child(folder):
    return subprocess.Popen([sys.executable, "-c", CHILD, os.path.dirname(__file__), str(folder)],
                            stderr=subprocess.PIPE, text=True)


def wait_for_change(path, process, before):
    while process.poll() is None and (not path.exists() or path.stat().st_mtime_ns == before):
        time.sleep(0.001)


def test_killed_and_resumed_ends_with_the_same_bits(tmp_path, whole):
    """SIGKILL, twice, at moments nobody chose."""
    path, chance = tmp_path / train.CHECKPOINT, random.Random(0)
    for _ in range(2):
        before = path.stat().st_mtime_ns if path.exists() else 0
        process = child(tmp_path)
        wait_for_change(path, process, before)
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        process.communicate()
    reached = checkpoint.load(path)[1]["step"]
    process = child(tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert reached < 24 and path.read_bytes() == whole


def test_ctrl_c_saves_and_says_where(tmp_path, whole):
    path = tmp_path / train.CHECKPOINT
    process = child(tmp_path)
    wait_for_change(path, process, 0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0 and f"everything so far is in {path}" in err
    process = child(tmp_path)
    assert process.wait(60) == 0 and path.read_bytes() == whole


def test_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path, moons):
    with pytest.raises(train.Diverged, match=rf"the (loss|gradient) of model is (nan|inf) at step \d+: .*{tmp_path}"):
        run_to_the_end(tmp_path, moons, rate=1e38, warmup=7, clip=0.0)
    tensors, meta = checkpoint.load(tmp_path / train.CHECKPOINT)
    assert meta["step"] in (0, 5) and len(tensors["history/model"]) == meta["step"]


def test_full_disk_keeps_the_last_checkpoint(tmp_path, moons, whole, monkeypatch):
    written, sync = [], os.fsync

    def full(descriptor):
        written.append(descriptor)
        if len(written) > 5:  # two calls for each checkpoint: file and folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*: no space left on device; the file that was there is kept"):
        run_to_the_end(tmp_path, moons)
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / train.CHECKPOINT)[1]["step"] == 10 and os.listdir(tmp_path) == [train.CHECKPOINT]
    run_to_the_end(tmp_path, moons, resume=True)
    assert (tmp_path / train.CHECKPOINT).read_bytes() == whole


def test_resume_refuses_what_does_not_belong(tmp_path, moons):
    run_to_the_end(tmp_path, moons, steps=3)
    other = moons._replace(train=moons.train + 1, spec="moved moons")
    with pytest.raises(ValueError, match="was trained on other data than moved moons holds now"):
        run_to_the_end(tmp_path, other, resume=True)
    with pytest.raises(ValueError, match="holds the parameters of another network than ddpm builds"):
        run_to_the_end(tmp_path, moons, resume=True, width=9)


def test_another_number_of_threads_is_said(tmp_path, moons, monkeypatch):
    run_to_the_end(tmp_path, moons, steps=3)
    monkeypatch.setattr(train, "threads", lambda: 77)
    notes, s = [], settings(steps=4)
    train.train(ddpm.build(s, moons), moons, ops=ops, folder=tmp_path, settings=s, resume=True, say=notes.append)
    assert len(notes) == 1 and "now 77" in notes[0]
    assert checkpoint.load(tmp_path / train.CHECKPOINT)[1]["threads"] == 77


def test_previews_come_when_due(tmp_path, moons):
    seen, s = [], settings(steps=8, preview_every=3)
    train.train(ddpm.build(s, moons), moons, ops=ops, folder=tmp_path, settings=s,
                preview=lambda run: seen.append(run.step))
    assert seen == [3, 6, 8]


def test_every_epoch_visits_every_sample_once(moons):
    small = moons._replace(train=np.arange(20.0).reshape(10, 2), train_labels=np.arange(10))
    rows = np.concatenate([train.batch_at(small, 5, step, 4).labels for step in range(15)])
    assert all(sorted(epoch) == list(range(10)) for epoch in rows.reshape(6, 10))
    assert len({tuple(epoch) for epoch in rows.reshape(6, 10)}) == 6
    large = train.batch_at(small, 5, 0, 25)  # a batch may be larger than the training set
    assert np.array_equal(large.labels, rows[:25]) and np.array_equal(large.x[:, 0], 2.0 * rows[:25])
    assert not np.array_equal(train.batch_at(small, 6, 0, 10).labels, rows[:10])


def game(every=1):
    """min_x max_y x y: two players of one number each, and a state that counts the moves."""
    def player(own, other, sign):
        def loss_and_grads(params, state, batch, key, ops):
            state = {**state, own: {"moves": state[own]["moves"] + 1}}
            value = params[own]["v"] * params[other]["v"]
            return sign * value[0], {"v": sign * params[other]["v"]}, state, {"key": key % 1000}
        return loss_and_grads

    def init(key):
        return {"v": normal(key, np.zeros(1, int), 0, (1,), np.float64)[0]}, {"moves": np.zeros(1)}

    descent = optim.Optimiser(lambda p, g, s, r: optim.sgd(p, g, s, r), lambda step: 0.1)
    return train.System("game", {"y": train.Player(init, player("y", "x", -1), descent),
                                 "x": train.Player(init, player("x", "y", 1), descent, every=every, ema=0.5)},
                        lambda params, state, n, key, ops, labels=None: np.zeros((n, 1)))


def test_players_move_in_turn(moons):
    system = game()
    run = train.begin(system, 0)
    x, y = run.params["x"]["v"][0], run.params["y"]["v"][0]
    assert x != y
    run, seen = train.advance(system, run, train.batch_at(moons, 0, 0, 4), 0, ops)
    y2 = y + 0.1 * x
    assert abs(run.params["y"]["v"][0] - y2) < 1e-15 and abs(run.params["x"]["v"][0] - (x - 0.1 * y2)) < 1e-15
    assert run.ema["y"] == {} and abs(run.ema["x"]["v"][0] - (0.1 * x + 0.9 * run.params["x"]["v"][0])) < 1e-15
    assert seen["x"]["key"] != seen["y"]["key"] and train.averaged(run)["y"] is run.params["y"]
    assert run.state["x"]["moves"] == run.state["y"]["moves"] == 1


def test_a_player_may_move_less_often(tmp_path, moons):
    s = {"seed": 0, "steps": 7, "batch": 4, "checkpoint_every": 2, "preview_every": 0}
    system = game(every=3)
    run = train.train(system, moons, ops=ops, folder=tmp_path, settings=s)
    assert len(run.history["y"]) == 7 and len(run.history["x"]) == 3
    again, _ = train.restore(tmp_path / train.CHECKPOINT, system, moons, 0)
    assert again.state["x"]["moves"] == 3 and again.optimiser["y"]["count"] == 7
    assert all(np.array_equal(a, b) for a, b in zip(again.history.values(), run.history.values()))


def test_keys_differ_by_purpose():
    keys = [fold(fold(0, purpose), n) for purpose in range(5) for n in range(20)]
    assert len(set(keys)) == 100
