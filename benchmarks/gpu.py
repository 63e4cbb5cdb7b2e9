"""Times on a GPU by CUDA events, with its second-level cache cold and warm, beside its own ceilings, PyTorch and its clocks;
and what is known of the same calls where there is none."""
import functools
import importlib.util
import subprocess

import numpy as np

from kernels import budgets, cupy, numba_cuda
from kernels.contract import contracts
from kernels.hostcuda import HostCudaError, compiled

from . import clock
from .run import algorithm, verified
from .workloads import selected

TARGETS = {"sampler_step": "90 % of the copy's bandwidth", "group_norm": "90 % of the copy's bandwidth",
           "conv2d": "80 % of cuDNN", "attention": "80 % of FlashAttention-2"}  # at the same precision, or more
FACTS = 90  # the architecture whose facts stand in for times
QUERY = "clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,temperature.gpu,power.draw,clocks_event_reasons.active"
SPIN = r'''extern "C" __global__ void spin(long long cycles) {
  long long start = clock64();
  while (clock64() - start < cycles) {}
}'''


def timer(xp):
    """seconds(function, cold): one call's time on the device. The device spins while the host queues the call, so launches
    that the host is slow to make do not count; cold: twice the second-level cache is written before."""
    spin = xp.RawKernel(SPIN, "spin")
    other = xp.zeros(2 * xp.cuda.Device().attributes["L2CacheSize"], xp.uint8)
    start, stop = xp.cuda.Event(), xp.cuda.Event()

    def seconds(function, cold):
        if cold:
            other.fill(1)
        spin((1,), (1,), (np.int64(1_000_000),))
        start.record()
        function()
        stop.record()
        stop.synchronize()
        return 1e-3 * xp.cuda.get_elapsed_time(start, stop)

    return seconds


def interleaved(functions, rounds, seconds, cold):
    """{name: seconds, one sample a round}, in another order each round."""
    names, samples = list(functions), {name: [] for name in functions}
    for k in range(-2, rounds):  # two rounds compile and warm up
        for name in names[k % len(names):] + names[:k % len(names)]:
            taken = seconds(functions[name], cold)
            if k >= 0:
                samples[name].append(taken)
    return {name: np.array(s) for name, s in samples.items()}


def ceilings(xp, side=4096):
    """{name: (function, its bytes or flops)}: a copy larger than any cache, a matrix product in float32."""
    a, b, c = (xp.ones((side, side), np.float32) for _ in range(3))
    big, other = xp.zeros(4 * side * side, np.float32), xp.zeros(4 * side * side, np.float32)
    return {"copy": (lambda: xp.copyto(other, big), 2 * big.nbytes),
            "product": (lambda: xp.matmul(a, b, out=c), 2 * side**3)}


def state(xp):
    """The device, its software, and its clocks at this moment as nvidia-smi says them (None without it)."""
    runtime, device = xp.cuda.runtime, xp.cuda.Device()
    name = runtime.getDeviceProperties(device.id)["name"]
    try:
        command = ["nvidia-smi", f"--id={device.pci_bus_id}", f"--query-gpu={QUERY}", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=20)
        clocks = None if said.returncode else dict(zip(QUERY.split(","), said.stdout.strip().split(", ")))
    except (OSError, subprocess.TimeoutExpired):
        clocks = None
    return {"name": name.decode() if isinstance(name, bytes) else name, "architecture": device.compute_capability,
            "driver": runtime.driverGetVersion(), "runtime": runtime.runtimeGetVersion(), "clocks": clocks}


def moved(value, place):
    """A workload's arguments on a Device, contiguous; coefficients, times and keys stay on the host."""
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        return place.array(value, value.dtype)
    if type(value) in (tuple, list):
        return type(value)(moved(v, place) for v in value)
    return {k: moved(v, place) for k, v in value.items()} if isinstance(value, dict) else value


def launcher(provider, operation):
    """A provider's function of (device, *arguments): "cupy" chooses a version by shape, "cupy/naive" names one, and
    "numba_cuda" has one each. None where the operation has no such version. Raises: ValueError where none has."""
    backend, _, wanted = provider.partition("/")
    modules = {"cupy": cupy, "numba_cuda": numba_cuda}[backend].MODULES
    names = {}
    for v in (v for m in modules for v in m.VERSIONS if "float32" in v.dtypes):
        names.setdefault(v.function.__name__, {})[v.name] = v.function
    if wanted and not any(wanted in found for found in names.values()):
        known = sorted({n for found in names.values() for n in found})
        raise ValueError(f"{provider}: versions are {', '.join(known)}")
    found = names.get(operation, {})
    if not found or (wanted and wanted not in found):
        return None
    function = next(iter(found.values()))
    version = wanted or (None if backend == "cupy" else next(iter(found)))
    return functools.wraps(function)(functools.partial(function, version=version))


def beside(work):
    """PyTorch on the GPU (cuDNN, cuBLAS), float32 as ours, or None."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    from .beside_torch import prepare

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return prepare(work, False, "cuda")


def rows(operations, places, preset, rounds, xp):
    """One dict a workload and provider, times with a warm cache and, as "cold", with a cold one.

    places: {provider: its Device}. Raises: run.Refused where a kernel is wrong.
    """
    seconds, limits = timer(xp), ceilings(xp)
    measured = interleaved({k: f for k, (f, _) in limits.items()}, rounds, seconds, True)
    bandwidth, rate = (limits[k][1] / np.median(measured[k]) for k in ("copy", "product"))
    for work in selected(operations, preset):
        contract, case = contracts()[work.operation], work.case
        functions = {}
        for name, place in places.items():
            if (function := launcher(name, work.operation)) is not None:
                functions[name] = functools.partial(function, place, *moved(case.args, place), **moved(case.options, place))
        if (theirs := beside(work)) is not None:
            functions["torch"] = theirs
        shares = {name: verified(name, work, f) for name, f in functions.items()}
        before = state(xp)
        warm, cold = (interleaved(functions, rounds, seconds, c) for c in (False, True))
        nbytes, flops = contract.bytes(case.args, case.options), contract.flops(case.args, case.options)
        floor = max(nbytes / bandwidth, flops / rate)
        for name in functions:
            time, low, high = clock.median(warm[name])
            row = {"operation": work.operation, "sizes": work.label, "provider": name, "algorithm": algorithm(name, work),
                   "seconds": time, "low": low, "high": high, "cold": clock.median(cold[name]), "bytes": nbytes,
                   "flops": flops, "ceiling": floor / np.median(cold[name]), "share_of_bound": shares[name],
                   "bound_by": "memory" if floor == nbytes / bandwidth else "arithmetic", "bandwidth": bandwidth,
                   "rate": rate, "samples": warm[name].tolist(), "target": TARGETS.get(work.operation), "device": before,
                   "clocks_after": state(xp)["clocks"]}
            if "torch" in functions and name != "torch":
                row["vs_torch"] = clock.ratio(warm["torch"], warm[name])
            yield row


@functools.cache
def needs(twin, path, kernel):
    """What a kernel takes: as the table of budgets says, or, of a version or head size that it has not, as compiled now.

    None where nothing can be compiled.
    """
    table = budgets.committed()["twins" if twin else "kernels"]
    if kernel in table:
        return table[kernel][str(FACTS)]
    try:
        return (budgets.twin_needs_of if twin else budgets.needs_of)([(path, kernel, 32, 0)], FACTS)[kernel]
    except HostCudaError:
        return None


def facts(n, threads, dynamic):
    """A kernel's registers, shared memory and occupancy in a launch, or None where its needs are not known."""
    return None if n is None else {
        "registers": n["registers"], "spills": n["spills"], "shared": n["shared"] + dynamic,
        "occupancy": compiled.occupancy(FACTS, n["registers"], n["shared"] + dynamic, threads)}


def called(function, args, options, device):
    """A launcher's call on a device."""
    return function(device, *args, **options)


def not_measured(operations, providers, preset):
    """What stands there without a GPU: a dict a workload and provider, with the target and each kernel's compiled needs."""
    for work in selected(operations, preset):
        for name in providers:
            if (function := launcher(name, work.operation)) is None:
                continue
            call = functools.partial(called, function, work.case.args, work.case.options)
            twin = name.startswith("numba_cuda")
            kernels = {k: facts(needs(twin, path, k), *launch) for path, k, *launch in budgets.launches(call)}
            yield {"operation": work.operation, "sizes": work.label, "provider": name, "state": "not measured: no GPU",
                   "target": TARGETS.get(work.operation), "architecture": FACTS, "kernels": kernels}
