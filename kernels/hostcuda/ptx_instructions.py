"""What every PTX instruction's translation needs: its operands as C++ expressions of a type."""
import re

from .build import HostCudaError

CTYPES = {"s8": "signed char", "u8": "unsigned char", "b8": "unsigned char", "s16": "short", "u16": "unsigned short",
          "b16": "unsigned short", "s32": "int", "u32": "unsigned", "b32": "unsigned", "s64": "long",
          "u64": "unsigned long", "b64": "unsigned long", "f16": "float16", "bf16": "bfloat16", "f32": "float",
          "f64": "double", "f16x2": "pair<float16>", "bf16x2": "pair<bfloat16>", "pred": "bool"}
SPECIAL = {f"%{p}.{a}": f"{v}.{a}" for p, v in (("tid", "threadIdx"), ("ctaid", "blockIdx"), ("ntid", "blockDim"),
                                                ("nctaid", "gridDim")) for a in "xyz"}
SPECIAL |= {"%laneid": "hc_lane()", "WARP_SZ": "32", "%lanemask_eq": "(1u << hc_lane())",
            "%lanemask_lt": "((1u << hc_lane()) - 1)", "%lanemask_le": "((2u << hc_lane()) - 1)",
            "%lanemask_gt": "~((2u << hc_lane()) - 1)", "%lanemask_ge": "~((1u << hc_lane()) - 1)"}


class Unsupported(Exception):
    """Turned into HostCudaError with the whole instruction."""


def one_of(mods, choices):
    """The modifier that is among choices; Unsupported if there is none."""
    for m in mods:
        if m in choices:
            return m
    raise Unsupported


def only(mods, *known):
    """Refuse a modifier that nothing here gives a meaning."""
    if set(mods) - {k for group in known for k in ([group] if isinstance(group, str) else group)}:
        raise Unsupported


def width(kind):
    return 32 if kind.endswith("x2") else int(re.sub(r"\D", "", kind))


class Translator:
    """One kernel while it is translated: its registers by scope, symbols, parameters, and places of accesses."""

    def __init__(self, name, table, symbols, parameters, sites):
        self.name, self.table, self.symbols, self.parameters, self.sites = name, table, symbols, parameters, sites
        self.scopes, self.widths, self.place = [{}], {}, name

    def declare(self, name, kind):
        scope = self.scopes[-1]
        scope[name] = f"{re.sub(r'[%$.]', 'R', name)}{f'_{len(self.widths)}' if len(self.scopes) > 1 else ''}"
        self.widths[scope[name]] = 1 if kind == "pred" else int(kind)
        return scope[name]

    def register(self, name):
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        raise HostCudaError(f"{self.name}: PTX operand {name} is not supported")

    def instruction(self, line):
        """One instruction as a C++ statement."""
        guard, text = "", line
        if m := re.match(r"@(!?)(%[\w$]+)\s+(.*)", text):
            guard, text = f"if ({m[1]}{self.register(m[2])}) ", m[3]
        op, _, rest = text.partition(" ")
        name, *mods = op.replace("::", "_").split(".")
        operands = [o.strip() for o in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,{}\[\]]+", rest) if o.strip()]
        try:
            return f"{guard}{{ {self.table[name](self, name, mods, operands)} }}"
        except (KeyError, IndexError, ValueError, TypeError, Unsupported):
            raise HostCudaError(f"{self.name}: PTX instruction {line!r} is not supported ({self.place})") from None

    def value(self, operand, kind):
        """An operand read as a type."""
        c = CTYPES[kind]
        if operand in SPECIAL:
            return f"({c})({SPECIAL[operand]})"
        if kind == "pred" and operand[0] in "%!":
            return ("!" if operand[0] == "!" else "") + self.register(operand.lstrip("!"))
        if operand[0] == "%":
            r = self.register(operand)
            bits = CTYPES[f"b{width(kind)}"]
            r = r if self.widths[r] == width(kind) else f"({bits}){r}"
            return r if c == bits else f"__builtin_bit_cast({c}, {r})" if kind[0] in "fb" and c != bits else f"({c}){r}"
        if m := re.match(r"0[fF]([0-9a-fA-F]{8})$", operand):
            return f"0x{m[1]}u" if kind == "b32" else f"({c})__builtin_bit_cast(float, 0x{m[1]}u)"
        if m := re.match(r"0[dD]([0-9a-fA-F]{16})$", operand):
            return f"0x{m[1]}ul" if kind == "b64" else f"({c})__builtin_bit_cast(double, 0x{m[1]}ul)"
        if re.match(r"-?(0[xX][0-9a-fA-F]+|\d+)U?$", operand):
            number = f"{operand.rstrip('U')}" + ("ul" if operand[0] != "-" else "l")
            bits = CTYPES[f"b{width(kind)}"] if kind != "pred" else "bool"
            return f"({c}){number}" if kind[0] in "su" or c == bits else f"__builtin_bit_cast({c}, ({bits}){number})"
        return f"({c})({self.address(operand)})"

    def address(self, operand):
        """A variable's address, as a number; of shared memory its place in the shared window."""
        name, _, plus = operand.partition("+")
        if name not in self.symbols:
            raise Unsupported
        space, cname = self.symbols[name]
        at = {"dynamic": "shared_offset(hc_dynamic_shared())", "shared": f"shared_offset({cname})"}.get(
            space, f"(unsigned long){cname}")
        return f"{at} + {plus}" if plus else at

    def pointer(self, operand, space):
        """[register + offset] as a char*."""
        base, _, plus = operand.strip("[] ").replace(" ", "").partition("+")
        if base[0] == "%":
            r = self.register(base)
            at = f"(unsigned long){r}"
        elif base in self.symbols:
            at = self.address(base)
        else:
            at = self.value(base, "u64")
        at += f" + {plus}" if plus else ""
        return f"shared_at({at})" if space == "shared" else f"(char*)({at})"

    def set(self, target, expression, kind):
        """target = expression of a type: bits beyond its width are its sign, or zero."""
        if target == "_":
            return f"(void)({expression});"
        r = self.register(target)
        if kind == "pred":
            return f"{r} = {expression};"
        reg, bits = f"b{self.widths[r]}", f"b{width(kind)}"
        if kind[0] in "su" or kind == bits:
            return f"{r} = ({CTYPES[reg]})({CTYPES[kind]})({expression});"
        return f"{r} = ({CTYPES[reg]})__builtin_bit_cast({CTYPES[bits]}, ({CTYPES[kind]})({expression}));"

    def access(self, pointer, size, write):
        """A pointer p_, noted for traffic.py if the module is traced."""
        if self.sites is None:
            return f"char* p_ = {pointer};"
        self.sites.append(self.place)
        return f"char* p_ = {pointer}; hc_trace(p_, {size}, {int(write)}, {len(self.sites) - 1});"
