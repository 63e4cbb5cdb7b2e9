"""Translated PTX: memory spaces, barriers, warps, atomics and asynchronous copies, in text as NVRTC and Numba write it."""
import numpy as np
import pytest

from kernels.hostcuda import HostCudaError, PtxModule

HEAD = """.version 8.0
.target sm_80
.address_size 64
.file 1 "/somewhere//cases.cu"
.extern .shared .align 16 .b8 room[];
.shared .align 4 .b8 outer$tile[256];
.global .align 4 .f32 table[3] = {0f3F800000, 0f40000000, 0f40400000};
.const .align 4 .u32 weights[2] = {5, 7};
"""
REGISTERS = """.reg .b64 %rd<9>; .reg .b32 %r<20>; .reg .b16 %h<3>; .reg .pred %p<4>; .reg .f32 %f<9>;
ld.param.u64 %rd1, [out]; ld.param.u64 %rd2, [in]; ld.param.u32 %r1, [n];
mov.u32 %r2, %tid.x; mul.wide.u32 %rd3, %r2, 4; add.s64 %rd4, %rd1, %rd3; add.s64 %rd5, %rd2, %rd3;
ld.global.u32 %r3, [%rd5];
"""
LAST = "st.global.u32 [%rd4], %r9;"
BODIES = {
    "shared": """.shared .align 16 .b8 tile[256];
        mov.u32 %r4, tile; shl.b32 %r5, %r2, 2; add.s32 %r4, %r4, %r5; st.shared.u32 [%r4], %r3; bar.sync 0;
        mov.u32 %r6, 252; sub.s32 %r6, %r6, %r5; mov.u32 %r7, tile; add.s32 %r6, %r6, %r7; ld.shared.u32 %r9, [%r6];""",
    "generic": """.shared .align 16 .b8 tile2[256];
        mov.u64 %rd6, tile2; cvta.shared.u64 %rd7, %rd6; add.s64 %rd7, %rd7, %rd3; st.u32 [%rd7], %r3; barrier.sync.aligned 0;
        cvta.to.shared.u64 %rd8, %rd7; cvt.u32.u64 %r4, %rd8; xor.b32 %r4, %r4, 4; ld.shared.u32 %r9, [%r4];""",
    "outer": """mov.u32 %r4, outer$tile; shl.b32 %r5, %r2, 2; add.s32 %r4, %r4, %r5; st.shared.u32 [%r4], %r3; bar.sync 0;
        xor.b32 %r4, %r4, 8; ld.shared.u32 %r9, [%r4];""",
    "dynamic": """mov.u32 %r4, room; shl.b32 %r5, %r2, 2; add.s32 %r4, %r4, %r5; st.shared.u32 [%r4+0], %r3; bar.sync 0;
        xor.b32 %r4, %r4, 16; ld.shared.u32 %r9, [%r4];""",
    "local": """.local .align 8 .b8 depot[16]; .reg .b64 %SP; mov.u64 %SP, depot; cvta.local.u64 %SP, %SP;
        st.local.u32 [depot+4], %r3; st.u32 [%SP+8], %r2; ld.local.v2.u32 {%r4, %r5}, [depot+8]; ld.u32 %r6, [%SP+4];
        add.s32 %r9, %r4, %r6;""",
    "vectors": """.shared .align 16 .b8 quads[1024]; mov.u32 %r4, quads; shl.b32 %r5, %r2, 4; add.s32 %r4, %r4, %r5;
        st.shared.v4.u32 [%r4], {%r3, %r2, %r3, 9}; bar.sync 0; xor.b32 %r4, %r4, 16;
        ld.shared.v4.b32 {%r5, %r6, %r7, %r8}, [%r4]; add.s32 %r9, %r5, %r6; add.s32 %r9, %r9, %r8;""",
    "constants": """and.b32 %r4, %r2, 1; mul.wide.u32 %rd6, %r4, 4; mov.u64 %rd7, weights; add.s64 %rd7, %rd7, %rd6;
        ld.const.u32 %r9, [%rd7]; ld.global.nc.f32 %f1, [table+8]; cvt.rzi.u32.f32 %r5, %f1; add.s32 %r9, %r9, %r5;""",
    "narrow": """st.global.u32 [%rd4], 0; ld.global.s8 %r4, [%rd5+1]; ld.global.u8 %r5, [%rd5+2]; ld.global.u16 %h1, [%rd5];
        cvt.u32.u16 %r6, %h1; add.s32 %r9, %r4, %r5; add.s32 %r9, %r9, %r6;""",
    "down": "shfl.sync.down.b32 %r9|%p1, %r3, 3, 31, -1; @!%p1 mov.u32 %r9, 0;",
    "up": "shfl.sync.up.b32 %r9|%p1, %r3, 2, 0, 0xffffffff; @!%p1 mov.u32 %r9, 0;",
    "butterfly": "shfl.sync.bfly.b32 %r9, %r3, 5, 31, -1;",
    "index_of_eights": "shfl.sync.idx.b32 %r9, %r3, 3, 6175, -1;",  # width 8: 0x181f
    "votes": """setp.gt.s32 %p1, %r3, 50; vote.sync.ballot.b32 %r9, %p1, -1; vote.sync.any.pred %p2, %p1, -1; @%p2 add.s32 %r9, %r9, 1;
        vote.sync.all.pred %p2, %p1, -1; @%p2 add.s32 %r9, %r9, 2; vote.sync.uni.pred %p2, !%p1, -1; @%p2 add.s32 %r9, %r9, 4;""",
    "block_votes": """setp.gt.s32 %p1, %r3, 50; bar.red.popc.u32 %r9, 0, %p1; bar.red.and.pred %p2, 0, %p1; @%p2 add.s32 %r9, %r9, 1000;
        barrier.sync.aligned 0; barrier.red.or.pred %p2, 0, %p1; @%p2 add.s32 %r9, %r9, 2000;""",
    "lanes": "mov.u32 %r9, %laneid; mov.u32 %r4, %lanemask_lt; popc.b32 %r4, %r4; mad.lo.s32 %r9, %r4, 100, %r9; bar.warp.sync -1;",
    "reduced": "redux.sync.add.s32 %r9, %r3, -1; redux.sync.max.s32 %r4, %r3, -1; redux.sync.xor.b32 %r5, %r3, -1; mad.lo.s32 %r9, %r4, %r5, %r9;",
    "atomics": """setp.eq.u32 %p1, %r2, 0; .shared .align 4 .u32 count; @%p1 st.shared.u32 [count], 0; bar.sync 0;
        atom.shared.add.u32 %r4, [count], %r3; bar.sync 0; red.relaxed.cta.shared.max.u32 [count], 7; bar.sync 0; ld.shared.u32 %r9, [count];
        atom.global.exch.b32 %r5, [%rd4], 3; bar.sync 0; atom.global.cas.b32 %r6, [%rd4], 3, 4; add.s32 %r9, %r9, %r6;""",
    "copies": """.shared .align 16 .b8 fetched[256]; mov.u32 %r4, fetched; shl.b32 %r5, %r2, 2; add.s32 %r4, %r4, %r5;
        setp.lt.u32 %p1, %r2, %r1; selp.b32 %r6, 4, 0, %p1; cp.async.ca.shared.global [%r4], [%rd5], 4, %r6; cp.async.commit_group;
        cp.async.wait_group 0; bar.sync 0; mov.u32 %r7, fetched; mov.u32 %r8, 252; sub.s32 %r8, %r8, %r5; add.s32 %r7, %r7, %r8;
        ld.shared.u32 %r9, [%r7];""",
    "wide_copies": """.shared .align 16 .b8 wide[1024]; mov.u32 %r4, wide; setp.lt.u32 %p1, %r2, 16; shl.b32 %r5, %r2, 4; add.s32 %r4, %r4, %r5;
        mul.wide.u32 %rd6, %r2, 16; add.s64 %rd7, %rd2, %rd6; @%p1 cp.async.cg.shared.global.L2::128B [%r4], [%rd7], 16; cp.async.wait_all;
        bar.sync 0; shl.b32 %r6, %r2, 2; mov.u32 %r7, wide; add.s32 %r6, %r6, %r7; ld.shared.u32 %r9, [%r6];""",
}
WRONG = {
    "no_barrier": ("race|no thread wrote", BODIES["shared"].replace("bar.sync 0;", "").replace("tile", "tile3")),
    "no_wait": ("has not been waited for", BODIES["copies"].replace("cp.async.wait_group 0;", "").replace("fetched", "fetched3")),
    "past_end": ("past the end of argument 2", "ld.global.u32 %r9, [%rd5+256];"),
    "unaligned": ("misaligned read of 8 bytes", "ld.global.u64 %rd6, [%rd2+4]; cvt.u32.u64 %r9, %rd6;"),
    "zero": ("division by zero", "sub.s32 %r4, %r1, %r1; div.s32 %r9, %r3, %r4;"),
    "constant": ("__constant__ variable weights", "mov.u64 %rd7, weights; mov.u32 %r9, 1; st.global.u32 [%rd7], %r9;"),
    "divergent": ("reached by some threads only", "setp.lt.u32 %p1, %r2, 32; @%p1 bar.sync 0; mov.u32 %r9, 1;"),
    "endless": ("time limit", "LOOP: bra.uni LOOP;"),
}


def entry(name, body):
    lines = [f".visible .entry {name}(.param .u64 .ptr .align 1 out, .param .u64 in, .param .u32 n)", ".maxntid 64, 1, 1", "{",
             f".loc 1 {sum(map(ord, name))} 3", REGISTERS, body, LAST, "ret;", "}"]
    return "\n".join(lines) + "\n"


CODE = HEAD + "".join(entry(k, v) for k, v in BODIES.items()) + "".join(entry(k, v) for k, (_, v) in WRONG.items())


def ballot(x):
    bits = np.repeat([sum(int(v > 50) << i for i, v in enumerate(x[w:w + 32])) for w in (0, 32)], 32)
    return bits.astype(np.uint32) + np.repeat([(x[w:w + 32] > 50).any() + 2 * (x[w:w + 32] > 50).all() + 4 * (len(
        set(x[w:w + 32] > 50)) == 1) for w in (0, 32)], 32).astype(np.uint32)


T = np.arange(64)
WARPS = lambda f: lambda x: np.repeat([f(x[:32]), f(x[32:])], 32)
EXPECTED = {
    "shared": lambda x: x[::-1], "generic": lambda x: x[T ^ 1], "outer": lambda x: x[T ^ 2], "dynamic": lambda x: x[T ^ 4],
    "local": lambda x: x + T, "vectors": lambda x: x[T ^ 1] + (T ^ 1) + 9, "constants": lambda x: 5 + 2 * (T % 2) + 3,
    "narrow": lambda x: (x >> 8).astype(np.int8) + (x >> 16 & 255) + (x & 65535),
    "down": lambda x: np.where(T % 32 < 29, np.roll(x, -3), 0), "up": lambda x: np.where(T % 32 >= 2, np.roll(x, 2), 0),
    "butterfly": lambda x: x[T ^ 5], "index_of_eights": lambda x: x[T // 8 * 8 + 3], "votes": ballot,
    "block_votes": lambda x: np.full(64, (x > 50).sum() + 1000 * (x > 50).all() + 2000 * (x > 50).any()),
    "lanes": lambda x: T % 32 * 101,
    "reduced": WARPS(lambda w: w.sum() + w.max() * np.bitwise_xor.reduce(w)),
    "atomics": lambda x: np.full(64, x.sum() + 3), "copies": lambda x: np.where(63 - T < 40, x[::-1], 0), "wide_copies": lambda x: x,
}


@pytest.fixture(params=["forward", "reverse", "random"])
def compiled(request):
    return PtxModule(CODE, order=request.param, time_limit=0.3)


@pytest.mark.parametrize("name", BODIES)
def test_memory_and_collectives(compiled, name, rng):
    x = rng.integers(0, 100, 64).astype(np.int32) if name != "narrow" else rng.integers(0, 2**31, 64).astype(np.int32)
    y = np.zeros(64, np.int32)
    compiled.get_function(name)((1,), (64,), (y, x, np.int32(40)), shared_mem=256)
    assert (y == EXPECTED[name](x).astype(np.int32)).all()


@pytest.mark.parametrize("name", WRONG)
def test_defects_of_ptx_are_found(compiled, name):
    x, y = np.ones(64, np.int32), np.zeros(64, np.int32)
    with pytest.raises(HostCudaError, match=WRONG[name][0]) as caught:
        compiled.get_function(name)((1,), (64,), (y, x, np.int32(40)), shared_mem=256)
    assert name == "endless" or f"{name} at cases.cu:{sum(map(ord, name))}," in str(caught.value)


def test_limits_and_widths_of_arguments(compiled):
    x, y = np.ones(128, np.int32), np.zeros(128, np.int32)
    with pytest.raises(HostCudaError, match="at most 64 threads"):
        compiled.get_function("local")((1,), (128,), (y, x, np.int32(1)))
    with pytest.raises(HostCudaError, match="argument 3 must be a value of 4 bytes, got int64 of 8"):
        compiled.get_function("local")((1,), (64,), (y, x, 1))
    with pytest.raises(HostCudaError, match="argument 3 must be a scalar"):
        compiled.get_function("local")((1,), (64,), (y, x, x))


def test_variables_of_the_module(compiled):
    assert list(compiled.get_global("table").view(np.float32)) == [1, 2, 3]
    assert list(compiled.get_global("weights").view(np.uint32)) == [5, 7]
