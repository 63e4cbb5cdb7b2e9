// The state of a launch: threads as fibres, the memory they may touch, and how a finding ends the launch.
#pragma once
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uintptr_t addr;
typedef const void* pc_t;
struct Index { unsigned x, y, z; };
struct Operands { void* d; const void *a, *b, *c; };           // a lane's parts of a matrix product d = a b + c
#define CALLER __builtin_extract_return_addr(__builtin_return_address(0))

extern "C" char hc_static_begin[], hc_static_end[];   // static __shared__ arrays and the gaps between them

namespace {
// No power of two, and an odd number of cache lines: at the same depth, stacks would share a set of every cache.
constexpr addr STACK = (256 << 10) + 4096 + 9 * 64;
constexpr int MAX_THREADS = 1024, MAX_DYNAMIC = 228 << 10;
enum State : unsigned char { READY, AT_BARRIER, AT_WARP, DONE };

struct Thread {
  void* sp; Index idx;
  pc_t where; unsigned mask; int meeting;                       // where it waits, and with which lanes of its warp
  const Operands* operands; void (*product)(const Operands* const*);
};
Thread threads[MAX_THREADS];
State states[MAX_THREADS];
unsigned clocks[MAX_THREADS];                                   // each counts its lane's warp synchronisations
unsigned long values[MAX_THREADS]; unsigned char sources[MAX_THREADS];   // what lanes bring to an exchange, and ask of whom

int count, alive, current, block_number;
const int* turns; int turn;                                     // the order of threads, and the place in it
Index block_idx, block_dim, grid_dim;
char* stacks; addr stacks_bytes;                                // one for each thread of the largest block so far
void* scheduler_sp; bool checking, in_block, failed;
volatile bool busy, expired;                                    // inside the runtime; past the time limit
char message[1024]; pc_t error_pc, other_pc; int error_thread, error_block;
alignas(1024) char dynamic_shared[MAX_DYNAMIC];
void (*entry)(void**); void** entry_args;

void record(pc_t pc, pc_t other, const char* format, va_list list) {
  vsnprintf(message, sizeof message, format, list);
  error_pc = pc; other_pc = other; error_thread = current; error_block = block_number; failed = true;
}
}  // namespace

namespace {
// Leaves one stack for another. Said inline, so that the compiler saves no more than it needs, and by a jump, so that the
// processor's guesses where calls return to stay right: threads mostly wait at the same call.
inline __attribute__((always_inline)) void switch_stacks(void** save, void* load) {
  asm volatile("leaq 1f(%%rip), %%rax; pushq %%rbp; pushq %%rbx; pushq %%rax; movq %%rsp, (%0)\n"
               "movq %1, %%rsp; popq %%rax; jmp *%%rax\n1: popq %%rbx; popq %%rbp"
               : "+D"(save), "+S"(load) :
               : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory", "xmm0", "xmm1",
                 "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
                 "xmm14", "xmm15");
}
}  // namespace

namespace {
// The next thread of the order that can run, or -1 at its end.
inline int following() {
  while (++turn < count) if (states[turns[turn]] == READY) return turns[turn];
  return -1;
}
// Straight to the next thread: by way of the scheduler it is two switches, and every return is mispredicted.
inline __attribute__((always_inline)) void suspend() {
  busy = false;
  int me = current, next = failed || expired ? -1 : following();
  if (next >= 0) current = next;
  switch_stacks(&threads[me].sp, next >= 0 ? threads[next].sp : scheduler_sp);
}

// A finding by the scheduler, which then returns; and by a thread, which never runs again.
__attribute__((format(printf, 3, 4))) void report(pc_t pc, pc_t other, const char* format, ...) {
  va_list list; va_start(list, format); record(pc, other, format, list); va_end(list);
}
[[noreturn]] __attribute__((format(printf, 3, 4))) void fail(pc_t pc, pc_t other, const char* format, ...) {
  va_list list; va_start(list, format); record(pc, other, format, list); va_end(list);
  suspend(); abort();
}

// The runtime's own work is not interrupted by the time limit, which would leave its structures half changed.
struct Busy {
  Busy() { busy = true; }
  ~Busy() { busy = false; if (expired) fail(nullptr, nullptr, "time limit"); }
};
}  // namespace
