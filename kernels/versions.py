"""What the CUDA backends have in common: versions of kernels, each judged by itself, and the namespace made of the best.

A module kernels/<operation>/cupy_cuda.py or numba_cuda.py lists its VERSIONS: functions of (device, *the operation's
arguments, version=name), and for the namespace FUNCTIONS: the same, which choose a version by shape where none is named.
"""
import functools
import inspect
from typing import NamedTuple

import numpy as np

from refimpl import ops

from .cases import each, round_to
from .contract import Kernel, contracts, register

FLOATS = ("float32", "float16", "bfloat16")
HALVES = FLOATS[1:]
HOST = {"signal", "noise", "lo", "hi", "t"}  # arguments that are coefficients or times, numbers or one per sample


class Version(NamedTuple):
    """function(device, ..., version=name) as a kernel: its dtypes, the algorithm whose bound holds, as in Kernel."""

    function: object
    name: str
    algorithm: object
    dtypes: tuple = ("float32",)
    chain: object = None
    where: dict = {}  # noqa: RUF012, never written to


def bits(array):
    """bfloat16 values in a float array as uint16 of their bits."""
    return (np.ascontiguousarray(round_to(array, "bfloat16")).view(np.uint32) >> 16).astype(np.uint16)


def values(array):
    """The inverse of bits."""
    return (array.astype(np.uint32) << 16).view(np.float32)


def judged(version, device, dtype):
    """A version as a function of NumPy arrays, which the verdict calls: there and back where the device is another."""
    host = contracts()[version.function.__name__].host

    def there(array, path):
        if path.split("[")[0] in host or array.dtype.kind not in "fb":
            return array
        array = bits(array) if dtype == "bfloat16" and array.dtype.kind == "f" else array
        return array if device.name == "host" else device.xp.asarray(array)

    def back(y):
        y = y if device.name == "host" or y is None else y.get()
        return values(y) if dtype == "bfloat16" and y is not None else y

    parameters = tuple(inspect.signature(version.function).parameters)[1:]

    @functools.wraps(version.function)
    def call(*args, **options):
        args = [each(there, a, name) for a, name in zip(args, parameters)]
        result = version.function(device, *args, **each(there, options), version=version.name)
        return tuple(map(back, result)) if isinstance(result, tuple) else back(result)

    return call


def register_versions(backend, device, versions):
    """Enter every version in the registry, once for each of its dtypes. Large cases are for a GPU, not for its model."""
    pins = {} if device.name == "gpu" else {"large": False}
    for v in versions:
        for dtype in v.dtypes:
            register(Kernel(v.function.__name__, backend, v.algorithm, judged(v, device, dtype), "float32", dtype, v.chain,
                            raw=False, where=v.where | pins, version=v.name))


def own(function, fits, device):
    """A namespace's function: the kernels where they take the arguments, else the reference on the same arrays."""
    reference = getattr(ops, function.__name__)

    @functools.wraps(reference)
    def call(*args, **options):
        return function(device, *args, **options) if fits(*args, **options) else reference(*args, **options)

    return call


def only(version, functions):
    """(function, fits) with one version for every call, where a backend has no other."""
    def fixed(function):
        return functools.wraps(function)(functools.partial(function, version=version))

    return [(fixed(f), fits) for f, fits in functions]


def arrays_in(value):
    """The arrays in an argument."""
    if isinstance(value, (tuple, list)):
        for v in value:
            yield from arrays_in(v)
    elif isinstance(value, dict):
        yield from arrays_in(list(value.values()))
    elif isinstance(value, np.ndarray):
        yield value


def stays(device, function):
    """A function whose data must live on the device: NumPy arrays are refused, not taken along.

    Integers (times, labels, indices) and coefficients are the host's, whatever the data's device.
    """
    parameters, host = tuple(inspect.signature(function).parameters), HOST | {"like"}

    @functools.wraps(function)
    def call(*args, **options):
        for name, value in (*zip(parameters, args), *options.items()):
            if name not in host and any(a.dtype.kind in "fc" for a in arrays_in(value)):
                raise TypeError(f"{function.__name__}: {name} is a NumPy array, but this backend works on "
                                f"{device.xp.__name__} arrays: move it explicitly")
        return function(*args, **options)

    return call


def namespace(device, functions):
    """The functions of a backend on a device; functions: (function, fits) of every operation with kernels of its own."""
    mine = {f.__name__: own(f, fits, device) for f, fits in functions}
    if device.name == "host":
        return mine
    public = {n: f for n, f in vars(ops).items() if not n.startswith("_") and inspect.isfunction(f)}

    def normal(key, index, draw, shape, dtype=np.float32, like=None):
        return ops.normal(key, index, draw, shape, dtype, device.xp.empty(0) if like is None else like)

    normal.__doc__ = "As refimpl.ops.normal, on the device where like says nothing else: noise is data."
    moves = {"to_device": lambda a: device.xp.asarray(a) if a.dtype.kind in "fc" else a, "to_host": device.to_host}
    return {n: stays(device, f) for n, f in (public | mine).items()} | {"normal": normal} | moves


def backend(name, device, modules):
    """The functions of a backend on a device, after entering the modules' kernels in the registry."""
    for module in modules:
        register_versions(name if device.name == "gpu" else f"{name}:{device.name}", device, module.VERSIONS)
    return namespace(device, [f for module in modules for f in module.FUNCTIONS])
