"""A user's function on its own arrays: NumPy, PyTorch, CuPy or JAX, there and back through DLPack."""
import functools
import importlib
import inspect
import sys

import numpy as np

from .cases import each
from .judge import Defect, Misuse, together

FRAMEWORKS = ("numpy", "torch", "cupy", "jax")


def to_numpy(array, dtype):
    """The array itself; bfloat16 in ml_dtypes' type."""
    if dtype != "bfloat16":
        return array
    try:
        return array.astype(importlib.import_module("ml_dtypes").bfloat16)
    except ImportError:
        raise Misuse("NumPy has no bfloat16: install ml_dtypes, or give --arrays torch or jax") from None


def to_torch(array, dtype, device):
    """A tensor on a device, the CPU if None: the array's own memory there, where PyTorch can have it."""
    import torch

    if array.flags.writeable and all(s > 0 for s in array.strides):
        tensor = torch.from_dlpack(array)  # shares memory: the guard zones and hashes of the input watch it too
    else:  # PyTorch has neither read-only tensors nor negative strides
        tensor = torch.from_numpy(array.copy())
    return tensor.to(device or "cpu", torch.bfloat16 if dtype == "bfloat16" and array.dtype.kind == "f" else None)


def to_cupy(array, dtype, device):
    """A copy on the GPU."""
    import cupy

    if dtype == "bfloat16":
        raise Misuse("CuPy has no bfloat16: give --arrays torch or jax")
    return cupy.asarray(array)


def to_jax(array, dtype, device):
    """A JAX array on a device, JAX's first if None."""
    import jax

    made = jax.device_put(jax.numpy.asarray(array), jax.devices(device)[0] if device else None)
    if made.dtype != array.dtype:
        raise Misuse(f"JAX makes {array.dtype} into {made.dtype}: set JAX_ENABLE_X64=1, or leave float64 out")
    return made.astype(jax.numpy.bfloat16) if dtype == "bfloat16" and array.dtype.kind == "f" else made


def convert(framework, array, dtype, device):
    """An array of the framework with these values. Integers stay with NumPy: they are the host's."""
    if array.dtype.kind not in "fb":
        return array
    if framework == "numpy":
        return to_numpy(array, dtype if array.dtype.kind == "f" else None)
    return {"torch": to_torch, "cupy": to_cupy, "jax": to_jax}[framework](array, dtype, device)


def place_of(value):
    """The device of an array, in words."""
    if isinstance(value, np.ndarray):
        return "the host"
    device = value.device
    return str(device() if callable(device) else device)


def back(value):
    """An array of any framework as NumPy's, bfloat16 as float32; its dtype by name."""
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype == "bfloat16":
        value = value.float() if hasattr(value, "float") else value.astype("float32")
    if isinstance(value, np.ndarray):
        return value, dtype
    value = value.detach() if hasattr(value, "detach") else value
    if value.__dlpack_device__()[0] != 1:  # 1 is the host
        value = value.cpu() if hasattr(value, "cpu") else value.get() if hasattr(value, "get") else np.asarray(value)
    return (value if isinstance(value, np.ndarray) else np.from_dlpack(value)), dtype


def module_of(value):
    """The framework an object belongs to, or None."""
    name = type(value).__module__.split(".")[0]
    return {"jaxlib": "jax"}.get(name, name) if name in (*FRAMEWORKS, "jaxlib") else None


def adapt(function, operation, framework="numpy", dtype="float32", device=None, raw=False):
    """A user's function as one of NumPy arrays, which the verdict can call; what it returns is checked on the way."""
    passed = accepted(function)

    @functools.wraps(function)
    def adapted(*args, **options):
        inputs = []

        def there(array, path):
            made = convert(framework, array, dtype, device)
            inputs.append((array, made))
            return made

        given = tuple(each(there, a) for a in args)
        named = {k: each(there, v) for k, v in options.items() if passed(k)}
        missing = [k for k, v in options.items() if not passed(k) and v != default(operation, k)]
        if missing:
            raise Misuse(f"{function.__name__} takes no {missing[0]}, which the contract varies: pin it, "
                         f"--where {missing[0]}={default(operation, missing[0])}")
        result = function(*given, **named)
        outs = len(args[0]) if raw and isinstance(args[0], tuple) else 1 if raw else 0
        for array, made in inputs[outs:]:
            if made is not array and not np.array_equal(back(made)[0], array, equal_nan=array.dtype.kind == "f"):
                raise Defect("mutated", "changes its inputs")
        if raw:
            for array, made in inputs[:outs]:
                array[...] = back(made)[0]
            return None
        home = place_of(inputs[0][1])
        return tuple(None if y is None else returned(y, framework, dtype, home) for y in together(result))

    return adapted


def returned(value, framework, dtype, home):
    """An output as a NumPy array, once its framework, dtype and device are the inputs'."""
    if module_of(value) != framework:
        raise Defect("form", f"returns {type(value).__module__}.{type(value).__name__} where {framework} arrays go in")
    if place_of(value) != home:
        raise Defect("device", f"returns an array on {place_of(value)} where the inputs are on {home}")
    array, got = back(value)
    if got != dtype:
        raise Defect("dtype", f"returns {got} where the inputs are {dtype}")
    return array


def accepted(function):
    """A predicate on names of options: whether the function takes them. What has no signature takes all."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return lambda name: True
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return lambda name: True
    return lambda name: name in parameters


def default(operation, name):
    """The default of an operation's option."""
    from refimpl import ops

    return inspect.signature(getattr(ops, operation)).parameters[name].default


def guess(function):
    """The framework of a function's arrays: the one that its module has imported by name, if it is one alone."""
    names = {getattr(v, "__name__", "").split(".")[0] for v in vars(sys.modules[function.__module__]).values()
             if inspect.ismodule(v)}
    found = [f for f in FRAMEWORKS[1:] if f in names]
    return found[0] if len(found) == 1 else "numpy"
