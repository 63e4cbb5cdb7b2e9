"""group_norm and its vjp on the CUDA backends: the reference's arguments to the kernels'."""
import math

import numpy as np

from kernels import fits
from kernels.cuda import ROOM, THREADS, blocks, group_chain, group_threads
from kernels.versions import Version

FORWARD, BACKWARD = "group_norm/group_norm.cu", "group_norm/group_norm_vjp.cu"


def _launch(device, path, name, version, groups, arrays, args):
    """Launch a version over the groups. arrays: those of x's shape, the output first; best keeps the inputs' groups."""
    x = arrays[0]
    n_groups, pixels = x.shape[0] * groups, math.prod(x.shape[2:])
    size, shared = x.shape[1] // groups * pixels, 0
    if version == "best":
        shared = 4 * size * (len(arrays) - 1)
        version = f"best<{_width(device, pixels, *arrays)}>"
    threads = group_threads(size)
    grid = blocks(n_groups, threads) if version == "naive" else n_groups
    device.launch(path, f"{name}_{version}", (grid,), (threads,), (
        *args, *map(np.int32, (n_groups, groups, size, pixels))), shared)


def _width(device, pixels, *arrays):
    """Floats an access: four that share a channel, where all start on 16 bytes."""
    return 4 if pixels % 4 == 0 and device.aligned(*arrays) else 1


def _in_shared(device, x, groups, room):
    """Whether `room` arrays of a group's size fit a block's shared memory, beside what else is there."""
    return 4 * x[0].size // groups * room <= device.shared - ROOM


def _two_launches(device, y, x, g, b, groups, numbers):
    """For groups of any size: the statistics of chunks, then every chunk normalises itself."""
    pixels, size = math.prod(x.shape[2:]), x[0].size // groups
    grid = x.shape[0] * groups, blocks(size, device.chunk)
    partial, width = device.empty((*grid, 2)), _width(device, pixels, y, x)
    device.launch(FORWARD, f"group_norm_partial<{width}>", grid, (THREADS,), (
        partial, x, np.int32(size), np.int32(device.chunk)), 4 * min(size, device.chunk))
    device.launch(FORWARD, f"group_norm_apply<{width}>", grid, (THREADS,), (
        y, x, g, b, partial, *numbers, *map(np.int32, (groups, size, pixels, device.chunk))))


def group_norm(device, x, gamma, beta, groups, stabiliser=1e-5, silu=False, version=None):
    """refimpl.ops.group_norm. version: naive, tiled, best (in shared memory) or partial (two launches)."""
    x, g, b = (device.data(n, a) for n, a in (("x", x), ("gamma", gamma), ("beta", beta)))
    y = device.empty(x.shape)
    if x.size:
        version = version or ("best" if _in_shared(device, x, groups, 1) else "partial")
        numbers = np.float32(stabiliser), np.int32(silu)
        if version == "partial":
            _two_launches(device, y, x, g, b, groups, numbers)
        else:
            _launch(device, FORWARD, "group_norm", version, groups, (y, x), (y, x, g, b, *numbers))
    return y


def group_norm_vjp(device, dy, x, gamma, beta, groups, stabiliser=1e-5, silu=False, version=None):
    """refimpl.ops.group_norm_vjp. version: naive, tiled or best (in shared memory)."""
    dy, x, g, b = (device.data(n, a) for n, a in (("dy", dy), ("x", x), ("gamma", gamma), ("beta", beta)))
    n, c = x.shape[:2]
    dx, sums, total = device.empty(x.shape), device.empty((2, n, c)), device.empty((2, c))
    if x.size:
        version = version or ("best" if _in_shared(device, x, groups, 2) else "tiled")
        _launch(device, BACKWARD, "group_norm_vjp", version, groups, (dx, dy, x), (
            dx, sums[0], sums[1], dy, x, g, b, np.float32(stabiliser), np.int32(silu)))
        device.launch(BACKWARD, "group_norm_vjp_sum", (blocks(c, 128),), (128,), (
            total[0], total[1], sums[0], sums[1], np.int32(n), np.int32(c)))
    else:
        total[...] = 0
    return dx, None if gamma is None else total[0], None if beta is None else total[1]


def _fits(x, gamma, beta, groups, dy=None):
    return fits.alike((x, gamma, beta, dy), ("float32",)) and fits.group_norm(x, gamma, beta, groups, dy) and (
        x.size < 2**31)


FUNCTIONS = [(group_norm, lambda x, gamma, beta, groups, *_, **__: _fits(x, gamma, beta, groups)),
             (group_norm_vjp, lambda dy, x, gamma, beta, groups, *_, **__: _fits(x, gamma, beta, groups, dy))]
VERSIONS = [Version(group_norm, "naive", "two_pass"),
            *(Version(group_norm, v, "two_pass", chain=group_chain) for v in ("tiled", "best")),
            Version(group_norm, "partial", "two_pass", chain=lambda size: group_chain(size) + 14),  # the chunks' own tree
            *(Version(group_norm_vjp, v, "two_pass") for v in ("naive", "tiled", "best"))]
