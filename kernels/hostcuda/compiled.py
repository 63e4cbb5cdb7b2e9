"""CUDA C++ compiled for real architectures, without a driver: PTX and machine code by NVRTC, and what they need."""
import functools
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from .build import HostCudaError

ARCHITECTURES = (75, 80, 90, 100, 120)
EXTRA = "pip install 'refimpl-diffusion-gan[cuda-check]'"


class Limits(NamedTuple):
    """Of one multiprocessor (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability")."""

    warps: int
    blocks: int
    shared: int       # bytes


LIMITS = {75: Limits(32, 16, 64 << 10), 80: Limits(64, 32, 164 << 10), 90: Limits(64, 32, 228 << 10),
          100: Limits(64, 32, 228 << 10), 120: Limits(48, 24, 100 << 10)}
REGISTERS, REGISTER_UNIT, SHARED_UNIT = 64 << 10, 256, 256  # registers; they are given to warps, shared memory to blocks
RESERVED = 1 << 10  # bytes of shared memory that every block takes beyond what it asks for, from sm_80 on


@functools.cache
def nvrtc():
    """NVRTC's bindings and its headers' folder. Raises HostCudaError that names the extra to install."""
    try:
        from cuda.bindings import nvrtc as library
        from cuda.pathfinder import find_nvidia_header_directory

        library.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        raise HostCudaError(f"NVRTC is not installed ({error}): {EXTRA}") from None
    return library, find_nvidia_header_directory("cudart")


def compile_cuda(code, names=(), arch=80, to="cubin", name="kernel.cu"):
    """PTX text or machine code of a CUDA C++ source, and the compiled names of its name expressions, in order.

    Raises HostCudaError with the compiler's message, or when NVRTC is missing.
    """
    library, headers = nvrtc()

    def call(function, *args):
        status, *result = function(*args)
        if status != library.nvrtcResult.NVRTC_SUCCESS:
            raise HostCudaError(f"NVRTC: {library.nvrtcGetErrorString(status)[1].decode()}")
        return result[0] if len(result) == 1 else result

    def output(size, get, program):
        text = b" " * call(size, program)
        call(get, program, text)
        return text

    program = call(library.nvrtcCreateProgram, code.encode(), name.encode(), 0, [], [])
    for expression in names:
        call(library.nvrtcAddNameExpression, program, expression.encode())
    options = ["--std=c++17", f"-arch={'sm' if to == 'cubin' else 'compute'}_{arch}", "-lineinfo", f"-I{headers}"]
    (status,) = library.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    if status != library.nvrtcResult.NVRTC_SUCCESS:
        log = output(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program).decode().rstrip("\0 \n")
        raise HostCudaError(f"{name} does not compile for sm_{arch}:\n{log}")
    lowered = [call(library.nvrtcGetLoweredName, program, e.encode()).decode() for e in names]
    if to == "ptx":
        return output(library.nvrtcGetPTXSize, library.nvrtcGetPTX, program).decode().rstrip("\0 "), lowered
    return output(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program), lowered


def assemble(ptx, arch):
    """Machine code of a PTX text, Numba's for one. Raises HostCudaError when the assembler is missing or refuses it."""
    try:
        from cuda.core import Program, ProgramOptions

        return Program(ptx, "ptx", ProgramOptions(arch=f"sm_{arch}")).compile("cubin").code
    except ImportError as error:
        raise HostCudaError(f"cuda.core is not installed ({error}): {EXTRA}") from None
    except RuntimeError as error:
        raise HostCudaError(f"the PTX does not assemble for sm_{arch}: {error}") from None


@functools.cache
def cuobjdump():
    """The path of cuobjdump."""
    try:
        from cuda.pathfinder import find_nvidia_binary_utility

        path = find_nvidia_binary_utility("cuobjdump")
    except ImportError:
        path = None
    if path is None:
        raise HostCudaError(f"cuobjdump is not installed: {EXTRA}")
    return path


def _dump(cubin, option):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([cuobjdump(), option, file.name], capture_output=True, text=True)
    if done.returncode:
        raise HostCudaError(f"cuobjdump: {done.stderr.strip()}")
    return done.stdout


class Needs(NamedTuple):
    """What one compiled kernel takes: registers a thread; bytes of stack a thread and of static shared memory a block;
    and its machine code's instructions, counted by kind.
    """

    registers: int
    stack: int
    shared: int
    instructions: dict


def needs(cubin, arch):
    """The Needs of every kernel in machine code, by compiled name."""
    reserved = RESERVED if arch >= 90 else 0  # there a count that is not zero includes what the system keeps for itself
    usage = {m[1]: {k: int(v) for k, v in re.findall(r"(\w+):(\d+)", m[2])} for m in re.finditer(
        r"Function (\S+?):\s+(REG:.*)", _dump(cubin, "--dump-resource-usage"))}
    code, counts, name = _dump(cubin, "-sass"), {}, None
    for line in code.split("\n"):
        if m := re.match(r"\s*Function : (\S+)", line):
            name = m[1]
            counts[name] = Counter()
        elif m := re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\d+\s+)?([A-Z][\w.]*)", line):
            counts[name].update(kinds(m[1]))
    return {n: Needs(u["REG"], u["STACK"], max(0, u["SHARED"] - reserved), dict(counts[n])) for n, u in usage.items()}


def kinds(instruction):
    """What an instruction counts as: accesses by memory and width, arithmetic by type, and everything as "all"."""
    head, *rest = instruction.split(".")
    yield "all"
    if m := re.match(r"(LD|ST)(G|S|L)$|(LDGSTS)$", head):
        width = next((int(r) for r in rest if r in ("64", "128")), 32)
        memory = {"G": "global", "S": "shared", "L": "local"}[m[2]] if m[2] else "async"
        yield f"{memory} {width}"
    if head in ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX", "DMMA") or (head in ("F2F", "I2F", "F2I", "MUFU") and any(
            "64" in r and ("F" in r or "H" in r) for r in rest)):
        yield "float64"
    if head in ("HMMA", "MMA", "QGMMA", "HGMMA", "UTCHMMA"):
        yield "tensor"
    if head in ("FFMA", "FFMA2"):
        yield "fma"


def occupancy(arch, registers, shared, threads):
    """Resident warps over the most there can be, for blocks of `threads` with so much shared memory, static and dynamic."""
    limit, warps = LIMITS[arch], -(-threads // 32)
    by_warp = REGISTER_UNIT * -(-registers * 32 // REGISTER_UNIT)
    in_registers = REGISTERS // by_warp // 4 * 4 // warps  # each quarter of a multiprocessor holds whole warps
    taken = -(-shared // SHARED_UNIT) * SHARED_UNIT + (RESERVED if arch >= 80 else 0)
    in_shared = limit.shared // taken if taken else limit.blocks
    blocks = min(limit.warps // warps, limit.blocks, in_registers, in_shared)
    return blocks * warps / limit.warps


def nvcc(code, names, arch, name="kernel.cu"):
    """Machine code by nvcc, where the toolkit is installed: a second front end. None where it is not."""
    if shutil.which("nvcc") is None:
        return None
    with tempfile.TemporaryDirectory() as work:
        source, out = Path(work) / name, Path(work) / "out.cubin"
        kept = "".join(f"  (const void*)(&{n}),\n" for n in names)
        source.write_text(f"{code}\nextern const void* const kept[];\nconst void* const kept[] = {{\n{kept}}};\n")
        done = subprocess.run(["nvcc", "-std=c++17", f"-arch=sm_{arch}", "-cubin", str(source), "-o", str(out)],
                              capture_output=True, text=True)
        if done.returncode:
            raise HostCudaError(f"{name} does not compile with nvcc for sm_{arch}:\n{done.stderr.strip()}")
        return out.read_bytes()
