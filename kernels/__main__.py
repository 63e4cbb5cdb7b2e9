"""python -m kernels: what there is on this machine; python -m kernels verify: whether it is right."""
import argparse
import ast
import sys

from rich.console import Console
from rich.table import Table

from . import BACKENDS, DEVICES, backend, report
from .bounds import ARITHMETICS
from .contract import contracts, registered
from .frameworks import FRAMEWORKS
from .hostcuda import HostCudaError
from .judge import Misuse
from .user import judge_apart
from .verify import verify


def parser():
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m kernels", description=__doc__)
    top.add_argument("--json", metavar="FILE", help="write the table as JSON too ('-': print it)")
    top.add_argument("--device", choices=DEVICES, help="where numba_cuda and cupy run: gpu (default), or host, a CPU model "
                     "of one")
    commands = top.add_subparsers(dest="command")
    v = commands.add_parser("verify", help="hold kernels, or a function of your own, to their contracts")
    v.add_argument("operation", nargs="?", help="one operation; all without it")
    v.add_argument("function", nargs="?", metavar="module:function", help="judge this function instead of a backend")
    v.add_argument("--backend", help="one backend; all that work here without it")
    v.add_argument("--device", help="where numba_cuda and cupy run: gpu (default), or host, a CPU model of one; where the "
                   "arrays of a function of your own live, e.g. cuda")
    v.add_argument("--examples", type=positive, default=100, metavar="N", help="bounded cases (default 100)")
    v.add_argument("--seed", type=int, default=0, metavar="S")
    v.add_argument("--json", metavar="FILE", help="write a certificate ('-': print it)")
    own = v.add_argument_group("for a function of your own")
    own.add_argument("--dtype", choices=ARITHMETICS, default="float32", help="of the data")
    own.add_argument("--arithmetic", choices=ARITHMETICS, help="of its sums (default float32; float64 for such data)")
    own.add_argument("--algorithm", default="direct", help="which error bound holds, e.g. winograd")
    own.add_argument("--arrays", choices=FRAMEWORKS, help="what it works on (default: what its module imports)")
    own.add_argument("--raw", action="store_true", help="it takes its output first: function(out, *inputs)")
    own.add_argument("--where", nargs="+", default=[], metavar="NAME=VALUE",
                     help="the part of the cases that it is for, e.g. stride=1 groups=1; large=False: no large ones")
    own.add_argument("--time-limit", type=float, default=60, metavar="S", help="for one case (default 60 s)")
    commands.add_parser("shares", help="measure every ceiling in kernels/shares.json anew")
    commands.add_parser("budgets", help="compile the best CUDA kernels for every architecture, count what they move, and "
                        "write kernels/budgets.json anew; needs no GPU")
    return top


def positive(text):
    """An option that is an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def pins(pairs):
    """NAME=VALUE pairs as a dict."""
    out = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise Misuse(f"--where takes NAME=VALUE, got {pair!r}")
        try:
            out[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            out[name] = text
    return out


def usable(wanted=None, device=None):
    """(name, kernels, why not) of each backend; the CUDA backends on the device, which their name then says."""
    contracts()
    for name in BACKENDS if wanted is None else [wanted]:
        place = device if name in ("numba_cuda", "cupy") or wanted else None
        try:
            backend(name, place)
        except (ImportError, ValueError) as error:
            yield name, [], str(error)
        else:
            yield name, registered(name, place), None


def overview(args, console):
    """Operations, backends and algorithms, and their state on this machine."""
    here = report.machine()
    rows = []
    for name, kernels, why in usable(device=args.device):
        rows += [{"operation": k.operation, "backend": k.backend, "algorithm": k.label.split("/")[2], "dtype": k.data,
                  "state": "ready"} for k in kernels]
        if why:
            rows.append({"operation": "all", "backend": name, "algorithm": "", "dtype": "", "state": why})
    if args.json:
        report.write({"machine": here, "kernels": rows}, args.json)
    if args.json != "-":
        table = Table("operation", "backend", "algorithm", "dtype", "state")
        for row in sorted(rows, key=lambda r: (r["operation"], BACKENDS.index(r["backend"].split(":")[0]))):
            if row["operation"] != "all":
                table.add_row(*row.values())
        console.print(table)
        for row in rows:
            if row["operation"] == "all":
                console.print(row["state"], highlight=False)
        console.print(f"{here['processor']}, {here['cores']} cores; Numba {here['numba']}, {here['threads']} threads, "
                      f"layer {here['threading_layer']}", highlight=False, soft_wrap=True)
        for pool in here["blas"]:
            console.print(f"BLAS: {pool}", highlight=False, soft_wrap=True)
    return 0


def verdicts(args):
    """The entries of a run, one after the other."""
    if args.operation and args.operation not in contracts():
        raise Misuse(f"operation must be one of {', '.join(contracts())}, got {args.operation!r}")
    if args.function:
        options = dict(algorithm=args.algorithm, dtype=args.dtype, arithmetic=args.arithmetic, arrays=args.arrays,
                       device=args.device, raw=args.raw, where=pins(args.where))
        yield judge_apart(args.function, args.operation, options, args.examples, args.seed, args.time_limit)
        return
    if args.backend and args.backend not in BACKENDS:
        raise Misuse(f"backend must be one of {', '.join(BACKENDS)}, got {args.backend!r}")
    found = False
    for _, kernels, why in usable(args.backend, args.device):
        if why and args.backend:
            raise Misuse(why)
        for k in kernels:
            if args.operation in (None, k.operation):
                found = True
                yield report.entry(verify(k, args.examples, args.seed))
    if not found:
        raise Misuse(f"backend {args.backend} has no kernel of its own for {args.operation or 'any operation'}")


def run_verify(args, console):
    """Judge, print a line each, then what failed; 1 when anything did."""
    entries, quiet = [], args.json == "-"
    width, wide = max(12, len(args.function or "") + 2), max(10, len(args.algorithm) + 2)

    def row(operation, backend, algorithm, dtype, cases, share, seconds, verdict, style=None):
        if not quiet:
            console.print(f"{operation:<22}{backend:<{width}}{algorithm:<{wide}}{dtype:<10}{cases:>6}{share:>13}"
                          f"{seconds:>9}  {verdict}", style=style, highlight=False, soft_wrap=True, markup=False)

    for e in verdicts(args):
        if not entries:
            row("operation", "backend", "algorithm", "dtype", "cases", "worst share", "seconds", "verdict", "bold")
        entries.append(e)
        good = e["verdict"] == "passes"
        row(e["operation"], e["backend"], e["algorithm"], e["dtype"], e["cases"],
            "" if e["worst_share"] is None else f"{e['worst_share']:.4f}",
            "" if e["seconds"] is None else f"{e['seconds']:.1f}",
            e["verdict"] + (f" (refuses {', '.join(e['refused'])})" if e["refused"] else ""),
            None if good else "bold red")
    for e in entries:
        if "failure" in e and not quiet:
            console.print("\n" + report.explain(e), highlight=False, soft_wrap=True, markup=False)
    if args.json:
        report.write(report.certificate(entries), args.json)
    return int(any(e["verdict"] != "passes" for e in entries))


def run_shares(args, console):
    """Measure the worst shares of all kernels and write their ceilings."""
    from .shares import measure

    for label, ceiling in measure().items():
        console.print(f"{label:<50}{ceiling:.3g}", highlight=False)
    return 0


def run_budgets(args, console):
    """Measure what the best CUDA kernels need and move, and write their budgets."""
    from .budgets import markdown, measure

    console.print(markdown(measure()), highlight=False, soft_wrap=True, markup=False)
    return 0


def main(argv=None):
    """Run the command line; returns the exit status: 0 right, 1 a kernel is wrong, 2 the question was."""
    args = parser().parse_args(argv)
    console = Console()
    try:
        return {None: overview, "verify": run_verify, "shares": run_shares,
                "budgets": run_budgets}[args.command](args, console)
    except (Misuse, HostCudaError, OSError) as error:
        print(f"python -m kernels: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
