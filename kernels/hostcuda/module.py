"""CUDA C++ on the CPU, with CuPy's face: RawModule(code=...).get_function(name)(grid, block, args)."""
import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
GUARD = 1 << 12  # bytes between two arguments' memory, so that an access past one does not land in the next
STATIC_SHARED_LIMIT = DYNAMIC_SHARED_LIMIT = 48 << 10
ORDERS = ("forward", "reverse", "random")
COMPILE = ["g++", "-std=c++20", "-fPIC", "-g", "-w", "-fno-gnu-unique", "-fno-math-errno", "-ffp-contract=off"]
CHECKED = ["-O1", "-fsanitize=thread", "-fsanitize=signed-integer-overflow,integer-divide-by-zero,shift,bounds"]
CHECKED_PTX = ["-O1", "-fsanitize=thread", "-fsanitize=integer-divide-by-zero"]  # PTX integers wrap
FAST = ["-O3", "-march=native"]


class HostCudaError(RuntimeError):
    """A kernel did what CUDA does not define, or could not be compiled or launched. The message is one sentence."""


def cache_folder():
    """Where compiled modules are kept: the user's cache folder, or a temporary one if that can't be written."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refimpl-hostcuda"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.gettempdir()) / f"refimpl-hostcuda-{os.getuid()}"


def compiler(arguments, what):
    """Run g++; its message, with the user's own line numbers, becomes the error's."""
    if shutil.which("g++") is None:
        raise HostCudaError("hostcuda compiles kernels with g++, which is not installed (Debian: apt install g++)")
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise HostCudaError(f"{what} does not compile:\n{done.stderr.strip()}")


def build(source, name, flags):
    """Compile prepared source to a shared library, cached by a hash of all that goes into it; returns its path."""
    ours = b"".join((HERE / f).read_bytes() for f in ("dialect.h", "half.h", "ptx.h", "runtime.cpp", "module.py"))
    digest = hashlib.sha256(ours + source.encode() + str(flags).encode()).hexdigest()[:24]
    folder = cache_folder()
    library = folder / f"{digest}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        work = Path(work)
        (work / name).write_text(source)
        compiler([*COMPILE, *flags, "-I", str(HERE), "-x", "c++", "-c", str(work / name), "-o", str(work / "kernel.o")],
                 name)
        runtime = folder / (hashlib.sha256(ours).hexdigest()[:24] + ".o")
        if not runtime.exists():
            compiler([*COMPILE, "-O2", "-c", str(HERE / "runtime.cpp"), "-o", str(work / "runtime.o")], "the runtime")
            os.replace(work / "runtime.o", runtime)
        for end in ("begin", "end"):  # static shared arrays lie between these two in .bss, by the order of linking
            (work / f"{end}.cpp").write_text(f'extern "C" {{ char hc_static_{end}[64]; }}\n')
            compiler([*COMPILE, "-c", str(work / f"{end}.cpp"), "-o", str(work / f"{end}.o")], "the runtime")
        parts = [str(work / "begin.o"), str(work / "kernel.o"), str(work / "end.o"), str(runtime)]
        compiler([*COMPILE, "-shared", "-Wl,-z,defs,-Bsymbolic", *parts, "-o", str(work / "module.so"), "-lm", "-ldl"],
                 name)
        os.replace(work / "module.so", library)
    return library


def prepare(code, name, name_expressions):
    """The user's source with our dialect before it and the kernels' calls after it, and the kernels' names in order."""
    plain = re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), code, flags=re.DOTALL)
    kernels = [m[2] for m in re.finditer(
        r"(template\s*<[^;{]*?>\s*)?(?:extern\s+\"C\"\s+)?__global__\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?void\s+"
        r"(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(", plain) if not m[1]]
    names = [*kernels, *(name_expressions or ())]
    if not names:
        raise HostCudaError(f"{name} defines no __global__ function (a template needs its name in name_expressions)")
    body = re.sub(r"extern\s+__shared__\s+(?:(?:__align__|alignas)\s*\([^)]*\)\s*)?([\w:\s]+?)\s+(\w+)\s*\[\s*\]\s*;",
                  r"\1* const \2 = (\1*)hc_dynamic_shared();", code)
    ours = "cuda_fp16|cuda_bf16|mma|cuda_pipeline\\w*|cuda_runtime"  # dialect.h has what of these is supported
    body = re.sub(rf"#include\s*[<\"](?:{ours})\.h[>\"]", "", body)
    exports = "\n".join(f"HC_EXPORT({i}, {n})" for i, n in enumerate(names))
    return f'#line 1 "{name}"\n{body}\n#line 1 "launcher"\n{exports}\n', names


class Module:
    """A compiled module: its kernels by name, and how they are launched.

    checked: find races, out-of-bounds and uninitialised accesses before they happen (else run fast, unchecked).
    order: in which threads and blocks run: forward, reverse or random (by seed). time_limit: seconds per launch.
    """

    def __init__(self, source, name, names, flags, *, checked=True, order="forward", seed=0, time_limit=20.0):
        if order not in ORDERS:
            raise ValueError(f"hostcuda: order must be one of {', '.join(ORDERS)}, got {order!r}")
        self.names, self.checked, self.order, self.seed, self.time_limit = names, checked, order, seed, time_limit
        self.path = build('#include "dialect.h"\n' + source, name, flags if checked else FAST)
        self.library = ctypes.CDLL(str(self.path))
        self.library.hc_error.restype = ctypes.c_char_p
        self.library.hc_static_bytes.restype = self.library.hc_traced.restype = ctypes.c_long

    def get_function(self, name):
        """The kernel of that name (or name expression)."""
        if name not in self.names:
            raise HostCudaError(f"no kernel {name!r} in this module; it has {', '.join(self.names)}")
        return Function(self, name, self.names.index(name))

    def source_line(self, offset):
        """'file:line' of an offset in the library, by addr2line."""
        if offset < 0 or shutil.which("addr2line") is None:
            return None
        command = ["addr2line", "-i", "-e", str(self.path), hex(offset)]
        out = subprocess.run(command, capture_output=True, text=True).stdout
        places = [re.sub(r" \(discriminator \d+\)", "", line) for line in out.split("\n") if line and "?" not in line]
        ours = [p for p in places if not re.search(r"/(dialect|half|ptx)\.h:|runtime\.cpp:|launcher:", p)]
        return (ours or places or ["?"])[0].rsplit("/", 1)[-1]


class RawModule(Module):
    """A CUDA C++ source. Arguments are CuPy's; checked, order, seed, time_limit are Module's."""

    def __init__(self, code=None, *, path=None, options=(), name_expressions=None, **how):
        if (code is None) == (path is None):
            raise TypeError("RawModule: give either code or path")
        name = Path(path).name if path else "kernel.cu"
        code = Path(path).read_text() if path else code
        defines = "".join(f"#define {o[2:].replace('=', ' ', 1)}\n" for o in options if o.startswith("-D"))
        source, names = prepare(code, name, name_expressions)
        super().__init__(defines + source, name, names, CHECKED, **how)


class Function:
    """One kernel: call it as CuPy's, function(grid, block, args, shared_mem=0)."""

    def __init__(self, module, name, number):
        self.module, self.name = module, name
        self.call = module.library[f"hc_call_{number}"]
        text = ctypes.create_string_buffer(4096)
        module.library[f"hc_sig_{number}"](text)
        self.parameters = text.value.decode().split()
        self.max_dynamic_shared_size_bytes = DYNAMIC_SHARED_LIMIT

    def __call__(self, grid, block, args, shared_mem=0):
        grid, block = (tuple(int(v) for v in d) + (1,) * (3 - len(d)) for d in (grid, block))
        self.check_launch(grid, block, args, shared_mem)
        arena = Arena()
        values = [self.pack(i, code, a, arena) for i, (code, a) in enumerate(zip(self.parameters, args), 1)]
        rows = arena.load()
        pointers = [arena.pointer(*v) if isinstance(v, tuple) else v for v in values]
        buffers = [np.frombuffer(v.tobytes(), np.uint8).copy() for v in pointers]
        packed = (ctypes.c_void_p * max(len(buffers), 1))(*(b.ctypes.data for b in buffers))
        u3 = ctypes.c_uint * 3
        m = self.module
        failed = m.library.hc_launch(
            self.call, packed, u3(*grid), u3(*block), shared_mem, len(rows), (ctypes.c_long * max(4 * len(rows), 1))(
                *(int(v) for row in rows for v in row)), int(m.checked), ORDERS.index(m.order), m.seed,
            ctypes.c_double(m.time_limit))
        if failed:
            raise HostCudaError(self.explain(grid, block))
        arena.store()

    def check_launch(self, grid, block, args, shared_mem):
        """What the driver refuses: sizes outside the limits, and the wrong number of arguments."""
        if len(args) != len(self.parameters):
            raise HostCudaError(f"{self.name}: {len(self.parameters)} arguments expected, got {len(args)}")
        if min(grid + block) < 1 or max(grid[1:]) > 65535 or grid[0] >= 2**31:
            raise HostCudaError(f"{self.name}: grid {grid} and block {block} must be positive and within CUDA's limits")
        if np.prod(block) > 1024 or block[2] > 64:
            raise HostCudaError(f"{self.name}: a block has at most 1024 threads (64 in z), got {block}")
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise HostCudaError(f"{self.name}: {shared_mem} bytes of dynamic shared memory exceed the limit of "
                                f"{self.max_dynamic_shared_size_bytes} (raise max_dynamic_shared_size_bytes)")
        static = self.module.library.hc_static_bytes()
        if static > STATIC_SHARED_LIMIT:
            raise HostCudaError(f"{self.name}: {static} bytes of static shared memory exceed the limit of "
                                f"{STATIC_SHARED_LIMIT}")

    def pack(self, i, code, value, arena):
        """A scalar as bytes, or an array's place in the arena, after checking it against the parameter."""
        pointer, const, kind, size = code[0] == "*", code[1:2] == "c", code.lstrip("*c")[0], int(code.lstrip("*c")[1:])
        if kind == "?":  # PTX says how many bytes, and no more
            if isinstance(value, np.ndarray) and value.ndim and size == 8:
                return arena.add(value, not value.flags.writeable, i)
            kind = "V"
        want = {"B": "bfloat16", "V": "void"}.get(kind) or np.dtype(f"{kind}{size}").name
        got = getattr(value, "dtype", None)
        if pointer:
            if isinstance(value, np.uint64) and not value:
                return value  # the null pointer, as CuPy takes it
            if not isinstance(value, np.ndarray):
                raise HostCudaError(f"{self.name}: argument {i} must be an array of {want}, got {type(value).__name__}")
            # NumPy has no bfloat16 of its own: ml_dtypes' is taken, and uint16 that holds its bits
            if kind != "V" and got.name != want and not (kind == "B" and got == np.uint16):
                raise HostCudaError(f"{self.name}: argument {i} must be an array of {want}, got {got}")
            if not const and not value.flags.writeable:
                raise HostCudaError(f"{self.name}: argument {i} is read-only, but the kernel's parameter is not const")
            return arena.add(value, const, i)
        if isinstance(value, np.ndarray) and value.ndim:
            raise HostCudaError(f"{self.name}: argument {i} must be a scalar {want}, got an array")
        scalar = np.asarray(value)
        if kind == "V":
            if scalar.dtype.itemsize != size:
                raise HostCudaError(f"{self.name}: argument {i} is a struct of {size} bytes, got {scalar.itemsize}")
        elif scalar.dtype.name != want:
            plain = " (CuPy passes a plain Python number as 8 bytes)" if got is None else ""
            raise HostCudaError(f"{self.name}: argument {i} must be np.{want}, got {scalar.dtype}{plain}")
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
        here, there = m.source_line(where[0]), m.source_line(where[1])
        other = f" (the other: {there})" if there else ""
        return f"{self.name} at {here or '?'}, thread {thread}, block {blk}: {text}{other}"


class Arena:
    """Copies of the argument arrays with guards between them; overlapping arrays share one copy, as on a device."""

    def __init__(self):
        self.spans = []  # [low, high, const, argument, place]
        self.arrays = []

    def add(self, array, const, i):
        low, high = np.lib.array_utils.byte_bounds(array)
        self.spans.append([low, max(high, low), const, i])
        self.arrays.append(array)  # keeps it alive
        return low, i

    def load(self):
        """Merge overlapping spans, copy them in, and return rows (low, high, constant, argument) of their places."""
        merged = []
        for low, high, const, i in sorted(self.spans):
            if merged and low < merged[-1][1]:
                merged[-1] = [merged[-1][0], max(high, merged[-1][1]), merged[-1][2] and const, merged[-1][3]]
            else:
                merged.append([low, high, const, i])
        sizes = [(high - low + 2 * GUARD + 511) // 256 * 256 for low, high, *_ in merged]
        self.memory = np.zeros(sum(sizes) + 2 * GUARD, np.uint8)
        place = -(-self.memory.ctypes.data // 256) * 256 + GUARD
        self.merged = []
        for (low, high, const, i), size in zip(merged, sizes):
            at = place + low % 256  # the alignment that the caller's array has
            ctypes.memmove(at, low, high - low)
            self.merged.append((low, high, const, i, at))
            place += size
        return [(at, at + high - low, const, i) for low, high, const, i, at in self.merged]

    def pointer(self, low, i):
        """Where the array that starts at `low` is now: in the last span that starts at or before it."""
        start, _, _, _, at = max(span for span in self.merged if span[0] <= low)
        return np.uint64(at + low - start)

    def store(self):
        """Copy what the kernel may have written back to the caller's arrays."""
        for low, high, const, _, at in self.merged:
            if not const:
                ctypes.memmove(low, at, high - low)
