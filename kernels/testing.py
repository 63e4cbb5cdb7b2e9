"""The verdict in a test of your own: `pytest_plugins = ["kernels.testing"]`, then take the fixture `verify_kernel`."""
import pytest

from . import report
from .user import as_kernel
from .verify import verify


def check(operation, function, examples=100, seed=0, **options):
    """Judge a function against an operation's contract; returns the Verdict, AssertionError explains a failure.

    options: algorithm, dtype, arithmetic, arrays, device, raw, where, as kernels.user.as_kernel takes them.
    """
    kernel, _ = as_kernel(operation, function, name=getattr(function, "__name__", "user"), **options)
    verdict = verify(kernel, examples, seed)
    if not verdict.passed:
        raise AssertionError(report.explain(report.entry(verdict, report.source_of(kernel))))
    return verdict


@pytest.fixture
def verify_kernel():
    """check(operation, function, examples=100, seed=0, **options)."""
    return check
