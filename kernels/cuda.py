"""Where CUDA kernels run: on a GPU through CuPy, or on the CPU model of kernels/hostcuda. One launcher serves both.

Sources are read here, tile sizes are chosen here, and nothing else in kernels knows which of the two it talks to.
"""
import functools
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

NULL = np.uint64(0)  # a pointer argument that is absent
HERE = Path(__file__).parent


ELEMENTS = {"float32": "float", "float16": "__half", "bfloat16": "__nv_bfloat16"}


def element(dtype):
    """A dtype's name in CUDA C++."""
    name = getattr(dtype, "name", str(dtype))
    if name not in ELEMENTS:
        raise TypeError(f"the CUDA kernels take {', '.join(ELEMENTS)}, got {name}")
    return ELEMENTS[name]


def source(path):
    """A .cu file with its own headers in place, so that NVRTC and g++ see the same text and the file's line numbers."""
    def header(match):
        lines = text.count("\n", 0, match.start()) + 2
        return f'#line 1 "{match[1]}"\n{(HERE / match[1]).read_text()}\n#line {lines} "{Path(path).name}"\n'

    text = (HERE / path).read_text()
    return re.sub(r'#include "([\w.]+\.cuh)"\n', header, text)


class Device(NamedTuple):
    """A place to run: its name, the module class of that place, its array module, and options for every module."""

    name: str
    module: object
    xp: object
    options: dict

    def function(self, path, name):
        """A kernel by its file under kernels/ and its name or name expression."""
        return _module(self, path, name if "<" in name else None).get_function(name)

    def launch(self, path, name, grid, block, args, shared_mem=0):
        """Run a kernel. Python numbers are refused by both places alike: an argument's width is the parameter's."""
        self.function(path, name)(grid, block, args, shared_mem=shared_mem)

    def empty(self, shape, dtype=np.float32):
        """Output memory; on the CPU model it is poisoned, so that an element that nobody writes shows."""
        return self.xp.full(shape, np.nan, dtype) if self.name == "host" else self.xp.empty(shape, dtype)

    def data(self, name, x):
        """x itself if it lives here, contiguous; a sentence if it lives elsewhere."""
        if not isinstance(x, self.xp.ndarray):
            raise TypeError(f"{name} is a {type(x).__module__}.{type(x).__name__}, but this backend works on "
                            f"{self.xp.__name__} arrays: move it explicitly")
        return self.xp.ascontiguousarray(x)


_MODULES = {}


def _module(device, path, expression):
    """A compiled module, kept: by place, options, file and the template instance asked for."""
    key = (device.name, tuple(sorted(device.options.items())), path, expression)
    if key not in _MODULES:
        names = {"name_expressions": [expression]} if expression else {}
        _MODULES[key] = device.module(code=source(path), options=("-std=c++17",), **names, **device.options)
    return _MODULES[key]


@functools.cache
def gpu():
    """The current GPU through CuPy. Raises ImportError or RuntimeError with one sentence when there is none."""
    try:
        import cupy
    except ImportError:
        raise ImportError("CuPy is not installed: pip install 'refimpl-diffusion-gan[cuda13]' (or cuda12)") from None
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError(f"CuPy finds no usable GPU ({error}); device 'host' runs these kernels on the CPU") from None
    return Device("gpu", cupy.RawModule, cupy, {})


def host(**options):
    """The CPU model; options are hostcuda.RawModule's: checked, order, seed, time_limit."""
    from .hostcuda import RawModule

    return Device("host", RawModule, np, options)
