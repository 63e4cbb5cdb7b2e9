"""Philox4x32-10 and Box-Muller in Numba CUDA: the twin of philox.cuh, the integers of refimpl.ops.random bit for bit."""
import math

from numba import cuda, float32, int32, uint32, uint64

from .twins import device


@device
def philox(c0, c1, c2, c3, k0, k1):
    """Ten rounds on four words of 32 bits under two."""
    for _ in range(10):
        p0, p1 = uint64(0xD2511F53) * uint64(c0), uint64(0xCD9E8D57) * uint64(c2)
        c0, c1, c2, c3 = (uint32(p1 >> uint64(32)) ^ c1 ^ k0, uint32(p1), uint32(p0 >> uint64(32)) ^ c3 ^ k1, uint32(p0))
        k0, k1 = uint32(k0 + uint32(0x9E3779B9)), uint32(k1 + uint32(0xBB67AE85))
    return c0, c1, c2, c3


@device
def box_muller(radius, angle):
    """Two normals from a word for the radius and a word for the angle, whose two top bits are the quadrant, exactly."""
    u = float32(1) - float32(int32(radius >> uint32(8))) * float32(2.0**-24)  # in (0, 1], exact
    r = math.sqrt(float32(-2) * math.log(u))
    # In units of pi the angle is exact.
    half_turns = float32(int32((angle >> uint32(6)) & uint32(0xFFFFFF))) * float32(2.0**-25)
    s, c = cuda.libdevice.sinpif(half_turns), cuda.libdevice.cospif(half_turns)
    quadrant = int32(angle >> uint32(30))
    odd, low = quadrant % 2 == 1, quadrant < 2
    z_cos, z_sin = (s, c) if odd else (c, s)
    return r * (-z_cos if odd == low else z_cos), r * (z_sin if low else -z_sin)


@device
def normal4(block, index, draw, key_lo, key_hi):
    """Elements 4 block .. 4 block + 3 of a sample's normal(key, index, draw)."""
    w0, w1, w2, w3 = philox(uint32(block), index, draw, uint32(0), key_lo, key_hi)
    (z0, z1), (z2, z3) = box_muller(w0, w1), box_muller(w2, w3)
    return z0, z1, z2, z3


# What follows is each_element of philox.cuh, which says why, in parts: a kernel steps through the elements itself.
PITCH = 512 + 8  # of `noise`, which is shared and has four rows


@device
def share_noise(noise, first, count, size, index, draw, key_lo, key_hi):
    """Form `count` blocks of noise, at most 512, from block `first` on. For all threads of a block."""
    blocks = (size + 3) // 4
    cuda.syncthreads()
    for j in range(cuda.threadIdx.x, count, cuda.blockDim.x):
        n = (first + j) // blocks
        noise[0, j], noise[1, j], noise[2, j], noise[3, j] = normal4(first + j - n * blocks, index[n], draw, key_lo, key_hi)
    cuda.syncthreads()


@device
def noise_of(noise, first, n, k, size):
    """The shared noise of a sample's element k."""
    return noise[k % 4, n * ((size + 3) // 4) + k // 4 - first]


@device
def start_of(block, size):
    """The first element, counted over all samples, of a block of four."""
    n = block // ((size + 3) // 4)
    return n * size + 4 * (block - n * ((size + 3) // 4))


@device
def run_of(first, count, size):
    """Where the elements of `count` blocks start, how many they are, and how many are before a multiple of 32 bytes."""
    start = start_of(first, size)
    length = start_of(first + count, size) - start
    return start, length, min((8 - start % 8) % 8, length)


@device
def turned(j, start, length, head):
    """The j-th element of a run from its first multiple of 32 bytes on, what is before that last."""
    return start + j + head if j < length - head else start + j + head - length
