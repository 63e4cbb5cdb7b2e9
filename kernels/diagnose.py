"""Guesses at the cause of a failure: what else, computed rightly, would give what the kernel gave."""
import collections
import inspect
import itertools
from typing import NamedTuple

import numpy as np

from .cases import SeededDraw, draw_case, on_case, round_to
from .judge import Defect, Misuse, call, expected


def guesses(kernel, contract, failure, most=3):
    """Sentences that fit the failure, the surest first; empty where no pattern shows.

    The smallest failing case fits too many stories. A story counts when it fits several failing cases of a fair size.
    """
    if failure.large:
        both = {"square": "queries and keys", "causal": "queries and keys, causal", "mask": "queries and keys, masked"}
        axis = both.get(failure.large.axis, failure.large.axis)
        return [f"right in small cases, wrong from a size of {failure.large.length} on in {axis}: some limit is passed"]
    if failure.layout == "state" and failure.defect.kind == "unwritten":
        return ["adds to its output, or compares with it, or skips some of it, instead of writing it"]
    if failure.layout == "state":
        return ["something is remembered between calls"]
    if failure.layout != "plain":
        return [f"right for plain arrays, not for a {failure.layout}: strides or memory mishandled"]
    if "not every time" in failure.defect.sentence:
        return ["something is remembered between calls, or threads race"]
    if failure.defect.output is None:
        return []
    tally, looked = collections.Counter(), 0
    drawn = (draw_case(SeededDraw(s), kernel, contract, ("normal", failure.first.family)[s % 2]) for s in range(60))
    for case in itertools.chain([failure.first], drawn):
        case = case._replace(family="normal")  # the proven bounds' slack would let coincidences fit
        stories = set(told(kernel, contract, case, failure.defect.output))
        if stories:
            looked += 1
            tally.update(stories)
        if looked == 6:
            break
    fits = [(-n, ORDER.index(story.rank), story.text) for story, n in tally.items() if 3 * n >= 2 * looked]
    return [text for _, _, text in sorted(fits) if text][:most]


class Story(NamedTuple):
    """An explanation and what kind it is: the more particular kinds come first where both fit."""

    text: str
    rank: str


ORDER = ("numbers", "slip", "argument", "precision")


def told(kernel, contract, case, output):
    """Stories that fit one case; an empty one where it fails and none does; nothing where it does not fail."""
    index = contract.outputs.index(output)
    try:
        want = expected(kernel, contract, case)
        got = call(kernel, case, want.outputs)[index]
    except (Defect, Misuse):
        return
    reference, bound = want.outputs[index], want.bounds[index]
    if not isinstance(got, np.ndarray) or reference is None or got.size < 4:
        return
    got = np.asarray(got, dtype=np.float64)
    with np.errstate(all="ignore"):
        if got.shape != reference.shape:
            yield Story("", "precision")
        else:
            wrong = ~((np.abs(got - reference) <= bound) | ~np.isfinite(bound))
            if not np.any(wrong):
                return
            yield Story("", "precision")
            yield from (Story(text, "numbers") for text in pattern(got, reference, bound, wrong))
            yield from (Story(text, "precision") for text in precision(got, reference, kernel.data))
        yield from variations(contract, kernel, case, index, got)


def near(got, target, bound):
    """Whether an array is what is wanted, within the bound where there is one."""
    if got.shape != target.shape:
        return False
    with np.errstate(all="ignore"):
        fits = (np.abs(got - target) <= bound) | ~np.isfinite(bound) | (np.isnan(got) & np.isnan(target))
    return bool(np.all(fits))


def pattern(got, reference, bound, wrong):
    """What the numbers alone show."""
    got, reference = np.asarray(got, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if got.size and np.all(got == 0):
        yield "every element is zero"
        return
    if np.all(np.isnan(got)):
        yield "every element is NaN"
        return
    finite = np.isfinite(got) & np.isfinite(reference)
    if np.count_nonzero(reference[finite]) > 1:
        factor = float(np.sum(got[finite] * reference[finite]) / np.sum(reference[finite] ** 2))
        if near(got, factor * reference, (1 + abs(factor)) * bound) and not near(got, reference, bound):
            yield f"every element is {factor:.6g} times the reference: a constant factor"
    if got.size > 1:
        shift = float(np.mean((got - reference)[finite])) if np.any(finite) else 0.0
        if near(got, reference + shift, 2 * bound) and not near(got, reference, bound):
            yield f"every element is {shift:.6g} above the reference: a constant offset"
    for axis, size in enumerate(wrong.shape):
        hit = np.unique(np.nonzero(wrong)[axis])
        if size > 1 and 0 < hit.size <= (size + 1) // 2 and np.all(np.diff(hit) == 1) and (
                hit[0] == 0 or hit[-1] == size - 1):
            where = "first" if hit[0] == 0 else "last"
            yield f"only the {where} {'one' if hit.size == 1 else 'few'} along axis {axis} wrong"
            break
    for a, b in itertools.combinations(range(reference.ndim), 2):
        if reference.shape[a] > 1 and reference.shape[b] > 1 and near(
                got, np.swapaxes(reference, a, b), np.swapaxes(bound, a, b)):
            yield f"the reference with axes {a} and {b} exchanged"
    for axis, size in enumerate(reference.shape):
        if got.shape == reference.shape and size > 1:
            if near(got, np.flip(reference, axis), np.flip(bound, axis)):
                yield f"the reference turned round along axis {axis}"
            for by in (1, -1):
                kept = [slice(None)] * reference.ndim, [slice(None)] * reference.ndim
                kept[0][axis], kept[1][axis] = (slice(1, None), slice(None, -1))[::by]
                mine, theirs = (tuple(k) for k in kept)
                if near(got[mine], reference[theirs], bound[theirs]) and np.any(reference != 0):
                    yield f"the reference shifted by one along axis {axis}"


def variations(contract, kernel, case, index, got):
    """Calls of the reference with an argument changed: a match says how the kernel treats that argument."""
    own = (("slip", text, case._replace(args=args, options=options)) for text, args, options in
           contract.slips(case.args, case.options))
    other = (("argument", text, changed) for text, changed in
             itertools.chain(altered_options(contract, case), altered_arrays(contract, case)))
    for rank, text, changed in itertools.chain(own, other):
        try:
            want = expected(kernel, contract, changed)
        except (ValueError, TypeError, IndexError, KeyError, ZeroDivisionError):
            continue  # the change makes no valid call
        target, bound = want.outputs[index], want.bounds[index]
        if target is not None and target.shape == got.shape and np.any(np.isfinite(bound)) and near(
                got, np.asarray(target, dtype=np.float64), bound):
            yield Story(text, rank)


def bindings(contract, case):
    """Every argument of a case by name, and how to put another value in its place."""
    for i, name in enumerate(contract.names[:len(case.args)]):
        yield name, case.args[i], lambda v, i=i: case._replace(args=(*case.args[:i], v, *case.args[i + 1:]))
    for name, value in case.options.items():
        yield name, value, lambda v, n=name: case._replace(options=case.options | {n: v})


def altered_options(contract, case):
    """Options left out, negated, exchanged, doubled or halved."""
    defaults = {n: p.default for n, p in inspect.signature(contract.reference).parameters.items()}
    for name, value, put in bindings(contract, case):
        if isinstance(value, np.ndarray) or name == "history":
            continue
        default = defaults.get(name, inspect.Parameter.empty)
        if default is not inspect.Parameter.empty and default != value:
            yield f"as if {name} were left out ({default!r})", put(default)
        if isinstance(value, bool):
            yield f"as if {name} were {not value}", put(not value)
        elif isinstance(value, (int, float)):
            options = (0, 1, -value, 2 * value, value / 2 if isinstance(value, float) else value + 1, value - 1)
            for other in options:
                if other != value:
                    yield f"as if {name} were {other} instead of {value}", put(type(value)(other))
        elif isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, (int, tuple)) for v in value):
            if value[0] != value[1]:
                yield f"as if the two parts of {name} were exchanged", put(value[::-1])
            if any(isinstance(v, tuple) and v[0] != v[1] for v in value):
                yield f"as if the ends of {name} were exchanged", put(tuple(
                    v[::-1] if isinstance(v, tuple) else v for v in value))


def altered_arrays(contract, case):
    """Arrays left out, zeroed, negated, turned round, transposed, or taken for one another."""
    arrays = [(n, v, put) for n, v, put in bindings(contract, case) if isinstance(v, np.ndarray)]
    if case.dtype in ("float32", "float64"):
        for narrow in ("float16", "bfloat16"):
            yield f"as if all inputs were rounded to {narrow}", on_case(
                lambda a, path, t=narrow: round_to(a, t).astype(a.dtype), case, contract.names, contract.host)
    defaults = {n: p.default for n, p in inspect.signature(contract.reference).parameters.items()}
    for name, value, put in arrays:
        if defaults.get(name, 0) is None:
            yield f"as if {name} were left out", put(None)
        if value.dtype == np.bool_:
            yield f"as if {name} were inverted", put(~value)
            continue
        for narrow in ("float16", "bfloat16"):
            if case.dtype in ("float32", "float64"):
                yield f"as if {name} were rounded to {narrow}", put(round_to(value, narrow).astype(value.dtype))
        if case.dtype == "float32":
            yield f"as if {name} kept 11 bits, as TF32 does", put(shortened(value, 11))
        yield f"as if {name} were zero", put(value * 0)
        yield f"as if {name} had the other sign", put(-value)
        if value.ndim == 4 and value.shape[2:] != (1, 1):
            yield f"as if {name} were turned round in its last two axes", put(value[:, :, ::-1, ::-1])
        for axis in range(value.ndim):
            if value.shape[axis] > 1:
                yield f"as if {name} were turned round along axis {axis}", put(np.flip(value, axis))
        for a, b in itertools.combinations(range(value.ndim), 2):
            if value.shape[a] > 1 or value.shape[b] > 1:
                yield f"as if axes {a} and {b} of {name} were exchanged", put(np.swapaxes(value, a, b))
        if value.ndim > 1 and value.shape[0] > 1:
            yield f"as if every sample of {name} were the first", put(np.broadcast_to(value[:1], value.shape))
    for (one, a, put_a), (two, b, _) in itertools.combinations(arrays, 2):
        if a.shape == b.shape and a.dtype == b.dtype:
            both = put_a(b)
            names = list(contract.names)
            where = names.index(two)
            if where < len(both.args):
                both = both._replace(args=(*both.args[:where], a, *both.args[where + 1:]))
                yield f"as if {one} and {two} were exchanged", both


def precision(got, reference, dtype):
    """Whether every number is one of a narrower type: rounded to it on the way out."""
    for narrow in ("float16", "bfloat16"):
        known, found = (np.all(round_to(np.asarray(a, np.float64), narrow) == a) for a in (reference, got))
        if dtype in ("float32", "float64") and found and not known and np.any(got != 0):
            yield f"every number is a {narrow}: rounded to it at the end"


def shortened(array, bits):
    """A float32 array with this many bits of its significand left."""
    mask = np.uint32(2**32 - 2 ** (24 - bits))
    return (np.ascontiguousarray(array).view(np.uint32) & mask).view(np.float32)
