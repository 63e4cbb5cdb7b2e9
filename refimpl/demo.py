"""The main job, end to end: train on real digits, draw new ones, look at them, measure them."""
import json
import time
from pathlib import Path

import numpy as np

from . import checkpoint, commands, pictures, score, train
from .equations import metrics
from .ops._check import require
from .ops.random import fold
from .parsers import add_backend, key, positive

GUIDANCE = 0.5
BARS = {"fd": ("FDfeat", "at most", 3.0, 0.0), "recall": ("recall", "at least", 0.85, 0.0),
        "coverage": ("coverage", "at least", 0.90, 0.0), "agreement": ("agreement", "at least", 0.98, GUIDANCE)}


def demo(folder, ops, backend_name="reference", seed=0, steps=None, sampling_steps=50, seeds=3):
    """Train (or continue) a class-conditional DDPM in the folder, draw pictures, and return the figures.

    Returns {guidance weight: mean figures over the sampling seeds}, as JSON could hold it.
    """
    pictures.require_packages()
    folder = Path(folder)
    if (folder / train.CHECKPOINT).exists():
        changes = {} if steps is None else {"steps": steps}
        settings = commands.opened(folder, **changes)[0]
        require((settings["system"], settings["data"], settings["seed"]) == ("ddpm", "digits", seed),
                f"{folder} holds another run (system {settings['system']}, data {settings['data']}, "
                f"seed {settings['seed']}): give another --out")
        data, system, run = commands.resume(folder, ops, **changes)
    else:
        changes = {} if steps is None else {"steps": steps}
        data, system, run = commands.start(folder, "ddpm", "digits", seed, changes, ops, backend_name,
                                           checkpoint_every=100, preview_every=0)

    commands.say("fitting the judge, a small classifier that sees training images only")
    judged, n = score.judge(data), score.count(data)
    labels = commands.in_turn(system, n)

    def draw(weight, sampling_seed):
        commands.say(f"drawing {n} digits with DDIM-{sampling_steps}, guidance {weight:g}, seed {sampling_seed}")
        return commands.draw(system, run, n, fold(sampling_seed, train.SAMPLE), ops, labels,
                             steps=sampling_steps, guidance=weight)

    figures = {}
    for weight in (GUIDANCE, 0.0):
        sets = [draw(weight, sampling_seed) for sampling_seed in range(seeds)]
        if weight == GUIDANCE:
            illustrate(folder, sets[0], labels, data, system, run, ops, sampling_steps)
        figures[weight] = score.mean([score.score(x, labels, data, judged) for x in sets])
    return {weight: figures[weight] for weight in (0.0, GUIDANCE)}


def illustrate(folder, x, labels, data, system, run, ops, sampling_steps):
    """Write samples.png, neighbours.png, denoising.gif and loss.png."""
    checkpoint.write(folder / "samples.png", pictures.grid(x[:100], labels[:100]))
    distance, nearest = metrics.nearest_distance(x[:10], data.train)
    pairs = np.concatenate([x[:10], data.train[nearest]])
    captions = [f"new {k}" for k in labels[:10]] + [f"real, {d:.1f} off" for d in distance]
    checkpoint.write(folder / "neighbours.png", pictures.grid(pairs, captions))
    frames = []
    system.sample(train.averaged(run), run.state, 20, fold(0, train.SAMPLE), ops, labels[:20], steps=sampling_steps,
                  guidance=GUIDANCE, after=lambda i, x, x0_hat: frames.append(x))
    checkpoint.write(folder / "denoising.gif", pictures.film(frames, labels[:20]))
    checkpoint.write(folder / "loss.png", pictures.losses(run.history))


def report(figures, minutes):
    """Print the figures beside the yardsticks, and whether they reach the bars."""
    names = commands.FIGURES
    commands.table("new digits against the test set", ["", *names.values()],
                   [[f"guidance w = {weight:g}", *(commands.figure(row[k]) for k in names)]
                    for weight, row in figures.items()])
    commands.yardsticks()
    print(f"a test digit is {score.REAL_DISTANCE} away from its nearest training digit (median); samples much nearer "
          "are copies")
    for figure, (name, words, bar, weight) in BARS.items():
        value = figures[weight][figure]
        met = value <= bar if words == "at most" else value >= bar
        print(f"  {'reached' if met else 'MISSED '}  {name} {commands.figure(value)}, {words} {bar} at w = {weight:g}")
    print(f"all of it took {minutes:.1f} minutes")


def add_parser(subparsers):
    """The `demo` command."""
    p = subparsers.add_parser("demo", help="train on digits, draw new ones, measure them: start here", description=(
        "Train a class-conditional diffusion model on 1200 real handwritten digits, draw new ones with DDIM and "
        "classifier-free guidance, write samples.png, neighbours.png (new digits over the most similar training "
        "digits), denoising.gif and loss.png, and print how good they are. Takes some minutes; a demo that was "
        "stopped goes on where it was."))
    p.add_argument("--out", default="demo", help="folder for the model and the pictures; default ./demo")
    p.add_argument("--steps", type=positive, help="training steps; default 825")
    p.add_argument("--sampling-steps", type=positive, default=50, metavar="N", help="steps of DDIM; default 50")
    p.add_argument("--seeds", type=positive, default=3, help="figures are a mean over this many sets; default 3")
    p.add_argument("--seed", type=key, default=0, help="what training's randomness follows from; default 0")
    add_backend(p)
    p.add_argument("--json", action="store_true", help="print the figures as JSON")
    p.set_defaults(run=run)


def run(args):
    """Entry of the command."""
    began = time.perf_counter()
    name, ops = commands.computer(args.backend)
    figures = demo(args.out, ops, name, args.seed, args.steps, args.sampling_steps,
                   args.seeds)
    minutes = (time.perf_counter() - began) / 60
    if args.json:
        print(json.dumps({"minutes": minutes, "figures": {f"w={w:g}": row for w, row in figures.items()}}))
        return
    report(figures, minutes)
    print(f"look at {args.out}/samples.png, neighbours.png, denoising.gif and loss.png")
