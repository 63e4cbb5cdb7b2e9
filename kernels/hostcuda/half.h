// float16 and bfloat16 with float arithmetic, and wmma.
#pragma once
HC_INLINE unsigned short hc_to_half(float f) { return __builtin_bit_cast(unsigned short, (_Float16)f); }
HC_INLINE float hc_from_half(unsigned short b) { return (float)__builtin_bit_cast(_Float16, b); }
HC_INLINE unsigned short hc_to_bfloat(float f) {          // round to nearest, ties to even; NaN stays NaN
  unsigned u = __builtin_bit_cast(unsigned, f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (unsigned short)((u >> 16) | 64);
  return (unsigned short)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}
HC_INLINE float hc_from_bfloat(unsigned short b) { return __builtin_bit_cast(float, (unsigned)b << 16); }

// Constructors would be convenient, but g++ then guards shared arrays in templates; `raw` is a struct so that
// __half(x), which CUDA has, does not compile to something else here.
struct hc_raw { unsigned short u; };
#define HC_HALF(NAME, TO, FROM) \
  struct NAME { hc_raw raw; HC_INLINE operator float() const { return FROM(raw.u); } }; \
  struct alignas(4) NAME##2_ { NAME x, y; }; \
  HC_INLINE NAME hc_make_##NAME(float f) { return {{TO(f)}}; } \
  inline NAME operator+(NAME a, NAME b) { return {{TO((float)a + (float)b)}}; } \
  inline NAME operator-(NAME a, NAME b) { return {{TO((float)a - (float)b)}}; } \
  inline NAME operator*(NAME a, NAME b) { return {{TO((float)a * (float)b)}}; } \
  inline NAME operator/(NAME a, NAME b) { return {{TO((float)a / (float)b)}}; } \
  inline NAME operator-(NAME a) { return {{TO(-(float)a)}}; } \
  inline NAME& operator+=(NAME& a, NAME b) { return a = a + b; } \
  inline NAME& operator-=(NAME& a, NAME b) { return a = a - b; } \
  inline NAME& operator*=(NAME& a, NAME b) { return a = a * b; } \
  inline bool operator<(NAME a, NAME b) { return (float)a < (float)b; } \
  inline bool operator>(NAME a, NAME b) { return (float)a > (float)b; } \
  inline bool operator==(NAME a, NAME b) { return (float)a == (float)b; } \
  inline NAME __hadd(NAME a, NAME b) { return a + b; } inline NAME __hsub(NAME a, NAME b) { return a - b; } \
  inline NAME __hmul(NAME a, NAME b) { return a * b; } inline NAME __hdiv(NAME a, NAME b) { return a / b; } \
  inline NAME __hmax(NAME a, NAME b) { return {{TO(fmaxf(a, b))}}; } \
  inline NAME __hmin(NAME a, NAME b) { return {{TO(fminf(a, b))}}; } \
  inline NAME __hfma(NAME a, NAME b, NAME c) { return {{TO(hc_odd((double)(float)a * (float)b, (float)c))}}; } \
  inline bool __hisnan(NAME a) { return isnan((float)a); }
// a + b to a float rounded to odd, from which rounding to a half type is as from the exact sum.
inline float hc_odd(double a, double b) {
  double sum = a + b, part = sum - a, rest = (a - (sum - part)) + (b - part);
  unsigned long bits = __builtin_bit_cast(unsigned long, sum);
  if (rest != 0 && isfinite(sum) && !(bits & 1)) bits += (rest > 0) == (sum > 0) ? 1 : -1;
  double odd = __builtin_bit_cast(double, bits);
  float f = (float)odd; unsigned u = __builtin_bit_cast(unsigned, f);
  if ((double)f != odd && isfinite(f) && !(u & 1)) u += ((double)f < odd) == (odd > 0) ? 1 : -1;
  return __builtin_bit_cast(float, u);
}
HC_HALF(__half, hc_to_half, hc_from_half) HC_HALF(__nv_bfloat16, hc_to_bfloat, hc_from_bfloat)
typedef __half half; typedef __half2_ __half2; typedef __half2_ half2;
typedef __nv_bfloat162_ __nv_bfloat162; typedef __nv_bfloat16 nv_bfloat16;

HC_INLINE float __half2float(__half h) { return h; } HC_INLINE __half __float2half(float f) { return hc_make___half(f); }
HC_INLINE __half __float2half_rn(float f) { return hc_make___half(f); }
HC_INLINE float __bfloat162float(__nv_bfloat16 b) { return b; }
HC_INLINE __nv_bfloat16 __float2bfloat16(float f) { return hc_make___nv_bfloat16(f); }
HC_INLINE __nv_bfloat16 __float2bfloat16_rn(float f) { return hc_make___nv_bfloat16(f); }
inline unsigned short __half_as_ushort(__half h) { return h.raw.u; }
inline __half __ushort_as_half(unsigned short u) { return {{u}}; }
inline float2 __half22float2(__half2 h) { return {h.x, h.y}; }
inline __half2 __floats2half2_rn(float a, float b) { return {__float2half(a), __float2half(b)}; }
inline __half2 __float22half2_rn(float2 f) { return __floats2half2_rn(f.x, f.y); }
inline __half2 __halves2half2(__half a, __half b) { return {a, b}; }
inline __half2 __half2half2(__half a) { return {a, a}; }
inline __half2 __float2half2_rn(float f) { return __floats2half2_rn(f, f); }
inline float __low2float(__half2 h) { return h.x; } inline float __high2float(__half2 h) { return h.y; }
inline __half __low2half(__half2 h) { return h.x; } inline __half __high2half(__half2 h) { return h.y; }
inline __half2 __hadd2(__half2 a, __half2 b) { return {a.x + b.x, a.y + b.y}; }
inline __half2 __hmul2(__half2 a, __half2 b) { return {a.x * b.x, a.y * b.y}; }
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 h) { return {h.x, h.y}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
  return {__float2bfloat16(a), __float2bfloat16(b)}; }

namespace nvcuda { namespace wmma {
struct matrix_a; struct matrix_b; struct accumulator; struct row_major; struct col_major;
enum layout_t { mem_row_major, mem_col_major };

// Lane l of the warp holds elements l, l + 32, ... of the row-major tile: a layout as unspecified as the real one.
template <class Use, int M, int N, int K, class T, class Layout = void> struct fragment {
  static constexpr int rows = std::is_same<Use, matrix_b>::value ? K : M;
  static constexpr int cols = std::is_same<Use, matrix_a>::value ? K : N;
  static constexpr int num_elements = rows * cols / 32;
  T x[num_elements];
};
template <class F, class T> inline void fill_fragment(F& f, T v) { for (auto& e : f.x) e = v; }

// CUDA's rules for a matrix in memory: 32-byte alignment, rows that are multiples of 16 bytes.
template <class T> HC_INLINE void hc_matrix(const T* p, unsigned ld) {
  if ((unsigned long)p % 32) hc_trap("a matrix fragment's address must be a multiple of 32 bytes");
  if (ld * sizeof(T) % 16) hc_trap("a matrix fragment's leading dimension must be a multiple of 16 bytes");
  __syncwarp();
}
template <bool COL, int COLS> HC_INLINE unsigned hc_offset(int e, unsigned ld) {
  return COL ? (e % COLS) * ld + e / COLS : (e / COLS) * ld + e % COLS;
}
template <class U, int M, int N, int K, class T, class L> HC_INLINE
void load_matrix_sync(fragment<U, M, N, K, T, L>& f, const T* p, unsigned ld) {
  using F = fragment<U, M, N, K, T, L>;
  hc_matrix(p, ld);
  for (int i = 0, e = hc_lane(); i < F::num_elements; ++i, e += 32)
    f.x[i] = p[hc_offset<std::is_same<L, col_major>::value, F::cols>(e, ld)];
}
template <int M, int N, int K, class T> HC_INLINE
void load_matrix_sync(fragment<accumulator, M, N, K, T>& f, const T* p, unsigned ld, layout_t layout) {
  hc_matrix(p, ld);
  for (int i = 0, e = hc_lane(); i < M * N / 32; ++i, e += 32)
    f.x[i] = p[layout == mem_col_major ? hc_offset<true, N>(e, ld) : hc_offset<false, N>(e, ld)];
}
template <int M, int N, int K, class T> HC_INLINE
void store_matrix_sync(T* p, const fragment<accumulator, M, N, K, T>& f, unsigned ld, layout_t layout) {
  hc_matrix(p, ld);
  for (int i = 0, e = hc_lane(); i < M * N / 32; ++i, e += 32)
    p[layout == mem_col_major ? hc_offset<true, N>(e, ld) : hc_offset<false, N>(e, ld)] = f.x[i];
}
// d = a b + c of a whole warp, by the last lane to come. Out of the checker's sight: all of it is local memory.
template <int M, int N, int K, class A, class B, class C> __attribute__((no_sanitize("thread", "undefined")))
void hc_mma(const hc_operands* const* lanes) {
  typedef float Row __attribute__((vector_size(N * sizeof(float))));
  float a[M * K]; Row b[K], sum[M];
  for (int l = 0; l < 32; ++l) {
    for (int i = 0; i < M * K / 32; ++i) a[32 * i + l] = ((const A*)lanes[l]->a)[i];
    for (int i = 0; i < K * N / 32; ++i) ((float*)b)[32 * i + l] = ((const B*)lanes[l]->b)[i];
    for (int i = 0; i < M * N / 32; ++i) ((float*)sum)[32 * i + l] = ((const C*)lanes[l]->c)[i];
  }
  for (int m = 0; m < M; ++m)
    for (int k = 0; k < K; ++k) sum[m] += a[m * K + k] * b[k];
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < M * N / 32; ++i) {
      C& d = ((C*)lanes[l]->d)[i]; float s = ((float*)sum)[32 * i + l];
      if constexpr (std::is_same<C, float>::value) d = s; else d = __float2half(s);
    }
}
template <int M, int N, int K, class A, class B, class LA, class LB, class C> HC_INLINE
void mma_sync(fragment<accumulator, M, N, K, C>& d, const fragment<matrix_a, M, N, K, A, LA>& a,
              const fragment<matrix_b, M, N, K, B, LB>& b, const fragment<accumulator, M, N, K, C>& c) {
  hc_fence();
  hc_warp_matrix(hc_mma<M, N, K, A, B, C>, d.x, a.x, b.x, c.x);
  hc_fence();
}
}}
