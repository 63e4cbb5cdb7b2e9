// A CPU model of CUDA: one fibre per thread, one block after another, every memory access checked before it happens.
//
// The kernel is compiled with -fsanitize=thread (and parts of undefined) but linked with the entry points defined here
// instead of libtsan's: the compiler then tells us every access, its width and its place in the source.
#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <pthread.h>
#include <algorithm>
#include <random>
#include <unordered_map>
#include <vector>

typedef uintptr_t addr;
typedef const void* pc_t;
struct uint3_ { unsigned x, y, z; };
#define CALLER __builtin_extract_return_addr(__builtin_return_address(0))

extern "C" char hc_static_begin[], hc_static_end[];   // the kernel's static __shared__ lies between these two

namespace {
constexpr int STACK = 256 << 10, MAX_THREADS = 1024, MAX_DYNAMIC = 256 << 10;
enum State { READY, AT_BARRIER, AT_WARP, DONE };

struct Thread {
  void* sp; char* stack; State state; unsigned mask; pc_t where; uint3_ idx; unsigned long value; const void* data;
  unsigned clock; int vote;                                     // clock counts this lane's warp synchronisations
};
// One access: who, when (block barriers passed, warp clock), which bytes of the 4-byte cell, and where in the source.
struct Access { int block = -1; unsigned tid, epoch, clock; pc_t pc; unsigned char bytes, atomic; };
struct Cell { Access write, read[3]; unsigned char written; };
struct Region { addr low, high; bool constant; int argument; std::vector<Cell> cells; };
struct Copy { char* to; const char* from; unsigned bytes; pc_t pc; };

Thread threads[MAX_THREADS];
unsigned known[MAX_THREADS / 32][32][32];                       // known[w][i][j]: the clock of lane j that lane i has seen
std::vector<Region> globals; Region fixed, dynamic;
std::vector<std::vector<Copy>> async_open[MAX_THREADS];          // per thread, groups of copies not yet waited for
int count, alive, current, block_number; unsigned epoch; int vote_count;
uint3_ block_idx, block_dim, grid_dim;
void* scheduler_sp; bool checking, in_block; sigjmp_buf escape; volatile bool armed; pthread_t owner;
char message[1024]; pc_t error_pc, other_pc; int error_thread, error_block;
alignas(64) char dynamic_shared[MAX_DYNAMIC];
void (*entry)(void**); void** entry_args;

[[noreturn]] void fail(pc_t pc, pc_t other, const char* format, ...) {
  va_list list; va_start(list, format); vsnprintf(message, sizeof message, format, list); va_end(list);
  error_pc = pc; other_pc = other; error_thread = current; error_block = block_number;
  siglongjmp(escape, 1);
}
}  // namespace

extern "C" void hc_switch(void** save, void* load);
asm(R"(.text
.globl hc_switch
.type hc_switch,@function
hc_switch: pushq %rbx; pushq %rbp; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi); movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbp; popq %rbx; ret
.size hc_switch,.-hc_switch
)");

namespace {
void suspend() { hc_switch(&threads[current].sp, scheduler_sp); }

void fibre_main() {
  entry(entry_args);
  for (auto& group : async_open[current])
    if (!group.empty() && checking)
      fail(group[0].pc, nullptr, "asynchronous copy never waited for: the thread ended with it in flight");
  threads[current].state = DONE; --alive;
  suspend(); abort();
}

void start(int t) {
  Thread& th = threads[t];
  if (!th.stack) {
    th.stack = (char*)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (th.stack == MAP_FAILED) { th.stack = nullptr; fail(nullptr, nullptr, "no memory for the stacks of %d threads", count); }
  }
  void** top = (void**)(th.stack + STACK - 64);
  *--top = nullptr; *--top = (void*)fibre_main;                  // return address, and 16-byte alignment at entry
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  th.sp = top; th.state = READY; th.clock = 1; th.where = nullptr; async_open[t].clear();
  unsigned x = block_dim.x, y = block_dim.y;
  th.idx = {t % x, t / x % y, t / (x * y)};
}

Region* region_of(addr a) {
  if (a >= fixed.low && a < fixed.high) return &fixed;
  if (a >= dynamic.low && a < dynamic.high) return &dynamic;
  for (auto& r : globals) if (a >= r.low && a < r.high) return &r;
  return nullptr;
}

// Is access `a`, made earlier in this schedule, ordered before the current thread's next access?
bool ordered(const Access& a) {
  if (a.block != block_number) return false;                    // blocks of one launch are never ordered
  if (a.tid == (unsigned)current || a.epoch < epoch) return true;
  return a.tid / 32 == (unsigned)current / 32 && known[current / 32][current % 32][a.tid % 32] >= a.clock;
}


[[noreturn]] void race(const Access& a, const char* then, const char* now, pc_t pc, addr at, const Region& r) {
  const char* why = a.block != block_number ? "the blocks of one launch are not ordered" : "no barrier between them";
  fail(pc, a.pc, "race: %s here and %s by thread %u of block %d on byte %ld of %s: %s", now, then, a.tid, a.block,
       (long)(at - r.low), r.argument < 0 ? "shared memory" : "an argument's memory", why);
}

void check(addr a, int size, bool write, bool atomic, pc_t pc) {
  if (!checking || !in_block) return;
  addr stack = (addr)threads[current].stack;
  if (a >= stack && a < stack + STACK) return;                  // a thread's own local memory
  Region* r = region_of(a);
  const char* verb = write ? "write" : "read";
  if (!r) {
    const Region* near = nullptr; long off = 0;                 // the argument that it misses by least
    for (auto& g : globals) {
      long d = a >= g.high ? (long)(a - g.high) + 1 : (long)(a - g.low);
      if (!near || labs(d) < labs(off)) { near = &g; off = d; }
    }
    addr base = (addr)hc_static_begin;
    if (a + (1 << 20) > base && a < base + (1 << 20)) fail(pc, nullptr, "%s of shared memory outside every array", verb);
    if (near && labs(off) < (1 << 20))
      fail(pc, nullptr, "global %s of %d bytes %ld bytes %s argument %d", verb, size, off > 0 ? off - 1 + size : -off,
           off > 0 ? "past the end of" : "before", near->argument);
    if (write) fail(pc, nullptr, "write to memory that is no argument (constant data, or a wild pointer)");
    return;                                                     // the program's own constant data
  }
  bool shared = r->argument < 0;
  if (a + size > r->high)
    fail(pc, nullptr, "%s %s of %d bytes reaches %ld bytes past the end of %s %d", shared ? "shared" : "global", verb, size,
         (long)(a + size - r->high), shared ? "shared memory" : "argument", shared ? 0 : r->argument);
  if (a % size) fail(pc, nullptr, "misaligned %s of %d bytes at an address that is %ld mod %d", verb, size, (long)(a % size), size);
  if (write && r->constant) fail(pc, nullptr, "write through a pointer to const, argument %d", r->argument);
  for (addr low = a; low < a + size; low = (low & ~(addr)3) + 4) {
    addr end = std::min<addr>((low & ~(addr)3) + 4, a + size);
    unsigned char bytes = ((1 << (end - low)) - 1) << (low & 3);
    Cell& c = r->cells[(low - (r->low & ~(addr)3)) / 4];
    if (shared && !write && (c.written & bytes) != bytes) fail(pc, nullptr, "read of shared memory that no thread wrote (byte %ld)", (long)(low - r->low));
    if (c.write.block >= 0 && (c.write.bytes & bytes) && !(atomic && c.write.atomic) && !ordered(c.write))
      race(c.write, "write", verb, pc, low, *r);
    Access now; now.block = block_number; now.tid = current; now.epoch = epoch;
    now.clock = threads[current].clock; now.pc = pc; now.bytes = bytes; now.atomic = atomic;
    if (write) {
      for (auto& old : c.read)
        if (old.block >= 0 && (old.bytes & bytes) && !ordered(old)) race(old, "read", "write", pc, low, *r);
      if (c.write.block == block_number && c.write.tid == now.tid && c.write.epoch == epoch && c.write.clock == now.clock)
        now.bytes |= c.write.bytes;
      c.write = now; c.written |= bytes;
    } else {                                                    // keep readers of other blocks, warps and threads apart
      int slot = 2;
      for (int i = 0; i < 3; ++i) {
        Access& o = c.read[i];
        if (o.block < 0 || (o.block == block_number && o.epoch < epoch)) { slot = i; break; }
        if (o.block == block_number && o.tid == now.tid) { now.bytes |= o.bytes; slot = i; break; }
      }
      c.read[slot] = now;
    }
  }
}

void clear(Region& r) { std::fill(r.cells.begin(), r.cells.end(), Cell()); }
void set_region(Region& r, addr low, addr high, bool constant, int argument) {
  r.low = low; r.high = high; r.constant = constant; r.argument = argument;
  r.cells.assign(checking ? (high - (low & ~(addr)3) + 3) / 4 : 0, Cell());
}

void release_block() {
  vote_count = 0;
  for (int t = 0; t < count; ++t) if (threads[t].state == AT_BARRIER) threads[t].state = READY;
  ++epoch;
}

// All lanes of the mask meet: each learns what every other has seen. Returns once all have arrived.
void meet(unsigned mask, pc_t pc) {
  Thread& me = threads[current];
  int base = current & ~31, lane = current & 31, size = std::min(32, count - base);
  if (!(mask >> lane & 1)) fail(pc, nullptr, "warp mask %#x does not name the calling lane %d", mask, lane);
  unsigned present = size == 32 ? ~0u : (1u << size) - 1;
  mask &= present;                                              // lanes beyond the block do not exist
  me.state = AT_WARP; me.mask = mask; me.where = pc;
  for (int l = 0; l < size; ++l) {
    if (!(mask >> l & 1)) continue;
    Thread& other = threads[base + l];
    if (other.state == DONE) fail(pc, nullptr, "warp mask names lane %d, which has ended", l);
    if (other.state != AT_WARP) { suspend(); return; }
    if (other.mask != mask || other.where != pc)
      fail(pc, other.where, "warp synchronisation with mask %#x here meets lane %d at another one with mask %#x", mask, l, other.mask);
  }
  for (int l = 0; l < size; ++l) if (mask >> l & 1) {
    threads[base + l].state = READY; known[base / 32][l][l] = threads[base + l].clock++;
  }
  for (int j = 0; j < size; ++j) {
    unsigned best = 0;
    for (int l = 0; l < size; ++l) if (mask >> l & 1) best = std::max(best, known[base / 32][l][j]);
    for (int l = 0; l < size; ++l) if (mask >> l & 1) known[base / 32][l][j] = best;
  }
}

void stuck() {
  int at_barrier = -1, at_warp = -1, done = -1;
  for (int t = 0; t < count; ++t) {
    if (threads[t].state == AT_BARRIER && at_barrier < 0) at_barrier = t;
    if (threads[t].state == AT_WARP && at_warp < 0) at_warp = t;
    if (threads[t].state == DONE && done < 0) done = t;
  }
  if (at_barrier >= 0) {
    current = at_barrier;
    if (at_warp >= 0) fail(threads[at_barrier].where, threads[at_warp].where, "__syncthreads reached by some threads only: thread %d waits at a warp synchronisation", at_warp);
    fail(threads[at_barrier].where, nullptr, "__syncthreads reached by some threads only: thread %d has ended without it", done);
  }
  current = at_warp;
  fail(threads[at_warp].where, nullptr, "warp synchronisation with mask %#x waits for lanes that never come", threads[at_warp].mask);
}

void run_block(const std::vector<int>& order) {
  for (int t = 0; t < count; ++t) start(t);
  alive = count; epoch = 1; vote_count = 0;
  memset(known, 0, sizeof known);
  if (checking) { clear(fixed); clear(dynamic); }
  memset((void*)fixed.low, 0xff, fixed.high - fixed.low);        // NaN in every float type
  memset((void*)dynamic.low, 0xff, dynamic.high - dynamic.low);
  in_block = true;
  while (alive) {
    bool progressed = false;
    for (int t : order)
      if (threads[t].state == READY) { current = t; progressed = true; hc_switch(&scheduler_sp, threads[t].sp); }
    if (progressed || !alive) continue;
    int waiting = 0, first = -1;
    for (int t = 0; t < count; ++t) if (threads[t].state == AT_BARRIER) { ++waiting; if (first < 0) first = t; }
    if (waiting != count) stuck();
    for (int t = 0; t < count; ++t) if (checking && threads[t].where != threads[first].where) {
      current = t; fail(threads[t].where, threads[first].where, "threads %d and %d wait at different __syncthreads", t, first);
    }
    release_block();
  }
  in_block = false;
}

void on_alarm(int) {
  if (!armed) return;
  if (!pthread_equal(pthread_self(), owner)) { pthread_kill(owner, SIGALRM); return; }
  snprintf(message, sizeof message, "time limit");
  error_pc = other_pc = nullptr; error_thread = current; error_block = block_number;
  siglongjmp(escape, 1);
}
}  // namespace

extern "C" {
uint3_ hc_thread_idx() { return threads[current].idx; }
uint3_ hc_block_idx() { return block_idx; }
uint3_ hc_block_dim() { return block_dim; }
uint3_ hc_grid_dim() { return grid_dim; }
void* hc_dynamic_shared() { return dynamic_shared; }
unsigned hc_active_mask() { unsigned m = 0; for (int l = 0; l < 32; ++l) { int t = (current & ~31) + l;
  if (t < count && threads[t].state != DONE) m |= 1u << l; } return m; }
void hc_trap() { fail(CALLER, nullptr, "__trap"); }
void hc_atomic(const void* p, int bytes) { check((addr)p, bytes, false, true, CALLER); check((addr)p, bytes, true, true, CALLER); }
void hc_warp_sync(unsigned mask) { meet(mask, CALLER); }

int hc_barrier(int vote, int how) {
  Thread& me = threads[current];
  me.state = AT_BARRIER; me.where = CALLER; me.vote = vote;
  suspend();
  if (!how) return 0;
  int sum = 0;
  for (int t = 0; t < count; ++t) sum += threads[t].vote;
  me.state = AT_BARRIER; suspend();                              // nobody votes again before all have counted
  return how == 1 ? sum : how == 2 ? sum == count : sum != 0;
}

unsigned long hc_warp_exchange(unsigned mask, unsigned long value, int lane, int) {
  pc_t pc = CALLER;
  threads[current].value = value;
  meet(mask, pc);
  int from = (current & ~31) + lane;
  if (checking && (lane > 31 || !(mask >> lane & 1))) fail(pc, nullptr, "shuffle from lane %d, which mask %#x does not name", lane, mask);
  if (checking && from >= count) fail(pc, nullptr, "shuffle from lane %d, which the block of %d threads does not have", lane, count);
  unsigned long got = threads[from].value;
  meet(mask, pc);
  return got;
}

unsigned hc_warp_ballot(unsigned mask, int predicate) {
  pc_t pc = CALLER;
  threads[current].value = predicate != 0;
  meet(mask, pc);
  unsigned got = 0;
  for (int l = 0; l < 32; ++l) { int t = (current & ~31) + l; if ((mask >> l & 1) && t < count && threads[t].value) got |= 1u << l; }
  meet(mask, pc);
  return got;
}

void hc_warp_gather(const void* mine, unsigned bytes, void* all) {
  pc_t pc = CALLER;
  if ((current & ~31) + 32 > count) fail(pc, nullptr, "a matrix instruction needs a full warp of 32 threads");
  threads[current].data = mine;
  meet(~0u, pc);
  for (int l = 0; l < 32; ++l) memcpy((char*)all + l * bytes, threads[(current & ~31) + l].data, bytes);
  meet(~0u, pc);
}

void hc_async_copy(void* to, const void* from, unsigned bytes) {
  pc_t pc = CALLER;
  check((addr)from, bytes, false, false, pc); check((addr)to, bytes, true, false, pc);
  if (Region* r = region_of((addr)to))                           // unwritten until it is waited for
    if (checking) for (addr a = (addr)to; a < (addr)to + bytes; a += 4) r->cells[(a - (r->low & ~(addr)3)) / 4].written = 0;
  auto& groups = async_open[current];
  if (groups.empty()) groups.emplace_back();
  groups.back().push_back({(char*)to, (const char*)from, bytes, pc});
}
void hc_async_commit() { auto& g = async_open[current]; if (g.empty()) g.emplace_back(); g.emplace_back(); }
void hc_async_wait(int pending) {
  auto& groups = async_open[current];                            // the last group is the open one
  while ((int)groups.size() - 1 > pending) {
    for (auto& c : groups[0]) {
      memcpy(c.to, c.from, c.bytes);
      if (Region* r = region_of((addr)c.to))
        if (checking) for (addr a = (addr)c.to; a < (addr)c.to + c.bytes; a += 4) r->cells[(a - (r->low & ~(addr)3)) / 4].written = 15;
    }
    groups.erase(groups.begin());
  }
}

// What the compiler calls before each access.
#define TSAN(N) void __tsan_read##N(void* p) { check((addr)p, N, false, false, CALLER); } \
  void __tsan_write##N(void* p) { check((addr)p, N, true, false, CALLER); } \
  void __tsan_unaligned_read##N(void* p) { check((addr)p, N, false, false, CALLER); } \
  void __tsan_unaligned_write##N(void* p) { check((addr)p, N, true, false, CALLER); } \
  void __tsan_volatile_read##N(void* p) { check((addr)p, N, false, false, CALLER); } \
  void __tsan_volatile_write##N(void* p) { check((addr)p, N, true, false, CALLER); }
TSAN(1) TSAN(2) TSAN(4) TSAN(8) TSAN(16)
void __tsan_read_range(void* p, unsigned long n) { for (unsigned long i = 0; i < n; ++i) check((addr)p + i, 1, false, false, CALLER); }
void __tsan_write_range(void* p, unsigned long n) { for (unsigned long i = 0; i < n; ++i) check((addr)p + i, 1, true, false, CALLER); }
void* __tsan_memcpy(void* d, const void* s, unsigned long n) { pc_t pc = CALLER;
  for (unsigned long i = 0; i < n; ++i) { check((addr)s + i, 1, false, false, pc); check((addr)d + i, 1, true, false, pc); }
  return memcpy(d, s, n); }
void* __tsan_memset(void* d, int v, unsigned long n) { pc_t pc = CALLER;
  for (unsigned long i = 0; i < n; ++i) check((addr)d + i, 1, true, false, pc); return memset(d, v, n); }
void* __tsan_memmove(void* d, const void* s, unsigned long n) { pc_t pc = CALLER;
  for (unsigned long i = 0; i < n; ++i) { check((addr)s + i, 1, false, false, pc); check((addr)d + i, 1, true, false, pc); }
  return memmove(d, s, n); }
void __tsan_init() {} void __tsan_func_entry(void*) {} void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {} void __tsan_vptr_read(void**) {}

#define UBSAN(NAME, ...) void __ubsan_handle_##NAME(void*, ...) { fail(CALLER, nullptr, __VA_ARGS__); }
UBSAN(add_overflow, "signed integer overflow in an addition") UBSAN(sub_overflow, "signed integer overflow in a subtraction")
UBSAN(mul_overflow, "signed integer overflow in a multiplication") UBSAN(negate_overflow, "signed integer overflow in a negation")
UBSAN(divrem_overflow, "division by zero") UBSAN(shift_out_of_bounds, "shift by a negative or too large amount")
UBSAN(out_of_bounds, "index outside an array") UBSAN(vla_bound_not_positive, "array of no size")
UBSAN(float_cast_overflow, "float out of the integer's range")

// A traced launch: every access to memory as (site, warp, occurrence at that site, lane, address, bytes, write).
struct Traced { int site, warp, block, occurrence; unsigned long address; short lane; unsigned char bytes, flags; };
static std::vector<Traced> traced;
static std::unordered_map<unsigned long, int> occurrences;
void hc_trace(const void* p, int bytes, int write, int site) {
  unsigned long lane = ((unsigned long)block_number << 44) | ((unsigned long)current << 32) | (unsigned)site;
  Region* r = region_of((addr)p);
  unsigned char flags = (write ? 1 : 0) | (r && r->argument < 0 ? 2 : 0);
  addr from = r ? (r->argument < 0 ? (addr)hc_static_begin : r->low) : 0;
  traced.push_back({site, current / 32, block_number, occurrences[lane]++, (r && r->argument < 0 ? (addr)p - from : (addr)p),
                    (short)(current & 31), (unsigned char)bytes, flags});
}
long hc_traced(void* to) {                                      // copies and forgets; with null says how many
  if (to) { memcpy(to, traced.data(), traced.size() * sizeof(Traced)); traced.clear(); occurrences.clear(); return 0; }
  return (long)traced.size();
}

const char* hc_error() { return message; }
unsigned long hc_static_bytes() {
  return (addr)hc_static_end - (addr)hc_static_begin - 64; }
// where[]: offsets in this library of the failing and of the other access (-1: none), then thread and block
void hc_where(long* where) {
  Dl_info info; addr base = dladdr((void*)hc_error, &info) ? (addr)info.dli_fbase : 0;
  where[0] = error_pc ? (long)((addr)error_pc - base - 1) : -1; where[1] = other_pc ? (long)((addr)other_pc - base - 1) : -1;
  where[2] = error_thread; where[3] = error_block;
}

// Runs a launch. arrays: n rows of (low, high, constant, argument). order: 0 forward, 1 reverse, 2 random by seed.
int hc_launch(void (*call)(void**), void** args, const unsigned* grid, const unsigned* block, unsigned shared_bytes,
              int n, const long* arrays, int check_, int order, unsigned seed, double limit) {
  checking = check_; in_block = false;
  grid_dim = {grid[0], grid[1], grid[2]}; block_dim = {block[0], block[1], block[2]};
  count = block[0] * block[1] * block[2];
  entry = call; entry_args = args; globals.assign(n, Region());
  for (int i = 0; i < n; ++i) set_region(globals[i], arrays[4 * i], arrays[4 * i + 1], arrays[4 * i + 2], (int)arrays[4 * i + 3]);
  set_region(fixed, (addr)hc_static_begin + 64, (addr)hc_static_end, false, -1);
  set_region(dynamic, (addr)dynamic_shared, (addr)dynamic_shared + shared_bytes, false, -1);
  struct sigaction mine, old; struct itimerval timer = {}, old_timer;
  memset(&mine, 0, sizeof mine); mine.sa_handler = on_alarm; mine.sa_flags = SA_NODEFER;
  owner = pthread_self(); message[0] = 0;
  long blocks = (long)grid[0] * grid[1] * grid[2];
  std::vector<int> threads_order(count);
  std::vector<long> blocks_order(blocks);
  for (int i = 0; i < count; ++i) threads_order[i] = order == 1 ? count - 1 - i : i;
  for (long i = 0; i < blocks; ++i) blocks_order[i] = order == 1 ? blocks - 1 - i : i;
  std::mt19937 random(seed);
  if (order == 2) std::shuffle(blocks_order.begin(), blocks_order.end(), random);
  int failed = sigsetjmp(escape, 1);
  if (!failed) {
    armed = true; sigaction(SIGALRM, &mine, &old);
    timer.it_value.tv_sec = (long)limit; timer.it_value.tv_usec = (long)((limit - (long)limit) * 1e6);
    timer.it_interval.tv_usec = 100000;
    setitimer(ITIMER_REAL, &timer, &old_timer);
    for (long b : blocks_order) {
      block_number = (int)b;
      block_idx = {(unsigned)(b % grid[0]), (unsigned)(b / grid[0] % grid[1]), (unsigned)(b / ((long)grid[0] * grid[1]))};
      if (order == 2) std::shuffle(threads_order.begin(), threads_order.end(), random);
      run_block(threads_order);
    }
  }
  armed = false; in_block = false;
  setitimer(ITIMER_REAL, &old_timer, nullptr); sigaction(SIGALRM, &old, nullptr);
  globals.clear();
  return failed;
}
}
