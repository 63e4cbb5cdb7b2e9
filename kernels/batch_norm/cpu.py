"""Batch norm on the CPU: two passes for mean and variance, one to write, threads over channels.

Both memory orders have their own loops, as group norm's: along space for C-ordered images, along channels for
channels-last ones. A channel's sums are one thread's, so their bits depend on no number of threads.
"""
import numpy as np
from numba import prange

from ..arrays import channels_last, flat, order, write
from ..contract import Kernel, register
from ..group_norm.cpu import affine
from ..jit import BOOL, FLOAT, IN, INT, OUT, helper, kernel, threads
from ..memory import address, load_up_to, store_up_to
from ..simd import WIDTH, fma, splat, total
from ..sums import BLOCK, column_sums, run_sum


def chain(m):
    """The longest chain of additions in a sum over m elements: in a block, of lanes, over blocks, of samples."""
    return 2 * BLOCK + 5 + -(-m // BLOCK)


@helper
def _scales(numbers, first, last, c, stabiliser):
    """1/sigma of channels first..last to the third row of numbers; mean and variance are the first two."""
    for j in range(first, last):
        numbers[2 * c + j] = np.float32(1) / np.sqrt(numbers[c + j] + stabiliser)


@helper
def _column_moments(numbers, x, pixels, c, first, last):
    """Mean and variance of channels first..last of channels-last pixels, to the first two rows of numbers."""
    mean, count = address(numbers) + 4 * first, np.float32(pixels)
    column_sums(mean, x + 4 * first, pixels, last - first, c, mean, False)
    for j in range(first, last):
        numbers[j] /= count
    column_sums(mean + 4 * c, x + 4 * first, pixels, last - first, c, mean, True)
    for j in range(first, last):
        numbers[c + j] /= count


@kernel((OUT, OUT, IN, IN, IN, INT, INT, FLOAT, BOOL, INT))
def _forward_last(y, numbers, x, gamma, beta, pixels, c, stabiliser, train, workers):
    """Channels-last: a worker takes a range of channels. numbers (3, c): mean and variance, found in training, else
    given, and 1/sigma."""
    strips = -(-c // WIDTH)
    for worker in prange(workers):
        left, right = strips * worker // workers * WIDTH, min(strips * (worker + 1) // workers * WIDTH, c)
        if train:
            _column_moments(numbers, address(x), pixels, c, left, right)
        _scales(numbers, left, right, c, stabiliser)
        for first in range(0, pixels, BLOCK):
            last = min(first + BLOCK, pixels)
            for j in range(left, right, WIDTH):
                at = address(numbers) + 4 * j
                mu = load_up_to(at, right - j)
                slope = load_up_to(at + 8 * c, right - j) * load_up_to(address(gamma) + 4 * j, right - j)
                offset = load_up_to(address(beta) + 4 * j, right - j)
                for p in range(first, last):
                    shift = 4 * (p * c + j)
                    store_up_to(address(y) + shift, fma(load_up_to(address(x) + shift, right - j) - mu, slope, offset),
                                right - j)


@kernel((OUT, OUT, IN, IN, IN, INT, INT, FLOAT, BOOL, INT))
def _backward_last(dx, numbers, dy, x, gamma, pixels, c, stabiliser, train, workers):
    """Channels-last: dx; to the fourth and fifth row of numbers the sums of dy x_hat and of dy."""
    strips, count = -(-c // WIDTH), splat(np.float32(pixels))
    for worker in prange(workers):
        left, right = strips * worker // workers * WIDTH, min(strips * (worker + 1) // workers * WIDTH, c)
        if train:
            _column_moments(numbers, address(x), pixels, c, left, right)
        _scales(numbers, left, right, c, stabiliser)
        numbers[3 * c + left:3 * c + right] = 0
        numbers[4 * c + left:4 * c + right] = 0
        for first in range(0, pixels, BLOCK):
            last = min(first + BLOCK, pixels)
            for j in range(left, right, WIDTH):
                at = address(numbers) + 4 * j
                mu, inverse = load_up_to(at, right - j), load_up_to(at + 8 * c, right - j)
                dot, plain = splat(0.0), splat(0.0)
                for p in range(first, last):
                    shift = 4 * (p * c + j)
                    g = load_up_to(address(dy) + shift, right - j)
                    dot = fma(g, (load_up_to(address(x) + shift, right - j) - mu) * inverse, dot)
                    plain = plain + g
                store_up_to(at + 12 * c, dot + load_up_to(at + 12 * c, right - j), right - j)
                store_up_to(at + 16 * c, plain + load_up_to(at + 16 * c, right - j), right - j)
        for first in range(0, pixels, BLOCK):
            last = min(first + BLOCK, pixels)
            for j in range(left, right, WIDTH):
                at = address(numbers) + 4 * j
                mu, inverse = load_up_to(at, right - j), load_up_to(at + 8 * c, right - j)
                slope = inverse * load_up_to(address(gamma) + 4 * j, right - j)
                dot = load_up_to(at + 12 * c, right - j) / count
                plain = load_up_to(at + 16 * c, right - j) / count
                for p in range(first, last):
                    shift = 4 * (p * c + j)
                    g = load_up_to(address(dy) + shift, right - j)
                    if train:
                        g = g - plain - (load_up_to(address(x) + shift, right - j) - mu) * inverse * dot
                    store_up_to(address(dx) + shift, g * slope, right - j)


@helper
def _samples_sum(x, n, step, pixels, mean, squared):
    """Sum over the runs of n samples, `step` elements apart: of x, or of (x - mean)^2."""
    whole = np.float32(0)
    for first in range(0, n, BLOCK):
        part = np.float32(0)
        for sample in range(first, min(first + BLOCK, n)):
            part += run_sum(x + 4 * sample * step, pixels, mean, squared)
        whole += part
    return whole


@helper
def _run_moments(numbers, x, n, c, pixels, channel, stabiliser, train):
    """The first three rows of numbers for a channel of C-ordered images."""
    if train:
        count, start = np.float32(n * pixels), x + 4 * channel * pixels
        numbers[channel] = _samples_sum(start, n, c * pixels, pixels, np.float32(0), False) / count
        numbers[c + channel] = _samples_sum(start, n, c * pixels, pixels, numbers[channel], True) / count
    _scales(numbers, channel, channel + 1, c, stabiliser)


@kernel((OUT, OUT, IN, IN, IN, INT, INT, INT, FLOAT, BOOL))
def _forward_first(y, numbers, x, gamma, beta, n, c, pixels, stabiliser, train):
    """C order: a channel at a time, a run of memory in each sample. numbers as in _forward_last."""
    for channel in prange(c):
        _run_moments(numbers, address(x), n, c, pixels, channel, stabiliser, train)
        mu, slope = splat(numbers[channel]), splat(numbers[2 * c + channel] * gamma[channel])
        offset = splat(beta[channel])
        for sample in range(n):
            for i in range(0, pixels, WIDTH):
                at = 4 * ((sample * c + channel) * pixels + i)
                store_up_to(address(y) + at, fma(load_up_to(address(x) + at, pixels - i) - mu, slope, offset), pixels - i)


@helper
def _run_dots(dy, x, pixels, mean, inverse):
    """Sums of dy x_hat and of dy over contiguous memory."""
    whole_dot, whole_sum, mu, inv = np.float32(0), np.float32(0), splat(mean), splat(inverse)
    for first in range(0, pixels, BLOCK * WIDTH):
        dot, plain = splat(0.0), splat(0.0)
        for i in range(first, min(first + BLOCK * WIDTH, pixels), WIDTH):
            g = load_up_to(dy + 4 * i, pixels - i)  # 0 behind the end, where x_hat is not
            dot = fma(g, (load_up_to(x + 4 * i, pixels - i) - mu) * inv, dot)
            plain = plain + g
        whole_dot += total(dot)
        whole_sum += total(plain)
    return whole_dot, whole_sum


@kernel((OUT, OUT, IN, IN, IN, INT, INT, INT, FLOAT, BOOL))
def _backward_first(dx, numbers, dy, x, gamma, n, c, pixels, stabiliser, train):
    """C order: dx, and the sums as in _backward_last."""
    for channel in prange(c):
        _run_moments(numbers, address(x), n, c, pixels, channel, stabiliser, train)
        mean, inverse = numbers[channel], numbers[2 * c + channel]
        dot, plain = np.float32(0), np.float32(0)
        for first in range(0, n, BLOCK):
            part_dot, part_plain = np.float32(0), np.float32(0)
            for sample in range(first, min(first + BLOCK, n)):
                at = 4 * (sample * c + channel) * pixels
                run_dot, run_plain = _run_dots(address(dy) + at, address(x) + at, pixels, mean, inverse)
                part_dot += run_dot
                part_plain += run_plain
            dot += part_dot
            plain += part_plain
        numbers[3 * c + channel], numbers[4 * c + channel] = dot, plain
        count = np.float32(n * pixels)
        mu, inv, slope = splat(mean), splat(inverse), splat(inverse * gamma[channel])
        mean_dot, mean_plain = splat(dot / count), splat(plain / count)
        for sample in range(n):
            for i in range(0, pixels, WIDTH):
                at = 4 * ((sample * c + channel) * pixels + i)
                g = load_up_to(address(dy) + at, pixels - i)
                if train:
                    g = g - mean_plain - (load_up_to(address(x) + at, pixels - i) - mu) * inv * mean_dot
                store_up_to(address(dx) + at, g * slope, pixels - i)


def _numbers(rows, mean, variance):
    """Rows of one number a channel, the running mean and variance the first two."""
    numbers = np.zeros((rows, mean.size), np.float32)
    numbers[0], numbers[1] = mean, variance
    return numbers


def _runs(x):
    """Whether channels lie in runs of memory; images of one pixel are channels-last in either order."""
    return order(x) == "C" and x[0, 0].size > 1


def batch_norm(out, x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    """Fill out = (y (N, C, ...), running_mean (C,), running_var (C,)); y at once where it has x's memory order."""
    y, new_mean, new_var = out
    n, c = x.shape[:2]
    numbers, size = _numbers(3, running_mean, running_var), x.size // max(c, 1)
    if x.size:
        scales, inputs, options = affine(x, gamma, beta), (x, gamma, beta), (stabiliser, bool(train))
        if _runs(x):
            write(y, "C", inputs, lambda to: _forward_first(
                to, numbers.reshape(-1), flat(x), *scales, n, c, size // n, *options))
        else:
            write(y, "channels_last", inputs, lambda to: _forward_last(
                to, numbers.reshape(-1), channels_last(x), *scales, size, c, *options, min(threads(), -(-c // WIDTH))))
    mean, variance = numbers[:2]
    if train:
        mean = (1 - momentum) * running_mean + momentum * mean
        variance = (1 - momentum) * running_var + momentum * size / (size - 1) * variance
    new_mean[...], new_var[...] = mean, variance


def batch_norm_vjp(out, dy, x, gamma, beta, running_mean, running_var, train, momentum=0.1, stabiliser=1e-5):
    """Fill out = (dx, dgamma, dbeta); dgamma, dbeta None where gamma, beta are."""
    dx, dgamma, dbeta = out
    n, c = x.shape[:2]
    numbers, size = _numbers(5, running_mean, running_var), x.size // max(c, 1)
    if x.size:
        scale, options = affine(x, gamma, None)[0], (stabiliser, bool(train))
        if _runs(x):
            write(dx, "C", (dy, x, gamma), lambda to: _backward_first(
                to, numbers.reshape(-1), flat(dy), flat(x), scale, n, c, size // n, *options))
        else:
            write(dx, "channels_last", (dy, x, gamma), lambda to: _backward_last(
                to, numbers.reshape(-1), channels_last(dy), channels_last(x), scale, size, c, *options,
                min(threads(), -(-c // WIDTH))))
    for to, s in ((dgamma, numbers[3]), (dbeta, numbers[4])):
        if to is not None:
            to[...] = s


for _operation, _function in (("batch_norm", batch_norm), ("batch_norm_vjp", batch_norm_vjp)):
    register(Kernel(_operation, "cpu", "two_pass", _function, chain=chain))
