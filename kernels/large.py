"""Large calls, verified by slices: the reference and its bound exist for one part of the output at a time."""
from .judge import expected, settle, together

BUDGET = 2**27  # bytes of a slice's largest temporary; evaluating reference and bound takes about ten such


def judge_large(kernel, contract, case, budget=BUDGET, got=None):
    """The worst share of a kernel on a case of any size; Defect where a slice of its output is wrong.

    got: outputs that the kernel has given already. Only values are judged here, conduct is the small cases'.
    """
    if got is None:
        got = together(kernel.function(*case.args, **case.options))
    share = 0.0
    for args, options, picks in contract.slices(case.args, case.options, budget):
        part = case._replace(args=args, options=options)
        want = expected(kernel, contract, part)
        chosen = tuple(None if p is None else g[p] for g, p in zip(got, picks))
        want = want._replace(outputs=tuple(None if p is None else y for y, p in zip(want.outputs, picks)))
        share = max(share, settle(contract, part, chosen, want))
    return share
