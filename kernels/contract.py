"""What an operation promises (Contract), what claims to keep the promise (Kernel), and the registry of both."""
import importlib
from typing import NamedTuple

OPERATIONS = ("conv2d", "conv_transpose2d", "attention", "group_norm", "q_sample", "sampler_step")


class Kernel(NamedTuple):
    """Operation + backend + algorithm + code: nothing else. The reference, the inputs and the bounds are the contract's.

    operation: a name in refimpl.ops ("conv2d", "conv2d_vjp", ...). algorithm: a key of the contract's bounds, or a function of
    the operation's own arguments that returns the key (for a namespace's function, which chooses by shape).
    function: raw kernels take (out, *arguments, **options), out an array, or a tuple of arrays with None where an argument is
    None; others have the operation's own form and allocate. arithmetic: the type sums are accumulated in; dtype: of the data,
    when it is not the same. chain: h(M), the longest chain of additions in a sum of M terms, where the bound asks for it.
    where: the part of the contract's cases that the kernel is for, {"window": 3, "stride": 1}, the keywords of its cases.
    layout: memory order of the out arrays that a raw kernel is handed, "C" or "channels_last".
    """

    operation: str
    backend: str
    algorithm: object
    function: object
    arithmetic: str = "float32"
    dtype: str | None = None
    chain: object = None
    raw: bool = True
    where: dict = {}  # noqa: RUF012, never written to
    layout: str = "C"


KERNELS = []
CONTRACTS = {}


def register(kernel):
    """Add a kernel to the registry; returns it. Modules kernels/<operation>/<backend>.py call this when they are imported."""
    KERNELS.append(kernel)
    return kernel


def registered(backend=None):
    """All kernels of a backend (or of every backend imported so far), after importing that backend."""
    if backend is not None and backend != "reference":
        from kernels import backend as namespace

        namespace(backend)
    return [k for k in KERNELS if backend is None or k.backend == backend]


def contracts():
    """Every contract by the name of its operation; imports kernels/<operation>/contract.py of each."""
    for operation in OPERATIONS:
        importlib.import_module(f"kernels.{operation}.contract")
    return CONTRACTS
