// The CUDA C++ dialect for g++: what a kernel source may use, mapped to the runtime in runtime.cpp.
// It is included before the user's source. Only what NVRTC also knows is defined: INFINITY and the C library are not.
#pragma once
#define __CUDA_ARCH__ 800
#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
#define HOSTCUDA 1

#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__ __restrict
#define __shared__ static
#define __constant__ __attribute__((section(".hostcuda.constant")))
#define __grid_constant__
#define __managed__
#define warpSize 32
#define HC_INLINE inline __attribute__((always_inline))

typedef unsigned char uchar; typedef unsigned short ushort; typedef unsigned int uint; typedef unsigned long ulong;
typedef signed char int8_t; typedef unsigned char uint8_t; typedef short int16_t; typedef unsigned short uint16_t;
typedef int int32_t; typedef unsigned int uint32_t; typedef long int64_t; typedef unsigned long uint64_t;
typedef unsigned long size_t; typedef long ptrdiff_t; typedef long intptr_t; typedef unsigned long uintptr_t;

#define HC_VECTOR(T, N) \
  struct N##1 { T x; }; struct alignas(sizeof(T) * 2) N##2 { T x, y; }; struct N##3 { T x, y, z; }; \
  struct alignas(sizeof(T) * 4 > 16 ? 16 : sizeof(T) * 4) N##4 { T x, y, z, w; }; \
  inline N##1 make_##N##1(T x) { return {x}; } inline N##2 make_##N##2(T x, T y) { return {x, y}; } \
  inline N##3 make_##N##3(T x, T y, T z) { return {x, y, z}; } \
  inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
HC_VECTOR(signed char, char) HC_VECTOR(uchar, uchar) HC_VECTOR(short, short) HC_VECTOR(ushort, ushort)
HC_VECTOR(int, int) HC_VECTOR(uint, uint) HC_VECTOR(long, long) HC_VECTOR(ulong, ulong) HC_VECTOR(float, float)
HC_VECTOR(long long, longlong) HC_VECTOR(unsigned long long, ulonglong) HC_VECTOR(double, double)
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

// Where a thread is: functions of the fibre, constant within it, so that the checker does not see them as memory.
extern "C" {
uint3 hc_thread_idx() __attribute__((const)); uint3 hc_block_idx() __attribute__((const));
uint3 hc_block_dim() __attribute__((const)); uint3 hc_grid_dim() __attribute__((const));
void* hc_dynamic_shared() __attribute__((const)); int hc_lane() __attribute__((const));
int hc_barrier(int vote, int how);                      // how: 0 plain, 1 count, 2 and, 3 or
void hc_warp_sync(unsigned mask);
unsigned long hc_warp_exchange(unsigned mask, unsigned long value, int lane);
unsigned hc_warp_ballot(unsigned mask, int predicate);
struct hc_operands { void* d; const void *a, *b, *c; };
void hc_warp_matrix(void (*product)(const hc_operands* const*), void* d, const void* a, const void* b, const void* c);
unsigned hc_active_mask();
void hc_atomic(const void* address, int bytes);
void hc_async_copy(void* shared, const void* global, unsigned bytes, unsigned zeros);
void hc_async_commit();
void hc_async_wait(int pending);
void hc_trap(const char* why) __attribute__((noreturn));
void hc_launch_bounds(long most);
int hc_printf(const char*, ...);
void* memcpy(void*, const void*, size_t); void* memset(void*, int, size_t);
}
#define threadIdx (hc_thread_idx())
#define blockIdx (hc_block_idx())
#define blockDim (hc_block_dim())
#define gridDim (hc_grid_dim())
#define printf hc_printf
#define assert(...) ((__VA_ARGS__) ? (void)0 : hc_trap("assertion failed: " #__VA_ARGS__))

// A barrier lets other threads run, which g++ does not know: without the fences it might keep a shared array that no
// other function sees in registers, or move its accesses across.
HC_INLINE void hc_fence() { asm volatile("" ::: "memory"); }
#define HC_FENCED(CALL) hc_fence(); auto result = CALL; hc_fence(); return result;
HC_INLINE int hc_meet(int vote, int how) { HC_FENCED(hc_barrier(vote, how)) }
HC_INLINE void __syncthreads() { hc_meet(0, 0); }
HC_INLINE int __syncthreads_count(int p) { return hc_meet(p != 0, 1); }
HC_INLINE int __syncthreads_and(int p) { return hc_meet(p != 0, 2); }
HC_INLINE int __syncthreads_or(int p) { return hc_meet(p != 0, 3); }
HC_INLINE void __syncwarp(unsigned mask = ~0u) { hc_fence(); hc_warp_sync(mask); hc_fence(); }
HC_INLINE unsigned hc_ballot(unsigned m, int p) { HC_FENCED(hc_warp_ballot(m, p)) }
HC_INLINE unsigned long hc_exchange(unsigned m, unsigned long v, int l) { HC_FENCED(hc_warp_exchange(m, v, l)) }
inline void __threadfence() {} inline void __threadfence_block() {} inline void __threadfence_system() {}
inline void __nanosleep(unsigned) {} HC_INLINE void __trap() { hc_trap("__trap"); }
inline unsigned __activemask() { return hc_active_mask(); }

// Warp collectives. A value travels as 8 bytes.
template <class T> HC_INLINE unsigned long hc_bits(T v) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
  unsigned long u = 0; __builtin_memcpy(&u, &v, sizeof(T)); return u;
}
template <class T> HC_INLINE T hc_value(unsigned long u) { T v; __builtin_memcpy(&v, &u, sizeof(T)); return v; }
#define HC_SHUFFLE(NAME, ARGUMENT, SOURCE) \
  template <class T> HC_INLINE T NAME(unsigned mask, T v, ARGUMENT, int width = 32) { \
    int l = hc_lane(), in = l & (width - 1), first = l - in; \
    return hc_value<T>(hc_exchange(mask, hc_bits(v), SOURCE)); }
HC_SHUFFLE(__shfl_sync, int from, first + (from & (width - 1)))
HC_SHUFFLE(__shfl_xor_sync, int x, (l ^ x) < first + width ? l ^ x : l)
HC_SHUFFLE(__shfl_down_sync, unsigned d, in + (int)d < width ? l + (int)d : l)
HC_SHUFFLE(__shfl_up_sync, unsigned d, in >= (int)d ? l - (int)d : l)
HC_INLINE unsigned __ballot_sync(unsigned m, int p) { return hc_ballot(m, p != 0); }
HC_INLINE int __any_sync(unsigned m, int p) { return hc_ballot(m, p != 0) != 0; }
HC_INLINE int __all_sync(unsigned m, int p) { return hc_ballot(m, p == 0) == 0; }

// Atomics: threads run one at a time, so the plain operation is atomic; the checker is told that it was meant so.
#define HC_ATOMIC(NAME, EXPR) \
  template <class T> __attribute__((no_sanitize("thread", "undefined"), noinline)) T hc_##NAME(T* p, T v) { \
    T old = *p; *p = (EXPR); return old; } \
  template <class T> HC_INLINE T NAME(T* p, typename std::common_type<T>::type v) { \
    hc_atomic(p, sizeof(T)); return hc_##NAME(p, v); }
HC_ATOMIC(atomicAdd, old + v) HC_ATOMIC(atomicSub, old - v) HC_ATOMIC(atomicMax, v > old ? v : old)
HC_ATOMIC(atomicMin, v < old ? v : old) HC_ATOMIC(atomicExch, v) HC_ATOMIC(atomicAnd, old & v)
HC_ATOMIC(atomicOr, old | v) HC_ATOMIC(atomicXor, old ^ v) HC_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
HC_ATOMIC(atomicDec, old == 0 || old > v ? v : old - 1)
template <class T> __attribute__((no_sanitize("thread", "undefined"), noinline)) T hc_atomicCAS(T* p, T expected, T v) {
  T old = *p; if (old == expected) *p = v; return old;
}
template <class T> HC_INLINE T atomicCAS(T* p, typename std::common_type<T>::type expected,
                                         typename std::common_type<T>::type v) {
  hc_atomic(p, sizeof(T)); return hc_atomicCAS(p, expected, v);
}

template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline T __ldcg(const T* p) { return *p; }
template <class T> inline T __ldca(const T* p) { return *p; }
template <class T> inline void __stcs(T* p, typename std::common_type<T>::type v) { *p = v; }
template <class T> inline void __stcg(T* p, typename std::common_type<T>::type v) { *p = v; }

// Asynchronous copies: the bytes arrive when they are waited for; until then nobody may touch them.
HC_INLINE void __pipeline_memcpy_async(void* d, const void* s, size_t n, size_t zfill = 0) {
  hc_async_copy(d, s, n, zfill); }
HC_INLINE void __pipeline_commit() { hc_async_commit(); }
HC_INLINE void __pipeline_wait_prior(int n) { hc_fence(); hc_async_wait(n); hc_fence(); }

#include "intrinsics.h"
#include "half.h"
#include "launch.h"
