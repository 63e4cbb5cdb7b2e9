// The CUDA C++ dialect for g++: what a kernel source may use, mapped to the runtime in runtime.cpp.
// It is included before the user's source. Only what NVRTC also knows is defined: INFINITY and the C library are not.
#pragma once
#define __CUDA_ARCH__ 800
#define __CUDACC_RTC__ 1
#define HOSTCUDA 1

#include <type_traits>
#include <utility>

extern "C" {
float fmaf(float, float, float); float sqrtf(float); float expf(float); float exp2f(float); float logf(float);
float log2f(float); float log1pf(float); float sinf(float); float cosf(float); float tanhf(float); float fabsf(float);
float fmaxf(float, float); float fminf(float, float); float floorf(float); float ceilf(float); float rintf(float);
float erff(float); float powf(float, float); float fmodf(float, float); float truncf(float); float roundf(float);
float copysignf(float, float); float ldexpf(float, int); void sincosf(float, float*, float*);
double fma(double, double, double); double sqrt(double); double exp(double); double log(double); double fabs(double);
double fmax(double, double); double fmin(double, double); double floor(double); double ceil(double); double tanh(double);
double sin(double); double cos(double); double rint(double); double pow(double, double);
int printf(const char*, ...);
void* memcpy(void*, const void*, unsigned long); void* memset(void*, int, unsigned long);
}

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

typedef unsigned char uchar; typedef unsigned short ushort; typedef unsigned int uint;
typedef signed char int8_t; typedef unsigned char uint8_t; typedef short int16_t; typedef unsigned short uint16_t;
typedef int int32_t; typedef unsigned int uint32_t; typedef long int64_t; typedef unsigned long uint64_t;
typedef unsigned long size_t; typedef long ptrdiff_t; typedef unsigned long uintptr_t;

#define HC_VECTOR(T, N) \
  struct alignas(sizeof(T) * 2) N##2 { T x, y; }; struct N##3 { T x, y, z; }; \
  struct alignas(sizeof(T) * 4 > 16 ? 16 : sizeof(T) * 4) N##4 { T x, y, z, w; }; \
  inline N##2 make_##N##2(T x, T y) { return {x, y}; } inline N##3 make_##N##3(T x, T y, T z) { return {x, y, z}; } \
  inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
HC_VECTOR(char, char) HC_VECTOR(uchar, uchar) HC_VECTOR(short, short) HC_VECTOR(ushort, ushort) HC_VECTOR(int, int)
HC_VECTOR(uint, uint) HC_VECTOR(float, float) HC_VECTOR(long long, longlong) HC_VECTOR(unsigned long long, ulonglong)
HC_VECTOR(double, double)
struct dim3 { unsigned x = 1, y = 1, z = 1; };

// Where a thread is: functions of the fibre, constant within it, so that the checker does not see them as memory.
extern "C" {
uint3 hc_thread_idx() __attribute__((const)); uint3 hc_block_idx() __attribute__((const));
uint3 hc_block_dim() __attribute__((const)); uint3 hc_grid_dim() __attribute__((const));
void* hc_dynamic_shared() __attribute__((const));
int hc_barrier(int vote, int how);                      // how: 0 plain, 1 count, 2 and, 3 or
void hc_warp_sync(unsigned mask);
unsigned long hc_warp_exchange(unsigned mask, unsigned long value, int lane, int width);   // lane < 0: own value
unsigned hc_warp_ballot(unsigned mask, int predicate);
void hc_warp_gather(const void* mine, unsigned bytes, void* all);                            // 32 slots, lane order
unsigned hc_active_mask();
void hc_atomic(const void* address, int bytes);
void hc_async_copy(void* shared, const void* global, unsigned bytes);
void hc_async_commit();
void hc_async_wait(int pending);
void hc_trap() __attribute__((noreturn));
}
#define threadIdx (hc_thread_idx())
#define blockIdx (hc_block_idx())
#define blockDim (hc_block_dim())
#define gridDim (hc_grid_dim())
#define warpSize 32

inline __attribute__((always_inline)) void __syncthreads() { hc_barrier(0, 0); }
inline __attribute__((always_inline)) int __syncthreads_count(int p) { return hc_barrier(p != 0, 1); }
inline __attribute__((always_inline)) int __syncthreads_and(int p) { return hc_barrier(p != 0, 2); }
inline __attribute__((always_inline)) int __syncthreads_or(int p) { return hc_barrier(p != 0, 3); }
inline __attribute__((always_inline)) void __syncwarp(unsigned mask = 0xffffffffu) { hc_warp_sync(mask); }
inline void __threadfence() {} inline void __threadfence_block() {} inline void __trap() { hc_trap(); }
inline unsigned __activemask() { return hc_active_mask(); }

// Warp collectives. A value travels as 8 bytes.
template <class T> inline unsigned long hc_bits(T v) { unsigned long u = 0; __builtin_memcpy(&u, &v, sizeof(T)); return u; }
template <class T> inline T hc_value(unsigned long u) { T v; __builtin_memcpy(&v, &u, sizeof(T)); return v; }
#define HC_INLINE template <class T> inline __attribute__((always_inline)) T
inline __attribute__((always_inline)) int hc_lane() {
  uint3 t = hc_thread_idx(), d = hc_block_dim(); return (t.x + d.x * (t.y + d.y * t.z)) & 31; }
HC_INLINE __shfl_sync(unsigned m, T v, int src, int width = 32) {
  int l = hc_lane(); return hc_value<T>(hc_warp_exchange(m, hc_bits(v), (l & ~(width - 1)) | (src & (width - 1)), width)); }
HC_INLINE __shfl_xor_sync(unsigned m, T v, int x, int width = 32) {
  int l = hc_lane(), s = l ^ x; return hc_value<T>(hc_warp_exchange(m, hc_bits(v), (s & ~(width - 1)) > l ? l : s, width)); }
HC_INLINE __shfl_down_sync(unsigned m, T v, unsigned d, int width = 32) {
  int l = hc_lane(), s = l + (int)d; return hc_value<T>(hc_warp_exchange(m, hc_bits(v), (l & (width - 1)) + (int)d < width ? s : l, width)); }
HC_INLINE __shfl_up_sync(unsigned m, T v, unsigned d, int width = 32) {
  int l = hc_lane(); return hc_value<T>(hc_warp_exchange(m, hc_bits(v), (l & (width - 1)) >= (int)d ? l - (int)d : l, width)); }
inline __attribute__((always_inline)) unsigned __ballot_sync(unsigned m, int p) { return hc_warp_ballot(m, p); }
inline __attribute__((always_inline)) int __any_sync(unsigned m, int p) { return hc_warp_ballot(m, p) != 0; }
inline __attribute__((always_inline)) int __all_sync(unsigned m, int p) { return hc_warp_ballot(m, p) == m; }
#undef HC_INLINE

// Atomics: threads run one at a time, so the plain operation is atomic; the checker is told that it was meant so.
#define HC_ATOMIC(NAME, EXPR) template <class T> __attribute__((no_sanitize("thread", "undefined"), noinline)) T NAME(T* p, \
  typename std::common_type<T>::type v) { hc_atomic(p, sizeof(T)); T old = *p; *p = (EXPR); return old; }
HC_ATOMIC(atomicAdd, old + v) HC_ATOMIC(atomicSub, old - v) HC_ATOMIC(atomicMax, v > old ? v : old)
HC_ATOMIC(atomicMin, v < old ? v : old) HC_ATOMIC(atomicExch, v) HC_ATOMIC(atomicAnd, old & v)
HC_ATOMIC(atomicOr, old | v) HC_ATOMIC(atomicXor, old ^ v)
template <class T> __attribute__((no_sanitize("thread"), noinline)) T atomicCAS(T* p, T expected, T v) {
  hc_atomic(p, sizeof(T)); T old = *p; if (old == expected) *p = v; return old; }

// Arithmetic intrinsics. The fast-math ones are the accurate functions here: their error is the device's own.
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; } inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; } inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; } inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); } inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); } inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
inline float sinpif(float x) { return (float)sin(3.14159265358979323846 * x); }
inline float cospif(float x) { return (float)cos(3.14159265358979323846 * x); }
inline float __frcp_rn(float x) { return 1.f / x; } inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __int_as_float(int i) { return __builtin_bit_cast(float, i); }
inline float __uint_as_float(unsigned i) { return __builtin_bit_cast(float, i); }
inline int __float_as_int(float f) { return __builtin_bit_cast(int, f); }
inline unsigned __float_as_uint(float f) { return __builtin_bit_cast(unsigned, f); }
inline int __float2int_rn(float f) { return (int)rintf(f); } inline int __float2int_rz(float f) { return (int)f; }
inline float __uint2float_rn(unsigned u) { return (float)u; } inline float __int2float_rn(int i) { return (float)i; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long)a * b) >> 32); }
inline int __mulhi(int a, int b) { return (int)(((long)a * b) >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); } inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline bool isnan(float x) { return __builtin_isnan(x); } inline bool isinf(float x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }
template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline void __stcs(T* p, T v) { *p = v; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class A, class B> inline typename std::common_type<A, B>::type max(A a, B b) {
  if constexpr (std::is_same<A, float>::value && std::is_same<B, float>::value) return fmaxf(a, b); else return a > b ? a : b; }
template <class A, class B> inline typename std::common_type<A, B>::type min(A a, B b) {
  if constexpr (std::is_same<A, float>::value && std::is_same<B, float>::value) return fminf(a, b); else return a < b ? a : b; }
inline float abs(float x) { return fabsf(x); } inline int abs(int x) { return x < 0 ? -x : x; }

#include "half.h"

// Asynchronous copies: the bytes arrive when they are waited for; until then the checker calls them unwritten.
inline void __pipeline_memcpy_async(void* d, const void* s, size_t n, size_t zfill = 0) {
  hc_async_copy(d, s, n - zfill); if (zfill) memset((char*)d + n - zfill, 0, zfill); }
inline void __pipeline_commit() { hc_async_commit(); }
inline void __pipeline_wait_prior(int n) { hc_async_wait(n); }

// A kernel's parameters as text, and its call from packed arguments: made by the compiler, so never out of step.
template <class T> struct hc_code { static constexpr char kind = std::is_floating_point<T>::value ? 'f' :
  std::is_same<T, bool>::value ? 'b' : std::is_unsigned<T>::value ? 'u' : std::is_integral<T>::value ? 'i' : 'V'; };
template <> struct hc_code<__half> { static constexpr char kind = 'f'; };
template <> struct hc_code<__nv_bfloat16> { static constexpr char kind = 'B'; };
template <class T> struct hc_param { static char* put(char* s) { *s++ = hc_code<T>::kind; return hc_digits(s, sizeof(T)); }
  static char* hc_digits(char* s, unsigned n) { if (n > 9) *s++ = '0' + n / 10; *s++ = '0' + n % 10; *s++ = ' '; return s; } };
template <class T> struct hc_param<T*> { static char* put(char* s) { *s++ = '*';
  if (std::is_const<T>::value) *s++ = 'c'; using E = typename std::remove_cv<T>::type;
  if constexpr (std::is_void<E>::value) { *s++ = 'V'; *s++ = '1'; *s++ = ' '; return s; }
  else return hc_param<E>::put(s); } };
template <class T> struct hc_param<T* __restrict> : hc_param<T*> {};
template <class... P> inline void hc_signature(void (*)(P...), char* s) {
  ((s = hc_param<typename std::remove_cv<P>::type>::put(s)), ...); *s = 0; }
template <class... P, size_t... I> __attribute__((no_sanitize("thread", "undefined")))
inline void hc_invoke_at(void (*k)(P...), void** a, std::index_sequence<I...>) { k(*(typename std::remove_cv<P>::type*)a[I]...); }
template <class... P> __attribute__((no_sanitize("thread", "undefined")))
inline void hc_invoke(void (*k)(P...), void** a) { hc_invoke_at(k, a, std::index_sequence_for<P...>{}); }
#define HC_EXPORT(N, ...) extern "C" void hc_call_##N(void** a) { hc_invoke(&__VA_ARGS__, a); } \
  extern "C" void hc_sig_##N(char* s) { hc_signature(&__VA_ARGS__, s); }
