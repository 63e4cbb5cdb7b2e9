"""Compiled PTX, executed: NVRTC's for a .cu file or Numba's for a Python kernel, translated to C++ for the CPU model.

Every register becomes a variable of its width, every instruction a statement, every `.loc` a `#line`, so that the
checker, which hears of memory accesses from g++, names the original source. An instruction that is not known here raises
HostCudaError; none is skipped.
"""
import re

from .build import CHECKED_PTX, HostCudaError, run
from .module import Module
from .ptx_arithmetic import ARITHMETIC
from .ptx_instructions import CTYPES, Translator
from .ptx_memory import MEMORY

SPACE = r"(?:\.(?:visible|extern|common|weak)\s+)*\.(shared|global|const|local)\s+"
VARIABLE = re.compile(SPACE + r"(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)\s*(?:\[(\d*)\])?\s*(?:=\s*\{?([^}]*)\}?)?$")
REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.*)$")
PARAMETER = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+(?:\.ptr\s+(?:\.\w+\s+)*?(?:\.align\s+\d+\s+)?)?"
                       r"([\w$]+)(?:\[(\d+)\])?\s*(?:,|$)")
WIDTHS = {"pred": "bool", "8": "unsigned char", "16": "unsigned short", "32": "unsigned", "64": "unsigned long"}


class PtxModule(Module):
    """PTX text. traced: note every access to memory for traffic.py. checked, order, seed, time_limit are Module's."""

    def __init__(self, ptx, traced=False, **how):
        if isinstance(ptx, bytes):
            ptx = ptx.decode()
        source, names, bounds, self.sites = translate(ptx.rstrip("\0 \n"), traced)
        super().__init__('#include "dialect.h"\n' + source, "kernel.ptx.cpp", names, bounds, CHECKED_PTX, **how)

    def get_function(self, name):
        """The kernel of that name, or the one that C++ calls so: "scale<float, 4>" finds _Z5scaleIfLi4EEvPf."""
        if name not in self.names:
            for mangled in self.names:
                full = run(["c++filt", mangled], "c++filt").strip()
                if re.sub(r"^void |\(.*| ", "", full) == name.replace(" ", ""):
                    name = mangled
        return super().get_function(name)


def translate(ptx, traced=False):
    """C++ source, the kernels' names and most threads a block, and the place of each access to memory by its number."""
    ptx = re.sub(r'("(?:\\.|[^"\\])*")|/\*.*?\*/|//[^\n]*', lambda m: m[1] or "", ptx, flags=re.DOTALL)
    files = {int(n): f for n, f in re.findall(r'\.file\s+(\d+)\s+"([^"]*)"', ptx)}
    entries = []
    while m := re.search(r"(?:\.visible\s+|\.weak\s+)*\.entry\s+([\w$]+)\s*\(([^)]*)\)([^{};]*)\{", ptx):
        end = _closing(ptx, m.end())
        entries.append((m[1], m[2], m[3], ptx[m.end():end - 1]))
        ptx = ptx[:m.start()] + ptx[end:]  # what is left is declared outside of the kernels
    if not entries:
        raise HostCudaError("this PTX has no .entry")
    if m := re.search(r"\.func\s[^;{]*?([\w$]+)\s*\([^;{]*\{", ptx):
        raise HostCudaError(f"this PTX has a device function that is not inlined ({m[1]}), which hostcuda does not execute")
    outer, code, sites = {}, ['#include "ptx.h"'], []
    for line in _statements(re.sub(r"\.section\s+\S+\s*\{[^}]*\}", "", ptx)):
        code += _variable(line, outer)
    bounds = []
    for number, (name, parameters, limits, body) in enumerate(entries):
        declared = PARAMETER.findall(parameters.strip())
        signature = "".join(f"?{int(n) if n else int(kind[1:]) // 8} " for kind, _, n in declared)
        code += _kernel(number, name, [n for _, n, _ in declared], body, dict(outer), files, sites if traced else None)
        code.append(f'extern "C" void hc_call_{number}(void** a) {{ kernel_{number}((unsigned char**)a); }}\n'
                    f'extern "C" void hc_sig_{number}(char* s) {{ memcpy(s, "{signature}", {len(signature) + 1}); }}')
        most = re.search(r"\.(?:max|req)ntid\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?", limits)
        bounds.append(int(most[1]) * int(most[2] or 1) * int(most[3] or 1) if most else 1024)
    return "\n".join(code) + "\n", [e[0] for e in entries], bounds, sites


def _closing(text, start):
    depth = 1
    for m in re.finditer(r'"[^"]*"|[{}]', text[start:]):
        depth += {"{": 1, "}": -1}.get(m[0], 0)
        if not depth:
            return start + m.end()
    raise HostCudaError("this PTX is cut off: a brace is not closed")


def _statements(body):
    """Statements without their semicolon, labels with their colon, braces, and directives that end with the line."""
    piece = re.compile(r"\s*(?:(\.(?:loc|file|version|target|address_size)\b[^\n]*)|([{}])|([$\w]+:)(?!:)|([^;]*);)")
    at = 0
    while m := piece.match(body, at):
        at = m.end()
        if text := " ".join((m[1] or m[2] or m[3] or m[4]).split()):
            yield text
    if rest := body[at:].strip():
        raise HostCudaError(f"PTX is not understood at {rest[:40]!r}")


def _variable(line, symbols):
    """C++ for a variable in a state space, entered in symbols as (space, C++ name); nothing for other directives."""
    m = VARIABLE.match(line)
    if not m:
        return []
    space, align, kind, name, count, values = m.groups()
    cname = name.replace("$", "_")
    if space == "shared" and (line.startswith(".extern") or count == ""):
        symbols[name] = "dynamic", cname
        return []
    if kind not in CTYPES or (values and re.search(r"[A-Za-z_$]{2,}", re.sub(r"0[xXfFdD]\w+", "", values))):
        raise HostCudaError(f"PTX variable {line!r} is not supported")
    symbols[name] = space, cname
    # shared memory goes where build.link looks for it, constants where nobody may write
    section = {"shared": f".bss._ZZ{cname}", "const": ".hostcuda.constant"}.get(space)
    where = f'__attribute__((section("{section}"))) ' if section else ""
    static = "static " if space == "shared" else ""
    values = re.sub(r"0[fF](\w{8})", r"__builtin_bit_cast(float, 0x\1u)", values or "")
    return [f"{static}{where}__attribute__((aligned({align or 8}))) {CTYPES[kind]} {cname}[{count or 1}]"
            f"{f' = {{{values}}}' if values else ''};"]


def _kernel(number, name, parameters, body, symbols, files, sites):
    """C++ function of one kernel. Inner scopes may declare registers again: each declaration has names of its own."""
    if m := re.search(r"\bcall(?:\.uni)?\s+(?:\([^)]*\)\s*,\s*)?([%\w$]+)", body):
        raise HostCudaError(f"{name} calls {m[1]}, and hostcuda executes no calls in PTX")
    b = Translator(name, ARITHMETIC | MEMORY, symbols, {p: i for i, p in enumerate(parameters)}, sites)
    top, lines = [], [[]]  # what follows a #line stands on one line, the source's
    for line in _statements(body):
        if line == "{":
            b.scopes.append({})
        elif line == "}":
            b.scopes.pop()
        elif m := REGISTERS.match(line):
            kind = "pred" if m[1] == "pred" else re.sub(r"\D", "", m[1])
            if kind not in WIDTHS:
                raise HostCudaError(f"PTX register type .{m[1]} is not supported")
            for part in m[2].split(","):
                one, _, many = part.strip().rstrip(">").partition("<")
                names = [f"{one}{i}" for i in range(int(many))] if many else [one]
                top.append(f"  {WIDTHS[kind]} " + ", ".join(f"{b.declare(n, kind)} = 0" for n in names) + ";")
        elif line.startswith(".loc "):
            _, f, row, *_ = line.replace(",", " ").split()
            if int(row) and int(f) in files:
                b.place = f"{files[int(f)].rsplit('/', 1)[-1]}:{row}"
                lines += [[f'\n#line {row} "{files[int(f)]}"\n'], []]
        elif line.endswith(":"):
            lines[-1].append(f"{line[:-1].replace('$', '_')}:;")
        elif line.startswith("."):
            made = _variable(line, symbols)
            if not made and not line.startswith(".pragma") and not VARIABLE.match(line):
                raise HostCudaError(f"PTX directive {line.split()[0]} is not supported")
            # shared memory stays when the function ends; local memory is the fibre's
            top += ["  " + d for d in made]
        else:
            lines[-1].append(b.instruction(line))
    return [f"static void kernel_{number}(unsigned char** params) {{", "  bool carry = false;", *top, "".join(" ".join(run) for run in lines), "}"]
