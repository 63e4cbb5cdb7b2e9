// The checker: which memory a thread may touch, and whether an access is ordered after those that it conflicts with.
#pragma once
#include <link.h>
#include "state.h"
#include <algorithm>
#include <vector>

namespace {
// Time is counted in stamps: one more with every block and every __syncthreads, over all launches, so that what a cell
// holds of an earlier launch is recognised and need not be cleared.
unsigned now, launch_start, block_start;                        // the stamp; when this launch and this block began
struct Begun { unsigned stamp; int block; };
std::vector<Begun> begun;                                       // the blocks of this launch, in the order of their stamps

// Per `grain` bytes: the last write, and the reads since. FastTrack's argument makes the last write enough: what races
// with an earlier one races with it too. Of reads, the warps that made them at this stamp are kept, and while it is a
// single warp its lanes by clock (two clocks: lanes that synchronise in halves drift apart; a third forgets the oldest).
struct alignas(32) Cell {
  unsigned written, read, warps, mask[2], clock[2];             // stamps of the last write and read, or 0
  unsigned short writer; bool atomic, pending;                  // pending: an asynchronous copy's
};
// What is only looked at when two accesses meet: kept apart, so that cells stay small.
struct Trail { pc_t write, read, foreign; unsigned clock, before; unsigned short reader, foreigner; };  // before: foreign's

struct Region {
  addr low, high; bool constant, shared; const char* name; unsigned shift; Cell* cells; Trail* trails;
  addr base() const { return low & ~(addr)3; }
  long at(addr a) const { return (long)((a - base()) >> shift); }
  size_t number() const { return at(high + (1u << shift) - 1); }
};
std::vector<Region> regions;
Region* sites[256];                                             // by a hash of the instruction: what it touched last
Region*& site_of(pc_t pc) { return sites[((addr)pc >> 2 ^ (addr)pc >> 10) & 255]; }

// The memory of cells, of each region by its number: kept for the next launch, unless it is much.
struct Store { void* memory; Cell* cells; Trail* trails; size_t number; };
std::vector<Store> stores;
constexpr size_t KEPT = 1 << 16;                                // cells

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
  regions.push_back({low, high, constant, shared, name, (unsigned)__builtin_ctz(grain), nullptr, nullptr});
}
void place_cells(Region& r) {
  Store& s = stores[&r - regions.data()];
  if (size_t n = r.number(); s.number < n) {
    free(s.memory);
    s.memory = calloc(n + 1, sizeof(Cell) + sizeof(Trail)); s.number = n;        // what is never touched takes no memory
    s.cells = (Cell*)(((addr)s.memory + sizeof(Cell) - 1) / sizeof(Cell) * sizeof(Cell)); s.trails = (Trail*)(s.cells + n);
  }
  r.cells = s.cells; r.trails = s.trails;
}
void drop_cells() { for (auto& s : stores) free(s.memory); stores.clear(); }
void begin_cells() {
  if (now > 1u << 31) { drop_cells(); now = 0; }                // before the stamps run out
  launch_start = now + 1;
  if (stores.size() < regions.size()) stores.resize(regions.size());
  for (auto& r : regions) if (checking && !r.constant) place_cells(r);
}
void free_regions() {
  size_t kept = 0;
  for (auto& s : stores) kept += s.number;
  if (kept > KEPT) drop_cells();
  regions.clear(); begun.clear(); std::fill(std::begin(sites), std::end(sites), nullptr);
}

// Cells follow the narrowest access, so that neighbours of two threads in one word are not taken for a race.
void refine(Region& r, unsigned shift) {
  Store coarse = stores[&r - regions.data()];
  stores[&r - regions.data()] = {};
  unsigned by = r.shift - shift;
  r.shift = shift; place_cells(r);
  for (size_t i = 0; i < r.number(); ++i) { r.cells[i] = coarse.cells[i >> by]; r.trails[i] = coarse.trails[i >> by]; }
  free(coarse.memory);
}

Region* region_of(addr a) {
  for (auto& r : regions) if (a >= r.low && a < r.high) return &r;
  return nullptr;
}
int block_at(unsigned stamp) {
  auto after = std::upper_bound(begun.begin(), begun.end(), stamp, [](unsigned s, const Begun& b) { return s < b.stamp; });
  return after[-1].block;
}

bool lane_ordered(int warp, int lane, unsigned clock) {
  return all_known[warp] >= clock || known[warp][current & 31][lane] >= clock;
}
// Is an access made earlier in this schedule ordered before the current thread's next one?
bool ordered(unsigned stamp, int tid, unsigned clock) {
  if (stamp < block_start) return false;                        // blocks of one launch are never ordered
  return tid == current || stamp < now || (tid / 32 == current / 32 && lane_ordered(tid / 32, tid & 31, clock));
}

[[noreturn]] void race(const char* here, const char* then, unsigned stamp, int tid, pc_t other, pc_t pc, addr a,
                       const Region& r) {
  const char* why = stamp < block_start ? "the blocks of one launch are not ordered" :
    tid / 32 == current / 32 ? "no __syncwarp or __syncthreads between them" : "no __syncthreads between them";
  fail(pc, other, "race: %s here and %s by thread %d of block %d on byte %ld of %s: %s", here, then, tid, block_at(stamp),
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

// What is older than `start` is of no concern: of an earlier launch, or of another block's shared memory.
void renew(Cell& c, Trail& t, unsigned start) {
  if (c.written < start) { c.written = 0; c.pending = false; }
  if (c.read < start) c.read = 0;
  if (t.before < start) t.before = 0;
}

void touch_read(Cell& c, addr a, Region& r, pc_t pc) {
  Trail& t = r.trails[&c - r.cells];
  renew(c, t, r.shared ? block_start : launch_start);
  long byte = (long)(a - r.low);
  if (c.pending)
    fail(pc, t.write, "read of byte %ld of %s, whose asynchronous copy has not been waited for", byte, r.name);
  if (r.shared && !c.written)
    fail(pc, nullptr, "read of shared memory that no thread wrote (byte %ld of %s)", byte, r.name);
  if (c.written && !ordered(c.written, c.writer, t.clock)) race("read", "write", c.written, c.writer, t.write, pc, a, r);
  unsigned bit = 1u << (current & 31), warp = 1u << (current / 32), clock = clocks[current];
  if (c.read != now) {                                          // earlier ones are ordered before all that comes
    if (c.read && c.read < block_start) { t.before = c.read; t.foreigner = t.reader; t.foreign = t.read; }
    c.read = now; c.warps = warp; c.mask[0] = bit; c.mask[1] = 0; c.clock[0] = clock; c.clock[1] = 0;
  } else if (c.warps == warp) {
    bool older = !c.mask[1] || (c.mask[0] && c.clock[1] < c.clock[0]);
    int k = c.clock[0] == clock ? 0 : c.clock[1] == clock ? 1 : older;
    if (c.clock[k] != clock) c.mask[k] = 0, c.clock[k] = clock;
    c.mask[k] |= bit; c.mask[!k] &= ~bit;
  }
  c.warps |= warp; t.reader = current; t.read = pc;
}

void touch_write(Cell& c, bool atomic, addr a, Region& r, pc_t pc) {
  Trail& t = r.trails[&c - r.cells];
  renew(c, t, r.shared ? block_start : launch_start);
  const char* verb = atomic ? "atomic" : "write";
  long byte = (long)(a - r.low); int warp = current / 32;
  if (c.pending)
    fail(pc, t.write, "write to byte %ld of %s, whose asynchronous copy has not been waited for", byte, r.name);
  if (r.shared && atomic && !c.written)
    fail(pc, nullptr, "atomic on shared memory that no thread wrote (byte %ld of %s)", byte, r.name);
  if (c.written && !(atomic && c.atomic) && !ordered(c.written, c.writer, t.clock))
    race(verb, c.atomic ? "atomic" : "write", c.written, c.writer, t.write, pc, a, r);
  if (t.before) race(verb, "read", t.before, t.foreigner, t.foreign, pc, a, r);
  if (c.read && c.read < block_start) race(verb, "read", c.read, t.reader, t.read, pc, a, r);
  if (c.read == now) {
    if (unsigned others = c.warps & ~(1u << warp)) {
      int tid = t.reader / 32 != warp ? t.reader : __builtin_ctz(others) * 32;
      race(verb, "read", c.read, tid, t.read, pc, a, r);
    }
    for (int k = 0; k < 2; ++k)
      for (unsigned lanes = c.mask[k] & ~(1u << (current & 31)); lanes; lanes &= lanes - 1) {
        int lane = __builtin_ctz(lanes);
        if (!lane_ordered(warp, lane, c.clock[k])) race(verb, "read", c.read, warp * 32 + lane, t.read, pc, a, r);
      }
  }
  if (!atomic) c.read = t.before = 0;                           // they are ordered before this write
  c.written = now; c.writer = current; c.atomic = atomic; t.clock = clocks[current]; t.write = pc;
}

enum Mode { READ, WRITE, ATOMIC };

[[gnu::noinline]] Region* find(addr a, int size, Mode mode, pc_t pc) {
  if (!checking || !in_block) return nullptr;
  bool write = mode != READ; const char* verb = write ? "write" : "read";
  if (a - (addr)stacks < stacks_bytes)
    fail(pc, nullptr, "%s of thread %d's local memory, which no other thread can reach", verb,
         (int)((a - (addr)stacks) / STACK));
  Busy inside;
  Region* r = region_of(a);
  if (!r) return outside(a, size, write, pc), nullptr;
  if (a + size > r->high)
    fail(pc, nullptr, "%s of %d bytes reaches %ld bytes past the end of %s", verb, size, (long)(a + size - r->high),
         r->name);
  if (a % size)
    fail(pc, nullptr, "misaligned %s of %d bytes at an address that is %ld mod %d", verb, size, (long)(a % size), size);
  if (r->constant && write)
    fail(pc, nullptr, "write through a pointer to const, or to read-only memory: %s", r->name);
  unsigned shift = std::min(2, __builtin_ctzl(a | size));
  if (!r->constant && shift < r->shift) refine(*r, shift);
  return site_of(pc) = r;
}

// The common cases of touch_read and touch_write, which do the same to a cell; false: neither is one.
inline bool plain_read(Cell& c, const Region& r, pc_t pc) {
  unsigned bit = 1u << (current & 31), warp = 1u << (current / 32), clock = clocks[current];
  if (c.read == now) {                                          // so the write before it has been looked at
    if (c.written == now) return false;
    if (c.warps != warp) { c.warps |= warp; return true; }
    if (c.clock[0] != clock || c.mask[1]) return false;
    c.mask[0] |= bit;
    return true;
  }
  if (!r.shared || c.pending || c.written < block_start || c.written == now) return false;
  c.read = now; c.warps = warp; c.mask[0] = bit; c.mask[1] = 0; c.clock[0] = clock; c.clock[1] = 0;
  Trail& t = r.trails[&c - r.cells];
  t.reader = current; t.read = pc;
  return true;
}
inline bool plain_write(Cell& c, const Region& r, pc_t pc) {
  if (!r.shared || c.pending || c.written == now || c.read == now) return false;
  c.read = 0; c.written = now; c.writer = current; c.atomic = false;
  Trail& t = r.trails[&c - r.cells];
  t.clock = clocks[current]; t.write = pc;
  return true;
}

// Most accesses go where the last one of the same instruction went.
inline __attribute__((always_inline)) void check(addr a, int size, Mode mode, pc_t pc) {
  if (a - ((addr)stacks + current * STACK) < STACK) return;     // local memory
  Region* r = site_of(pc);
  if (!r || a < r->low || a + size > r->high || a % size || (mode != READ && r->constant) || size >> r->shift == 0)
    r = find(a, size, mode, pc);
  if (!r || r->constant) return;
  Cell* c = r->cells + r->at(a);
  for (int i = 0, n = size >> r->shift; i < n; ++i, ++c) {
    addr at = a + ((addr)i << r->shift);
    if (mode == READ) { if (!plain_read(*c, *r, pc)) touch_read(*c, at, *r, pc); }
    else if (mode == ATOMIC || !plain_write(*c, *r, pc)) touch_write(*c, mode == ATOMIC, at, *r, pc);
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
