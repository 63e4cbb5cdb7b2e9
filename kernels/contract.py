"""What an operation promises (Contract), what claims to keep the promise (Kernel), and the registry of both."""
import functools
import importlib
import inspect
from typing import NamedTuple

VERSION = 2  # of the contracts: a change of cases, bounds or conduct that can change a verdict raises it
MODULES = ("conv2d.contract", "conv_transpose2d.contract", "attention.contract", "attention.contract_vjp",
           "group_norm.contract", "batch_norm.contract", "modulated_conv2d.contract", "q_sample.contract",
           "noise_mse.contract", "sampler_step.contract")


class Large(NamedTuple):
    """Cases that are long in one direction and small in all others. axes: {name: length}, lengths above the limits that
    kernels have (tiles, 4096 terms, 65535 blocks, 2^16 elements); families: of values, each tried on every axis."""

    axes: dict
    families: tuple


class Contract(NamedTuple):
    """One operation's reference, inputs, error bounds and costs; each vjp has a contract of its own.

    outputs: their names. families: of values for the bounded cases. cases(d, family, **where) -> (args, options) draws
    a call in float64; besides the families it knows "integer", "nonfinite" and "empty". bounds: {algorithm: bound(args,
    options, outputs, arithmetic, proof, chain) -> one array an output}, args and outputs in the reference's wide type.
    slack: {algorithm: error of each output on integers}, else 0. spreads: algorithms that make whole tiles non-finite.
    flops, bytes: of (args, options), what the definition needs, and what must be read and written at least.
    slices(args, options, budget): parts of a large call whose largest temporary takes `budget` bytes, each
    (args, options, picks), picks one index an output or None. host: arguments that are float64 on the host, whatever
    the data's dtype and device. slips(args, options): (what, args, options), calls that a usual mistake amounts to.
    large: what its cases take as large=(axis, length).
    """

    operation: str
    reference: object
    outputs: tuple
    families: tuple
    cases: object
    bounds: dict
    flops: object
    bytes: object
    slices: object
    slack: dict = {}  # noqa: RUF012, never written to
    spreads: tuple = ()
    host: tuple = ()
    slips: object = lambda args, options: ()
    large: Large = Large({}, ())

    @property
    def names(self):
        """The names of the operation's arguments, in order."""
        return _names(self.reference)


@functools.cache
def _names(function):
    return tuple(inspect.signature(function).parameters)


class Kernel(NamedTuple):
    """Operation + backend + algorithm + code: nothing else. Reference, inputs and bounds are the contract's.

    operation: a name in refimpl.ops ("conv2d", "conv2d_vjp", ...). algorithm: a key of the contract's bounds, or a
    function of the operation's own arguments that returns the key (for a namespace's function, which chooses by shape).
    function: raw kernels take (out, *arguments, **options), out an array, or a tuple of arrays with None where an
    argument is None; others have the operation's own form and allocate. arithmetic: the type sums are accumulated in;
    dtype: of the data, when it is not the same. chain: h(M), the longest chain of additions in a sum of M terms, where
    the bound asks for it. where: the part of the contract's cases that the kernel is for, {"window": 3, "stride": 1},
    keywords of its cases; "large": the axes of the large ones that it is for, False for none. layout: memory order of
    the out arrays that a raw kernel is handed, "C" or "channels_last". version: its name where several kernels share an
    algorithm and its bound.
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
    version: str | None = None

    @property
    def data(self):
        """The data's dtype, by name."""
        return self.dtype or self.arithmetic

    @property
    def label(self):
        """Its name in tables and in the file of committed ceilings."""
        chosen = self.algorithm if isinstance(self.algorithm, str) else "chosen"
        return "/".join([self.operation, self.backend, self.version or chosen, self.data])


KERNELS = []
CONTRACTS = {}


def register(kernel):
    """Add a kernel to the registry; returns it. Modules kernels/<operation>/<backend>.py call this when imported."""
    KERNELS.append(kernel)
    return kernel


def registered(backend=None, device=None):
    """All kernels of a backend (or of every backend imported so far), after importing that backend.

    A backend's name says where it runs when that is not its own place: "cupy:host".
    """
    contracts()
    if backend is not None:
        from kernels import backend as namespace

        namespace(backend, device)
        backend = f"{backend}:host" if device == "host" else backend
    return [k for k in KERNELS if backend is None or k.backend == backend]


def contracts():
    """Every contract by the name of its operation; imports the modules of contracts of each."""
    for module in MODULES:
        importlib.import_module(f"kernels.{module}")
    return CONTRACTS


def contract(promise):
    """Enter a contract; the reference itself is its first kernel, in float32 and float64."""
    CONTRACTS[promise.operation] = promise
    for dtype in ("float32", "float64"):
        register(Kernel(promise.operation, "reference", "direct", promise.reference, dtype, raw=False))
    return promise
