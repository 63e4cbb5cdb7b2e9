// x_s = c_x x + c_0 x0 + c_e e + sum c_h h + sigma z,  x0 = clip(a x + b e, lo, hi),  e = e_u + w (e_c - e_u), for
// `samples` samples of `size` elements. Null pointers stand for what is absent: e_u, lo/hi per sample, history, z (then
// noise comes from the counter). whole: size is a multiple of 4 and every array starts on 16 bytes.
#include "numbers.cuh"
#include "philox.cuh"

#define PARAMETERS \
  float* x_s, float* x0_hat, const float* x, const float* e_c, const float* e_u, const float* lo, const float* hi, \
  const float* h0, const float* h1, const float* h2, const float* z, const unsigned* index, unsigned key_lo, \
  unsigned key_hi, unsigned draw, float w, float a, float b, float lo_all, float hi_all, float c_x, float c_0, \
  float c_e, float c_h0, float c_h1, float c_h2, float sigma, int whole, int samples, int size

#define ARGUMENTS x_s, x0_hat, x, e_c, e_u, lo, hi, h0, h1, h2, z, index, key_lo, key_hi, draw, w, a, b, lo_all, hi_all, \
  c_x, c_0, c_e, c_h0, c_h1, c_h2, sigma, whole, samples, size

__device__ __forceinline__ float clip(float x0, float lo, float hi) {
  return x0 < lo ? lo : (x0 > hi ? hi : x0);                               // NaN passes through
}

// Element i, given its sample's limits, and its noise where that is not an array.
__device__ __forceinline__ void element(long long i, float low, float high, float made, PARAMETERS) {
  float e = e_u ? e_u[i] + w * (e_c[i] - e_u[i]) : e_c[i];
  float x0 = clip(a * x[i] + b * e, low, high);
  float y = c_x * x[i] + c_0 * x0 + c_e * e;
  if (h0) y += c_h0 * h0[i];
  if (h1) y += c_h1 * h1[i];
  if (h2) y += c_h2 * h2[i];
  if (sigma != 0.0f) y += sigma * (z ? z[i] : made);
  x_s[i] = y;
  x0_hat[i] = x0;
}

// Naive: one thread an element. The four threads that share a block of noise each compute all four of its normals:
// 4 times the integer work, and accesses of 4 bytes.
extern "C" __global__ void sampler_step_naive(PARAMETERS) {
  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i >= (long long)samples * size) return;
  int n = (int)(i / size), k = (int)(i % size);
  bool keyed = sigma != 0.0f && !z;
  element(i, lo ? lo[n] : lo_all, hi ? hi[n] : hi_all,
          keyed ? normal1(k, index[n], draw, make_uint2(key_lo, key_hi)) : 0.0f, ARGUMENTS);
}

// Block q of four elements of an array, and y += c v four times.
__device__ __forceinline__ Pack<float, 4> four(const float* p, int q) { return ((const Pack<float, 4>*)p)[q]; }
__device__ __forceinline__ void add(Pack<float, 4>& y, float c, const Pack<float, 4>& v) {
  #pragma unroll
  for (int i = 0; i < 4; ++i) y.x[i] += c * v.x[i];
}

// Vector: one thread a block of four elements, which is one block of noise: Philox once instead of four times, and
// every access 16 bytes. Best: QUADS blocks a thread keep that many independent loads of each array in flight, which is
// what hides the memory's latency. (256, 4): to fit a fifth block the compiler would spill.
template <int QUADS> __global__ void __launch_bounds__(256, 4) sampler_step_vector(PARAMETERS) {
  Divider quads((size + 3) / 4);
  int total = samples * quads.divisor, first = blockIdx.x * (int)blockDim.x * QUADS;
  bool keyed = sigma != 0.0f && !z;
  uint2 key = make_uint2(key_lo, key_hi);
  if (!whole) {
    float low, high;
    each_element(first, min(total - first, QUADS * (int)blockDim.x), size, keyed, index, draw, key, [&](int n) {
      low = lo ? lo[n] : lo_all;
      high = hi ? hi[n] : hi_all;
    }, [&](long long i, float made) { element(i, low, high, made, ARGUMENTS); });
    return;
  }
  Pack<float, 4> xs[QUADS], es[QUADS], us[QUADS], ys[QUADS];
  #pragma unroll
  for (int j = 0; j < QUADS; ++j) {
    int q = first + j * (int)blockDim.x + (int)threadIdx.x;
    if (q >= total) break;
    xs[j] = four(x, q);
    es[j] = four(e_c, q);
    us[j] = e_u ? four(e_u, q) : es[j];
    #pragma unroll
    for (int i = 0; i < 4; ++i) ys[j].x[i] = 0.0f;
    if (h0) add(ys[j], c_h0, four(h0, q));
    if (h1) add(ys[j], c_h1, four(h1, q));
    if (h2) add(ys[j], c_h2, four(h2, q));
    if (sigma != 0.0f && z) add(ys[j], sigma, four(z, q));
  }
  #pragma unroll
  for (int j = 0; j < QUADS; ++j) {
    int q = first + j * (int)blockDim.x + (int)threadIdx.x;
    if (q >= total) break;
    int n = quads.of(q);
    float low = lo ? lo[n] : lo_all, high = hi ? hi[n] : hi_all;
    Pack<float, 4> x0, e = us[j];
    if (e_u)
      #pragma unroll
      for (int i = 0; i < 4; ++i) e.x[i] += w * (es[j].x[i] - us[j].x[i]);
    #pragma unroll
    for (int i = 0; i < 4; ++i) x0.x[i] = clip(a * xs[j].x[i] + b * e.x[i], low, high);
    add(ys[j], c_x, xs[j]);
    add(ys[j], c_0, x0);
    add(ys[j], c_e, e);
    if (keyed) add(ys[j], sigma, normal4((unsigned)(q - n * quads.divisor), index[n], draw, key));
    ((Pack<float, 4>*)x_s)[q] = ys[j];
    ((Pack<float, 4>*)x0_hat)[q] = x0;
  }
}
