"""The README is true to the letter: its files exist, its commands parse, its equation prints as it says."""
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from refimpl.data import NAMES
from refimpl.show import find

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:refimpl|kernels|benchmarks|tests)/[\w/.]*)`", TEXT))))
def test_files_exist(path):
    assert (ROOT / path).exists()


COMMANDS = sorted(set(re.findall(r"python -m ((?:refimpl|kernels|benchmarks)(?: [a-z]+)?)", TEXT)))


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command):
    words = [sys.executable, "-m", *shlex.split(command), "--help"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_two_commands_set_themselves_up():
    lines = [line for line in TEXT.splitlines() if line.startswith("python3 -m venv .venv")]
    assert len(lines) == 2
    assert lines[0].endswith(".venv/bin/python -m refimpl demo") and "'.[demo]'" in lines[0]
    assert "-m pytest" in lines[1] and "'.[test]'" in lines[1]


def test_data_names():
    line = re.search(r"Data: (.*?), or a path", TEXT, re.DOTALL)[1]
    assert sorted(re.findall(r"`(\w+)`", line)) == sorted(NAMES)


def test_the_equation_prints_as_the_readme_says(capsys):
    """Every line of the sample but the errors, which are measured anew each time."""
    from refimpl.__main__ import main

    assert main(["show", "posterior"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    sample = re.search(r"```text\nposterior .*?\n(.*?)\nfacts", TEXT, re.DOTALL)[1]
    for line in sample.split("\n"):
        if line.strip() != "...":
            assert " ".join(line.split()) in printed, line
    assert find("posterior").__doc__


def test_the_cuda_example_raises_what_the_readme_says():
    from kernels.hostcuda import HostCudaError

    code = re.search(r"```python\n(import numpy as np\nfrom kernels import hostcuda.*?)```", TEXT, re.DOTALL)[1]
    with pytest.raises(HostCudaError, match=r"reverse at kernel.cu:5, thread .*(that no thread wrote|race)"):
        exec(code, {})
    with_barrier = code.replace("  out[", "  __syncthreads();\n  out[")
    names = {}
    exec(with_barrier, names)
    assert (names["y"] == names["x"][::-1]).all()


def test_the_table_of_times_is_the_committed_run():
    from benchmarks import compare
    from benchmarks.__main__ import markdown

    assert markdown(compare.load(ROOT / "docs/speed.json")) in TEXT
