"""What every contract's error bound is made of: roundings per arithmetic, the growth of a sum's error, output rounding.

Notation: u is half the distance from 1 to the next number. Each contract's bound is a derivation of its own, beside its
reference; a bound is an array of the output's shape in float64, and infinite where the contract promises nothing.
"""
from typing import NamedTuple

import numpy as np

from refimpl import ops


class Arithmetic(NamedTuple):
    """u, the smallest normal number (results below it may be flushed to zero) and the largest finite one."""

    u: float
    tiny: float
    huge: float


ARITHMETICS = {
    "float16": Arithmetic(2.0**-11, 2.0**-14, 65504.0),
    "bfloat16": Arithmetic(2.0**-8, 2.0**-126, 3.3895313892515355e38),
    "float32": Arithmetic(2.0**-24, 2.0**-126, float(np.finfo(np.float32).max)),
    "float64": Arithmetic(2.0**-53, 2.0**-1022, float(np.finfo(np.float64).max)),
}


def growth(length, proof):
    r"""c(K), such that a sum of K products has error at most c(K) u sum |x||y|, in any order, blocked or fused.

    $$c(K) = K + 2 \text{ (any data)}, \qquad \min(K + 2,\ 6\sqrt K) \text{ (random values)}$$

    K u is the theorem, without higher-order terms; 2 more for a bias or a scale. Roundings of random data are nearly
    independent, so errors grow as sqrt(K): 6 is six standard deviations and more.
    Source: Jeannerod and Rump 2013, SIAM J. Matrix Anal. Appl. 34(2); Higham and Mary 2019, SIAM J. Sci. Comput. 41(5).
    """
    proven = np.asarray(length, dtype=np.float64) + 2
    return proven if proof else np.minimum(proven, 6 * np.sqrt(np.maximum(proven - 2, 1)))


def product_bound(size, length, arithmetic, proof):
    """Error of sums of `length` products whose absolute values add up to `size`, each product allowed to underflow."""
    bound = growth(length, proof) * arithmetic.u * size + (np.asarray(length) + 2) * arithmetic.tiny
    return np.where(size < arithmetic.huge / 2, bound, np.inf)


def rounded(bound, reference, dtype):
    """A bound on the output rounded to a narrower dtype, ties to even: u (|ref| + bound) more, and its underflow."""
    out = ARITHMETICS[dtype]
    magnitude = np.abs(reference) + bound
    # Half the spacing of subnormals where they are kept; dtypes with float32's exponents may flush them.
    underflow = 2.0**-25 if dtype == "float16" else out.tiny
    return np.where(magnitude < out.huge, bound + out.u * magnitude + underflow, np.inf)


def radius(z, shape):
    """Box and Muller's radius behind each number of normal(key, index, draw, shape): both of a pair share it."""
    key, index, draw = z
    size = int(np.prod(shape))
    pairs = ops.normal(key, index, draw, (2 * -(-size // 2),), dtype=np.float64).reshape(len(index), -(-size // 2), 2)
    r = np.sqrt(np.sum(pairs * pairs, axis=2))
    return np.repeat(r, 2, axis=1)[:, :size].reshape(len(index), *shape)
