"""The simplified loss in Numba CUDA: the twins of noise_mse.cu's best kernels."""
from numba import cuda, float32, int32

from kernels.philox_twin import PITCH, noise_of, run_of, share_noise, turned
from kernels.twins import FLOATS, INT, WORD, WORDS, block_sum, kernel
from kernels.versions import Version, only

from . import cupy_cuda as launcher

NOISE = FLOATS, WORDS, WORD, WORD, WORD, INT, INT, INT


@kernel(FLOATS, FLOATS, INT, *NOISE)
def noise_mse_shares(shares, e, chunk, z, index, key_lo, key_hi, draw, whole, samples, size):
    """Sums of (e - z)^2 over chunks of a sample, one block each."""
    scratch, noise = cuda.shared.array(32, float32), cuda.shared.array((4, PITCH), float32)
    n, blocks = cuda.blockIdx.x, (size + 3) // 4
    low = n * blocks + cuda.blockIdx.y * chunk // 4
    high, each = min((n + 1) * blocks, low + chunk // 4), 2 * cuda.blockDim.x
    total = float32(0)
    for first in range(low, high, each):
        count = min(each, high - first)
        if z.size == 0:
            share_noise(noise, first, count, size, index, draw, key_lo, key_hi)
        start, length, head = run_of(first, count, size)
        for j in range(cuda.threadIdx.x, length, cuda.blockDim.x):
            i = turned(j, start, length, head)
            r = e[i] - (noise_of(noise, first, n, i - n * size, size) if z.size == 0 else z[i])
            total += r * r
    total = block_sum(total, scratch)
    if cuda.threadIdx.x == 0:
        shares[n * cuda.gridDim.y + cuda.blockIdx.y] = total


@kernel(FLOATS, FLOATS, INT, INT, INT)
def noise_mse_sum(loss, shares, chunks, samples, size):
    """The chunks' sums added in a fixed order, over the number of elements."""
    n = cuda.grid(1)
    if n < samples:
        total = float32(0)
        for j in range(chunks):
            total += shares[n * chunks + j]
        loss[n] = total / float32(size)


@kernel(FLOATS, FLOATS, FLOATS, FLOATS, *NOISE)
def noise_mse_vjp_best(de, dz, dL, e, z, index, key_lo, key_hi, draw, whole, samples, size):
    """de = 2 dL_n (e - z)/size, and dz = -de where it has elements; noise that was not given is formed again."""
    noise = cuda.shared.array((4, PITCH), float32)
    each = (1 if whole else 2) * cuda.blockDim.x
    first = cuda.blockIdx.x * each
    count = min(each, samples * ((size + 3) // 4) - first)
    if z.size == 0:
        share_noise(noise, first, count, size, index, draw, key_lo, key_hi)
    start, length, head = run_of(first, count, size)
    known, factor = int32(-1), float32(0)
    for j in range(cuda.threadIdx.x, length, cuda.blockDim.x):
        i = turned(j, start, length, head)
        n = i // size
        if n != known:
            known, factor = n, float32(2) * dL[n] / float32(size)
        d = factor * (e[i] - (noise_of(noise, first, n, i - n * size, size) if z.size == 0 else z[i]))
        de[i] = d
        if dz.size > 0:
            dz[i] = -d


FUNCTIONS = only("best", launcher.FUNCTIONS)
VERSIONS = [Version(launcher.noise_mse, "best", "fused", chain=launcher.chain),
            Version(launcher.noise_mse_vjp, "best", "fused")]
