"""Sectors and bank conflicts of access patterns whose answer is known."""
import numpy as np
import pytest

from kernels.hostcuda import PtxModule, traffic

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n.file 1 \"patterns.cu\"\n"
WORDS = {4: "b32", 8: "v2.b32", 16: "v4.b32", 1: "u8", 2: "u16"}
REGISTERS = {4: "%r9", 8: "{%r9, %r10}", 16: "{%r9, %r10, %r11, %r12}", 1: "%r9", 2: "%r9"}


def kernel(name, index, size, space, write):
    """An entry in which thread t accesses `size` bytes at byte offset `index`, PTX that makes %r3 of %r2 = t."""
    op = f"{'st' if write else 'ld'}.{space}.{WORDS[size]}"
    at = "[%rd4]" if space == "global" else "[%r5]"
    access = f"{op} {at}, {REGISTERS[size]};" if write else f"{op} {REGISTERS[size]}, {at};"
    fill = "" if space == "global" else (
        ".shared .align 128 .b8 tile[16384]; mov.u32 %r6, tile; shl.b32 %r7, %r2, 2; add.s32 %r7, %r7, %r6; mov.u32 %r8, 0;\n"
        "FILL_N: st.shared.b32 [%r7], 0; add.s32 %r7, %r7, 256; add.s32 %r8, %r8, 256; setp.lt.u32 %p1, %r8, 16384;\n"
        "@%p1 bra FILL_N; bar.sync 0; add.s32 %r5, %r6, %r3;").replace("FILL_N", f"FILL_{name}").replace("tile", f"tile_{name}")
    return (f".visible .entry {name}(.param .u64 p)\n{{ .reg .b64 %rd<9>; .reg .b32 %r<20>; .reg .pred %p<3>;\n"
            f"ld.param.u64 %rd1, [p]; mov.u32 %r2, %tid.x; {index} cvt.u64.u32 %rd3, %r3; add.s64 %rd4, %rd1, %rd3;\n"
            f".loc 1 1 1\n{fill}\n.loc 1 7 1\n{access}\nret;\n}}\n")


STRIDE = "mul.lo.u32 %r3, %r2, {};".format
# name: index of thread t, bytes an access, space, write, cost of both warps, least
PATTERNS = {
    "coalesced": (STRIDE(4), 4, "global", False, 8, 8), "coalesced_write": (STRIDE(4), 4, "global", True, 8, 8),
    "float2": (STRIDE(8), 8, "global", False, 16, 16), "float4": (STRIDE(16), 16, "global", False, 32, 32),
    "bytes": (STRIDE(1), 1, "global", False, 2, 2), "halves": (STRIDE(2), 2, "global", False, 4, 4),
    "shifted": (STRIDE(4) + "add.u32 %r3, %r3, 4;", 4, "global", False, 10, 8),
    "every_second": (STRIDE(8), 4, "global", False, 16, 8), "column": (STRIDE(128), 4, "global", False, 64, 8),
    "float4_of_rows": (STRIDE(256), 16, "global", False, 64, 32), "same": ("mov.u32 %r3, 64;", 4, "global", False, 2, 2),
    "pairs": ("shr.u32 %r3, %r2, 1; shl.b32 %r3, %r3, 2;", 4, "global", False, 4, 4),
    "rows": (STRIDE(4), 4, "shared", False, 2, 2), "broadcast": ("mov.u32 %r3, 12;", 4, "shared", False, 2, 2),
    "two_way": (STRIDE(8), 4, "shared", False, 4, 2), "four_way": (STRIDE(16), 4, "shared", False, 8, 2),
    "columns": (STRIDE(128), 4, "shared", False, 64, 2), "padded_columns": (STRIDE(132), 4, "shared", False, 2, 2),
    "write_two_way": (STRIDE(8), 4, "shared", True, 4, 2), "shared_float2": (STRIDE(8), 8, "shared", False, 4, 4),
    "shared_float4": (STRIDE(16), 16, "shared", False, 8, 8), "float4_columns": (STRIDE(128), 16, "shared", False, 64, 8),
    "float4_padded": (STRIDE(144), 16, "shared", False, 8, 8), "shared_bytes": (STRIDE(1), 1, "shared", False, 2, 2),
    "same_bank_same_word": ("and.b32 %r3, %r2, 1; shl.b32 %r3, %r3, 7;", 4, "shared", False, 4, 2),
}


@pytest.fixture(scope="module")
def patterns():
    return PtxModule(HEAD + "".join(kernel(n, *p[:4]) for n, p in PATTERNS.items()), traced=True)


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_costs_what_it_must(patterns, name):
    _, size, space, write, cost, least = PATTERNS[name]
    patterns.get_function(name)((1,), (64,), (np.zeros(32768, np.uint8),))
    sites, moved = traffic(patterns)
    (site,) = (s for s in sites if s.place == "patterns.cu:7")
    assert (site.cost, site.least, site.requests) == (cost, least, 2)
    assert (site.shared, site.write, site.bytes) == (space == "shared", write, size)
    assert site.ratio == cost / least == site.worst
    assert moved == 32 * (cost if space == "global" else 0)


def test_launches_add_up_and_are_counted_once(patterns):
    for _ in range(3):
        patterns.get_function("column")((2,), (64,), (np.zeros(32768, np.uint8),))
    sites, moved = traffic(patterns)
    (site,) = (s for s in sites if s.place == "patterns.cu:7")
    assert site.requests == 12 and site.cost == 6 * 64 and moved == 32 * 6 * 64
    assert traffic(patterns) == ([], 0)


LOOP = """.visible .entry again(.param .u64 p)
{ .reg .b64 %rd<9>; .reg .b32 %r<20>; .reg .pred %p<3>;
ld.param.u64 %rd1, [p]; mov.u32 %r2, %tid.x; mul.lo.u32 %r3, %r2, 4; mov.u32 %r4, 0;
NEXT: or.b32 %r5, %r2, %r4; setp.eq.u32 %p1, %r5, 0; @%p1 bra SKIP;
cvt.u64.u32 %rd3, %r3; add.s64 %rd4, %rd1, %rd3; ld.global.b32 %r9, [%rd4];
SKIP: bar.sync 0; add.u32 %r3, %r3, 4096; add.u32 %r4, %r4, 1; setp.lt.u32 %p2, %r4, 3; @%p2 bra NEXT;
ret;
}
"""


def test_a_lane_that_skips_an_access_is_back_in_step_after_the_barrier():
    """Thread 0 leaves out the first of three rounds: six requests of four sectors, none torn."""
    module = PtxModule(HEAD + LOOP, traced=True)
    for _ in range(2):
        module.get_function("again")((1,), (64,), (np.zeros(32768, np.uint8),))
    (site,), moved = traffic(module)
    assert site.requests == 2 * 6 and site.cost == site.least == 2 * 24 and moved == 32 * site.cost


def test_an_untraced_module_has_nothing_to_say():
    module = PtxModule(HEAD + kernel("k", STRIDE(4), 4, "global", False))
    module.get_function("k")((1,), (64,), (np.zeros(32768, np.uint8),))
    assert traffic(module) == ([], 0)
