"""group_norm and its vjp on the CUDA backends: the reference's arguments to the kernels'."""
import math

import numpy as np

from kernels import fits
from kernels.cuda import ROOM, THREADS, blocks, group_chain, group_threads
from kernels.versions import Version

FORWARD, BACKWARD = "group_norm/group_norm.cu", "group_norm/group_norm_vjp.cu"


def kept(inputs, size, shared):
    """How many of a kernel's `inputs` arrays (forward 1: x; backward 2: x and dy) a block keeps between its passes.

    One block has a group of `size` floats of them in its `shared` bytes of shared memory; of groups too large for that, many
    blocks share one, and none keeps anything: the next pass, which needs what all of them found, is another launch.
    """
    return min(inputs, (shared - ROOM) // (4 * size))


def arrays_moved(inputs, held):
    """How many arrays of x's size must move, when blocks keep `held` of the inputs: the result once, and what is kept once.

    What is not kept is read by every pass that needs it: x by the statistics, backward by the sums of da and da x_hat, by
    the result; dy by those sums and the result. Forward 2 (x kept) or 3; backward 3 (both kept), 4 (x kept) or 6.
    """
    x = 1 if held else 1 + inputs
    dy = 0 if inputs == 1 else 1 if held == 2 else 2
    return x + dy + 1


def _one_launch(device, path, name, version, groups, arrays, args):
    """Launch a version over the groups. arrays: those of x's shape, the output first."""
    x = arrays[0]
    n_groups, pixels = x.shape[0] * groups, math.prod(x.shape[2:])
    size = x.shape[1] // groups * pixels
    keep = {"best": len(arrays) - 1, "x_kept": 1}.get(version, 0)
    if keep:
        version = f"best<{_width(device, pixels, *arrays)}{f', {keep}' if len(arrays) > 2 else ''}>"
    threads = group_threads(size)
    grid = blocks(n_groups, threads) if version == "naive" else n_groups
    device.launch(path, f"{name}_{version}", (grid,), (threads,), (
        *args, *map(np.int32, (n_groups, groups, size, pixels))), 4 * size * keep)


def _width(device, pixels, *arrays):
    """Floats an access: four that share a channel, where all start on 16 bytes."""
    return 4 if pixels % 4 == 0 and device.aligned(*arrays) else 1


def _partial(device, x, groups, width):
    """What is known of each group's chunks: (their mean, their squares about it)."""
    size = x[0].size // groups
    partial = device.empty((x.shape[0] * groups, blocks(size, device.chunk), 2))
    device.launch(FORWARD, f"group_norm_partial<{width}>", partial.shape[:2], (THREADS,), (
        partial, x, np.int32(size), np.int32(device.chunk)), 4 * min(size, device.chunk))
    return partial


def _two_launches(device, y, x, g, b, groups, numbers):
    """For groups of any size: the statistics of chunks, then every chunk normalises itself."""
    pixels, size = math.prod(x.shape[2:]), x[0].size // groups
    width = _width(device, pixels, y, x)
    partial = _partial(device, x, groups, width)
    device.launch(FORWARD, f"group_norm_apply<{width}>", partial.shape[:2], (THREADS,), (
        y, x, g, b, partial, *numbers, *map(np.int32, (groups, size, pixels, device.chunk))))


def _four_launches(device, dx, sums, dy, x, g, b, groups, stabiliser, silu):
    """The same for the gradients: statistics of chunks, sums over slices of channels, means of groups, every slice's dx."""
    n, c, pixels = *x.shape[:2], math.prod(x.shape[2:])
    size, slices = x[0].size // groups, blocks(pixels, device.chunk)
    width, threads = _width(device, pixels, dx, dy, x), group_threads(min(pixels, device.chunk))
    partial = _partial(device, x, groups, width)
    shares, means = device.empty((2, n * c, slices)), device.empty((n * groups, 4))
    given = dy, x, g, b, *map(np.int32, (silu, groups, size, pixels, device.chunk))
    device.launch(BACKWARD, f"group_norm_vjp_shares<{width}>", (n * c, slices), (threads,), (
        shares, partial, stabiliser, np.int32(device.chunk), *given))
    device.launch(BACKWARD, "group_norm_vjp_means", (n * groups,), (THREADS,), (
        means, sums[0], sums[1], shares, partial, g, stabiliser, *map(np.int32, (
            device.chunk, n * groups, groups, size, pixels, slices))))
    device.launch(BACKWARD, f"group_norm_vjp_apply<{width}>", (n * c, slices), (threads,), (dx, means, *given))


def group_norm(device, x, gamma, beta, groups, stabiliser=1e-5, silu=False, version=None):
    """refimpl.ops.group_norm. version: naive, tiled, best (in shared memory) or partial (two launches)."""
    x, g, b = (device.data(n, a) for n, a in (("x", x), ("gamma", gamma), ("beta", beta)))
    y = device.empty(x.shape)
    if x.size:
        version = version or ("best" if kept(1, x[0].size // groups, device.shared) else "partial")
        numbers = np.float32(stabiliser), np.int32(silu)
        if version == "partial":
            _two_launches(device, y, x, g, b, groups, numbers)
        else:
            _one_launch(device, FORWARD, "group_norm", version, groups, (y, x), (y, x, g, b, *numbers))
    return y


def group_norm_vjp(device, dy, x, gamma, beta, groups, stabiliser=1e-5, silu=False, version=None):
    """refimpl.ops.group_norm_vjp. version: naive, tiled, best (x and dy in shared memory), x_kept (x alone) or partial."""
    dy, x, g, b = (device.data(n, a) for n, a in (("dy", dy), ("x", x), ("gamma", gamma), ("beta", beta)))
    n, c = x.shape[:2]
    dx, sums, total = device.empty(x.shape), device.empty((2, n, c)), device.empty((2, c))
    if x.size:
        version = version or ("partial", "x_kept", "best")[kept(2, x[0].size // groups, device.shared)]
        numbers = np.float32(stabiliser), np.int32(silu)
        if version == "partial":
            _four_launches(device, dx, sums, dy, x, g, b, groups, *numbers)
        else:
            _one_launch(device, BACKWARD, "group_norm_vjp", version, groups, (dx, dy, x), (
                dx, sums[0], sums[1], dy, x, g, b, *numbers))
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
            *(Version(group_norm_vjp, v, "two_pass") for v in ("naive", "tiled", "best", "x_kept", "partial"))]
