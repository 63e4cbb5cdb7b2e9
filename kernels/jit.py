"""What every Numba kernel of the cpu backend shares: where it is cached, for which processor, one lock, one scratch.

A kernel is compiled at its first call, for one signature, and kept on disk under a key made of all kernels' sources:
Numba's own cache looks at the kernel's file alone and would run stale code after an edit of another.
"""
import functools
import hashlib
import os
import threading
from pathlib import Path

import llvmlite.binding as llvm
import numba
import numpy as np
from numba.core import config

from .cache import cache_folder

LOCK = threading.RLock()  # one parallel kernel at a time: Numba's workqueue layer aborts the process on a second
_local = threading.local()
_forked = False


def sources(folder=Path(__file__).parent):
    """The Python sources under a folder that have a part in kernels: all that import from this module, and this one."""
    return [path for path in sorted(Path(folder).rglob("*.py")) if b"jit import" in path.read_bytes()]


def sources_key(folder=Path(__file__).parent):
    """A hash of those sources, by name and content."""
    digest = hashlib.sha256()
    for path in sources(folder):
        for part in (path.relative_to(folder).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


@functools.cache
def compiled_folder():
    """Where compiled kernels go: $NUMBA_CACHE_DIR or the user's cache folder, else a temporary one for this process."""
    return cache_folder(sources_key(), base=os.environ.get("NUMBA_CACHE_DIR"))


def compiled_before():
    """Whether kernels of these sources have been compiled on this machine."""
    return any(compiled_folder().rglob("*.nbi"))


def _processor():
    """The features to compile for: the host's, with 512-bit vectors where it has them, unless the user has chosen.

    LLVM avoids 512-bit vectors on several processors that gain 1.2 to 1.4 times from them here.
    """
    if config.CPU_FEATURES is None and config.CPU_NAME is None:
        features = llvm.get_host_cpu_features()
        if features.get("avx512f"):
            config.CPU_FEATURES = features.flatten() + ",-prefer-256-bit"


def features():
    """The set of processor features that kernels are compiled for."""
    if config.CPU_FEATURES is not None:
        return {f[1:] for f in config.CPU_FEATURES.split(",") if f.startswith("+")}
    return {name for name, on in llvm.get_host_cpu_features().items() if on}


def _compiled(function, signature):
    """function compiled for one signature. Its cache is ours alone: the user's own functions keep theirs."""
    before, config.CACHE_DIR = config.CACHE_DIR, str(compiled_folder())
    try:
        # "contract" alone: reassociation and reciprocal estimates would undo the polynomials; sums are vectors by hand.
        return numba.njit(signature, parallel=True, nogil=True, cache=True, error_model="numpy",
                          fastmath={"contract"})(function)
    finally:
        config.CACHE_DIR = before


def kernel(signature):
    """Compile a function of prange loops at its first call; calls take turns, since they share Numba's threads."""
    def wrap(function):
        compiled = functools.cache(lambda: _compiled(function, signature))

        @functools.wraps(function)
        def call(*arguments):
            if _forked:
                raise RuntimeError("the cpu backend's threads did not survive the fork of this process: start helper "
                                   "processes with multiprocessing's 'spawn' method")
            with LOCK:
                return compiled()(*arguments)

        call.dispatcher = compiled
        return call
    return wrap


helper = numba.njit(error_model="numpy", fastmath={"contract"}, nogil=True)
helper.__doc__ = "A function that kernels call; compiled into each of them."
inlined = numba.njit(inline="always", error_model="numpy", fastmath={"contract"}, nogil=True)
inlined.__doc__ = "A helper written out where it is called, so that constant arguments become constants in it."


@functools.cache
def threads():
    """How many parts kernels cut their work into: Numba's threads at the first call."""
    return numba.get_num_threads()


def scratch(size, dtype=np.float32):
    """Uninitialised memory on a cache line's boundary, the same at every call of a Python thread: it stays in cache."""
    buffers = _local.__dict__.setdefault("buffers", {})
    if dtype not in buffers or buffers[dtype].size < size:
        itemsize = np.dtype(dtype).itemsize
        memory = np.empty(size * itemsize + 64, np.uint8)
        start = -memory.ctypes.data % 64
        buffers[dtype] = memory[start:start + size * itemsize].view(dtype)
    return buffers[dtype][:size]


def threading_layer():
    """Numba's threading layer: "omp", "tbb" or "workqueue", or None before the first parallel kernel has run."""
    try:
        return numba.threading_layer()
    except ValueError:
        return None


def _after_fork():
    """GNU's OpenMP ends a forked child that uses it again; the flag turns that into an exception."""
    global _forked, LOCK
    LOCK, _forked = threading.RLock(), threading_layer() == "omp"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
_processor()

IN = numba.types.Array(numba.float32, 1, "C", readonly=True)  # what kernels take: flat, read-only or not
OUT = numba.types.Array(numba.float32, 1, "C")
INT, FLOAT, BOOL = numba.int64, numba.float32, numba.boolean
