"""sampler_step on the CUDA backends: the reference's arguments to the kernel's."""
import math

import numpy as np

from kernels import fits
from kernels.cuda import NULL, QUADS, THREADS, blocks, counter
from kernels.versions import Version

FILE = "sampler_step/sampler_step.cu"
HISTORY = 3  # arrays that the kernel takes


def sampler_step(device, x, e_c, e_u=None, w=1.0, *, a, b, lo=None, hi=None, c_x=0.0, c_0=0.0, c_e=0.0, history=(),
                 c_h=(), z=None, sigma=0.0, version=None):
    """refimpl.ops.sampler_step in one pass over memory. version: naive, vector or best."""
    x, e_c, e_u = (device.data(n, v) for n, v in (("x", x), ("e_c", e_c), ("e_u", e_u)))
    hs = [device.data("history", h) for h in history] + [NULL] * (HISTORY - len(history))
    n, size, version = x.shape[0], math.prod(x.shape[1:]), version or "best"
    z, words = counter(device, z if sigma else None)

    def limit(value, none):
        if value is None or np.ndim(value) == 0:
            return NULL, none if value is None else value
        return device.array(value, np.float32), 0.0

    (lo, lo_all), (hi, hi_all) = limit(lo, -np.inf), limit(hi, np.inf)
    numbers = [w, a, b, lo_all, hi_all, c_x, c_0, c_e, *c_h, *[0.0] * (HISTORY - len(c_h)), sigma]
    x_s, x0_hat = device.empty(x.shape), device.empty(x.shape)
    if x.size:
        whole = size % 4 == 0 and device.aligned(*(v for v in (x_s, x0_hat, x, e_c, e_u, *hs, z) if v is not NULL))
        args = (x_s, x0_hat, x, e_c, e_u, lo, hi, *hs, z, *words, *map(np.float32, numbers),
                *map(np.int32, (whole, n, size)))
        if version == "naive":
            device.launch(FILE, "sampler_step_naive", (blocks(x.size, THREADS),), (THREADS,), args)
        else:
            grid = blocks(n * blocks(size, 4), THREADS * QUADS[version])
            device.launch(FILE, f"sampler_step_vector<{QUADS[version]}>", (grid,), (THREADS,), args)
    return x_s, x0_hat


def _fits(x, e_c, e_u=None, w=1.0, *, a, b, lo=None, hi=None, c_x=0.0, c_0=0.0, c_e=0.0, history=(), c_h=(), z=None,
          sigma=0.0):
    arrays = [v for v in (x, e_c, e_u, *history) if v is not None]
    return len(history) <= HISTORY and x.size < 2**31 and fits.alike(arrays, ("float32",)) and fits.sampler_step(
        x, arrays, (w, a, b, c_x, c_0, c_e, sigma, *c_h), lo, hi, history, c_h, z, sigma)


FUNCTIONS = [(sampler_step, _fits)]
VERSIONS = [Version(sampler_step, v, "fused") for v in ("naive", "vector", "best")]
