"""From prepared C++ to a shared library: g++, a linker script that sets shared arrays apart, and what is in the result."""
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..cache import cache_folder

HERE = Path(__file__).parent
RUNTIME = ("runtime.cpp", "collectives.h", "checker.h", "state.h")
DIALECT = ("dialect.h", "intrinsics.h", "half.h", "launch.h", "ptx.h")
GAP = 1 << 16  # bytes between two shared arrays, so that an access past one is not an access to the next
# No jump threading: it copies barriers, and two threads at two copies of one would look divergent.
COMPILE = ["g++", "-std=c++20", "-fPIC", "-g", "-w", "-fno-gnu-unique", "-fno-math-errno", "-ffp-contract=off", "-fwrapv",
           "-fno-strict-aliasing", "-fno-exceptions", "-fno-rtti", "-fno-thread-jumps", "-U_FORTIFY_SOURCE",
           "-ffunction-sections", "-fdata-sections"]
WATCH = ["-O1", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"]
# A float4 is not split into four numbers, but read and checked at once, as the device reads it. Loops of few and known
# steps are unrolled, for which the checks of their counters must be seen to be idle; no others are, since only so do all
# threads meet at the same copy of a barrier.
AS_DEVICE = ["-fno-tree-sra", "-ftree-vrp", "-fpeel-loops", "--param=max-peel-times=0",
             "--param=max-completely-peeled-insns=1000", "-ftree-slp-vectorize"]
CHECKED = [*WATCH, *AS_DEVICE, "-fno-wrapv",
           "-fsanitize=signed-integer-overflow,integer-divide-by-zero,shift,bounds,alignment"]
CHECKED_PTX = WATCH  # its integers wrap, ptx.h looks at divisors, and its loops have been unrolled
FAST = ["-O3", "-march=native"]


class HostCudaError(RuntimeError):
    """A kernel did what CUDA does not define, or could not be compiled or launched. The message is one sentence."""


@functools.cache
def processor():
    """What -march=native depends on."""
    try:
        return next((line for line in open("/proc/cpuinfo") if line.startswith("flags")), "")
    except OSError:
        return platform.processor()


@functools.cache
def compiler():
    """g++'s version, once it is known that this machine can run the model."""
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise HostCudaError(f"hostcuda runs on Linux on x86-64, this is {platform.system()} on {platform.machine()}")
    for tool in ("g++", "readelf", "c++filt"):
        if shutil.which(tool) is None:
            raise HostCudaError(f"hostcuda compiles kernels with g++ and binutils, and {tool} is not installed "
                                "(Debian, Ubuntu: apt install g++)")
    return run(["g++", "-dumpfullversion"], "g++")


def run(command, what):
    """A tool's output; HostCudaError with its message when it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        text = re.sub(r"\S+/(?=[^/\s]+:\d+:)|In file included from [^\n]*\n( +from [^\n]*\n)*", "", done.stderr.strip())
        # the compiler's first error, with what led to it and what it notes, without the errors that follow from it
        first = re.match(r"(?s).*?\berror: .*?(?=\n\S+:\d+:\d+: error: |\Z)", text)
        text = first[0] if first else text
        what += " has no such kernel, or it" if re.search(r"launcher:\d+:\d+:", text) else ""
        raise HostCudaError(f"{what} does not compile:\n{text}")
    return done.stdout


def build(source, name, flags):
    """Compile to a shared library, cached by a hash of all that goes into it; returns its path and its contents.

    Contents: {"kernels": [[[array, symbol, bytes], ...] of each kernel's static shared memory], "globals": ...}.
    """
    ours = b"".join((HERE / f).read_bytes() for f in (*RUNTIME, *DIALECT, "build.py"))
    ours += compiler().encode() + (processor().encode() if flags is FAST else b"")
    digest = hashlib.sha256(ours + source.encode() + str((name, flags)).encode()).hexdigest()[:24]
    folder = cache_folder("hostcuda")
    library, contents = folder / f"{digest}.so", folder / f"{digest}.json"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            work = Path(work)
            (work / name).write_text(source)
            run([*COMPILE, *flags, "-I", str(HERE), "-x", "c++", "-c", str(work / name), "-o", f"{work}/kernel.o"], name)
            made = link(work, runtime(folder, work, ours), name)
            (work / "contents").write_text(json.dumps(made))
            os.replace(work / "contents", contents)  # first, so that a library is never without
            os.replace(work / "module.so", library)
    return library, json.loads(contents.read_text())


def runtime(folder, work, ours):
    """The runtime's object file, compiled once for each version of it."""
    compiled = folder / (hashlib.sha256(ours).hexdigest()[:24] + ".o")
    if not compiled.exists():
        run([*COMPILE, "-O2", "-mno-red-zone", "-c", str(HERE / "runtime.cpp"), "-o", f"{work}/runtime.o"], "the runtime")
        os.replace(work / "runtime.o", compiled)
    return compiled


def link(work, runtime_object, name):
    """Link kernel.o with the runtime, its shared arrays in a section of their own with gaps between; what is in it."""
    sections, symbols, uses = read_object(work / "kernel.o")
    shared = [s for s in sections if s.startswith(".bss._ZZ")]
    placed = "".join(f". += {GAP}; . = ALIGN(1024); *({s})\n" for s in shared)
    (work / "layout").write_text(
        "SECTIONS { .hostcuda.shared : ALIGN(1024) {\nhc_static_begin = .;\n"
        f"{placed}. += {GAP}; hc_static_end = .; }} }} INSERT AFTER .bss;\n")
    run([*COMPILE, "-shared", "-Wl,-z,defs,-Bsymbolic", f"-Wl,-T,{work}/layout",
         f"{work}/kernel.o", str(runtime_object), "-o", f"{work}/module.so", "-lm", "-ldl", "-lrt"], name)
    sizes = {symbol: size for symbol, section, size in symbols if section in shared and size}
    kernels = []
    while (call := f".text.hc_call_{len(kernels)}") in sections:
        kernels.append([[plain_name(s), s, sizes[s]] for s in sorted(reachable(call, uses, symbols)) if s in sizes])
    constant = ".hostcuda.constant"
    outside = [[plain_name(s), s, size, section == constant] for s, section, size in symbols if size and (
        section == constant or re.match(r"\.(bss|data)\.(?!_ZZ|_ZGV|_ZT|rel)", section))]
    return {"kernels": kernels, "globals": outside}


def read_object(path):
    """Sections, symbols (name, section, bytes), and which symbols or sections each section refers to."""
    text = run(["readelf", "-SsrW", str(path)], "readelf")
    names = {int(n): s for n, s in re.findall(r"^\s*\[\s*(\d+)\] (\S+)\s+(?:PROGBITS|NOBITS)", text, re.MULTILINE)}
    symbols = [(s, names[int(n)], int(size, 0)) for size, n, s in re.findall(
        r"^\s*\d+: [0-9a-f]+\s+(\w+) (?:OBJECT|FUNC)\s+\w+\s+\w+\s+(\d+) (\S+)$", text, re.MULTILINE) if int(n) in names]
    uses = {}
    for part in text.split("Relocation section '")[1:]:
        user = part.partition("'")[0].removeprefix(".rela")
        uses[user] = set(re.findall(r"^[0-9a-f]{8,}\s+[0-9a-f]+ \S+\s+[0-9a-f]+ (\S+)", part, re.MULTILINE))
    return list(names.values()), symbols, uses


def reachable(start, uses, symbols):
    """Symbols of data that a section's code, and what it calls, refers to."""
    at, by_section = {s: section for s, section, _ in symbols}, {}
    for s, section, _ in symbols:
        by_section.setdefault(section, []).append(s)
    found, todo = set(), [start]
    while todo:
        section = todo.pop()
        if section in found:
            continue
        found.add(section)
        todo += [at.get(name, name) for name in uses.get(section, ())]
    return {s for section in found for s in by_section.get(section, ())}


@functools.cache
def plain_name(symbol):
    """A variable's name as its source has it."""
    name = run(["c++filt", symbol], "c++filt").strip().rpartition("::")[2]
    return plain_name(name) if name.startswith("_Z") and name != symbol else name


@functools.cache
def addresses(library):
    """Every symbol's address in a library."""
    text = run(["readelf", "-sW", str(library)], "readelf")
    return {s: int(value, 16) for value, s in re.findall(r"^\s*\d+: ([0-9a-f]+) .* (\S+)$", text, re.MULTILINE)}


def source_line(library, offset):
    """'file:line' of an offset in a library, or None."""
    if offset < 0 or shutil.which("addr2line") is None:
        return None
    out = subprocess.run(["addr2line", "-i", "-e", str(library), hex(offset)], capture_output=True, text=True).stdout
    places = [re.sub(r" \(discriminator \d+\)", "", line) for line in out.split("\n") if line and "?" not in line]
    hidden = "|".join(re.escape(f) for f in (*RUNTIME, *DIALECT, "launcher"))
    ours = [p for p in places if not re.search(rf"(^|/)({hidden}):", p)]
    return (ours or places or ["?"])[0].rsplit("/", 1)[-1]
