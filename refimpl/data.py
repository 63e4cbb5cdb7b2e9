"""Data sets as arrays: `load(spec)` takes the name of a known set or the path of a file or folder."""
import gzip
import math
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .ops._check import require
from .ops.random import fold, philox4x32
from .toys import TOYS

NAMES = ("digits", *TOYS)
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
IDX_STEMS = ("train-images", "train-labels", "t10k-images", "t10k-labels")
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
NPZ_NAMES = [("x_train", "y_train", "x_test", "y_test"),  # Keras
             ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
             ("images", "labels", "", ""), ("x", "y", "", ""), ("arr_0", "arr_1", "", "")]


class Data(NamedTuple):
    """Images (N, C, H, W) float32 in [-1, 1] or points (N, 2); labels (N,) in 0..classes-1 or None; levels of grey."""

    spec: str
    train: np.ndarray
    train_labels: np.ndarray | None
    test: np.ndarray
    test_labels: np.ndarray | None
    classes: int
    levels: int | None

    @property
    def shape(self):
        """Shape of one sample."""
        return self.train.shape[1:]

    @property
    def fingerprint(self):
        """A number that changes with the training data, so that a run is not resumed on other data."""
        return zlib.crc32(np.ascontiguousarray(self.train)) ^ zlib.crc32(np.asarray(self.train_labels).tobytes())


def load(spec):
    """Load a data set: "digits", a toy's name, or a path.

    A path may be a folder with IDX files under their usual names (MNIST, Fashion-MNIST; plain or .gz), one IDX file, a
    folder of images of one size (its subfolders, if any, are the classes), or an .npz file. Where a source has no test
    part, a tenth of it is held out, always the same one.
    Raises: ValueError or OSError in one sentence naming the file.
    """
    spec, path = str(spec), Path(spec)
    if spec == "digits":
        return digits()
    if spec in TOYS:
        (train, labels), (test, test_labels) = (TOYS[spec](fold(0, k), n) for k, n in enumerate((8192, 2048)))
        return _checked(spec, train, labels, test, test_labels, None)
    require(path.exists(), f"data: {spec!r} is neither one of {', '.join(NAMES)} nor a file or folder that exists")
    if path.is_file():
        return npz(path) if path.suffix == ".npz" else _idx_file(path)
    return idx_folder(path) if any(_idx_path(path, stem) for stem in IDX_STEMS) else image_folder(path)


def digits():
    """scikit-learn's 1797 handwritten digits, 8x8, pixels x/8 - 1: always the same 1200 to train on and 597 to test."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install -e .[demo]") from error

    x, y = load_digits(return_X_y=True)
    p = np.random.default_rng(0).permutation(1797)  # the published protocol's split, and so not ours to redraw
    x, y = (x / 8 - 1).astype(np.float32).reshape(-1, 1, 8, 8)[p], y.astype(np.int64)[p]
    return _checked("digits", x[:1200], y[:1200], x[1200:], y[1200:], 17)


def permutation(key, n):
    """A random order of 0..n-1 that depends on the key alone: the order of 64 Philox bits drawn for each."""
    w0, w1, _, _ = philox4x32((np.arange(n, dtype=np.uint64), 0, 0, 3), key)
    return np.argsort(w0 | w1 << 32, kind="stable")


def idx(path):
    """One IDX file, plain or gzipped, as an array.

    Raises: ValueError when it is no IDX file, or shorter or longer than its header says.
    Source: LeCun, Cortes, Burges 1998, the MNIST database, "the IDX file format".
    """
    raw = Path(path).read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path}: the gzip stream is damaged or cut off ({error})") from error
    known = len(raw) >= 4 and raw[:2] == b"\0\0" and raw[2] in IDX_TYPES and raw[3] > 0
    require(known, f"{path} is no IDX file: it starts with {raw[:4].hex(' ') or 'nothing'}, expected 00 00 type rank")
    dtype, start = np.dtype(IDX_TYPES[raw[2]]), 4 + 4 * raw[3]
    shape = tuple(int(n) for n in np.frombuffer(raw[4:start][: (len(raw) - 4) // 4 * 4], ">u4"))
    want = start + math.prod(shape) * dtype.itemsize
    require(len(shape) == raw[3] and len(raw) == want,
            f"{path} is {'cut off' if len(shape) < raw[3] or len(raw) < want else 'too long'}: its header "
            f"{shape} asks for {want} bytes, it has {len(raw)}")
    return np.frombuffer(raw, dtype, offset=start).reshape(shape)


def idx_folder(path):
    """Training and test images and labels from the four IDX files of a folder (the labels may be missing)."""
    files = [_idx_path(path, stem) for stem in IDX_STEMS]
    require(files[0], f"{path} has no train-images file beside {next(f.name for f in files if f)}")
    images, labels, test, test_labels = (idx(f) if f else None for f in files)
    images = _pixels(files[0], images)
    if test is None:
        return _split(path, images, labels, 256)
    return _checked(path, images, labels, _pixels(files[2], test), test_labels, 256)


def _idx_path(folder, stem):
    return next((f for f in sorted(folder.iterdir()) if f.name.startswith(stem) and "idx" in f.name), None)


def _idx_file(path):
    return _split(path, _pixels(path, idx(path)), None, 256)


def _pixels(path, array):
    """Bytes (N, H, W), (N, H, W, C) or (N, C, H, W) as float32 (N, C, H, W) in [-1, 1]."""
    require(array.dtype == np.uint8 and array.ndim in (3, 4),
            f"{path}: images of bytes (N, H, W) or with channels expected, got {array.dtype} {array.shape}")
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = np.moveaxis(array, 3, 1)
    return np.ascontiguousarray(array / np.float32(127.5) - 1)


def image_folder(path):
    """Every image of a folder and its subfolders, all of one size; grey if all are grey, else RGB (alpha is dropped).

    Labels: the subfolder an image is in, where there are at least two and no image lies outside them.
    Raises: ValueError when there is no image, a file cannot be read as one, or sizes differ.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading images needs Pillow: pip install -e .[demo]") from error
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())
    require(files, f"{path} holds no image (looked for {' '.join(sorted(IMAGE_SUFFIXES))}) and no IDX file")
    images = []
    for file in files:
        try:
            with Image.open(file) as image:
                images.append(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{file} cannot be read as an image: {error}") from error
        first, size = images[0].size, images[-1].size
        require(size == first, f"images must all have one size: {files[0]} is {first[0]}x{first[1]}, "
                f"{file} is {size[0]}x{size[1]}")
    mode = "L" if all(image.mode == "L" for image in images) else "RGB"
    pixels = _pixels(path, np.stack([np.asarray(image.convert(mode)) for image in images]))
    parents = [file.relative_to(path).parts[0] if file.parent != path else None for file in files]
    classes = sorted(set(parents) - {None})
    labelled = len(classes) > 1 and None not in parents
    return _split(path, pixels, np.array([classes.index(p) for p in parents]) if labelled else None, 256)


def load_arrays(path):
    """The arrays of an .npz file by name. Raises: ValueError when it is damaged, or FileNotFoundError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read as .npz: {error}") from error


def npz(path):
    """Arrays of an .npz file: x_train y_train x_test y_test, train_images ..., images labels, x y, or unnamed ones.

    Bytes are pixels; floating-point images are taken as they are and must lie in [-1, 1]; floats (N, 2) are points.
    Raises: ValueError when the file is damaged or holds no such arrays.
    """
    arrays = load_arrays(path)
    names = next((names for names in NPZ_NAMES if names[0] in arrays), None)
    require(names, f"{path} has arrays {sorted(arrays)}, expected one of {', '.join(n[0] for n in NPZ_NAMES)}")
    images, labels, test, test_labels = (arrays.get(name) for name in names)
    levels = 256 if images.dtype == np.uint8 else None
    images = _values(path, images)
    if test is None:
        return _split(path, images, labels, levels)
    return _checked(path, images, labels, _values(path, test), test_labels, levels)


def _values(path, array):
    if array.dtype == np.uint8 and array.ndim != 2:
        return _pixels(path, array)
    points = array.ndim == 2 and array.shape[1] == 2
    require(np.issubdtype(array.dtype, np.floating) and (points or array.ndim in (3, 4)),
            f"{path}: images of bytes, images of floats or points (N, 2) expected, got {array.dtype} {array.shape}")
    beyond = np.zeros(0) if points else array[np.abs(array) > 1]
    require(not beyond.size,
            f"{path}: floating-point images must lie in [-1, 1], {beyond.size} pixels do not: {beyond[:1]}")
    array = array[:, None] if array.ndim == 3 else array
    return array.astype(np.float32)


def _split(path, x, labels, levels):
    """Hold out a tenth (at least one sample), the same one every time."""
    require(len(x) > 1, f"{path}: at least 2 samples expected, got {len(x)}")
    labels = None if labels is None else np.asarray(labels)
    if labels is not None:
        require(labels.shape[:1] == x.shape[:1], f"{path}: {len(x)} samples but labels of shape {labels.shape}")
    p, held = permutation(0, len(x)), max(1, len(x) // 10)
    part = lambda a, order: None if a is None else a[order]
    return _checked(path, x[p[held:]], part(labels, p[held:]), x[p[:held]], part(labels, p[:held]), levels)


def _checked(spec, train, train_labels, test, test_labels, levels):
    """The Data of arrays that fit together; labels as (N,) int64, dropped where one part has none."""
    if train_labels is None or test_labels is None:
        train_labels = test_labels = None
    classes = 0
    for name, x in (("training", train), ("test", test)):
        require(len(x) > 0, f"{spec}: there are no {name} samples")
        require(np.all(np.isfinite(x)), f"{spec}: the {name} samples hold NaN or infinity")
    require(train.shape[1:] == test.shape[1:],
            f"{spec}: training samples are {train.shape[1:]}, test samples {test.shape[1:]}")
    if train_labels is not None:
        train_labels, test_labels = (np.asarray(y) for y in (train_labels, test_labels))
        for x, y in ((train, train_labels), (test, test_labels)):
            require(np.issubdtype(y.dtype, np.integer) and y.size == len(x) and y.min() >= 0,
                    f"{spec}: one label from 0 on expected for each of {len(x)} samples, got {y.dtype} {y.shape}")
        train_labels, test_labels = (y.reshape(-1).astype(np.int64) for y in (train_labels, test_labels))
        classes = 1 + int(max(train_labels.max(), test_labels.max()))
    return Data(str(spec), train, train_labels, test, test_labels, classes, levels)
