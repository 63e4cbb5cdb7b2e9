// What threads do together: barriers, warp synchronisation and exchange, asynchronous copies.
#pragma once
#include "checker.h"

namespace {
enum Meeting { SYNC, EXCHANGE, BALLOT, MATRIX };

// Lanes that have not ended, lanes that are AT_WARP, and whether these are all at one place with one mask.
struct Warp { unsigned present, waiting, mask; pc_t where; bool alike; };
Warp warps[MAX_THREADS / 32];

int arrived, votes, released;                                   // at a barrier; their votes; those of the last barrier
pc_t barrier; bool one_barrier;                                 // where the first of them is; whether all are there

void multiply(int base) {
  const Operands* all[32];
  for (int l = 0; l < 32; ++l) all[l] = threads[base + l].operands;
  threads[base].product(all);
}

// The last lane to come does for all of them what they met for, and lets them go.
void conclude(int base, unsigned mask, int meeting) {
  unsigned long got[32] = {}, ballot = 0;
  if (meeting == BALLOT) for (unsigned left = mask; left; left &= left - 1)
    if (values[base + __builtin_ctz(left)]) ballot |= left & -left;
  for (unsigned left = mask; left; left &= left - 1) {
    int l = __builtin_ctz(left);
    got[l] = meeting == EXCHANGE ? values[base + sources[base + l]] : ballot;
  }
  if (meeting == MATRIX) multiply(base);
  for (unsigned left = mask; left; left &= left - 1) {
    int l = __builtin_ctz(left);
    values[base + l] = got[l]; states[base + l] = READY;
  }
  warps[base / 32].waiting &= ~mask;
}

// Lanes of the mask now know what any of them has seen.
void synchronise(int base, unsigned mask) {
  int w = base / 32; unsigned top = 0;
  if (mask == warps[w].present) {
    for (unsigned left = mask; left; left &= left - 1) top = std::max(top, clocks[base + __builtin_ctz(left)]);
    all_known[w] = top;
    for (unsigned left = mask; left; left &= left - 1) clocks[base + __builtin_ctz(left)] = top + 1;
    return;
  }
  for (unsigned left = mask; left; left &= left - 1) {
    int l = __builtin_ctz(left); known[w][l][l] = clocks[base + l]++;
  }
  for (int j = 0; j < 32; ++j) {
    unsigned best = 0;
    for (unsigned left = mask; left; left &= left - 1) best = std::max(best, known[w][__builtin_ctz(left)][j]);
    for (unsigned left = mask; left; left &= left - 1) known[w][__builtin_ctz(left)][j] = best;
  }
}

// synchronise and conclude where all 32 lanes meet, as they mostly do: plain loops.
void conclude_all(int base, int meeting) {
  unsigned top = 0; unsigned long got[32], ballot = 0;
  for (int l = 0; l < 32; ++l) top = std::max(top, clocks[base + l]);
  for (int l = 0; l < 32; ++l) clocks[base + l] = top + 1;
  all_known[base / 32] = top;
  if (meeting == MATRIX) multiply(base);
  if (meeting == EXCHANGE) for (int l = 0; l < 32; ++l) got[l] = values[base + sources[base + l]];
  if (meeting == BALLOT) {
    for (int l = 0; l < 32; ++l) ballot |= (unsigned long)(values[base + l] != 0) << l;
    for (auto& g : got) g = ballot;
  }
  if (meeting == EXCHANGE || meeting == BALLOT) memcpy(values + base, got, sizeof got);
  memset(states + base, READY, 32);
  warps[base / 32].waiting = 0;
}

// Lets the lanes of a mask go if all have come; those that have ended are not waited for. False: some have not come.
bool complete(int base, unsigned mask) {
  const Warp& w = warps[base / 32]; int first = -1; unsigned live = mask & w.present;
  if (!live || (live & ~w.waiting)) return false;
  for (unsigned left = live; left; left &= left - 1) {
    int l = __builtin_ctz(left); const Thread& t = threads[base + l]; int source = sources[base + l];
    if (first < 0) first = base + l;
    const char* wrong = t.mask != mask || t.where != threads[first].where ? "mixed" :
      !checking || t.meeting == SYNC || t.meeting == BALLOT ? nullptr :
      t.meeting == MATRIX ? (live == ~0u ? nullptr : "a matrix instruction needs all 32 threads of the warp") :
      live >> source & 1 ? nullptr : base + source < count ? "has ended" : "the block does not have";
    if (!wrong) continue;
    current = base + l;
    if (*wrong == 'm') report(t.where, threads[first].where, "warp synchronisation with mask %#x here meets lane %d at "
                              "another one with mask %#x", t.mask, first & 31, threads[first].mask);
    else if (t.meeting == MATRIX) report(t.where, nullptr, "%s", wrong);
    else report(t.where, nullptr, "shuffle from lane %d, which %s", source, wrong);
    return true;
  }
  synchronise(base, live);
  conclude(base, live, threads[first].meeting);
  return true;
}

inline __attribute__((always_inline)) void meet(unsigned mask, int meeting, pc_t pc) {
  Thread& me = threads[current];
  int base = current & ~31, lane = current & 31;
  busy = true;
  if (!(mask >> lane & 1)) fail(pc, nullptr, "warp mask %#x does not name the calling lane %d", mask, lane);
  states[current] = AT_WARP; me.mask = mask; me.where = pc; me.meeting = meeting;
  Warp& w = warps[base / 32];
  if (!w.waiting) { w.mask = mask; w.where = pc; w.alike = true; }
  w.alike = w.alike && w.mask == mask && w.where == pc;
  w.waiting |= 1u << lane;
  if (mask & w.present & ~w.waiting) suspend();                  // some have not come
  else if (w.alike && w.waiting == ~0u) conclude_all(base, meeting);
  else if (!complete(base, mask) || failed) suspend();
  busy = false;
}

// A thread has ended: lanes that waited for it may go on.
void leave_warp() {
  int base = current & ~31; Warp& w = warps[base / 32];
  w.present &= ~(1u << (current & 31));
  for (unsigned left = w.waiting; left && !failed; left &= w.waiting & (left - 1))
    complete(base, threads[base + __builtin_ctz(left)].mask);
}

struct Copy { char* to; const char* from; unsigned bytes, zeros; pc_t pc; };
std::vector<std::vector<Copy>> async_open[MAX_THREADS];          // per thread, groups of copies not yet waited for

// Bytes in flight may be neither read nor written by anyone; they count as written where they are waited for.
void mark_pending(const Copy& c, bool pending) {
  Region* r = checking ? region_of((addr)c.to) : nullptr;
  if (r) for (addr a = (addr)c.to; a < (addr)c.to + c.bytes; a += 1 << r->shift) r->cells[r->at(a)].pending = pending;
}
}  // namespace

extern "C" {
unsigned hc_active_mask() { return warps[current / 32].present; }
void hc_warp_sync(unsigned mask) { meet(mask, SYNC, CALLER); }

unsigned long hc_warp_exchange(unsigned mask, unsigned long value, int lane) {
  if (checking && !(mask >> lane & 1))
    fail(CALLER, nullptr, "shuffle from lane %d, which mask %#x does not name", lane, mask);
  values[current] = value; sources[current] = lane;
  meet(mask, EXCHANGE, CALLER);
  return values[current];
}
unsigned hc_warp_ballot(unsigned mask, int predicate) {
  values[current] = predicate != 0;
  meet(mask, BALLOT, CALLER);
  return (unsigned)values[current];
}
void hc_warp_matrix(void (*product)(const Operands* const*), void* d, const void* a, const void* b, const void* c) {
  Operands mine{d, a, b, c};
  threads[current].operands = &mine; threads[current].product = product;
  meet(~0u, MATRIX, CALLER);
}

// how: 0 plain, 1 count, 2 and, 3 or. All have come when release_block lets them go.
int hc_barrier(int vote, int how) {
  pc_t pc = CALLER;
  states[current] = AT_BARRIER; threads[current].where = pc;
  if (!arrived++) { barrier = pc; one_barrier = true; }
  one_barrier = one_barrier && pc == barrier; votes += vote;
  suspend();
  return how < 2 ? released : how == 2 ? released == count : released != 0;
}

void hc_async_copy(void* to, const void* from, unsigned size, unsigned zeros) {
  pc_t pc = CALLER;
  unsigned got = size - std::min(zeros, size);
  if (size != 4 && size != 8 && size != 16)
    fail(pc, nullptr, "an asynchronous copy is of 4, 8 or 16 bytes, not %u", size);
  if ((addr)from % size) fail(pc, nullptr, "misaligned source of an asynchronous copy of %u bytes", size);
  check_range(from, got, READ, pc);
  check((addr)to, (int)size, WRITE, pc);
  Busy inside;
  Region* r = region_of((addr)to);
  if (checking && (!r || !r->shared)) fail(pc, nullptr, "an asynchronous copy goes to shared memory only");
  Copy c{(char*)to, (const char*)from, size, size - got, pc};
  mark_pending(c, true);
  auto& groups = async_open[current];
  if (groups.empty()) groups.emplace_back();
  groups.back().push_back(c);
}
void hc_async_commit() {
  Busy inside;
  auto& groups = async_open[current];
  if (groups.empty()) groups.emplace_back();
  groups.emplace_back();                                         // the last group is the open one
}
void hc_async_wait(int pending) {
  pc_t pc = CALLER;
  auto& groups = async_open[current];
  while ((int)groups.size() - 1 > pending) {
    for (auto& c : groups[0]) {
      mark_pending(c, false);
      check((addr)c.to, (int)c.bytes, WRITE, pc);                // they arrive now, not when they were asked for
      memcpy(c.to, c.from, c.bytes - c.zeros); memset(c.to + c.bytes - c.zeros, 0, c.zeros);
    }
    Busy inside;
    groups.erase(groups.begin());
  }
}
}
