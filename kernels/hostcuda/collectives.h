// What threads do together: barriers, warp synchronisation and exchange, asynchronous copies.
#pragma once
#include "checker.h"

namespace {
enum Meeting { SYNC, EXCHANGE, BALLOT, GATHER };

unsigned present[MAX_THREADS / 32], waiting[MAX_THREADS / 32];   // lanes that have not ended; that are AT_WARP

// The last lane to come does for all of them what they met for, and lets them go.
void conclude(int base, unsigned mask, int meeting) {
  unsigned long got[32] = {}, ballot = 0;
  if (meeting == BALLOT) for (unsigned left = mask; left; left &= left - 1)
    if (threads[base + __builtin_ctz(left)].value) ballot |= left & -left;
  for (unsigned left = mask; left; left &= left - 1) {
    int l = __builtin_ctz(left); Thread& t = threads[base + l];
    got[l] = meeting == EXCHANGE ? threads[base + t.lane].value : ballot;
    for (int j = 0; j < 32 && meeting == GATHER; ++j)
      memcpy((char*)t.all + j * t.bytes, threads[base + j].data, t.bytes);
  }
  for (unsigned left = mask; left; left &= left - 1) {
    Thread& t = threads[base + __builtin_ctz(left)];
    t.value = got[__builtin_ctz(left)]; t.state = READY;
  }
  waiting[base / 32] &= ~mask;
}

// Lanes of the mask now know what any of them has seen.
void synchronise(int base, unsigned mask) {
  int w = base / 32; unsigned top = 0;
  if (mask == present[w]) {
    for (unsigned left = mask; left; left &= left - 1) top = std::max(top, threads[base + __builtin_ctz(left)].clock);
    all_known[w] = top;
    for (unsigned left = mask; left; left &= left - 1) threads[base + __builtin_ctz(left)].clock = top + 1;
    return;
  }
  for (unsigned left = mask; left; left &= left - 1) {
    int l = __builtin_ctz(left); known[w][l][l] = threads[base + l].clock++;
  }
  for (int j = 0; j < 32; ++j) {
    unsigned best = 0;
    for (unsigned left = mask; left; left &= left - 1) best = std::max(best, known[w][__builtin_ctz(left)][j]);
    for (unsigned left = mask; left; left &= left - 1) known[w][__builtin_ctz(left)][j] = best;
  }
}

// Lets the lanes of a mask go if all have come; those that have ended are not waited for. False: some have not come.
bool complete(int base, unsigned mask) {
  int w = base / 32, first = -1; unsigned live = mask & present[w];
  if (!live || (live & ~waiting[w])) return false;
  for (unsigned left = live; left; left &= left - 1) {
    int l = __builtin_ctz(left); const Thread& t = threads[base + l];
    if (first < 0) first = base + l;
    const char* wrong = t.mask != mask || t.where != threads[first].where ? "mixed" :
      !checking || t.meeting == SYNC || t.meeting == BALLOT ? nullptr :
      t.meeting == GATHER ? (live == ~0u ? nullptr : "a matrix instruction needs all 32 threads of the warp") :
      live >> t.lane & 1 ? nullptr : base + t.lane < count ? "has ended" : "the block does not have";
    if (!wrong) continue;
    current = base + l;
    if (*wrong == 'm') report(t.where, threads[first].where, "warp synchronisation with mask %#x here meets lane %d at "
                              "another one with mask %#x", t.mask, first & 31, threads[first].mask);
    else if (t.meeting == GATHER) report(t.where, nullptr, "%s", wrong);
    else report(t.where, nullptr, "shuffle from lane %d, which %s", t.lane, wrong);
    return true;
  }
  synchronise(base, live);
  conclude(base, live, threads[first].meeting);
  return true;
}

void meet(unsigned mask, int meeting, pc_t pc) {
  Thread& me = threads[current];
  int base = current & ~31, lane = current & 31;
  busy = true;
  if (!(mask >> lane & 1)) fail(pc, nullptr, "warp mask %#x does not name the calling lane %d", mask, lane);
  me.state = AT_WARP; me.mask = mask; me.where = pc; me.meeting = meeting;
  waiting[base / 32] |= 1u << lane;
  if (!complete(base, mask) || failed) suspend();
  busy = false;
}

// A thread has ended: lanes that waited for it may go on.
void leave_warp() {
  int base = current & ~31;
  present[base / 32] &= ~(1u << (current & 31));
  for (unsigned left = waiting[base / 32]; left && !failed; left &= waiting[base / 32] & (left - 1))
    complete(base, threads[base + __builtin_ctz(left)].mask);
}

struct Copy { char* to; const char* from; unsigned bytes, zeros; pc_t pc; };
std::vector<std::vector<Copy>> async_open[MAX_THREADS];          // per thread, groups of copies not yet waited for

// Bytes in flight may be neither read nor written by anyone; they count as written where they are waited for.
void mark_pending(const Copy& c, bool pending) {
  Region* r = checking ? region_of((addr)c.to) : nullptr;
  if (r) for (addr a = (addr)c.to; a < (addr)c.to + c.bytes; a += r->grain) r->cell(a).pending = pending;
}
}  // namespace

extern "C" {
unsigned hc_active_mask() { return present[current / 32]; }
void hc_warp_sync(unsigned mask) { meet(mask, SYNC, CALLER); }

unsigned long hc_warp_exchange(unsigned mask, unsigned long value, int lane) {
  Thread& me = threads[current];
  if (checking && !(mask >> lane & 1))
    fail(CALLER, nullptr, "shuffle from lane %d, which mask %#x does not name", lane, mask);
  me.value = value; me.lane = lane;
  meet(mask, EXCHANGE, CALLER);
  return me.value;
}
unsigned hc_warp_ballot(unsigned mask, int predicate) {
  threads[current].value = predicate != 0;
  meet(mask, BALLOT, CALLER);
  return (unsigned)threads[current].value;
}
void hc_warp_gather(const void* mine, unsigned bytes, void* all) {
  Thread& me = threads[current];
  me.data = mine; me.all = all; me.bytes = bytes;
  meet(~0u, GATHER, CALLER);
}

// how: 0 plain, 1 count, 2 and, 3 or. The votes are counted in release_block, when all have come.
int hc_barrier(int vote, int how) {
  Thread& me = threads[current];
  me.state = AT_BARRIER; me.where = CALLER; me.vote = vote;
  suspend();
  return how < 2 ? me.vote : how == 2 ? me.vote == count : me.vote != 0;
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
