"""noise_mse and its vjp on the CUDA backends: the reference's arguments to the kernels'."""
import math

import numpy as np

from kernels import fits
from kernels.cuda import CHUNK, NULL, THREADS, blocks, counter, fours
from kernels.versions import Version

FILE = "noise_mse/noise_mse.cu"


def _noise(device, z, *arrays):
    """The arguments that all kernels share; arrays: those of e's shape, e first."""
    z, words = counter(device, z)
    n, size = arrays[0].shape[0], math.prod(arrays[0].shape[1:])
    whole = size % 4 == 0 and device.aligned(*arrays, *([] if z is NULL else [z]))
    return z, *words, *map(np.int32, (whole, n, size))


def noise_mse(device, e, z, version=None):
    """refimpl.ops.noise_mse. version: naive or best (two launches, the first in one pass over memory)."""
    e = device.data("e", e)
    n, size = e.shape[0], math.prod(e.shape[1:])
    loss = device.empty((n,))
    if n and version == "naive":
        device.launch(FILE, "noise_mse_naive", (blocks(n, THREADS),), (THREADS,), (loss, e, *_noise(device, z, e)))
    elif n:
        chunks = blocks(size, device.chunk)
        shares = device.empty((n, chunks))
        device.launch(FILE, "noise_mse_shares", (n, chunks), (THREADS,), (
            shares, e, np.int32(device.chunk), *_noise(device, z, e)))
        device.launch(FILE, "noise_mse_sum", (blocks(n, 32),), (32,), (loss, shares, *map(np.int32, (chunks, n, size))))
    return loss


def noise_mse_vjp(device, dy, e, z, version=None):
    """refimpl.ops.noise_mse_vjp in one pass over memory. version: naive or best."""
    dy, e, version = device.data("dy", dy), device.data("e", e), version or "best"
    keyed, n, size = isinstance(z, tuple), e.shape[0], math.prod(e.shape[1:])
    de, dz = device.empty(e.shape), NULL if keyed else device.empty(e.shape)
    if n:
        noise = _noise(device, z, e, de, *([] if keyed else [dz]))
        grid = blocks(n * size, THREADS) if version == "naive" else fours(n, size, noise[-3])
        device.launch(FILE, f"noise_mse_vjp_{version}", (grid,), (THREADS,), (de, dz, dy, e, *noise))
    return de, None if keyed else dz


def _fits(e, z, dy=None):
    return (e.size > 0 and e.size < 2**31 and fits.alike((e, dy), ("float32",)) and fits.noise(z, e)
            and (dy is None or dy.shape == e.shape[:1]))


def chain(size):
    """The longest chain of additions in best: a thread's share of a chunk, its warp and the warps, the chunks."""
    return 4 * blocks(min(size, CHUNK), 4 * THREADS) + 16 + blocks(size, CHUNK)


FUNCTIONS = [(noise_mse, _fits), (noise_mse_vjp, lambda dy, e, z: _fits(e, z, dy))]
VERSIONS = [Version(noise_mse, "naive", "fused"),
            Version(noise_mse, "best", "fused", chain=chain),
            *(Version(noise_mse_vjp, v, "fused") for v in ("naive", "best"))]
