"""Group norm with SiLU on the CPU: two passes for mean and variance over data that stays in cache, one to write.

Both memory orders have their own loops, since vectors run along the contiguous axis: along space for C-ordered images,
along channels for channels-last ones.
"""
import numpy as np
from numba import prange

from ..arrays import channels_last, flat, order, write
from ..contract import Kernel, register
from ..jit import BOOL, FLOAT, IN, INT, OUT, helper, kernel, scratch, threads
from ..memory import address, load_up_to, store_up_to
from ..simd import WIDTH, fma, sigmoid, splat, total
from ..sums import BLOCK, column_sums, run_sum


def chain(m):
    """The longest chain of additions in a sum over m elements: in a block, over blocks, over lanes or channels."""
    return BLOCK + -(-m // BLOCK)


@helper
def _spread(values, start, c, size, count, stabiliser, root):
    """Replace channel sums by their group's mean, or by 1/sqrt(mean + stabiliser), in every channel of the group."""
    for first in range(start, start + c, size):
        s = np.float32(0)
        for j in range(first, first + size):
            s += values[j]
        s /= np.float32(count)
        if root:
            s = np.float32(1) / np.sqrt(s + stabiliser)
        for j in range(first, first + size):
            values[j] = s


@helper
def _statistics(memory, at, x, pixels, c, size, stabiliser):
    """Mean and 1/sigma of every channel's group, to memory[at:at + c] and memory[at + c:at + 2 c]."""
    mean, inverse = address(memory) + 4 * at, address(memory) + 4 * (at + c)
    column_sums(mean, x, pixels, c, c, mean, False)
    _spread(memory, at, c, size, size * pixels, stabiliser, False)
    column_sums(inverse, x, pixels, c, c, mean, True)
    _spread(memory, at + c, c, size, size * pixels, stabiliser, True)


@kernel((OUT, IN, IN, IN, OUT, INT, INT, INT, INT, FLOAT, BOOL, INT))
def _forward_last(y, x, gamma, beta, memory, n, pixels, c, size, stabiliser, silu, workers):
    """Channels-last: a sample at a time."""
    for worker in prange(workers):
        at = worker * 2 * c
        mean, inverse = address(memory) + 4 * at, address(memory) + 4 * (at + c)
        for sample in range(n * worker // workers, n * (worker + 1) // workers):
            start = address(x) + 4 * sample * pixels * c
            to = address(y) + 4 * sample * pixels * c
            _statistics(memory, at, start, pixels, c, size, stabiliser)
            for j in range(0, c, WIDTH):
                mu = load_up_to(mean + 4 * j, c - j)
                slope = load_up_to(inverse + 4 * j, c - j) * load_up_to(address(gamma) + 4 * j, c - j)
                offset = load_up_to(address(beta) + 4 * j, c - j)
                for p in range(pixels):
                    a = fma(load_up_to(start + 4 * (p * c + j), c - j) - mu, slope, offset)
                    if silu:
                        a = a * sigmoid(a)
                    store_up_to(to + 4 * (p * c + j), a, c - j)


@helper
def _through_silu(dy, a):
    """dy silu'(a) = dy s (1 + a (1 - s))."""
    s = sigmoid(a)
    return dy * s * fma(a, splat(1.0) - s, splat(1.0))


@helper
def _group_means(to, values, gamma, first, c, size, count):
    """Means over groups of gamma times channel sums values[first:first + c], one per channel."""
    for start in range(0, c, size):
        s = np.float32(0)
        for j in range(start, start + size):
            s += gamma[j] * values[first + j]
        for j in range(start, start + size):
            to[j] = s / np.float32(count)


@kernel((OUT, OUT, OUT, IN, IN, IN, IN, OUT, INT, INT, INT, INT, FLOAT, BOOL, INT))
def _backward_last(dx, dots, sums, dy, x, gamma, beta, memory, n, pixels, c, size, stabiliser, silu, workers):
    """Channels-last: dx, and per sample and channel the sums of dy x_hat and of dy, dy being what SiLU lets through."""
    for worker in prange(workers):
        at = worker * 4 * c
        mean, inverse = address(memory) + 4 * at, address(memory) + 4 * (at + c)
        for sample in range(n * worker // workers, n * (worker + 1) // workers):
            shift = 4 * sample * pixels * c
            source, above, to = address(x) + shift, address(dy) + shift, address(dx) + shift
            to_dots, to_sums = address(dots) + 4 * sample * c, address(sums) + 4 * sample * c
            _statistics(memory, at, source, pixels, c, size, stabiliser)
            for j in range(0, c, WIDTH):
                store_up_to(to_dots + 4 * j, splat(0.0), c - j)
                store_up_to(to_sums + 4 * j, splat(0.0), c - j)
            for first in range(0, pixels, BLOCK):
                last = min(first + BLOCK, pixels)
                for j in range(0, c, WIDTH):
                    mu, inv = load_up_to(mean + 4 * j, c - j), load_up_to(inverse + 4 * j, c - j)
                    scale = load_up_to(address(gamma) + 4 * j, c - j)
                    offset = load_up_to(address(beta) + 4 * j, c - j)
                    dot, plain = splat(0.0), splat(0.0)
                    for p in range(first, last):
                        x_hat = (load_up_to(source + 4 * (p * c + j), c - j) - mu) * inv
                        g = load_up_to(above + 4 * (p * c + j), c - j)
                        if silu:
                            g = _through_silu(g, fma(x_hat, scale, offset))
                            store_up_to(to + 4 * (p * c + j), g, c - j)
                        dot, plain = fma(g, x_hat, dot), plain + g
                    store_up_to(to_dots + 4 * j, dot + load_up_to(to_dots + 4 * j, c - j), c - j)
                    store_up_to(to_sums + 4 * j, plain + load_up_to(to_sums + 4 * j, c - j), c - j)
            below = to if silu else above
            _group_means(memory[at + 2 * c:at + 3 * c], dots, gamma, sample * c, c, size, size * pixels)
            _group_means(memory[at + 3 * c:at + 4 * c], sums, gamma, sample * c, c, size, size * pixels)
            for j in range(0, c, WIDTH):
                mu, inv = load_up_to(mean + 4 * j, c - j), load_up_to(inverse + 4 * j, c - j)
                scale = load_up_to(address(gamma) + 4 * j, c - j)
                dot, plain = load_up_to(inverse + 4 * (c + j), c - j), load_up_to(inverse + 4 * (2 * c + j), c - j)
                for p in range(pixels):
                    x_hat = (load_up_to(source + 4 * (p * c + j), c - j) - mu) * inv
                    g = fma(load_up_to(below + 4 * (p * c + j), c - j), scale, splat(0.0) - plain)
                    store_up_to(to + 4 * (p * c + j), (g - x_hat * dot) * inv, c - j)


@helper
def _run_statistics(x, length, stabiliser):
    """Mean and 1/sigma of contiguous memory."""
    mean = run_sum(x, length, np.float32(0), False) / np.float32(length)
    variance = run_sum(x, length, mean, True) / np.float32(length)
    return mean, np.float32(1) / np.sqrt(variance + stabiliser)


@kernel((OUT, IN, IN, IN, INT, INT, INT, INT, FLOAT, BOOL))
def _forward_first(y, x, gamma, beta, n, pixels, c, size, stabiliser, silu):
    """C order: a group at a time, which is contiguous."""
    for task in prange(n * (c // size)):
        start = task * size * pixels
        mean, inverse = _run_statistics(address(x) + 4 * start, size * pixels, stabiliser)
        for row in range(size):
            channel = task % (c // size) * size + row
            mu, slope, offset = splat(mean), splat(inverse * gamma[channel]), splat(beta[channel])
            shift = 4 * (start + row * pixels)
            for i in range(0, pixels, WIDTH):
                a = fma(load_up_to(address(x) + shift + 4 * i, pixels - i) - mu, slope, offset)
                if silu:
                    a = a * sigmoid(a)
                store_up_to(address(y) + shift + 4 * i, a, pixels - i)


@kernel((OUT, OUT, OUT, IN, IN, IN, IN, INT, INT, INT, INT, FLOAT, BOOL))
def _backward_first(dx, dots, sums, dy, x, gamma, beta, n, pixels, c, size, stabiliser, silu):
    """C order: dx, dots and sums as in _backward_last."""
    for task in prange(n * (c // size)):
        start = task * size * pixels
        mean, inverse = _run_statistics(address(x) + 4 * start, size * pixels, stabiliser)
        mu, inv = splat(mean), splat(inverse)
        group_dot, group_sum = np.float32(0), np.float32(0)
        for row in range(size):
            channel = task % (c // size) * size + row
            scale, offset = splat(gamma[channel]), splat(beta[channel])
            s_dot, s_sum = np.float32(0), np.float32(0)
            for first in range(0, pixels, BLOCK * WIDTH):
                dot, plain = splat(0.0), splat(0.0)
                for i in range(first, min(first + BLOCK * WIDTH, pixels), WIDTH):
                    at = 4 * (start + row * pixels + i)
                    x_hat = (load_up_to(address(x) + at, pixels - i) - mu) * inv
                    g = load_up_to(address(dy) + at, pixels - i)  # 0 behind the end, where x_hat is not
                    if silu:
                        g = _through_silu(g, fma(x_hat, scale, offset))
                    store_up_to(address(dx) + at, g, pixels - i)
                    dot, plain = fma(g, x_hat, dot), plain + g
                s_dot += total(dot)
                s_sum += total(plain)
            dots[task * size + row], sums[task * size + row] = s_dot, s_sum
            group_dot += gamma[channel] * s_dot
            group_sum += gamma[channel] * s_sum
        dot, plain = splat(group_dot / np.float32(size * pixels)), splat(group_sum / np.float32(size * pixels))
        for row in range(size):
            scale = splat(gamma[task % (c // size) * size + row])
            for i in range(0, pixels, WIDTH):
                at = 4 * (start + row * pixels + i)
                x_hat = (load_up_to(address(x) + at, pixels - i) - mu) * inv
                g = fma(load_up_to(address(dx) + at, pixels - i), scale, splat(0.0) - plain)
                store_up_to(address(dx) + at, (g - x_hat * dot) * inv, pixels - i)


def affine(x, gamma, beta):
    """gamma and beta, 1 and 0 where None."""
    c = x.shape[1]
    return (np.ones(c, np.float32) if gamma is None else flat(gamma),
            np.zeros(c, np.float32) if beta is None else flat(beta))


def group_norm(out, x, gamma, beta, groups, stabiliser=1e-5, silu=False):
    """Fill out (N, C, ...); at once where out has x's memory order."""
    if not x.size:
        return
    memory_order = order(x) or "channels_last"
    n, c, pixels = x.shape[0], x.shape[1], x[0, 0].size
    options = n, pixels, c, c // groups, stabiliser, bool(silu)
    scales, inputs = affine(x, gamma, beta), (x, gamma, beta)
    if memory_order == "C":
        write(out, "C", inputs, lambda y: _forward_first(y, flat(x), *scales, *options))
    else:
        workers = min(threads(), n)
        write(out, "channels_last", inputs, lambda y: _forward_last(
            y, channels_last(x), *scales, scratch(2 * c * workers), *options, workers))


def group_norm_vjp(out, dy, x, gamma, beta, groups, stabiliser=1e-5, silu=False):
    """Fill out = (dx, dgamma, dbeta); dgamma, dbeta None where gamma, beta are."""
    dx, dgamma, dbeta = out
    n, c = x.shape[:2]
    sums = np.zeros((2, n, c), np.float32)
    if x.size:
        memory_order = order(x) or "channels_last"
        options = n, x[0, 0].size, c, c // groups, stabiliser, bool(silu)
        scales, inputs = affine(x, gamma, beta), (dy, x, gamma, beta)
        both = sums.reshape(2, n * c)
        if memory_order == "C":
            write(dx, "C", inputs, lambda y: _backward_first(y, *both, flat(dy), flat(x), *scales, *options))
        else:
            workers = min(threads(), n)
            write(dx, "channels_last", inputs, lambda y: _backward_last(
                y, *both, channels_last(dy), channels_last(x), *scales, scratch(4 * c * workers), *options, workers))
    for to, s in zip((dgamma, dbeta), sums):
        if to is not None:
            np.sum(s, axis=0, out=to)


for _operation, _function in (("group_norm", group_norm), ("group_norm_vjp", group_norm_vjp)):
    register(Kernel(_operation, "cpu", "two_pass", _function, chain=chain))
