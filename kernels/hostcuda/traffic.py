"""What a kernel asks of memory, counted by executing its PTX: sectors a request, bytes in all, bank conflicts."""
import ctypes
from typing import NamedTuple

import numpy as np

SECTOR, BANKS = 32, 32
TRACED = np.dtype([("site", np.int32), ("warp", np.int32), ("block", np.int32), ("occurrence", np.int32),
                   ("address", np.uint64), ("lane", np.int16), ("bytes", np.uint8), ("flags", np.uint8)], align=True)


class Site(NamedTuple):
    """One load or store of the source: requests by warps, bytes an access, and per request sectors (global memory) or
    the worst number of different words in one bank (shared memory), over what is least for the lanes that took part.
    """

    line: int
    shared: bool
    write: bool
    bytes: int
    requests: int
    moved: int
    ratio: float


def traffic(module):
    """The sites of all launches of a traced PtxModule since the last call, and the bytes of global memory moved.

    A request is one warp's execution of one load or store; moved counts whole sectors of 32 bytes, cached or not.
    """
    n = module.library.hc_traced(None)
    rows = np.zeros(n, TRACED)
    if n:
        module.library.hc_traced(ctypes.c_void_p(rows.ctypes.data))
    sites = []
    for site, flags, size in np.unique(rows[["site", "flags", "bytes"]]):
        here = rows[(rows["site"] == site) & (rows["flags"] == flags) & (rows["bytes"] == size)]
        key = np.stack([here["block"], here["warp"], here["occurrence"]], axis=1)
        _, request = np.unique(key, axis=0, return_inverse=True)
        shared, size = bool(flags & 2), int(size)
        requests = int(request.max()) + 1
        cost, least = (_banks if shared else _sectors)(request.ravel(), here, requests, size)
        sites.append(Site(int(site), shared, bool(flags & 1), size, requests,
                          0 if shared else int(cost.sum()) * SECTOR, float(cost.sum() / least.sum())))
    return sites, sum(s.moved for s in sites)


def _sectors(request, rows, requests, size):
    """Different sectors a request touches, and the least that its different bytes could lie in."""
    touched = np.concatenate([np.stack([request, (rows["address"] + o) // SECTOR], axis=1)
                              for o in range(0, size, min(size, SECTOR))])
    cost = np.bincount(np.unique(touched, axis=0)[:, 0].astype(int), minlength=requests)
    asked = np.unique(np.stack([request, rows["address"]], axis=1), axis=0)[:, 0].astype(int)
    return cost, -(-np.bincount(asked, minlength=requests) * size // SECTOR)


def _banks(request, rows, requests, size):
    """Passes over the banks a request takes: lanes go in halves or quarters when they ask for 8 or 16 bytes."""
    group = rows["lane"].astype(np.int64) * max(size, 4) // 128
    words = np.concatenate([np.stack([request, group, (rows["address"].astype(np.int64) + o) // 4], axis=1)
                            for o in range(0, size, 4)])
    words = np.unique(words, axis=0)  # one word asked for by several lanes is read once
    bank = np.stack([words[:, 0], words[:, 1], words[:, 2] % BANKS], axis=1)
    _, at, count = np.unique(bank, axis=0, return_index=True, return_counts=True)
    parts = np.stack([bank[at][:, 0], bank[at][:, 1]], axis=1)
    part, inverse = np.unique(parts, axis=0, return_inverse=True)
    worst = np.zeros(len(part), np.int64)
    np.maximum.at(worst, inverse.ravel(), count)
    cost = np.bincount(part[:, 0], weights=worst, minlength=requests)
    return cost, np.bincount(part[:, 0], minlength=requests)
