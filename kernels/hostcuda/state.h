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
#define CALLER __builtin_extract_return_addr(__builtin_return_address(0))

extern "C" char hc_static_begin[], hc_static_end[];   // static __shared__ arrays and the gaps between them

namespace {
constexpr addr STACK = 256 << 10;
constexpr int MAX_THREADS = 1024, MAX_DYNAMIC = 228 << 10;
enum State { READY, AT_BARRIER, AT_WARP, DONE };

struct Thread {
  void* sp; State state; Index idx;
  unsigned clock;                                               // counts this lane's warp synchronisations
  pc_t where; unsigned mask;                                    // where it waits, and with which lanes of its warp
  int meeting, lane; unsigned long value; unsigned bytes;       // what it brings to a meeting of the warp
  const void* data; void* all; int vote;
};

Thread threads[MAX_THREADS];
int count, alive, current, block_number; unsigned epoch;        // epoch: __syncthreads that the block has passed
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
void suspend() { busy = false; hc_switch(&threads[current].sp, scheduler_sp); }

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
