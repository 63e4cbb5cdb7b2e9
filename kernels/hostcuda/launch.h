// A kernel's parameters as text, and its call from packed arguments: made by the compiler, so never out of step.
#pragma once
template <class T> struct hc_code { static constexpr char kind = std::is_floating_point<T>::value ? 'f' :
  std::is_same<T, bool>::value ? 'b' : std::is_unsigned<T>::value ? 'u' : std::is_integral<T>::value ? 'i' : 'V'; };
template <> struct hc_code<__half> { static constexpr char kind = 'f'; };
template <> struct hc_code<__nv_bfloat16> { static constexpr char kind = 'B'; };

// f4 a float, *cf4 a pointer to const floats, V24 a struct of 24 bytes
template <class T> struct hc_param {
  static char* digits(char* s, unsigned n) {
    if (n > 9) s = digits(s, n / 10);
    *s = (char)('0' + n % 10);
    return s + 1;
  }
  static char* put(char* s) { *s++ = hc_code<T>::kind; s = digits(s, sizeof(T)); *s++ = ' '; return s; }
};
template <> struct hc_param<void> { static char* put(char* s) { *s++ = 'V'; *s++ = '1'; *s++ = ' '; return s; } };
template <class T> struct hc_param<T*> {
  static char* put(char* s) {
    *s++ = '*';
    if (std::is_const<T>::value) *s++ = 'c';
    return hc_param<typename std::remove_cv<T>::type>::put(s);
  }
};
template <class T> struct hc_param<T* __restrict> : hc_param<T*> {};
template <class... P> inline void hc_signature(void (*)(P...), char* s) {
  ((s = hc_param<typename std::remove_cv<P>::type>::put(s)), ...); *s = 0; }

template <size_t... I> struct hc_indices {};
template <class... P, size_t... I> __attribute__((no_sanitize("thread", "undefined")))
inline void hc_invoke_at(void (*k)(P...), void** a, hc_indices<I...>) {
  k(*(typename std::remove_cv<P>::type*)a[I]...); }
template <class... P> __attribute__((no_sanitize("thread", "undefined")))
inline void hc_invoke(void (*k)(P...), void** a) {
  hc_invoke_at(k, a, hc_indices<__integer_pack(sizeof...(P))...>{}); }
#define HC_EXPORT(N, ...) extern "C" void hc_call_##N(void** a) { hc_invoke(&__VA_ARGS__, a); } \
  extern "C" void hc_sig_##N(char* s) { hc_signature(&__VA_ARGS__, s); }
