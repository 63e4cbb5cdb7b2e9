// The checker: which memory a thread may touch, and whether an access is ordered after those that it conflicts with.
#pragma once
#include <link.h>
#include "state.h"
#include <algorithm>
#include <vector>

namespace {
// Per `grain` bytes: the last write, and the reads since. A block's number is kept plus one: zero is none, so that
// memory from calloc is an empty cell. FastTrack's argument makes the last write enough: what races with an earlier
// one races with it too. Of reads, the warps that made them in this epoch are kept, and while it is a single warp its
// lanes by clock (two clocks: lanes that synchronise in halves drift apart; a third forgets the oldest).
struct Cell {
  struct { int block; unsigned epoch, clock; unsigned short tid; bool atomic; pc_t pc; } write;
  struct { int block; unsigned epoch, warps, mask[2], clock[2]; unsigned short tid; pc_t pc; } read;
  struct { int block; unsigned short tid; pc_t pc; } foreign;    // a reader in an earlier block
  int owner; bool written, pending;                              // of shared memory; pending: an asynchronous copy's
};

struct Region {
  addr low, high; bool constant, shared; const char* name; unsigned grain; Cell* cells;
  Cell& cell(addr a) { return cells[(a - (low & ~(addr)3)) / grain]; }
  long number() const { return (long)((high - (low & ~(addr)3) + grain - 1) / grain); }
};
std::vector<Region> regions; Region* last_region;

struct Segment { addr low, high; bool writable; };
std::vector<Segment> segments;                                  // where this library is: the source's own constants

unsigned known[MAX_THREADS / 32][32][32];                       // [w][i][j]: the clock of lane j that lane i has seen
unsigned all_known[MAX_THREADS / 32];                           // the clock that all lanes have seen of all

void find_segments() {
  if (!segments.empty()) return;
  dl_iterate_phdr([](dl_phdr_info* info, size_t, void*) {
    bool mine = false; std::vector<Segment> found; addr scheduler = (addr)&scheduler_sp;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const auto& p = info->dlpi_phdr[i];
      if (p.p_type != PT_LOAD) continue;
      addr low = info->dlpi_addr + p.p_vaddr, high = low + p.p_memsz;
      found.push_back({low, high, (p.p_flags & PF_W) != 0});
      mine = mine || ((addr)scheduler >= low && (addr)scheduler < high);
    }
    if (mine) segments = found;
    return (int)mine;
  }, nullptr);
}

void add_region(addr low, addr high, bool constant, bool shared, const char* name, unsigned grain) {
  Region r{low, high, constant, shared, name, grain, nullptr};
  if (checking && !constant) r.cells = (Cell*)calloc(r.number(), sizeof(Cell));
  regions.push_back(r);
}
void free_regions() { for (auto& r : regions) free(r.cells); regions.clear(); last_region = nullptr; }

// Cells follow the narrowest access, so that neighbours of two threads in one word are not taken for a race.
void refine(Region& r, unsigned grain) {
  Region fine = r; fine.grain = grain;
  fine.cells = (Cell*)calloc(fine.number(), sizeof(Cell));
  for (long i = 0; i < fine.number(); ++i) fine.cells[i] = r.cells[i * grain / r.grain];
  free(r.cells); r = fine;
}

Region* region_of(addr a) {
  if (last_region && a >= last_region->low && a < last_region->high) return last_region;
  for (auto& r : regions) if (a >= r.low && a < r.high) return last_region = &r;
  return nullptr;
}

bool lane_ordered(int warp, int lane, unsigned clock) {
  return all_known[warp] >= clock || known[warp][current & 31][lane] >= clock;
}
// Is an access made earlier in this schedule ordered before the current thread's next one?
bool ordered(int block, int tid, unsigned then, unsigned clock) {
  if (block != block_number + 1) return false;                  // blocks of one launch are never ordered
  if (tid == current || then < epoch) return true;
  return tid / 32 == current / 32 && lane_ordered(tid / 32, tid & 31, clock);
}

[[noreturn]] void race(const char* now, const char* then, int block, int tid, pc_t other, pc_t pc, addr a,
                       const Region& r) {
  const char* why = block != block_number + 1 ? "the blocks of one launch are not ordered" :
    tid / 32 == current / 32 ? "no __syncwarp or __syncthreads between them" : "no __syncthreads between them";
  fail(pc, other, "race: %s here and %s by thread %d of block %d on byte %ld of %s: %s", now, then, tid, block - 1,
       (long)(a - r.low), r.name, why);
}

// No region holds the address: say which one it misses by least.
void outside(addr a, int size, bool write, pc_t pc) {
  const char* verb = write ? "write" : "read";
  if (a < 4096) fail(pc, nullptr, "%s through a null pointer", verb);
  const Region* near = nullptr; long best = 0;
  for (auto& r : regions) {
    long off = a >= r.high ? (long)(a - r.high) + 1 : (long)(a - r.low);
    if (!near || labs(off) < labs(best)) { near = &r; best = off; }
  }
  bool inside = false, writable = false;
  for (auto& s : segments) if (a >= s.low && a < s.high) { inside = true; writable = s.writable; }
  addr dynamic = (addr)dynamic_shared;
  bool shared = (a >= (addr)hc_static_begin && a < (addr)hc_static_end) || (a >= dynamic && a < dynamic + MAX_DYNAMIC);
  if (inside && !shared && !write) return;                      // the source's own constant data
  if (inside && !shared) fail(pc, nullptr, "write to %s", writable ? "memory that is no argument" : "constant memory");
  if (near && labs(best) < (1 << 20))
    fail(pc, nullptr, "%s of %d bytes %ld bytes %s %s", verb, size, best > 0 ? best - 1 + size : -best,
         best > 0 ? "past the end of" : "before the start of", near->name);
  if (shared) fail(pc, nullptr, "%s of shared memory outside every array", verb);
  fail(pc, nullptr, "%s of %d bytes at an address that is no argument's (%#lx)", verb, size, (unsigned long)a);
}

void touch_read(Cell& c, bool shared, addr a, Region& r, pc_t pc) {
  long byte = (long)(a - r.low);
  if (c.pending)
    fail(pc, c.write.pc, "read of byte %ld of %s, whose asynchronous copy has not been waited for", byte, r.name);
  if (shared && !c.written)
    fail(pc, nullptr, "read of shared memory that no thread wrote (byte %ld of %s)", byte, r.name);
  if (c.write.block && !ordered(c.write.block, c.write.tid, c.write.epoch, c.write.clock))
    race("read", "write", c.write.block, c.write.tid, c.write.pc, pc, a, r);
  unsigned bit = 1u << (current & 31), warp = 1u << (current / 32), clock = threads[current].clock;
  auto& set = c.read;
  if (set.block != block_number + 1 || set.epoch != epoch) {    // earlier epochs are ordered before all that comes
    if (set.block && set.block != block_number + 1) c.foreign = {set.block, set.tid, set.pc};
    set = {block_number + 1, epoch, warp, {bit, 0}, {clock, 0}, (unsigned short)current, pc};
    return;
  }
  if (set.warps == warp) {
    bool older = !set.mask[1] || (set.mask[0] && set.clock[1] < set.clock[0]);
    int k = set.clock[0] == clock ? 0 : set.clock[1] == clock ? 1 : older;
    if (set.clock[k] != clock) set.mask[k] = 0, set.clock[k] = clock;
    set.mask[k] |= bit; set.mask[!k] &= ~bit;
  }
  set.warps |= warp; set.tid = current; set.pc = pc;
}

void touch_write(Cell& c, bool shared, bool atomic, addr a, Region& r, pc_t pc) {
  const char* verb = atomic ? "atomic" : "write";
  long byte = (long)(a - r.low);
  if (c.pending)
    fail(pc, c.write.pc, "write to byte %ld of %s, whose asynchronous copy has not been waited for", byte, r.name);
  if (shared && atomic && !c.written)
    fail(pc, nullptr, "atomic on shared memory that no thread wrote (byte %ld of %s)", byte, r.name);
  const auto& last = c.write;
  if (last.block && !(atomic && last.atomic) && !ordered(last.block, last.tid, last.epoch, last.clock))
    race(verb, last.atomic ? "atomic" : "write", last.block, last.tid, last.pc, pc, a, r);
  if (c.foreign.block) race(verb, "read", c.foreign.block, c.foreign.tid, c.foreign.pc, pc, a, r);
  const auto& set = c.read; int warp = current / 32;
  if (set.block && set.block != block_number + 1) race(verb, "read", set.block, set.tid, set.pc, pc, a, r);
  if (set.block && set.epoch == epoch) {
    if (unsigned others = set.warps & ~(1u << warp)) {
      int tid = set.tid / 32 != warp ? set.tid : __builtin_ctz(others) * 32;
      race(verb, "read", set.block, tid, set.pc, pc, a, r);
    }
    for (int k = 0; k < 2; ++k)
      for (unsigned lanes = set.mask[k] & ~(1u << (current & 31)); lanes; lanes &= lanes - 1) {
        int lane = __builtin_ctz(lanes);
        if (!lane_ordered(warp, lane, set.clock[k])) race(verb, "read", set.block, warp * 32 + lane, set.pc, pc, a, r);
      }
  }
  if (!atomic) c.read = {}, c.foreign = {};                     // they are ordered before this write
  c.write = {block_number + 1, epoch, threads[current].clock, (unsigned short)current, atomic, pc};
  c.written = true;
}

enum Mode { READ, WRITE, ATOMIC };

void check(addr a, int size, Mode mode, pc_t pc) {
  if (!checking || !in_block) return;
  bool write = mode != READ; const char* verb = write ? "write" : "read";
  if (a - (addr)stacks < stacks_bytes) {                        // local memory
    int owner = (int)((a - (addr)stacks) / STACK);
    if (owner == current) return;
    fail(pc, nullptr, "%s of thread %d's local memory, which no other thread can reach", verb, owner);
  }
  Busy inside;
  Region* r = region_of(a);
  if (!r) return outside(a, size, write, pc);
  if (a + size > r->high)
    fail(pc, nullptr, "%s of %d bytes reaches %ld bytes past the end of %s", verb, size, (long)(a + size - r->high),
         r->name);
  if (a % size)
    fail(pc, nullptr, "misaligned %s of %d bytes at an address that is %ld mod %d", verb, size, (long)(a % size), size);
  if (r->constant && write)
    fail(pc, nullptr, "write through a pointer to const, or to read-only memory: %s", r->name);
  if (r->constant) return;
  unsigned narrow = (a | size) & 1 ? 1 : (a | size) & 2 ? 2 : 4;
  if (narrow < r->grain) refine(*r, narrow);
  for (addr at = a; at < a + size; at += r->grain) {
    Cell& c = r->cell(at);
    if (r->shared && c.owner != block_number + 1) { c = Cell(); c.owner = block_number + 1; }   // a new block's memory
    if (write) touch_write(c, r->shared, mode == ATOMIC, at, *r, pc);
    else touch_read(c, r->shared, at, *r, pc);
  }
}

// Accesses that the compiler made a call of its own: in the widest steps that the address allows.
void check_range(const void* p, unsigned long n, Mode mode, pc_t pc) {
  for (unsigned long i = 0, step; i < n; i += step) {
    addr a = (addr)p + i;
    step = a % 4 == 0 && n - i >= 4 ? 4 : a % 2 == 0 && n - i >= 2 ? 2 : 1;
    check(a, (int)step, mode, pc);
  }
}
}  // namespace
