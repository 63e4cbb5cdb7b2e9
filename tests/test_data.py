"""Data: the exact protocol of the digits, files whole and damaged, toys as functions of a key."""
import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from refimpl import data, toys


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (20, 6, 5), dtype=np.uint8)


@pytest.fixture
def mnist(tmp_path, images):
    labels = (np.arange(20) % 3).astype(np.uint8)
    for stem, array in [("train-images-idx3", images), ("train-labels-idx1", labels),
                        ("t10k-images-idx3", images[:7]), ("t10k-labels-idx1", labels[:7])]:
        (tmp_path / f"{stem}-ubyte").write_bytes(idx_bytes(array))
    return tmp_path


def test_digits_follow_the_protocol():
    from sklearn.datasets import load_digits
    d = data.load("digits")
    p = np.random.default_rng(0).permutation(1797)
    images, labels = load_digits().images[p], load_digits().target[p]
    assert d.train.shape == (1200, 1, 8, 8) and d.test.shape == (597, 1, 8, 8) and (d.classes, d.levels) == (10, 17)
    assert d.train.dtype == np.float32 and d.train.min() == -1 and d.train.max() == 1
    assert np.array_equal(d.test[:, 0] * 8 + 8, images[1200:]) and np.array_equal(d.test_labels, labels[1200:])
    assert np.array_equal(d.train[:, 0] * 8 + 8, images[:1200]) and np.array_equal(d.train_labels, labels[:1200])


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_folder(mnist, images, zipped):
    if zipped:
        for file in list(mnist.iterdir()):
            (mnist / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    d = data.load(mnist)
    assert d.train.shape == (20, 1, 6, 5) and d.test.shape == (7, 1, 6, 5) and (d.classes, d.levels) == (3, 256)
    assert np.array_equal(np.rint((d.train[:, 0] + 1) * 127.5), images) and d.train.dtype == np.float32
    assert np.array_equal(d.train_labels, np.arange(20) % 3)


def test_idx_without_test_part_holds_out_a_tenth(mnist, images):
    for stem in ("t10k-images-idx3", "t10k-labels-idx1", "train-labels-idx1"):
        (mnist / f"{stem}-ubyte").unlink()
    d = data.load(mnist)
    assert d.train.shape[0] == 18 and d.test.shape[0] == 2 and d.train_labels is None and d.classes == 0
    together = np.rint((np.concatenate([d.train, d.test])[:, 0] + 1) * 127.5).reshape(20, -1)
    assert np.array_equal(np.unique(together, axis=0), np.unique(images.reshape(20, -1), axis=0))
    one_file = data.load(mnist / "train-images-idx3-ubyte")
    assert np.array_equal(one_file.train, d.train)


@pytest.mark.parametrize("harm, message", [
    (lambda b: b[:-5], "is cut off: its header"),
    (lambda b: b[:9], "is cut off: its header"),
    (lambda b: b + b"\0", "is too long: its header"),
    (lambda b: b"\x89PNG" + b[4:], "is no IDX file: it starts with 89 50 4e 47"),
    (lambda b: b"", "is no IDX file: it starts with nothing"),
    (lambda b: b"\0\0\x07" + b[3:], "is no IDX file: it starts with 00 00 07"),
    (lambda b: gzip.compress(b)[:-20], "gzip stream is damaged or cut off"),
    (lambda b: gzip.compress(b)[:30] + bytes(40), "gzip stream is damaged or cut off"),
    (lambda b: b"\0\0\x0d\x01" + struct.pack(">I", 1) + bytes(4), "images of bytes"),
    (lambda b: b"\0\0\x08\x03" + bytes(12), "at least 2 samples expected, got 0"),
])
def test_bad_idx_is_one_sentence(tmp_path, images, harm, message):
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(harm(idx_bytes(images)))
    with pytest.raises(ValueError, match=message) as error:
        data.load(tmp_path)
    assert file.name in str(error.value) or str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_idx_labels_must_fit(mnist):
    (mnist / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(19, np.uint8)))
    with pytest.raises(ValueError, match="one label from 0 on expected for each of 20 samples"):
        data.load(mnist)
    (mnist / "train-images-idx3-ubyte").unlink()
    with pytest.raises(ValueError, match="no train-images file beside"):
        data.load(mnist)


def test_other_idx_types(tmp_path):
    values = np.array([[1.5, -2], [3, 4]])
    for code, dtype in data.IDX_TYPES.items():
        file = tmp_path / "a"
        expected = values.astype(dtype) if code != 8 else np.abs(values).astype(dtype)
        file.write_bytes(struct.pack(">BBBB2I", 0, 0, code, 2, 2, 2) + expected.tobytes())
        assert np.array_equal(data.idx(file), expected)


def test_image_folder(tmp_path, images):
    for k, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{k:02}.png")
    (tmp_path / "notes.txt").write_text("no image")
    d = data.load(tmp_path)
    assert d.train.shape == (18, 1, 6, 5) and d.test.shape == (2, 1, 6, 5) and d.train_labels is None
    Image.new("RGBA", (5, 6), (255, 0, 0, 255)).save(tmp_path / "zz.png")
    d = data.load(tmp_path)
    assert d.train.shape[1:] == (3, 6, 5) and len(d.train) + len(d.test) == 21


def test_subfolders_are_classes(tmp_path, images):
    for k, image in enumerate(images):
        folder = tmp_path / "abc"[k % 3]
        folder.mkdir(exist_ok=True)
        image[:] = 100 * (k % 3)
        Image.fromarray(image).save(folder / f"{k}.png")
    d = data.load(tmp_path)
    assert d.classes == 3
    assert np.array_equal(np.rint((d.train[:, 0, 0, 0] + 1) * 127.5), 100 * d.train_labels)


def test_bad_image_folders(tmp_path, images):
    with pytest.raises(ValueError, match=f"{tmp_path} holds no image"):
        data.load(tmp_path)
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="at least 2 samples expected, got 1"):
        data.load(tmp_path)
    Image.fromarray(images[0, :4]).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"all have one size: \S+a.png is 5x6, \S+b.png is 5x4"):
        data.load(tmp_path)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"b.png cannot be read as an image"):
        data.load(tmp_path)
    (tmp_path / "b.png").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"b.png cannot be read as an image"):
        data.load(tmp_path)


@pytest.mark.parametrize("names", data.NPZ_NAMES)
def test_npz(tmp_path, images, names):
    x, y, xt, yt = names
    arrays = {x: images, y: np.arange(20) % 2} | ({xt: images[:3], yt: np.zeros((3, 1), int)} if xt else {})
    np.savez(tmp_path / "a.npz", **arrays)
    d = data.load(tmp_path / "a.npz")
    assert d.train.shape == (20 if xt else 18, 1, 6, 5) and d.classes == 2 and d.levels == 256
    assert d.test_labels.shape == (len(d.test),)


def test_npz_layouts(tmp_path, images, rng):
    file = tmp_path / "a.npz"
    for array, shape, levels in [(np.stack([images] * 3, axis=3), (3, 6, 5), 256), (images[:, None], (1, 6, 5), 256),
                                 (images / 255.0, (1, 6, 5), None), (5 * rng.standard_normal((20, 2)), (2,), None)]:
        np.savez_compressed(file, images=array)
        d = data.load(file)
        assert d.shape == shape and d.levels == levels and d.train.dtype == np.float32


@pytest.mark.parametrize("arrays, message", [
    ({"pictures": np.zeros((4, 3, 3))}, r"has arrays \['pictures'\], expected one of x_train"),
    ({"images": np.full((4, 3, 3), 2.0)}, r"must lie in \[-1, 1\], 36 pixels do not: \[2\.\]"),
    ({"images": np.full((4, 3, 3), np.nan)}, "hold NaN or infinity"),
    ({"images": np.zeros((4, 3, 3), int)}, "images of bytes, images of floats or points"),
    ({"images": np.zeros((4, 3))}, "images of bytes, images of floats or points"),
    ({"images": np.zeros((0, 3, 3))}, "at least 2 samples expected, got 0"),
    ({"images": np.zeros((4, 3, 3)), "labels": np.zeros(4)}, "one label from 0 on expected"),
    ({"images": np.zeros((4, 3, 3)), "labels": np.zeros(3, int)}, "4 samples but labels of shape"),
    ({"images": np.zeros((4, 3, 3)), "labels": -np.ones(4, int)}, "one label from 0 on expected"),
    ({"x_train": np.zeros((4, 3, 3)), "x_test": np.zeros((4, 2, 2))}, "test samples"),
    ({"images": np.array([{}])}, "cannot be read as .npz"),
])
def test_bad_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message) as error, np.errstate(invalid="ignore"):
        data.load(tmp_path / "a.npz")
    assert "a.npz" in str(error.value)


def test_damaged_npz(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, images=np.zeros((40, 3, 3)))
    whole = file.read_bytes()
    for harmed in (whole[:200], b"", b"foreign", whole[:150] + b"\xff" * 100 + whole[250:]):
        file.write_bytes(harmed)
        with pytest.raises(ValueError, match=r"cannot be read as \.npz"):
            data.load(file)


def test_unknown_name():
    with pytest.raises(ValueError, match="'mnits' is neither one of digits, moons"):
        data.load("mnits")


@pytest.mark.parametrize("name", toys.TOYS)
def test_toys_are_functions_of_the_key(name):
    make = toys.TOYS[name]
    x, labels = make(5, 2000)
    again, _ = make(5, 500)
    other, _ = make(6, 500)
    assert x.shape == (2000, 2) and x.dtype == np.float32 and np.array_equal(x[:500], again)
    assert not np.array_equal(again, other) and np.max(np.abs(x.mean(0))) < 0.35 and 0.3 < x.std() < 1.3
    if labels is not None:
        counts = np.bincount(labels)
        assert counts.min() > 0.6 * 2000 / len(counts)
        centres = np.stack([x[labels == k].mean(0) for k in range(len(counts))])
        if name != "moons":  # narrow modes: every point is nearest to its own
            assert np.array_equal(np.argmin(((x[:, None] - centres) ** 2).sum(2), axis=1), labels)


def test_moments_of_the_toys():
    x, _ = toys.eight_gaussians(1, 4000)
    assert abs(np.mean(np.hypot(*x.T)) - 2**0.5) < 1e-3 and abs(np.std(np.hypot(*x.T)) - 0.01 * 2**0.5) < 1e-3
    x, k = toys.twenty_five_gaussians(1, 4000)
    assert abs(x[k == 24].mean(0) - 2**0.5).max() < 5e-3 and abs(x[k == 12].std() - 0.05 / 8**0.5) < 2e-3
    x, _ = toys.swiss_roll(1, 4000)
    turn = np.hypot(*x.T) * 7.5 / np.pi
    assert 1.3 < turn.min() < 1.6 and 4.4 < turn.max() < 4.75
    x, k = toys.moons(1, 4000)
    assert abs(np.mean(np.hypot(*(x[k == 0] + [0.5, 0.25]).T)) - 1) < 0.02


def test_permutations_are_uniform_and_repeatable():
    orders = np.stack([data.permutation(key, 5) for key in range(3000)])
    assert all(sorted(row) == [0, 1, 2, 3, 4] for row in orders[:50])
    counts = np.stack([np.bincount(column, minlength=5) for column in orders.T])
    assert np.max(np.abs(counts - 600)) < 5 * (3000 * 0.2 * 0.8) ** 0.5
    assert np.array_equal(data.permutation(7, 1000), data.permutation(7, 1000))
