"""A CUDA C++ source made ready for g++: the few things that the dialect's macros cannot express."""
import re

from .build import HostCudaError

# dialect.h has what of these is supported
OURS = r"cuda_fp16|cuda_bf16|mma|cuda_pipeline\w*|cuda_runtime\w*|stdint|math|stdio|assert|device_launch_parameters"
STANDARD = "cstdint|cmath|cstdio|cassert|cstddef"
BOUNDS = r"(?:__launch_bounds__\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)\s*)?"
KERNEL = re.compile(r"(template\s*<[^;{]*?>\s*)?(?:(?:extern\s+\"C\"|static|inline)\s+)*__global__\s+" + BOUNDS +
                    r"(?:static\s+)?void\s+" + BOUNDS + r"(\w+)\s*\(")
FIRST = re.compile(r"((?:[^,()<]|\([^()]*\)|<[^<>]*>)+)(?:,.*)?", re.DOTALL)
DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:(?:__align__|alignas)\s*\([^)]*\)\s*)?([\w:\s]+?)\s+(\w+)\s*"
                     r"\[\s*\]((?:\s*\[[^\]]*\])*)\s*;")


def prepare(code, name, name_expressions, options=()):
    """C++ with our dialect before it and the kernels' calls after it, the kernels' names in order, their launch bounds."""
    code = bounded(code)
    plain = without_comments(code)
    kernels = {}
    for m in KERNEL.finditer(plain):
        bound = re.match(r"\s*(\d+)\s*(,|$)", m[2] or m[3] or "")
        kernels[m[4]] = (int(bound[1]) if bound else 1024, bool(m[1]))
    names = list(dict.fromkeys([*(k for k, (_, template) in kernels.items() if not template), *(name_expressions or ())]))
    if not names:
        raise HostCudaError(f"{name} defines no __global__ function (a template needs its name in name_expressions)")
    if asm := re.search(r"\basm\s*(volatile\s*)?\(|\b__asm__\b", plain):
        raise HostCudaError(f"{name}:{plain.count(chr(10), 0, asm.start()) + 1}: inline PTX (asm) cannot be executed from "
                            "the source: compile the kernel to PTX and run that with PtxModule")
    code = outer_shared(code, plain)
    code = DYNAMIC.sub(lambda m: f"{m[1]} (* const {m[2]}){m[3]} = ({m[1]} (*){m[3]})hc_dynamic_shared();", code)
    code = re.sub(rf"#include\s*[<\"](?:(?:{OURS})\.h|{STANDARD})[>\"]", "", code)
    exports = "\n".join(f"HC_EXPORT({i}, {n})" for i, n in enumerate(names))
    bounds = [kernels.get(re.match(r"[\w:]*?(\w*)\s*(<|$)", n)[1], (1024,))[0] for n in names]
    defines = "".join(f"#define {o[2:].strip().replace('=', ' ', 1)}\n" for o in options if o.startswith("-D"))
    return f'#include "dialect.h"\n{defines}#line 1 "{name}"\n{code}\n#line 1 "launcher"\n{exports}\n', names, bounds


def bounded(code):
    """Launch bounds that are no plain number, so known only where a template's arguments are: looked at by the kernel."""
    plain = without_comments(code)
    for m in reversed(list(KERNEL.finditer(plain))):
        first, at, depth = FIRST.fullmatch(m[2] or m[3] or ""), m.end(), 1
        while depth and at < len(plain):
            depth += {"(": 1, ")": -1}.get(plain[at], 0)
            at += 1
        if first and not first[1].strip().isdigit() and (body := re.compile(r"\s*\{").match(plain, at)):
            code = f"{code[:body.end()]} hc_launch_bounds({first[1]});{code[body.end():]}"
    return code


def without_comments(code):
    """The code with blanks for comments and for what stands in strings, so that positions and lines stay."""
    blank = lambda m: m[0][0] + re.sub(r"[^\n]", " ", m[0][1:-1]) + m[0][-1] if m[0][0] in "\"'" and m[0] != '"C"' else (
        m[0] if m[0] == '"C"' else re.sub(r"[^\n]", " ", m[0]))
    return re.sub(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+'", blank, code, flags=re.DOTALL)


def outer_shared(code, plain):
    """__shared__ arrays declared outside of every function get a section each: they are no function's local statics."""
    depth, out, last = 0, [], 0
    for m in re.finditer(r"[{}]|(extern\s+)?__shared__", plain):
        depth += {"{": 1, "}": -1}.get(m[0], 0)
        if m[0].endswith("__shared__") and not m[1] and depth == namespaces(plain, m.start()):
            out += [code[last:m.start()], f'__attribute__((section(".bss._ZZouter{m.start()}"))) __shared__']
            last = m.end()
    return "".join(out) + code[last:]


def namespaces(plain, at):
    """How many namespace and linkage blocks are open at a position."""
    opened = []
    for m in re.finditer(r"(namespace(?:\s+[\w:]+)?\s*|extern\s+\"C\"\s*)?([{}])", plain[:at]):
        if m[2] == "{":
            opened.append(bool(m[1]))
        elif opened:
            opened.pop()
    return len(opened) if all(opened) else -1
