"""The generator's known answers, and what its numbers depend on."""
import numpy as np

from refimpl import ops

from . import fact
from .gradients import pair

# Random123's kat_vectors for philox4x32, 10 rounds: counter, key (low word first), answer.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pair(ops.dropout, ops.dropout_vjp, "x")
def _dropout(d):
    return {"x": d.array(d.integer(1, 3), d.integer(1, 5)), "rate": d.real(0, 0.9), "key": d.key()}


def _words(text):
    return [int(word, 16) for word in text.split()]


@fact("known answers", ops.philox4x32, tolerance=0)
def known_answers(d):
    """Philox4x32-10 gives Random123's known answers, on integers and on arrays."""
    wrong = 0
    for counter, key, answer in KNOWN_ANSWERS:
        low, high = _words(key)
        for c in (_words(counter), np.array(_words(counter), dtype=np.uint64)[:, None]):
            words = ops.philox4x32(c, low | high << 32)
            wrong += sum(int(np.squeeze(w)) != a for w, a in zip(words, _words(answer)))
    return wrong


@fact("independence", ops.normal, ops.uniform, tolerance=0)
def a_sample_knows_its_index(d):
    """A sample's numbers do not depend on which samples are drawn with it, nor on how many numbers are drawn of it."""
    key, draw, n = d.key(), d.integer(0, 2**32 - 1), d.integer(1, 9)
    index = [d.integer(0, 2**32 - 1) for _ in range(3)]
    return max(np.max(abs(f(key, index, draw, (n,))[i] - f(key, index[i:i + 1], draw, (2, 9)).ravel()[:n]))
               for f in (ops.normal, ops.uniform) for i in range(3))


@fact("lattice", ops.uniform, tolerance=0)
def uniforms_are_exact(d):
    """Uniforms are multiples of 2^-24 in (0, 1], the same in float32 and float64."""
    key, draw = d.key(), d.integer(0, 9)
    u = ops.uniform(key, [0, 7], draw, (8,), dtype=np.float64)
    outside = np.max(np.where((u > 0) & (u <= 1), 0, 1))
    single = ops.uniform(key, [0, 7], draw, (8,))
    return max(outside, np.max(abs(u * 2**24 - np.round(u * 2**24))), np.max(abs(u - single)))


@fact("Box-Muller", ops.normal, ops.philox4x32, tolerance=1e-14)
def normals_by_the_docstring(d):
    """Word by word: radius from words 0 and 2, angle from words 1 and 3, in one turn cut into 2^26 parts."""
    key, index, draw, block = d.key(), d.integer(0, 2**32 - 1), d.integer(0, 2**32 - 1), d.integer(0, 3)
    w = ops.philox4x32((block, index, draw, 0), key)
    z = [np.sqrt(-2 * np.log(1 - (w[i] >> 8) / 2**24)) * np.exp(2j * np.pi * (w[i + 1] >> 6) / 2**26) for i in (0, 2)]
    expected = np.array([z[0].real, z[0].imag, z[1].real, z[1].imag])
    got = ops.normal(key, [index], draw, (4, 4), dtype=np.float64)[0, block]
    return np.max(abs(got - expected)) + float(np.max(abs(got)) > 5.77)


@fact("inverted", ops.dropout, tolerance=1e-15)
def kept_or_dropped(d):
    """Every element is dropped or scaled by 1/(1 - rate); rate 0 keeps them all."""
    x, rate, key = _dropout(d).values()
    y = ops.dropout(x, rate, key)
    kept = y != 0
    return max(np.max(abs((1 - rate) * y - kept * x) / abs(x)), np.max(abs(ops.dropout(x, 0, key) - x)))
