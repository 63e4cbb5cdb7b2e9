"""Charts of the diffusion equations: python -m refimpl charts FOLDER draws them all as PNG files."""
import io

import numpy as np

from . import checkpoint, ops, pictures
from .equations import catalogue, continuous, mixture, samplers, schedules

MIXTURE = mixture.mixture([0.3, 0.4, 0.3], [[-1.6, -0.6], [0.2, 1.4], [1.5, -0.9]], [[0.03], [0.06], [0.02]])


def eps(x, signal, noise):
    """The exact prediction of noise for the mixture that the charts use."""
    return -noise * mixture.mixture_score(x, MIXTURE, signal, noise)


def schedules_chart():
    """Signal power and log-SNR of the discrete schedules, over t/T; the log-SNR of zero terminal SNR ends at -inf."""
    linear = schedules.linear()
    named = {"linear": linear, "scaled linear": schedules.scaled_linear(), "cosine": schedules.cosine(),
             "sigmoid": schedules.sigmoid(), "linear, zero terminal SNR": schedules.zero_terminal_snr(linear)}
    figure, (left, right) = _axes(10, 4, 2)
    for name, s in named.items():
        t = np.arange(1, s.T + 1)
        signal, noise = schedules.level_at(s, t)
        left.plot(t / s.T, s.alpha_bar[1:], label=name)
        right.plot(t / s.T, schedules.log_snr(signal, noise))
    for axes, title in ((left, "signal power, alpha_bar"), (right, "log-SNR")):
        axes.set(xlabel="t/T", title=title)
    left.legend()
    return _png(figure)


def forward_chart(image):
    """An image (H, W) in [-1, 1], and the same image at growing times of the cosine schedule."""
    s, times = schedules.cosine(), (0, 100, 250, 400, 550, 700, 850, 1000)
    figure, row = _axes(12, 1.9, len(times))
    for axes, t in zip(row, times):
        signal, noise = (float(v) for v in schedules.level_at(s, t))
        x = ops.q_sample(image[None], signal, noise, (0, np.zeros(1, int), 0))[0]
        axes.imshow(x, cmap="gray", vmin=-1.5, vmax=1.5)
        axes.set(title=f"t = {t}", xticks=[], yticks=[])
    return _png(figure)


def trajectories_chart(count=60, steps=200):
    """Probability-flow trajectories from noise to the mixture, over its density."""
    levels = continuous.path_levels(continuous.vp_level, steps, 1e-3)
    x = ops.normal(0, np.arange(count), 0, (2,), dtype=np.float64)
    path = [x]
    samplers.sample(eps, x, levels, catalogue.sampler("heun"), ops=ops, after=lambda i, x, x0_hat: path.append(x))
    path = np.stack(path)
    side = np.linspace(-3, 3, 160)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    density = np.exp(mixture.mixture_log_density(grid, MIXTURE, 1.0, 0.0)).reshape(160, 160)
    figure, (axes,) = _axes(5.5, 5.5, 1)
    axes.contourf(side, side, density**0.3, levels=12, cmap="Greys")
    axes.plot(path[:, :, 0], path[:, :, 1], color="C0", linewidth=0.7, alpha=0.8)
    axes.plot(*path[0].T, ".", color="C7", markersize=4)
    axes.plot(*path[-1].T, ".", color="C3", markersize=5)
    axes.set(aspect="equal", title="probability flow, from noise (grey) to data (red)")
    return _png(figure)


def errors(steps=(8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256), last=0.05):
    """{sampler: errors} at each number of steps: deterministic samplers on the mixture, down to noise/signal = last.

    The truth is UniPC-3 at 16 times the most steps. Levels are evenly spaced in log-SNR, where multistep rules are at
    their best, except for PLMS, whose weights want evenly spaced times.
    """
    x, ends = ops.normal(0, np.arange(8), 0, (2,), dtype=np.float64), np.log([1 / last, 0.05]) * 2

    def run(name, n):
        log_snr = np.linspace(ends[1], ends[0], n + 1)
        if name == "plms":
            levels = continuous.vp_level(np.linspace(*continuous.vp_time(ends[::-1]), n + 1))
        else:
            levels = continuous.level_of_log_snr(log_snr, "vp")
        full = {"lower_last": False} if "lower_last" in catalogue.SAMPLERS[name].options else {}
        return samplers.sample(eps, x, np.stack(levels, axis=1), catalogue.sampler(name, **full), ops=ops)

    truth = run("unipc-3", 16 * max(steps))
    same = ("ddim", "dpm++-1", "dpm-solver-1")  # as euler
    names = [name for name, s in catalogue.SAMPLERS.items() if not s.noise and name not in (*same, "flow-heun")]
    return {name: [np.sqrt(np.mean((run(name, n) - truth) ** 2)) for n in steps] for name in names}, steps


def convergence_chart():
    """Error against evaluations of the network for every deterministic sampler; slopes are orders."""
    per_step = {"heun": 2, "dpm-solver-2": 2, "dpm-solver-3": 3, "dpm++-2s": 2}
    found, steps = errors()
    figure, (axes,) = _axes(7.5, 5.5, 1)
    for k, (name, error) in enumerate(found.items()):
        axes.loglog(np.array(steps) * per_step.get(name, 1), error, "o^"[k // 10] + "-", markersize=4,
                    color=f"C{k % 10}", label="euler = ddim" if name == "euler" else name)
    axes.set(xlabel="evaluations of the network", ylabel="root mean square error",
             title="samplers on a Gaussian mixture with its exact score")
    axes.legend(fontsize=8)
    return _png(figure)


def digit():
    """One of scikit-learn's digits, in [-1, 1]."""
    from sklearn.datasets import load_digits

    return load_digits().images[3] / 8 - 1


def _axes(width, height, columns):
    from matplotlib.figure import Figure  # not pyplot: no window, no state that outlives the call

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _png(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def add_parser(subparsers):
    """The `charts` command."""
    p = subparsers.add_parser("charts", help="draw the diffusion equations: schedules, forward process, trajectories, "
                              "convergence", description="Draw schedules.png, forward.png (a real digit on its way to "
                              "noise), trajectories.png (the probability flow on a mixture) and convergence.png (error "
                              "against evaluations for every deterministic sampler) into a folder.")
    p.add_argument("folder", help="where the PNG files go; made if it is not there")
    p.set_defaults(run=run)


def run(args):
    """Entry of the command."""
    pictures.require_packages()
    folder = checkpoint.folder(args.folder)
    for name, draw in (("schedules", schedules_chart), ("forward", lambda: forward_chart(digit())),
                       ("trajectories", trajectories_chart), ("convergence", convergence_chart)):
        checkpoint.write(folder / f"{name}.png", draw())
        print(folder / f"{name}.png")
