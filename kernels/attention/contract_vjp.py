"""The contract of attention's gradients."""
import numpy as np

from kernels.bounds import growth
from kernels.cases import values
from kernels.contract import Contract, contract
from refimpl import ops

from .contract import (
    EXP,
    FAMILIES,
    LARGE,
    cases,
    explicit,
    forward_bound,
    head_slices,
    largest,
    number_of_blocks,
    pairs,
    slips,
    weights,
)

ROOM = 2**25  # bytes of an array of weights while the bound is evaluated: there are about twenty of them


def vjp_slips(args, options):
    """As the forward pass."""
    for text, rest, changed in slips(args[1:], options):
        yield text, (args[0], *rest), changed


def vjp_cases(d, family, **where):
    """dy of the output's shape, then attention's arguments."""
    (q, k, v, mask), options = cases(d, "normal" if family == "nonfinite" else family, **where)
    dy = values(d, family if family == "integer" else "normal", *q.shape[:3], v.shape[3])
    if family == "nonfinite" and dy.size:
        dy.reshape(-1)[d.rng.integers(dy.size)] = np.nan
        return (dy, q, k, v, None), options | {"causal": False}
    return (dy, q, k, v, mask), options


def vjp_bound(args, options, outputs, arithmetic, proof, chain):
    """Errors carried through dP = dy v^T, D = rowsum(dy o) or rowsum(p dP), dS = p (dP - D), and the three products.

    A run of queries at a time: dq's error is theirs alone, those of dk and dv are sums over all of them.
    """
    dy, q, k, v, _ = args
    mask = explicit(args[1:], options)
    mask = None if mask is None else np.broadcast_to(mask, (*q.shape[:3], k.shape[2]))
    c_queries = growth(q.shape[2], proof)
    dq, dk, dv = np.zeros(q.shape), np.zeros(k.shape), np.zeros(v.shape)
    rows = max(1, ROOM // (8 * max(1, k.shape[2]) * max(1, q.shape[0] * q.shape[1])))
    for first in range(0, q.shape[2], rows):
        run = np.s_[:, :, first:first + rows]
        part = (dy[run], q[run], k, v, None if mask is None else mask[run])
        dq[run], dk_part, dv_part = run_bound(part, options["scale"], arithmetic, proof, chain, c_queries)
        dk, dv = dk + dk_part, dv + dv_part
    reach = (1 + largest(dy) * largest(v) * v.shape[3]) * (1 + largest(q) + largest(k))
    floor = (q.shape[2] + k.shape[2] + 2) * arithmetic.tiny * reach
    return dq + floor, dk + floor, dv + floor


def run_bound(args, scale, arithmetic, proof, chain, c_queries):
    """The part of a run of queries in the errors of dq, dk and dv.

    rho: p's relative error after normalisation. A kernel may take D from either form, so the larger error stands.
    """
    dy, q, k, v, mask = args
    u, blocks = arithmetic.u, number_of_blocks(k.shape[2], proof, chain)
    p, e, scale = weights(q, k, mask, False, scale, arithmetic, proof)
    c_keys, c_width = growth(k.shape[2], proof), growth(v.shape[3], proof)
    o, o_error = p @ v, forward_bound(q, k, v, p, e, arithmetic, proof, blocks)
    second = np.exp(4 * np.max(e, axis=3, keepdims=True, initial=0))
    rho = second * (e + np.sum(p * e, axis=3, keepdims=True) + (c_keys + (EXP + 1) * blocks + 6) * u)
    dp, dp_error = dy @ np.swapaxes(v, 2, 3), c_width * u * (np.abs(dy) @ np.swapaxes(np.abs(v), 2, 3))
    total = np.sum(dy * o, axis=3, keepdims=True)
    by_output = np.sum(np.abs(dy) * (o_error + c_width * u * (np.abs(o) + o_error)), axis=3, keepdims=True)
    by_weights = np.sum(p * ((rho + c_keys * u) * np.abs(dp) + dp_error), axis=3, keepdims=True)
    total_error = np.maximum(by_output, by_weights)
    rough = (1 + rho) * (dp_error + total_error + 2 * u * (np.abs(dp) + np.abs(total)))
    ds, ds_error = np.abs(p * (dp - total)), p * (rough + (rho + u) * np.abs(dp - total))
    spread = ds + ds_error
    return (abs(scale) * (ds_error + (c_keys + 3) * u * spread) @ np.abs(k),
            abs(scale) * np.swapaxes(ds_error + (c_queries + 3) * u * spread, 2, 3) @ np.abs(q),
            np.swapaxes(p * (rho + (c_queries + 2) * u * (1 + rho)), 2, 3) @ np.abs(dy))


def vjp_flops(args, options):
    """Five products a pair: the logits again, dP, dv, dq and dk."""
    _, q, k, v, _ = args
    return 2 * pairs((q, k), options) * (3 * q.shape[3] + 2 * v.shape[3])


def vjp_moved(args, options):
    """dy, q, k, v read once, dq, dk, dv written once."""
    dy, q, k, v, _ = args
    return q.itemsize * (dy.size + 2 * (q.size + k.size + v.size))


def vjp_slices(args, options, budget):
    """One head of one sample at a time: its dk and dv need every query, normalised over every key."""
    dy = args[0]
    for at, q, k, v, mask in head_slices(args[1:], options):
        yield (dy[at], q, k, v, mask), {"causal": False, "scale": options.get("scale")}, (at, at, at)


# Weights that vanish may be the smallest number that an exponential gives instead of 0.
SLACK = dict.fromkeys(("direct", "flash"), (2.0**-64,) * 3)
contract(Contract("attention_vjp", ops.attention_vjp, ("dq", "dk", "dv"), FAMILIES, vjp_cases,
                  dict.fromkeys(("direct", "flash"), vjp_bound), vjp_flops, vjp_moved, vjp_slices, SLACK,
                  slips=vjp_slips, large=LARGE))
