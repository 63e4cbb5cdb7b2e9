// The gradients of group_norm.cu. With da = dy silu'(a), per channel of a sample B = sum da and G = sum da x_hat (the
// sample's share of dbeta and dgamma), the group's means are s1 = sum_c gamma_c B_c / size, s2 = sum_c gamma_c G_c / size:
//     dx = (gamma da - s1 - x_hat s2) / sigma.
// sum_g and sum_b (N, C) take G and B, which `group_norm_vjp_sum` adds over the samples.
#include "numbers.cuh"
#include "reduce.cuh"

#define VJP_PARAMETERS float* dx, float* sum_g, float* sum_b, const float* dy, const float* x, const float* gamma, \
  const float* beta, float stabiliser, int silu, int n_groups, int groups, int size, int pixels

// d silu(a)/da
__device__ __forceinline__ float silu_slope(float a) {
  float s = 1.0f / (1.0f + expf(-a));
  return s * (1.0f + a * (1.0f - s));
}

// Naive: one thread a group, which reads x four times and dy twice, 4 bytes at a time and never coalesced.
extern "C" __global__ void group_norm_vjp_naive(VJP_PARAMETERS) {
  int group = blockIdx.x * blockDim.x + threadIdx.x, channels = size / pixels;
  if (group >= n_groups) return;
  long long base = (long long)group * size;
  float mean = 0.0f, var = 0.0f, s1 = 0.0f, s2 = 0.0f;
  for (int i = 0; i < size; ++i) mean += x[base + i];
  mean /= size;
  for (int i = 0; i < size; ++i) var += (x[base + i] - mean) * (x[base + i] - mean);
  float inverse = 1.0f / sqrtf(var / size + stabiliser);
  for (int step = 0; step < 2; ++step)                       // first the sums, then dx
    for (int c = 0; c < channels; ++c) {
      int at = group % groups * channels + c;
      float g = gamma ? gamma[at] : 1.0f, b = beta ? beta[at] : 0.0f, to_b = 0.0f, to_g = 0.0f;
      for (long long i = base + c * pixels; i < base + (c + 1) * pixels; ++i) {
        float x_hat = (x[i] - mean) * inverse, da = dy[i] * (silu ? silu_slope(g * x_hat + b) : 1.0f);
        to_b += da;
        to_g += da * x_hat;
        if (step) dx[i] = (g * da - s1 / size - x_hat * (s2 / size)) * inverse;
      }
      if (step) continue;
      sum_b[(long long)group * channels + c] = to_b;
      sum_g[(long long)group * channels + c] = to_g;
      s1 += g * to_b;
      s2 += g * to_g;
    }
}

// Tiled: one block a group, a warp a channel, so B and G need no barrier. x is read four times and dy twice, coalesced
// and from the cache while the group is small.
extern "C" __global__ void group_norm_vjp_tiled(VJP_PARAMETERS) {
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

// V floats each of x_hat, made of x, and of da.
template <int V> __device__ __forceinline__ void through(Pack<float, V>& v, Pack<float, V>& d, float mean, float inverse,
                                                        float g, float b, int silu) {
  #pragma unroll
  for (int k = 0; k < V; ++k) {
    v.x[k] = (v.x[k] - mean) * inverse;
    if (silu) d.x[k] *= silu_slope(g * v.x[k] + b);
  }
}

// V floats of dx of da (gamma da where g is 1) and x_hat.
template <int V> __device__ __forceinline__ Pack<float, V> gradient(const Pack<float, V>& v, Pack<float, V> d, float g,
                                                                   float s1, float s2, float inverse) {
  #pragma unroll
  for (int k = 0; k < V; ++k) d.x[k] = (g * d.x[k] - s1 - v.x[k] * s2) * inverse;
  return d;
}

// Best: x and dy wait in shared memory, so memory sees each float once in and dx once out (12 bytes a float where tiled
// moves 28), V of them in an access; on the way x becomes x_hat and dy becomes gamma da, so the exponential is taken once.
// 8 size bytes of dynamic shared memory; where there are 4 size only (KEPT 1 instead of 2), dy is read again: 16 bytes.
template <int V, int KEPT> __global__ void __launch_bounds__(1024, 1) group_norm_vjp_best(VJP_PARAMETERS) {
  extern __shared__ float4 room[];
  __shared__ float scratch[32];
  typedef Pack<float, V> Run;
  Run *tile_x = (Run*)room, *tile_dy = tile_x + size / V;
  const Run* in_dy = (const Run*)(dy + (long long)blockIdx.x * size);
  Run* out = (Run*)(dx + (long long)blockIdx.x * size);
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, channels = size / pixels;
  int first = blockIdx.x % groups * channels, area = pixels / V, count = size / V;
  float2 of = statistics<V>(tile_x, x + (long long)blockIdx.x * size, size, scratch);
  float mean = of.x, inverse = 1.0f / sqrtf(of.y / size + stabiliser);
  float s1 = 0.0f, s2 = 0.0f;
  for (int c = warp; c < channels; c += warps) {
    float g = gamma ? gamma[first + c] : 1.0f, b = beta ? beta[first + c] : 0.0f, to_b = 0.0f, to_g = 0.0f;
    int head = head_of<V>((const float*)(in_dy + c * area), area);
    for (int step = 0; step < area; step += 32) {              // the same for all lanes: unrolled, they stay side by side
      if (step + lane >= area) break;
      int i = c * area + turned(step + lane, area, head);
      Run v = tile_x[i], d = in_dy[i];
      through(v, d, mean, inverse, g, b, silu);
      #pragma unroll
      for (int k = 0; k < V; ++k) {
        to_b += d.x[k];
        to_g += d.x[k] * v.x[k];
        d.x[k] *= g;
      }
      if (KEPT == 1) continue;
      tile_x[i] = v;
      tile_dy[i] = d;
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
  if (KEPT == 2) {
    int head = head_of<V>((const float*)out, count);
    for (int j = threadIdx.x; j < count; j += blockDim.x) {
      int i = turned(j, count, head);
      out[i] = gradient(tile_x[i], tile_dy[i], 1.0f, s1, s2, inverse);
    }
    return;
  }
  for (int c = warp; c < channels; c += warps) {
    float g = gamma ? gamma[first + c] : 1.0f, b = beta ? beta[first + c] : 0.0f;
    int head = head_of<V>((const float*)(in_dy + c * area), area);
    for (int step = 0; step < area; step += 32) {              // the same for all lanes: unrolled, they stay side by side
      if (step + lane >= area) break;
      int i = c * area + turned(step + lane, area, head);
      Run v = tile_x[i], d = in_dy[i];
      through(v, d, mean, inverse, g, b, silu);
      out[i] = gradient(v, d, g, s1, s2, inverse);
    }
  }
}

// A group larger than a block's shared memory: s1 and s2 need x_hat, which needs all of x, and dx needs them, so x is read
// three times and dy twice, 24 bytes a float, by a block for every slice of `slice` pixels (gridDim.y) of a channel of a
// sample (gridDim.x). `group_norm_partial` has left the statistics of the group's chunks. First the slices' shares of B and
// G, (2, N C, slices).
#define SLICES const float* dy, const float* x, const float* gamma, const float* beta, int silu, int groups, int size, \
  int pixels, int slice

template <int V> __global__ void __launch_bounds__(256) group_norm_vjp_shares(float* shares, const float2* partial,
                                                                             float stabiliser, int chunk, SLICES) {
  __shared__ float scratch[32];
  typedef Pack<float, V> Run;
  int channels = size / pixels, group = blockIdx.x / channels, chunks = (size + chunk - 1) / chunk, n_c = groups * channels;
  float2 of = combine(partial + (long long)group * chunks, chunks, size, chunk, scratch);
  float inverse = 1.0f / sqrtf(of.y + stabiliser), to_b = 0.0f, to_g = 0.0f;
  float g = gamma ? gamma[blockIdx.x % n_c] : 1.0f, b = beta ? beta[blockIdx.x % n_c] : 0.0f;
  long long base = (long long)blockIdx.x * pixels;
  const Run *in_x = (const Run*)(x + base), *in_dy = (const Run*)(dy + base);
  int low = blockIdx.y * slice / V, count = min(pixels / V - low, slice / V);
  int head = head_of<V>((const float*)(in_dy + low), count);
  for (int j = threadIdx.x; j < count; j += blockDim.x) {
    int i = low + turned(j, count, head);
    Run v = in_x[i], d = in_dy[i];
    through(v, d, of.x, inverse, g, b, silu);
    #pragma unroll
    for (int k = 0; k < V; ++k) {
      to_b += d.x[k];
      to_g += d.x[k] * v.x[k];
    }
  }
  to_b = block_sum(to_b, scratch);
  to_g = block_sum(to_g, scratch);
  if (threadIdx.x) return;
  shares[(long long)blockIdx.x * gridDim.y + blockIdx.y] = to_b;
  shares[((long long)gridDim.x + blockIdx.x) * gridDim.y + blockIdx.y] = to_g;
}

// Then a block a group adds them in a fixed order, and leaves the group's mean, 1/sigma, s1 and s2.
extern "C" __global__ void group_norm_vjp_means(float4* means, float* sum_g, float* sum_b, const float* shares,
                                                const float2* partial, const float* gamma, float stabiliser, int chunk,
                                                int n_groups, int groups, int size, int pixels, int slices) {
  __shared__ float scratch[32];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, channels = size / pixels;
  int chunks = (size + chunk - 1) / chunk, first = blockIdx.x % groups * channels;
  float2 of = combine(partial + (long long)blockIdx.x * chunks, chunks, size, chunk, scratch);
  float s1 = 0.0f, s2 = 0.0f;
  for (int c = warp; c < channels; c += warps) {
    long long at = (long long)blockIdx.x * channels + c, other = (long long)n_groups * channels + at;
    float to_b = 0.0f, to_g = 0.0f;
    for (int j = lane; j < slices; j += 32) {
      to_b += shares[at * slices + j];
      to_g += shares[other * slices + j];
    }
    to_b = warp_sum(to_b);
    to_g = warp_sum(to_g);
    if (lane == 0) {
      float g = gamma ? gamma[first + c] : 1.0f;
      sum_b[at] = to_b;
      sum_g[at] = to_g;
      s1 += g * to_b;
      s2 += g * to_g;
    }
  }
  s1 = block_sum(s1, scratch) / size;
  s2 = block_sum(s2, scratch) / size;
  if (threadIdx.x == 0) means[blockIdx.x] = make_float4(of.x, 1.0f / sqrtf(of.y + stabiliser), s1, s2);
}

// And every slice takes its gradient.
template <int V> __global__ void __launch_bounds__(256, 8) group_norm_vjp_apply(float* dx, const float4* means, SLICES) {
  typedef Pack<float, V> Run;
  int channels = size / pixels, n_c = groups * channels;
  float4 m = means[blockIdx.x / channels];
  float g = gamma ? gamma[blockIdx.x % n_c] : 1.0f, b = beta ? beta[blockIdx.x % n_c] : 0.0f;
  long long base = (long long)blockIdx.x * pixels;
  const Run *in_x = (const Run*)(x + base), *in_dy = (const Run*)(dy + base);
  Run* out = (Run*)(dx + base);
  int low = blockIdx.y * slice / V, count = min(pixels / V - low, slice / V);
  int head = head_of<V>((const float*)(in_dy + low), count);
  for (int j = threadIdx.x; j < count; j += blockDim.x) {
    int i = low + turned(j, count, head);
    Run v = in_x[i], d = in_dy[i];
    through(v, d, m.x, m.y, g, b, silu);
    out[i] = gradient(v, d, g, m.z, m.w, m.y);
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
