// What translated PTX needs beside dialect.h: registers are bits, an instruction's type says how to read them.
#pragma once
#include <fenv.h>
typedef _Float16 float16;
struct bfloat16 {
  unsigned short bits;
  bfloat16() = default;
  bfloat16(float f) : bits(hc_to_bfloat(f)) {}
  operator float() const { return hc_from_bfloat(bits); }
};
template <class T> struct pair { T x, y; };
extern "C" char hc_static_begin[];
extern "C" void hc_trace(const void* address, int bytes, int write, int site);
#define HC_FREE inline __attribute__((always_inline))
#define HC_IF(...) template <class T> requires (__VA_ARGS__) HC_FREE
template <class T> constexpr bool whole_number = std::is_integral<T>::value;
template <class T> constexpr bool real = std::is_floating_point<T>::value;
template <class T> using unsigned_of = typename std::make_unsigned<T>::type;

// Parameters are the launch's own memory, which the checker need not know: read out of its sight.
template <class T> __attribute__((no_sanitize("thread"), noinline))
T parameter(unsigned char** all, int i, int offset) {
  T t; __builtin_memcpy(&t, all[i] + offset, sizeof(T)); return t; }

// The 32-bit window of shared memory, relative to the static arrays.
HC_FREE unsigned long shared_offset(const void* p) { return (unsigned)((const char*)p - hc_static_begin); }
HC_FREE char* shared_at(unsigned long a) { return hc_static_begin + (int)(unsigned)a; }

HC_FREE float ftz(float x) { return fabsf(x) < 1.17549435e-38f ? copysignf(0.0f, x) : x; }
template <class T> HC_FREE T sat(T x) { return (float)x > 0 ? ((float)x < 1 ? x : (T)1.0f) : (T)0.0f; }

// Integers wrap (-fwrapv); narrow ones are computed wide. A zero divisor is a fault of the kernel.
HC_IF(whole_number<T>) T ptx_add(T a, T b) { return (T)(a + b); }
HC_IF(whole_number<T>) T ptx_sub(T a, T b) { return (T)(a - b); }
HC_IF(whole_number<T>) T mul(T a, T b) { return (T)((unsigned_of<T>)a * (unsigned long)(unsigned_of<T>)b); }
HC_IF(whole_number<T>) T ptx_mul(T a, T b) { return mul(a, b); }
HC_IF(whole_number<T>) T ptx_mad(T a, T b, T c) { return (T)(mul(a, b) + c); }
HC_IF(whole_number<T>) T ptx_neg(T a) { return (T)-a; }
HC_IF(whole_number<T>) T ptx_abs(T a) { return (T)(a < 0 ? -a : a); }
HC_IF(whole_number<T>) T ptx_min(T a, T b) { return b < a ? b : a; }
HC_IF(whole_number<T>) T ptx_max(T a, T b) { return a < b ? b : a; }
HC_IF(whole_number<T>) T ptx_sad(T a, T b, T c) { return (T)(c + (a < b ? b - a : a - b)); }
HC_IF(whole_number<T>) T ptx_div(T a, T b) {
  if (!b) hc_trap("division by zero");
  return std::is_signed<T>::value && b == (T)-1 ? (T)-a : (T)(a / b); }
HC_IF(whole_number<T>) T ptx_rem(T a, T b) {
  if (!b) hc_trap("division by zero");
  return std::is_signed<T>::value && b == (T)-1 ? (T)0 : (T)(a % b); }
HC_IF(whole_number<T>) T high_half(T a, T b) {
  using W = typename std::conditional<std::is_signed<T>::value, __int128, unsigned __int128>::type;
  return (T)(((W)a * (W)b) >> (sizeof(T) * 8)); }
template <class T> HC_FREE T with_carry(T a, T b, bool in, bool& out, bool subtract) {   // borrow is a carry of 0 and 1
  unsigned __int128 wide = subtract ? (unsigned __int128)(unsigned_of<T>)a - (unsigned_of<T>)b - in
                                    : (unsigned __int128)(unsigned_of<T>)a + (unsigned_of<T>)b + in;
  out = wide >> (sizeof(T) * 8) & 1;
  return (T)wide; }

// Numbers: float and double as they are, half types through float with one rounding.
template <class T> struct half_type { static constexpr bool value = false; };
template <> struct half_type<float16> { static constexpr bool value = true; };
template <> struct half_type<bfloat16> { static constexpr bool value = true; };
template <class T> constexpr bool number = (std::is_same<T, float>::value || std::is_same<T, double>::value ||
                                            half_type<T>::value);
template <class T> using wide_of = typename std::conditional<half_type<T>::value, float, T>::type;
HC_IF(number<T>) T ptx_add(T a, T b) { return (T)((wide_of<T>)a + (wide_of<T>)b); }
HC_IF(number<T>) T ptx_sub(T a, T b) { return (T)((wide_of<T>)a - (wide_of<T>)b); }
HC_IF(number<T>) T ptx_mul(T a, T b) { return (T)((wide_of<T>)a * (wide_of<T>)b); }
HC_IF(number<T>) T ptx_div(T a, T b) { return a / b; }
HC_IF(number<T>) T ptx_fma(T a, T b, T c) {
  if constexpr (half_type<T>::value) return (T)hc_odd((double)(float)a * (float)b, (double)(float)c);
  else return fma(a, b, c); }
// of zeros of either sign, minus is less
HC_IF(number<T>) bool less(T a, T b) { return a < b || (a == b && __builtin_signbit((float)a)); }
HC_IF(number<T>) T ptx_min(T a, T b) { return a != a ? b : b != b ? a : less(b, a) ? b : a; }
HC_IF(number<T>) T ptx_max(T a, T b) { return a != a ? b : b != b ? a : less(a, b) ? b : a; }
HC_IF(number<T>) T ptx_min_nan(T a, T b) { return a != a ? a : b != b ? b : ptx_min(a, b); }
HC_IF(number<T>) T ptx_max_nan(T a, T b) { return a != a ? a : b != b ? b : ptx_max(a, b); }
HC_IF(real<T>) T ptx_neg(T a) { return -a; }
HC_IF(real<T>) T ptx_abs(T a) { return fabs(a); }
template <class T, class B, B FLIP, B KEEP> HC_FREE T signs(T a) {
  return __builtin_bit_cast(T, (B)((__builtin_bit_cast(B, a) ^ FLIP) & KEEP)); }
HC_FREE float16 ptx_neg(float16 a) { return signs<float16, unsigned short, 0x8000, 0xffff>(a); }
HC_FREE bfloat16 ptx_neg(bfloat16 a) { return signs<bfloat16, unsigned short, 0x8000, 0xffff>(a); }
HC_FREE float16 ptx_abs(float16 a) { return signs<float16, unsigned short, 0, 0x7fff>(a); }
HC_FREE bfloat16 ptx_abs(bfloat16 a) { return signs<bfloat16, unsigned short, 0, 0x7fff>(a); }
HC_IF(real<T>) T ptx_copysign(T a, T b) { return copysign(b, a); }   // the sign of the first, the value of the second
HC_IF(real<T>) T ptx_sqrt(T a) { return sqrt(a); }
HC_IF(real<T>) T ptx_rcp(T a) { return 1 / a; }
HC_IF(real<T>) T ptx_rsqrt(T a) { return 1 / sqrt(a); }
HC_FREE float ptx_ex2(float a) { return exp2f(a); } HC_FREE float ptx_lg2(float a) { return log2f(a); }
HC_FREE float ptx_sin(float a) { return sinf(a); } HC_FREE float ptx_cos(float a) { return cosf(a); }
HC_FREE float ptx_tanh(float a) { return tanhf(a); }
HC_FREE float16 ptx_ex2(float16 a) { return exp2f(a); } HC_FREE float16 ptx_tanh(float16 a) { return tanhf(a); }
#define HC_PAIR1(F) template <class T> HC_FREE pair<T> F(pair<T> a) { return {F(a.x), F(a.y)}; }
#define HC_PAIR2(F) template <class T> HC_FREE pair<T> F(pair<T> a, pair<T> b) { return {F(a.x, b.x), F(a.y, b.y)}; }
HC_PAIR1(ptx_neg) HC_PAIR1(ptx_abs) HC_PAIR2(ptx_add) HC_PAIR2(ptx_sub) HC_PAIR2(ptx_mul) HC_PAIR2(ptx_min)
HC_PAIR2(ptx_max) HC_PAIR2(ptx_min_nan) HC_PAIR2(ptx_max_nan)
template <class T> HC_FREE pair<T> ptx_fma(pair<T> a, pair<T> b, pair<T> c) {
  return {ptx_fma(a.x, b.x, c.x), ptx_fma(a.y, b.y, c.y)}; }

// Directed rounding by the processor's own; volatile keeps the compiler from computing it elsewhere.
enum { TOWARD_ZERO = FE_TOWARDZERO, DOWNWARD = FE_DOWNWARD, UPWARD = FE_UPWARD };
#define HC_DIRECTED(NAME, PARAMETERS, COPY, E) \
  template <class T> __attribute__((noinline, no_sanitize("thread"))) T NAME(int mode, PARAMETERS) { \
    COPY; fesetround(mode); volatile T r = E; fesetround(FE_TONEAREST); return r; }
#define HC_COMMA ,
HC_DIRECTED(add_in, T a HC_COMMA T b, volatile T x = a HC_COMMA y = b, x + y)
HC_DIRECTED(sub_in, T a HC_COMMA T b, volatile T x = a HC_COMMA y = b, x - y)
HC_DIRECTED(mul_in, T a HC_COMMA T b, volatile T x = a HC_COMMA y = b, x * y)
HC_DIRECTED(div_in, T a HC_COMMA T b, volatile T x = a HC_COMMA y = b, x / y)
HC_DIRECTED(fma_in, T a HC_COMMA T b HC_COMMA T c, volatile T x = a HC_COMMA y = b HC_COMMA z = c,
            fma((T)x, (T)y, (T)z))
HC_DIRECTED(sqrt_in, T a, volatile T x = a, sqrt((T)x))
HC_DIRECTED(rcp_in, T a, volatile T x = a, 1 / x)
template <class To, class From> __attribute__((noinline, no_sanitize("thread"))) To convert_in(int mode, From v) {
  volatile From x = v; fesetround(mode); volatile To r = (To)x; fesetround(FE_TONEAREST); return r; }

HC_FREE double whole(double v, char mode) {
  return mode == 'n' ? rint(v) : mode == 'z' ? trunc(v) : mode == 'm' ? floor(v) : ceil(v); }
template <class To> HC_FREE To ptx_to_integer(double v, char mode) { return hc_saturate<To>(whole(v, mode)); }
template <class To, class From> HC_FREE To clamped(From v) {
  constexpr To lo = std::is_signed<To>::value ? (To)((To)1 << (sizeof(To) * 8 - 1)) : (To)0, hi = (To)~lo;
  return (__int128)v < (__int128)lo ? lo : (__int128)v > (__int128)hi ? hi : (To)v; }

template <class T> HC_FREE T ptx_shl(T a, unsigned n) { return n >= sizeof(T) * 8 ? (T)0 : (T)(a << n); }
template <class T> HC_FREE T ptx_shr(T a, unsigned n) { return n >= sizeof(T) * 8 ? (T)(a < 0 ? -1 : 0) : (T)(a >> n); }
template <class T> HC_FREE unsigned ptx_popc(T a) { return __builtin_popcountl((unsigned_of<T>)a); }
template <class T> HC_FREE unsigned ptx_clz(T a) {
  return a ? __builtin_clzl((unsigned_of<T>)a) - (64 - sizeof(T) * 8) : sizeof(T) * 8; }
template <class T> HC_FREE unsigned ptx_bfind(T a) {                     // the top bit that is not the sign
  unsigned_of<T> u = a < 0 ? ~a : a; return u ? sizeof(T) * 8 - 1 - ptx_clz(u) : ~0u; }
template <class T> HC_FREE unsigned ptx_bfind_shift(T a) {
  unsigned b = ptx_bfind(a); return b == ~0u ? b : (unsigned)(sizeof(T) * 8 - 1 - b); }
template <class T> inline T ptx_brev(T a) {
  T r = 0;
  for (unsigned i = 0; i < sizeof(T) * 8; ++i) r |= (T)((a >> i) & 1) << (sizeof(T) * 8 - 1 - i);
  return r; }
template <class T> inline T ptx_bfe(T a, unsigned b, unsigned n) {
  using U = unsigned_of<T>; unsigned w = sizeof(T) * 8; b &= 255; n &= 255;
  if (!n) return 0;
  U sign = std::is_signed<T>::value ? ((U)a >> (b + n - 1 < w ? b + n - 1 : w - 1)) & 1 : 0, r = 0;
  for (unsigned i = 0; i < w; ++i) r |= (i < n && b + i < w ? (((U)a >> (b + i)) & 1) : sign) << i;
  return (T)r; }
template <class T> inline T ptx_bfi(T a, T b, unsigned at, unsigned n) {
  for (unsigned i = 0; i < (n & 255) && (at & 255) + i < sizeof(T) * 8; ++i) {
    T bit = (T)1 << ((at & 255) + i);
    b = (b & ~bit) | (((a >> i) & 1) ? bit : 0); }
  return b; }
inline unsigned ptx_prmt(unsigned a, unsigned b, unsigned c) {
  unsigned long v = ((unsigned long)b << 32) | a; unsigned r = 0;
  for (int i = 0; i < 4; ++i) {
    unsigned s = (c >> (4 * i)) & 15, byte = (v >> (8 * (s & 7))) & 255;
    r |= (s & 8 ? (byte & 128 ? 255 : 0) : byte) << (8 * i); }
  return r; }
inline unsigned ptx_lop3(unsigned a, unsigned b, unsigned c, unsigned table) {
  unsigned r = 0;
  for (int t = 0; t < 8; ++t)
    if (table >> t & 1) r |= (t & 4 ? a : ~a) & (t & 2 ? b : ~b) & (t & 1 ? c : ~c);
  return r; }
HC_FREE unsigned funnel(unsigned a, unsigned b, unsigned c, bool left, bool wrap) {
  unsigned n = wrap ? c & 31 : (c > 32 ? 32 : c); unsigned long v = ((unsigned long)b << 32) | a;
  return left ? (unsigned)(n == 32 ? a : (v << n) >> 32) : (unsigned)(n == 32 ? b : v >> n); }

HC_FREE unsigned shuffle(char mode, unsigned v, unsigned b, unsigned c, unsigned mask, bool& p) {
  int lane = hc_lane(), bv = b & 31, cv = c & 31, seg = (c >> 8) & 31, top = (lane & seg) | (cv & ~seg), j = lane;
  if (mode == 'u') { j = lane - bv; p = j >= top; } else {
    j = mode == 'd' ? lane + bv : mode == 'b' ? lane ^ bv : (lane & seg) | (bv & ~seg); p = j <= top; }
  return (unsigned)hc_exchange(mask, v, p ? j : lane); }
HC_FREE bool uniform(unsigned mask, bool p) { return hc_ballot(mask, p) == 0 || hc_ballot(mask, !p) == 0; }
template <class T> inline T redux(const char* what, T v, unsigned mask) {
  T r = v; bool first = true;
  for (int l = 0; l < 32; ++l) {
    if (!(mask >> l & 1)) continue;
    T x = (T)hc_exchange(mask, (unsigned)v, l);
    r = first ? x : what[1] == 'd' ? r + x : what[1] == 'i' ? (x < r ? x : r) : what[1] == 'n' ? r & x :
        what[1] == 'r' ? r | x : what[1] == 'o' ? r ^ x : (r < x ? x : r);
    first = false; }
  return r; }
