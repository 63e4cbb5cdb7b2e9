"""python -m benchmarks run | compare | quality."""
import argparse
import json
import os
import sys
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table

from kernels.report import machine

from . import compare, networks, quality, run
from .providers import GPU, OURS, THEIRS
from .workloads import PRESETS

WIDTH = 100


def parser():
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m benchmarks", description="Times kernels that have just been verified "
                                  "on the same inputs, beside the machine's own ceilings.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    r = commands.add_parser("run", help="verify, then time", description="Verify each backend on the inputs, then time "
                            "it in rounds, interleaved with triads, multiply-adds and pure noise of this machine.")
    r.add_argument("operations", nargs="*", help="e.g. conv2d attention, or unet for the whole network; default: all")
    r.add_argument("--backends", default="reference,cpu,torch", help=f"of {', '.join(OURS + GPU + THEIRS)}; default "
                   "%(default)s, where installed; cpu/out: into outputs that are given, not allocated; cupy/naive, "
                   "cupy/tiled, ... for one version of the CUDA kernels")
    r.add_argument("--preset", choices=PRESETS, default="medium", help="sizes; default %(default)s")
    r.add_argument("--rounds", type=int, default=15, help="interleaved rounds; default %(default)s")
    r.add_argument("--json", metavar="FILE", help="write every sample to a file that `compare` reads")
    r.add_argument("--plot", metavar="FILE", help="draw a roofline")
    c = commands.add_parser("compare", help="two runs: same, faster, slower or can't tell",
                            description="Compare two files of `run --json`. The exit status is 1 when a row is slower.")
    c.add_argument("before")
    c.add_argument("after")
    t = commands.add_parser("table", help="a run's file as a Markdown table", description="Print the rows of a file of "
                            "`run --json` as a Markdown table.")
    t.add_argument("file")
    quality.add_parser(commands)
    return top


def table(rows):
    """The rows as a table of at most WIDTH columns."""
    t = Table(box=None, pad_edge=False, padding=(0, 1))
    for name, how in (("operation", {}), ("sizes", {}), ("by", {}), ("ms", {"justify": "right"}), ("interval", {}),
                      ("GFLOP/s", {"justify": "right"}), ("GB/s", {"justify": "right"}),
                      ("ceiling", {"justify": "right"}), ("x ref", {"justify": "right"}),
                      ("x torch", {"justify": "right"})):
        t.add_column(name, no_wrap=name not in ("sizes", "operation"), **how)
    for r in rows:
        times = lambda other, r=r: f"{r[f'vs_{other}'][0]:.2f}" if f"vs_{other}" in r else ""
        known = "flops" in r
        t.add_row(r["operation"], r["sizes"], r["provider"] + (f" {r['algorithm']}" if r["provider"] == "cpu" else ""),
                  f"{1e3 * r['seconds']:.3g}", f"{1e3 * r['low']:.3g}-{1e3 * r['high']:.3g}",
                  f"{r['flops'] / r['seconds'] / 1e9:.1f}" if known else "",
                  f"{r['bytes'] / r['seconds'] / 1e9:.1f}" if known else "",
                  f"{100 * r['ceiling']:.0f} %" if known else "", times("reference"), times("torch"))
    return t


def without_a_gpu(rows):
    """What is known of calls that were not measured, a line a kernel, and what they are to reach."""
    title = f"{rows[0]['state']}; compiled for sm_{rows[0]['architecture']}:"
    t = Table(box=None, pad_edge=False, padding=(0, 1), title=title, title_justify="left")
    for name in ("operation", "sizes", "by", "kernel", "regs", "shared", "occupancy"):
        t.add_column(name, no_wrap=name != "sizes")
    for r in rows:
        for n, (kernel, needs) in enumerate((r["kernels"] or {"": None}).items()):
            facts = [""] * 3 if needs is None else [
                str(needs["registers"]), str(needs["shared"]), f"{100 * needs['occupancy']:.0f} %"]
            first = (r["operation"], r["sizes"], r["provider"]) if n == 0 else [""] * 3
            t.add_row(*first, kernel.split("<")[0], *facts)
    targets = {r["operation"]: r["target"] for r in rows if r["target"]}
    return Group(t, "targets, not measured: " + "; ".join(f"{o}: {what}" for o, what in targets.items()))


def gpu_rows(operations, providers, preset, rounds, say):
    """Rows of the CUDA backends, measured, or what is known without a GPU."""
    from kernels import cuda, twins

    from . import gpu

    try:
        xp = cuda.array_module()
        places = {p: (cuda if p.startswith("cupy") else twins).gpu() for p in providers}
    except ImportError as error:
        say(f"not measured: {error}")
        return [], list(gpu.not_measured(operations, providers, preset))
    return list(gpu.rows(operations, places, preset, rounds, xp)), []


def run_run(args, console, errors):
    """`run`. Rows above a ceiling are errors, not records."""
    providers = [p for p in args.backends.split(",") if p]
    if unknown := [p for p in providers if p not in OURS + THEIRS and p.split("/")[0] not in GPU]:
        raise ValueError(f"backends must be of {', '.join(OURS + GPU + THEIRS)}, got {', '.join(unknown)}")
    if args.rounds < 3:
        raise ValueError(f"rounds must be at least 3, got {args.rounds}")
    for path in (args.json, args.plot):
        if path and not Path(path).resolve().parent.is_dir():
            raise ValueError(f"{path}: its folder does not exist")
    rows, say = [], lambda text: errors.print(text, style="dim", markup=False)
    operations = [o for o in args.operations if o != "unet"]
    on_gpu = [p for p in providers if p.split("/")[0] in GPU]
    providers = [p for p in providers if p not in on_gpu]
    watch = lambda work: say(f"timed {work.operation} {work.label}")
    absent = []
    if operations or not args.operations:
        if providers:
            rows += run.rows(operations, providers, args.preset, args.rounds, say, watch)
        if on_gpu:
            measured, absent = gpu_rows(operations, on_gpu, args.preset, args.rounds, say)
            rows += measured
    if providers and ("unet" in args.operations or not args.operations):
        rows += networks.rows(providers, max(3, args.rounds // 2), say)
    if absent:
        console.print(without_a_gpu(absent))
    faults = [s for r in rows if "ceiling" in r and (s := run.above_ceiling(r))]
    if rows:
        console.print(table(rows))
        console.print("x ref, x torch: how many times faster. ceiling: the time that this machine's best triad,\n"
                      "multiply-adds or noise would take for as many bytes, flops or numbers, over the time taken.",
                      markup=False)
    if args.json:
        document = {"format": compare.FORMAT, "version": compare.VERSION, "machine": machine(), "preset": args.preset,
                    "rows": rows, "not_measured": absent}
        Path(args.json).write_text(json.dumps(document), encoding="utf-8")
    if args.plot:
        from .pictures import roofline
        roofline(rows, args.plot)
    for fault in faults:
        errors.print(fault, markup=False, soft_wrap=True)
    return 1 if faults else 0


def markdown(document):
    """A run as a Markdown table, one line a workload: times, share of the ceiling, and how many times faster."""
    machine = document["machine"]
    lines = [f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads. Milliseconds; in brackets "
             f"the share of the machine's ceiling.", "", "| operation | sizes | reference | cpu | PyTorch | cpu is faster "
             "than PyTorch (95 %) |", "|---|---|---|---|---|---|"]
    found = {}
    for row in document["rows"]:
        found.setdefault((row["operation"], row["sizes"]), {})[row["provider"]] = row
    for (operation, sizes), by in found.items():
        share = lambda r: f" ({100 * r['ceiling']:.0f} %)" if "ceiling" in r else ""
        times = [f"{1e3 * by[p]['seconds']:.3g}{share(by[p])}" if p in by else "" for p in ("reference", "cpu", "torch")]
        ratio = by.get("cpu", {}).get("vs_torch")
        lines.append(f"| {operation} | {sizes} | {' | '.join(times)} | " + ("{:.2f} ({:.2f}-{:.2f})".format(*ratio) if ratio
                                                                         else "") + " |")
    given = [f"| {operation} | {sizes} | {1e3 * r['seconds']:.3g} | " + "{:.2f} ({:.2f}-{:.2f}) |".format(*r["vs_triad"])
             for (operation, sizes), by in found.items() if (r := by.get("cpu/out")) and r["bound_by"] == "memory"]
    if given:
        lines += ["", "| bound by memory, outputs given (cpu/out) | sizes | cpu/out | its rate beside a triad's of the same "
                  "bytes (95 %) |", "|---|---|---|---|", *given]
    return "\n".join(lines)


def run_compare(args, console):
    """`compare`."""
    found = compare.compared(compare.load(args.before), compare.load(args.after))
    t = Table(box=None, pad_edge=False, padding=(0, 1))
    for name in ("operation", "sizes", "by", "after / before", "interval", ""):
        t.add_column(name)
    for row, ratio, (low, high), word in found:
        t.add_row(row["operation"], row["sizes"], row["provider"], f"{ratio:.2f}", f"{low:.2f}-{high:.2f}", word)
    console.print(t)
    return 1 if any(word == "slower" for *_, word in found) else 0


def main(argv=None):
    """Run a command; returns the exit status."""
    args = parser().parse_args(argv)
    console, errors = Console(width=WIDTH, highlight=False), Console(width=WIDTH, stderr=True, highlight=False)
    try:
        if args.command == "quality":
            return quality.run(args.names, console, args.json)
        if args.command == "table":
            print(markdown(compare.load(args.file)))
            return 0
        return run_run(args, console, errors) if args.command == "run" else run_compare(args, console)
    except (ValueError, ImportError, run.Refused, OSError) as error:
        errors.print(f"benchmarks: {error}", markup=False, soft_wrap=True)
        return 1


if __name__ == "__main__":
    # Each thread on a core of its own, ours and PyTorch's alike: two that wake on one core take turns in milliseconds.
    os.environ.setdefault("OMP_PROC_BIND", "true")
    sys.exit(main())
