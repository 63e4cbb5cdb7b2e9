"""Pictures of the likelihood families: python -m refimpl.charts_latent FOLDER trains small models under FOLDER/runs, or
finds them there, and draws what they do: reconstructions beside inputs, a VAE's plane, the use of a codebook, a flow that
bends moons step by step. A few minutes on two cores."""
import argparse
import pathlib
import sys

import numpy as np

from . import commands, ops, train
from .__main__ import main as command
from .charts import _axes, _png
from .equations import elbo, gaussian
from .ops._check import require

RUNS = {  # what `train` is given; VQ-VAE and VQGAN have the same codes, coder and steps
    "vae": ["vae", "--set", "latent=2", "--steps", "3000"],
    "vqvae": ["vqvae", "--set", "positions=2", "--steps", "2000"],
    "vqgan": ["vqgan", "--steps", "2000"],
    "realnvp": ["realnvp", "--steps", "350"],
    "moons": ["realnvp", "--data", "moons", "--steps", "700"],
}
PICTURES = {  # command and runs
    "vae_plane": ["latent", "vae"], "codebook": ["latent", "vqvae"], "flow_moons": ["latent", "moons"],
    "reconstructions": ["reconstruct", "vae", "vqvae", "vqgan", "realnvp"], "flow_interpolation": ["interpolate", "realnvp"],
}


def variances_chart(samples=4000, log_var=0.0):
    """Variance of the two estimates of d E[x^2]/d mu over mu, measured (dots) and exact (lines)."""
    means = np.linspace(-3, 3, 25)
    z = ops.normal(0, np.arange(samples), 0, (1,), np.float64)
    found = {"score function": [], "reparametrised": []}
    for mu in means:
        mean, spread = mu + 0 * z, log_var + 0 * z
        x = gaussian.reparametrise(mean, spread, z)
        found["score function"].append(np.var(elbo.score_function(x[:, 0] ** 2, mean, spread, z)[0]))
        found["reparametrised"].append(np.var(gaussian.reparametrise_vjp(2 * x, mean, spread, z)[0]))
    s2 = np.exp(log_var)
    exact = {"score function": means**4 / s2 + 14 * means**2 + 15 * s2, "reparametrised": 4 * s2 + 0 * means}
    figure, (axes,) = _axes(6, 4, 1)
    for k, (name, values) in enumerate(found.items()):
        axes.semilogy(means, values, "o", color=f"C{k}", markersize=4, label=name)
        axes.semilogy(means, exact[name], color=f"C{k}", linewidth=1)
    axes.set(xlabel="mu", ylabel="variance of one estimate", title="two unbiased gradients of E[x^2], x = mu + z")
    axes.legend()
    return _png(figure)


def sharpness(x, y):
    """Mean square of the differences between neighbouring pixels of y, over that of x: below 1, y is blurred.

    Shapes: x, y (N, C, H, W).
    """
    change = lambda a: sum(np.mean(np.diff(a.astype(np.float64), axis=axis) ** 2) for axis in (2, 3))
    return float(change(y) / change(x))


def blur(folder):
    """sharpness of a run's reconstructions of the test images."""
    _, data, system, run = commands.opened(folder)
    params = train.averaged(run)
    return sharpness(data.test, system.decode(params, run.state, system.encode(params, run.state, data.test, ops), ops))


def done(argv):
    """Run a command of `python -m refimpl`. Raises: ValueError when it fails; the reason is on stderr then."""
    require(command([str(a) for a in argv]) == 0, f"refimpl {argv[0]} failed")


def main(argv=None):
    """Train what is missing and draw every picture into a folder."""
    parser = argparse.ArgumentParser(prog="python -m refimpl.charts_latent", description=__doc__)
    parser.add_argument("folder", type=pathlib.Path, help="where the PNG files go; made if it is not there")
    parser.add_argument("--steps", type=int, help="train for so many steps, for a quick look")
    args = parser.parse_args(argv)
    runs = {name: args.folder / "runs" / name for name in RUNS}
    try:
        for name, settings in RUNS.items():
            if not (runs[name] / train.CHECKPOINT).exists():
                steps = [] if args.steps is None else ["--steps", args.steps]
                done(["train", *settings, *steps, "--out", runs[name], "--preview-every", "0"])
        for picture, (what, *names) in PICTURES.items():
            done([what, *(runs[name] for name in names), "--out", args.folder / f"{picture}.png"])
        (args.folder / "gradient_variances.png").write_bytes(variances_chart())
    except (ValueError, OSError, ImportError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    for name in PICTURES["reconstructions"][1:]:
        print(f"sharpness of reconstructions, {name}: {blur(runs[name]):.2f}")


if __name__ == "__main__":
    sys.exit(main())
