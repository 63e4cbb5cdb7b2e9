// A CPU model of CUDA: one fibre per thread, one block after another, every memory access checked before it happens.
//
// The kernel is compiled with -fsanitize=thread (and parts of undefined) but linked with the entry points defined here
// instead of libtsan's: the compiler then tells us every access, its width and its place in the source.
#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "collectives.h"
#include <random>
#include <unordered_map>

namespace {
void fibre_main() {
  entry(entry_args);
  busy = true;
  for (auto& group : async_open[current])
    if (!group.empty() && checking)
      fail(group[0].pc, nullptr, "asynchronous copy never waited for: the thread ended with it in flight");
  states[current] = DONE; --alive;
  leave_warp();
  suspend(); abort();
}

void start(int t) {
  Thread& th = threads[t];
  void** top = (void**)(stacks + (t + 1) * STACK - 64);
  *--top = nullptr; *--top = (void*)fibre_main;                  // return address, and 16-byte alignment at entry
  th = {}; th.sp = top; states[t] = READY; clocks[t] = 1; async_open[t].clear();
  unsigned x = block_dim.x, y = block_dim.y;
  th.idx = {t % x, t / x % y, t / (x * y)};
}

bool room_for_stacks() {
  addr need = count * STACK;
  if (need <= stacks_bytes) return true;
  if (stacks) munmap(stacks, stacks_bytes);
  stacks = (char*)mmap(nullptr, need, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  stacks_bytes = stacks == MAP_FAILED ? 0 : need;
  if (!stacks_bytes) { stacks = nullptr; report(nullptr, nullptr, "no memory for the stacks of %d threads", count); }
  return stacks_bytes != 0;
}

void release_block() {
  memset(states, READY, count);
  released = votes; arrived = votes = 0; ++now;
}

// Nobody can run: which barrier was not reached by all?
void stuck() {
  int at_barrier = -1, at_warp = -1, done = -1;
  for (int t = count - 1; t >= 0; --t) {
    State s = states[t];
    (s == AT_BARRIER ? at_barrier : s == AT_WARP ? at_warp : done) = t;
  }
  if (at_barrier >= 0) {
    current = at_barrier;
    pc_t pc = threads[at_barrier].where;
    const char* rest = at_warp >= 0 ? "waits at a warp synchronisation" : "has ended without it";
    return report(pc, at_warp >= 0 ? threads[at_warp].where : nullptr,
                  "__syncthreads reached by some threads only: thread %d %s", at_warp >= 0 ? at_warp : done, rest);
  }
  const Thread& t = threads[current = at_warp];
  for (unsigned left = t.mask & warps[at_warp / 32].waiting; left; left &= left - 1) {
    const Thread& other = threads[(at_warp & ~31) + __builtin_ctz(left)];
    if (other.mask == t.mask && other.where == t.where) continue;
    report(t.where, other.where, "warp synchronisation with mask %#x here meets lane %d at another one with mask %#x",
           t.mask, __builtin_ctz(left), other.mask);
    return;
  }
  report(t.where, nullptr, "warp synchronisation with mask %#x waits for lanes that never come", t.mask);
}

void run_block(const std::vector<int>& order) {
  for (int t = 0; t < count; ++t) start(t);
  alive = count; arrived = votes = 0; begun.push_back({block_start = ++now, block_number});
  int n = (count + 31) / 32;
  for (int w = 0; w < n; ++w) {
    warps[w] = {count - 32 * w >= 32 ? ~0u : (1u << (count - 32 * w)) - 1};
    all_known[w] = 0;
  }
  if (checking) memset(known, 0, n * sizeof known[0]);
  for (auto& r : regions) if (r.shared) memset((void*)r.low, 0xff, r.high - r.low);      // NaN in every float type
  turns = order.data();
  while (alive) {
    turn = -1;
    if (int first = following(); first >= 0) {
      current = first;
      in_block = true; switch_stacks(&scheduler_sp, threads[first].sp); in_block = false;
      if (expired && !failed) report(nullptr, nullptr, "time limit");
      if (failed) return;
      continue;
    }
    if (arrived < count) return stuck();
    for (int t = 0; t < count && checking && !one_barrier; ++t)
      if (threads[t].where != threads[0].where) {
        current = t;
        return report(threads[t].where, threads[0].where, "threads %d and 0 wait at different __syncthreads", t);
      }
    release_block();
  }
}

// The clock of this thread ticks: interrupt the kernel's own code; the runtime's is asked to stop when it is done.
void on_tick(int) {
  expired = true;
  if (in_block && !busy) fail(nullptr, nullptr, "time limit");
}
// The processor refuses: a stack that overflows, a wild pointer or a division by zero in unchecked code.
void on_fault(int number) {
  const char* what = number == SIGFPE ? "division by zero" :
    "access to memory that does not exist, or overflow of a thread's stack";
  if (in_block && !busy) fail(nullptr, nullptr, "%s", what);
  signal(number, SIG_DFL);
}

// Signals of this launch: a timer on this thread's own processor time, and faults on a stack of their own.
struct Signals {
  static constexpr int FAULTS[4] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
  struct sigaction old_tick, old_fault[4]; stack_t old_stack; timer_t timer; bool timed; void* alternate;
  explicit Signals(double limit) {
    struct sigaction tick = {}, fault = {};
    alternate = malloc(1 << 16);
    stack_t ours = {}; ours.ss_sp = alternate; ours.ss_size = 1 << 16; sigaltstack(&ours, &old_stack);
    tick.sa_handler = on_tick; tick.sa_flags = SA_NODEFER | SA_RESTART;
    sigaction(SIGURG, &tick, &old_tick);                         // SIGURG: one that comes late is ignored by default
    fault.sa_handler = on_fault; fault.sa_flags = SA_NODEFER | SA_ONSTACK;
    for (int i = 0; i < 4; ++i) sigaction(FAULTS[i], &fault, &old_fault[i]);
    struct sigevent event = {}; event.sigev_notify = SIGEV_THREAD_ID; event.sigev_signo = SIGURG;
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    timed = timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) == 0;
    long whole = (long)limit;
    struct itimerspec when = {{0, 100000000}, {whole, (long)((limit - whole) * 1e9)}};
    if (timed) timer_settime(timer, 0, &when, nullptr);
  }
  ~Signals() {
    if (timed) timer_delete(timer);
    sigaction(SIGURG, &old_tick, nullptr);
    for (int i = 0; i < 4; ++i) sigaction(FAULTS[i], &old_fault[i], nullptr);
    sigaltstack(&old_stack, nullptr); free(alternate);
  }
};
constexpr int Signals::FAULTS[4];

// A traced launch: every access to memory, and its stamp; occurrence: how many times at this stamp the lane has been at
// this site. So lanes that skip an access meet again.
struct Traced {
  int site, warp, block, occurrence; unsigned stamp; unsigned long address; short lane; unsigned char bytes, flags;
};
std::vector<Traced> traced;
struct Seen { unsigned stamp; int times; };
std::unordered_map<unsigned long, Seen> occurrences;
}  // namespace

extern "C" {
Index hc_thread_idx() { return threads[current].idx; }
Index hc_block_idx() { return block_idx; }
Index hc_block_dim() { return block_dim; }
Index hc_grid_dim() { return grid_dim; }
void* hc_dynamic_shared() { return dynamic_shared; }
int hc_lane() { return current & 31; }
void hc_trap(const char* why) { fail(CALLER, nullptr, "%s", why); }
void hc_launch_bounds(long most) {
  if (count > most)
    fail(CALLER, nullptr, "compiled for blocks of at most %ld threads (__launch_bounds__), got %d", most, count);
}
void hc_atomic(const void* p, int bytes) { check((addr)p, bytes, ATOMIC, CALLER); }
int hc_printf(const char* format, ...) {
  Busy inside;
  va_list list; va_start(list, format); int n = vprintf(format, list); va_end(list); return n;
}

// What the compiler calls before each access.
#define TSAN(N) void __tsan_read##N(void* p) { check((addr)p, N, READ, CALLER); } \
  void __tsan_write##N(void* p) { check((addr)p, N, WRITE, CALLER); } \
  void __tsan_unaligned_read##N(void* p) { check((addr)p, N, READ, CALLER); } \
  void __tsan_unaligned_write##N(void* p) { check((addr)p, N, WRITE, CALLER); } \
  void __tsan_volatile_read##N(void* p) { check((addr)p, N, READ, CALLER); } \
  void __tsan_volatile_write##N(void* p) { check((addr)p, N, WRITE, CALLER); }
TSAN(1) TSAN(2) TSAN(4) TSAN(8) TSAN(16)
void __tsan_read_range(void* p, unsigned long n) { check_range(p, n, READ, CALLER); }
void __tsan_write_range(void* p, unsigned long n) { check_range(p, n, WRITE, CALLER); }
#define COPY(NAME) void* __tsan_##NAME(void* d, const void* s, unsigned long n) { \
  check_range(s, n, READ, CALLER); check_range(d, n, WRITE, CALLER); return NAME(d, s, n); }
COPY(memcpy) COPY(memmove)
void* __tsan_memset(void* d, int v, unsigned long n) { check_range(d, n, WRITE, CALLER); return memset(d, v, n); }
void __tsan_init() {} void __tsan_func_entry(void*) {} void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {} void __tsan_vptr_read(void**) {}

#define UBSAN(NAME, ...) void __ubsan_handle_##NAME(void*, ...) { fail(CALLER, nullptr, __VA_ARGS__); }
UBSAN(add_overflow, "signed integer overflow in an addition")
UBSAN(sub_overflow, "signed integer overflow in a subtraction")
UBSAN(mul_overflow, "signed integer overflow in a multiplication")
UBSAN(negate_overflow, "signed integer overflow in a negation")
UBSAN(divrem_overflow, "division by zero, or of the least integer by -1")
UBSAN(shift_out_of_bounds, "shift by a negative or too large amount")
UBSAN(out_of_bounds, "index outside an array")
// Also where the compiler has cut a wide access into narrow ones, which check() alone would find aligned.
struct Mismatch { const char* file; unsigned line, column; void* type; unsigned char log_alignment; };
void __ubsan_handle_type_mismatch_v1(Mismatch* m, addr a) {
  int size = 1 << m->log_alignment;
  fail(CALLER, nullptr, "misaligned access: an address that is %ld mod %d", (long)(a % size), size);
}

void hc_trace(const void* p, int bytes, int write, int site) {
  Busy inside;
  unsigned long key = ((unsigned long)block_number << 44) | ((unsigned long)current << 32) | (unsigned)site;
  Region* r = region_of((addr)p);
  bool shared = r && r->shared;
  unsigned char flags = (write ? 1 : 0) | (shared ? 2 : 0) | (!r ? 4 : 0);
  Seen& seen = occurrences[key];
  if (seen.stamp != now) seen = {now, 0};
  traced.push_back({site, current / 32, block_number, seen.times++, now, (addr)p, (short)(current & 31),
                    (unsigned char)bytes, flags});
}
long hc_traced(void* to) {                                      // copies and forgets; with null says how many
  if (to) { memcpy(to, traced.data(), traced.size() * sizeof(Traced)); traced.clear(); return 0; }
  return (long)traced.size();
}

const char* hc_error() { return message; }
// where[]: offsets in this library of the failing and of the other access (-1: none), then thread and block
void hc_where(long* where) {
  Dl_info info; addr base = dladdr((void*)hc_error, &info) ? (addr)info.dli_fbase : 0;
  where[0] = error_pc ? (long)((addr)error_pc - base - 1) : -1;
  where[1] = other_pc ? (long)((addr)other_pc - base - 1) : -1;
  where[2] = error_thread; where[3] = error_block;
}

// Runs a launch. rows: of each of n regions low, high, constant, shared, grain. order: 0 forward, 1 reverse, 2 random.
int hc_launch(void (*call)(void**), void** args, const unsigned* grid, const unsigned* block, unsigned shared_bytes,
              int n, const long* rows, const char* const* names, int check_, int order, unsigned seed, double limit) {
  occurrences.clear();
  checking = check_; failed = in_block = false; expired = false; busy = false; message[0] = 0;
  grid_dim = {grid[0], grid[1], grid[2]}; block_dim = {block[0], block[1], block[2]};
  count = block[0] * block[1] * block[2];
  entry = call; entry_args = args;
  find_segments();
  if (!room_for_stacks()) return 1;
  for (const long* r = rows; r < rows + 5 * n; r += 5)
    add_region(r[0], r[1], r[2], r[3], names[(r - rows) / 5], (unsigned)r[4]);
  addr room = (addr)dynamic_shared;
  if (shared_bytes) add_region(room, room + shared_bytes, false, true, "the launch's dynamic shared memory", 4);
  begin_cells();
  long blocks = (long)grid[0] * grid[1] * grid[2];
  std::vector<int> threads_order(count);
  std::vector<long> shuffled(order == 2 ? blocks : 0);
  for (int i = 0; i < count; ++i) threads_order[i] = order == 1 ? count - 1 - i : i;
  std::mt19937 random(seed);
  for (size_t i = 0; i < shuffled.size(); ++i) shuffled[i] = (long)i;
  std::shuffle(shuffled.begin(), shuffled.end(), random);
  {
    Signals signals(limit);
    for (long i = 0; i < blocks && !failed; ++i) {
      long b = order == 2 ? shuffled[i] : order == 1 ? blocks - 1 - i : i;
      block_number = (int)b;
      long above = b / grid[0];
      block_idx = {(unsigned)(b % grid[0]), (unsigned)(above % grid[1]), (unsigned)(above / grid[1])};
      if (order == 2) std::shuffle(threads_order.begin(), threads_order.end(), random);
      run_block(threads_order);
    }
  }
  free_regions(); fflush(stdout);
  return failed;
}
}
