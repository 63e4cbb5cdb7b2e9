"""The commands train, sample, score and systems."""
import io
import json
import sys
import textwrap
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from . import checkpoint, pictures, score, systems, train
from . import data as datasets
from .ops._check import require
from .ops.random import fold
from .systems import published

PREVIEW = 40  # samples in the picture that training leaves as it goes
FIGURES = {"fd": "FDfeat", "precision": "precision", "recall": "recall", "density": "density", "coverage": "coverage",
           "one_nn": "1-NN", "distance": "NN dist.", "agreement": "agreement"}


def say(text):
    """A note, on stderr: stdout is for what a program may read."""
    print(text, file=sys.stderr, flush=True)


def table(title, columns, rows, left=False):
    """Print a table at most 100 columns wide; all but the first column to the right, unless left."""
    out = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for k, name in enumerate(columns):
        out.add_column(name, justify="right" if k and not left else "left", no_wrap=bool(k))
    for row in rows:
        out.add_row(*row)
    console = Console(highlight=False)
    console.width = min(console.width, 100) if console.is_terminal else 100
    console.print(out)


def opened(folder, **changes):
    """Settings, data, system and run of a folder that `train` made; changes replace entries of the settings.

    Raises: ValueError or OSError in one sentence when there is no such run, or it is damaged.
    """
    require(Path(folder).is_dir(), f"no such folder: {folder} (give one that `train` made)")
    path = Path(folder) / train.CHECKPOINT
    stored = checkpoint.load(path)[1]["settings"] | changes
    data = datasets.load(stored["data"])
    settings = systems.configure(stored["system"], data, {}) | stored  # a setting that is younger than the run
    system = systems.build(settings["system"], settings, data)
    return settings, data, system, train.restore(path, system, data, settings["seed"])[0]


def draw(system, run, n, key, ops, labels=None, **options):
    """n samples from the averaged parameters of a run. Raises: as drawn."""
    return drawn(system, train.averaged(run), run.state, n, key, ops, labels, **options)


def drawn(system, params, state, n, key, ops, labels=None, **options):
    """n samples from parameters on the host, on the host.

    Raises: ValueError for an option that the system's sampler has not, or a value of another kind than its default's.
    """
    for name in options:
        require(name in system.options, f"{system.name} has no sampling option {name!r}; "
                f"it has {', '.join(sorted(system.options)) or 'none'}")
        usual, value = system.options[name], options[name]
        require(usual is None or type(value) is type(usual) or (type(usual) is float and type(value) is int),
                f"{system.name}: sampling option {name} is like {usual!r}, got {value!r}")
    params, state = (train.carried(part, ops, "to_device") for part in (params, state))
    return train.carried(system.sample(params, state, n, key, ops, labels, **options), ops, "to_host")


def computer(name=None):
    """(name, operations) of a backend: the one named, else cpu, or the reference where that cannot be used."""
    try:
        ops = train.backend(name or "cpu")
    except ImportError as error:
        if name:
            raise
        say(f"the reference computes: {error}")
        return "reference", train.backend("reference")
    if train.uncompiled(name or "cpu"):
        say("compiling the cpu backend's kernels as they are needed: once on this machine, about half a minute in all")
    return name or "cpu", ops


def start(folder, name, spec, seed, changes, ops, backend_name="reference", **settings):
    """Train a system from its beginning in a folder that holds no run yet. Returns its data, System and Run.

    Raises: ValueError when the folder holds a run: nothing is ever overwritten.
    """
    data = datasets.load(spec)
    path = checkpoint.folder(folder) / train.CHECKPOINT
    require(not path.exists(), f"{folder} already holds a run: continue it with train --resume {folder}, or "
            f"give another --out")
    settings = settings | systems.configure(name, data, changes) | {
        "system": name, "seed": seed, "backend": backend_name,
        "data": str(Path(spec).resolve()) if Path(spec).exists() and spec not in datasets.NAMES else spec}
    system = systems.build(name, settings, data)
    return data, system, _go(Path(folder), system, data, settings, ops, resume=False)


def resume(folder, ops, **changes):
    """Continue the run of a folder from its last checkpoint. Returns its data, System and Run."""
    settings, data, system, run = opened(folder, **changes)
    if run.step >= settings["steps"]:
        say(f"{folder} has all of its {settings['steps']} steps already")
        return data, system, run
    return data, system, _go(Path(folder), system, data, settings, ops, resume=True)


def _go(folder, system, data, settings, ops, resume):
    for name in ("steps", "batch"):
        require(settings[name] >= 1, f"{name} must be at least 1, got {settings[name]}")
    every = settings["preview_every"]
    if every:
        pictures.require_packages()

    def preview(run):
        labels = in_turn(system, PREVIEW)
        x = draw(system, run, PREVIEW, fold(settings["seed"], train.PREVIEW), ops, labels)
        checkpoint.write(folder / f"samples_{run.step:06}.png", pictures.grid(x, labels))

    return train.train(system, data, ops=ops, folder=folder, settings=settings, resume=resume,
                       preview=preview if every else None, say=say)


def in_turn(system, n):
    """Labels 0, 1, 2, ... in turn for n samples, or None for a system without labels."""
    return np.arange(n) % system.classes if system.classes else None


def run_train(args):
    """Entry of `train`."""
    if args.resume:
        taken = [f for f in ("system", "data", "out", "seed", "set") if getattr(args, f)]
        require(not taken, f"--resume takes {taken[0] if taken else ''} from the run itself: leave it out")
        folder = args.resume
        changes = {k: v for k, v in (("steps", args.steps), ("backend", args.backend)) if v is not None}
        name = opened(folder)[0]["backend"] if args.backend is None else args.backend
        _, system, run = resume(folder, computer(name)[1], **changes)
    else:
        require(args.system, f"name a system to train, one of {', '.join(systems.SYSTEMS)}, or a run to --resume")
        (name, ops), spec = computer(args.backend), args.data or "digits"
        folder = args.out or f"runs/{args.system}-{Path(spec).name}"
        changes = assignments(args.set) | {k: v for k in ("steps", "batch") if (v := getattr(args, k)) is not None}
        _, system, run = start(folder, args.system, spec, args.seed or 0, changes, ops, name,
                               checkpoint_every=args.checkpoint_every, preview_every=args.preview_every)
    last = {player: float(np.mean(losses[-50:])) for player, losses in run.history.items() if len(losses)}
    if args.json:
        print(json.dumps({"folder": str(folder), "step": run.step, "loss": last}))
    else:
        figures = ", ".join(f"{'loss' if len(last) == 1 else player} {loss:.4f}" for player, loss in last.items())
        print(f"{system.name}: {run.step} steps, {figures} (mean of the last 50); saved in {folder}/{train.CHECKPOINT}")
        print(f"next: python -m refimpl sample {folder}    or    python -m refimpl score {folder}")


def assignments(pairs):
    """A dict from NAME=VALUE texts."""
    for pair in pairs:
        require("=" in pair, f"--set takes NAME=VALUE, got {pair!r}")
    return dict(pair.split("=", 1) for pair in pairs)


def sampling_options(args):
    """The sampler's options that a command line gives."""
    given = {k: v for k in ("steps", "guidance", "sampler", "eta") if (v := getattr(args, k)) is not None}
    return given | {k: systems.parse(v) for k, v in assignments(args.set).items()}


def run_sample(args):
    """Entry of `sample`."""
    require((args.folder is None) != (args.checkpoint is None),
            "name the folder of a run, or with --checkpoint one of public weights" if args.folder is None else
            f"--checkpoint {args.checkpoint} is sampled instead of a run: leave {args.folder} out")
    out = Path(args.out or (f"{args.folder}/samples.png" if args.folder else "samples.png"))
    require(out.suffix in (".png", ".npz"), f"--out must end in .png (a picture) or .npz (arrays), got {out}")
    if args.folder:
        _, _, system, run = opened(args.folder)
        params, state, made = train.averaged(run), run.state, {"step": run.step}
    else:
        system, params = published.opened(args.checkpoint)
        state, made = {}, {}
    labels = in_turn(system, args.n)
    if args.labels:
        require(system.classes, f"{args.folder or args.checkpoint} has no classes, so --labels has no meaning")
        labels = np.array([_label(text, system.classes) for text in args.labels.split(",")])
        labels = labels[np.arange(args.n) % len(labels)]
    if out.suffix == ".png":
        pictures.require_packages()
    checkpoint.folder(out.parent)
    x = drawn(system, params, state, args.n, fold(args.seed, train.SAMPLE), computer(args.backend)[1], labels,
              **sampling_options(args))
    if out.suffix == ".png":
        content = pictures.grid(x, labels)
    else:
        file = io.BytesIO()
        np.savez(file, images=x, **({} if labels is None else {"labels": labels}))
        content = file.getvalue()
    checkpoint.write(out, content)
    print(json.dumps({"out": str(out), "n": args.n} | made) if args.json else f"{args.n} samples in {out}")


def _label(text, classes):
    require(text.strip().isdigit() and int(text) < classes, f"--labels: each must be in 0..{classes - 1}, got {text!r}")
    return int(text)


def run_score(args):
    """Entry of `score`."""
    if Path(args.samples).suffix == ".npz":
        require(args.data, "scoring a file needs --data, what it is compared with")
        data = datasets.load(args.data)
        arrays, n = datasets.load_arrays(args.samples), score.count(data)
        require("images" in arrays, f"{args.samples} has arrays {sorted(arrays)}, expected 'images' (and 'labels')")
        x, labels = arrays["images"], arrays.get("labels") if data.classes else None
        require(len(x) >= n, f"{args.samples} has {len(x)} samples, {n} are needed for {data.spec}")
        sets = [(x[:n], labels if labels is None else labels[:n])]
    else:
        _, data, system, run = opened(args.samples)
        ops, labels = computer(args.backend)[1], in_turn(system, score.count(data))
        sets = []
        for seed in range(args.seed, args.seed + args.seeds):
            say(f"drawing {score.count(data)} samples with seed {seed}")
            sets.append((draw(system, run, score.count(data), fold(seed, train.SAMPLE), ops, labels,
                              **sampling_options(args)), labels))
    judged = score.judge(data)
    figures = score.mean([score.score(x, labels, data, judged) | score.more(x, data, judged) for x, labels in sets])
    figures["intervals"] = score.intervals(*sets[0], data, judged)
    if Path(args.samples).suffix != ".npz" and system.nll:
        figures |= likelihood(data, system, run, args.seed, ops)
    if Path(args.samples).suffix != ".npz" and system.truth:
        figures |= score.restored(sets[0][0], system.truth(score.count(data)))
    if args.json:
        print(json.dumps(figures))
        return
    if "nll" in figures:
        print(f"{figures['nll']:.3f} +- {figures['nll_interval']:.3f} {figures['nll_unit']} (95 %) on the "
              f"{min(len(data.test), score.MOST)} test samples of {data.spec}")
    between = {name: "-".join(map(figure, ends)) for name, ends in figures["intervals"].items()}
    table(f"{args.samples}: {score.count(data)} samples against the test set of {data.spec}, mean of {len(sets)}",
          ["", *FIGURES.values()], [["samples", *(figure(figures[k]) for k in FIGURES)],
                                    ["90 %", *(between.get(k, "") for k in FIGURES)]])
    print(f"KID {figures['kid']:.2f} (90 %: {between['kid']}), inception score {figure(figures['inception'])}, "
          f"memorised {100 * figures['memorised']:.1f} %")
    if "modes" in figures:
        print(f"{figures['modes']:g} of {data.classes} modes reached, {100 * figures['at_modes']:.1f} % of samples at one")
    if "psnr" in figures:
        print(f"PSNR {figures['psnr']:.2f} dB, SSIM {figures['ssim']:.3f} beside the images to be found")
    if data.spec == "digits":
        yardsticks()


def likelihood(data, system, run, seed, ops):
    """What test data cost, with the half width of the mean's 95 % interval."""
    x = data.test[:score.MOST]
    nll = system.nll(train.averaged(run), run.state, x, fold(seed, train.SAMPLE), ops)
    require(bool(np.isfinite(nll).all()), f"{system.name} finds {int(np.sum(~np.isfinite(nll)))} of the {len(x)} test "
            f"samples of {data.spec} impossible or of no number: the run is unusable")
    mean, half = score.mean_and_interval(nll)
    return {"nll": mean, "nll_interval": half, "nll_unit": "bits/dim" if data.levels else "nats"}


def figure(value):
    """A figure in few digits."""
    return "-" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def yardsticks():
    """Print what the digits' figures can be read against."""
    table("yardsticks, same protocol", ["", "FDfeat", "recall", "1-NN"],
          [[name, *map(figure, values)] for name, *values in score.YARDSTICKS])


def run_systems(args):
    """Entry of `systems`."""
    modules = {name: systems.module(name) for name in ([args.name] if args.name else systems.SYSTEMS)}
    summaries = {name: " ".join(m.__doc__.split("\n\n")[0].split()) for name, m in modules.items()}
    if args.json:
        print(json.dumps({name: {"summary": summaries[name], "settings": m.DEFAULTS} for name, m in modules.items()}))
    elif args.name:
        paragraphs = [" ".join(text.split()) for text in modules[args.name].__doc__.split("\n\n")]
        settings = "  ".join(f"{k}={json.dumps(v)}" for k, v in modules[args.name].DEFAULTS.items())
        for text in (*paragraphs, f"settings: {settings}"):
            print(textwrap.fill(text, 100, break_on_hyphens=False), end="\n\n")
    else:
        table(None, ["system", "what it is (`systems NAME` lists its settings)"],
              [[name, textwrap.shorten(text, 82, placeholder=" ...")] for name, text in summaries.items()], left=True)
