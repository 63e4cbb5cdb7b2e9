"""Group norm in Numba CUDA: the twin of group_norm.cu's and group_norm_vjp.cu's tiled kernels, one block a group."""
import math

from numba import cuda, float32

from kernels.cuda import group_chain
from kernels.twins import FLOAT, FLOATS, INT, block_sum, device, kernel, warp_sum
from kernels.versions import Version, only

from . import cupy_cuda as launcher


@device
def statistics(x, base, size, stabiliser, scratch):
    """Mean and 1/sigma of a group, in two passes: its second finds the group in the cache."""
    total, square = float32(0), float32(0)
    for i in range(cuda.threadIdx.x, size, cuda.blockDim.x):
        total += x[base + i]
    mean = block_sum(total, scratch) / float32(size)
    for i in range(cuda.threadIdx.x, size, cuda.blockDim.x):
        square += (x[base + i] - mean) * (x[base + i] - mean)
    return mean, float32(1) / math.sqrt(block_sum(square, scratch) / float32(size) + stabiliser)


@device
def affine(gamma, beta, c):
    """gamma and beta of a channel, 1 and 0 where there are none."""
    return gamma[c] if gamma.size > 0 else float32(1), beta[c] if beta.size > 0 else float32(0)


@kernel(FLOATS, FLOATS, FLOATS, FLOATS, FLOAT, INT, INT, INT, INT, INT)
def group_norm_tiled(y, x, gamma, beta, stabiliser, silu, n_groups, groups, size, pixels):
    """Neighbouring threads take neighbouring floats, so every byte fetched is used."""
    scratch = cuda.shared.array(32, float32)
    base, first = cuda.blockIdx.x * size, cuda.blockIdx.x % groups * (size // pixels)
    mean, inverse = statistics(x, base, size, stabiliser, scratch)
    for i in range(cuda.threadIdx.x, size, cuda.blockDim.x):
        g, b = affine(gamma, beta, first + i // pixels)
        a = g * ((x[base + i] - mean) * inverse) + b
        y[base + i] = a / (float32(1) + math.exp(-a)) if silu else a


@device
def through_silu(da, a, silu):
    """da times the slope of SiLU at a, or da."""
    if silu == 0:
        return da
    s = float32(1) / (float32(1) + math.exp(-a))
    return da * s * (float32(1) + a * (float32(1) - s))


@kernel(FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, FLOAT, INT, INT, INT, INT, INT)
def group_norm_vjp_tiled(dx, sum_g, sum_b, dy, x, gamma, beta, stabiliser, silu, n_groups, groups, size, pixels):
    """dx = (gamma da - s1 - x_hat s2)/sigma; a warp takes a channel, whose sums of da and da x_hat serve s1 and s2 too."""
    scratch = cuda.shared.array(32, float32)
    lane, warp, warps = cuda.threadIdx.x % 32, cuda.threadIdx.x // 32, cuda.blockDim.x // 32
    channels = size // pixels
    base, first = cuda.blockIdx.x * size, cuda.blockIdx.x % groups * channels
    mean, inverse = statistics(x, base, size, stabiliser, scratch)
    s1, s2 = float32(0), float32(0)
    for c in range(warp, channels, warps):
        g, b = affine(gamma, beta, first + c)
        to_b, to_g = float32(0), float32(0)
        for i in range(c * pixels + lane, (c + 1) * pixels, 32):
            x_hat = (x[base + i] - mean) * inverse
            da = through_silu(dy[base + i], g * x_hat + b, silu)
            to_b += da
            to_g += da * x_hat
        to_b, to_g = warp_sum(to_b), warp_sum(to_g)
        if lane == 0:
            sum_b[cuda.blockIdx.x * channels + c] = to_b
            sum_g[cuda.blockIdx.x * channels + c] = to_g
            s1 += g * to_b
            s2 += g * to_g
    s1, s2 = block_sum(s1, scratch) / float32(size), block_sum(s2, scratch) / float32(size)
    for i in range(cuda.threadIdx.x, size, cuda.blockDim.x):
        g, b = affine(gamma, beta, first + i // pixels)
        x_hat = (x[base + i] - mean) * inverse
        dx[base + i] = (g * through_silu(dy[base + i], g * x_hat + b, silu) - s1 - x_hat * s2) * inverse


@kernel(FLOATS, FLOATS, FLOATS, FLOATS, INT, INT)
def group_norm_vjp_sum(dgamma, dbeta, sum_g, sum_b, samples, channels):
    """The samples' shares added in a fixed order, one thread a channel."""
    c = cuda.grid(1)
    if c < channels:
        g, b = float32(0), float32(0)
        for n in range(samples):
            g += sum_g[n * channels + c]
            b += sum_b[n * channels + c]
        dgamma[c] = g
        dbeta[c] = b


FUNCTIONS = only("tiled", launcher.FUNCTIONS)
VERSIONS = [Version(launcher.group_norm, "tiled", "two_pass", chain=group_chain),
            Version(launcher.group_norm_vjp, "tiled", "two_pass")]
