"""PTX's memory, control and collective instructions as C++ (PTX ISA, section 9.7.9 to 9.7.14), in ptx_arithmetic's form."""
from .ptx_instructions import CTYPES, Unsupported, one_of, only, width

SPACES = ("global", "shared", "local", "const", "param")
ATOMICS = {"add": "Add", "min": "Min", "max": "Max", "exch": "Exch", "and": "And", "or": "Or", "xor": "Xor", "cas": "CAS",
           "inc": "Inc", "dec": "Dec"}
WHOLE = {1: "unsigned char", 2: "unsigned short", 4: "unsigned", 8: "unsigned long", 16: "unsigned __int128"}
ORDER = ("volatile", "weak", "relaxed", "acquire", "release", "acq_rel", "cta", "gpu", "sys")
CACHE = ("nc", "ca", "cg", "cs", "cv", "lu", "wb", "wt", "L1_no_allocate", "L1_evict_last", "L1_evict_first",
         "L1_evict_normal", "L2_64B", "L2_128B", "L2_256B")


def parts(text):
    return [p.strip() for p in text.strip("{} ").split(",")]


def space_of(mods):
    return next((m.removesuffix("_cta") for m in mods if m.removesuffix("_cta") in SPACES), "generic")


def shape(mods):
    """Type, elements and bytes of a load or store; its other modifiers do not change what it means here."""
    kind, count = mods[-1], next((int(m[1:]) for m in mods if m in ("v2", "v4")), 1)
    only(mods[:-1], SPACES, "shared_cta", ORDER, CACHE, "v2", "v4")
    if width(kind) * count > 128:
        raise Unsupported
    return kind, count, width(kind) * count // 8


def load(b, name, mods, args):
    target, address = args
    kind, count, size = shape(mods)
    c, space = CTYPES[kind], space_of(mods)
    targets = parts(target)
    if space == "param":
        symbol, _, plus = address.strip("[] ").partition("+")
        at = [int(plus or 0) + i * width(kind) // 8 for i in range(count)]
        return " ".join(b.set(t, f"parameter<{c}>(params, {b.parameters[symbol]}, {o})", kind)
                        for t, o in zip(targets, at, strict=True))
    out = b.access(b.pointer(address, space), size, False) if space != "local" else f"char* p_ = {b.pointer(address, space)};"
    if count == 1:
        return f"{out} {b.set(target, f'*({c}*)p_', kind)}"
    return (f"{out} {WHOLE[size]} w_ = *({WHOLE[size]}*)p_; {c} t_[{count}]; __builtin_memcpy(t_, &w_, {size}); " +
            " ".join(b.set(t, f"t_[{i}]", kind) for i, t in enumerate(targets)))


def store(b, name, mods, args):
    address, source = args
    kind, count, size = shape(mods)
    c, space = CTYPES[kind], space_of(mods)
    out = b.access(b.pointer(address, space), size, True) if space != "local" else f"char* p_ = {b.pointer(address, space)};"
    if count == 1:
        return f"{out} *({c}*)p_ = {b.value(source, kind)};"
    values = ", ".join(b.value(t, kind) for t in parts(source))
    return f"{out} {c} t_[{count}] = {{{values}}}; {WHOLE[size]} w_; __builtin_memcpy(&w_, t_, {size}); *({WHOLE[size]}*)p_ = w_;"


def convert_address(b, name, mods, args):
    v, space = b.value(args[1], "u64"), space_of(mods)
    if space == "shared":
        v = f"shared_offset((void*){v})" if "to" in mods else f"(unsigned long)shared_at({v})"
    return b.set(args[0], v, "u64")


def barrier(b, name, mods, args):
    only(mods, "sync", "aligned", "red", "popc", "and", "or", "u32", "pred", "warp")
    if "warp" in mods:
        return f"__syncwarp({b.value(args[0], 'u32')});"
    if "red" in mods:
        target, number, *count, vote = args
        how = {"popc": 1, "and": 2, "or": 3}[one_of(mods, ("popc", "and", "or"))]
        if number != "0" or count:
            raise Unsupported
        return b.set(target, f"hc_meet({b.value(vote, 'pred')}, {how})", "u32" if how == 1 else "pred")
    if args not in ([], ["0"]) or "sync" not in mods:
        raise Unsupported  # named barriers, of some of the threads
    return "hc_meet(0, 0);"


def shuffle(b, name, mods, args):
    target, *operands = args
    d, _, p = (t.strip() for t in target.partition("|"))
    only(mods, "sync", "up", "down", "bfly", "idx", "b32")
    mode = one_of(mods, ("up", "down", "bfly", "idx"))[0]
    values = ", ".join(b.value(v, "u32") for v in operands)
    return f"bool p_; unsigned v_ = shuffle('{mode}', {values}, p_); {b.set(d, 'v_', 'b32')}" + (
        f" {b.register(p)} = p_;" if p and p != "_" else "")


def vote(b, name, mods, args):
    d, p, mask = args
    p, mask = b.value(p, "pred"), b.value(mask, "u32")
    if "ballot" in mods:
        return b.set(d, f"hc_ballot({mask}, {p})", "u32")
    how = one_of(mods, ("all", "any", "uni"))
    e = {"all": f"hc_ballot({mask}, !{p}) == 0", "any": f"hc_ballot({mask}, {p}) != 0",
         "uni": f"uniform({mask}, {p})"}[how]
    return b.set(d, e, "pred")


def reduce_lanes(b, name, mods, args):
    kind = mods[-1]
    only(mods[:-1], "sync", ATOMICS)
    what = one_of(mods, ("add", "min", "max", "and", "or", "xor"))
    return b.set(args[0], f'redux("{what}", {b.value(args[1], kind)}, {b.value(args[2], "u32")})', kind)


def atomic(b, name, mods, args):
    kind, space = mods[-1], space_of(mods)
    only(mods[:-1], SPACES, "shared_cta", ORDER, ATOMICS)
    if kind in ("f16", "bf16", "f16x2", "bf16x2"):
        raise Unsupported
    what = ATOMICS[one_of(mods, ATOMICS)]
    d, a, *xs = ["_", *args] if name == "red" else args
    values = ", ".join(b.value(x, kind) for x in xs)
    return b.access(b.pointer(a, space), width(kind) // 8, True) + b.set(d, f"atomic{what}(({CTYPES[kind]}*)p_, {values})", kind)


def asynchronous(b, name, mods, args):
    only(mods, "async", "ca", "cg", "shared", "shared_cta", "global", "commit_group", "wait_group", "wait_all",
         "L2_64B", "L2_128B", "L2_256B")
    if "commit_group" in mods:
        return "hc_async_commit();"
    if "wait_all" in mods:
        return "hc_async_commit(); __pipeline_wait_prior(0);"
    if "wait_group" in mods:
        return f"__pipeline_wait_prior({int(args[0])});"
    to, source, size, *got = args
    zeros = f"{size} - {b.value(got[0], 'u32')}" if got and got[0].lstrip("%")[0] != "p" else "0"
    if len(got) > (zeros != "0"):
        raise Unsupported
    read = b.access(b.pointer(source, "global"), int(size), False)
    written = b.access(b.pointer(to, "shared"), int(size), True)
    return f"char* q_; {{ {read} q_ = p_; }} {written} hc_async_copy(p_, q_, {size}, {zeros});"


def matrix(b, name, mods, args):
    """wmma of 16-bit factors and float sums: fragments in the layout of half.h, two elements a register."""
    what, size = mods[0], one_of(mods, ("m16n16k16", "m32n8k16", "m8n32k16"))
    m, n, k = (int(v) for v in size[1:].replace("n", " ").replace("k", " ").split())
    sizes, layouts = f"{m}, {n}, {k}", [v for v in mods if v in ("row", "col")]
    element = {"f16": "__half", "bf16": "__nv_bfloat16"}
    only(mods, "load", "store", "mma", "sync", "aligned", "a", "b", "c", "d", size, "row", "col", SPACES, "f16", "bf16", "f32")

    def factor(v, use, kind, layout):
        return f"wmma::fragment<wmma::matrix_{use}, {sizes}, {element[kind]}, wmma::{layout}_major> {v};"

    def pack(v, registers, elements):
        return [(b.register(r), f"{v}.x[{2 * i}].raw.u", f"{v}.x[{2 * i + 1}].raw.u")
                for i, r in enumerate(registers) if 2 * i < elements]

    total = f"wmma::fragment<wmma::accumulator, {sizes}, float>"
    using = "using namespace nvcuda;"
    if what == "mma":
        d, a, bb, c = (parts(v) for v in args)
        kind = next((v for v in mods if v == "bf16"), "f16")
        if "f32" not in mods or (kind == "f16" and mods[-2:] != ["f32", "f32"]):
            raise Unsupported
        out = f"{using} {total} d_, c_;"
        for v, use, registers, layout, elements in (("a_", "a", a, layouts[0], m * k // 32), ("b_", "b", bb, layouts[1], k * n // 32)):
            out += factor(v, use, kind, layout) + "".join(
                f" {lo} = {r} & 65535; {hi} = {r} >> 16;" for r, lo, hi in pack(v, registers, elements))
        out += "".join(f" c_.x[{i}] = {b.value(r, 'f32')};" for i, r in enumerate(c))
        return f"{out} wmma::mma_sync(d_, a_, b_, c_); " + " ".join(b.set(r, f"d_.x[{i}]", "f32") for i, r in enumerate(d))
    space, kind = space_of(mods), mods[-1]
    layout = layouts[0]
    if what == "load":
        target, address, pitch = args
        at = f"({element.get(kind, 'float')}*)({b.pointer(address, space)})"
        pitch, targets = b.value(pitch, "u32"), parts(target)
        if mods[1] in "ab":
            elements = (m if mods[1] == "a" else n) * k // 32
            return (f"{using} {factor('f_', mods[1], kind, layout)} wmma::load_matrix_sync(f_, (const {at[1:]}, {pitch});" +
                    "".join(f" {r} = {lo} | {hi} << 16;" for r, lo, hi in pack("f_", targets, elements)))
        if kind == "f32":
            return (f"{using} {total} f_; wmma::load_matrix_sync(f_, (const {at[1:]}, {pitch}, wmma::mem_{layout}_major); " +
                    " ".join(b.set(r, f"f_.x[{i}]", "f32") for i, r in enumerate(targets)))
    if what == "store" and kind == "f32":
        address, source, pitch = args
        return (f"{using} {total} f_;" + "".join(f" f_.x[{i}] = {b.value(r, 'f32')};" for i, r in enumerate(parts(source))) +
                f" wmma::store_matrix_sync((float*)({b.pointer(address, space)}), f_, {b.value(pitch, 'u32')}, "
                f"wmma::mem_{layout}_major);")
    raise Unsupported


def fixed(text):
    return lambda b, name, mods, args: text


MEMORY = {"ld": load, "ldu": load, "st": store, "cvta": convert_address, "bar": barrier, "barrier": barrier,
          "shfl": shuffle, "vote": vote, "redux": reduce_lanes, "atom": atomic, "red": atomic, "cp": asynchronous,
          "wmma": matrix, "bra": lambda b, name, mods, args: f"goto {args[0].replace('$', '_')};",
          "ret": fixed("return;"), "exit": fixed("return;"), "trap": fixed("__trap();"),
          # no meaning on a model that runs one thread at a time and has no caches
          **dict.fromkeys(("membar", "fence", "nanosleep", "prefetch", "prefetchu"), fixed(";")),
          "activemask": lambda b, name, mods, args: b.set(args[0], "hc_active_mask()", "u32")}
