"""A roofline: where each kernel stands under the machine's memory and arithmetic ceilings."""
import numpy as np


def roofline(rows, path):
    """Write the picture of the rows that have ceilings."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [r for r in rows if "bandwidth" in r]
    bandwidth, rate = (float(np.median([r[k] for r in rows])) for k in ("bandwidth", "rate"))
    figure, axes = plt.subplots(figsize=(9, 5.5))
    x = np.logspace(-2, 3, 200)
    axes.loglog(x, np.minimum(x * bandwidth, rate) / 1e9, "k-",
                label=f"this machine: {bandwidth / 1e9:.0f} GB/s (triads), {rate / 1e9:.0f} GFLOP/s (multiply-adds)")
    for name, marker in zip(sorted({r["provider"] for r in rows}), "os^vD*"):
        mine = [r for r in rows if r["provider"] == name]
        axes.loglog([r["flops"] / r["bytes"] for r in mine], [r["flops"] / r["seconds"] / 1e9 for r in mine], marker,
                    label=name, alpha=0.7)
    best = {}
    for r in rows:
        key = (r["operation"], round(r["flops"] / r["bytes"], 1))
        best[key] = max(best.get(key, 0), r["flops"] / r["seconds"] / 1e9)
    for (operation, intensity), y in best.items():
        axes.annotate(operation, (intensity, y), fontsize=7, xytext=(3, 3), textcoords="offset points")
    axes.set(xlabel="flops per byte moved at least", ylabel="GFLOP/s, counted by the definition (Winograd does 1/4)")
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
