"""Two benchmark files: same, faster, slower, or can't tell, row by row."""
import numpy as np

from kernels.report import read

from .clock import medians

FORMAT, VERSION = "benchmarks", 1
SAME = 0.03  # a change smaller than this is none


def load(path):
    """A benchmark document. Raises: ValueError with one sentence for anything else."""
    return read(path, FORMAT, VERSION)


def compared(before, after):
    """[(row of before, ratio after/before, its interval, word)] for the rows that both have.

    Where the machine's own ceiling was timed in the same rounds, each round counts in units of it: what slows the whole
    machine slows no row. Raises: ValueError when the files are from different machines.
    """
    keys = ("processor", "cores", "threads", "blas")
    if differing := [k for k in keys if before["machine"].get(k) != after["machine"].get(k)]:
        raise ValueError(f"the two runs are from different machines ({', '.join(differing)} differ): times cannot be "
                         f"compared")
    index = lambda d: {(r["operation"], r["sizes"], r["provider"]): r for r in d["rows"]}
    old, new = index(before), index(after)
    found = []
    for key in old:
        if key not in new:
            continue
        a, b = (np.array(r["samples"]) / np.median(r.get("machine_samples", [1.0])) for r in (old[key], new[key]))
        rng = np.random.default_rng(0)
        ratios = medians(b, rng) / medians(a, rng)
        middle, low, high = float(np.median(b) / np.median(a)), *np.quantile(ratios, [0.025, 0.975])
        word = ("slower" if low > 1 + SAME else "faster" if high < 1 - SAME
                else "same" if low > 1 - 3 * SAME and high < 1 + 3 * SAME else "can't tell")
        found.append((old[key], middle, (float(low), float(high)), word))
    if not found:
        raise ValueError("the two runs have no row in common")
    return found
