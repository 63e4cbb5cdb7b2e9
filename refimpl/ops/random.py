"""Randomness from a counter: no state, so a sample depends on its key, index and draw, never on the batch it is in.

The 128-bit counter is four 32-bit words (block, sample index, draw, stream). One block gives four words w0..w3, and
word i of a sample is word i mod 4 of block i div 4. The streams keep what is drawn from one key apart.
"""
import math
import operator

import numpy as np

from ._check import require, same_dtype, same_shape_as

_NORMAL, _UNIFORM, _FOLD = range(3)  # streams
_WORD = 2**32 - 1


def philox4x32(counter, key):
    r"""Philox4x32-10: ten rounds that scramble a 128-bit counter under a 64-bit key.

    $$(c_0, c_1, c_2, c_3) \leftarrow (\mathrm{hi}(M_1 c_2) \oplus c_1 \oplus k_0,\ \mathrm{lo}(M_1 c_2),\
      \mathrm{hi}(M_0 c_0) \oplus c_3 \oplus k_1,\ \mathrm{lo}(M_0 c_0)), \qquad k_i \leftarrow k_i + W_i \bmod 2^{32}$$

    Shapes: counter four words, ints or uint64 arrays that broadcast, each below 2^32; key an int, k0 its low 32 bits.
    Returns four words in the same form: 32-bit values in uint64, so that products need no wider type.
    Raises: ValueError when the key does not fit in 64 bits; TypeError when it is no integer.
    Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", SC11.
    """
    key = _integer("key", key, 64)
    k0, k1 = key & _WORD, key >> 32
    c0, c1, c2, c3 = counter
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _WORD, (p0 >> 32) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c0, c1, c2, c3


def _integer(name, value, bits):
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"random: {name} must be an integer, got {value!r}") from None
    require(0 <= value < 2**bits, f"random: {name} must be in 0..2^{bits} - 1, got {value}")
    return value


def _words(key, index, draw, stream, shape, like):
    """The first words of each sample, (N, at least prod(shape)) rounded up to whole blocks of four."""
    index = np.asarray(index)
    require(index.ndim == 1, f"random: index (N,) expected, got shape {index.shape}")
    if index.size and not np.issubdtype(index.dtype, np.integer):
        raise TypeError(f"random: index must be integers, got {index.dtype}")
    require(not np.any((index < 0) | (index > _WORD)), "random: index must be in 0..2^32 - 1")
    require(all(n >= 0 for n in shape), f"random: sizes must not be negative, got shape {shape}")
    blocks = np.arange(-(-math.prod(shape) // 4), dtype=np.uint64, like=like)
    samples = np.asarray(index.astype(np.uint64), like=like)
    words = philox4x32((blocks, samples[:, None], _integer("draw", draw, 32), stream), key)
    return np.stack(words, axis=-1).reshape(index.size, 4 * blocks.size)


def _shaped(values, shape, dtype):
    n = values.shape[0]
    return values[:, :math.prod(shape)].reshape((n, *shape)).astype(dtype)


def fold(key, n):
    r"""Derive another key from a key and a number: one for each purpose, step or player.

    $$\mathrm{key}' = w_0 + 2^{32} w_1, \qquad
      w = \mathrm{Philox}_{\mathrm{key}}(n \bmod 2^{32},\ \lfloor n/2^{32}\rfloor,\ 0,\ 2)$$

    Shapes: key, n ints of 64 bits. Returns an int of 64 bits.
    Raises: ValueError when key or n does not fit in 64 bits; TypeError when one is no integer.
    Source: Salmon et al. 2011, SC11 (the generator); Claessen and Palka 2013 (splitting by encryption).
    """
    n = _integer("n", n, 64)
    w0, w1, _, _ = philox4x32((n & _WORD, n >> 32, 0, _FOLD), key)
    return w0 | w1 << 32


def uniform(key, index, draw, shape, dtype=np.float32, like=None):
    r"""Uniform numbers in (0, 1], exact in float32: element i of a sample comes from its word i.

    $$u = 1 - \lfloor w/2^{8} \rfloor\, 2^{-24}$$

    Shapes: key an int; index (N,) host integers, the samples' global indices; draw an int; shape of one sample.
    Returns (N, *shape) of the dtype, on the device of `like`. Counter (i div 4, index, draw, 1).
    Raises: ValueError when key, index or draw is out of range; TypeError when one is no integer.
    Source: Salmon et al. 2011, SC11.
    """
    words = _words(key, index, draw, _UNIFORM, shape, like)
    return _shaped(1 - (words >> 8) * 2.0**-24, shape, dtype)


def normal(key, index, draw, shape, dtype=np.float32, like=None):
    r"""Standard normal numbers by Box and Muller: four words give four numbers, in two pairs.

    $$(z_0, z_1) = \rho(w_0)\,(\cos\theta(w_1), \sin\theta(w_1)), \qquad
      (z_2, z_3) = \rho(w_2)\,(\cos\theta(w_3), \sin\theta(w_3))$$
    $$\rho(w) = \sqrt{-2\log(1 - \lfloor w/2^{8} \rfloor\, 2^{-24})} \le 5.77, \qquad
      \theta(w) = \frac{\pi}{2}(\lfloor w/2^{30} \rfloor + (\lfloor w/2^{6} \rfloor \bmod 2^{24})\, 2^{-24})$$

    So a word's 24 high bits give a radius; its two top bits give the quadrant of an angle, the 24 bits below them the
    angle in the quadrant, and the last six nothing. The quadrant acts by swapping and negating, without rounding; every
    fraction is exact in float32. Computed in float64, cast at the end.
    Shapes: key an int; index (N,) host integers, the samples' global indices; draw an int; shape of one sample.
    Returns (N, *shape) of the dtype, on the device of `like`. Element i is z_(i mod 4) of counter
    (i div 4, index, draw, 0).
    Raises: ValueError when key, index or draw is out of range; TypeError when one is no integer.
    Source: Box and Muller 1958, Ann. Math. Statist. 29(2); Salmon et al. 2011, SC11.
    """
    words = _words(key, index, draw, _NORMAL, shape, like)
    radius, angle = words[:, 0::2], words[:, 1::2]
    radius = np.sqrt(-2 * np.log(1 - (radius >> 8) * 2.0**-24))
    quadrant = angle >> 30
    theta = np.pi / 2 * ((angle >> 6 & 2**24 - 1) * 2.0**-24)
    cos, sin = np.cos(theta), np.sin(theta)
    odd, low = quadrant & 1 == 1, quadrant < 2
    z_cos = np.where(odd, sin, cos) * np.where(odd == low, -1, 1)  # cos, -sin, -cos, sin in quadrants 0..3
    z_sin = np.where(odd, cos, sin) * np.where(low, 1, -1)         # sin, cos, -sin, -cos
    z = np.stack([radius * z_cos, radius * z_sin], axis=-1).reshape(words.shape)
    return _shaped(z, shape, dtype)


def _kept(x, rate, key):
    """The scaled mask of dropout: 1/(1 - rate) where kept, 0 where dropped."""
    require(0 <= rate < 1, f"dropout: rate must be in [0, 1), got {rate}")
    same_dtype("dropout", x=x)
    require(x.ndim >= 1, "dropout: x (N, ...) expected, got a scalar")
    u = uniform(key, np.arange(x.shape[0]), 0, x.shape[1:], like=x)
    return (u > rate).astype(x.dtype) / (1 - float(rate))


def dropout(x, rate, key):
    r"""Inverted dropout: each element is kept with probability 1 - rate, and scaled so that the mean stays.

    $$y = \frac{m}{1-\mathrm{rate}}\, x, \qquad m = [u > \mathrm{rate}], \quad u = \mathrm{uniform}(\mathrm{key})$$

    Shapes: x (N, ...), sample n of the batch taking the uniforms of index n, draw 0. Returns x's shape. Analytic.
    Raises: ValueError when rate leaves [0, 1) or the key does not fit in 64 bits.
    Source: Srivastava et al. 2014, JMLR 15.
    """
    return x * _kept(x, rate, key)


def dropout_vjp(dy, x, rate, key):
    """dx = m dy / (1 - rate), with the same mask."""
    same_shape_as("dropout_vjp", x, dy=dy)
    return dy * _kept(x, rate, key)
