"""PTX's arithmetic, comparisons and conversions as C++ (PTX ISA, section 9.7.1 to 9.7.9). Each function takes the
translator, the instruction's name, its modifiers and its operands; ptx.h has what is more than an operator.
"""
from .ptx_instructions import CTYPES, Unsupported, one_of, only, width

COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">",
           "hs": ">="}
UNORDERED = {"equ": "ne", "neu": "eq", "ltu": "ge", "leu": "gt", "gtu": "le", "geu": "lt"}  # not the ordered opposite
OPERATORS = {"and": "{0} & {1}", "or": "{0} | {1}", "xor": "{0} ^ {1}", "not": "~{0}", "cnot": "!{0}"}
# functions of ptx.h whose name is the instruction's, for numbers of any type
FUNCTIONS = {"add": 2, "sub": 2, "mul": 2, "div": 2, "rem": 2, "min": 2, "max": 2, "neg": 1, "abs": 1, "fma": 3, "mad": 3,
             "sqrt": 1, "rcp": 1, "rsqrt": 1, "ex2": 1, "lg2": 1, "sin": 1, "cos": 1, "tanh": 1, "copysign": 2, "sad": 3}
ROUNDED = ("add", "sub", "mul", "div", "fma", "mad", "sqrt", "rcp")
MODES = {"rz": "TOWARD_ZERO", "rm": "DOWNWARD", "rp": "UPWARD"}


def arithmetic(b, name, mods, args):
    kind = mods[-1]
    d, *xs = args
    flat = kind[0] == "f" or kind.startswith("bf")
    only(mods[:-1], "rn", MODES, "ftz", "sat", "approx", "full", "lo", "hi", "wide", "cc", "NaN")
    if len(xs) != FUNCTIONS[name]:
        raise Unsupported
    if not flat and ("wide" in mods or "hi" in mods):
        if "wide" in mods:
            long = kind[0] + str(2 * width(kind))
            plus = f" + {b.value(xs[2], long)}" if name == "mad" else ""
            return b.set(d, f"({CTYPES[long]}){b.value(xs[0], kind)} * {b.value(xs[1], kind)}{plus}", long)
        high = f"high_half({b.value(xs[0], kind)}, {b.value(xs[1], kind)})"
        if "cc" in mods:
            raise Unsupported
        return b.set(d, f"{high} + {b.value(xs[2], kind)}" if name == "mad" else high, kind)
    v = [b.value(x, kind) for x in xs]
    if "cc" in mods:
        if name == "mad":
            v = [f"mul({v[0]}, {v[1]})", v[2]]
        return b.set(d, f"with_carry({v[0]}, {v[1]}, false, carry, {str(name == 'sub').lower()})", kind)
    if "ftz" in mods and kind == "f32":
        v = [f"ftz({x})" for x in v]
    if mode := next((m for m in mods if m in MODES), None):
        if name not in ROUNDED or kind not in ("f32", "f64"):
            raise Unsupported
        name = "fma" if name == "mad" else name
        e = f"{name}_in({MODES[mode]}, {', '.join(v)})"
    else:
        function = "fma" if name == "mad" and flat else name
        e = f"ptx_{function}{'_nan' if 'NaN' in mods else ''}({', '.join(v)})"
    if "ftz" in mods and kind == "f32":
        e = f"ftz({e})"
    if "sat" in mods:
        e = f"sat({e})"
    return b.set(d, e, kind)


def carried(b, name, mods, args):
    """addc, subc, madc: with the carry of the last .cc instruction."""
    kind = mods[-1]
    only(mods[:-1], "cc", "lo")
    x, y = (b.value(a, kind) for a in args[-2:])
    if name == "madc":
        x, y = f"mul({b.value(args[1], kind)}, {x})", y
    out = "carry" if "cc" in mods else "unused"
    return "bool unused; " + b.set(args[0], f"with_carry({x}, {y}, carry, {out}, {str(name == 'subc').lower()})", kind)


def logic(b, name, mods, args):
    kind = mods[-1]
    text = "!{0}" if (name, kind) == ("not", "pred") else OPERATORS[name]
    only(mods[:-1])
    return b.set(args[0], text.format(*(b.value(x, kind) for x in args[1:])), kind)


def bits(b, name, mods, args):
    kind, (d, *xs) = mods[-1], args
    if name in ("popc", "clz", "bfind", "brev"):
        only(mods[:-1], "shiftamt")
        f = name + ("_shift" if "shiftamt" in mods else "")
        return b.set(d, f"ptx_{f}({b.value(xs[0], kind)})", kind if name == "brev" else "u32")
    if name in ("shl", "shr"):
        return b.set(d, f"ptx_{name}({b.value(xs[0], kind)}, {b.value(xs[1], 'u32')})", kind)
    if name in ("bfe", "bfi"):
        typed = 1 if name == "bfe" else 2
        v = [b.value(x, kind if i < typed else "u32") for i, x in enumerate(xs)]
        return b.set(d, f"ptx_{name}({', '.join(v)})", kind)
    v = ", ".join(b.value(x, "u32") for x in xs)
    if name == "shf":
        only(mods[:-1], "l", "r", "wrap", "clamp")
        return b.set(d, f"funnel({v}, {str('l' in mods).lower()}, {str('wrap' in mods).lower()})", "b32")
    only(mods[:-1])
    return b.set(d, f"ptx_{name}({v})", "b32")


def comparison(mods, x, y):
    cmp, kind = one_of(mods, (*COMPARE, *UNORDERED, "num", "nan")), mods[-1]
    if kind in ("bf16", "f16x2", "bf16x2"):
        raise Unsupported
    if "ftz" in mods:
        x, y = f"ftz({x})", f"ftz({y})"
    if cmp in ("num", "nan"):
        return ("" if cmp == "num" else "!") + f"({x} == {x} && {y} == {y})"
    if cmp in UNORDERED:
        return f"!({comparison([UNORDERED[cmp], kind], x, y)})"
    if cmp == "ne" and kind[0] == "f":  # ordered: false for NaN
        return f"({x} < {y} || {x} > {y})"
    return f"({x} {COMPARE[cmp]} {y})"


def setp(b, name, mods, args):
    kind = mods[-1]
    targets = [t.strip() for t in args[0].split("|")]
    e = comparison(mods, b.value(args[1], kind), b.value(args[2], kind))
    join = f" {dict(zip(('and', 'or', 'xor'), '&|^'))[one_of(mods, ('and', 'or', 'xor'))]} {b.value(args[3], 'pred')}" if len(
        args) > 3 else ""
    first, *second = (b.register(t) if t != "_" else "unused" for t in targets)
    return (f"bool unused, c_ = {e}, p_ = c_{join}, q_ = !c_{join}; {first} = p_;" +
            (f" {second[0]} = q_;" if second else ""))


def set_instruction(b, name, mods, args):
    to, kind = mods[-2:]
    e = comparison([mods[0], *mods[1:-2], kind], b.value(args[1], kind), b.value(args[2], kind))
    if len(args) > 3:
        raise Unsupported
    return b.set(args[0], f"{e} ? {'1.0f' if to == 'f32' else '-1'} : 0", to)


def select(b, name, mods, args):
    d, x, y, c = args
    e = b.value(c, "pred") if name == "selp" else f"{b.value(c, mods[-1])} >= 0"
    kind = mods[0]
    return b.set(d, f"{e} ? {b.value(x, kind)} : {b.value(y, kind)}", kind)


def move(b, name, mods, args):
    kind, (d, x) = mods[-1], args
    parts = lambda text: [p.strip() for p in text.strip("{}").split(",")]
    if x.startswith("{"):
        each = width(kind) // len(parts(x))
        return b.set(d, " | ".join(f"(unsigned long){b.value(p, f'b{each}')} << {each * i}" for i, p in enumerate(parts(x))),
                     kind)
    if d.startswith("{"):
        each = width(kind) // len(parts(d))
        return f"unsigned long w_ = {b.value(x, kind)}; " + " ".join(
            b.set(p, f"w_ >> {each * i}", f"b{each}") for i, p in enumerate(parts(d)))
    return b.set(d, b.value(x, kind), kind)


def convert(b, name, mods, args):
    *how, to, source = mods
    only(how, "rn", MODES, "rni", "rzi", "rmi", "rpi", "ftz", "sat")
    if to.endswith("x2"):  # two floats to a pair, the first the upper
        if how != ["rn"] or source != "f32":
            raise Unsupported
        one = CTYPES[to[:-2]]
        return b.set(args[0], f"pair<{one}>{{({one}){b.value(args[2], 'f32')}, ({one}){b.value(args[1], 'f32')}}}", to)
    v = b.value(args[1], source)
    flat = lambda k: k[0] == "f" or k == "bf16"
    if "ftz" in how and source == "f32":
        v = f"ftz({v})"
    whole = next((m for m in how if m in ("rni", "rzi", "rmi", "rpi")), None)
    mode = next((m for m in how if m in MODES), None)
    if mode and (not flat(to) or to not in ("f32", "f64")):
        raise Unsupported
    if flat(source) and not flat(to):
        e = f"ptx_to_integer<{CTYPES[to]}>((double){v}, '{(whole or 'rzi')[1]}')"
    elif flat(source) and whole:
        e = f"({CTYPES[to]})whole((double){v}, '{whole[1]}')"
    elif mode:
        e = f"convert_in<{CTYPES[to]}>({MODES[mode]}, {v})"
    elif "sat" in how and not flat(to):
        return b.set(args[0], f"clamped<{CTYPES[to]}>({v})", to)
    else:
        e = f"({CTYPES[to]}){v}"
    e = f"sat({e})" if "sat" in how and flat(to) else e
    return b.set(args[0], f"ftz({e})" if "ftz" in how and to == "f32" else e, to)


ARITHMETIC = {**dict.fromkeys(FUNCTIONS, arithmetic), **dict.fromkeys(("addc", "subc", "madc"), carried),
              **dict.fromkeys(OPERATORS, logic), "setp": setp, "set": set_instruction, "selp": select, "slct": select,
              "mov": move, "cvt": convert,
              **dict.fromkeys(("popc", "clz", "bfind", "brev", "shl", "shr", "bfe", "bfi", "prmt", "lop3", "shf"), bits)}
