"""What a kernel asks of memory, counted by executing its PTX: sectors a request, bytes in all, bank conflicts.

A request is one warp's execution of one load or store: the lanes' n-th executions of it after a barrier count as one,
which is exact where the lanes of a warp take the same path between two barriers, or each access once.
"""
import ctypes
from typing import NamedTuple

import numpy as np

SECTOR, LINE, BANKS = 32, 128, 32  # bytes, bytes that shared memory gives in a pass, banks of four bytes
TRACED = np.dtype([("site", np.int32), ("warp", np.int32), ("block", np.int32), ("occurrence", np.int32),
                   ("epoch", np.uint32), ("address", np.int64), ("lane", np.int16), ("bytes", np.uint8),
                   ("flags", np.uint8)], align=True)
WRITE, SHARED, OWN = 1, 2, 4  # flags; OWN: the module's own constants, which are read through another cache


class Site(NamedTuple):
    """One load or store of the source, "file:line", over all launches.

    requests by warps, bytes an access; cost: sectors of 32 bytes (global memory) or passes over the banks (shared) of all
    requests; least: what the bytes that their lanes ask for need; worst: of one request. moved: bytes, whole sectors.
    """

    place: str
    shared: bool
    write: bool
    bytes: int
    requests: int
    cost: int
    least: int
    worst: float

    @property
    def moved(self):
        return 0 if self.shared else self.cost * SECTOR

    @property
    def ratio(self):
        return self.cost / self.least


def traffic(module):
    """The sites of all launches of a traced PtxModule since the last call, and the bytes of global memory moved.

    Every sector that a request asks for counts, whether a cache has it or not.
    """
    rows = np.zeros(module.library.hc_traced(None), TRACED)
    if len(rows):
        module.library.hc_traced(ctypes.c_void_p(rows.ctypes.data))
    rows = rows[rows["flags"] < OWN]
    request, first = _number(*(rows[k] for k in ("flags", "site", "block", "warp", "occurrence", "epoch")))
    shared = rows["flags"] & SHARED > 0
    cost, least = np.zeros(len(first), np.int64), np.zeros(len(first), np.int64)
    for count, part in ((_sectors, ~shared), (_passes, shared)):
        if part.any():
            here, at = _number(request[part])
            cost[request[part][at]], least[request[part][at]] = count(here, rows[part])
    heads = rows[first]
    places = np.array(module.sites)[heads["site"]] if len(heads) else np.zeros(0, str)
    sites = []
    for place, flags, size in sorted(set(zip(places.tolist(), heads["flags"].tolist(), heads["bytes"].tolist()))):
        here = (places == place) & (heads["flags"] == flags) & (heads["bytes"] == size)
        sites.append(Site(place, bool(flags & SHARED), bool(flags & WRITE), size, int(here.sum()), int(cost[here].sum()),
                          int(least[here].sum()), float((cost[here] / least[here]).max())))
    return sites, sum(s.moved for s in sites)


def _number(*columns):
    """Each row's number among the different rows, and where each is first."""
    key = np.zeros(len(columns[0]), np.int64)
    for c in columns:
        low, high = (int(c.min()), int(c.max())) if len(c) else (0, 0)
        key = key * (high - low + 1) + (c.astype(np.int64) - low)
    _, first, number = np.unique(key, return_index=True, return_inverse=True)
    return number.ravel(), first


def _different(request, *columns):
    """How many different rows of the columns each request has."""
    _, first = _number(request, *columns)
    return np.bincount(request[first], minlength=request.max() + 1)


def _sectors(request, rows):
    """Sectors that each request touches, and the least that its different bytes could lie in."""
    size = np.zeros(request.max() + 1, np.int64)
    size[request] = rows["bytes"]
    asked = _different(request, rows["address"]) * size
    return _different(request, rows["address"] // SECTOR), -(-asked // SECTOR)


def _passes(request, rows):
    """Passes over the banks of each request: lanes go in halves or quarters when they ask for 8 or 16 bytes, and a word
    that several of them ask for is read once; and the least, one for each part.
    """
    words = np.maximum(rows["bytes"] // 4, 1)
    at = np.repeat(np.arange(len(rows)), words)
    part, _ = _number(request, rows["lane"].astype(np.int64) * np.maximum(rows["bytes"], 4) // LINE)
    word = rows["address"][at] // 4 + np.arange(len(at)) - np.repeat(np.cumsum(words) - words, words)
    _, first = _number(part[at], word)  # each word of a part once
    part_of, bank = part[at][first], word[first] % BANKS
    busy, head = _number(part_of, bank)
    worst = np.zeros(part.max() + 1, np.int64)
    np.maximum.at(worst, part_of[head], np.bincount(busy))
    owner = np.zeros(part.max() + 1, np.int64)
    owner[part] = request
    return np.bincount(owner, weights=worst).astype(np.int64), np.bincount(owner)
