"""Files that are whole or not there: atomic writes, and checkpoints in the safetensors format.

A checkpoint is one safetensors file: flat named tensors, and everything else as one JSON text in its metadata. It
opens in any program that reads safetensors.
"""
import json
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors_numpy

from .ops._check import require

META = "refimpl"  # the only metadata entry: the order of several is not fixed, and equal runs give equal bytes


def write(path, data):
    """Write bytes to a file so that a reader, a crash or a full disk finds the old file or the new one, never a part.

    The bytes go to a temporary file in the same folder and onto the disk before it takes the file's name.
    Raises: OSError in one sentence when that fails; what stood under the name is then untouched.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name itself must reach the disk
        finally:
            os.close(folder)
    except OSError as error:
        if path.parent.is_dir():
            part.unlink(missing_ok=True)
        kept = "; the file that was there is kept" if path.exists() else ""
        raise OSError(f"cannot write {path}: {(error.strerror or str(error)).lower()}{kept}") from error


def folder(path):
    """The folder, made if it is not there and known to be writable before any work is done for it.

    Raises: OSError in one sentence when nothing can be written there.
    """
    path = Path(path)
    probe = path / ".writable"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write into {path}: {(error.strerror or str(error)).lower()}") from error
    return path


def save(path, tensors, meta):
    """Write a checkpoint atomically: tensors (flat dict of arrays) and meta (what JSON can hold).

    Raises: ValueError when a tensor is not finite (nothing is written then); OSError when the file cannot be written.
    """
    tensors = {k: np.asarray(a, order="C") for k, a in tensors.items()}
    _finite(f"refusing to write {path}", tensors)
    write(path, safetensors_numpy.save(tensors, {META: json.dumps(meta, sort_keys=True)}))


def load(path):
    """Read a checkpoint: (tensors, meta).

    Raises: OSError when there is no such file; ValueError in one sentence when it is truncated, foreign or not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, "numpy") as file:
            meta, names = file.metadata() or {}, file.keys()
            require(META in meta, f"{path} is a safetensors file but no checkpoint of this project")
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file: {str(error).lower()}") from error
    _finite(f"{path} is damaged", tensors)
    return tensors, json.loads(meta[META])


def _finite(what, tensors):
    bad = [k for k, a in tensors.items() if np.issubdtype(a.dtype, np.inexact) and not np.all(np.isfinite(a))]
    require(not bad, f"{what}: {len(bad)} of {len(tensors)} tensors hold NaN or infinity, the first is {bad[0]!r}"
            if bad else "")


def nest(trees):
    """One flat dict from {part: {player: {name: array}}}: names joined by slashes."""
    return {f"{part}/{player}/{name}": a for part, players in trees.items()
            for player, arrays in players.items() for name, a in arrays.items()}


def unnest(tensors, part, players):
    """The {player: {name: array}} that `nest` stored under a part; a player without arrays has an empty dict."""
    return {player: {k.split("/", 2)[2]: a for k, a in tensors.items() if k.startswith(f"{part}/{player}/")}
            for player in players}
