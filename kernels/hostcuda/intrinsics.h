// Arithmetic that CUDA knows without a header. The fast-math intrinsics are the accurate functions here: their error is
// the device's own.
#pragma once
#define HC_MATH(X) X(sqrt) X(exp) X(exp2) X(expm1) X(log) X(log2) X(log10) X(log1p) X(sin) X(cos) X(tan) X(asin) \
  X(acos) X(atan) X(sinh) X(cosh) X(tanh) X(asinh) X(acosh) X(atanh) X(erf) X(erfc) X(cbrt) X(floor) X(ceil) X(trunc) \
  X(round) X(rint) X(nearbyint) X(fabs) X(tgamma) X(lgamma)
#define HC_MATH2(X) X(fmax) X(fmin) X(pow) X(fmod) X(atan2) X(hypot) X(copysign) X(fdim) X(remainder) X(nextafter)
#define HC_DECLARE(F) double F(double); float F##f(float);
#define HC_DECLARE2(F) double F(double, double); float F##f(float, float);
extern "C" {
HC_MATH(HC_DECLARE) HC_MATH2(HC_DECLARE2)
float fmaf(float, float, float); double fma(double, double, double);
float ldexpf(float, int); double ldexp(double, int);
long lrintf(float); long lrint(double); void sincosf(float, float*, float*); void sincos(double, double*, double*);
}
#define HC_OVERLOAD(F) inline float F(float x) { return F##f(x); }
#define HC_OVERLOAD2(F) inline float F(float x, float y) { return F##f(x, y); }
HC_MATH(HC_OVERLOAD) HC_MATH2(HC_OVERLOAD2)
inline float fma(float a, float b, float c) { return fmaf(a, b, c); }

template <class A, class B> inline typename std::common_type<A, B>::type max(A a, B b) {
  if constexpr (std::is_same<A, float>::value && std::is_same<B, float>::value) return fmaxf(a, b);
  else return a > b ? a : b; }
template <class A, class B> inline typename std::common_type<A, B>::type min(A a, B b) {
  if constexpr (std::is_same<A, float>::value && std::is_same<B, float>::value) return fminf(a, b);
  else return a < b ? a : b; }
inline float abs(float x) { return fabsf(x); } inline double abs(double x) { return fabs(x); }
inline int abs(int x) { return x < 0 ? -x : x; } inline long abs(long x) { return x < 0 ? -x : x; }
inline bool isnan(float x) { return __builtin_isnan(x); } inline bool isnan(double x) { return __builtin_isnan(x); }
inline bool isinf(float x) { return __builtin_isinf(x); } inline bool isinf(double x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }
inline bool isfinite(double x) { return __builtin_isfinite(x); }
inline bool signbit(float x) { return __builtin_signbit(x); }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); } inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float exp10f(float x) { return (float)pow(10.0, (double)x); }
inline float sinpif(float x) { return (float)sin(3.14159265358979323846 * (double)fmodf(x, 2.0f)); }
inline float cospif(float x) { return (float)cos(3.14159265358979323846 * (double)fmodf(x, 2.0f)); }
inline void sincospif(float x, float* s, float* c) { *s = sinpif(x); *c = cospif(x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678118654752f); }
inline float fdividef(float a, float b) { return a / b; } inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return expf(x); } inline float __exp10f(float x) { return exp10f(x); }
inline float __logf(float x) { return logf(x); } inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); } inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); } inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline void __sincosf(float x, float* s, float* c) { sincosf(x, s, c); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float __frsqrt_rn(float x) { return (float)(1.0 / sqrt((double)x)); }

inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; } inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; } inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; } inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }

// A float outside of the integer's range is clamped and NaN gives 0, as on the device; C++ leaves it undefined.
template <class To> inline To hc_saturate(double v) {
  constexpr To lo = std::is_signed<To>::value ? (To)((To)1 << (sizeof(To) * 8 - 1)) : (To)0, hi = (To)~lo;
  return v != v ? (To)0 : v <= (double)lo ? lo : v >= (double)hi ? hi : (To)v; }
inline int __float2int_rn(float f) { return hc_saturate<int>(rintf(f)); }
inline int __float2int_rz(float f) { return hc_saturate<int>(truncf(f)); }
inline int __float2int_rd(float f) { return hc_saturate<int>(floorf(f)); }
inline int __float2int_ru(float f) { return hc_saturate<int>(ceilf(f)); }
inline unsigned __float2uint_rn(float f) { return hc_saturate<unsigned>(rintf(f)); }
inline unsigned __float2uint_rz(float f) { return hc_saturate<unsigned>(truncf(f)); }
inline float __uint2float_rn(unsigned u) { return (float)u; } inline float __int2float_rn(int i) { return (float)i; }
inline float __double2float_rn(double d) { return (float)d; }
inline float __int_as_float(int i) { return __builtin_bit_cast(float, i); }
inline float __uint_as_float(unsigned i) { return __builtin_bit_cast(float, i); }
inline int __float_as_int(float f) { return __builtin_bit_cast(int, f); }
inline unsigned __float_as_uint(float f) { return __builtin_bit_cast(unsigned, f); }
inline double __longlong_as_double(long long i) { return __builtin_bit_cast(double, i); }
inline long long __double_as_longlong(double d) { return __builtin_bit_cast(long long, d); }

inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long)a * b) >> 32); }
inline int __mulhi(int a, int b) { return (int)(((long)a * b) >> 32); }
inline unsigned long __umul64hi(unsigned long a, unsigned long b) {
  return (unsigned long)(((unsigned __int128)a * b) >> 64); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); } inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (x >> i & 1) << (31 - i);
  return r; }
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned n) {
  return (unsigned)(((((unsigned long)hi << 32) | lo) << (n & 31)) >> 32); }
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n) {
  return (unsigned)((((unsigned long)hi << 32) | lo) >> (n & 31)); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
  unsigned long v = ((unsigned long)b << 32) | a; unsigned r = 0;
  for (int i = 0; i < 4; ++i) r |= (unsigned)(v >> (8 * (s >> (4 * i) & 7)) & 255) << (8 * i);
  return r; }
