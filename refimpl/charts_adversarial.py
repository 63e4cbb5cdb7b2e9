"""Pictures of games and GANs: python -m refimpl.charts_adversarial FOLDER [RUN ...] draws those that need no training,
and for each folder that `train` made what its system allows.

Runs on points: samples over the data, and the discriminator's field of gradients. Runs on images: walks through z,
arithmetic on z, and the sweep of the truncation.
"""
import argparse
import pathlib

import numpy as np

from . import commands, ops, pictures, score, systems, train
from .charts import _axes, _png
from .equations import adversarial, game

UPDATES = {"simultaneous": game.simultaneous, "alternating": game.alternating, "extragradient": game.extragradient,
           "optimistic": game.optimistic, "proximal": game.proximal}


def games_chart(step=0.2, steps=120):
    """Trajectories of x*y under every update rule, from (1, 0); the average of the alternating one in red."""
    figure, row = _axes(15, 3.4, len(UPDATES))
    for axes, (name, rule) in zip(row, UPDATES.items()):
        matrix = rule(step)
        z0 = np.tile([1.0, 0.0], len(matrix) // 2)
        z = game.trajectory(matrix, z0, steps)[:, :2]
        axes.plot(*z.T, "-", linewidth=0.8)
        axes.plot(*z[::10].T, ".", markersize=3, color="C0")
        if name == "alternating":
            axes.plot(*np.stack([game.averaged(matrix, n) @ z0 for n in range(1, steps)]).T, color="C3", linewidth=1)
        axes.plot(0, 0, "+", color="k")
        side = 1.1 * max(1.0, np.max(np.abs(z)))
        axes.set(aspect="equal", xlim=(-side, side), ylim=(-side, side),
                 title=f"{name}, radius {game.spectral_radius(matrix):.3f}")
    return _png(figure)


def generator_gradients_chart():
    """What each loss tells the generator about one sample, by the discriminator's logit."""
    l = np.linspace(-8, 8, 400)
    each = {"saturating": adversarial.minimax_g_vjp, "non-saturating": adversarial.non_saturating_g_vjp,
            "least squares": lambda dy, l: adversarial.lsgan_g_vjp(dy, l, 1.0),
            "hinge, Wasserstein": adversarial.wasserstein_g_vjp}
    figure, (axes,) = _axes(6, 4, 1)
    for name, vjp in each.items():
        axes.plot(l, vjp(float(l.size), l), label=name)
    axes.set(xlabel="logit of a generated sample", ylabel="derivative of the generator's loss", ylim=(-3, 1))
    axes.legend()
    return _png(figure)


def networks(settings, data):
    """The Networks of a two-player system whose latents are plain vectors, or None."""
    name = settings["system"]
    if name in ("gan", "lsgan", "wgan", "wgan-gp", "cgan"):
        return systems.module("gan").perceptrons(settings, data, data.classes if name == "cgan" else 0)
    return systems.module("dcgan").networks(settings, data) if name in ("dcgan", "sngan") else None


def points_chart(settings, data, system, run, count=2000, side=24):
    """Samples over the data, and where the discriminator tells samples to go."""
    params = train.averaged(run)
    x = system.sample(params, run.state, count, 1, ops)
    low, high = np.min(data.train, axis=0) - 0.3, np.max(data.train, axis=0) + 0.3
    at = np.stack(np.meshgrid(*(np.linspace(a, b, side) for a, b in zip(low, high))), axis=-1).reshape(-1, 2)
    nets = networks(settings, data)
    logits, pullback, _ = nets.discriminator(run.params["discriminator"], run.state["discriminator"],
                                             at.astype(np.float32), None, ops, False)
    _, g = pullback(np.ones_like(logits))
    figure, (left, right) = _axes(11, 5.4, 2)
    left.plot(*data.train[:count].T, ".", markersize=2, color="C7", label="data")
    left.plot(*x.T, ".", markersize=2, color="C3", label="samples")
    left.legend(markerscale=4)
    levels = logits.reshape(side, side)
    right.contourf(at[:side, 0], at[::side, 1], levels, levels=20, cmap="Blues")
    right.quiver(*at.T, *(g / (np.linalg.norm(g, axis=1, keepdims=True) + 1e-12)).T, width=0.002)
    right.plot(*data.train[:200].T, ".", markersize=3, color="C1")
    for axes, title in ((left, f"{system.name}, step {run.step}"), (right, "the discriminator and its gradient")):
        axes.set(aspect="equal", title=title, xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    return _png(figure)


def draw(nets, run, z, labels, data):
    """Images of given latent vectors, from the averaged generator."""
    x, _, _ = nets.generator(train.averaged(run)["generator"], run.state["generator"], z, labels, ops, False)
    return np.clip(x, -1, 1)


def great_circle(a, b, t):
    """Between two latent vectors along the sphere, where a normal z lies, not through its middle."""
    cosine = np.sum(a * b, axis=1, keepdims=True) / np.sqrt(np.sum(a * a, axis=1, keepdims=True)
                                                            * np.sum(b * b, axis=1, keepdims=True))
    angle = np.arccos(cosine)
    return ((np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)).astype(a.dtype)


def walk_chart(nets, run, data, conditional, rows=8, columns=11):
    """Rows of images between two latent vectors."""
    like = data.train
    ends = (nets.latents(k, np.arange(rows), like, ops) for k in (1, 2))
    a, b = ends
    z = np.stack([great_circle(a, b, t) for t in np.linspace(0, 1, columns)], axis=1).reshape(rows * columns, -1)
    labels = np.repeat(np.arange(rows) % data.classes, columns) if conditional else None
    return pictures.grid(draw(nets, run, z, labels, data), columns=columns)


def arithmetic_chart(nets, run, data, pairs=((4, 9), (3, 8), (1, 7), (0, 6)), columns=8):
    """For each pair (i, j): samples of j, and the same with mean z(j) taken away and mean z(i) added."""
    z = nets.latents(1, np.arange(3000), data.train, ops)
    seen = score.judge(data).predict(draw(nets, run, z, None, data))
    pieces = []
    for i, j in pairs:
        own, other = z[seen == j], z[seen == i]
        if len(own) >= columns and len(other):
            moved = own[:columns] - own.mean(axis=0) + other.mean(axis=0)
            pieces += [own[:columns], moved]
    if not pieces:
        return None
    return pictures.grid(draw(nets, run, np.concatenate(pieces), None, data), columns=columns)


def truncation_chart(system, run, thresholds, columns=10):
    """Rows of images of growing truncation, from the same keys."""
    labels = commands.in_turn(system, columns)
    x = [system.sample(train.averaged(run), run.state, columns, 1, ops, labels, truncation=t) for t in thresholds]
    return pictures.grid(np.concatenate(x), columns=columns)


def of_run(folder):
    """{name: PNG} of everything that a run's system allows."""
    settings, data, system, run = commands.opened(folder)
    nets, found = networks(settings, data), {}
    if len(data.shape) == 1 and nets:
        return {"modes": points_chart(settings, data, system, run)}
    if len(data.shape) == 3:
        if nets:
            found["walk"] = walk_chart(nets, run, data, bool(system.classes))
            if data.classes and not system.classes:
                found["arithmetic"] = arithmetic_chart(nets, run, data)
        if "truncation" in system.options:
            narrow = (0.0, 0.3, 0.5, 0.7, 1.0) if settings["system"].startswith("style") else (0.1, 0.3, 0.5, 1.0, 2.0)
            found["truncation"] = truncation_chart(system, run, narrow)
    return {name: png for name, png in found.items() if png}


def main(argv=None):
    """Draw every picture into a folder."""
    parser = argparse.ArgumentParser(prog="python -m refimpl.charts_adversarial", description=__doc__)
    parser.add_argument("folder", type=pathlib.Path, help="where the PNG files go; made if it is not there")
    parser.add_argument("run", nargs="*", help="folders that `train` made")
    args = parser.parse_args(argv)
    try:
        drawn = {"games": games_chart(), "generator_gradients": generator_gradients_chart()}
        for run in args.run:
            drawn |= {f"{pathlib.Path(run).name}_{name}": png for name, png in of_run(run).items()}
        args.folder.mkdir(parents=True, exist_ok=True)
        for name, png in drawn.items():
            (args.folder / f"{name}.png").write_bytes(png)
            print(args.folder / f"{name}.png")
    except (ValueError, OSError, ImportError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
