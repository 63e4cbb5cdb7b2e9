"""Known-answer vectors: python -m refimpl.vectors writes a small JSON file per operation and equation.

A program in any language reads the arguments and must give the result: integers exactly, floats to their conditioning
(they stand with all their digits). The calls are those that the facts make, so what has a fact has a vector.
Layout of a file: {"format", "version", "function", "source", "cases": [{"arguments": {...}, "result": ...}], "vjp": the
same with the cotangent first}. An array is {"shape", "dtype", "values" in C order}; infinities and NaN are the
strings "inf", "-inf", "nan", integers beyond 2^53 are strings, complex numbers pairs. The files samplers.sample.NAME
hold whole runs of the samplers of equations/catalogue.py, for the exact eps of data N(0, 1/4).
"""
import argparse
import contextlib
import functools
import importlib
import inspect
import json
import math
import pkgutil
import sys
from pathlib import Path

import numpy as np

from . import equations, facts, ops
from .equations import catalogue, samplers
from .facts.gradients import PAIRS

FORMAT, VERSION = "refimpl vectors", 1
FOLDER = Path(__file__).parent.parent / "tests" / "vectors"
ROOM = 240  # elements that a case should not exceed, arguments and result together


def targets():
    """{(room, module, name): function}, every public function of ops and equations but the vjps."""
    found = {}
    for room in (ops, equations):
        for info in pkgutil.iter_modules(room.__path__):
            module = importlib.import_module(f"{room.__name__}.{info.name}")
            for name, f in vars(module).items():
                if inspect.isfunction(f) and f.__module__ == module.__name__ and not name.startswith("_") and not (
                        name.endswith("_vjp")):
                    found[room.__name__.split(".")[1], info.name, name] = f
    return found


def plain(value):
    """A value as JSON can hold it; TypeError where it cannot (a function, a complex array)."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiubc":
            raise TypeError(f"no vector of {value.dtype}")
        return {"shape": list(value.shape), "dtype": str(value.dtype), "values": [plain(v) for v in value.ravel()]}
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value) if abs(int(value)) <= 2**53 else str(int(value))
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, (complex, np.complexfloating)):
        return [plain(value.real), plain(value.imag)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {"fields": {k: plain(v) for k, v in zip(value._fields, value)}, "type": type(value).__name__}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {"items": {k: plain(v) for k, v in value.items()}}
    if value is None or isinstance(value, str):
        return value
    raise TypeError(f"no vector of {type(value).__name__}")


def size(value):
    """Numbers in a plain value."""
    if isinstance(value, dict):
        return len(value["values"]) if value.keys() == {"shape", "dtype", "values"} else sum(map(size, value.values()))
    return sum(map(size, value)) if isinstance(value, list) else 1


def recorded(functions, seeds=(0, 1, 2)):
    """{function: plain (arguments, result) of calls that the facts make}: recorders stand in the functions' places."""
    calls = {f: [] for f in functions}

    def recorder(f):
        signature = inspect.signature(f)

        @functools.wraps(f)
        def call(*args, **kwargs):
            try:
                bound = signature.bind(*args, **kwargs)
                arguments = {k: plain(v) for k, v in bound.arguments.items()}
            except TypeError:
                return f(*args, **kwargs)
            result = f(*args, **kwargs)
            with contextlib.suppress(TypeError):
                calls[f].append((arguments, plain(result)))
            return result

        return call

    facts.load()
    doubles = {id(f): recorder(f) for f in functions}
    places = [(m, n, v) for m in list(sys.modules.values()) if getattr(m, "__name__", "").startswith("refimpl")
              for n, v in list(vars(m).items()) if id(v) in doubles]
    try:
        for module, name, f in places:
            setattr(module, name, doubles[id(f)])
        for fact in facts.FACTS:
            for seed in seeds:
                fact.measure(facts.Draw(seed))
    finally:
        for module, name, f in places:
            setattr(module, name, f)
    return calls


def chosen(calls, most=2):
    """The largest calls that are small enough, else the smallest one; the same for the same calls."""
    ranked = sorted({json.dumps(c): (size(list(c)), c) for c in calls}.items(), key=lambda item: (item[1][0], item[0]))
    small = [c for _, (n, c) in ranked if n <= ROOM]
    return small[-most:] if small else [c for _, (n, c) in ranked[:1] if n <= 10 * ROOM]


def pair_cases(pair, seeds=range(6)):
    """Calls of a differentiable function and of its vjp on the pair's own inputs."""
    forward, back = [], []
    cotangent = next(iter(inspect.signature(pair.vjp).parameters))
    for seed in seeds:
        d = facts.Draw(seed)
        inputs = pair.inputs(d)
        y = pair.f(**inputs)
        out = pair.output(y)
        dy = tuple(d.array(*np.shape(a)) for a in out) if isinstance(out, tuple) else d.array(*np.shape(out))
        try:
            arguments = plain(dict(inputs))["items"]
            forward.append((arguments, plain(y)))
            back.append(({cotangent: plain(dy), **arguments}, plain(pair.vjp(dy, **inputs))))
        except TypeError:
            continue
    return forward, back


def by_hand():
    """{room.module.name: keyword arguments} of functions that no fact calls with plain arguments of use to others."""
    d = facts.Draw(0)
    x, w, sure = d.array(4, 3), d.array(5, 3), {"log_snr": np.array([-3.0, 0.0, 2.5])}
    t = {"t": np.array([0.1, 0.5, 0.9])}
    # Of full rank, as the facts' own covariances are not: the root of a rounding error is no answer to hold others to.
    cov_1, cov_2 = (np.eye(3) + a.T @ a for a in (d.array(4, 3), d.array(5, 3)))
    return {
        "ops.random.fold": {"key": 2**63 + 11, "n": 2**40 + 3},
        "equations.continuous.subvp_time": sure, "equations.continuous.ve_time": sure,
        "equations.continuous.flow_time": sure, "equations.continuous.shifted_cosine_time": sure | {"size": 128},
        "equations.continuous.flow_level": t, "equations.continuous.shifted_cosine_level": t | {"size": 128},
        "equations.dequantise.logit_map_inverse": {"y": 3 * x}, "equations.flow.actnorm_start": {"x": x},
        "equations.game.dirac_gan_field": {"theta": x, "psi": 2 * x, "slope": 0.4, "gamma": 0.3},
        "equations.game.dirac_gan_eigenvalues": {"slope": 0.5, "gamma": 0.3},
        "equations.metrics.symmetric_root": {"a": cov_1},
        "equations.metrics.frechet": {"mu_1": x[0], "cov_1": cov_1, "mu_2": w[0], "cov_2": cov_2},
        "equations.metrics.frechet_distance": {"features_1": d.array(12, 3), "features_2": d.array(15, 3)},
        "equations.metrics.mode_coverage": {"samples": x, "modes": w, "radius": 1.5},
        "equations.metrics.memorised": {"samples": x, "train": x[:2] + 0.01 * w[:2], "test": w},
        "equations.objectives.edm_sigma": {"z": x}, "equations.translation.interpolate": {"embedding": x, "other": -x},
        "equations.penalty.between": {"x_real": x, "x_fake": w[:4], "u": np.array([0.1, 0.4, 0.7, 1.0])},
        "equations.quantise.quantise": {"codes": np.array([[0, 4], [2, 2]]), "codebook": w},
        "equations.quantise.restart_codes": {
            "counts": np.array([3.0, 0.1, 2.0, 0.0, 5.0]), "sums": 2 * w, "codebook": w, "z": x,
            "rows": np.array([0, 1, 2, 3, 0]), "least": 1.0},
        "equations.variants.latent_cross_entropy": {
            "errors": np.array([0.1, 0.4, 1.2]), "log_snr": np.array([-4.0, 0.5, 3.0]), "noise": 0.2, "dim": 3},
        "equations.weights.clip_weights": {"params": {"w": w, "b": x[0]}, "c": 0.5}}


def predict(x, signal, noise):
    """The exact eps of data N(0, 1/4) in every pixel: noise x / (signal^2/4 + noise^2)."""
    return noise * x / (signal**2 / 4 + noise**2)


def runs(steps=6):
    """{sampler's name: plain (arguments, result)} of a run down a cosine path, or the straight one where it must be."""
    made = {}
    x, key = facts.Draw(1).array(2, 3), 2**62 + 5
    for name in catalogue.SAMPLERS:
        path = {"flow-heun": "flow", "langevin": "ve"}.get(name, "vp")
        t = np.linspace(0.95, 0, steps + 1)
        signal = {"flow": 1 - t, "ve": 1 + 0 * t, "vp": np.cos(np.pi / 2 * t)}[path]
        noise = np.sin(np.pi / 2 * t) if path == "vp" else t
        rows = np.stack([signal, noise], axis=1)
        y = samplers.sample(predict, x, rows, catalogue.sampler(name, path), ops=ops, key=key)
        made[name] = ({"sampler": name, "path": path, "x": plain(x), "levels": plain(rows), "key": plain(key),
                       "predict": predict.__doc__}, plain(y))
    return made


def documents():
    """{path inside the folder: document} of every function that a call is known of, and the names of those without."""
    every, out, missing, hand = targets(), {}, [], by_hand()
    pairs = {p.f: p for p in PAIRS.values()} if facts.load() else {}
    calls = recorded(every.values())
    for (room, module, name), f in every.items():
        label = f"{room}.{module}.{name}"
        forward, back = pair_cases(pairs[f]) if f in pairs else ([], [])
        if label in hand:
            forward = [(plain(hand[label])["items"], plain(f(**hand[label])))]
        if cases := chosen(forward or calls[f]):
            out[f"{room}/{module}.{name}.json"] = document(f"refimpl.{label}", f, cases, chosen(back))
        else:
            missing.append(label)
    for name, case in runs().items():
        out[f"equations/samplers.sample.{name}.json"] = document(
            "refimpl.equations.samplers.sample", samplers.sample, [case], [])
    return out, missing


def document(label, f, cases, vjp):
    """What a file holds."""
    source = [line.strip() for line in (f.__doc__ or "").split("\n") if line.strip().startswith("Source:")]
    return {"format": FORMAT, "version": VERSION, "function": label,
            "source": source[0].removeprefix("Source: ") if source else "",
            "cases": [{"arguments": a, "result": r} for a, r in cases],
            "vjp": [{"arguments": a, "result": r} for a, r in vjp]}


def text(document):
    """A document as JSON, a line for each case."""
    head = {k: v for k, v in document.items() if k not in ("cases", "vjp")}
    lines = [f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in head.items()]
    for key in ("cases", "vjp"):
        rows = ",\n".join("  " + json.dumps(case) for case in document[key])
        lines.append(f' "{key}": [\n{rows}\n ]' if rows else f' "{key}": []')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write(folder=FOLDER):
    """Write every vector; returns the names of functions that no fact calls in a form that a file can hold."""
    made, missing = documents()
    for path, document in made.items():
        target = Path(folder) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text(document), encoding="utf-8")
    return missing


def main(argv=None):
    """Write every vector into a folder."""
    parser = argparse.ArgumentParser(prog="python -m refimpl.vectors", description="Write known-answer vectors, a JSON file "
                                     "per operation and equation, for programs in any language.")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER if FOLDER.parent.is_dir() else Path("vectors"),
                        help="where the files go; default %(default)s")
    folder = parser.parse_args(argv).folder
    print(f"without a vector: {', '.join(write(folder)) or 'none'}\nwritten to {folder}")


if __name__ == "__main__":
    main()
