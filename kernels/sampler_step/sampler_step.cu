// x_s = c_x x + c_0 x0 + c_e e + sum c_h h + sigma z,  x0 = clip(a x + b e, lo, hi),  e = e_u + w (e_c - e_u).
// Null pointers stand for what is absent: e_u, lo/hi per sample, history, z (then noise comes from the counter).
#include "philox.cuh"

#define PARAMETERS \
  float* x_s, float* x0_hat, const float* x, const float* e_c, const float* e_u, const float* lo, const float* hi, \
  const float* h0, const float* h1, const float* h2, const float* z, const unsigned* index, unsigned key_lo, \
  unsigned key_hi, unsigned draw, float w, float a, float b, float lo_all, float hi_all, float c_x, float c_0, \
  float c_e, float c_h0, float c_h1, float c_h2, float sigma, int samples, long long size

__device__ __forceinline__ float clip(float x0, float lo, float hi) {
  return x0 < lo ? lo : (x0 > hi ? hi : x0);                               // NaN passes through
}

// Naive: one thread an element. The four threads that share a block of noise each compute all four of its normals:
// 4 times the integer work, and accesses of 4 bytes.
extern "C" __global__ void sampler_step_naive(PARAMETERS) {
  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i >= samples * size) return;
  int n = (int)(i / size);
  long long k = i % size;
  float e = e_u ? e_u[i] + w * (e_c[i] - e_u[i]) : e_c[i];
  float x0 = clip(a * x[i] + b * e, lo ? lo[n] : lo_all, hi ? hi[n] : hi_all);
  float y = c_x * x[i] + c_0 * x0 + c_e * e;
  if (h0) y += c_h0 * h0[i];
  if (h1) y += c_h1 * h1[i];
  if (h2) y += c_h2 * h2[i];
  if (sigma != 0.0f && z) y += sigma * z[i];
  if (sigma != 0.0f && !z) {
    float4 four = normal4((unsigned)(k / 4), index[n], draw, make_uint2(key_lo, key_hi));
    y += sigma * (k % 4 == 0 ? four.x : k % 4 == 1 ? four.y : k % 4 == 2 ? four.z : four.w);
  }
  x_s[i] = y;
  x0_hat[i] = x0;
}

__device__ __forceinline__ float4 fma4(float s, float4 v, float4 y) {
  return make_float4(s * v.x + y.x, s * v.y + y.y, s * v.z + y.z, s * v.w + y.w);
}

// Vector: one thread a block of four elements, which is one block of noise: Philox once instead of four times, and
// every access 16 bytes. QUADS blocks a thread keep that many independent loads of each array in flight, which is what
// hides the memory's latency; size must be a multiple of 4.
template <int QUADS> __device__ __forceinline__ void step_vector(PARAMETERS) {
  long long quads = size / 4, total = samples * quads;
  long long first = blockIdx.x * (long long)blockDim.x * QUADS + threadIdx.x;
  const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  float4 xs[QUADS], es[QUADS], us[QUADS], ys[QUADS];
  #pragma unroll
  for (int j = 0; j < QUADS; ++j) {
    long long q = first + (long long)j * blockDim.x;
    if (q >= total) break;
    xs[j] = ((const float4*)x)[q];
    es[j] = ((const float4*)e_c)[q];
    us[j] = e_u ? ((const float4*)e_u)[q] : es[j];
    ys[j] = zero;
    if (h0) ys[j] = fma4(c_h0, ((const float4*)h0)[q], ys[j]);
    if (h1) ys[j] = fma4(c_h1, ((const float4*)h1)[q], ys[j]);
    if (h2) ys[j] = fma4(c_h2, ((const float4*)h2)[q], ys[j]);
    if (sigma != 0.0f && z) ys[j] = fma4(sigma, ((const float4*)z)[q], ys[j]);
  }
  #pragma unroll
  for (int j = 0; j < QUADS; ++j) {
    long long q = first + (long long)j * blockDim.x;
    if (q >= total) break;
    int n = (int)(q / quads);
    float low = lo ? lo[n] : lo_all, high = hi ? hi[n] : hi_all;
    float4 e = us[j], u = us[j];
    if (e_u) e = fma4(w, make_float4(es[j].x - u.x, es[j].y - u.y, es[j].z - u.z, es[j].w - u.w), u);
    float4 x0 = make_float4(clip(a * xs[j].x + b * e.x, low, high), clip(a * xs[j].y + b * e.y, low, high),
                            clip(a * xs[j].z + b * e.z, low, high), clip(a * xs[j].w + b * e.w, low, high));
    float4 y = fma4(c_x, xs[j], fma4(c_0, x0, fma4(c_e, e, ys[j])));
    if (sigma != 0.0f && !z)
      y = fma4(sigma, normal4((unsigned)(q % quads), index[n], draw, make_uint2(key_lo, key_hi)), y);
    ((float4*)x_s)[q] = y;
    ((float4*)x0_hat)[q] = x0;
  }
}

#define ARGUMENTS x_s, x0_hat, x, e_c, e_u, lo, hi, h0, h1, h2, z, index, key_lo, key_hi, draw, w, a, b, lo_all, hi_all, \
  c_x, c_0, c_e, c_h0, c_h1, c_h2, sigma, samples, size

extern "C" __global__ void sampler_step_vector(PARAMETERS) { step_vector<1>(ARGUMENTS); }
extern "C" __global__ void sampler_step_best(PARAMETERS) { step_vector<2>(ARGUMENTS); }
