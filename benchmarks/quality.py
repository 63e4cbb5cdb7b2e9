"""`python -m benchmarks quality NAME`: train a system as its row asks, and say which requirements hold."""
import json
import time


def acceptance():
    """Every acceptance function by the name of its system."""
    from . import quality_adversarial, quality_diffusion, quality_latent

    return quality_latent.ACCEPTANCE | quality_adversarial.ACCEPTANCE | quality_diffusion.ACCEPTANCE


def add_parser(commands):
    """The parser of `quality`."""
    p = commands.add_parser("quality", help="train a system and check its acceptance", description="Train systems as "
                            "their acceptance asks and check every requirement. Exit status 1 when one does not hold.")
    p.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(acceptance())}; default: all")
    p.add_argument("--json", metavar="FILE", help="write the figures to a file")


def run(names, console, file=None):
    """Run acceptances and print them. Returns the exit status. Raises: ValueError for an unknown name."""
    known = acceptance()
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"quality: no acceptance of that name: {', '.join(unknown)}; there are {', '.join(known)}")
    rows = {}
    for name in names or known:
        start = time.perf_counter()
        rows[name] = known[name]() | {"seconds": time.perf_counter() - start}
        figures = ", ".join(f"{k} {v:.4g}" for k, v in rows[name].items() if isinstance(v, float))
        console.print(f"[bold]{name}[/bold]: {figures}")
        for requirement, holds in rows[name]["passed"].items():
            console.print(f"  {'holds' if holds else 'FAILS'}  {requirement}", markup=False)
        if file:
            with open(file, "w", encoding="utf-8") as out:
                json.dump(rows, out, indent=1)
    return 0 if all(all(row["passed"].values()) for row in rows.values()) else 1
