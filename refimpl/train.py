"""One trainer for every system: a game of one or several players, each with parameters, a loss and an optimiser.

Everything that happens at a step is a pure function of the key and the number of the step, so a run that was stopped
anywhere and resumed from its last checkpoint ends with the same bits as one that was not.
"""
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import threadpoolctl

from . import checkpoint
from .data import permutation
from .ops._check import require
from .ops.random import fold
from .optim import Optimiser, clip_by_global_norm, ema, ema_decay, global_norm
from .progress import Progress

CHECKPOINT = "checkpoint.safetensors"
PARTS = ("params", "ema", "state", "optimiser")
INIT, ORDER, STEP, PREVIEW, SAMPLE = range(5)  # what the run's key is folded with, one number for each purpose


class Batch(NamedTuple):
    """Samples (N, ...) and their labels (N,), or None."""

    x: np.ndarray
    labels: np.ndarray | None


class Player(NamedTuple):
    """One network and what it minimises.

    init(key) -> params, state (flat dicts); loss_and_grads(params, state, batch, key, ops) -> loss, grads, state,
    metrics, where params and state are {player: flat dict} of all players, grads are this player's own, state is again
    that of all, and metrics is {name: number}. It moves at every `every`-th step; ema: its average's decay, or 0.
    """

    init: object
    loss_and_grads: object
    optimiser: Optimiser
    every: int = 1
    ema: float = 0.0


class System(NamedTuple):
    """Players, in the order in which they move, and sample(params, state, n, key, ops, labels=None, **options).

    classes: how many labels can be asked for, 0 for none; options: the sampler's, with their defaults. Where a system
    has them: nll(params, state, x, key, ops) -> (N,), what data cost, in bits per dimension on a grid of levels and
    nats elsewhere; encode(params, state, x, ops) -> z and decode(params, state, z, ops) -> x, without randomness;
    codes(params, state, x, ops) -> (N, L) integers; path(params, state, x, ops) -> [(what was done, x then)] of a flow;
    truth(n) -> (n, ...), what the first n samples would be if they were perfect, of a translation.
    """

    name: str
    players: dict
    sample: object
    classes: int = 0
    options: dict = {}  # noqa: RUF012 - never written to
    nll: object = None
    encode: object = None
    decode: object = None
    codes: object = None
    path: object = None
    truth: object = None


class Run(NamedTuple):
    """A training run between two steps. All but step and history: {player: flat dict}; history: {player: losses}."""

    step: int
    params: dict
    ema: dict
    state: dict
    optimiser: dict
    history: dict


class Diverged(ArithmeticError):
    """A loss or gradient that is not finite. The message is one sentence for the user."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training. The message names the last checkpoint."""


def begin(system, key):
    """The run before its first step."""
    start = {name: player.init(fold(fold(key, INIT), k)) for k, (name, player) in enumerate(system.players.items())}
    params = {name: params for name, (params, _) in start.items()}
    average = {name: params[name] if player.ema else {} for name, player in system.players.items()}
    return Run(0, params, average, {name: state for name, (_, state) in start.items()}, {name: {} for name in params},
               {name: np.zeros(0) for name in params})


def averaged(run):
    """The parameters to sample with: each player's average, or its parameters where it keeps none."""
    return {name: run.ema[name] or params for name, params in run.params.items()}


@lru_cache(maxsize=4)
def _order(key, epoch, n):
    return permutation(fold(fold(key, ORDER), epoch), n)


def batch_at(data, key, step, size):
    """The batch of a step: `size` consecutive places in an endless sequence of random orders of the training set."""
    n = len(data.train)
    place = np.arange(step * size, (step + 1) * size)
    rows = np.concatenate([_order(key, int(e), n)[place[place // n == e] % n] for e in np.unique(place // n)])
    return Batch(data.train[rows], None if data.train_labels is None else data.train_labels[rows])


def carried(tree, ops, way):
    """Nested dicts of arrays "to_device" or "to_host", where the backend has a device of its own; else as they are."""
    move = getattr(ops, way, None)
    if move is None:
        return tree
    return {k: carried(v, ops, way) for k, v in tree.items()} if isinstance(tree, dict) else move(tree)


def _run_carried(run, ops, way):
    return run._replace(**{part: carried(getattr(run, part), ops, way) for part in PARTS})


def advance(system, run, batch, key, ops):
    """One step: every player whose turn it is moves, one after the other. Returns the next run and {player: metrics}.

    Raises: Diverged when a loss or a gradient is not finite; nothing has changed then.
    """
    batch = batch._replace(x=carried(batch.x, ops, "to_device"))
    params, average, state = dict(run.params), dict(run.ema), run.state
    optimiser, history, seen = dict(run.optimiser), dict(run.history), {}
    for k, (name, player) in enumerate(system.players.items()):
        if run.step % player.every:
            continue
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is said once, below
            loss, grads, state, metrics = player.loss_and_grads(
                params, state, batch, fold(fold(fold(key, STEP), run.step), k), ops)
            grads, norm = clip_by_global_norm(grads, player.optimiser.clip) if player.optimiser.clip else (
                grads, global_norm(grads))
        for what, value in (("loss", float(loss)), ("gradient", norm)):
            if not math.isfinite(value):
                raise Diverged(f"the {what} of {name} is {value} at step {run.step + 1}: try a smaller rate")
        params[name], optimiser[name] = player.optimiser.update(
            params[name], grads, optimiser[name], player.optimiser.rate(run.step))
        if player.ema:
            average[name] = ema(average[name], params[name], ema_decay(run.step, player.ema))
        history[name] = np.append(history[name], float(loss))
        seen[name] = {"loss": float(loss), **metrics}
    return Run(run.step + 1, params, average, state, optimiser, history), seen


def backend(name):
    """The namespace of operations of that name: the reference, or kernels, which are imported only when asked for."""
    if name == "reference":
        from . import ops

        return ops
    import kernels

    return kernels.backend(name)


def uncompiled(name):
    """Whether a backend's kernels have yet to be compiled on this machine."""
    if name != "cpu":
        return False
    from kernels.jit import compiled_before

    return not compiled_before()


def threads():
    """Threads of the linear algebra library: another number may sum in another order."""
    return max([lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"], default=1)


def save(path, run, settings, data):
    """Write the run's checkpoint atomically. Raises: as checkpoint.save."""
    tensors = checkpoint.nest({part: getattr(run, part) for part in PARTS})
    checkpoint.save(path, tensors | {f"history/{name}": losses for name, losses in run.history.items()},
                    {"step": run.step, "settings": settings, "threads": threads(), "data": data.fingerprint})


def restore(path, system, data, key):
    """The run of a checkpoint, and the number of threads it was trained with.

    Raises: ValueError when the checkpoint is damaged, or was made by another system or from other data.
    """
    tensors, meta = checkpoint.load(path)
    require(meta["data"] == data.fingerprint, f"{path} was trained on other data than {data.spec} holds now")
    fresh, names = begin(system, key), list(system.players)
    run = Run(meta["step"], *(checkpoint.unnest(tensors, part, names) for part in PARTS),
              {name: tensors[f"history/{name}"] for name in names if f"history/{name}" in tensors})
    require(_shapes(run) == _shapes(fresh), f"{path} holds the parameters of another network than {system.name} builds")
    return run, meta["threads"]


def _shapes(run):
    return {k: a.shape for part in ("params", "ema", "state")
            for k, a in checkpoint.nest({part: getattr(run, part)}).items()}, sorted(run.history)


def train(system, data, *, ops, folder, settings, resume=False, preview=None, say=print):
    """Train until settings["steps"], leaving checkpoints in the folder. Returns the run.

    settings: the JSON-able description of the run; used here: seed, steps, batch, checkpoint_every, preview_every.
    preview(run): called every preview_every steps, to draw samples. say(text): where notes go.
    Raises: Diverged (the last good checkpoint stays), Interrupted (a checkpoint of the last step is written first),
    ValueError and OSError for a checkpoint that cannot be read or written.
    """
    path, key, steps = folder / CHECKPOINT, settings["seed"], settings["steps"]
    keep = lambda run: save(path, _run_carried(run, ops, "to_host"), settings, data)
    if resume:
        run, before = restore(path, system, data, key)
        if before != threads():
            say(f"note: trained with {before} BLAS threads so far, now {threads()}: the last bits may differ")
        saved = run.step
    else:
        run, saved = begin(system, key), -1
    try:
        if saved < 0:
            keep(run)
            saved = 0
        run = _run_carried(run, ops, "to_device")
        with Progress(steps, run.step, system.players) as progress:
            while run.step < steps:
                run, seen = advance(system, run, batch_at(data, key, run.step, settings["batch"]), key, ops)
                progress.update(run.step, seen)
                if preview and _due(run.step, settings["preview_every"], steps):
                    preview(run)
                if _due(run.step, settings["checkpoint_every"], steps):
                    keep(run)
                    saved = run.step
    except Diverged as error:
        raise Diverged(f"{error}; {path} still holds step {saved}") from None
    except KeyboardInterrupt:
        if run.step > saved:
            keep(run)
        raise Interrupted(f"interrupted at step {run.step} of {steps}; everything so far is in {path}: "
                          f"train --resume {folder} goes on from there") from None
    return _run_carried(run, ops, "to_host")


def _due(step, every, steps):
    return step == steps or (bool(every) and step % every == 0)
