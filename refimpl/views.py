"""Commands that look inside a trained system with latents: reconstruct, interpolate and latent."""
import argparse
import json
from pathlib import Path

import numpy as np

from . import checkpoint, commands, pictures, train
from .equations import quantise
from .ops._check import require


def add_parsers(subparsers):
    """The parsers of reconstruct, interpolate and latent."""
    for name, run, words, text in (
            ("reconstruct", run_reconstruct, "draw test images beside what a system makes of them",
             "Encode test images, decode them again, and draw both, the inputs above. Several runs on the same\n"
             "data are drawn one below the other: a VAE blurs, a codebook rounds, a flow returns what it was given."),
            ("interpolate", run_interpolate, "draw what lies between test images in the latent space",
             "Encode pairs of test images and decode the points on the line between them, a row each."),
            ("latent", run_latent, "draw the latent space itself",
             "A flow on points: how every step bends the data towards the prior. Codes: how often each is\n"
             "used by the test set. Otherwise: images over the plane of two latent coordinates, from -2 to 2\n"
             "deviations.")):
        p = subparsers.add_parser(name, formatter_class=argparse.RawDescriptionHelpFormatter, help=words,
                                  description=f"{text}\n\nexample:\n  python -m refimpl {name} runs/vae-digits")
        p.add_argument("folder", help="folder of a run, made by `train`")
        if name == "reconstruct":
            p.add_argument("others", nargs="*", help="more runs on the same data")
        p.add_argument("--out", help=f"a .png; default FOLDER/{name}.png")
        if name != "latent":
            p.add_argument("-n", type=_few, default=10 if name == "reconstruct" else 5, help="how many; default "
                           "%(default)s")
        p.add_argument("--backend", default="reference", help="who computes: reference (default), cpu, numba_cuda or "
                       "cupy")
        p.add_argument("--json", action="store_true", help="print figures as JSON")
        p.set_defaults(run=run)


def _few(text):
    from .parsers import positive

    value = positive(text)
    if value > 200:
        raise argparse.ArgumentTypeError(f"at most 200 expected, got {text!r}")
    return value


def _opened(args, what):
    """data, system, params, state, ops and the path of the picture."""
    _, data, system, run = commands.opened(args.folder)
    require(what(system), f"{args.command} has nothing to show of {system.name}: it has no latent to decode from")
    out = Path(args.out or f"{args.folder}/{args.command}.png")
    require(out.suffix == ".png", f"--out must end in .png, got {out}")
    pictures.require_packages()
    checkpoint.folder(out.parent)
    return data, system, train.averaged(run), run.state, commands.computer(args.backend)[1], out


def _finish(args, out, content, figures, text):
    checkpoint.write(out, content)
    print(json.dumps({"out": str(out)} | figures) if args.json else f"{text} in {out}")


def run_reconstruct(args):
    """Entry of `reconstruct`."""
    args.command = "reconstruct"
    data, *first, out = _opened(args, lambda s: s.decode)
    x, kept, errors, runs = data.test, [data.test], {}, {args.folder: first}
    for folder in args.others:
        other, *rest, _ = _opened(argparse.Namespace(**vars(args) | {"folder": folder}), lambda s: s.decode)
        require(other.fingerprint == data.fingerprint, f"{folder} and {args.folder} were trained on different data")
        runs[folder] = rest
    for folder, (system, params, state, ops) in runs.items():
        kept.append(system.decode(params, state, system.encode(params, state, x, ops), ops))
        errors[folder] = float(np.mean(np.sum((x - kept[-1]).reshape(len(x), -1).astype(np.float64) ** 2, axis=1)))
    n = min(args.n, len(x))
    if x.ndim == 2:
        content = pictures.panels(list(zip(["data", *runs], kept)), data.test_labels, columns=len(kept))
    else:
        blocks = [np.concatenate([rows[k:min(k + 10, n)] for rows in kept]) for k in range(0, n, 10)]
        content = pictures.grid(np.concatenate(blocks), columns=min(n, 10))
    listed = ", ".join(f"{error:.3f}" for error in errors.values())
    _finish(args, out, content, {"n": n, "errors": errors},
            f"{n} test samples and their reconstructions (squared error per sample: {listed})")


def run_interpolate(args):
    """Entry of `interpolate`."""
    args.command = "interpolate"
    data, system, params, state, ops, out = _opened(args, lambda s: s.decode)
    n, x = min(args.n, len(data.test) // 2), data.test
    require(n >= 1, "interpolate needs two test samples at least")
    z = system.encode(params, state, x[:2 * n], ops)
    share = np.linspace(0, 1, 8).astype(z.dtype)
    line = np.stack([(1 - s) * z[:n] + s * z[n:] for s in share], axis=1)  # (n, 8, ...)
    between = system.decode(params, state, line.reshape(n * 8, *z.shape[1:]), ops).reshape(n, 8, *data.shape)
    rows = np.concatenate([x[:n, None], between, x[n:2 * n, None]], axis=1)
    content = pictures.grid(rows.reshape(n * 10, *data.shape))
    _finish(args, out, content, {"n": n}, f"{n} rows, a test sample at both ends")


def run_latent(args):
    """Entry of `latent`."""
    args.command = "latent"
    data, system, params, state, ops, out = _opened(args, lambda s: s.decode)
    if system.path and data.shape == (2,):
        x, labels = data.test[:1500], None if data.test_labels is None else data.test_labels[:1500]
        content, text = pictures.panels(system.path(params, state, x, ops), labels), "the flow, step by step,"
        return _finish(args, out, content, {}, text)
    if system.codes:
        codes = system.codes(params, state, data.test, ops)
        size = 1 + int(max(codes.max(), system.codes(params, state, data.train, ops).max()))
        counts = np.bincount(codes.reshape(-1), minlength=size)
        content = pictures.bars(counts / counts.sum(), "codes, most used first", "share of the test set's codes")
        used = quantise.perplexity(codes, size)
        return _finish(args, out, content, {"perplexity": used}, f"use of the codebook (perplexity {used:.1f})")
    z = system.encode(params, state, data.train, ops)
    require(z.ndim == 2 and len(data.shape) == 3,
            f"latent draws a plane of images, and {system.name} on {data.spec} has none")
    mean, (_, s, axes) = z.mean(axis=0), np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
    side = np.linspace(-2, 2, 10).astype(z.dtype)
    two = axes[:2] * (s[:2, None] / len(z) ** 0.5) if len(axes) > 1 else np.stack([axes[0], 0 * axes[0]])
    grid = np.stack([mean + a * two[0] - b * two[1] for b in side for a in side]).astype(z.dtype)
    content = pictures.grid(system.decode(params, state, grid, ops))
    text = "the plane of the two directions in which codes vary most, from -2 to 2 deviations,"
    return _finish(args, out, content, {}, text)
