"""Compiled PTX, executed: NVRTC's for a .cu file or Numba's for a Python kernel, translated to C++ for the CPU model.

Every register becomes a variable of its width, every instruction a statement, every `.loc` a `#line`, so that the
checker, which hears of memory accesses from g++, names the original source. An instruction that is not known here raises
HostCudaError; none is skipped.
"""
import re

from .module import CHECKED_PTX, HostCudaError, Module

CTYPES = {"s8": "signed char", "u8": "unsigned char", "b8": "unsigned char", "s16": "short", "u16": "unsigned short",
          "b16": "unsigned short", "s32": "int", "u32": "unsigned", "b32": "unsigned", "s64": "long", "u64": "unsigned long",
          "b64": "unsigned long", "f16": "float16", "f32": "float", "f64": "double", "pred": "bool"}
SPACES = ("global", "shared", "local", "const", "param")
COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
SPECIAL = {f"%{p}.{a}": f"{v}.{a}" for p, v in (("tid", "threadIdx"), ("ctaid", "blockIdx"), ("ntid", "blockDim"),
                                                ("nctaid", "gridDim")) for a in "xyz"}
SPECIAL |= {"%laneid": "hc_lane()", "WARP_SZ": "32"}
UNARY = {"neg": "-{0}", "not": "~{0}", "popc": "__builtin_popcountl({0})", "clz": "count_leading({0})",
         "brev": "reversed({0})", "cnot": "!{0}"}
FLOAT_UNARY = {"sqrt": "sqrtf({0})", "rcp": "1 / {0}", "rsqrt": "1 / sqrtf({0})", "ex2": "exp2f({0})", "lg2": "log2f({0})",
               "sin": "sinf({0})", "cos": "cosf({0})", "tanh": "tanhf({0})", "abs": "__builtin_fabs({0})"}
BINARY = {"add": "{0} + {1}", "sub": "{0} - {1}", "div": "{0} / {1}", "rem": "{0} % {1}", "and": "{0} & {1}",
          "or": "{0} | {1}", "xor": "{0} ^ {1}", "min": "low({0}, {1})", "max": "high({0}, {1})"}
ATOMICS = {"add": "Add", "min": "Min", "max": "Max", "exch": "Exch", "and": "And", "or": "Or", "xor": "Xor", "cas": "CAS"}


class PtxModule(Module):
    """PTX text, or its path's contents. traced: count what every access to memory costs, see traffic.py."""

    def __init__(self, ptx, traced=False, **how):
        source, names = translate(ptx, traced)
        super().__init__(source, "kernel.ptx.cpp", names, CHECKED_PTX, **how)


def translate(ptx, trace=False):
    """C++ source, the kernels' names and their signatures. trace: call hc_trace before each access to memory."""
    ptx = re.sub(r"/\*.*?\*/|//[^\n]*", "", ptx, flags=re.DOTALL)
    files = {int(n): f for n, f in re.findall(r'\.file\s+(\d+)\s+"([^"]*)"', ptx)}
    bodies = list(re.finditer(r"\.entry\s+([\w$]+)\s*\((.*?)\)([^{};]*)\{", ptx, flags=re.DOTALL))
    if not bodies:
        raise HostCudaError("this PTX has no .entry")
    if re.search(r"\.func\s", ptx):
        raise HostCudaError("this PTX has device functions that are not inlined (.func), which hostcuda does not execute")
    symbols, heads = {}, ['#include "ptx.h"']
    depth_free = ptx
    for m in reversed(bodies):  # what is declared outside of the kernels
        depth_free = depth_free[:m.start()] + depth_free[_closing(ptx, m.end()):]
    for line in _statements(depth_free):
        heads += _declaration(line, symbols, "module")
    names, signatures = [], []
    for number, m in enumerate(bodies):
        names.append(m[1])
        code, signature = _kernel(number, m[2], ptx[m.end():_closing(ptx, m.end()) - 1], dict(symbols), files, trace)
        heads += code
        signatures.append(signature)
    for number, signature in enumerate(signatures):
        heads.append(f'extern "C" void hc_call_{number}(void** a) {{ kernel_{number}((unsigned char**)a); }}\n'
                     f'extern "C" void hc_sig_{number}(char* s) {{ memcpy(s, "{signature}", {len(signature) + 1}); }}')
    return "\n".join(heads) + "\n", names


def _closing(text, start):
    depth = 1
    for i in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if not depth:
            return i + 1
    raise HostCudaError("this PTX is cut off: a brace is not closed")


def _statements(body):
    """Statements and labels of a body; directives that end with the line come as they are."""
    for line in re.sub(r"\n\s*(?=[,{])", " ", body).split("\n"):
        line = line.strip()
        while m := re.match(r"([$\w]+):\s*(.*)", line):
            yield m[1] + ":"
            line = m[2]
        if re.match(r"\.(loc|file|version|target|address_size|section|pragma)\s", line):
            yield line.rstrip(";")
            continue
        for part in re.findall(r"[^;]+", line):
            if part.strip():
                yield part.strip()


def _declaration(line, symbols, where):
    """C++ for a variable in a state space; registers it in symbols. Other directives give nothing."""
    m = re.match(r"(?:\.(?:visible|extern|common|weak|const)\s+)*\.(shared|global|const|local)\s+(?:\.align\s+(\d+)\s+)?"
                 r"\.(\w+)\s+([\w$]+)\s*(?:\[(\d*)\])?\s*(?:=\s*\{?([^}]*)\}?)?$", line)
    if not m:
        return []
    space, align, kind, name, count, values = m.groups()
    space = "const" if line.startswith(".const") else space
    symbols[name] = space
    cname, n = "v_" + name.replace("$", "_"), count or "1"
    if space == "shared" and (".extern" in line or count == ""):
        symbols[name] = "dynamic"
        return []
    init = f" = {{{values}}}" if values else ""
    static = "static " if space in ("shared", "global", "const") else ""
    section = '__attribute__((section(".data"))) ' if space in ("global", "const") else ""
    return [f"{static}{section}__attribute__((aligned({align or 8}))) {CTYPES[kind]} {cname}[{n}]{init};"]


class _Body:
    """The text of one kernel while it is translated."""

    def __init__(self, symbols, params, trace):
        self.symbols, self.params, self.trace, self.widths, self.sites = symbols, params, trace, {}, 0

    def reg(self, name):
        return name.replace("%", "R").replace("$", "_")

    def value(self, operand, kind):
        """An operand read as a type."""
        c = CTYPES.get(kind)
        if c is None:
            raise HostCudaError(f"PTX type .{kind} is not supported")
        if operand in SPECIAL:
            return f"({c}){SPECIAL[operand]}"
        if operand.startswith("%"):
            if re.match(r"%(?:lanemask|clock|globaltimer|smid|warpid|nwarpid|dynamic|total|gridid|envreg)", operand):
                raise HostCudaError(f"PTX special register {operand} is not supported")
            return self.reg(operand) if kind == "pred" else f"get<{c}>({self.reg(operand)})"
        if m := re.match(r"0[fF]([0-9a-fA-F]{8})$", operand):
            return f"({c})get<float>(0x{m[1]}u)"
        if m := re.match(r"0[dD]([0-9a-fA-F]{16})$", operand):
            return f"({c})get<double>(0x{m[1]}ul)"
        if re.match(r"-?(0x[0-9a-fA-F]+|\d+)U?$", operand):
            return f"({c}){operand.rstrip('U')}" + ("ul" if operand[0] != "-" else "l")
        return f"({c})({self.address_of(operand)})"

    def address_of(self, symbol):
        m = re.match(r"([\w$]+)(?:\+(\d+))?$", symbol)
        space = self.symbols.get(m[1]) if m else None
        if space is None:
            raise HostCudaError(f"PTX operand {symbol} is not understood")
        name = "v_" + m[1].replace("$", "_")
        plus = f" + {m[2]}" if m[2] else ""
        if space == "dynamic":
            return f"shared_offset(hc_dynamic_shared()){plus}"
        return (f"shared_offset({name})" if space == "shared" else f"(unsigned long){name}") + plus

    def pointer(self, operand, space):
        """[reg+offset] as a char*."""
        inner = operand.strip("[] ")
        m = re.match(r"(%?[\w$.]+)\s*(?:\+\s*(-?\d+))?$", inner)
        if not m:
            raise HostCudaError(f"PTX address {operand} is not understood")
        base = self.value(m[1], "u64") if not m[1].startswith("%") else f"(unsigned long){self.reg(m[1])}"
        total = f"{base} + {m[2]}" if m[2] else base
        return f"shared_at({total})" if space == "shared" else f"(char*)({total})"


def _kernel(number, params, body, symbols, files, trace):
    """C++ function of one kernel and its signature in hostcuda's codes ('?8': any eight bytes or an array)."""
    declared = re.findall(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+(?:\.ptr\s+(?:\.\w+\s+)*?(?:\.align\s+\d+\s+)?)?([\w$]+)"
                          r"(?:\[(\d+)\])?\s*(?:,|$)", params.strip())
    sizes = {"8": 1, "6": 2, "2": 4, "4": 8}
    signature = "".join(f"?{int(n) if n else sizes[kind[-1]]} " for kind, _, n in declared)
    b = _Body(symbols, {name: i for i, (_, name, _) in enumerate(declared)}, trace)
    top, lines = [], []
    for line in _statements(body):
        if m := re.match(r"\.reg\s+\.(\w+)\s+(%[\w$]+)(?:<(\d+)>)?$", line):
            c = {"1": "bool", "8": "unsigned char", "16": "unsigned short", "32": "unsigned", "64": "unsigned long"}[
                "1" if m[1] == "pred" else m[1][1:]]
            names = [f"{m[2]}{i}" for i in range(int(m[3]))] if m[3] else [m[2]]
            top.append(f"  {c} " + ", ".join(b.reg(n) + " = 0" for n in names) + ";")
        elif re.match(r"\.loc\s", line):
            _, f, row, *_ = line.replace(",", " ").split()
            if int(row) and int(f) in files:
                lines.append(f'#line {row} "{files[int(f)]}"')
        elif line.endswith(":"):
            lines.append(f"{line[:-1].replace('$', '_')}:;")
        elif line.startswith(".pragma") or re.match(r"[{}]$", line):
            continue
        elif line.startswith("."):
            made = _declaration(line, symbols, "kernel")
            if not made and symbols.keys().isdisjoint(line.replace("[", " ").split()):
                raise HostCudaError(f"PTX directive {line.split()[0]} is not supported")
            top += ["  " + d for d in made]
        else:
            lines.append("  " + _instruction(line, b))
    return [f"static void kernel_{number}(unsigned char** params) {{", *top, *lines, "}"], signature


def _operands(text):
    """Comma-separated operands, a vector {a, b} being one."""
    return [o.strip() for o in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,{}\[\]]+", text) if o.strip()]


def _instruction(line, b):
    """One instruction as a C++ statement."""
    guard = ""
    if m := re.match(r"@(!?)(%\w+)\s+(.*)", line):
        guard, line = f"if ({m[1]}{b.reg(m[2])}) ", m[3]
    op, _, rest = line.partition(" ") if " " in line else line.partition("\t")
    name, *mods = op.strip().replace("::", "_").split(".")
    args = _operands(rest.strip())
    try:
        statement = TABLE[name](name, mods, args, b)
    except (KeyError, IndexError, TypeError, AttributeError):
        statement = None
    if statement is None:
        raise HostCudaError(f"PTX instruction {line.strip()!r} is not supported")
    return f"{guard}{{ {statement} }}"


def _set(b, target, expression, kind):
    if target == "_":
        return f"(void)({expression});"
    if kind == "pred":
        return f"{b.reg(target)} = {expression};"
    return f"put({b.reg(target)}, ({CTYPES[kind]})({expression}));"


def _arithmetic(name, mods, args, b):
    kind = mods[-1]
    d, *xs = args
    if kind == "pred":
        v = [b.value(x, "pred") if x.startswith(("%", "!")) else x for x in xs]
        return _set(b, d, {"and": "{0} & {1}", "or": "{0} | {1}", "xor": "{0} ^ {1}", "not": "!{0}"}[name].format(*v), kind)
    v = [b.value(x, kind) for x in xs]
    flat = kind[0] == "f"
    if "cc" in mods:
        return None
    if flat and name in FLOAT_UNARY:
        if kind == "f64" and name != "abs":
            v, body = [f"(double){v[0]}"], {"sqrt": "sqrt({0})", "rcp": "1 / {0}", "rsqrt": "1 / sqrt({0})"}[name]
        else:
            body = FLOAT_UNARY[name]
        e = body.format(*v)
    elif name == "abs":
        e = f"{v[0]} < 0 ? -{v[0]} : {v[0]}"
    elif name in UNARY:
        e = UNARY[name].format(*v)
        if name in ("popc", "clz"):
            return _set(b, d, e, "u32")
    elif (name == "mul" and not flat) or name == "mad":
        u = "unsigned " if kind[0] in "ub" else ""
        if "wide" in mods:
            w = {"16": "32", "32": "64"}[kind[1:]]
            long = CTYPES[kind[0] + w]
            e = f"({long}){v[0]} * ({long}){v[1]}" + (f" + {b.value(xs[2], kind[0] + w)}" if name == "mad" else "")
            return _set(b, d, e, kind[0] + w)
        if "hi" in mods:
            double = f"{u}__int128" if kind[1:] == "64" else CTYPES[kind[0].replace("b", "u") + "64"]
            e = f"(({double}){v[0]} * ({double}){v[1]}) >> {kind[1:]}"
        else:
            e = f"({CTYPES['u' + kind[1:]]}){v[0]} * ({CTYPES['u' + kind[1:]]}){v[1]}"
        e = f"({e})" + (f" + {v[2]}" if name == "mad" else "")
    elif name == "fma" or (name == "mad" and flat):
        mode = next((m[1] for m in mods if m in ("rm", "rp", "rz")), None)
        e = f"fma_any({v[0]}, {v[1]}, {v[2]})" if not mode else f"toward((long double){v[0]} * {v[1]} + {v[2]}, '{mode}')"
    elif name == "mul":
        e = f"{v[0]} * {v[1]}"
    elif name in ("min", "max") and "NaN" in mods:
        e = f"{v[0]} != {v[0]} ? {v[0]} : {v[1]} != {v[1]} ? {v[1]} : " + BINARY[name].format(*v)
    elif name in ("add", "sub") and not flat:
        e = BINARY[name].format(*(f"({CTYPES['u' + kind[1:]]}){x}" for x in v))
    else:
        mode = next((m[1] for m in mods if m in ("rm", "rp", "rz")), None)
        wide = [f"(long double){x}" for x in v] if mode else v
        e = BINARY[name].format(*wide)
        e = f"toward({e}, '{mode}')" if mode else e
    if "ftz" in mods:
        e = f"ftz({e})"
    if "sat" in mods:
        e = f"sat({e})"
    return _set(b, d, e, kind)


def _shift(name, mods, args, b):
    d, x, n = args
    kind = mods[-1]
    f = "shift_left" if name == "shl" else "shift_right"
    return _set(b, d, f"{f}({b.value(x, kind)}, {b.value(n, 'u32')})", kind)


def _compare(mods, x, y):
    cmp, kind = mods[0], mods[-1]
    if cmp in ("num", "nan"):
        both = f"({x} == {x} && {y} == {y})"
        return both if cmp == "num" else f"!{both}"
    if kind[0] == "f":
        if cmp in COMPARE and cmp not in ("lo", "ls", "hi", "hs"):
            sign = COMPARE[cmp]
            return f"({x} < {y} || {x} > {y})" if cmp == "ne" else f"({x} {sign} {y})"
        negated = {"equ": "ne", "neu": "eq", "ltu": "ge", "leu": "gt", "gtu": "le", "geu": "lt"}[cmp]
        return f"!({x} < {y} || {x} > {y})" if cmp == "equ" else f"!({x} {COMPARE[negated]} {y})"
    return f"({x} {COMPARE[cmp]} {y})"


def _setp(name, mods, args, b):
    kind = mods[-1]
    targets, x, y = args[0].split("|"), b.value(args[1], kind), b.value(args[2], kind)
    e = _compare(mods, x, y)
    tail = ""
    if len(args) > 3:
        join = next(m for m in mods if m in ("and", "or", "xor"))
        c = args[3]
        tail = f" {dict(zip(('and', 'or', 'xor'), '&|^'))[join]} {'!' if c[0] == '!' else ''}{b.reg(c.lstrip('!'))}"
    out = f"bool c_ = {e}; {b.reg(targets[0])} = c_{tail};"
    return out + (f" {b.reg(targets[1])} = !c_{tail};" if len(targets) > 1 else "")


def _selp(name, mods, args, b):
    d, x, y, p = args
    return _set(b, d, f"{b.reg(p)} ? {b.value(x, mods[-1])} : {b.value(y, mods[-1])}", mods[-1])


def _mov(name, mods, args, b):
    d, x = args
    kind = mods[-1]
    if x.startswith("{"):  # pack
        parts = [p.strip() for p in x.strip("{}").split(",")]
        width = int(kind[1:]) // len(parts)
        e = " | ".join(f"(unsigned long){b.value(p, f'b{width}')} << {width * i}" for i, p in enumerate(parts))
        return _set(b, d, e, kind)
    if d.startswith("{"):
        parts = [p.strip() for p in d.strip("{}").split(",")]
        width = int(kind[1:]) // len(parts)
        return f"unsigned long w_ = {b.value(x, kind)}; " + " ".join(
            _set(b, p, f"w_ >> {width * i}", f"b{width}") for i, p in enumerate(parts))
    if kind == "pred":
        return f"{b.reg(d)} = {b.reg(x)};"
    return _set(b, d, b.value(x, kind), kind)


def _convert(name, mods, args, b):
    d, x = args
    to, source = mods[-2], mods[-1]
    v = b.value(x, source)
    if source[0] == "f" and to[0] != "f":
        mode = next((m for m in mods if m in ("rni", "rzi", "rmi", "rpi")), "rzi")
        f = {"rni": "rint", "rzi": "__builtin_trunc", "rmi": "floor", "rpi": "__builtin_ceil"}[mode]
        return _set(b, d, f"saturate<{CTYPES[to]}>({f}((double){v}))", to)
    if source[0] == "f" and to[0] == "f":
        mode = next((m for m in mods if m in ("rni", "rzi", "rmi", "rpi")), None)
        if mode:
            f = {"rni": "rint", "rzi": "__builtin_trunc", "rmi": "floor", "rpi": "__builtin_ceil"}[mode]
            v = f"{f}((double){v})"
        if any(m in ("rz", "rm", "rp") for m in mods):
            return None
    e = f"({CTYPES[to]}){v}"
    if "sat" in mods:
        if to[0] != "f":
            return None
        e = f"sat({e})"
    return _set(b, d, f"ftz({e})" if "ftz" in mods and to == "f32" else e, to)


def _space(mods):
    return next((m for m in mods if m in SPACES), "generic")


def _vector(mods):
    return next((int(m[1:]) for m in mods if m in ("v2", "v4")), 1)


def _access(b, pointer, size, write, space):
    b.sites += 1
    if not b.trace or space == "local":
        return ""
    return f"hc_trace({pointer}, {size}, {int(write)}, __LINE__);"


def _load(name, mods, args, b):
    d, a = args
    kind, space, n = mods[-1], _space(mods), _vector(mods)
    c = CTYPES[kind]
    if space == "param":
        m = re.match(r"\[([\w$]+)(?:\+(\d+))?\]", a)
        at = [int(m[2] or 0) + i * int(kind[1:]) // 8 for i in range(n)]
        return " ".join(_set(b, t.strip(), f"parameter<{c}>(params, {b.params[m[1]]}, {o})", kind)
                        for t, o in zip(d.strip("{}").split(","), at))
    size = int(kind[1:]) // 8 * n
    p = b.pointer(a, space)
    out = f"char* p_ = {p}; {_access(b, 'p_', size, False, space)} "
    if n == 1:
        return out + _set(b, d, f"*({c}*)p_", kind)
    raw = {4: "unsigned", 8: "unsigned long", 16: "unsigned __int128", 2: "unsigned short", 32: None}[size]
    if raw is None:
        return None
    targets = [t.strip() for t in d.strip("{}").split(",")]
    return out + f"{raw} w_ = *({raw}*)p_; {c} t_[{n}]; __builtin_memcpy(t_, &w_, {size}); " + " ".join(
        _set(b, t, f"t_[{i}]", kind) for i, t in enumerate(targets))


def _store(name, mods, args, b):
    a, x = args
    kind, space, n = mods[-1], _space(mods), _vector(mods)
    c, size = CTYPES[kind], int(mods[-1][1:]) // 8 * n
    out = f"char* p_ = {b.pointer(a, space)}; {_access(b, 'p_', size, True, space)} "
    if n == 1:
        return out + f"*({c}*)p_ = {b.value(x, kind)};"
    raw = {4: "unsigned", 8: "unsigned long", 16: "unsigned __int128"}[size]
    xs = ", ".join(b.value(t.strip(), kind) for t in x.strip("{}").split(","))
    return out + f"{c} t_[{n}] = {{{xs}}}; {raw} w_; __builtin_memcpy(&w_, t_, {size}); *({raw}*)p_ = w_;"


def _cvta(name, mods, args, b):
    d, x = args
    space = _space(mods)
    v = b.value(x, "u64")
    if space == "shared":
        v = f"shared_offset((void*){v})" if "to" in mods else f"(unsigned long)shared_at({v})"
    return _set(b, d, v, "u64")


def _branch(name, mods, args, b):
    return f"goto {args[0].replace('$', '_')};"


def _barrier(name, mods, args, b):
    if "warp" in mods:
        return f"hc_warp_sync({b.value(args[0], 'u32')});"
    if (args and args[0] != "0") or (len(args) > 1 and "red" not in mods):
        return None  # named barriers of some of the threads
    if "red" in mods:
        how = {"popc": 1, "and": 2, "or": 3}[next(m for m in mods if m in ("popc", "and", "or"))]
        return _set(b, args[0], f"hc_barrier({b.reg(args[-1])}, {how})", "u32" if how == 1 else "pred")
    return "hc_barrier(0, 0);"


def _shuffle(name, mods, args, b):
    target, x, y, z, mask = args
    d, _, p = target.partition("|")
    mode = next(m for m in mods if m in ("up", "down", "bfly", "idx"))[0]
    values = ", ".join(b.value(v, "u32") for v in (x, y, z, mask))
    return f"bool p_; unsigned v_ = shuffle('{mode}', {values}, p_); {b.reg(d)} = v_;" + (f" {b.reg(p)} = p_;" if p else "")


def _vote(name, mods, args, b):
    d, p, mask = args
    sign, p = ("!", p[1:]) if p[0] == "!" else ("", p)
    ballot = f"hc_warp_ballot({b.value(mask, 'u32')}, {sign}{b.reg(p) if p[0] == '%' else p})"
    if "ballot" in mods:
        return _set(b, d, ballot, "u32")
    return f"{b.reg(d)} = {ballot} " + ("!= 0;" if "any" in mods else f"== {b.value(mask, 'u32')};")


def _atomic(name, mods, args, b):
    kind, space = mods[-1], _space(mods)
    f = next(ATOMICS[m] for m in mods if m in ATOMICS)
    if name == "red":
        args = ["_", *args]
    d, a, *xs = args
    call = f"atomic{f}(({CTYPES[kind]}*)({b.pointer(a, space)}), " + ", ".join(b.value(x, kind) for x in xs) + ")"
    return _set(b, d, call, kind)


def _async(name, mods, args, b):
    if "commit_group" in mods:
        return "hc_async_commit();"
    if "wait_all" in mods:
        return "hc_async_commit(); hc_async_wait(0);"
    if "wait_group" in mods:
        return f"hc_async_wait({args[0]});"
    to, source, size = args[:3]
    if len(args) > 3 or "mbarrier" in mods:
        return None
    return f"hc_async_copy({b.pointer(to, 'shared')}, {b.pointer(source, 'global')}, {size});"


def _bits(name, mods, args, b):
    kind = mods[-1]
    d, *xs = args
    if name in ("bfe", "bfi"):
        f, n = ("extract", 1) if name == "bfe" else ("insert", 2)
        values = [b.value(x, kind if i < n else "u32") for i, x in enumerate(xs)]
        return _set(b, d, f"{f}({', '.join(values)})", kind)
    values = ", ".join(b.value(x, "u32") for x in xs)
    if name == "shf":
        return _set(b, d, f"funnel({values}, {str('l' in mods).lower()}, {str('wrap' in mods).lower()})", "b32")
    return _set(b, d, f"{'permute' if name == 'prmt' else 'lop3'}({values})", "b32")


def _matrix(name, mods, args, b):
    """wmma of shape m16n16k16, float16 factors and float sums: fragments in the layout of half.h."""
    if "m16n16k16" not in mods:
        return None
    what = mods[0]
    regs = lambda v: [r.strip() for r in v.strip("{}").split(",")]
    if what == "mma":
        if mods[-2:] != ["f32", "f32"]:
            return None
        d, a, bb, c = (regs(v) for v in args)
        layout = [m for m in mods if m in ("row", "col")]
        out = "wmma::fragment<wmma::accumulator, 16, 16, 16, float> d_, c_;"
        for v, use, rs, lay in (("a_", "matrix_a", a, layout[0]), ("b_", "matrix_b", bb, layout[1])):
            out += f" wmma::fragment<wmma::{use}, 16, 16, 16, __half, wmma::{lay}_major> {v};"
            out += "".join(f" {v}.x[{2 * i}].bits = {b.reg(r)} & 65535; {v}.x[{2 * i + 1}].bits = {b.reg(r)} >> 16;"
                           for i, r in enumerate(rs[:4]))
        out += "".join(f" c_.x[{i}] = {b.value(r, 'f32')};" for i, r in enumerate(c))
        return "using namespace nvcuda; " + out + " wmma::mma_sync(d_, a_, b_, c_);" + "".join(
            f" put({b.reg(r)}, d_.x[{i}]);" for i, r in enumerate(d))
    space, lay = _space(mods), "row" if "row" in mods else "col"
    if what == "load" and mods[1] in "ab" and mods[-1] == "f16":
        target, address, pitch = args
        use = f"wmma::fragment<wmma::matrix_{mods[1]}, 16, 16, 16, __half, wmma::{lay}_major> f_;"
        return (f"using namespace nvcuda; {use} wmma::load_matrix_sync(f_, (const __half*)({b.pointer(address, space)}), "
                f"{b.value(pitch, 'u32')});" + "".join(f" {b.reg(r)} = f_.x[{2 * i}].bits | f_.x[{2 * i + 1}].bits << 16;"
                                                       for i, r in enumerate(regs(target)[:4])))
    accumulator = "wmma::fragment<wmma::accumulator, 16, 16, 16, float> f_;"
    order = f"wmma::mem_{lay}_major"
    if what == "load" and mods[1] == "c" and mods[-1] == "f32":
        target, address, pitch = args
        return (f"using namespace nvcuda; {accumulator} wmma::load_matrix_sync(f_, (const float*)({b.pointer(address, space)}), "
                f"{b.value(pitch, 'u32')}, {order});" + "".join(f" put({b.reg(r)}, f_.x[{i}]);" for i, r in enumerate(regs(target))))
    if what == "store" and mods[-1] == "f32":
        address, source, pitch = args
        return (f"using namespace nvcuda; {accumulator}" + "".join(f" f_.x[{i}] = {b.value(r, 'f32')};" for i, r in
                enumerate(regs(source))) + f" wmma::store_matrix_sync((float*)({b.pointer(address, space)}), f_, "
                f"{b.value(pitch, 'u32')}, {order});")
    return None


def _fixed(text):
    return lambda name, mods, args, b: text


TABLE = dict.fromkeys(["add", "sub", "mul", "mad", "fma", "div", "rem", "and", "or", "xor", "not", "neg", "abs", "min", "max",
                       "sqrt", "rcp", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh", "popc", "clz", "brev", "cnot"], _arithmetic)
TABLE |= dict.fromkeys(["shl", "shr"], _shift) | dict.fromkeys(["bfe", "bfi", "prmt", "lop3", "shf"], _bits)
TABLE |= {"setp": _setp, "selp": _selp, "mov": _mov, "cvt": _convert, "ld": _load, "ldu": _load, "st": _store, "cvta": _cvta,
          "bra": _branch, "ret": _fixed("return;"), "exit": _fixed("return;"), "trap": _fixed("hc_trap();"),
          "membar": _fixed(";"), "fence": _fixed(";"), "bar": _barrier, "barrier": _barrier, "shfl": _shuffle,
          "vote": _vote, "atom": _atomic, "red": _atomic, "cp": _async, "wmma": _matrix,
          "activemask": lambda name, mods, args, b: _set(b, args[0], "hc_active_mask()", "u32")}
