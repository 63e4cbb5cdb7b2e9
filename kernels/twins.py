"""CUDA kernels in Python, compiled by Numba: each the readable twin of a tiled kernel in CUDA C++, under its name.

A twin takes the C++ kernel's arguments, so one launcher serves both: where that has a pointer it has a flat array, and an
absent one has no elements.
"""
import functools
import importlib
import re
from typing import NamedTuple

import numpy as np
from numba import cuda, float32, int32, int64, types, uint8, uint32

from . import cuda as place

FLOATS, BYTES, WORDS = (types.Array(t, 1, "C") for t in (float32, uint8, uint32))
INT, LONG, WORD, FLOAT = int32, int64, uint32, float32


class Twin(NamedTuple):
    """A Python kernel and the types of its parameters."""

    function: object
    signature: tuple


def kernel(*signature):
    """A kernel for these types of parameters."""
    return lambda function: Twin(function, signature)


def device(function):
    """A function that kernels call; compiled into each of them."""
    return cuda.jit(device=True, forceinline=True)(function)


@device
def warp_sum(value):
    """The sum over a warp, for every lane."""
    for step in (16, 8, 4, 2, 1):
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, step)
    return value


@device
def block_sum(value, scratch):
    """The sum over a block, for every thread; scratch holds 32 floats. Ends with all past their last read of it."""
    lane, warp = cuda.threadIdx.x % 32, cuda.threadIdx.x // 32
    value = warp_sum(value)
    if lane == 0:
        scratch[warp] = value
    cuda.syncthreads()
    value = warp_sum(scratch[lane] if lane < cuda.blockDim.x // 32 else float32(0))
    cuda.syncthreads()
    return value


def twin(path, name):
    """The twin of a kernel, by the C++ one's file and name expression, whose numbers a template's twin takes."""
    module = importlib.import_module(f"kernels.{path.split('/')[0]}.numba_cuda")
    base, _, instance = name.partition("<")
    found = getattr(module, base, None)
    if found is None or re.search("half|bfloat", instance):
        raise ValueError(f"Numba has no twin of {name}")
    return found if isinstance(found, Twin) else found(*map(int, re.findall(r"\b\d+\b", instance)))


def arguments(signature, args, empty):
    """The launcher's arguments as a twin takes them: arrays flat, one without elements for NULL."""
    return [a if not isinstance(t, types.Array) else empty[t.dtype] if a is place.NULL else a.reshape(-1)
            for a, t in zip(args, signature, strict=True)]


def require_numba():
    """Raises ImportError in one sentence unless numba-cuda answers to numba.cuda: Numba's own target is another."""
    if getattr(cuda, "implementation", "") != "NVIDIA":
        raise ImportError("numba-cuda is not installed: pip install 'refimpl-diffusion-gan[cuda13]' (or cuda12, or, "
                          "without a GPU, cuda-check)")


def gpu():
    """The current GPU: CuPy's arrays and current stream, Numba's kernels."""
    require_numba()
    xp = place.array_module()
    empty = {t: xp.zeros(0, str(t)) for t in (float32, uint8, uint32)}

    @functools.cache
    def find(path, name):
        found = twin(path, name)
        compiled = cuda.jit(types.void(*found.signature))(found.function)

        def launch(grid, block, args, shared_mem=0):
            stream = cuda.external_stream(xp.cuda.get_current_stream().ptr)
            compiled[grid, block, stream, shared_mem](*arguments(found.signature, args, empty))

        return launch

    return place.Device("gpu", xp, xp.cuda.Device().attributes["MultiProcessorCount"], find)


def host(**options):
    """The CPU model, which executes the compiled PTX; options as kernels.cuda.host."""
    from .hostcuda import jit

    require_numba()
    empty = {t: np.zeros(0, str(t)) for t in (float32, uint8, uint32)}

    @functools.cache
    def find(path, name):
        found = twin(path, name)
        launch = jit(found.function, found.signature, **options)
        return lambda grid, block, args, shared_mem=0: launch(
            grid, block, arguments(found.signature, args, empty), shared_mem)

    return place.Device("host", np, 1, find)
