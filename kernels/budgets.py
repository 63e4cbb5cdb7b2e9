"""What the best CUDA kernels need and move, held to a committed table: budgets.json beside this file.

Nothing here runs on a GPU: registers, shared memory and instructions are the compiler's; bytes, sectors and bank conflicts
are counted by executing the compiled PTX on the CPU model.
"""
import functools
import json
import math
from pathlib import Path

import numpy as np

from . import cuda
from .attention.cupy_cuda import attention, attention_vjp
from .contract import contracts
from .conv2d.cupy_cuda import conv2d, conv2d_vjp
from .group_norm.cupy_cuda import arrays_moved, group_norm, group_norm_vjp
from .hostcuda import compiled, traffic
from .hostcuda.numba_ptx import compile_ptx
from .noise_mse.cupy_cuda import noise_mse, noise_mse_vjp
from .q_sample.cupy_cuda import q_sample
from .sampler_step.cupy_cuda import sampler_step

FILE = Path(__file__).with_name("budgets.json")
ROOM = 1.15       # between the registers and instructions of one compiler and of the next
PROCESSORS = 132  # multiprocessors that tile sizes are chosen for
SHARED = 227 << 10  # bytes of shared memory that a block may ask for, of the largest device


def calls():
    """{operation and version: (function(device), bytes that it must move, and how many times as many it may)}."""
    rng = np.random.default_rng(0)
    made = lambda *shape: rng.standard_normal(shape, dtype=np.float32)
    half = lambda *shape: made(*shape).astype(np.float16)
    step = dict(a=1.25, b=-0.75, lo=-1.0, hi=1.0, c_x=0.3, c_0=0.7, c_e=0.0, c_h=(0.5,), sigma=0.1)
    affine, silu = made(64), {"silu": True}
    pixels, filters, dy = made(1, 16, 8, 32), made(64, 16, 3, 3), made(1, 64, 8, 32)
    q, k, v, do = (made(1, 1, 128, 64) for _ in range(4))
    rows = []
    for label, shape in (("", (2, 3, 32, 32)), (", odd", (8, 3, 31, 31))):  # odd: samples do not start on 16 bytes
        (x, e, u, h), key = (made(*shape) for _ in range(4)), (7, np.arange(shape[0]), 3)
        rows += [("best" + label, sampler_step, (x, e, u, 2.0), step | {"history": (h,), "z": key}, 1.1),
                 ("vector" + label, q_sample, (x, 0.8, 0.6, key), {}, 1.1), ("best" + label, noise_mse, (e, key), {}, 1.1),
                 ("best" + label, noise_mse_vjp, (made(shape[0]), e, key), {}, 1.1)]
    for label, shape, groups in (("best", (1, 64, 32, 32), 16), ("best, odd", (1, 64, 31, 31), 16),
                                 ("x_kept", (1, 4, 56, 56), 1), ("partial", (1, 4, 128, 128), 1)):
        args = made(*shape), affine[:shape[1]], affine[:shape[1]], groups
        if label != "x_kept":
            rows.append((label, group_norm, args, silu, 1.1))
        rows.append((label, group_norm_vjp, (made(*shape), *args), silu, 1.1))
    rows += [
        ("best", conv2d, (pixels, filters, affine), {"padding": 1}, 2),
        ("wmma", conv2d, (half(1, 16, 8, 32), half(64, 16, 3, 3), half(64)), {"padding": 1}, 2),
        ("small", conv2d, (pixels, filters, affine), {"padding": 1}, 2),
        ("best", conv2d_vjp, (dy, pixels, filters, None), {"padding": 1}, 2),
        ("small", conv2d_vjp, (dy, pixels, filters, None), {"padding": 1}, 2),
        ("best", attention, (q, k, v), {}, 2), ("wmma", attention, (half(1, 1, 128, 64),) * 3, {}, 2),
        ("best", attention_vjp, (do, q, k, v), {}, 2)]
    models = {"conv2d": _conv_tiles, "conv2d_vjp": _conv_vjp_tiles, "attention": _attention_tiles,
              "attention_vjp": _attention_vjp_tiles, "group_norm": _groups, "group_norm_vjp": _groups}
    found = {}
    for label, function, args, options, room in rows:
        name, version = function.__name__, label.split(",")[0]
        least = models[name](version, *args) if name in models else contracts()[name].bytes(args, options)
        found[f"{name} {label}"] = functools.partial(_called, function, args, options | {"version": version}), least, room
    return found


def _called(function, args, options, device):
    return function(device, *args, **options)


def _groups(version, *args):
    """Bytes of the arrays that must move in a version of group norm or its vjp, whose blocks keep so many of the inputs."""
    inputs = len(args) - 3
    return arrays_moved(inputs, {"partial": 0, "x_kept": 1}.get(version, inputs)) * args[0].nbytes


def _product(tile, rows, columns, depth, itemsize=4):
    """Bytes of a product's factors, each number read once by every block whose tile it is in."""
    high, wide = tile[:2]
    return itemsize * depth * cuda.blocks(rows, high) * cuda.blocks(columns, wide) * (high + wide)


def _conv_tiles(version, x, w, b):
    tile = cuda.WMMA if version == "wmma" else cuda.PRODUCTS[version]
    pixels = x.shape[0] * math.prod(x.shape[2:])
    return _product(tile, pixels, w.shape[0], math.prod(w.shape[1:]), x.itemsize) + x.itemsize * pixels * w.shape[0]


def _conv_vjp_tiles(version, dy, x, w, b):
    tile, pixels, taps = cuda.PRODUCTS[version], x.shape[0] * math.prod(x.shape[2:]), math.prod(w.shape[2:])
    dx = _product(tile, pixels, x.shape[1], w.shape[0] * taps) + x.nbytes
    return dx + _product(tile, x.shape[1] * taps, w.shape[0], pixels) + 3 * w.nbytes  # shares, and dw


def _attention_tiles(version, q, k, v):
    block = cuda.ROWS[version] if version in cuda.ROWS else cuda.heads("attention", version, q.shape[3]).block
    return cuda.blocks(q.shape[2], block) * (k.nbytes + v.nbytes) + 2 * q.nbytes


def _attention_vjp_tiles(version, dy, q, k, v):
    """Forward, delta, dq over the keys, dk and dv over the queries."""
    high = cuda.blocks(q.shape[2], cuda.heads("attention_dq", version, q.shape[3]).block)
    return _attention_tiles(version, q, k, v) + 2 * q.nbytes + 2 * high * (k.nbytes + v.nbytes) + 7 * q.nbytes


def launches(call):
    """(file, kernel, threads a block, bytes of dynamic shared memory) of a call, without running it."""
    found = []

    @functools.cache
    def find(path, name):
        def launch(grid, block, args, shared_mem=0):
            found.append((path, name, math.prod(block), shared_mem))

        return launch

    call(cuda.Device("host", np, PROCESSORS, find, shared=SHARED))
    return found


def needs(arch, files=None):
    """{kernel: what it takes when compiled for sm_<arch>}, for every kernel of every call, or those in some files."""
    return needs_of([m for call, *_ in calls().values() for m in launches(call) if files is None or m[0] in files], arch)


def needs_of(found, arch):
    """{kernel: what it takes when compiled for sm_<arch>} of some launches."""
    wanted, out = {}, {}
    for path, name, threads, dynamic in found:
        wanted.setdefault(path, {})[name] = threads, dynamic
    for path, kernels in wanted.items():
        templates = [n for n in kernels if "<" in n]
        cubin, lowered = compiled.compile_cuda(cuda.source(path), templates, arch, name=Path(path).name)
        found, plain = compiled.needs(cubin, arch), dict(zip(templates, lowered))
        out |= {k: _row(arch, found[plain.get(k, k)], *launch) for k, launch in kernels.items()}
    return out


def _row(arch, n, threads, dynamic):
    count = n.instructions.get
    return {"registers": n.registers, "spills": n.stack, "shared": n.shared, "dynamic": dynamic,
            "occupancy": compiled.occupancy(arch, n.registers, n.shared + dynamic, threads),
            "instructions": count("all", 0), "fma": count("fma", 0), "tensor": count("tensor", 0),
            "float64": count("float64", 0), "global 16 bytes": count("global 128", 0),
            "shared 16 bytes": count("shared 128", 0)}


def twin_needs(arch=90):
    """As needs, of the Numba twins of these calls' kernels."""
    from . import numba_cuda

    versions, found = {v.function.__name__: v.name for m in numba_cuda.MODULES for v in m.VERSIONS}, {}
    for name, (call, *_) in calls().items():
        if name.endswith("wmma"):
            continue
        function, args, options = call.args
        twin = functools.partial(_called, function, args, options | {"version": versions[function.__name__]})
        found = {launch[1]: launch for launch in launches(twin)} | found  # a kernel counts as it is first launched
    return twin_needs_of(found.values(), arch)


def twin_needs_of(found, arch):
    """As needs_of, of the kernels' twins."""
    from . import twins

    out = {}
    for path, kernel, threads, dynamic in found:
        ptx = compile_ptx(*twins.twin(path, kernel), (arch // 10, arch % 10))
        (need,) = (n for n in compiled.needs(compiled.assemble(ptx, arch), arch).values() if n.registers)
        out[kernel] = _row(arch, need, threads, dynamic)
    return out


def moves(name):
    """What a call moves: bytes over those it must, sectors over the least, the worst bank conflict of any site."""
    call, least, _ = calls()[name]
    return counted(call, least)


def counted(call, least, shared=SHARED):
    """As moves, of any function(device), where a block may ask for so many bytes of shared memory."""
    used, device = {}, cuda.compiled_host(traced=True)
    find = lambda path, name: used.setdefault(name, device.find(path, name))
    call(device._replace(processors=PROCESSORS, shared=shared, find=find))
    sites = [s for function in used.values() for s in traffic(function.module)[0]]
    away, here = ([s for s in sites if s.shared is kind] for kind in (False, True))
    return {"traffic": round(sum(s.moved for s in away) / least, 3),
            "sectors": round(sum(s.cost for s in away) / sum(s.least for s in away), 3),
            "bank conflicts": round(max((s.cost / s.least for s in here), default=1.0), 3)}


def committed():
    """The table: {"kernels": {kernel: {architecture: needs}}, "twins": the same, "calls": {call: moves}}."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def measure():
    """Compile and count everything and write the table anew; returns it."""
    by_arch = {str(a): needs(a) for a in compiled.ARCHITECTURES}
    kernels = {name: {a: found[name] for a, found in by_arch.items()} for name in by_arch["80"]}
    table = {"kernels": kernels, "twins": {name: {"90": n} for name, n in twin_needs().items()},
             "calls": {name: moves(name) for name in calls()}}
    lines = json.dumps(table, indent=1).replace("\n    ", " ").replace("\n   }", "}")  # an architecture a line
    FILE.write_text(lines + "\n", encoding="utf-8")
    return table


def exceeded(found, budget):
    """Sentences on where a kernel's needs exceed its budget: another compiler's may differ by ROOM, and in nothing else."""
    for what in ("registers", "instructions"):
        if found[what] > ROOM * budget[what]:
            yield f"{what}: {found[what]}, the budget is {budget[what]}"
    for what in ("spills", "shared", "float64"):
        if found[what] > budget[what]:
            yield f"{what}: {found[what]}, the budget is {budget[what]}"
    if found["occupancy"] < budget["occupancy"] / ROOM:
        yield f"occupancy: {found['occupancy']:.2f}, the budget is {budget['occupancy']:.2f}"
    for what in ("global 16 bytes", "shared 16 bytes", "tensor"):
        if budget[what] and not found[what]:
            yield f"{what}: none, the budget has {budget[what]}"


def markdown(table):
    """The table as the README shows it: each call, and its largest kernel."""
    head = ["call", "kernel", *(f"sm_{a}" for a in compiled.ARCHITECTURES), "shared", "traffic", "sectors", "banks"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, (call, *_) in calls().items():
        moved = table["calls"][name]
        for n, kernel in enumerate(dict.fromkeys(k for _, k, *_ in launches(call))):
            of = table["kernels"][kernel]
            each = [f"{of[str(a)]['registers']}, {100 * of[str(a)]['occupancy']:.0f} %" for a in compiled.ARCHITECTURES]
            counts = [f"{moved[k]:.2f}" for k in ("traffic", "sectors", "bank conflicts")] if n == 0 else [""] * 3
            cells = [name if n == 0 else "", f"`{kernel}`", *each, str(of["80"]["shared"] + of["80"]["dynamic"]), *counts]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
