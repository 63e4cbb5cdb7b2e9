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

// Four elements of e - z.
__device__ __forceinline__ Pack<float, 4> residual(const float* e, int n, int block, NOISE) {
  long long at = (long long)n * size + 4 * block;
  int inside = size - 4 * block;
  Pack<float, 4> out = load_up_to<4>(e + at, inside, whole);
  Pack<float, 4> made = z ? load_up_to<4>(z + at, inside, whole)
                          : normal4((unsigned)block, index[n], draw, make_uint2(key_lo, key_hi));
  #pragma unroll
  for (int i = 0; i < 4; ++i) out.x[i] = i < inside ? out.x[i] - made.x[i] : 0.0f;
  return out;
}

#define NOISE_ARGUMENTS z, index, key_lo, key_hi, draw, whole, samples, size

// Best: blocks of `chunk` elements leave their sums in `shares` (N, chunks), and `noise_mse_sum` adds them in a fixed order.
// e is read once, 16 bytes at a time, and z, where it is not given, is never in memory.
extern "C" __global__ void noise_mse_shares(float* shares, const float* e, int chunk, NOISE) {
  __shared__ float scratch[32];
  int n = blockIdx.x, high = min((size + 3) / 4, (int)(blockIdx.y + 1) * chunk / 4);
  float sum = 0.0f;
  for (int block = (int)blockIdx.y * chunk / 4 + (int)threadIdx.x; block < high; block += blockDim.x) {
    Pack<float, 4> r = residual(e, n, block, NOISE_ARGUMENTS);
    sum += (r.x[0] * r.x[0] + r.x[1] * r.x[1]) + (r.x[2] * r.x[2] + r.x[3] * r.x[3]);
  }
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
extern "C" __global__ void noise_mse_vjp_best(float* de, float* dz, const float* dL, const float* e, NOISE) {
  Divider quads((size + 3) / 4);
  int q = blockIdx.x * (int)blockDim.x + (int)threadIdx.x;
  if (q >= samples * quads.divisor) return;
  int n = quads.of(q), block = q - n * quads.divisor, inside = size - 4 * block;
  long long at = (long long)n * size + 4 * block;
  Pack<float, 4> d = residual(e, n, block, NOISE_ARGUMENTS);
  float factor = 2.0f * dL[n] / size;
  #pragma unroll
  for (int i = 0; i < 4; ++i) d.x[i] *= factor;
  store_up_to<4>(de + at, d, inside, whole);
  if (!dz) return;
  #pragma unroll
  for (int i = 0; i < 4; ++i) d.x[i] = -d.x[i];
  store_up_to<4>(dz + at, d, inside, whole);
}
