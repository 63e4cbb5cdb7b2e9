"""A stand-in for a device array: it computes with NumPy and refuses what CuPy refuses.

It speaks NumPy's two protocols, as CuPy's arrays do, never converts to NumPy, and raises when a host array meets it.
What CuPy lacks was read off CuPy 14.2 beside NumPy 2.4.
"""
import sys
from types import SimpleNamespace

import numpy as np
from scipy import special

_LACKS = {"block", "insert", "unstack", "vecdot", "matvec", "vecmat", "spacing", "geomspace", "nanquantile",
          "nanpercentile", "histogram_bin_edges", "einsum_path", "polydiv", "polyint", "polyder", "isnat",
          "linalg.multi_dot", "linalg.svdvals", "linalg.trace", "linalg.diagonal", "linalg.outer", "linalg.tensordot",
          "linalg.matrix_norm", "linalg.vector_norm", "linalg.vecdot"}
_LACKS_ARGUMENTS = {"where", "initial", "like", "device", "subok", "weights"}
_FROM_HOST = {np.asarray, np.array}  # the two that copy to a device on purpose, reached through like=
_ATTRIBUTES = {"shape", "dtype", "ndim", "size", "strides", "itemsize", "nbytes", "flags"}
_METHODS = {"all", "any", "argmax", "argmin", "argsort", "astype", "clip", "conj", "copy", "cumsum", "dot", "fill",
            "flatten", "max", "mean", "min", "nonzero", "prod", "ravel", "repeat", "reshape", "round", "sort",
            "squeeze", "std", "sum", "swapaxes", "take", "transpose", "var", "view"}

HOST = {"signal", "noise", "sigma", "lo", "hi"}  # arguments that are coefficients: host floats, one or one per sample


def to_device(value):
    """A value with the arrays in it wrapped; integer arrays (t, labels, indices) and named tuples stay on the host."""
    if isinstance(value, np.ndarray):
        return value if np.issubdtype(value.dtype, np.integer) else StrictArray(value)
    if isinstance(value, dict):
        return {k: to_device(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(to_device(v) for v in value)
    return value


def special_functions(monkeypatch):
    """Put a stand-in for CuPy's special functions, which are a module of their own, where that is looked for."""
    def device_form(f):
        return lambda x: StrictArray(f(to_host(x)))

    module = SimpleNamespace(**{f.__name__: device_form(f) for f in (special.erf, special.ndtr, special.log_ndtr)})
    monkeypatch.setitem(sys.modules, "cupyx", SimpleNamespace(scipy=SimpleNamespace(special=module)))
    monkeypatch.setitem(sys.modules, "cupyx.scipy", SimpleNamespace(special=module))


def to_host(value):
    """The inverse of to_device: what a test compares."""
    return _walk(value, _unwrap)


def _walk(value, leaf):
    if isinstance(value, dict):
        return {k: _walk(v, leaf) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_walk(v, leaf) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, slice):
        return slice(*(_walk(v, leaf) for v in (value.start, value.stop, value.step)))
    return leaf(value)


def _unwrap(value):
    return value._host if isinstance(value, StrictArray) else value


def _argument(value):
    """What an argument stands for; a host array among them is the error this class is for."""
    if isinstance(value, np.ndarray):
        raise TypeError(f"a host array {value.dtype}{value.shape} meets a device array")
    return _unwrap(value)


def _result(value):
    """Device results are arrays, zero-dimensional ones included."""
    return StrictArray(np.asarray(value)) if isinstance(value, (np.ndarray, np.generic)) else value


def _refuse(name, kwargs):
    unknown = _LACKS_ARGUMENTS & {k for k, v in kwargs.items() if v is not None}
    if name in _LACKS or unknown:
        raise TypeError(f"a device array has no np.{name}({', '.join(unknown)})")


class StrictArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An ndarray that only device code may touch."""

    def __init__(self, host):
        self._host = host

    def __repr__(self):
        return f"StrictArray({self._host!r})"

    def __array__(self, *args, **kwargs):
        raise TypeError("a device array is not converted to NumPy silently")

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **kwargs):
        # SciPy's ufuncs are not CuPy's; of the methods that CuPy hands on, the code needs only add.at.
        known = getattr(np, ufunc.__name__, None) is ufunc
        if not known or not (method == "__call__" or (ufunc, method) == (np.add, "at")):
            raise TypeError(f"a device array has no {ufunc.__name__}.{method}")
        _refuse(ufunc.__name__, kwargs)
        kwargs = _walk(kwargs, _argument)
        if out:
            kwargs["out"] = _walk(out, _argument)
        host = getattr(ufunc, method)(*_walk(inputs, _argument), **kwargs)
        return out[0] if out else _walk(host, _result)

    def __array_function__(self, func, types, args, kwargs):
        module = func.__module__.removeprefix("numpy").lstrip(".")
        _refuse(f"{module}.{func.__name__}" if module else func.__name__, kwargs)
        leaf = _unwrap if func in _FROM_HOST else _argument
        out = kwargs.get("out")
        host = func(*_walk(args, leaf), **_walk(kwargs, leaf))
        return _walk(host, _result) if out is None else out

    def __getattr__(self, name):
        if name in _ATTRIBUTES:
            return getattr(self._host, name)
        if name in _METHODS:
            def method(*args, **kwargs):
                _refuse(name, kwargs)
                return _walk(getattr(self._host, name)(*_walk(args, _argument), **_walk(kwargs, _argument)), _result)
            return method
        raise AttributeError(f"a device array has no attribute {name}")

    real = property(lambda self: StrictArray(self._host.real))
    imag = property(lambda self: StrictArray(self._host.imag))
    T = property(lambda self: StrictArray(self._host.T))

    def __getitem__(self, index):
        return _result(self._host[_walk(index, _argument)])

    def __setitem__(self, index, value):
        self._host[_walk(index, _argument)] = _argument(value)

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def item(self):
        """One number, which waits for the device: allowed, as is bool(), float() and int() of one element."""
        if self._host.size != 1:
            raise TypeError(f"one element expected, got shape {self.shape}")
        return self._host.item()

    def __bool__(self):
        return bool(self.item())

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    __index__ = __int__
