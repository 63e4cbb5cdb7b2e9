"""CUDA C++ on the CPU, with CuPy's face: RawModule(code=...).get_function(name)(grid, block, args)."""
import ctypes
import functools
import itertools
import math
import threading
from pathlib import Path

import numpy as np

from .arena import Arena
from .build import CHECKED, FAST, HostCudaError, addresses, build, source_line
from .source import prepare

SHARED_LIMIT = 48 << 10       # bytes of shared memory a block has without asking for more
SHARED_MOST = 227 << 10       # and on asking, on the largest device
ORDERS = ("forward", "reverse", "random")
LAUNCH = threading.Lock()     # the model runs one launch at a time


@functools.cache
def name_of(dtype):
    """A dtype's name, which NumPy forms anew each time: a launch asks once an argument."""
    return dtype.name


@functools.cache
def wanted(code):
    """Of a parameter as launch.h writes it: whether a pointer, whether to const, its kind, bytes and dtype's name."""
    kind, size = code.lstrip("*c")[0], int(code.lstrip("*c")[1:])
    kind = "V" if kind == "?" else kind
    return code[0] == "*", code[1:2] == "c", kind, size, {"B": "bfloat16", "V": "void"}.get(kind) or np.dtype(f"{kind}{size}").name


class Module:
    """A compiled module: its kernels by name, and how they are launched.

    checked: find races, out-of-bounds and uninitialised accesses before they happen (else run fast, unchecked).
    order: in which threads and blocks run: forward, reverse or random (by seed). time_limit: processor seconds a launch.
    """

    def __init__(self, source, name, names, bounds, flags, *, checked=True, order="forward", seed=0, time_limit=20.0):
        if order not in ORDERS:
            raise ValueError(f"hostcuda: order must be one of {', '.join(ORDERS)}, got {order!r}")
        if not time_limit > 0:
            raise ValueError(f"hostcuda: time_limit must be a positive number of seconds, got {time_limit!r}")
        self.names, self.bounds = names, bounds
        self.checked, self.order, self.seed, self.time_limit = checked, order, seed, time_limit
        self.path, self.contents = build(source, name, flags if checked else FAST)
        self.library = ctypes.CDLL(str(self.path))
        self.library.hc_error.restype = ctypes.c_char_p
        self.library.hc_traced.restype = ctypes.c_long
        self.base = ctypes.cast(self.library.hc_error, ctypes.c_void_p).value - addresses(self.path)["hc_error"]

    def get_function(self, name):
        """The kernel of that name (or name expression)."""
        if name not in self.names:
            raise HostCudaError(f"no kernel {name!r} in this module; it has {', '.join(self.names)}")
        return Function(self, name, self.names.index(name))

    def get_global(self, name):
        """A __device__ or __constant__ variable's memory as an array of bytes: view it as its type, and assign."""
        for plain, symbol, size, _ in self.contents["globals"]:
            if plain == name:
                return np.frombuffer((ctypes.c_uint8 * size).from_address(self.address(symbol)), np.uint8)
        raise HostCudaError(f"no variable {name!r} in this module")

    def address(self, symbol):
        return self.base + addresses(self.path)[symbol]


class RawModule(Module):
    """A CUDA C++ source. Arguments are CuPy's; checked, order, seed, time_limit are Module's."""

    def __init__(self, code=None, *, path=None, options=(), name_expressions=None, **how):
        if (code is None) == (path is None):
            raise TypeError("RawModule: give either code or path")
        name = Path(path).name if path else "kernel.cu"
        code = Path(path).read_text() if path else code
        source, names, bounds = prepare(code, name, name_expressions, options)
        super().__init__(source, name, names, bounds, CHECKED, **how)


def raw_kernel(code, name, options=(), **how):
    """One kernel of a source, as CuPy's RawKernel(code, name, options)."""
    return RawModule(code=code, options=options, **how).get_function(name)


class Function:
    """One kernel: call it as CuPy's, function(grid, block, args, shared_mem=0)."""

    def __init__(self, module, name, number):
        self.module, self.name = module, name
        self.call = module.library[f"hc_call_{number}"]
        text = ctypes.create_string_buffer(1 << 16)
        module.library[f"hc_sig_{number}"](text)
        self.parameters = text.value.decode().split()
        self.shared = module.contents["kernels"][number]  # [array, symbol, bytes] of static shared memory
        self.shared_size_bytes = sum(size for *_, size in self.shared)
        self.max_threads_per_block = module.bounds[number]
        self.max_dynamic_shared_size_bytes = max(0, SHARED_LIMIT - self.shared_size_bytes)

    def __call__(self, grid, block, args, shared_mem=0):
        grid, block = (self.dimensions(*d) for d in (("grid", grid), ("block", block)))
        self.check_launch(grid, block, args, shared_mem)
        arena = Arena()
        values = [self.pack(i, code, a, arena) for i, (code, a) in enumerate(zip(self.parameters, args), 1)]
        rows = arena.load() + self.variables
        data = [(arena.pointer(v) if isinstance(v, int) else v).tobytes() for v in values]
        data = [d + bytes(-len(d) % 16) for d in data]  # so that each is aligned for any type
        room = np.frombuffer(b"".join([*data, bytes(16)]), np.uint8).copy()
        packed = (ctypes.c_void_p * (len(data) + 1))(*itertools.accumulate(map(len, data), initial=room.ctypes.data))
        numbers = (ctypes.c_long * (5 * len(rows) or 1))(*(int(v) for row in rows for v in (
            row[0], row[1], row[2], row[5] if len(row) > 5 else 0, row[3])))
        names = (ctypes.c_char_p * (len(rows) or 1))(*(row[4].encode() for row in rows))
        u3 = ctypes.c_uint * 3
        m = self.module
        with LAUNCH:
            failed = m.library.hc_launch(
                self.call, packed, u3(*grid), u3(*block), shared_mem, len(rows), numbers, names, int(m.checked),
                ORDERS.index(m.order), m.seed, ctypes.c_double(m.time_limit))
            message = self.explain(grid, block) if failed else None
        if failed:
            raise HostCudaError(message)
        arena.store()

    @functools.cached_property
    def variables(self):
        """Rows (low, high, constant, grain, name, shared) of what the module itself has in memory."""
        rows = [(symbol, size, False, f"shared array {name}", True) for name, symbol, size in self.shared]
        rows += [(symbol, size, constant, f"{'__constant__' if constant else '__device__'} variable {name}", False)
                 for name, symbol, size, constant in self.module.contents["globals"]]
        return [(low := self.module.address(symbol), low + size, constant, 4, name, shared)
                for symbol, size, constant, name, shared in rows]

    def dimensions(self, what, sizes):
        """Three whole numbers from a tuple of at most three."""
        if not isinstance(sizes, (tuple, list)) or not 1 <= len(sizes) <= 3:
            raise HostCudaError(f"{self.name}: {what} must be a tuple of one to three whole numbers, got {sizes!r}")
        if any(int(v) != v for v in sizes):
            raise HostCudaError(f"{self.name}: {what} must be whole numbers, got {sizes!r}")
        return tuple(int(v) for v in sizes) + (1,) * (3 - len(sizes))

    def check_launch(self, grid, block, args, shared_mem):
        """What the driver refuses: sizes outside the limits, and the wrong number of arguments."""
        if len(args) != len(self.parameters):
            raise HostCudaError(f"{self.name}: {len(self.parameters)} arguments expected, got {len(args)}")
        if min(grid + block) < 1 or max(grid[1:]) > 65535 or grid[0] >= 2**31:
            raise HostCudaError(f"{self.name}: grid {grid} and block {block} must be positive and within CUDA's limits")
        if math.prod(block) > 1024 or block[2] > 64:
            raise HostCudaError(f"{self.name}: a block has at most 1024 threads (64 in z), got {block}")
        if math.prod(block) > self.max_threads_per_block:
            raise HostCudaError(f"{self.name}: compiled for blocks of at most {self.max_threads_per_block} threads "
                                f"(__launch_bounds__), got {block}")
        if self.shared_size_bytes > SHARED_LIMIT:
            raise HostCudaError(f"{self.name}: {self.shared_size_bytes} bytes of static shared memory exceed the limit "
                                f"of {SHARED_LIMIT}")
        limit = min(self.max_dynamic_shared_size_bytes, SHARED_MOST - self.shared_size_bytes)
        if not 0 <= shared_mem <= limit:
            beside = f" beside {self.shared_size_bytes} of static" if self.shared_size_bytes else ""
            raise HostCudaError(f"{self.name}: {shared_mem} bytes of dynamic shared memory{beside} exceed the limit of "
                                f"{limit} (raise max_dynamic_shared_size_bytes, to at most {SHARED_MOST})")

    def pack(self, i, code, value, arena):
        """A scalar's bytes, or an array's address, after checking it against the parameter."""
        fail = lambda text: HostCudaError(f"{self.name}: argument {i} {text}")
        pointer, const, kind, size, want = wanted(code)
        is_array, place = isinstance(value, np.ndarray), f"argument {i}"
        if hasattr(value, "__cuda_array_interface__"):
            raise fail(f"is a device array ({type(value).__module__}): this is a kernel on the CPU, which takes NumPy "
                       "arrays (cupy.asnumpy)")
        if code[0] == "?" and is_array and value.ndim and size == 8:  # PTX says how many bytes, and no more
            return arena.add(value, not value.flags.writeable, place)
        got = getattr(value, "dtype", None)
        if pointer:
            if "*" in code[1:]:
                raise fail("is a pointer to pointers, which hostcuda does not take")
            if isinstance(value, np.uint64) and not value:
                return value  # the null pointer, as CuPy takes it
            if not is_array:
                raise fail(f"must be an array of {want}, got {type(value).__name__}")
            # NumPy has no bfloat16 of its own: ml_dtypes' is taken, and uint16 that holds its bits
            if kind != "V" and name_of(got) != want and not (kind == "B" and got == np.uint16):
                raise fail(f"must be an array of {want}, got {got}")
            if not const and not value.flags.writeable:
                raise fail("is read-only, but the kernel's parameter is not const")
            return arena.add(value, const, place)
        if is_array:
            raise fail(f"must be a scalar {want}, got an array")
        scalar = np.asarray(value)
        if kind == "V":
            if scalar.dtype.itemsize != size:
                raise fail(f"must be a value of {size} bytes, got {scalar.dtype} of {scalar.itemsize}")
        elif name_of(scalar.dtype) != want:
            plain = " (CuPy passes a plain Python number as 8 bytes)" if got is None else ""
            raise fail(f"must be np.{want}, got {scalar.dtype}{plain}")
        return scalar

    def explain(self, grid, block):
        """The runtime's finding as one sentence with kernel, place, thread and block."""
        m = self.module
        where = (ctypes.c_long * 4)()
        m.library.hc_where(where)
        text = m.library.hc_error().decode()
        if text == "time limit":
            return f"{self.name}: the launch did not end within its time limit of {m.time_limit} s"
        t, b = where[2], where[3]
        thread = (t % block[0], t // block[0] % block[1], t // (block[0] * block[1]))
        blk = (b % grid[0], b // grid[0] % grid[1], b // (grid[0] * grid[1]))
        here, there = source_line(m.path, where[0]), source_line(m.path, where[1])
        at = f" at {here}" if here else ""
        other = f" (the other: {there})" if there else ""
        return f"{self.name}{at}, thread {thread}, block {blk}: {text}{other}"
