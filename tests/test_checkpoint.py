"""Checkpoints: what is written is read back, and nothing that goes wrong costs the file that was there."""
import errno
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from refimpl import checkpoint

TENSORS = {"params/net/w": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.asarray(7),
           "empty": np.zeros((0, 3))}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, TENSORS, {"step": 3, "config": {"system": "ddpm"}})
    return path


def test_round_trip(file):
    tensors, meta = checkpoint.load(file)
    assert meta == {"step": 3, "config": {"system": "ddpm"}} and tensors.keys() == TENSORS.keys()
    for k, a in TENSORS.items():
        assert tensors[k].dtype == a.dtype and tensors[k].shape == a.shape and np.array_equal(tensors[k], a)
    assert np.array_equal(load_file(file)["params/net/w"], TENSORS["params/net/w"])
    assert os.listdir(file.parent) == [file.name]


def test_equal_contents_are_equal_bytes(file):
    before = file.read_bytes()
    checkpoint.save(file, dict(reversed(TENSORS.items())), {"config": {"system": "ddpm"}, "step": 3})
    assert file.read_bytes() == before


def test_strided_arrays_keep_their_values(tmp_path, rng):
    a = rng.standard_normal((4, 5, 6))
    checkpoint.save(tmp_path / "c", {"a": a.transpose(2, 0, 1), "b": a[::2, ::-1]}, {})
    tensors, _ = checkpoint.load(tmp_path / "c")
    assert np.array_equal(tensors["a"], a.transpose(2, 0, 1)) and np.array_equal(tensors["b"], a[::2, ::-1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_neither_written_nor_read(file, bad):
    before = file.read_bytes()
    broken = TENSORS | {"params/net/w": np.array([1, bad])}
    with pytest.raises(ValueError, match=r"refusing to write .* 1 of 3 tensors hold NaN or infinity.*'params/net/w'"):
        checkpoint.save(file, broken, {})
    assert file.read_bytes() == before
    save_file(broken, file, {checkpoint.META: "{}"})
    with pytest.raises(ValueError, match="is damaged: 1 of 3 tensors hold NaN or infinity"):
        checkpoint.load(file)


@pytest.mark.parametrize("harm", [lambda b: b[:-3], lambda b: b[:20], lambda b: b"", lambda b: b"\x89PNG" + b,
                                  lambda b: b[:30] + b"\xff" + b[31:]])
def test_damaged_file_is_one_sentence(file, harm):
    file.write_bytes(harm(file.read_bytes()))
    with pytest.raises(ValueError, match="is no whole safetensors file") as error:
        checkpoint.load(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_foreign_file_is_one_sentence(file):
    save_file({"w": np.ones(3)}, file)
    with pytest.raises(ValueError, match="is a safetensors file but no checkpoint of this project"):
        checkpoint.load(file)


def test_missing_file():
    with pytest.raises(OSError, match="no checkpoint at nowhere"):
        checkpoint.load("nowhere")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failed_write_keeps_the_old_file(file, call, monkeypatch):
    before = file.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=r"cannot write .*: no space left on device; the file that was there is kept"):
        checkpoint.save(file, {"a": np.ones(100)}, {})
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]


def test_real_write_failure_in_the_middle(file):
    """A limit on file size makes the kernel refuse the bytes half-way, as a full disk does."""
    before = file.read_bytes()
    code = ("import sys, numpy as np; from refimpl import checkpoint\n"
            "try: checkpoint.save(sys.argv[1], {'a': np.ones(10**6)}, {})\n"
            "except OSError as error: sys.exit(str(error))")
    run = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True,
                         preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
    assert run.returncode == 1
    assert run.stderr == f"cannot write {file}: file too large; the file that was there is kept\n"
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]


def test_folder_that_cannot_be_written(file):
    with pytest.raises(OSError, match=r"cannot write into .*: not a directory"):
        checkpoint.folder(file / "runs")
    with pytest.raises(OSError, match=r"cannot write into .*: file exists"):
        checkpoint.folder(file)
    with pytest.raises(OSError, match=r"cannot write .*: not a directory"):
        checkpoint.write(file / "x", b"")
    assert checkpoint.folder(file.parent / "a" / "b").is_dir() and not os.listdir(file.parent / "a" / "b")


def test_nesting():
    trees = {"params": {"g": {"a/b": np.ones(1)}, "d": {"c.d": np.zeros(1)}}, "state": {"g": {}, "d": {}}}
    flat = checkpoint.nest(trees)
    assert flat.keys() == {"params/g/a/b", "params/d/c.d"}
    assert checkpoint.unnest(flat, "params", ["g", "d"]) == trees["params"]
    assert checkpoint.unnest(flat, "state", ["g", "d"]) == trees["state"]
