"""What the command line accepts, and how it explains itself."""
import argparse
import textwrap

from . import commands, systems
from . import data as datasets
from .equations.catalogue import SAMPLERS as NAMES

SAMPLERS = textwrap.fill("samplers of diffusion models (their options, for --set, in brackets): " + ", ".join(
    name + (f" ({' '.join(s.options)})" if s.options else "") for name, s in NAMES.items()), 98,
    break_on_hyphens=False) + "\ncold diffusion has one of its own, cold (improved)"


def _integer(text, low, high, words):
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{words} expected, got {text!r}")
    return value


def positive(text):
    """A number of things: an integer from 1 on."""
    return _integer(text, 1, 10**9, "an integer of at least 1")


def count(text):
    """An integer from 0 on."""
    return _integer(text, 0, 10**9, "an integer of at least 0")


def key(text):
    """A seed: any integer of 64 bits."""
    return _integer(text, 0, 2**64 - 1, "an integer in 0..2^64 - 1")


def add_parsers(subparsers):
    """The parsers of train, sample, score and systems."""
    raw = argparse.RawDescriptionHelpFormatter
    p = subparsers.add_parser("train", formatter_class=raw, help="train a system on a data set", description=(
        "Train a system. Its folder then holds checkpoint.safetensors (parameters, their average, optimiser\n"
        "and settings) and a picture of samples every so often. Ctrl-C is safe; so is a power cut: --resume\n"
        "goes on from the last checkpoint and ends with the same bits as a run that was never stopped.\n\n"
        "examples:\n"
        "  python -m refimpl train ddpm --data digits --out runs/digits\n"
        "  python -m refimpl train ddpm --data moons --steps 2000 --set rate=1e-3\n"
        "  python -m refimpl train --resume runs/digits"))
    p.add_argument("system", nargs="?", help=f"what to train: {', '.join(systems.SYSTEMS)} (see `systems`)")
    p.add_argument("--data", help=f"{', '.join(datasets.NAMES)}, or a path: a folder with MNIST's IDX files (plain or "
                   "gzipped), a folder of images of one size, or an .npz file; default digits")
    p.add_argument("--out", help="folder of the run; default runs/SYSTEM-DATA")
    p.add_argument("--resume", metavar="FOLDER", help="continue the run in this folder; only --steps and --backend "
                   "may be given with it")
    p.add_argument("--steps", type=positive, help="how many optimiser steps; default: the system's")
    p.add_argument("--batch", type=positive, help="samples per step; default: the system's")
    p.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="change one of the system's "
                   "settings, e.g. --set rate=1e-3; may be repeated; `systems` lists them")
    p.add_argument("--checkpoint-every", type=count, default=100, metavar="N", help="steps between checkpoints")
    p.add_argument("--preview-every", type=count, default=200, metavar="N", help="steps between pictures, 0 for none")
    p.add_argument("--seed", type=key, help="what all randomness follows from; default 0")
    add_backend(p)
    p.add_argument("--json", action="store_true", help="print the final figures as JSON")
    p.set_defaults(run=commands.run_train)

    p = subparsers.add_parser("sample", formatter_class=raw, help="draw samples from a trained system", description=(
        "Draw samples with the averaged parameters of a run.\n\n"
        "examples:\n"
        "  python -m refimpl sample runs/digits\n"
        "  python -m refimpl sample runs/digits -n 20 --labels 3,8 --guidance 1 --out threes_and_eights.png\n"
        "  python -m refimpl sample runs/digits --sampler dpm++-2m --steps 10\n"
        "  python -m refimpl sample --checkpoint ddpm-cifar10-32 -n 4 --sampler unipc-3 --steps 20\n\n" + SAMPLERS))
    p.add_argument("folder", nargs="?", help="folder of a run, made by `train`")
    p.add_argument("--checkpoint", metavar="FOLDER", help="instead of a run: public weights in diffusers' layout "
                   "(model_index.json, unet, scheduler), drawn from as the scheduler's settings say")
    p.add_argument("-n", type=positive, default=40, help="how many; default 40")
    p.add_argument("--labels", help="classes to draw, in turn, separated by commas; default: all")
    p.add_argument("--out", help="a .png (picture) or an .npz (arrays images and labels); default samples.png in the "
                   "run's folder, or here with --checkpoint")
    _sampling(p)
    p.set_defaults(run=commands.run_sample)

    p = subparsers.add_parser("score", formatter_class=raw, help="measure how good samples are", description=(
        "Draw as many samples as the test set has images and print, against the test set:\n"
        "  FDfeat     Fréchet distance between features of a small classifier (smaller is better)\n"
        "  precision, density   share of samples that look real\n"
        "  recall, coverage     share of real images that samples come near\n"
        "  1-NN       how well real and drawn are told apart (.5: not at all, 1: always)\n"
        "  NN dist.   median distance to the nearest training image (near 0: copied from there)\n"
        "  agreement  how often the classifier sees the label that was asked for\n"
        "and KID, inception score, the share memorised; of a mixture in the plane, its modes; of a\n"
        "translation, PSNR and SSIM; of a likelihood family, what the test set costs.\n\n"
        "examples:\n"
        "  python -m refimpl score runs/digits --seeds 3 --guidance 0.5\n"
        "  python -m refimpl score samples.npz --data digits"))
    p.add_argument("samples", help="folder of a run, or an .npz with images and labels")
    p.add_argument("--data", help="what an .npz is compared with")
    p.add_argument("--seeds", type=positive, default=1, help="mean over this many sets of samples; default 1")
    _sampling(p)
    p.set_defaults(run=commands.run_score)

    p = subparsers.add_parser("systems", help="list the systems and their settings",
                              description="List the systems that can be trained; with a name, what it is, where it "
                              "comes from, and its settings with their defaults (change them by train --set).")
    p.add_argument("name", nargs="?", help="one system; default: all, one line each")
    p.add_argument("--json", action="store_true", help="print as JSON")
    p.set_defaults(run=commands.run_systems)


def add_backend(p):
    """The options --backend and --device of a command."""
    p.add_argument("--backend", help="who computes: cpu (default where Numba works), reference, numba_cuda or cupy")
    p.add_argument("--device", choices=("gpu", "host"), help="where numba_cuda and cupy run: gpu (default), or host, a "
                   "CPU model of one")


def _sampling(p):
    p.add_argument("--steps", type=positive, help="the sampler's steps; default: the system's")
    p.add_argument("--sampler", metavar="NAME", help="how to draw from a diffusion model, by name (`sample --help` lists "
                   "them); default: the system's own")
    p.add_argument("--eta", type=float, help="share of fresh noise in samplers that have it, 0 (none) to 1")
    p.add_argument("--guidance", type=float, help="weight w of classifier-free guidance: 0 none, larger follows the "
                   "label more closely")
    p.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="another option of the sampler, "
                   "e.g. --set variance=large; may be repeated")
    p.add_argument("--seed", type=key, default=0, help="what to draw with; default 0")
    add_backend(p)
    p.add_argument("--json", action="store_true", help="print figures as JSON")
