"""The arrays of a launch, copied to memory of their own with guards between them."""
import ctypes

import numpy as np

GUARD = 1 << 16  # bytes, at least, between two arguments' memory, so that an access past one does not land in the next


class Arena:
    """Copies of the argument arrays with guards between them; overlapping arrays share one copy, as on a device."""

    def __init__(self):
        self.spans = []  # (low, high, constant, bytes an element, name, low's offset in 256 bytes)
        self.arrays = []

    def add(self, array, constant, name):
        """Enter an array; returns where its first element is now, for `pointer` after `load`."""
        low, high = np.lib.array_utils.byte_bounds(array)
        root = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        # as on a device, where every allocation starts at a multiple of 256 and a view somewhere in it
        offset = (low - np.lib.array_utils.byte_bounds(root)[0]) % 256
        self.spans.append((low, max(high, low) if array.size else low, constant, array.itemsize, name, offset))
        self.arrays.append(array)  # keeps it alive
        return array.ctypes.data if array.size else low

    def load(self):
        """Merge overlapping spans, copy them in, and return rows (low, high, constant, grain, name) of their places."""
        merged = []
        for low, high, constant, size, name, offset in sorted(self.spans):
            if merged and low < merged[-1][1]:
                last = merged[-1]
                merged[-1] = (last[0], max(high, last[1]), last[2] and constant, min(size, last[3]),
                              f"{last[4]} and {name}", last[5])
            else:
                merged.append((low, high, constant, size, name, offset))
        guard = max([GUARD, *(high - low for low, high, *_ in merged)])  # a doubled index still lands in it
        sizes = [-(-(high - low + guard) // 256) * 256 + 256 for low, high, *_ in merged]
        self.memory = np.zeros(sum(sizes) + guard + 256, np.uint8)
        place = -(-self.memory.ctypes.data // 256) * 256 + -(-guard // 256) * 256
        self.placed = []
        for (low, high, constant, size, name, offset), room in zip(merged, sizes):
            at = place + offset
            ctypes.memmove(at, low, high - low)
            self.placed.append((low, high, constant, max(1, min(4, size & -size)), name, at))
            place += room
        return [(at, at + high - low, constant, grain, name) for low, high, constant, grain, name, at in self.placed]

    def pointer(self, first):
        """Where the array whose first element was at `first` is now: in the last span that starts at or before it."""
        low, *_, at = max(span for span in self.placed if span[0] <= first)
        return np.uint64(at + first - low)

    def store(self):
        """Copy what the kernel may have written back to the caller's arrays."""
        for low, high, constant, _, _, at in self.placed:
            if not constant:
                ctypes.memmove(low, at, high - low)
