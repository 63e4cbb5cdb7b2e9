"""The verdict on a kernel: bounded cases, integer cases and conduct, drawn and shrunk by hypothesis; and large cases."""
import hashlib
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import HealthCheck, Phase, configuration, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from .cases import Case, HypothesisDraw, SeededDraw, digest, draw_case, on_case, paths_of, round_to
from .conduct import LAYOUTS
from .contract import contracts
from .judge import Defect, expected, judge, judge_state, settle, together

SHRINKING = 500  # cases that the search for a smaller failure may try,
SECONDS = 60.0  # and the time that it may take


class Long(NamedTuple):
    """What a large case is drawn from: the axis that is long, its length, and a seed."""

    axis: str
    length: int
    seed: int


class Failure(NamedTuple):
    """The smallest failing case found: its defect, the layout of which argument (None: all) it takes; the first one."""

    case: Case
    defect: Defect
    layout: str
    only: str | None
    first: Case
    large: Long | None = None


class Verdict(NamedTuple):
    """What was tried and what came of it. share: the worst error over its bound; inputs: a hash of all inputs."""

    kernel: object
    seed: int
    examples: int
    cases: int
    refused: tuple
    share: float
    inputs: str
    seconds: float
    failure: Failure | None

    @property
    def passed(self):
        return self.failure is None


def phases(contract, examples, dtype):
    """The parts of a verdict: (family, layout, number of cases). Each family and kind of conduct has its own cases."""
    families = [f for f in contract.families if (f, dtype) != ("huge", "float16")]  # which ends at 65504
    few, share = max(3, examples // 10), -(-examples // len(families))
    yield from ((family, "plain", share) for family in families)
    yield "integer", "plain", max(4, examples // 4)
    yield "nonfinite", "plain", max(4, examples // 8)
    yield "empty", "plain", few
    yield "normal", "state", few
    for layout in [*LAYOUTS, "overlapping"]:
        if layout != "plain":
            yield "normal", layout, few


def run(kernel, contract, case, layout, only=None):
    """Judge one case under one kind of conduct."""
    if layout == "state":
        return judge_state(kernel, contract, case)
    return judge(kernel, contract, case, layout, only)


def blamed(kernel, contract, failure):
    """The failure without its layout where the same case fails in plain arrays too."""
    if failure.layout not in ("plain", "state", "overlapping"):
        try:
            judge(kernel, contract, failure.case)
        except Defect as defect:
            return failure._replace(defect=defect, layout="plain", only=None)
    return failure


def verify(kernel, examples=100, seed=0, watch=None):
    """Judge a kernel against its contract; returns a Verdict. watch(case, layout) is called before each case."""
    contract = contracts()[kernel.operation]
    started, tried, inputs, share, refused = time.monotonic(), 0, hashlib.blake2b(digest_size=16), 0.0, set()
    failure = None

    def count(case, layout):
        nonlocal tried
        tried += 1
        inputs.update(digest(case).encode())
        if watch:
            watch(case, layout)

    for number, (family, layout, amount) in enumerate(phases(contract, examples, kernel.data)):
        found, deadline, extra = [], None, 0

        def trial(d, family=family, layout=layout, found=found):
            nonlocal share, deadline, extra
            case = draw_case(d, kernel, contract, family)
            only = None
            if layout not in ("plain", "state", "overlapping") and d.choice((False, False, True)):
                only = d.choice(paths_of(case, contract))
            mark = (digest(case), layout, only)
            extra += bool(found)
            if found and (extra > SHRINKING or time.monotonic() > deadline) and mark != found[-1][0]:
                return  # no more shrinking: only the smallest failure so far still fails
            if not found:
                count(case, layout)
            elif watch:
                watch(case, layout)
            try:
                worst = run(kernel, contract, case, layout, only)
            except Defect as defect:
                deadline = deadline or time.monotonic() + SECONDS
                found.append((mark, Failure(case, defect, layout, only, found[0][1].case if found else case)))
                raise
            if worst is None:
                refused.add(layout)
            else:
                share = max(share, worst)

        try:
            search(trial, amount, 1000 * seed + number)
        except Defect:
            failure = zeroed(kernel, contract, blamed(kernel, contract, found[-1][1]))
        except Flaky:
            failure = found[0][1]
            if failure.defect.kind != "settings":  # which once changed stay
                failure.defect.sentence += " (not every time: the same input has also passed)"
        if failure:
            break
    for family, long in () if failure else directions(kernel, contract, examples, seed):
        case = draw_case(SeededDraw(long.seed), kernel, contract, family, long[:2])
        count(case, "plain")
        try:
            share = max(share, judge(kernel, contract, case))
        except Defect as defect:
            failure = Failure(case, defect, "plain", None, case, long)
            failure = zeroed(kernel, contract, shortest(kernel, contract, failure, watch))
            break
    return Verdict(kernel, seed, examples, tried, tuple(sorted(refused)), share, inputs.hexdigest(),
                   time.monotonic() - started, failure)


def directions(kernel, contract, examples, seed):
    """(family, Long) of the large cases: every axis that the kernel does not pin, with families by turns, as many as
    there are from 50 examples on."""
    wanted = kernel.where.get("large", contract.large.axes) or ()
    axes, families = [a for a in contract.large.axes if a in wanted and a not in kernel.where], contract.large.families
    for turn in range(max(1, examples * len(families) // 50)):
        for number, axis in enumerate(axes):
            yield families[(turn + number) % len(families)], Long(axis, contract.large.axes[axis], 1000 * seed + turn)


def shortest(kernel, contract, failure, watch):
    """A large failure at the smallest length that fails, as far as halving finds it."""
    low, long = 0, failure.large
    while long.length - low > 1:
        middle = (low + long.length) // 2
        case = draw_case(SeededDraw(long.seed), kernel, contract, failure.first.family, (long.axis, middle))
        if watch:
            watch(case, "plain")
        try:
            judge(kernel, contract, case)
        except Defect as defect:
            long = long._replace(length=middle)
            failure = failure._replace(case=case, defect=defect, large=long)
        else:
            low = middle
    return failure


def search(trial, examples, number):
    """Run trial(d) on examples that hypothesis draws from a seed, and shrink what fails. Leaves no folder behind."""
    # hypothesis keeps notes on source files it has read, even without a database.
    configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "kernels-hypothesis")

    @seed(number)
    @settings(max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck),
              phases=(Phase.generate, Phase.shrink), report_multiple_bugs=False, print_blob=False)
    @given(st.data())
    def test(data):
        trial(HypothesisDraw(data))

    test()


def exact(kernel, contract, case):
    """Whether an integer case is one still: the reference gets it right in single precision (or in its own)."""
    wider = on_case(lambda a, path: a.astype(np.float32) if a.dtype == np.float16 else a, case, contract.names,
                    contract.host)
    outputs = together(contract.reference(*wider.args, **wider.options))
    got = [None if y is None else round_to(np.asarray(y, np.float64), case.dtype) for y in outputs]
    try:
        settle(contract, case, got, expected(kernel, contract, case))
    except Defect:
        return False
    return True


def zeroed(kernel, contract, failure, tries=100):
    """A failure with as many of its values as possible set to zero or rounded to integers, in a few tries."""
    def attempt(path, change):
        nonlocal failure, tries
        case = on_case(lambda a, p: change(a) if p == path else a, failure.case, contract.names, contract.host)
        if tries and digest(case) != digest(failure.case):
            tries -= 1
            try:
                run(kernel, contract, case, failure.layout, failure.only)
            except Defect as defect:
                if defect.kind == failure.defect.kind and (case.family != "integer" or exact(kernel, contract, case)):
                    failure = failure._replace(case=case, defect=defect)
                    return True
        return False

    def half(array, second):
        """The array without half of what is not zero in it."""
        array, places = array.copy(), np.flatnonzero(array)
        middle = (places.size + 1) // 2
        array.reshape(-1)[places[middle:] if second else places[:middle]] = 0
        return array

    if failure.layout != "overlapping" and failure.case.family != "nonfinite":
        changes = (np.zeros_like, np.rint, lambda a: half(a, False), lambda a: half(a, True))
        for change in changes:
            for path in paths_of(failure.case, contract):
                while attempt(path, lambda a, c=change: c(a) if np.issubdtype(a.dtype, np.floating) else a):
                    pass
    return failure
