"""What the tests of the command line share: settings of a small model, and a command that must fail."""
from refimpl.__main__ import main

TINY = ["--set", "width=8", "--set", "depth=1", "--set", "T=20", "--batch", "16", "--preview-every", "0"]


def refused(capsys, *argv, status=1):
    """Run a command that must fail; returns its one sentence."""
    capsys.readouterr()
    assert main([str(a) for a in argv]) == status
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("refimpl: ")]
    assert len(lines) == 1 and "Traceback" not in err and out == ""
    return lines[0]
