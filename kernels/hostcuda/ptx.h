// What translated PTX needs beside dialect.h: registers are bits, an instruction's type says how to read them.
#pragma once
typedef _Float16 float16;
extern "C" char hc_static_begin[];
extern "C" void hc_trace(const void* address, int bytes, int write, int site);
#define HC_FREE __attribute__((no_sanitize("thread", "undefined"), always_inline)) inline

template <class T, class R> HC_FREE T get(R r) { static_assert(sizeof(T) <= sizeof(R)); T t; __builtin_memcpy(&t, &r, sizeof(T)); return t; }
// A narrower integer is extended by its sign, a narrower float's bits by zeros.
template <class R, class T> HC_FREE void put(R& r, T v) {
  if constexpr (std::is_integral<T>::value) { if constexpr (std::is_signed<T>::value) r = (R)(long)v; else r = (R)v; }
  else { R b = 0; __builtin_memcpy(&b, &v, sizeof(T)); r = b; } }
HC_FREE void put(bool& r, bool v) { r = v; }

// Parameters are the launch's own memory, which the checker need not know: read out of its sight.
template <class T> __attribute__((no_sanitize("thread"), noinline)) T parameter(unsigned char** all, int i, int offset) {
  T t; __builtin_memcpy(&t, all[i] + offset, sizeof(T)); return t; }

// The 32-bit window of shared memory, relative to the static arrays.
HC_FREE unsigned long shared_offset(const void* p) { return (unsigned)((const char*)p - hc_static_begin); }
HC_FREE char* shared_at(unsigned long a) { return hc_static_begin + (int)(unsigned)a; }

HC_FREE float ftz(float x) { return fabsf(x) < 1.17549435e-38f ? copysignf(0.0f, x) : x; }
HC_FREE float sat(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
HC_FREE double sat(double x) { return x > 0 ? (x < 1 ? x : 1.0) : 0.0; }
template <class T> HC_FREE T fma_any(T a, T b, T c) {
  if constexpr (std::is_same<T, float>::value) return fmaf(a, b, c); else if constexpr (std::is_same<T, double>::value) return fma(a, b, c);
  else return (T)((double)a * (double)b + (double)c); }                   // half: exact in double, one rounding
extern "C" float nextafterf(float, float);
HC_FREE float toward(long double exact, char mode) {
  float f = (float)exact;
  if (mode == 'm' && f > exact) return nextafterf(f, -__builtin_inff());
  if (mode == 'p' && f < exact) return nextafterf(f, __builtin_inff());
  if (mode == 'z' && (exact > 0 ? f > exact : f < exact)) return nextafterf(f, 0.0f);
  return f; }
template <class T> HC_FREE T low(T a, T b) { if constexpr (std::is_floating_point<T>::value) return a != a ? b : b != b ? a : b < a ? b : a; else return b < a ? b : a; }
template <class T> HC_FREE T high(T a, T b) { if constexpr (std::is_floating_point<T>::value) return a != a ? b : b != b ? a : a < b ? b : a; else return a < b ? b : a; }
template <class T> HC_FREE T shift_left(T a, unsigned n) { return n >= sizeof(T) * 8 ? (T)0 : (T)(a << n); }
template <class T> HC_FREE T shift_right(T a, unsigned n) { return n >= sizeof(T) * 8 ? (T)(a < 0 ? -1 : 0) : (T)(a >> n); }
template <class T> HC_FREE unsigned count_leading(T a) { return sizeof(T) == 8 ? (a ? __builtin_clzl(a) : 64) : (a ? __builtin_clz(a) : 32); }
template <class T> HC_FREE T reversed(T a) { T r = 0; for (unsigned i = 0; i < sizeof(T) * 8; ++i) r |= (T)((a >> i) & 1) << (sizeof(T) * 8 - 1 - i); return r; }
template <class T> HC_FREE T extract(T a, unsigned b, unsigned n) {
  using U = typename std::make_unsigned<T>::type; unsigned w = sizeof(T) * 8; b &= 255; n &= 255;
  if (!n) return 0;
  U sign = std::is_signed<T>::value ? ((U)a >> (b + n - 1 < w ? b + n - 1 : w - 1)) & 1 : 0, r = 0;
  for (unsigned i = 0; i < w; ++i) r |= (i < n && b + i < w ? (((U)a >> (b + i)) & 1) : sign) << i;
  return (T)r; }
template <class T> HC_FREE T insert(T a, T b, unsigned at, unsigned n) {
  for (unsigned i = 0; i < (n & 255) && (at & 255) + i < sizeof(T) * 8; ++i) {
    T bit = (T)1 << ((at & 255) + i); b = (b & ~bit) | (((a >> i) & 1) ? bit : 0); } return b; }
HC_FREE unsigned permute(unsigned a, unsigned b, unsigned c) {
  unsigned long v = ((unsigned long)b << 32) | a; unsigned r = 0;
  for (int i = 0; i < 4; ++i) { unsigned s = (c >> (4 * i)) & 15, byte = (v >> (8 * (s & 7))) & 255;
    if (s & 8) byte = byte & 128 ? 255 : 0; r |= byte << (8 * i); } return r; }
HC_FREE unsigned lop3(unsigned a, unsigned b, unsigned c, unsigned table) {
  unsigned r = 0; for (int i = 0; i < 32; ++i) r |= ((table >> ((((a >> i) & 1) << 2) | (((b >> i) & 1) << 1) | ((c >> i) & 1))) & 1) << i; return r; }
HC_FREE unsigned funnel(unsigned a, unsigned b, unsigned c, bool left, bool wrap) {
  unsigned n = wrap ? c & 31 : (c > 32 ? 32 : c); unsigned long v = ((unsigned long)b << 32) | a;
  return left ? (unsigned)(n == 32 ? a : (v << n) >> 32) : (unsigned)(n == 32 ? b : v >> n); }
template <class To> HC_FREE To saturate(double v) {                      // float to integer: NaN is 0, the rest is clamped
  constexpr To lo = std::is_signed<To>::value ? (To)((To)1 << (sizeof(To) * 8 - 1)) : (To)0, hi = (To)~lo;
  return v != v ? (To)0 : v <= (double)lo ? lo : v >= (double)hi ? hi : (To)v; }

inline __attribute__((always_inline)) unsigned shuffle(char mode, unsigned v, unsigned b, unsigned c, unsigned mask, bool& p) {
  int lane = hc_lane(), bv = b & 31, cv = c & 31, seg = (c >> 8) & 31, top = (lane & seg) | (cv & ~seg), j = lane;
  if (mode == 'u') { j = lane - bv; p = j >= top; } else {
    j = mode == 'd' ? lane + bv : mode == 'b' ? lane ^ bv : (lane & seg) | (bv & ~seg); p = j <= top; }
  return (unsigned)hc_warp_exchange(mask, v, p ? j : lane, 32); }
