// float16 and bfloat16 with float arithmetic, without constructors (so that shared arrays of them need no guard), and wmma.
#pragma once
struct __half { unsigned short bits; };
struct __nv_bfloat16 { unsigned short bits; };
typedef __half half;
struct alignas(4) __half2 { __half x, y; };
struct alignas(4) __nv_bfloat162 { __nv_bfloat16 x, y; };
typedef __half2 half2;

inline float __half2float(__half h) { _Float16 f = __builtin_bit_cast(_Float16, h.bits); return (float)f; }
inline __half __float2half(float f) { return {__builtin_bit_cast(unsigned short, (_Float16)f)}; }
inline __half __float2half_rn(float f) { return __float2half(f); }
inline float __bfloat162float(__nv_bfloat16 b) { return __builtin_bit_cast(float, (unsigned)b.bits << 16); }
inline __nv_bfloat16 __float2bfloat16(float f) {       // round to nearest, ties to even; NaN stays NaN
  unsigned u = __builtin_bit_cast(unsigned, f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {(unsigned short)((u >> 16) | 64)};
  return {(unsigned short)((u + 0x7fffu + ((u >> 16) & 1)) >> 16)}; }
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return __float2bfloat16(f); }
inline float2 __half22float2(__half2 h) { return {__half2float(h.x), __half2float(h.y)}; }
inline __half2 __floats2half2_rn(float a, float b) { return {__float2half(a), __float2half(b)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 h) { return {__bfloat162float(h.x), __bfloat162float(h.y)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) { return {__float2bfloat16(a), __float2bfloat16(b)}; }
inline __half operator+(__half a, __half b) { return __float2half(__half2float(a) + __half2float(b)); }
inline __half operator-(__half a, __half b) { return __float2half(__half2float(a) - __half2float(b)); }
inline __half operator*(__half a, __half b) { return __float2half(__half2float(a) * __half2float(b)); }

namespace nvcuda { namespace wmma {
struct matrix_a; struct matrix_b; struct accumulator; struct row_major; struct col_major;
enum layout_t { mem_row_major, mem_col_major };
inline float hc_up(float x) { return x; }
inline float hc_up(__half x) { return __half2float(x); }
inline float hc_up(__nv_bfloat16 x) { return __bfloat162float(x); }

// Lane l of the warp holds elements l, l + 32, ... of the row-major tile: a layout as unspecified as the real one.
template <class Use, int M, int N, int K, class T, class Layout = void> struct fragment {
  static constexpr int rows = std::is_same<Use, matrix_b>::value ? K : M;
  static constexpr int cols = std::is_same<Use, matrix_a>::value ? K : N;
  static constexpr int num_elements = rows * cols / 32;
  T x[num_elements];
};
template <class F, class T> inline void fill_fragment(F& f, T v) { for (auto& e : f.x) e = v; }
template <class U, int M, int N, int K, class T, class L> inline __attribute__((always_inline))
void load_matrix_sync(fragment<U, M, N, K, T, L>& f, const T* p, unsigned ld) {
  using F = fragment<U, M, N, K, T, L>;
  hc_warp_sync(0xffffffffu);
  for (int i = 0, e = hc_lane(); i < F::num_elements; ++i, e += 32)
    f.x[i] = p[std::is_same<L, col_major>::value ? (e % F::cols) * ld + e / F::cols : (e / F::cols) * ld + e % F::cols]; }
template <int M, int N, int K, class T> inline __attribute__((always_inline))
void load_matrix_sync(fragment<accumulator, M, N, K, T>& f, const T* p, unsigned ld, layout_t layout) {
  hc_warp_sync(0xffffffffu);
  for (int i = 0, e = hc_lane(); i < M * N / 32; ++i, e += 32)
    f.x[i] = p[layout == mem_col_major ? (e % N) * ld + e / N : (e / N) * ld + e % N]; }
template <int M, int N, int K, class T> inline __attribute__((always_inline))
void store_matrix_sync(T* p, const fragment<accumulator, M, N, K, T>& f, unsigned ld, layout_t layout) {
  hc_warp_sync(0xffffffffu);
  for (int i = 0, e = hc_lane(); i < M * N / 32; ++i, e += 32)
    p[layout == mem_col_major ? (e % N) * ld + e / N : (e / N) * ld + e % N] = f.x[i]; }
template <int M, int N, int K, class A, class B, class LA, class LB, class C> inline __attribute__((always_inline))
void mma_sync(fragment<accumulator, M, N, K, C>& d, const fragment<matrix_a, M, N, K, A, LA>& a,
              const fragment<matrix_b, M, N, K, B, LB>& b, const fragment<accumulator, M, N, K, C>& c) {
  constexpr int na = M * K / 32, nb = K * N / 32;
  A all_a[32][na]; B all_b[32][nb];
  hc_warp_gather(a.x, sizeof(a.x), all_a);
  hc_warp_gather(b.x, sizeof(b.x), all_b);
  for (int i = 0, e = hc_lane(); i < M * N / 32; ++i, e += 32) {
    float sum = hc_up(c.x[i]);
    for (int k = 0; k < K; ++k) {
      int ia = (e / N) * K + k, ib = k * N + e % N;
      sum += hc_up(all_a[ia % 32][ia / 32]) * hc_up(all_b[ib % 32][ib / 32]); }
    if constexpr (std::is_same<C, float>::value) d.x[i] = sum; else d.x[i] = __float2half(sum); } }
}}
