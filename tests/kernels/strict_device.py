"""A GPU as the CUDA backends see it, without one: arrays that refuse conversion to NumPy, kernels on the CPU model.

And the mark of a test that needs a real one.
"""
import functools
from types import SimpleNamespace

import numpy as np
import pytest
from strict import StrictArray, to_host

from kernels import cuda


def no_gpu():
    """Why nothing can run on a GPU here, or None."""
    try:
        cuda.array_module()
    except ImportError as error:
        return str(error)


needs_gpu = pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))


def _made(function):
    return lambda *args, **options: StrictArray(function(*to_host(args), **to_host(options)))


XP = SimpleNamespace(__name__="strict", ndarray=StrictArray, **{f.__name__: _made(f) for f in (
    np.empty, np.zeros, np.asarray, np.ascontiguousarray, np.broadcast_to)})


class StrictDevice(cuda.Device):
    """A Device whose name is gpu: nothing is converted on the way to a kernel but by XP."""

    def to_host(self, x):
        return to_host(x)

    def aligned(self, *arrays):
        return all(to_host(a).ctypes.data % 16 == 0 for a in arrays)


def strict_device(place=cuda.host, **options):
    """The strict counterpart of a place on the CPU model."""
    inner = place(**options)

    @functools.cache
    def find(path, name):
        launch = inner.find(path, name)
        return lambda grid, block, args, shared_mem=0: launch(grid, block, to_host(tuple(args)), shared_mem=shared_mem)

    return StrictDevice("gpu", XP, inner.processors, find)
