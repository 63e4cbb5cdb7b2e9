"""The committed ceilings of each kernel's worst share: a kernel that decays inside a loose bound still shows."""
import json
import math
from pathlib import Path

from . import BACKENDS, backend
from .contract import registered
from .verify import verify

FILE = Path(__file__).with_name("shares.json")
ROOM = 1.25  # between what was measured and the ceiling: other processors round otherwise


def ceilings():
    """{kernel's label: the largest share it may reach}."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def measure(examples=100, seeds=(0, 1)):
    """Verify every kernel that works here and write its ceiling anew; those of absent backends stay. Returns them all.

    Raises AssertionError where a kernel fails: no ceiling is kept of a wrong one.
    """
    found = ceilings()
    for name in BACKENDS:
        try:
            backend(name)
        except ImportError:
            continue
        for k in registered(name):
            shares = []
            for seed in seeds:
                verdict = verify(k, examples, seed)
                assert verdict.passed, f"{k.label}: {verdict.failure.defect}"
                shares.append(verdict.share)
            found[k.label] = rounded_up(ROOM * max(shares))
    FILE.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n", encoding="utf-8")
    return found


def rounded_up(value):
    """To two significant digits."""
    unit = 10.0 ** (math.floor(math.log10(max(value, 1e-9))) - 1)
    return float(f"{math.ceil(value / unit) * unit:.2g}")
