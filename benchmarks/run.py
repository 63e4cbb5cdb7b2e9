"""Verify, then time: rows of a benchmark, each beside the machine's ceilings of the same rounds."""
import numpy as np

from kernels.contract import Kernel, contracts
from kernels.judge import Defect
from kernels.large import judge_large

from . import ceilings, clock
from .providers import GPU, THEIRS, available, outputs
from .workloads import selected


class Refused(RuntimeError):
    """A kernel that is wrong is not timed; a time above the machine's ceiling is no record but an error."""


def algorithm(provider, work):
    """The key of the bound: what the provider says, else the direct sum's, which any order of summation keeps."""
    backend = provider.split("/")[0]
    if backend not in ("cpu", *GPU):
        return "direct"
    from kernels.contract import registered

    mine = [k for k in registered(backend) if k.operation == work.operation]
    chosen = [k for k in mine if not isinstance(k.algorithm, str)] or mine
    key = chosen[0].algorithm
    return key if isinstance(key, str) else key(*work.case.args, **work.case.options)


def verified(provider, work, function):
    """The worst share of the contract's bound, on the inputs that are timed. Raises: Refused when it is wrong."""
    contract = contracts()[work.operation]
    if provider in THEIRS and work.noise:
        return None  # PyTorch's own noise: what follows from it is verified on the row with noise given
    key = algorithm(provider, work)
    kernel = Kernel(work.operation, provider, key if key in contract.bounds else "direct", None, raw=False)
    try:
        return judge_large(kernel, contract, work.case, got=outputs(function()))
    except Defect as defect:
        raise Refused(f"{work.operation} of {provider} is wrong on {work.label}, so it is not timed: "
                      f"{defect}") from None


def flops_done(work, key):
    """Flops that the algorithm does: F(4x4, 3x3) multiplies 36 times where the definition does 144 times."""
    flops = contracts()[work.operation].flops(work.case.args, work.case.options)
    return flops / 4 if key == "winograd" else flops


def rows(operations, providers, preset, rounds, say, watch=None):
    """One dict a row. Raises: Refused, ValueError."""
    ready, missing = available(providers)
    for name, why in missing.items():
        say(f"{name}: {why}")
    for work in selected(operations, preset):
        contract = contracts()[work.operation]
        functions = {name: f for name, prepare in ready.items() if (f := prepare(work)) is not None}
        shares = {name: verified(name, work, f) for name, f in functions.items()}
        moved = contract.bytes(work.case.args, work.case.options)
        triad, triad_bytes = ceilings.triad(moved)
        streamed, streamed_bytes = ceilings.streamed(moved)
        peak, peak_flops = ceilings.multiply_adds()
        limits = {"triad": triad, "streamed": streamed, "multiply-adds": peak}
        if work.noise:
            limits["noise"], numbers = ceilings.noise(work.noise)
        samples = clock.interleaved(functions | limits, rounds)
        # The best of the rounds: a ceiling is what can be reached.
        bandwidth = max(triad_bytes / np.min(samples["triad"]), streamed_bytes / np.min(samples["streamed"]))
        rate = peak_flops / np.min(samples["multiply-adds"])
        drawing = work.noise / (numbers / np.min(samples["noise"])) if work.noise else 0.0
        for name in functions:
            key = algorithm(name, work)
            floor = max(moved / bandwidth, flops_done(work, key) / rate, drawing)
            time, low, high = clock.median(samples[name])
            by = "noise" if floor == drawing else "memory" if floor == moved / bandwidth else "arithmetic"
            row = {"operation": work.operation, "sizes": work.label, "provider": name, "algorithm": key,
                   "seconds": time, "low": low, "high": high, "bytes": moved,
                   "flops": contract.flops(work.case.args, work.case.options),
                   "ceiling": floor / time, "share_of_bound": shares[name],
                   "bound_by": by,
                   "vs_triad": clock.ratio(samples["triad"] * (moved / triad_bytes), samples[name]),
                   "bandwidth": bandwidth, "rate": rate, "samples": samples[name].tolist(),
                   "machine_samples": samples["multiply-adds" if by == "arithmetic" else "triad"].tolist()}
            for other in ("reference", "torch", "torch-compiled"):
                if other in functions and other != name:
                    row[f"vs_{other}"] = clock.ratio(samples[other], samples[name])
            yield row
        if watch:
            watch(work)


def above_ceiling(row):
    """A sentence when a row is faster than the machine can be, beyond what its interval explains."""
    if row["ceiling"] * row["seconds"] / row["high"] <= 1:
        return None
    return (f"{row['operation']} of {row['provider']} on {row['sizes']} takes {100 * row['ceiling']:.0f} % of the "
            f"ceiling's rate: the ceiling or the count of {row['bound_by']} is wrong")
