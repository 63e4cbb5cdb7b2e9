// L_n = mean (e - z)^2 over each of `samples` samples of `size` elements, and its gradient. A null z stands for noise from
// the counter. whole: size is a multiple of 4 and every array starts on 16 bytes.
#include "numbers.cuh"
#include "philox.cuh"
#include "reduce.cuh"

#define NOISE const float* z, const unsigned* index, unsigned key_lo, unsigned key_hi, unsigned draw, int whole, \
  int samples, int size

// Naive: one thread a sample.
extern "C" __global__ void noise_mse_naive(float* loss, const float* e, NOISE) {
  int n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n >= samples) return;
  float sum = 0.0f;
  for (int k = 0; k < size; ++k) {
    long long i = (long long)n * size + k;
    float made = z ? z[i] : normal1(k, index[n], draw, make_uint2(key_lo, key_hi));
    sum += (e[i] - made) * (e[i] - made);
  }
  loss[n] = sum / size;
}

// Block q of four elements of e - z, all blocks whole.
__device__ __forceinline__ Pack<float, 4> residual(const float* e, int q, int n, int block, NOISE) {
  Pack<float, 4> out = ((const Pack<float, 4>*)e)[q];
  Pack<float, 4> made = z ? ((const Pack<float, 4>*)z)[q]
                          : normal4((unsigned)block, index[n], draw, make_uint2(key_lo, key_hi));
  #pragma unroll
  for (int i = 0; i < 4; ++i) out.x[i] -= made.x[i];
  return out;
}

#define NOISE_ARGUMENTS z, index, key_lo, key_hi, draw, whole, samples, size

// Best: blocks of `chunk` elements leave their sums in `shares` (N, chunks), and `noise_mse_sum` adds them in a fixed order.
// e is read once, 16 bytes at a time, and z, where it is not given, is never in memory.
extern "C" __global__ void __launch_bounds__(256) noise_mse_shares(float* shares, const float* e, int chunk, NOISE) {
  __shared__ float scratch[32];
  int quads = (size + 3) / 4, n = blockIdx.x, low = n * quads + (int)blockIdx.y * chunk / 4;
  int high = min((n + 1) * quads, low + chunk / 4);
  float sum = 0.0f;
  if (whole)
    for (int q = low + (int)threadIdx.x; q < high; q += blockDim.x) {
      Pack<float, 4> r = residual(e, q, n, q - n * quads, NOISE_ARGUMENTS);
      sum += (r.x[0] * r.x[0] + r.x[1] * r.x[1]) + (r.x[2] * r.x[2] + r.x[3] * r.x[3]);
    }
  else
    for (int first = low; first < high; first += 2 * blockDim.x)
      each_element(first, min(high - first, 2 * (int)blockDim.x), size, !z, index, draw, make_uint2(key_lo, key_hi),
                   [](int) {}, [&](long long i, float made) {
                     float r = e[i] - (z ? z[i] : made);
                     sum += r * r;
                   });
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) shares[(long long)n * gridDim.y + blockIdx.y] = sum;
}
extern "C" __global__ void noise_mse_sum(float* loss, const float* shares, int chunks, int samples, int size) {
  int n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n >= samples) return;
  float sum = 0.0f;
  for (int j = 0; j < chunks; ++j) sum += shares[(long long)n * chunks + j];
  loss[n] = sum / size;
}

// Gradient: de = 2 dL_n (e - z)/size, and dz = -de where dz is not null. z, where it is not given, is formed again.
extern "C" __global__ void noise_mse_vjp_naive(float* de, float* dz, const float* dL, const float* e, NOISE) {
  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i >= (long long)samples * size) return;
  int n = (int)(i / size), k = (int)(i % size);
  float made = z ? z[i] : normal1(k, index[n], draw, make_uint2(key_lo, key_hi));
  float d = 2.0f * dL[n] / size * (e[i] - made);
  de[i] = d;
  if (dz) dz[i] = -d;
}
// Best: accesses of 16 bytes, and a block of noise formed once for its four elements. (256, 8): as q_sample_vector.
extern "C" __global__ void __launch_bounds__(256, 8) noise_mse_vjp_best(float* de, float* dz, const float* dL,
                                                                       const float* e, NOISE) {
  Divider quads((size + 3) / 4);
  int each = (whole ? 1 : 2) * (int)blockDim.x, first = blockIdx.x * each, q = first + (int)threadIdx.x;
  int total = samples * quads.divisor;
  if (!whole) {
    float factor;
    each_element(first, min(total - first, each), size, !z, index, draw, make_uint2(key_lo, key_hi),
                 [&](int n) { factor = 2.0f * dL[n] / size; }, [&](long long i, float made) {
                   float d = factor * (e[i] - (z ? z[i] : made));
                   de[i] = d;
                   if (dz) dz[i] = -d;
                 });
    return;
  }
  if (q >= total) return;
  int n = quads.of(q);
  Pack<float, 4> d = residual(e, q, n, q - n * quads.divisor, NOISE_ARGUMENTS);
  float factor = 2.0f * dL[n] / size;
  #pragma unroll
  for (int i = 0; i < 4; ++i) d.x[i] *= factor;
  ((Pack<float, 4>*)de)[q] = d;
  if (!dz) return;
  #pragma unroll
  for (int i = 0; i < 4; ++i) d.x[i] = -d.x[i];
  ((Pack<float, 4>*)dz)[q] = d;
}
