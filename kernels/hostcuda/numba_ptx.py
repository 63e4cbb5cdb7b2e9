"""A Numba CUDA kernel on the CPU model: compiled to PTX without a driver, then executed by ptx.py."""
from types import SimpleNamespace
from unittest import mock

import numpy as np

from .build import HostCudaError
from .ptx import PtxModule


def compile_ptx(kernel, signature, cc=(8, 0)):
    """PTX of a Numba kernel (or of the Python function under it) for a signature, with its Python lines.

    Raises HostCudaError when numba-cuda is missing, or when another target answered than was asked for.
    """
    try:
        from numba import cuda
    except ImportError:
        raise HostCudaError("numba is not installed") from None
    if getattr(cuda, "implementation", "") != "NVIDIA":  # Numba's own target answers to the same name
        raise HostCudaError("numba-cuda is not installed: pip install 'refimpl-diffusion-gan[cuda-check]'")
    from numba.cuda import dispatcher

    # A device function that the kernel calls is compiled for the current device: there is none, so it is the target.
    with mock.patch.object(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=cc)):
        ptx, _ = cuda.compile_ptx(getattr(kernel, "py_func", kernel), signature, cc=cc, lineinfo=True)
    target = f".target sm_{cc[0]}{cc[1]}"
    if target not in ptx:
        raise HostCudaError(f"Numba compiled for another target than {target}")
    return ptx


def jit(kernel, signature, cc=(8, 0), **how):
    """launch(grid, block, args, shared_mem=0) of a Numba kernel; how: checked, order, seed, time_limit, traced."""
    module = PtxModule(compile_ptx(kernel, signature, cc), **how)
    function = module.get_function(module.names[0])
    function.name = kernel.__name__  # not the mangled one

    def launch(grid, block, args, shared_mem=0):
        if len(args) != len(signature):
            raise HostCudaError(f"{kernel.__name__}: {len(signature)} arguments expected, got {len(args)}")
        flat = [part for a, t in zip(args, signature) for part in _flat(kernel.__name__, a, t)]
        function(grid, block, flat, shared_mem)

    launch.module = module
    return launch


def _flat(name, value, kind):
    """An argument as Numba's calling convention passes it: an array is seven words and more."""
    if not hasattr(kind, "ndim"):
        return [np.dtype(str(kind)).type(value)]
    want = np.dtype(str(kind.dtype))
    if not isinstance(value, np.ndarray) or value.dtype != want or value.ndim != kind.ndim:
        raise HostCudaError(f"{name}: an array of {want} with {kind.ndim} axes expected, got "
                            f"{getattr(value, 'dtype', type(value).__name__)} {getattr(value, 'shape', '')}")
    if kind.layout == "C" and not value.flags.c_contiguous:
        raise HostCudaError(f"{name}: a C-contiguous array expected")
    return [np.uint64(0), np.uint64(0), np.int64(value.size), np.int64(value.itemsize), value,
            *map(np.int64, value.shape), *map(np.int64, value.strides)]
