"""One case: call the kernel as a user would and as an adversary would, and hold the result to the contract."""
import math
import re
from typing import NamedTuple

import numpy as np

from . import conduct
from .bounds import ARITHMETICS, rounded
from .cases import PROOF, on_case, round_to, wide


class Defect(Exception):
    """What is wrong with a kernel: kind, one sentence, and where it shows: (got, reference, failing mask)."""

    def __init__(self, kind, sentence, output=None, numbers=None):
        super().__init__(sentence)
        self.kind, self.sentence, self.output, self.numbers = kind, sentence, output, numbers


class Misuse(Exception):
    """What the verdict was asked cannot be judged: one sentence that says why. No fault of the kernel's."""


class Expected(NamedTuple):
    """The reference's outputs and the bounds on them, both wide, one each an output or None; the algorithm's key."""

    outputs: tuple
    bounds: tuple
    algorithm: str


def carrier(dtype):
    """The NumPy dtype that holds data of a dtype: NumPy has no bfloat16."""
    return np.dtype("float32" if dtype == "bfloat16" else dtype)


def together(y):
    """Outputs as a tuple."""
    return y if isinstance(y, tuple) else (y,)


def algorithm_of(kernel, contract, case):
    """The key of the bound for this call."""
    key = kernel.algorithm if isinstance(kernel.algorithm, str) else kernel.algorithm(*case.args, **case.options)
    if key not in contract.bounds:
        raise Misuse(f"{kernel.operation}: algorithm must be one of {', '.join(contract.bounds)}, got {key!r}")
    return key


def expected(kernel, contract, case):
    """Evaluate the reference and its bound in a wider type than the kernel's."""
    broad = on_case(lambda a, path: wide(a, case.dtype), case, contract.names, contract.host)
    arithmetic, proof = ARITHMETICS[kernel.arithmetic], case.family in PROOF
    algorithm = algorithm_of(kernel, contract, case)
    with np.errstate(all="ignore"):
        outputs = together(contract.reference(*broad.args, **broad.options))
        bounds = contract.bounds[algorithm](broad.args, broad.options, outputs, arithmetic, proof, kernel.chain)
        # Where longdouble is no wider than float64 the reference errs as much as the kernel may.
        twice = 2 if case.dtype == "float64" and np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps else 1
        bounds = tuple(None if b is None else twice * np.asarray(b, dtype=np.float64) for b in bounds)
        if case.dtype != kernel.arithmetic:
            bounds = tuple(None if b is None else rounded(b, np.asarray(y, dtype=np.float64), case.dtype)
                           for b, y in zip(bounds, outputs))
    return Expected(outputs, tuple(None if b is None else np.where(np.isnan(b), np.inf, b) for b in bounds), algorithm)


def check_form(contract, case, got, outputs):
    """Number, type, shape and dtype of the outputs: looked at before any value."""
    n = len(contract.outputs)
    if len(got) != n:
        raise Defect("form", f"returns {len(got)} output{'s' * (len(got) != 1)} where {n} are expected: "
                             f"{', '.join(contract.outputs)}")
    for name, g, y in zip(contract.outputs, got, outputs):
        if (g is None) != (y is None):
            raise Defect("form", f"{name} must be {'None' if y is None else 'an array'} here, got {type(g).__name__}",
                         name)
        if y is None:
            continue
        if not isinstance(g, np.ndarray):
            raise Defect("form", f"{name} must be an array like the inputs, got {type(g).__name__}", name)
        if g.shape != y.shape:
            raise Defect("shape", f"{name} must have shape {y.shape}, got {g.shape}", name)
        if g.dtype != carrier(case.dtype):
            raise Defect("dtype", f"{name} must be {case.dtype} as the inputs are, got {g.dtype}", name)


def compare(name, got, reference, bound, spreads):
    """The worst error as a share of its bound; Defect where NaN, infinities or a value are not what they should be."""
    never = conduct.unwritten(got) & np.isfinite(reference)
    if np.any(never):
        raise Defect("unwritten", f"{name}: {count(never)} never written", name, (got, reference, never))
    g = np.asarray(got, dtype=reference.dtype)
    promised = np.isfinite(bound) | ~np.isfinite(reference)
    if spreads:
        same = np.isfinite(g) == np.isfinite(reference)
    else:
        same = np.where(np.isnan(reference), np.isnan(g), np.where(np.isinf(reference), g == reference, np.isfinite(g)))
    wrong = promised & ~same
    if np.any(wrong):
        raise Defect("non-finite", f"{name}: NaN or infinity in {count(wrong)} where the reference has it not, or the "
                                   f"reverse", name, (got, reference, wrong))
    with np.errstate(all="ignore"):
        error = np.where(np.isfinite(bound) & np.isfinite(reference), np.abs(g - reference), 0).astype(np.float64)
    wrong = error > bound
    if np.any(wrong):
        worst = np.max(error[wrong] / np.maximum(bound[wrong], 1e-300))
        raise Defect("value", f"{name}: {count(wrong)} outside the error bound, the worst by a factor of {worst:.3g}",
                     name, (got, reference, wrong))
    return float(np.max(error / np.maximum(bound, 1e-300), initial=0))


def count(mask):
    """'3 of 12 elements'."""
    return f"{np.count_nonzero(mask)} of {mask.size} element{'s' * (mask.size != 1)}"


def compare_integers(name, got, reference, slack, dtype):
    """On integers every order of summation is exact: equal bits but for the sign of zero, or `slack` apart."""
    target = round_to(np.asarray(reference, dtype=np.float64), dtype)
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(got - target) <= slack)
    if np.any(wrong):
        raise Defect("integer", f"{name}: {count(wrong)} wrong on small integers, where every sum is exact", name,
                     (got, reference, wrong))


def settle(contract, case, got, want):
    """Hold one call's outputs to what is expected; returns the worst share."""
    check_form(contract, case, got, want.outputs)
    share = 0.0
    slack = contract.slack.get(want.algorithm, (0,) * len(got))
    for name, g, y, bound, apart in zip(contract.outputs, got, want.outputs, want.bounds, slack):
        if y is not None:
            if case.family == "integer":
                compare_integers(name, g, y, apart, case.dtype)
            share = max(share, compare(name, g, y, bound, want.algorithm in contract.spreads))
    return share


def call(kernel, case, outputs, fill=None):
    """Call a kernel on a case, its memory poisoned beforehand; raw kernels also get guard zones around every output.

    fill: a number that stands in a raw kernel's outputs instead of the poison, by turns with its opposite.
    """
    dtype = carrier(case.dtype)
    if not kernel.raw:
        conduct.soil([y.shape for y in outputs if y is not None], dtype)
        return together(_run(kernel, case.args, case.options))
    rooms = [(None, None) if y is None else conduct.guarded(y.shape, dtype, kernel.layout) for y in outputs]
    outs = tuple(out for out, _ in rooms)
    for out in outs if fill else ():
        if out is not None:
            out[...] = np.resize((fill, -fill), out.shape)
    _run(kernel, (outs if len(outs) > 1 else outs[0], *case.args), case.options)
    for out, buffer in rooms:
        if out is not None and conduct.breached(buffer):
            raise Defect("guard", f"writes outside its output of shape {out.shape}")
    return outs


def _run(kernel, args, options):
    try:
        with np.errstate(all="ignore"):
            return kernel.function(*args, **options)
    except (Defect, Misuse):
        raise
    except (Exception, SystemExit) as error:
        raise Defect("raises", f"raises {type(error).__name__}: {in_short(error)}") from error


def in_short(error):
    """An exception's text in one line that can be read."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + " ..."


def judge(kernel, contract, case, layout="plain", only=None):
    """Judge a kernel on one case whose arrays (or the one named `only`) are laid out in a way; returns the worst share.

    Returns None when a layout is refused by a ValueError or TypeError that names the argument: that is allowed.
    """
    buffers, paths = [], []

    def place(array, path):
        made, buffer = conduct.LAYOUTS[layout if only in (None, path) else "plain"](array)
        buffers.append(buffer)
        paths.append(path)
        return made

    if layout == "overlapping":
        case = _overlapping(contract, case, buffers, paths)
    placed = case if buffers else on_case(place, case, contract.names, contract.host)
    want = expected(kernel, contract, placed)
    on_case(lambda a, path: buffers.append(a) if path.split("[")[0] in contract.host else None, case, contract.names)
    before, settings, generators = conduct.fingerprint(buffers), conduct.settings(), conduct.generators()
    try:
        got = call(kernel, placed, want.outputs)
    except Defect as defect:
        cause = defect.__cause__
        if layout != "plain" and isinstance(cause, (ValueError, TypeError)) and any(
                re.search(rf"\b{p.split('[')[0]}\b", str(cause)) for p in paths):
            return None
        raise
    share = settle(contract, case, got, want)
    if conduct.fingerprint(buffers) != before:
        raise Defect("mutated", "changes its inputs, or memory beside them")
    first = [None if g is None else g.tobytes() for g in got]
    again = call(kernel, placed, want.outputs)
    if [None if g is None else g.tobytes() for g in again] != first:
        settle(contract, case, again, want)  # a wrong second result says more than a different one
        raise Defect("different bits", "gives different bits for the same input on a second call")
    for name, value in conduct.settings().items():
        if value != settings.get(name, value):
            raise Defect("settings", f"leaves {name} changed for the whole process")
    if conduct.generators() != generators:  # compiling for the first time may draw from them; a kernel may not
        conduct.advance()
        generators = conduct.generators()
        call(kernel, placed, want.outputs)
        for name, value in conduct.generators().items():
            if value != generators[name]:
                raise Defect("settings", f"draws from {name}, or sets its seed, for the whole process")
    return share


def _overlapping(contract, case, buffers, paths):
    """The case with all floating arrays in one memory: one array where shapes agree, else shifted by an element."""
    shapes = []
    on_case(lambda a, path: shapes.append(a.shape), case, contract.names, contract.host)
    room, buffer = conduct.guarded((max(map(math.prod, shapes), default=0) + len(shapes),), carrier(case.dtype))
    room[...] = round_to(np.random.default_rng(room.size).standard_normal(room.size), case.dtype)
    buffers.append(buffer)

    def place(array, path):
        paths.append(path)
        if not np.issubdtype(array.dtype, np.floating):
            return array
        shift = shapes.index(array.shape)
        return room[shift:shift + array.size].reshape(array.shape)

    return on_case(place, case, contract.names, contract.host)


def judge_state(kernel, contract, case):
    """Three calls in the same memory, the second on other values: nothing may be remembered, nothing taken back."""
    buffers = []

    def place(array, path):
        buffers.append(conduct.LAYOUTS["plain"](array)[0])
        return buffers[-1]

    def turn(array, path):  # other values of the same kind, exact in every dtype; the first may stay
        if not np.issubdtype(array.dtype, np.floating):
            return array
        turned = array.reshape(-1)[::-1] * array.dtype.type(0.5)
        turned[:array.size > 1] = array.reshape(-1)[:array.size > 1]
        return turned.reshape(array.shape)

    placed = on_case(place, case, contract.names, contract.host)
    other = on_case(turn, case, contract.names, contract.host)
    wants = expected(kernel, contract, case), expected(kernel, contract, other)
    held, share = [], 0.0
    for values, want in ((case, wants[0]), (other, wants[1]), (case, wants[0])):
        sources = []
        on_case(lambda a, path, s=sources: s.append(a), values, contract.names, contract.host)
        for target, source in zip(buffers, sources):
            target[...] = source
        got = call(kernel, placed, want.outputs)
        try:
            share = max(share, settle(contract, values, got, want))
        except Defect as defect:
            judge(kernel, contract, values)  # wrong on these values by themselves, perhaps: then that is the defect
            raise Defect("state", f"is wrong once it has been called on other values of the same shape: {defect}",
                         defect.output, defect.numbers) from defect
        held.append((got, [None if g is None else g.tobytes() for g in got]))
    if any([None if g is None else g.tobytes() for g in got] != bits for got, bits in held):
        raise Defect("state", "returns memory that a later call overwrites")
    if kernel.raw:
        got = call(kernel, placed, wants[0].outputs, ARITHMETICS[case.dtype].huge / 4)
        if [None if g is None else g.tobytes() for g in got] != held[0][1]:
            raise Defect("unwritten", "depends on what stood in its output before the call")
    return share
