"""Inputs for the verdict: families of values, trees of arrays, and the face of facts.Draw backed by hypothesis."""
import hashlib
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from refimpl import ops


class Case(NamedTuple):
    """A call: positional arguments and keyword options (trees of arrays, tuples, numbers, None), its values' family.

    dtype names the data's type; NumPy has no bfloat16, whose values stand in float32 arrays here.
    """

    args: tuple
    options: dict
    family: str
    dtype: str


class HypothesisDraw:
    """Sizes from hypothesis, so that they shrink; values from one seed, so that cases are cheap."""

    def __init__(self, data):
        self.data = data
        self.rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))

    def integer(self, low, high):
        return self.data.draw(st.integers(low, high))

    def real(self, low, high):
        return self.data.draw(st.floats(low, high))

    def choice(self, options):
        return self.data.draw(st.sampled_from(options))

    def array(self, *shape):
        return self.rng.standard_normal(shape)

    def key(self):
        return self.data.draw(st.integers(0, 2**64 - 1))


class SeededDraw:
    """The same face without hypothesis: sizes and values from one generator."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def integer(self, low, high):
        return int(self.rng.integers(low, high, endpoint=True))

    def real(self, low, high):
        return float(self.rng.uniform(low, high))

    def choice(self, options):
        return options[int(self.rng.integers(len(options)))]

    def array(self, *shape):
        return self.rng.standard_normal(shape)

    def key(self):
        return int(self.rng.integers(2**64, dtype=np.uint64))


# Random values keep the working bound; a family in PROOF drifts in one direction and takes the proven one: "spread" are
# the values of "wide" where they are squared, since a long sum of squares loses all that are small beside it.
PRODUCTS = ("normal", "positive", "cancelling", "wide", "spike", "constant", "small", "huge")
PROOF = ("constant", "spread", "integer", "nonfinite")


def values(d, family, *shape):
    """Float64 values of a family, normal unless it says otherwise; the verdict rounds them to the case's dtype."""
    z = d.array(*shape)
    if family == "positive":
        return d.rng.random(shape)
    if family == "cancelling":  # the second half undoes the first but for one part in a thousand
        flat = z.reshape(-1)
        half = flat.size // 2
        flat[half:2 * half] = -flat[:half] * (1 + 1e-3 * flat[half:2 * half])
    elif family in ("wide", "spread"):
        z = z * 2.0 ** d.rng.integers(-12, 7, shape)
    elif family == "spike":  # one element carries the sum: leaving it out or taking it twice shows at any length
        z = 1e-2 * z
        if z.size:
            z.reshape(-1)[d.rng.integers(z.size)] = 3.0
    elif family == "constant":
        z = np.full(shape, d.rng.uniform(0.5, 2))
    elif family == "small":
        z = z * 2.0 ** d.rng.choice([-70, -24])  # products may underflow in float32
    elif family == "huge":  # what float16 cannot hold, scaled or not
        z = z * 2.0**40
    elif family == "sparse":  # a sum of few terms shows half precision however long it is; the ends are among them
        flat = z.reshape(-1)
        kept = {i: flat[i] for i in (*d.rng.integers(0, max(flat.size, 1), 6), 0, -1) if flat.size}
        flat[...] = 0
        for i, value in kept.items():
            flat[i] = value
    elif family == "integer":
        z = d.rng.integers(-3, 4, shape).astype(np.float64)
    return z


def nonfinite(d, array):
    """The array with NaN, inf and -inf planted in a few places."""
    array = array.copy()
    flat = array.reshape(-1)
    if flat.size:
        places = d.rng.integers(flat.size, size=d.rng.integers(1, 4))
        flat[places] = d.rng.choice([np.nan, np.inf, -np.inf], size=places.size)
    return array


def counter(d, n):
    """(key, index, draw) for n samples: indices at the ends of their 32 bits, or where the first radius is extreme."""
    key, draw = d.key(), d.choice((0, 1, 2**31, 2**32 - 1))
    where = d.choice(("first", "last", "sign", "extreme") if n <= 4000 else ("first", "last", "sign"))
    if where != "extreme":
        start = {"first": 0, "last": 2**32 - n, "sign": 2**31 - n // 2}[where]
        return key, np.arange(start, start + n), draw
    index = d.rng.integers(0, 2**32, 4000)  # the uniform number behind a radius is 1 - (word >> 8) 2^-24
    order = np.argsort(ops.philox4x32((np.uint64(0), index.astype(np.uint64), draw, 0), key)[0])
    return key, index[np.concatenate([order[:(n + 1) // 2], order[order.size - n // 2:]])], draw


def each(f, tree, path=""):
    """f(array, path) on every array of a tree of tuples and dicts; everything else stays."""
    if isinstance(tree, np.ndarray):
        return f(tree, path)
    if isinstance(tree, tuple):
        return tuple(each(f, v, f"{path}[{i}]") for i, v in enumerate(tree))
    if isinstance(tree, dict):
        return {k: each(f, v, k) for k, v in tree.items()}
    return tree


def on_case(f, case, names, host=()):
    """f(array, path) on every array of a case but those of the host; names are the operation's argument names."""
    def data(array, path):
        return array if path.split("[")[0] in host else f(array, path)

    args = tuple(each(data, a, n) for a, n in zip(case.args, names))
    return case._replace(args=args, options=each(data, case.options))


def draw_case(d, kernel, contract, family, large=None):
    """A case of a family, in the part of the contract that the kernel is for, rounded to its dtype; large: (axis,
    length) of a large one."""
    args, options = contract.cases(d, family, **(kernel.where | {"large": large}))
    case = Case(args, options, family, kernel.data)
    return on_case(lambda a, path: round_to(a, kernel.data), case, contract.names, contract.host)


def paths_of(case, contract):
    """The names of a case's arrays."""
    paths = []
    on_case(lambda a, path: paths.append(path), case, contract.names, contract.host)
    return paths


def round_to(array, dtype):
    """A float64 array rounded to a dtype; bfloat16 values in float32. Integers and bool stay."""
    if not np.issubdtype(array.dtype, np.floating):
        return array
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    single = np.array(array, dtype=np.float32, order="C")
    bits = single.view(np.uint32)
    even = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(single), np.float32(np.nan), even.view(np.float32))


def wide(array, dtype):
    """An array in the type its reference is evaluated in: longdouble for float64, else float64."""
    if not np.issubdtype(array.dtype, np.floating):
        return array
    return array.astype(np.longdouble if dtype == "float64" else np.float64)


def digest(case):
    """A hash of everything a kernel is given."""
    h = hashlib.blake2b(digest_size=16)

    def update(array, path):
        h.update(f"{path} {array.dtype} {array.shape}".encode())
        h.update(np.ascontiguousarray(array).data)
        return None

    rest = on_case(update, case, [str(i) for i in range(len(case.args))])
    h.update(repr((rest.args, sorted(rest.options.items()), case.dtype)).encode())
    return h.hexdigest()
