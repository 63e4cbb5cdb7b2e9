// y = gamma x_hat + beta, optionally through SiLU; x_hat = (x - mu)/sqrt(v + stabiliser) over each group of a sample.
// x is (N, C, H, W) contiguous, so a group is `size` = C/groups H W floats in a row. The variance is always that of
// x - mu: E[x^2] - E[x]^2 loses every digit when |mu| is large.
#include "reduce.cuh"

__device__ __forceinline__ float affine_silu(float x_hat, float gamma, float beta, int silu) {
  float a = gamma * x_hat + beta;
  return silu ? a / (1.0f + expf(-a)) : a;
}

// d silu(a)/da
__device__ __forceinline__ float silu_slope(float a) {
  float s = 1.0f / (1.0f + expf(-a));
  return s * (1.0f + a * (1.0f - s));
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

// Best: the group waits in shared memory between the passes, so memory sees each float once in and once out, 16 bytes at
// a time. size and pixels are multiples of 4 (so four floats share a channel), 4 size bytes of dynamic shared memory.
extern "C" __global__ void group_norm_best(float* y, const float* x, const float* gamma, const float* beta,
                                           float stabiliser, int silu, int n_groups, int groups, int size, int pixels) {
  extern __shared__ float4 tile[];
  __shared__ float scratch[32];
  const float4* in = (const float4*)(x + (long long)blockIdx.x * size);
  float4* out = (float4*)(y + (long long)blockIdx.x * size);
  float sum = 0.0f, square = 0.0f;
  for (int i = threadIdx.x; i < size / 4; i += blockDim.x) {
    float4 v = in[i];
    tile[i] = v;                                             // read back by this thread only: no barrier needed
    sum += (v.x + v.y) + (v.z + v.w);
  }
  float mean = block_sum(sum, scratch) / size;
  for (int i = threadIdx.x; i < size / 4; i += blockDim.x) {
    float4 v = tile[i];
    v = make_float4(v.x - mean, v.y - mean, v.z - mean, v.w - mean);
    square += (v.x * v.x + v.y * v.y) + (v.z * v.z + v.w * v.w);
  }
  float inverse = 1.0f / sqrtf(block_sum(square, scratch) / size + stabiliser);
  int first = blockIdx.x % groups * (size / pixels);
  for (int i = threadIdx.x; i < size / 4; i += blockDim.x) {
    int c = first + 4 * i / pixels;
    float g = gamma ? gamma[c] : 1.0f, b = beta ? beta[c] : 0.0f;
    float4 v = tile[i];
    out[i] = make_float4(affine_silu((v.x - mean) * inverse, g, b, silu), affine_silu((v.y - mean) * inverse, g, b, silu),
                         affine_silu((v.z - mean) * inverse, g, b, silu), affine_silu((v.w - mean) * inverse, g, b, silu));
  }
}

// A group larger than a block's shared memory takes two launches. First: blocks of `chunk` floats leave (mean, sum of
// squared deviations from that mean); gridDim.y chunks a group.
extern "C" __global__ void group_norm_partial(float2* partial, const float* x, int size, int chunk) {
  __shared__ float scratch[32];
  int low = blockIdx.y * chunk, high = min(size, low + chunk);
  const float* in = x + (long long)blockIdx.x * size;
  float sum = 0.0f, square = 0.0f;
  for (int i = low + threadIdx.x; i < high; i += blockDim.x) sum += in[i];
  float mean = block_sum(sum, scratch) / (high - low);
  for (int i = low + threadIdx.x; i < high; i += blockDim.x) square += (in[i] - mean) * (in[i] - mean);
  square = block_sum(square, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x * gridDim.y + blockIdx.y] = make_float2(mean, square);
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
extern "C" __global__ void group_norm_apply(float* y, const float* x, const float* gamma, const float* beta,
                                            const float2* partial, float stabiliser, int silu, int groups, int size,
                                            int pixels, int chunk) {
  __shared__ float scratch[32];
  float2 s = combine(partial + blockIdx.x * gridDim.y, gridDim.y, size, chunk, scratch);
  float mean = s.x, inverse = 1.0f / sqrtf(s.y + stabiliser);
  int low = blockIdx.y * chunk, high = min(size, low + chunk), first = blockIdx.x % groups * (size / pixels);
  for (int i = low + threadIdx.x; i < high; i += blockDim.x) {
    long long at = (long long)blockIdx.x * size + i;
    int c = first + i / pixels;
    y[at] = affine_silu((x[at] - mean) * inverse, gamma ? gamma[c] : 1.0f, beta ? beta[c] : 0.0f, silu);
  }
}

// Backward. With da = dy silu'(a), per channel of a sample B = sum da and G = sum da x_hat (the sample's share of dbeta
// and dgamma), the group's means are s1 = sum_c gamma_c B_c / size, s2 = sum_c gamma_c G_c / size, and
//     dx = (gamma da - s1 - x_hat s2) / sigma.
// One block a group; sums (N, C) take B and G, which `group_norm_vjp_sum` adds over the samples. A warp takes a channel,
// so B and G need no barrier. x and dy are read once for the statistics and the sums and once more for dx.
extern "C" __global__ void group_norm_vjp(float* dx, float* sum_g, float* sum_b, const float* dy, const float* x,
                                          const float* gamma, const float* beta, float stabiliser, int silu, int groups,
                                          int size, int pixels) {
  __shared__ float scratch[32];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, channels = size / pixels;
  long long base = (long long)blockIdx.x * size;
  int first = blockIdx.x % groups * channels;
  float sum = 0.0f, square = 0.0f;
  for (int i = threadIdx.x; i < size; i += blockDim.x) sum += x[base + i];
  float mean = block_sum(sum, scratch) / size;
  for (int i = threadIdx.x; i < size; i += blockDim.x) square += (x[base + i] - mean) * (x[base + i] - mean);
  float inverse = 1.0f / sqrtf(block_sum(square, scratch) / size + stabiliser);
  float s1 = 0.0f, s2 = 0.0f;
  for (int c = warp; c < channels; c += warps) {
    float g = gamma ? gamma[first + c] : 1.0f, b = beta ? beta[first + c] : 0.0f, to_b = 0.0f, to_g = 0.0f;
    for (int i = c * pixels + lane; i < (c + 1) * pixels; i += 32) {
      float x_hat = (x[base + i] - mean) * inverse, da = dy[base + i];
      if (silu) da *= silu_slope(g * x_hat + b);
      to_b += da;
      to_g += da * x_hat;
    }
    to_b = warp_sum(to_b);
    to_g = warp_sum(to_g);
    if (lane == 0) {
      sum_b[(long long)blockIdx.x * channels + c] = to_b;
      sum_g[(long long)blockIdx.x * channels + c] = to_g;
      s1 += g * to_b;
      s2 += g * to_g;
    }
  }
  s1 = block_sum(s1, scratch) / size;
  s2 = block_sum(s2, scratch) / size;
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    int c = first + i / pixels;
    float g = gamma ? gamma[c] : 1.0f, b = beta ? beta[c] : 0.0f;
    float x_hat = (x[base + i] - mean) * inverse, da = dy[base + i];
    if (silu) da *= silu_slope(g * x_hat + b);
    dx[base + i] = (g * da - s1 - x_hat * s2) * inverse;
  }
}

// dgamma and dbeta: the samples' shares added in a fixed order, one thread a channel, so that the same input gives the
// same bits (an atomic sum would not).
extern "C" __global__ void group_norm_vjp_sum(float* dgamma, float* dbeta, const float* sum_g, const float* sum_b,
                                              int samples, int channels) {
  int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  float g = 0.0f, b = 0.0f;
  for (int n = 0; n < samples; ++n) {
    g += sum_g[(long long)n * channels + c];
    b += sum_b[(long long)n * channels + c];
  }
  dgamma[c] = g;
  dbeta[c] = b;
}
