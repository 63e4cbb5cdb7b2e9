"""q_sample on the CUDA backends: the reference's arguments to the kernel's."""
import math

import numpy as np

from kernels import fits
from kernels.cuda import NULL, THREADS, blocks, counter, fours
from kernels.versions import Version

FILE = "q_sample/q_sample.cu"


def q_sample(device, x0, signal, noise, z, version=None):
    """refimpl.ops.q_sample in one pass over memory. version: naive or vector."""
    x0, x_t = device.data("x0", x0), device.empty(x0.shape)
    n, size = x0.shape[0], math.prod(x0.shape[1:])
    z, words = counter(device, z)
    if x0.size:
        levels = (device.array(np.broadcast_to(v, (n,)) if np.ndim(v) == 0 else v, np.float32) for v in (signal, noise))
        whole = size % 4 == 0 and device.aligned(*(v for v in (x_t, x0, z) if v is not NULL))
        version = version or "vector"
        grid = blocks(x0.size, THREADS) if version == "naive" else fours(n, size, whole)
        device.launch(FILE, f"q_sample_{version}", (grid,), (THREADS,), (
            x_t, x0, z, *levels, *words, *map(np.int32, (whole, n, size))))
    return x_t


FUNCTIONS = [(q_sample, lambda x0, signal, noise, z: fits.alike((x0,), ("float32",)) and x0.size < 2**31
              and fits.q_sample(x0, signal, noise, z))]
VERSIONS = [Version(q_sample, v, "fused") for v in ("naive", "vector")]
