"""The contracts of attention and of its gradients."""
import math

import numpy as np

from kernels.bounds import ARITHMETICS, growth
from kernels.cases import nonfinite, values
from kernels.contract import Contract, Large, contract
from refimpl import ops

EXP = 8  # u: an exponential good to 4 units in the last place
FAMILIES = ("normal", "sharp", "ascending", "offset", "positive", "cancelling", "spike", "constant", "huge")
LARGE = Large({"heads": 65543, "queries": 4103, "keys": 4103, "square": 303, "causal": 303, "mask": 303, "head": 257,
               "value": 257}, ("integer", "normal"))


def cases(d, family, head=None, mask=None, causal=None, scale=None, large=None):
    """q, k, v, mask and the options. Short and soft rows, where a lost key shows; some long, some sharp."""
    axis, long = large or (None, 0)
    n, h = (d.integer(1, 2) for _ in range(2))
    length, keys = ((d.integer(1, 6), d.choice((100, 129, 256, 300))) if family == "ascending" or d.integer(0, 9) == 9
                    else (d.integer(1, 40), d.integer(1, 40)))
    n, length, keys = d.choice(((0, length, keys), (n, 0, keys), (n, length, 0))) if family == "empty" else (
        n, length, keys)
    size = d.choice((1, 2, 3, 5, 8, 16, 17, 32, 64))
    width = d.choice((size, size, 1, 7, 24))
    if large:
        both = "square", "causal", "mask"
        causal, mask = (True if axis == name else pin for name, pin in (("causal", causal), ("mask", mask)))
        n, h = d.choice(((1, long), (long, 1))) if axis == "heads" else (n, h)
        length, keys, size, width = (long if axis in names else short for short, *names in (
            (2 + length % 5, "queries", *both), (2 + keys % 5, "keys", *both), (1 + size % 5, "head"),
            (1 + width % 5, "value")))
    size, width = (size, width) if head is None else (head, head)
    if family == "integer":
        keys = keys if large else d.choice((keys, 1024, 257, 1024))
        return retrieval(d, n, h, length, keys, size, width), {"causal": False, "scale": 1.0}
    q, k, v = (values(d, family if a == "v" and family != "nonfinite" else "normal", n, h, rows, cols)
               for a, rows, cols in (("q", length, size), ("k", keys, size), ("v", keys, width)))
    q, k = logits(d, family, q, k)
    options = {"causal": d.choice((False, True)) if causal is None else causal,
               "scale": d.choice((None, None, 0.5, 1.0)) if scale is None else None if scale == "default" else scale}
    hidden = masked(d, n, h, length, keys) if (d.choice((False, True)) if mask is None else mask) else None
    if family == "nonfinite":  # what a hidden key's NaN does is left open
        q, k, v = one_nonfinite(d, q, k, v)
        return (q, k, v, None), options | {"causal": False}
    return (q, k, v, hidden), options


def logits(d, family, q, k):
    """q and k moved to where the family's logits are: up to 30 apart, ever larger, or far from 0 together."""
    root = math.sqrt(q.shape[3])
    if family == "sharp":
        q = q * 10
    elif family == "ascending":  # every key beats the one before it, by up to a few units
        q = np.abs(q) + 0.1
        k = np.sort(np.abs(k), axis=2) * 20 / root
    elif family == "offset":  # each logit is about 150, where an exponential overflows; so far out only q is random
        q = np.abs(q) * 0.2 + 1
        k = np.ones_like(k) * 150 / root + 0.1 * k
    return q, k


def one_nonfinite(d, q, k, v):
    """NaN in q or k, or NaN and infinities in v."""
    chosen = d.choice("qkv")
    if chosen == "v":
        return q, k, nonfinite(d, v)
    hurt = (q if chosen == "q" else k).copy()
    hurt.reshape(-1)[d.rng.integers(hurt.size)] = np.nan
    return (hurt, k, v) if chosen == "q" else (q, hurt, v)


def masked(d, n, h, length, keys):
    """A mask of one of the shapes that broadcast; rows with nothing to attend to happen. Keys are hidden here and there,
    or all but one run of them, as padding and windows do, or none."""
    shape = d.choice(((keys,), (length, keys), (n, 1, 1, keys), (1, h, length, 1), (n, h, length, keys),
                      (n, 1, length, keys), (h, length, keys)))
    kind = d.choice((0.3, 0.8, "run", "run", 1.0))
    if kind != "run":
        return d.rng.random(shape) < kind
    first, last = np.sort(d.rng.integers(0, shape[-1] + 1, (2, *shape[:-1], 1)), axis=0)
    return (np.arange(shape[-1]) >= first) & (np.arange(shape[-1]) < last)


def retrieval(d, n, h, length, keys, size, width):
    """Every query matches one key, or two alike, so surely that the rest vanish: the result is exact at any length.

    Codes of +-32 in at least log2(keys) places: a key that differs in one place has a logit 2048 lower.
    """
    size = max(size, math.ceil(math.log2(max(keys, 2))))
    ids = d.rng.permutation(np.arange(keys) // 2)
    code = 32.0 * (2 * (ids[:, None] >> np.arange(size) & 1) - 1)  # (S, d)
    k = np.broadcast_to(code, (n, h, keys, size)).copy()
    wanted = d.rng.integers(keys, size=(n, h, length))
    ends = np.array([keys - 1, 0, *(e for b in (16, 32, 64, 128, 256, 512) for e in (b - 1, b) if e < keys)])
    wanted[..., :ends.size] = ends[:length]  # the last key, the first, and those at the ends of usual blocks
    return code[wanted], k, d.rng.integers(1, 5, (n, h, keys, width)).astype(np.float64), None


def weights(q, k, mask, causal, scale, arithmetic, proof):
    """p, and e: how far each of its exponentials may be off, relatively, before normalisation.

    A logit is a sum of d products with two roundings for the scale and two for its change of base; less the maximum, or
    less the logarithm of the sum, it is rounded in proportion to the difference.
    """
    scale = max(q.shape[3], 1) ** -0.5 if scale is None else scale
    s = scale * q @ np.swapaxes(k, 2, 3)
    size = abs(scale) * np.abs(q) @ np.swapaxes(np.abs(k), 2, 3)
    seen = np.ones(s.shape, dtype=bool) if mask is None else np.broadcast_to(mask, s.shape)
    if causal:
        seen = seen & (np.arange(s.shape[2])[:, None] >= np.arange(s.shape[3]))
    m = np.max(np.where(seen, s, -np.inf), axis=3, keepdims=True, initial=-np.inf)
    off = np.where(seen, s - np.where(np.isneginf(m), 0, m), 0)
    p = np.where(seen, np.exp(off), 0)
    p = p / np.maximum(np.sum(p, axis=3, keepdims=True), arithmetic.tiny)
    constant = EXP + 2 + math.log(max(s.shape[3], 1))
    e = arithmetic.u * ((growth(q.shape[3], proof) + 3) * size + 3 * np.abs(off) + constant)
    return p, np.where(seen, e, 0), scale


def largest(array):
    """The largest finite magnitude."""
    return np.max(np.abs(array), where=np.isfinite(array), initial=0)


def forward_bound(q, k, v, p, e, arithmetic, proof, blocks):
    """exp(4 max e) [(p e)|v| + rowsum(p e) A] + 2 (c(S) + (EXP + 1) blocks + 2) u A, A = p|v|.

    Numerator and denominator are each a sum over S keys of terms off by e; each block of keys may rescale both.
    """
    pe, a = p * e, p @ np.abs(v)
    second = np.exp(4 * np.max(e, axis=3, keepdims=True, initial=0))
    terms = growth(k.shape[2], proof) + (EXP + 1) * blocks + 2
    floor = (k.shape[2] + 2) * arithmetic.tiny * (1 + largest(v))
    return second * (pe @ np.abs(v) + np.sum(pe, axis=3, keepdims=True) * a) + 2 * terms * arithmetic.u * a + floor


def number_of_blocks(keys, proof, chain):
    """Blocks of keys, each of which may rescale: what the kernel declares, else as if each key did at random."""
    return growth(keys, proof) if chain is None else chain(keys)


def bound(args, options, outputs, arithmetic, proof, chain):
    """forward_bound for a call."""
    q, k, v, mask = args
    p, e, _ = weights(q, k, mask, options["causal"], options["scale"], arithmetic, proof)
    return (forward_bound(q, k, v, p, e, arithmetic, proof, number_of_blocks(k.shape[2], proof, chain)),)


def rounded_weights_bound(dtype):
    """The bound where weights exp(s - m) <= 1 are rounded to a half type before they meet the values.

    u_dtype A more, and the spacing of its subnormal numbers once for every value: the denominator is at least 1.
    """
    def rounded_bound(args, options, outputs, arithmetic, proof, chain):
        q, k, v, mask = args
        p, _, _ = weights(q, k, mask, options["causal"], options["scale"], arithmetic, proof)
        floor = {"float16": 2.0**-25, "bfloat16": ARITHMETICS["bfloat16"].tiny}[dtype]
        more = 1.001 * ARITHMETICS[dtype].u * p @ np.abs(v) + floor * np.sum(np.abs(v), axis=2, keepdims=True)
        return (bound(args, options, outputs, arithmetic, proof, chain)[0] + more,)

    return rounded_bound


def pairs(args, options):
    """Queries times keys that are looked at; a causal row i has i + 1 keys."""
    n, h, length, keys = *args[0].shape[:3], args[1].shape[2]
    return n * h * (sum(min(i + 1, keys) for i in range(length)) if options.get("causal") else length * keys)


def flops(args, options):
    """Two products a pair, of the query's and of the value's width; the exponential is not counted."""
    q, _, v, _ = args
    return 2 * pairs(args, options) * (q.shape[3] + v.shape[3])


def moved(args, options):
    """q, k, v read once, the output written once."""
    q, k, v, _ = args
    return q.itemsize * (q.size + k.size + v.size + math.prod(q.shape[:3]) * v.shape[3])


def explicit(args, options):
    """Mask and causality as one mask that broadcasts to (N, h, L, S), or None."""
    q, k, _, mask = args
    if not options.get("causal"):
        return mask
    order = np.arange(q.shape[2])[:, None] >= np.arange(k.shape[2])
    return order if mask is None else order & mask


def head_slices(args, options):
    """Index, arrays of one head of one sample, and its mask."""
    q, k, v, _ = args
    mask = explicit(args, options)
    for n in range(q.shape[0]):
        for h in range(q.shape[1]):
            at = np.s_[n:n + 1, h:h + 1]
            own = None if mask is None else np.broadcast_to(mask, (*q.shape[:3], k.shape[2]))[at]
            yield at, q[at], k[at], v[at], own


def slices(args, options, budget):
    """One head of one sample and a run of queries at a time."""
    rows = max(1, budget // (8 * max(1, args[1].shape[2])))
    some = {"causal": False, "scale": options.get("scale")}
    for at, q, k, v, mask in head_slices(args, options):
        for first in range(0, q.shape[2], rows):
            run = slice(first, first + rows)
            yield (q[:, :, run], k, v, None if mask is None else mask[:, :, run]), some, ((*at, run),)


def slips(args, options):
    """A causal limit off by one or aligned at the other end; rows that see nothing; usual slips of the scale."""
    q, k, v, mask = args
    length, keys = q.shape[2], k.shape[2]
    rows, columns = np.arange(length)[:, None], np.arange(keys)
    if options["causal"]:
        for text, seen in (("as if query i saw keys j <= i + 1", rows + 1 >= columns),
                           ("as if query i saw keys j < i only", rows > columns),
                           ("as if the causal limit were aligned at the last key", rows + keys - length >= columns)):
            yield text, (q, k, v, seen if mask is None else seen & mask), options | {"causal": False}
    if mask is not None and keys:
        seen = np.broadcast_to(mask, (*q.shape[:3], keys))
        yield ("as if a query that no key is shown to saw them all", (q, k, v, seen | ~seen.any(axis=3, keepdims=True)),
               options)
    scale = max(1, q.shape[3]) ** -0.5 if options["scale"] is None else options["scale"]
    yield "as if logits were scaled by 1/d", args, options | {"scale": 1 / max(1, q.shape[3])}
    for text, factor in (("1.01", 1.01), ("0.99", 0.99), ("log2(e)", math.log2(math.e)), ("ln(2)", math.log(2)),
                         ("2", 2.0), ("1/2", 0.5), ("-1", -1.0)):
        yield f"as if logits were {text} times what they should be", args, options | {"scale": scale * factor}


contract(Contract("attention", ops.attention, ("y",), FAMILIES, cases, dict.fromkeys(("direct", "flash"), bound) | {
    f"flash_{dtype}": rounded_weights_bound(dtype) for dtype in ("float16", "bfloat16")}, flops, moved, slices, slips=slips,
                  large=LARGE))
