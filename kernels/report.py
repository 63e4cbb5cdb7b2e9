"""A verdict as plain data: what is printed, and the certificate that is written as JSON."""
import json
import os
import platform
import textwrap
from pathlib import Path

import numpy as np

from .contract import VERSION, contracts
from .diagnose import guesses
from .script import script

FORMAT = "refimpl kernel certificate"
SHOWN = 8  # failing elements in print


def entry(verdict, load=None, convert="", back=""):
    """One kernel's verdict as strings, numbers and lists. load: source that defines `kernel` in the script."""
    k, failure = verdict.kernel, verdict.failure
    out = {"operation": k.operation, "backend": k.backend, "algorithm": k.label.split("/")[2], "dtype": k.data,
           "arithmetic": k.arithmetic, "where": {n: v for n, v in k.where.items()}, "seed": verdict.seed,
           "examples": verdict.examples, "cases": verdict.cases, "refused": list(verdict.refused),
           "worst_share": verdict.share, "inputs": verdict.inputs, "seconds": round(verdict.seconds, 3),
           "verdict": "passes" if verdict.passed else "fails"}
    if failure:
        contract = contracts()[k.operation]
        out["failure"] = {
            "kind": failure.defect.kind, "says": failure.defect.sentence, "family": failure.case.family,
            "layout": failure.layout, "argument": failure.only, "guesses": guesses(k, contract, failure),
            "elements": elements(k, contract, failure),
            "script": script(contract, failure, load or source_of(k), convert, back, k.raw)}
    return out


def elements(kernel, contract, failure):
    """The worst failing elements: index, got, expected."""
    if failure.defect.numbers is None:
        return []
    got, reference, wrong = failure.defect.numbers
    with np.errstate(all="ignore"):
        error = np.where(wrong, np.nan_to_num(np.abs(got - reference), nan=np.inf), -1).reshape(-1)
    worst = np.argsort(-error, kind="stable")[:min(SHOWN, np.count_nonzero(wrong))]
    return [{"output": failure.defect.output, "index": [int(i) for i in np.unravel_index(i, wrong.shape)],
             "got": str(got.reshape(-1)[i]), "expected": str(np.float64(reference.reshape(-1)[i]))} for i in worst]


def source_of(kernel):
    """The lines that make a kernel's function known as `kernel`: an import, or for a version of one the registry."""
    f = kernel.function
    module, name = getattr(f, "__module__", ""), getattr(f, "__qualname__", "")
    if kernel.version:
        return (f"from kernels.contract import registered\n\n"
                f"kernel = next(k.function for k in registered({kernel.backend!r}) if k.label == {kernel.label!r})")
    if not module or not name.isidentifier():
        return "from somewhere import kernel  # put the function under test here"
    return f"from {module} import {name} as kernel"


def machine():
    """What the verdict was reached on: processor, versions, threads and the libraries of linear algebra."""
    import numba
    from threadpoolctl import threadpool_info

    blas = [f"{p['internal_api']} {p.get('version')}, {p['num_threads']} threads ({Path(p['filepath']).parent.name})"
            for p in threadpool_info() if p["user_api"] == "blas"]
    return {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform(),
            "python": platform.python_version(), "numpy": np.__version__, "numba": numba.__version__,
            "threads": numba.get_num_threads(), "threading_layer": threading_layer(), "blas": blas}


def processor():
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n")
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def threading_layer():
    """The threading layer that Numba's parallel loops take here; it shows only after one has run."""
    import numba

    from . import jit

    if layer := jit.threading_layer():
        return layer

    @numba.njit(parallel=True)
    def loop(a):
        for i in numba.prange(a.size):
            a[i] = i

    loop(np.empty(2))
    return numba.threading_layer()


def certificate(entries):
    """The JSON document of a run."""
    return {"format": FORMAT, "version": VERSION, "machine": machine(), "entries": entries,
            "verdict": "passes" if all(e["verdict"] == "passes" for e in entries) else "fails"}


def write(document, path):
    """Write a document where it belongs, at once: a reader never sees half of it. '-' is standard output."""
    text = json.dumps(document, indent=1) + "\n"
    if path == "-":
        print(text, end="")
        return
    partial = f"{path}.{os.getpid()}.tmp"
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(partial, path)


def read(path, format, version):
    """A document of this format and version from a file. Raises: ValueError with one sentence for anything else."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{path} is not JSON") from None
    if not isinstance(document, dict) or document.get("format") != format:
        raise ValueError(f"{path} is not a document of the format {format!r}")
    if document.get("version") != version:
        raise ValueError(f"{path} is of version {document.get('version')}, this program reads version {version}")
    return document


def explain(failed):
    """A failure in print: what, where, a guess, and a script."""
    f = failed["failure"]
    how = "" if f["layout"] in ("plain", "state") else f", {f['argument'] or 'all arrays'} {f['layout']}"
    lines = [f"{failed['operation']} ({failed['backend']}, {failed['algorithm']}, {failed['dtype']}): {f['says']}",
             f"  on this case, the smallest found: {f['family']} values{how}"]
    lines += [f"  {e['output']}{e['index']}: got {e['got']}, expected {e['expected']}" for e in f["elements"]]
    lines += [f"  perhaps: {g}" for g in f["guesses"]]
    return "\n".join(lines) + "\n\n" + textwrap.indent(f["script"].rstrip(), "    ")
