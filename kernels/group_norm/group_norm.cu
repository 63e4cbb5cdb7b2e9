// y = gamma x_hat + beta, optionally through SiLU; x_hat = (x - mu)/sqrt(v + stabiliser) over each group of a sample.
// x is (N, C, H, W) contiguous, so a group is `size` = C/groups H W floats in a row. The variance is always that of
// x - mu: E[x^2] - E[x]^2 loses every digit when |mu| is large. gamma and beta may be null.
#include "numbers.cuh"
#include "reduce.cuh"

__device__ __forceinline__ float affine_silu(float x_hat, float gamma, float beta, int silu) {
  float a = gamma * x_hat + beta;
  return silu ? a / (1.0f + expf(-a)) : a;
}

// Naive: one thread a group, which reads x three times from memory, 4 bytes at a time and never coalesced.
extern "C" __global__ void group_norm_naive(float* y, const float* x, const float* gamma, const float* beta,
                                            float stabiliser, int silu, int n_groups, int groups, int size, int pixels) {
  int g = blockIdx.x * blockDim.x + threadIdx.x;
  if (g >= n_groups) return;
  const float* in = x + (long long)g * size;
  float mean = 0.0f, var = 0.0f;
  for (int i = 0; i < size; ++i) mean += in[i];
  mean /= size;
  for (int i = 0; i < size; ++i) var += (in[i] - mean) * (in[i] - mean);
  float inverse = 1.0f / sqrtf(var / size + stabiliser);
  for (int i = 0; i < size; ++i) {
    int c = g % groups * (size / pixels) + i / pixels;
    y[(long long)g * size + i] = affine_silu((in[i] - mean) * inverse, gamma ? gamma[c] : 1.0f, beta ? beta[c] : 0.0f, silu);
  }
}

// Tiled: one block a group. Neighbouring threads read neighbouring floats, so every byte fetched is used; the second
// and third pass find the group in the cache while it is small.
extern "C" __global__ void group_norm_tiled(float* y, const float* x, const float* gamma, const float* beta,
                                            float stabiliser, int silu, int n_groups, int groups, int size, int pixels) {
  __shared__ float scratch[32];
  const float* in = x + (long long)blockIdx.x * size;
  float sum = 0.0f, square = 0.0f;
  for (int i = threadIdx.x; i < size; i += blockDim.x) sum += in[i];
  float mean = block_sum(sum, scratch) / size;
  for (int i = threadIdx.x; i < size; i += blockDim.x) square += (in[i] - mean) * (in[i] - mean);
  float inverse = 1.0f / sqrtf(block_sum(square, scratch) / size + stabiliser);
  int first = blockIdx.x % groups * (size / pixels);
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    int c = first + i / pixels;
    y[(long long)blockIdx.x * size + i] =
        affine_silu((in[i] - mean) * inverse, gamma ? gamma[c] : 1.0f, beta ? beta[c] : 0.0f, silu);
  }
}

// V floats of a group in place: (v - mean) inverse, gamma and beta of channel c, SiLU.
template <int V> __device__ __forceinline__ Pack<float, V> normalised(Pack<float, V> v, float mean, float inverse, int c,
                                                                      const float* gamma, const float* beta, int silu) {
  float g = gamma ? gamma[c] : 1.0f, b = beta ? beta[c] : 0.0f;
  #pragma unroll
  for (int k = 0; k < V; ++k) v.x[k] = affine_silu((v.x[k] - mean) * inverse, g, b, silu);
  return v;
}

// Best: the group waits in shared memory between the passes, so memory sees each float once in and once out (8 bytes where
// tiled moves 16), V of them in an access (4 where pixels is a multiple of it, so that they share a channel). 4 size bytes
// of dynamic shared memory.
template <int V> __global__ void __launch_bounds__(1024) group_norm_best(
    float* y, const float* x, const float* gamma, const float* beta, float stabiliser, int silu, int n_groups, int groups,
    int size, int pixels) {
  extern __shared__ float4 room[];
  __shared__ float scratch[32];
  typedef Pack<float, V> Run;
  Run *tile = (Run*)room, *out = (Run*)(y + (long long)blockIdx.x * size);
  Divider area(pixels);
  float2 s = statistics<V>(tile, x + (long long)blockIdx.x * size, size, scratch);
  float inverse = 1.0f / sqrtf(s.y / size + stabiliser);
  int first = blockIdx.x % groups * (size / pixels);
  for (int i = threadIdx.x; i < size / V; i += blockDim.x)
    out[i] = normalised(tile[i], s.x, inverse, first + area.of(V * i), gamma, beta, silu);
}

// A group larger than a block's shared memory takes two launches, 12 bytes a float. First: blocks of `chunk` floats leave
// (mean, sum of squared deviations from that mean); gridDim.y chunks a group. 4 chunk bytes of dynamic shared memory.
template <int V> __global__ void __launch_bounds__(256) group_norm_partial(float2* partial, const float* x, int size,
                                                                          int chunk) {
  extern __shared__ float4 room[];
  __shared__ float scratch[32];
  int low = blockIdx.y * chunk;
  float2 s = statistics<V>((Pack<float, V>*)room, x + (long long)blockIdx.x * size + low, min(chunk, size - low), scratch);
  if (threadIdx.x == 0) partial[blockIdx.x * gridDim.y + blockIdx.y] = s;
}

// The statistics of a group from those of its chunks: total mean, then squares about it (Chan, Golub, LeVeque 1983).
__device__ __forceinline__ float2 combine(const float2* partial, int chunks, int size, int chunk, float* scratch) {
  float sum = 0.0f, square = 0.0f;
  for (int j = threadIdx.x; j < chunks; j += blockDim.x) sum += partial[j].x * (min(size, (j + 1) * chunk) - j * chunk);
  float mean = block_sum(sum, scratch) / size;
  for (int j = threadIdx.x; j < chunks; j += blockDim.x) {
    float d = partial[j].x - mean;
    square += partial[j].y + d * d * (min(size, (j + 1) * chunk) - j * chunk);
  }
  return make_float2(mean, block_sum(square, scratch) / size);
}

// Second: every chunk combines the statistics again (a few floats, in cache) and normalises itself.
template <int V> __global__ void __launch_bounds__(256) group_norm_apply(
    float* y, const float* x, const float* gamma, const float* beta, const float2* partial, float stabiliser, int silu,
    int groups, int size, int pixels, int chunk) {
  __shared__ float scratch[32];
  typedef Pack<float, V> Run;
  Divider area(pixels);
  float2 s = combine(partial + blockIdx.x * gridDim.y, gridDim.y, size, chunk, scratch);
  float inverse = 1.0f / sqrtf(s.y + stabiliser);
  int low = blockIdx.y * chunk, high = min(size, low + chunk), first = blockIdx.x % groups * (size / pixels);
  const Run* in = (const Run*)(x + (long long)blockIdx.x * size);
  Run* out = (Run*)(y + (long long)blockIdx.x * size);
  for (int i = low / V + threadIdx.x; i < high / V; i += blockDim.x)
    out[i] = normalised(in[i], s.x, inverse, first + area.of(V * i), gamma, beta, silu);
}
