"""Kernels that provably match refimpl.ops: one contract per operation, backends as namespaces, and the verdict."""
import importlib
from functools import cache
from types import SimpleNamespace

BACKENDS = ("reference", "cpu", "numba_cuda", "cupy")
DEVICES = ("gpu", "host")  # of numba_cuda and cupy: a GPU (the default), or the model of one in kernels/hostcuda


@cache
def backend(name, device=None):
    """A namespace with exactly the functions of refimpl.ops: the backend's own where it has them, else the reference's.

    Each backend but the reference is a module kernels.<name>, imported here and only here, whose FUNCTIONS maps names
    of refimpl.ops to functions of the same form; the CUDA backends have functions(device) instead. "cupy:host" is
    another way to say ("cupy", "host"). On a GPU the namespace also has to_device and to_host. Raises ValueError for an
    unknown name or device, ImportError where a package or a GPU is missing.
    """
    from refimpl import ops

    if device is None and ":" in name:
        name, device = name.split(":", 1)
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    if device is not None and (name not in ("numba_cuda", "cupy") or device not in DEVICES):
        raise ValueError(f"device must be gpu or host with backend numba_cuda or cupy, none with the others; "
                         f"got {device!r} with {name!r}")
    if name == "reference":
        return ops
    try:
        module = importlib.import_module(f"kernels.{name}")
        own = module.FUNCTIONS if hasattr(module, "FUNCTIONS") else module.functions(device or "gpu")
    except ImportError as error:
        raise ImportError(f"backend {name!r} cannot be used here: {error}") from error
    public = {n: f for n, f in vars(ops).items() if not n.startswith("_")}
    if unknown := sorted(set(own) - set(public) - {"to_device", "to_host"}):
        raise ValueError(f"backend {name!r} has functions that refimpl.ops has not: {', '.join(unknown)}")
    return SimpleNamespace(__name__=f"{name}:host" if device == "host" else name, **(public | own))
