"""Pictures show what they are given."""
import io

import numpy as np
from PIL import Image

from refimpl import pictures


def opened(content):
    return Image.open(io.BytesIO(content))


def test_values_and_places():
    x = np.full((3, 1, 2, 2), -1.0)
    x[1, 0, 0, 1], x[2] = 1.0, 0.0
    sheet = np.asarray(opened(pictures.grid(x, columns=2)))
    zoom, gap = 28, 6

    def cell(row, column):
        top, left = gap + row * (2 * zoom + gap), gap + column * (2 * zoom + gap)
        return sheet[top:top + 2 * zoom, left:left + 2 * zoom]

    assert np.all(cell(0, 0) == 0) and np.all(cell(1, 0) == 128)
    assert np.all(cell(0, 1)[:zoom, zoom:] == 255) and np.all(cell(0, 1)[zoom:] == 0)
    assert np.all(sheet[:gap] == pictures.GREY) and sheet.shape == (2 * (2 * zoom + gap) + gap,) * 2 + (3,)


def test_outside_is_clipped_and_colours_kept():
    x = np.zeros((1, 3, 64, 64))
    x[:, 0], x[:, 1] = 7, -7
    sheet = np.asarray(opened(pictures.grid(x, columns=1)))
    assert sheet[10, 10].tolist() == [255, 0, 128] and sheet.shape[0] == 64 + 12


def test_captions_take_room_and_are_drawn():
    x = np.zeros((2, 1, 8, 8))
    plain, labelled = (np.asarray(opened(pictures.grid(x, captions))) for captions in (None, [3, 8]))
    assert labelled.shape[0] == plain.shape[0] + 14 and np.any(labelled[-18:-6] < 100) and not np.any(plain[-4:] < 100)


def test_film_has_every_frame():
    film = opened(pictures.film([np.full((1, 1, 8, 8), v) for v in (-1.0, 0.0, 1.0)], columns=1))
    values = []
    for k in range(film.n_frames):
        film.seek(k)
        values.append(int(np.asarray(film.convert("L"))[20, 20]))
    assert film.n_frames == 3 and np.allclose(values, [0, 128, 255], atol=2)


def test_points_and_losses(rng):
    for content in (pictures.grid(rng.standard_normal((50, 2)), np.arange(50) % 25), pictures.grid(np.zeros((5, 2))),
                    pictures.losses({"d": rng.random(100), "g": rng.standard_normal(30)}),
                    pictures.losses({"model": np.zeros(0)})):
        assert len(np.unique(np.asarray(opened(content).convert("L")))) > 10
