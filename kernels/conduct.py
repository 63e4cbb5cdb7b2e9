"""How arrays are handed to a kernel and watched: guard zones, layouts, poisoned memory, hashes of what must stay."""
import hashlib
import math
import mmap
import random
import sys

import numpy as np

GUARD = 64  # elements on either side of an array
INT32 = 2**31
_NAN = {2: 0x7E5A, 4: 0x7FC5A5A5, 8: 0x7FF85A5A5A5A5A5A}  # NaNs with a payload that no arithmetic makes


def _poison(buffer):
    """Fill a contiguous buffer with what stands in unwritten memory: NaN with a payload, or the pattern's bits."""
    size = buffer.dtype.itemsize
    buffer.view(np.uint8 if size == 1 else f"u{size}")[...] = _NAN.get(size, 1)
    return buffer


def unwritten(array):
    """Where an array still holds the poison."""
    size = array.dtype.itemsize
    return array.view(np.uint8 if size == 1 else f"u{size}") == _NAN.get(size, 1)


def guarded(shape, dtype, layout="C"):
    """An array of poison with a guard zone of poison on either side; returns the array and the buffer around both."""
    if layout == "channels_last" and len(shape) >= 3:
        inner, buffer = guarded((shape[0], *shape[2:], shape[1]), dtype)
        return np.moveaxis(inner, -1, 1), buffer
    size = math.prod(shape)
    buffer = _poison(np.empty(size + 2 * GUARD, dtype=dtype))
    return buffer[GUARD:GUARD + size].reshape(shape), buffer


def breached(buffer):
    """Whether the guard zones around an array of `guarded` hold anything but poison."""
    return not (np.all(unwritten(buffer[:GUARD])) and np.all(unwritten(buffer[buffer.size - GUARD:])))


def _copied(array, layout):
    out, buffer = guarded(array.shape, array.dtype, layout)
    out[...] = array
    return out, buffer


def fortran(array):
    """Fortran order."""
    out, buffer = _copied(array.T, "C")
    return out.T, buffer


def strided(array):
    """Every second element of a larger buffer, in the first and the last axis."""
    if not array.ndim:
        return _copied(array, "C")
    steps = (2,) + (1,) * (array.ndim - 2) + (2,) * (array.ndim > 1)
    big, buffer = guarded(tuple(n * s for n, s in zip(array.shape, steps)), array.dtype)
    view = big[tuple(slice(None, None, s) for s in steps)]
    view[...] = array
    return view, buffer


def reversed_(array):
    """All axes run backwards: negative strides."""
    turn = (slice(None, None, -1),) * array.ndim
    out, buffer = _copied(array[turn], "C")
    return out[turn], buffer


def misaligned(array):
    """C order, one element past the boundary that vector loads like."""
    buffer = _poison(np.empty(array.size + 2 * GUARD + 1, array.dtype))
    view = buffer[GUARD + 1:GUARD + 1 + array.size].reshape(array.shape)
    view[...] = array
    return view, buffer


def read_only(array):
    """C order, not writeable."""
    out, buffer = _copied(array, "C")
    out.flags.writeable = False
    return out, buffer


def far(array):
    """An axis strides more than 2^31 elements through memory that is reserved but never touched in between."""
    axis = next((i for i, n in enumerate(array.shape) if 2 <= n <= 16), None)
    if axis is None or not array.size:
        return _copied(array, "C")
    inner = np.empty([1 if i == axis else n for i, n in enumerate(array.shape)], array.dtype)
    step = INT32 + 64 * GUARD + inner.size
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (0x4000 if sys.platform == "linux" else 0)  # MAP_NORESERVE
        room = mmap.mmap(-1, ((array.shape[axis] - 1) * step + inner.size) * array.itemsize, flags=flags)
    except (AttributeError, OSError, ValueError):  # no such system call, or no such address space: nothing to try
        return _copied(array, "C")
    strides = [step * array.itemsize if i == axis else s for i, s in enumerate(inner.strides)]
    view = np.lib.stride_tricks.as_strided(np.frombuffer(room, dtype=array.dtype), array.shape, strides)
    view[...] = array
    return view, view


def broadcast(array):
    """The first element along the first axis, repeated by a stride of 0: other values, and not writeable."""
    if not array.ndim or not array.shape[0]:
        return _copied(array, "C")
    out, buffer = _copied(array[:1], "C")
    return np.broadcast_to(out, array.shape), buffer


LAYOUTS = {
    "plain": lambda a: _copied(a, "C"),
    "channels-last view": lambda a: _copied(a, "channels_last"),
    "Fortran-ordered array": fortran,
    "strided view": strided,
    "reversed view": reversed_,
    "misaligned view": misaligned,
    "read-only array": read_only,
    "broadcast view": broadcast,
    "far-strided view": far,
}


def fingerprint(buffers):
    """A hash of the bytes of everything that a kernel must leave alone, guard zones included."""
    h = hashlib.blake2b(digest_size=16)
    for buffer in buffers:
        h.update(np.ascontiguousarray(buffer).data)
    return h.digest()


def soil(shapes, dtype):
    """Leave poison in the memory that np.empty is likely to hand out next, so that what is never written shows."""
    held = [_poison(np.empty(math.prod(shape), dtype=dtype)) for shape in shapes for _ in range(2)]
    del held


def settings():
    """What every computation of the process depends on, by name: a kernel that changes it changes everyone's."""
    one, tiny, third = np.float32(1), np.float32(2.0**-126), np.float32(3)
    found = {"the handling of subnormal numbers": float(tiny * np.float32(0.5)),
             "the rounding of numbers": (float(one / third), float(-one / third))}
    torch = sys.modules.get("torch")
    if torch is not None:
        found |= {"torch's default dtype": torch.get_default_dtype(), "torch's threads": torch.get_num_threads(),
                  "torch's gradient mode": torch.is_grad_enabled(),
                  "torch's precision of products": torch.get_float32_matmul_precision(),
                  "torch's deterministic mode": torch.are_deterministic_algorithms_enabled()}
    return found


def generators():
    """The states of the generators that a process has one of, by name."""
    torch, numpy = sys.modules.get("torch"), np.random.get_state()  # noqa: NPY002, it is watched
    found = {"random": random.getstate(), "numpy.random": (numpy[1].tobytes(), *numpy[2:])}
    return found if torch is None else found | {"torch.rand": torch.get_rng_state().numpy().tobytes()}


def advance():
    """Move each of them on, so that setting a seed again shows."""
    random.random()
    np.random.random()  # noqa: NPY002
    if "torch" in sys.modules:
        sys.modules["torch"].rand(1)
