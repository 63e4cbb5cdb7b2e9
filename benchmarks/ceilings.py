"""What this machine can do at most, measured beside the kernels: memory, matrix products, noise."""
from functools import cache

import numpy as np


@cache
def _triad():
    import numba

    @numba.njit(parallel=True, fastmath={"contract"})
    def triad(a, b, c, s):
        for i in numba.prange(a.size):
            a[i] = b[i] + s * c[i]

    return triad


def triad(nbytes):
    """A parallel triad a = b + s c that moves nbytes, and the bytes it moves."""
    n = max(nbytes // 12, 1024)
    a, b, c = (np.ones(n, np.float32) for _ in range(3))
    f = _triad()
    return (lambda: f(a, b, c, np.float32(0.5))), 12 * n


def product(nbytes):
    """A square float32 matrix product of about that footprint (at least 256, at most 1024), and its flops."""
    n = int(np.clip(np.sqrt(nbytes / 12), 256, 1024)) // 16 * 16
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, n, n), dtype=np.float32)
    out = np.empty_like(a)
    return (lambda: np.matmul(a, b, out=out)), 2 * n**3


def noise(numbers, backend):
    """The backend's own noise of that many numbers and nothing else: q_sample of zeros in cache-sized samples."""
    size = min(numbers, 1 << 16) // 4 * 4 or 4
    samples = max(1, numbers // size)
    x = np.zeros((1, size), np.float32)
    index = np.arange(1)

    def draw():
        for k in range(samples):
            backend.q_sample(x, 0.0, 1.0, (1, index, k))

    return draw, size * samples

