"""python -m kernels: what it prints, what it exits with, and one sentence for every mistake."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import report
from kernels.__main__ import main
from kernels.contract import VERSION

MINE = '''
import ctypes
import numpy as np
from refimpl import ops

NUMBER = 3


def right(x0, signal, noise, z):
    return ops.q_sample(x0, signal, noise, z)


def doubled(x0, signal, noise, z):
    return 2 * ops.q_sample(x0, signal, noise, z)


def hangs(x0, signal, noise, z):
    while x0.ndim > 1:
        pass
    return ops.q_sample(x0, signal, noise, z)


def dies(x0, signal, noise, z):
    if x0.ndim > 1:
        ctypes.string_at(0)
    return ops.q_sample(x0, signal, noise, z)


def prints(x0, signal, noise, z):
    print("working")
    return ops.q_sample(x0, signal, noise, z)


def exits(x0, signal, noise, z):
    raise SystemExit("no memory " * 10000)


def limited(x0, signal, noise, z):
    if x0.size > 50000:
        raise MemoryError
    return ops.q_sample(x0, signal, noise, z)


def raises(x0, signal, noise, z):
    raise KeyError("weights")


def listed(x0, signal, noise, z):
    return ops.q_sample(x0, signal, noise, z).tolist()


def no_groups(x, w, b=None, stride=1, padding=0, dilation=1):
    return ops.conv2d(x, w, b, stride, padding, dilation)


def beyond(out, x0, signal, noise, z):
    out[...] = ops.q_sample(x0, signal, noise, z)
    np.lib.stride_tricks.as_strided(out.reshape(-1), (out.size + 1,), (out.itemsize,))[-1] = 1
'''


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    (tmp_path / "kernel_of_mine.py").write_text(MINE)
    (tmp_path / "broken_module.py").write_text("import nothing_of_that_name")
    (tmp_path / "wrong_module.py").write_text("1 / 0")
    (tmp_path / "ending_module.py").write_text("raise SystemExit('no licence')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def run(capsys, *words):
    status = main(["verify", *words])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_right_function_passes_and_its_certificate_says_what_was_tried(capsys, tmp_path):
    status, out, _ = run(capsys, "q_sample", "kernel_of_mine:right", "--examples", "12", "--json", "c.json")
    assert status == 0 and "passes" in out
    document = report.read("c.json", report.FORMAT, VERSION)
    (entry,) = document["entries"]
    assert document["verdict"] == entry["verdict"] == "passes" and document["version"] == VERSION
    assert entry["operation"] == "q_sample" and entry["cases"] > 12 and 0 < entry["worst_share"] < 1
    assert len(entry["inputs"]) == 32 and entry["seed"] == 0 and "threading_layer" in document["machine"]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_wrong_function_fails_with_a_script_and_a_guess(capsys):
    status, out, _ = run(capsys, "q_sample", "kernel_of_mine:doubled", "--examples", "12")
    assert status == 1 and "every element is 2 times the reference" in out
    assert "from kernel_of_mine import doubled" in out and "got" in out and "expected" in out


@pytest.mark.parametrize("function, words, kind", [("hangs", "did not return within 2 s", "no return"),
                                                   ("dies", "was killed by SIG", "no return")])
def test_a_function_that_does_not_come_back_is_stopped(function, words, kind, capsys):
    status, out, _ = run(capsys, "q_sample", f"kernel_of_mine:{function}", "--time-limit", "2", "--json", "-")
    (entry,) = json.loads(out)["entries"]
    assert status == 1 and words in entry["failure"]["says"] and entry["failure"]["kind"] == kind
    assert "x0 = np." in entry["failure"]["script"]


@pytest.mark.parametrize("function, words", [
    ("raises", "raises KeyError: 'weights'"), ("listed", "returns builtins.list where numpy arrays go in"),
    ("beyond --raw", "writes outside its output"), ("exits", "raises SystemExit: no memory no"),
    ("limited", "right in small cases")])
def test_bad_conduct_is_a_failure_not_an_error(function, words, capsys):
    name, *flags = function.split()
    status, out, _ = run(capsys, "q_sample", f"kernel_of_mine:{name}", "--examples", "5", *flags)
    assert status == 1 and words in out and "Traceback" not in out and len(out) < 50000


def test_what_a_function_prints_is_no_part_of_the_certificate():
    done = subprocess.run([sys.executable, "-m", "kernels", "verify", "q_sample", "kernel_of_mine:prints", "--examples", "5",
                           "--json", "-"], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(
                               [str(Path(__file__).parents[2]), os.getcwd()])})
    assert done.returncode == 0 and json.loads(done.stdout)["verdict"] == "passes" and "working" in done.stderr


def test_large_cases_can_be_left_out(capsys):
    status, _, _ = run(capsys, "q_sample", "kernel_of_mine:limited", "--examples", "5", "--where", "large=False")
    assert status == 0


@pytest.mark.parametrize("words, sentence", [
    (["conv3d"], "operation must be one of conv2d, conv2d_vjp"),
    (["q_sample", "--backend", "tpu"], "backend must be one of reference, cpu, numba_cuda, cupy, got 'tpu'"),
    (["q_sample", "no_module_here:f"], "there is no module 'no_module_here' here"),
    (["q_sample", "broken_module:f"], "broken_module cannot be imported: No module named 'nothing_of_that_name'"),
    (["q_sample", "wrong_module:f"], "wrong_module cannot be imported: ZeroDivisionError"),
    (["q_sample", "ending_module:f"], "ending_module cannot be imported: SystemExit: no licence"),
    (["q_sample", "kernel_of_mine:absent"], "module kernel_of_mine has no 'absent'"),
    (["q_sample", "kernel_of_mine:NUMBER"], "kernel_of_mine:NUMBER is not a function but int"),
    (["q_sample", "kernel_of_mine"], "a function is named module:function, got 'kernel_of_mine'"),
    (["q_sample", "kernel_of_mine:right", "--algorithm", "fast"], "algorithm must be one of direct, fused, got 'fast'"),
    (["q_sample", "kernel_of_mine:right", "--where", "colour=1"], "its cases have no 'colour' to pin"),
    (["q_sample", "kernel_of_mine:right", "--where", "z"], "--where takes NAME=VALUE, got 'z'"),
    (["conv2d", "kernel_of_mine:no_groups", "--examples", "40"], "no_groups takes no groups"),
], ids=lambda v: "" if isinstance(v, str) else "-".join(v).replace(":", "."))
def test_a_mistake_is_one_sentence_and_status_2(words, sentence, capsys):
    status, out, err = run(capsys, *words)
    assert status == 2 and sentence in err and len(err.strip().split("\n")) == 1 and "passes" not in out


def test_a_pin_makes_a_narrower_function_pass(capsys):
    status, out, _ = run(capsys, "conv2d", "kernel_of_mine:no_groups", "--examples", "10", "--where", "groups=1")
    assert status == 0 and "passes" in out


def test_the_table_names_operations_backends_layer_and_blas(capsys):
    assert main(["--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = {(r["operation"], r["backend"]) for r in document["kernels"]}
    assert ("conv2d", "reference") in rows and ("sampler_step_vjp", "reference") in rows
    assert document["machine"]["threading_layer"] in ("omp", "tbb", "workqueue") and document["machine"]["blas"]
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "attention" in out and "layer" in out and "BLAS" in out


def test_certificates_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "c.json"
    for text, words in (("{", "not JSON"), ("{}", "not a document of the format 'refimpl kernel certificate'"),
                        (json.dumps({"format": report.FORMAT, "version": 99}), "of version 99, this program reads")):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            report.read(path, report.FORMAT, VERSION)
