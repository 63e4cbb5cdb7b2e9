"""The verdict on a kernel: bounded cases, integer cases and conduct, drawn and shrunk by hypothesis."""
import hashlib
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import HealthCheck, Phase, configuration, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from .cases import Case, HypothesisDraw, digest, draw_case, on_case, paths_of
from .conduct import LAYOUTS
from .contract import contracts
from .judge import Defect, judge, judge_state

SHRINKING = 500  # cases that the search for a smaller failure may try,
SECONDS = 60.0  # and the time that it may take


class Failure(NamedTuple):
    """The smallest failing case found: its defect, the layout of which argument (None: all) it takes; the first one."""

    case: Case
    defect: Defect
    layout: str
    only: str | None
    first: Case


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


def phases(contract, examples):
    """The parts of a verdict: (family, layout, number of cases). Each family and kind of conduct has its own cases."""
    few, share = max(3, examples // 10), -(-examples // len(contract.families))
    yield from ((family, "plain", share) for family in contract.families)
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

    for number, (family, layout, amount) in enumerate(phases(contract, examples)):
        found, deadline, extra = [], None, 0

        def trial(d, family=family, layout=layout, found=found):
            nonlocal tried, share, deadline, extra
            case = draw_case(d, kernel, contract, family)
            only = None
            if layout not in ("plain", "state", "overlapping") and d.choice((False, False, True)):
                only = d.choice(paths_of(case, contract))
            mark = (digest(case), layout, only)
            extra += bool(found)
            if found and (extra > SHRINKING or time.monotonic() > deadline) and mark != found[-1][0]:
                return  # no more shrinking: only the smallest failure so far still fails
            if watch:
                watch(case, layout)
            if not found:
                tried += 1
                inputs.update(mark[0].encode())
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
            failure.defect.sentence += " (not every time: the same input has also passed)"
        if failure:
            break
    return Verdict(kernel, seed, examples, tried, tuple(sorted(refused)), share, inputs.hexdigest(),
                   time.monotonic() - started, failure)


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


def zeroed(kernel, contract, failure, tries=60):
    """A failure with as many of its values as possible set to zero or rounded to integers, in a few tries."""
    def attempt(path, change):
        nonlocal failure, tries
        case = on_case(lambda a, p: change(a) if p == path else a, failure.case, contract.names, contract.host)
        if tries and digest(case) != digest(failure.case):
            tries -= 1
            try:
                run(kernel, contract, case, failure.layout, failure.only)
            except Defect as defect:
                if defect.kind == failure.defect.kind:
                    failure = failure._replace(case=case, defect=defect)

    def without(array, part):
        array = array.copy()
        array.reshape(-1)[part] = 0
        return array

    simplifications = [np.zeros_like, np.rint, lambda a: without(a, slice(0, a.size // 2)),
                       lambda a: without(a, slice(a.size // 2, None)), lambda a: without(a, slice(0, None, 2)),
                       lambda a: without(a, slice(1, None, 2))]
    if failure.layout != "overlapping" and failure.case.family != "nonfinite":
        for change in simplifications:
            for path in paths_of(failure.case, contract):
                attempt(path, lambda a, c=change: c(a) if np.issubdtype(a.dtype, np.floating) else a)
    return failure
