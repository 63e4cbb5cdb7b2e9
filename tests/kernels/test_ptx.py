"""Translated PTX: every instruction against NumPy on random and extreme inputs, control flow, and refusals by name."""
import math
from fractions import Fraction

import numpy as np
import pytest

from kernels.hostcuda import HostCudaError, PtxModule

NUMPY = {"s8": np.int8, "u8": np.uint8, "s16": np.int16, "u16": np.uint16, "b16": np.uint16, "s32": np.int32, "u32": np.uint32,
         "b32": np.uint32, "s64": np.int64, "u64": np.uint64, "b64": np.uint64, "f16": np.float16, "f32": np.float32,
         "f64": np.float64}
THREADS = 256


def each(f, dtype=None):
    """f on Python numbers, element by element."""
    def apply(*arrays):
        with np.errstate(all="ignore"):
            return np.array([f(*(a.item() for a in row)) for row in zip(*arrays)], dtype or object)
    return apply


def wrap(f, bits, signed):
    """f on exact integers, its result's low bits."""
    def cut(*v):
        r = f(*v) & ((1 << bits) - 1)
        return r - (1 << bits) if signed and r >> (bits - 1) else r
    return each(cut)


def truncated(a, b):
    q = abs(a) // abs(b) if b else 0
    return q if (a < 0) == (b < 0) else -q


def field(bits, signed):
    def bfe(a, b, c):
        b, c = b & 255, c & 255
        if not c:
            return 0
        value = (a >> min(b, bits)) & ((1 << c) - 1) if c < bits else a >> min(b, bits)
        if b >= bits:
            value = -1 if signed and a < 0 else 0
        if signed and c < bits and b < bits:
            top = (a >> min(b + c - 1, bits - 1)) & 1
            value = (a >> b) & ((1 << c) - 1)
            value = value - (1 << c) if top else value
        return value
    return wrap(bfe, bits, signed)


def insert(a, b, c, d):
    c, d = c & 255, d & 255
    mask = ((1 << d) - 1) << c & 0xFFFFFFFF
    return (b & ~mask) | (a << c & mask) if c < 32 else b


def permute(a, b, c):
    data = (b << 32 | a).to_bytes(8, "little")
    pick = lambda s: (255 if data[s & 7] & 128 else 0) if s & 8 else data[s & 7]
    return int.from_bytes(bytes(pick(c >> 4 * i & 15) for i in range(4)), "little")


def lop3(table):
    return lambda a, b, c: sum((table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1) & 1) << i for i in range(32))


def toward(direction, f):
    """f on exact fractions, rounded to float32 in a direction."""
    def rounded(*v):
        if not all(map(math.isfinite, v)):
            return np.float32(f(*map(np.float32, v)))
        exact, most = f(*map(Fraction, v)), Fraction(float(np.finfo(np.float32).max))
        below = np.float32(float(min(max(exact, -most), most)))
        while exact >= -most and Fraction(float(below)) > exact:
            below = np.nextafter(below, np.float32(-np.inf))
        above = below if below == exact or exact < -most else np.nextafter(below, np.float32(np.inf))
        below = np.float32(-np.inf) if exact < -most else below
        return {"m": below, "p": above, "z": below if exact > 0 else above}[direction]
    return each(rounded, np.float32)


def clamp(low, high, rounding):
    def convert(v):
        if math.isnan(v):
            return 0
        return low if v <= low else high if v >= high else rounding(v)
    return convert


def ieee(f, dtype=np.float32):
    def apply(*a):
        with np.errstate(all="ignore"):
            return f(*a).astype(dtype)
    return apply


def flush(x):
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)


def half_fma(a, b, c):
    """float16 fma, exact and rounded once."""
    def one(x, y, z):
        if not all(map(math.isfinite, (x, y, z))):
            return np.float16(np.float64(x) * y + z)
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        wide = np.float64(float(exact))  # nearest double; round to odd so that the second rounding is right
        if Fraction(float(wide)) != exact and wide.view(np.uint64) & 1 == 0:
            wide = np.nextafter(wide, np.inf if Fraction(float(wide)) < exact else -np.inf)
        return np.float16(wide) if exact or wide else np.float16(x * y + z)
    with np.errstate(all="ignore"):
        return np.array([one(*(float(v) for v in row)) for row in zip(a, b, c)])


SMIN, SMAX = -2**31, 2**31 - 1
I = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul.lo": lambda a, b: a * b}
CASES = [(f"{op}.{k}", f"{k} {k} {k}", wrap(f, int(k[1:]), k[0] == "s")) for op, f in I.items()
         for k in ("s16", "u16", "s32", "u32", "s64", "u64")]
CASES += [(f"mul.hi.{k}", f"{k} {k} {k}", wrap(lambda a, b, n=int(k[1:]): a * b >> n, int(k[1:]), k[0] == "s"))
          for k in ("s32", "u32", "s64", "u64", "u16")]
CASES += [(f"mul.wide.{k}", f"{k[0]}{2 * int(k[1:])} {k} {k}", wrap(I["mul.lo"], 2 * int(k[1:]), k[0] == "s"))
          for k in ("s16", "u16", "s32", "u32")]
CASES += [("mad.lo.s32", "s32 s32 s32 s32", wrap(lambda a, b, c: a * b + c, 32, True)),
          ("mad.hi.u32", "u32 u32 u32 u32", wrap(lambda a, b, c: (a * b >> 32) + c, 32, False)),
          ("mad.wide.s32", "s64 s32 s32 s64", wrap(lambda a, b, c: a * b + c, 64, True)),
          ("sad.u32", "u32 u32 u32 u32", wrap(lambda a, b, c: abs(a - b) + c, 32, False))]
CASES += [(f"{op}.{k}", f"{k} {k} {k}", wrap(f, int(k[1:]), k[0] == "s")) for k in ("s32", "u32", "s64", "u64") for op, f in (
    ("div", truncated), ("rem", lambda a, b: a - truncated(a, b) * b if b else 0), ("min", min), ("max", max))]
CASES += [(f"{op}.s32", "s32 s32", wrap(f, 32, True)) for op, f in (("neg", lambda a: -a), ("abs", abs))]
CASES += [(f"{op}.b32", "b32 b32 b32", f) for op, f in (("and", np.bitwise_and), ("or", np.bitwise_or), ("xor", np.bitwise_xor))]
CASES += [("not.b64", "b64 b64", np.bitwise_not), ("cnot.b32", "b32 b32", each(lambda a: int(a == 0))),
          ("popc.b32", "u32 b32", each(lambda a: a.bit_count())), ("popc.b64", "u32 b64", each(lambda a: a.bit_count())),
          ("clz.b32", "u32 b32", each(lambda a: 32 - a.bit_length())), ("clz.b64", "u32 b64", each(lambda a: 64 - a.bit_length())),
          ("bfind.u32", "u32 u32", each(lambda a: a.bit_length() - 1 & 0xFFFFFFFF)),
          ("bfind.s32", "u32 s32", each(lambda a: (a if a >= 0 else ~a).bit_length() - 1 & 0xFFFFFFFF)),
          ("brev.b32", "b32 b32", each(lambda a: int(f"{a:032b}"[::-1], 2))),
          ("bfe.u32", "u32 u32 u32 u32", field(32, False)), ("bfe.s32", "s32 s32 u32 u32", field(32, True)),
          ("bfe.u64", "u64 u64 u32 u32", field(64, False)), ("bfi.b32", "b32 b32 b32 u32 u32", each(insert)),
          ("prmt.b32", "b32 b32 b32 b32", each(permute)), ("lop3.b32 @ , 0x96", "b32 b32 b32 b32", each(lop3(0x96))),
          ("lop3.b32 @ , 0xCA", "b32 b32 b32 b32", each(lop3(0xCA))),
          ("shl.b32", "b32 b32 u32", each(lambda a, n: (a << n if n < 32 else 0) & 0xFFFFFFFF)),
          ("shr.u32", "u32 u32 u32", each(lambda a, n: a >> n if n < 32 else 0)),
          ("shr.s32", "s32 s32 u32", each(lambda a, n: a >> min(n, 31))), ("shr.s64", "s64 s64 u32", each(lambda a, n: a >> min(n, 63))),
          ("shl.b16", "b16 b16 u32", each(lambda a, n: (a << n if n < 16 else 0) & 0xFFFF)),
          ("shf.l.wrap.b32", "b32 b32 b32 u32", each(lambda a, b, n: ((b << 32 | a) << (n & 31)) >> 32 & 0xFFFFFFFF)),
          ("shf.r.clamp.b32", "b32 b32 b32 u32", each(lambda a, b, n: (b << 32 | a) >> min(n, 32) & 0xFFFFFFFF))]
CASES += [(f"{op}.{k}", f"{k} {k} {k}", ieee(f, NUMPY[k])) for k in ("f32", "f64") for op, f in (
    ("add.rn", np.add), ("sub.rn", np.subtract), ("mul.rn", np.multiply), ("div.rn", np.divide), ("min", np.fmin), ("max", np.fmax))]
CASES += [(f"{op}.f16", "f16 f16 f16", ieee(f, np.float16)) for op, f in (
    ("add.rn", np.add), ("sub.rn", np.subtract), ("mul.rn", np.multiply), ("min", np.fmin))]
CASES += [("fma.rn.f16", "f16 f16 f16 f16", half_fma), ("neg.f16", "f16 f16", np.negative), ("abs.f16", "f16 f16", np.abs),
          ("neg.f32", "f32 f32", np.negative), ("abs.f64", "f64 f64", np.abs), ("copysign.f32", "f32 f32 f32", lambda a, b: np.copysign(b, a)),
          ("sqrt.rn.f32", "f32 f32", ieee(np.sqrt)), ("rcp.rn.f32", "f32 f32", ieee(lambda a: 1 / a)), ("sqrt.rn.f64", "f64 f64", ieee(np.sqrt, np.float64)),
          ("min.NaN.f32", "f32 f32 f32", np.minimum), ("max.NaN.f32", "f32 f32 f32", np.maximum),
          ("add.ftz.f32", "f32 f32 f32", ieee(lambda a, b: flush(flush(a) + flush(b)))),
          ("mul.sat.f32", "f32 f32 f32", ieee(lambda a, b: np.nan_to_num(np.clip(a * b, 0, 1), nan=0)))]
CASES += [(f"{op}.r{d}.f32", " ".join(["f32"] * (n + 1)), toward(d, f)) for d in "mpz" for op, n, f in (
    ("add", 2, lambda a, b: a + b), ("mul", 2, lambda a, b: a * b), ("fma", 3, lambda a, b, c: a * b + c))]
CASES += [(f"{op}.approx.f32", "f32 f32", ieee(f)) for op, f in (
    ("ex2", np.exp2), ("lg2", np.log2), ("sin", np.sin), ("cos", np.cos), ("rsqrt", lambda a: 1 / np.sqrt(a)), ("tanh", np.tanh))]
CASES += [(f"cvt.{m}.{k}.{s}", f"{k} {s}", each(clamp(lo, hi, f))) for s in ("f32", "f64") for m, f in (
    ("rni", round), ("rzi", math.trunc), ("rmi", math.floor), ("rpi", math.ceil)) for k, lo, hi in (
    ("s32", SMIN, SMAX), ("u32", 0, 2**32 - 1), ("s64", -2**63, 2**63 - 1), ("u16", 0, 65535), ("s8", -128, 127))]
CASES += [(f"cvt.{k}.{s}", f"{k} {s}", lambda a, t=NUMPY[k]: a.astype(t)) for k, s in (
    ("s64", "s32"), ("u64", "u32"), ("s32", "s8"), ("u32", "u8"), ("u16", "u32"), ("s16", "s64"), ("f32", "f16"), ("f64", "f32"))]
CASES += [(f"cvt.rn.{k}.{s}", f"{k} {s}", ieee(lambda a: a, NUMPY[k])) for k, s in (
    ("f32", "s32"), ("f32", "u32"), ("f32", "s64"), ("f64", "u64"), ("f16", "f32"), ("f32", "f64"), ("f16", "s32"))]
CASES += [(f"cvt.r{d}.f32.f64", "f32 f64", toward(d, lambda a: a)) for d in "mpz"]
CASES += [(f"cvt.r{d}.f32.s32", "f32 s32", toward(d, lambda a: a)) for d in "mpz"]
CASES += [("cvt.sat.u8.s32", "u8 s32", each(lambda a: min(max(a, 0), 255))), ("cvt.sat.s16.u32", "s16 u32", each(lambda a: min(a, 32767))),
          ("cvt.rni.f32.f32", "f32 f32", np.rint), ("cvt.sat.f32.f32", "f32 f32", lambda a: np.nan_to_num(np.clip(a, 0, 1), nan=0))]
COMPARE = {"eq": np.equal, "ne": lambda a, b: (a != b) & (a == a) & (b == b), "lt": np.less, "le": np.less_equal, "gt": np.greater,
           "ge": np.greater_equal}
CASES += [(f"setp.{c}.{k}", f"pred {k} {k}", f) for c, f in COMPARE.items() for k in ("s32", "u32", "f32", "s64", "f16")]
CASES += [(f"setp.{c}u.f32", "pred f32 f32", lambda a, b, f=f: f(a, b) | (a != a) | (b != b)) for c, f in COMPARE.items()]
CASES += [(f"setp.{c}.u32", "pred u32 u32", f) for c, f in (("lo", np.less), ("ls", np.less_equal), ("hi", np.greater), ("hs", np.greater_equal))]
CASES += [("setp.num.f32", "pred f32 f32", lambda a, b: (a == a) & (b == b)), ("setp.nan.f32", "pred f32 f32", lambda a, b: (a != a) | (b != b)),
          ("set.lt.u32.f32", "u32 f32 f32", lambda a, b: np.where(a < b, 0xFFFFFFFF, 0)), ("slct.s32.s32", "s32 s32 s32 s32", lambda a, b, c: np.where(c >= 0, a, b)),
          ("set.ge.f32.s32", "f32 s32 s32", lambda a, b: np.where(a >= b, 1.0, 0.0))]
CASES += [("add.cc.u32 %t32_0, @1, @2; addc.u32 @0, @1, 0", "u32 u32 u32", wrap(lambda a, b: a + (a + b >> 32), 32, False)),
          ("sub.cc.u32 %t32_0, @1, @2; subc.u32 @0, @1, @2", "u32 u32 u32", wrap(lambda a, b: a - b - (a < b), 32, False)),
          ("mov.b32 {%t16_0, %t16_1}, @1; mov.b32 @0, {%t16_1, %t16_0}", "b32 b32", each(lambda a: (a << 16 | a >> 16) & 0xFFFFFFFF)),
          ("mov.b64 {%t32_0, %t32_1}, @1; mov.b64 @0, {%t32_1, %t32_0}", "b64 b64", each(lambda a: (a << 32 | a >> 32) & (2**64 - 1))),
          ("setp.lt.s32 %q, @1, @2; selp.b32 @0, @1, @2, %q", "s32 s32 s32", np.minimum),
          ("setp.lt.s32 %q|%s, @1, @2; setp.gt.and.s32 %q, @1, 5, %q; selp.b32 @0, 1, 0, %q", "s32 s32 s32", lambda a, b: (a < b) & (a > 5)),
          ("mov.b32 @0, 0f3FC00000; add.f32 @0, @0, @1", "f32 f32", ieee(lambda a: a + np.float32(1.5))),
          ("mov.f64 @0, 0d3FF8000000000000; mul.f64 @0, @0, @1", "f64 f64", ieee(lambda a: a * 1.5, np.float64)),
          ("{ .reg .b32 %t32_0; mov.u32 %t32_0, 7; { .reg .b32 %t32_0; mov.u32 %t32_0, 1; } add.u32 @0, @1, %t32_0; }", "u32 u32", lambda a: a + np.uint32(7)),
          ("setp.eq.s32 %q, @1, @2; mov.s32 @0, 3; @%q bra OUT{n}; mov.s32 @0, 4; @!%q add.s32 @0, @0, 1; OUT{n}: add.s32 @0, @0, 10",
           "s32 s32 s32", lambda a, b: np.where(a == b, 13, 15))]


def kernel(number, text, types):
    """An entry that applies an instruction to arrays of its operand types."""
    out, *inputs = types.split()
    size = lambda k: 1 if k == "pred" else int(k[1:]) // 8
    move = lambda k: "u8" if k == "pred" else k
    names = [f"%x{i}" for i in range(len(inputs))]
    reg = lambda k: ".b16" if size(k) == 1 and k != "pred" else ".pred" if k == "pred" else f".b{8 * size(k)}"
    declared = "".join(f".reg {reg(k)} {n};\n" for k, n in zip([out, *inputs], ["%d", *names]))
    code = f"ld.param.u64 %o, [p0];\nmad.wide.u32 %o, %i, {size(out)}, %o;\n"
    for i, (k, n) in enumerate(zip(inputs, names), 1):
        code += f"ld.param.u64 %a, [p{i}];\nmad.wide.u32 %a, %i, {size(k)}, %a;\nld.global.{k} {n}, [%a];\n"
    if "@0" in text or "@1" in text:
        for i, n in enumerate(["%d", *names]):
            text = text.replace(f"@{i}", n)
        text = text.replace("{n}", str(number))
    else:
        op, _, tail = text.partition(" @ ")
        text = f"{op} {', '.join(['%d', *names])}{tail}"
    code += text + ";\n"
    code += "selp.u16 %b, 1, 0, %d;\nst.global.u8 [%o], %b;\n" if out == "pred" else f"st.global.{move(out)} [%o], %d;\n"
    parameters = ", ".join(f".param .u64 p{i}" for i in range(len(inputs) + 1))
    return (f".visible .entry k{number}({parameters})\n{{\n{declared}.reg .b64 %o; .reg .b64 %a; .reg .b32 %i; .reg .b16 %b; "
            f".reg .pred %q; .reg .pred %s; .reg .b32 %t32_<4>; .reg .b16 %t16_<4>;\nmov.u32 %i, %tid.x;\n{code}ret;\n}}\n")


HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"


@pytest.fixture(scope="module")
def everything():
    return PtxModule(HEAD + "".join(kernel(i, text, types) for i, (text, types, _) in enumerate(CASES)))


def operands(kind, rng, small):
    """Random numbers of a type with its extremes among them; shift counts and the like near the width."""
    dtype = np.dtype(NUMPY[kind])
    if dtype.kind == "f":
        x = rng.standard_normal(THREADS) * 10.0 ** rng.integers(-6, 7, THREADS)
        info = np.finfo(dtype)
        edges = [0.0, -0.0, 1, -1, 0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, info.max, info.tiny, -info.smallest_subnormal,
                 2**31, -2**31 - 1, 255.5, 65535.5]
        with np.errstate(all="ignore"):
            x = x.astype(dtype)
            x[rng.permutation(THREADS)[:len(edges) * 3]] = edges * 3
        return x
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, THREADS, dtype=dtype, endpoint=True)
    if small:
        return rng.integers(0, 70, THREADS).astype(dtype)
    edges = [info.min, info.max, 0, 1, info.max - 1, 2, 5, 7]
    x[rng.permutation(THREADS)[:24]] = edges * 3
    return x


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{t.split(' @ ')[0][:40]}" for t, _, _ in CASES])
def test_instruction_is_numpys(everything, number, rng):
    text, types, expected = CASES[number]
    out, *inputs = types.split()
    counts = text.startswith(("shl", "shr", "bfe", "bfi", "shf"))
    data = [operands(k, rng, counts and i > 0 and k == "u32") for i, k in enumerate(inputs)]
    if text.startswith(("div.s", "div.u", "rem")):
        data[1][data[1] == 0] = 3
    got = np.zeros(THREADS, np.uint8 if out == "pred" else NUMPY[out])
    everything.get_function(f"k{number}")((1,), (THREADS,), (got, *data))
    with np.errstate(all="ignore"):
        want = np.asarray(expected(*data)).astype(got.dtype)
    if ".approx" in text:
        np.testing.assert_allclose(got, want, rtol=3e-7, atol=1e-7 if "sin" in text or "cos" in text else 0)
    else:
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("text", [
    "tex.2d.v4.f32.s32 {%f1}, [t, {%r1}]", "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%r1}, {%r1}, {%r1}, {%r1}", "bar.sync 1, 64",
    "bar.sync 0, 64", "add.rn.f16x4 %r1, %r1, %r1", "mov.u32 %r1, %clock", "atom.add.noftz.f16 %r1, [%rd1], %r1",
    "ld.global.v8.f32 {%r1}, [%rd1]", "mov.u32 %r9, 1", "setp.xx.f32 %p1, %r1, %r1", "cp.async.bulk.commit_group %r1",
    "cvt.rn.satfinite.e4m3x2.f32 %r1, %r1, %r1", "elect.sync %r1|%p1, 3", "cvt.rs.f32.f64 %r1, %rd1", "add.rna.f32 %r1, %r1, %r1"])
def test_unknown_instruction_raises_by_name(text):
    body = f".visible .entry k(.param .u64 p)\n{{ .reg .b32 %r<4>; .reg .b64 %rd<3>; .reg .pred %p<3>;\n{text};\nret;\n}}"
    with pytest.raises(HostCudaError, match="k: PTX (instruction|operand) .*not supported"):
        PtxModule(HEAD + body)


@pytest.mark.parametrize("ptx, sentence", [
    ("", "no .entry"), (HEAD + ".visible .entry k(.param .u64 p) { ret;", "a brace is not closed"),
    (HEAD + ".func f(.param .b32 a) { ret; } .visible .entry k() { ret; }", r"not inlined \(f\)"),
    (HEAD + ".visible .entry k() { call.uni (r), vprintf, (a, b); ret; }", "k calls vprintf"),
    (HEAD + ".visible .entry k() { .branchtargets A, B; ret; }", "directive .branchtargets is not supported"),
    (HEAD + ".visible .entry k() { .reg .b128 %q<2>; ret; }", "register type .b128 is not supported")])
def test_what_is_no_plain_kernel_is_refused(ptx, sentence):
    with pytest.raises(HostCudaError, match=sentence):
        PtxModule(ptx)
