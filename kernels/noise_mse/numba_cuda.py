"""The simplified loss in Numba CUDA: the twins of noise_mse.cu's best kernels."""
from numba import cuda, float32

from kernels.philox_twin import normal4
from kernels.twins import FLOATS, INT, WORD, WORDS, block_sum, device, kernel
from kernels.versions import Version, only

from . import cupy_cuda as launcher

NOISE = FLOATS, WORDS, WORD, WORD, WORD, INT, INT, INT


@device
def residual(out, e, z, index, key_lo, key_hi, draw, n, block, size):
    """out[:4] = four elements of e - z, 0 beyond the sample."""
    if z.size == 0:
        normal4(out, block, index[n], draw, key_lo, key_hi)
    for j in range(4):
        i = n * size + 4 * block + j
        if 4 * block + j < size:
            out[j] = e[i] - (out[j] if z.size == 0 else z[i])
        else:
            out[j] = float32(0)


@kernel(FLOATS, FLOATS, INT, *NOISE)
def noise_mse_shares(shares, e, chunk, z, index, key_lo, key_hi, draw, whole, samples, size):
    """Sums of (e - z)^2 over chunks of a sample, one block each."""
    scratch = cuda.shared.array(32, float32)
    r = cuda.local.array(4, float32)
    n, first = cuda.blockIdx.x, cuda.blockIdx.y * chunk // 4
    total = float32(0)
    for block in range(first + cuda.threadIdx.x, min((size + 3) // 4, first + chunk // 4), cuda.blockDim.x):
        residual(r, e, z, index, key_lo, key_hi, draw, n, block, size)
        total += r[0] * r[0] + r[1] * r[1] + (r[2] * r[2] + r[3] * r[3])
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
    blocks, q = (size + 3) // 4, cuda.grid(1)
    if q >= samples * blocks:
        return
    n, block = q // blocks, q % blocks
    r = cuda.local.array(4, float32)
    residual(r, e, z, index, key_lo, key_hi, draw, n, block, size)
    factor = float32(2) * dL[n] / float32(size)
    for j in range(min(4, size - 4 * block)):
        i = n * size + 4 * block + j
        de[i] = r[j] * factor
        if dz.size > 0:
            dz[i] = -(r[j] * factor)


FUNCTIONS = only("best", launcher.FUNCTIONS)
VERSIONS = [Version(launcher.noise_mse, "best", "fused", chain=launcher.chain),
            Version(launcher.noise_mse_vjp, "best", "fused")]
