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

// out[i] = gamma x_hat + beta, through SiLU, of in[i], V floats each, for low <= i < high in the group whose first channel
// is `first`. Each warp takes a run of them and reads gamma and beta when its channel changes: at every access they would be
// a sixteenth of all that moves, and a fifth where V is 1.
template <int V> __device__ __forceinline__ void normalise(Pack<float, V>* out, const Pack<float, V>* in, int low, int high,
                                                          float mean, float inverse, int first, int pixels,
                                                          const float* gamma, const float* beta, int silu) {
  Divider area(pixels);
  int known = -1, count = high - low, head = head_of<V>((const float*)(out + low), count);
  int run = (count + (int)blockDim.x - 1) / (int)blockDim.x * 32, start = (int)threadIdx.x / 32 * run;
  float g = 1.0f, b = 0.0f;
  #pragma unroll 1  // four at a time would take registers, for reads of gamma and beta that hardly ever happen
  for (int j = start + (int)threadIdx.x % 32; j < min(count, start + run); j += 32) {
    int i = low + turned(j, count, head), c = first + area.of(V * i);
    if (c != known) {
      known = c;
      if (gamma) g = gamma[c];
      if (beta) b = beta[c];
    }
    Pack<float, V> v = in[i];
    #pragma unroll
    for (int k = 0; k < V; ++k) v.x[k] = affine_silu((v.x[k] - mean) * inverse, g, b, silu);
    out[i] = v;
  }
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
  float2 s = statistics<V>(tile, x + (long long)blockIdx.x * size, size, scratch);
  normalise(out, (const Run*)tile, 0, size / V, s.x, 1.0f / sqrtf(s.y / size + stabiliser),
            blockIdx.x % groups * (size / pixels), pixels, gamma, beta, silu);
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

// Second: every chunk combines the statistics again (a few floats, in cache) and normalises itself.
template <int V> __global__ void __launch_bounds__(256) group_norm_apply(
    float* y, const float* x, const float* gamma, const float* beta, const float2* partial, float stabiliser, int silu,
    int groups, int size, int pixels, int chunk) {
  __shared__ float scratch[32];
  typedef Pack<float, V> Run;
  float2 s = combine(partial + (long long)blockIdx.x * gridDim.y, gridDim.y, size, chunk, scratch);
  int low = blockIdx.y * chunk, high = min(size, low + chunk);
  normalise((Run*)(y + (long long)blockIdx.x * size), (const Run*)(x + (long long)blockIdx.x * size), low / V, high / V, s.x,
            1.0f / sqrtf(s.y + stabiliser), blockIdx.x % groups * (size / pixels), pixels, gamma, beta, silu);
}
