"""Who computes: our backends, and PyTorch where it is installed, each as a function of a workload's arguments."""
import importlib.util

import numpy as np

from kernels import backend

OURS = ("reference", "cpu", "cpu/out")  # cpu/out: the same kernels into outputs that are given, where one takes them
GPU = ("cupy", "numba_cuda")  # timed by gpu.py
THEIRS = ("torch", "torch-compiled")


def available(names):
    """{name: prepare(workload) -> function without arguments that returns the outputs}, and {name: why not}."""
    ready, missing = {}, {}
    for name in names:
        try:
            if name == "cpu/out":
                ready[name] = _into
            elif name in OURS:
                ready[name] = _ours(backend(name))
            elif importlib.util.find_spec("torch") is None:
                missing[name] = "PyTorch is not installed"
            else:
                ready[name] = _torch(name == "torch-compiled")
        except (ImportError, RuntimeError) as error:
            missing[name] = str(error)
    return ready, missing


def _ours(namespace):
    def prepare(work):
        function, case = getattr(namespace, work.operation), work.case
        return lambda: function(*case.args, **case.options)

    return prepare


def _into(work):
    from kernels.contract import registered

    raw = [k.function for k in registered("cpu") if k.operation == work.operation and k.raw and k.layout == "C"]
    if len(raw) != 1:
        return None  # it chooses between kernels, or writes another order: its outputs are its own
    (kernel,), case = raw, work.case
    made = getattr(backend("cpu"), work.operation)(*case.args, **case.options)
    out = tuple(np.full_like(y, np.nan) for y in made) if isinstance(made, tuple) else np.full_like(made, np.nan)

    def fill():
        kernel(out, *case.args, **case.options)
        return out

    return fill


def _torch(compiled):
    from . import beside_torch

    def prepare(work):
        return beside_torch.prepare(work, compiled)

    return prepare


def outputs(result):
    """Outputs as a tuple of NumPy arrays or None, from wherever they are."""
    host = lambda r: r.get() if hasattr(r, "get") else r.cpu() if hasattr(r, "cpu") else r
    return tuple(None if r is None else np.asarray(host(r)) for r in (result if isinstance(result, tuple) else (result,)))
