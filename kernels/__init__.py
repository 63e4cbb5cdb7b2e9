"""Kernels that provably match refimpl.ops: one contract per operation, backends as namespaces, and the verdict."""
import importlib
from functools import cache
from types import SimpleNamespace

BACKENDS = ("reference", "cpu", "numba_cuda", "cupy")


@cache
def backend(name):
    """A namespace with exactly the functions of refimpl.ops: the backend's own where it has them, else the reference's.

    Each backend but the reference is a module kernels.<name>, imported here and only here, whose FUNCTIONS maps names
    of refimpl.ops to functions of the same form. Raises ValueError for an unknown name, ImportError where a package is
    missing.
    """
    from refimpl import ops

    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    if name == "reference":
        return ops
    try:
        own = importlib.import_module(f"kernels.{name}").FUNCTIONS
    except ImportError as error:
        raise ImportError(f"backend {name!r} cannot be used here: {error}") from error
    public = {n: f for n, f in vars(ops).items() if not n.startswith("_")}
    if unknown := sorted(set(own) - set(public)):
        raise ValueError(f"backend {name!r} has functions that refimpl.ops has not: {', '.join(unknown)}")
    return SimpleNamespace(__name__=name, **(public | own))
