"""Where CUDA kernels run: on a GPU through CuPy, or on the CPU model of kernels/hostcuda. One launcher serves both.

Sources are read here, tile sizes are chosen here, and nothing else in kernels knows which of the two it talks to.
"""
import functools
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

NULL = np.uint64(0)  # a pointer argument that is absent
HERE = Path(__file__).parent

# Neither NumPy nor CuPy has bfloat16: arrays of uint16 hold its bits.
ELEMENTS = {"float32": "float", "float16": "__half", "uint16": "__nv_bfloat16", "bfloat16": "__nv_bfloat16"}


def element(dtype):
    """A dtype's name in CUDA C++."""
    return ELEMENTS[np.dtype(dtype).name]


class Form(NamedTuple):
    """What the reference's checks look at: shape and dtype. bfloat16 counts as float16, which NumPy knows."""

    shape: tuple
    dtype: object

    @property
    def ndim(self):
        return len(self.shape)


def form(x):
    """The Form of an array, None of None."""
    if x is None:
        return None
    return Form(x.shape, np.dtype(np.float16) if x.dtype.name in ("uint16", "bfloat16") else x.dtype)


def source(path):
    """A .cu file with its own headers in place, so that NVRTC and g++ see the same text and the file's line numbers."""
    def header(match):
        lines = text.count("\n", 0, match.start()) + 2
        return f'#line 1 "{match[1]}"\n{(HERE / match[1]).read_text()}\n#line {lines} "{Path(path).name}"\n'

    text = (HERE / path).read_text()
    return re.sub(r'#include "([\w.]+\.cuh)"\n', header, text)


class Tile(NamedTuple):
    """How gemm.cuh cuts a product: rows and columns a block and their common depth, rows and columns a thread, buffers."""

    rows: int
    columns: int
    depth: int
    rows_each: int
    columns_each: int
    buffers: int

    @property
    def threads(self):
        return self.rows // self.rows_each * self.columns // self.columns_each


PRODUCTS = {"tiled": Tile(64, 64, 16, 4, 4, 1), "best": Tile(128, 64, 8, 8, 8, 2), "small": Tile(64, 32, 16, 4, 4, 2)}
WMMA = (64, 64, 128)  # rows, columns and threads a block of the tensor cores' product
PIXELS = 256, 4096    # a block of the filters' gradient sums at least and at most so many, where it can choose
THREADS = 256         # a block of an element-wise kernel


QUADS = {"vector": 1, "best": 2}  # blocks of four elements a thread of the sampling step

SHARED = 48 << 10  # bytes of shared memory that a block has everywhere; for more a kernel must ask
ROOM = 256         # of them, for what kernels have beside the dynamic part
CHUNK = 8192       # floats of a sum a block, where a sum crosses blocks; a multiple of 4


def group_threads(size):
    """Threads for a group of `size` floats: a warp for every 128, at most 8, or for every 1024, at most 32."""
    return min(1024, max(32, min(THREADS, blocks(size, 128) * 32), blocks(size, 1024) * 32))


def group_chain(size):
    """The longest chain of additions in a sum over a group: a thread's share, its warp and the warps."""
    return blocks(size, group_threads(size)) + 4 + 10


class Heads(NamedTuple):
    """How attention's kernels cut a head: threads that share a row, rows a thread, and rows a tile in shared memory.

    A block has 128 threads.
    """

    lanes: int
    rows: int
    tile: int = 32

    @property
    def block(self):
        """Rows a block."""
        return 128 // self.lanes * self.rows


ROWS = {"naive": 128, "wmma": 64}  # of queries or keys a block of attention's other versions
HEADS = (16, 32, 64, 128)  # head sizes that are compiled; others are padded with zeros up to the next


def heads(kernel, version, size):
    """The Heads of a kernel for a compiled head size: registers hold four rows a thread, two of the largest heads."""
    lanes = 4 if size == 16 or (kernel, version) == ("attention", "tiled") else 8
    if version == "tiled":
        return Heads(lanes, 1)
    return Heads(lanes, 4 if kernel == "attention" and size < 128 else 2)


def blocks(size, each):
    """How many runs of `each` cover `size`."""
    return -(-size // each)


def fours(n, size, whole):
    """Blocks of threads for n samples of `size` elements, a block of four elements a thread; two of them where samples do
    not start on 16 bytes, since what a thread reads once for all of its elements is then a larger part."""
    return blocks(n * blocks(size, 4), THREADS * (1 if whole else 2))


class Device(NamedTuple):
    """A place to run: its name, "gpu" or "host", its array module, its number of multiprocessors, find(path, name) -> a
    kernel that takes CuPy's (grid, block, args, shared_mem=0); how many floats of a sum a block takes at most, and how many
    bytes of shared memory it may have."""

    name: str
    xp: object
    processors: int
    find: object
    chunk: int = CHUNK
    shared: int = SHARED

    def product(self, version, rows, columns):
        """The version of a product to run: the one asked for, or for None the one with the larger tiles that still gives
        every multiprocessor a block."""
        tile = PRODUCTS["best"]
        enough = blocks(rows, tile.rows) * blocks(columns, tile.columns) >= self.processors
        return version or ("best" if enough else "small")

    def launch(self, path, name, grid, block, args, shared_mem=0):
        """Run a kernel, by its file under kernels/ and its name or name expression.

        Arguments are arrays, NULL and NumPy scalars: a Python number's width would be a guess.
        """
        kernel = self.find(path, name)
        if shared_mem > SHARED - ROOM:
            kernel.max_dynamic_shared_size_bytes = shared_mem
        kernel(grid, block, args, shared_mem=shared_mem)

    def empty(self, shape, dtype=np.float32):
        """Output memory; on the CPU model it is poisoned, so that an element that nobody writes shows."""
        if self.name == "gpu":
            return self.xp.empty(shape, dtype)
        return self.xp.full(shape, 0x7FFF if np.dtype(dtype) == np.uint16 else np.nan, dtype)

    def aligned(self, *arrays):
        """Whether 16 bytes can be read at once from the start of each."""
        return all((a.data.ptr if self.name == "gpu" else a.ctypes.data) % 16 == 0 for a in arrays)

    def array(self, values, dtype):
        """A contiguous array here of host or device values: the one place where coefficients and indices are sent."""
        return self.xp.ascontiguousarray(self.xp.asarray(values, dtype))

    def to_host(self, x):
        """A NumPy array of an array here; what is on the host already stays."""
        return x.get() if hasattr(x, "get") else x

    def data(self, name, x):
        """x itself if it lives here, contiguous; a sentence if it lives elsewhere. None and NULL stay NULL."""
        if x is None or x is NULL:
            return NULL
        if not isinstance(x, self.xp.ndarray):
            raise TypeError(f"{name} is a {type(x).__module__}.{type(x).__name__}, but this backend works on "
                            f"{self.xp.__name__} arrays: move it explicitly")
        return self.xp.ascontiguousarray(x)


def counter(device, z):
    """Noise as the kernels take it: z or NULL, and the words index, key_lo, key_hi, draw of a (key, index, draw)."""
    key, index, draw = z if isinstance(z, tuple) else (0, np.zeros(1, np.uint32), 0)
    words = device.array(index, np.uint32), np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32), np.uint32(draw)
    return NULL if isinstance(z, tuple) else device.data("z", z), words


@functools.cache
def _sources(module, options, compiler=()):
    """find(path, name) for CUDA C++: one module per template instance, so that only what is used is compiled."""
    @functools.cache
    def find(path, name):
        expressions = {"name_expressions": [name]} if "<" in name else {}
        loaded = module(code=source(path), options=("-std=c++17", *compiler), **expressions, **dict(options))
        return loaded.get_function(name)

    return find


def headers():
    """Where the CUDA toolkit's headers are, as a compiler's options: its packages may keep those of mma.h apart."""
    try:
        from cuda.pathfinder import find_nvidia_header_directory
    except ImportError:
        return ()
    found = [find_nvidia_header_directory(name) for name in ("cudart", "nvcc")]
    return tuple(f"-I{folder}" for folder in dict.fromkeys(found) if folder)


def array_module():
    """CuPy, with a GPU to use. Raises ImportError with one sentence when there is none."""
    try:
        import cupy
    except ImportError:
        raise ImportError("CuPy is not installed: pip install 'refimpl-diffusion-gan[cuda13]' (or cuda12)") from None
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise ImportError(f"CuPy finds no usable GPU ({error}); device 'host' runs these kernels on the CPU") from None
    return cupy


def gpu():
    """The current GPU, through CuPy: its current device and stream at each launch."""
    xp = array_module()
    has = xp.cuda.Device().attributes
    return Device("gpu", xp, has["MultiProcessorCount"], _sources(xp.RawModule, (), headers()),
                  shared=has["MaxSharedMemoryPerBlockOptin"])


def compiled_host(arch=80, **options):
    """The CPU model again, executing the PTX that NVRTC makes of the sources; options are hostcuda.PtxModule's."""
    from .hostcuda import PtxModule
    from .hostcuda.compiled import compile_cuda
    from .hostcuda.module import SHARED_MOST

    @functools.cache
    def find(path, name):
        ptx, lowered = compile_cuda(source(path), [name] if "<" in name else [], arch, "ptx", name=Path(path).name)
        return PtxModule(ptx, **options).get_function(*lowered or [name])

    return Device("host", np, 1, find, shared=SHARED_MOST)


def host(**options):
    """The CPU model; options are hostcuda.RawModule's: checked, order, seed, time_limit."""
    from .hostcuda import RawModule
    from .hostcuda.module import SHARED_MOST

    return Device("host", np, 1, _sources(RawModule, tuple(sorted(options.items()))), shared=SHARED_MOST)
