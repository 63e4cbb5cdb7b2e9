"""group_norm and its vjp on the CUDA backends: the reference's arguments to the kernels'."""
import numpy as np

from kernels.cuda import NULL

FILE = "group_norm/group_norm.cu"
SHARED = 48 << 10  # bytes a group may take in shared memory
CHUNK = 8192       # floats a block, where a group does not fit


def _sizes(x, groups):
    """Number of groups, floats a group, pixels a channel, threads a block: enough for the group, at most 256."""
    n, c = x.shape[:2]
    pixels = int(np.prod(x.shape[2:]))
    size = c // groups * pixels
    return n * groups, size, pixels, min(256, max(32, -(-size // 128) * 32))


def _choose(size, pixels):
    """The fastest kernel that takes the shape: best wants whole float4s of a channel, and room in shared memory."""
    if 4 * size > SHARED - 256:
        return "partial"
    return "tiled" if size % 4 or pixels % 4 else "best"


def group_norm(device, x, gamma, beta, groups, stabiliser=1e-5, silu=False, algorithm=None):
    """refimpl.ops.group_norm. algorithm: naive, tiled, best, partial (two launches), or by shape."""
    x = device.data("x", x)
    y = device.empty(x.shape)
    if not x.size:
        return y
    g, b = (NULL if v is None else device.data("gamma, beta", v) for v in (gamma, beta))
    n_groups, size, pixels, threads = _sizes(x, groups)
    algorithm = algorithm or _choose(size, pixels)
    number = np.float32(stabiliser), np.int32(silu)
    if algorithm == "partial":
        chunks = -(-size // CHUNK)
        partial = device.empty((n_groups, chunks, 2))
        device.launch(FILE, "group_norm_partial", (n_groups, chunks), (256,), (
            partial, x, np.int32(size), np.int32(CHUNK)))
        device.launch(FILE, "group_norm_apply", (n_groups, chunks), (256,), (
            y, x, g, b, partial, *number, *map(np.int32, (groups, size, pixels, CHUNK))))
        return y
    grid = -(-n_groups // threads) if algorithm == "naive" else n_groups
    device.launch(FILE, f"group_norm_{algorithm}", (grid,), (threads,), (
        y, x, g, b, *number, *map(np.int32, (n_groups, groups, size, pixels))), 4 * size if algorithm == "best" else 0)
    return y


def group_norm_vjp(device, dy, x, gamma, beta, groups, stabiliser=1e-5, silu=False):
    """refimpl.ops.group_norm_vjp: one launch over the groups, one that adds the samples' dgamma and dbeta."""
    dy, x = device.data("dy", dy), device.data("x", x)
    n, c = x.shape[:2]
    dx, sums, total = device.empty(x.shape), device.empty((2, n, c)), device.empty((2, c))
    if x.size:
        g, b = (NULL if v is None else device.data("gamma, beta", v) for v in (gamma, beta))
        n_groups, size, pixels, threads = _sizes(x, groups)
        device.launch(FILE, "group_norm_vjp", (n_groups,), (threads,), (
            dx, sums[0], sums[1], dy, x, g, b, np.float32(stabiliser), np.int32(silu),
            *map(np.int32, (groups, size, pixels))))
        device.launch(FILE, "group_norm_vjp_sum", (-(-c // 128),), (128,), (
            total[0], total[1], sums[0], sums[1], np.int32(n), np.int32(c)))
    else:
        total[...] = 0
    return dx, None if gamma is None else total[0], None if beta is None else total[1]
