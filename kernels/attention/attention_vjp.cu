// The gradients of attention (attention.cu), with P = exp(s - m)/l recomputed from stats: delta = rowsum(dy o),
// dS = P (dy v^T - delta), dq = scale dS k, dk = scale dS^T q, dv = P^T dy. Each output is summed by the threads of one row
// in a fixed order, so the same input gives the same bits.
#include "numbers.cuh"
#include "attention.cuh"

#define VJP_PARAMETERS const T* dy, const T* q, const T* k, const T* v, const float2* stats, const float* delta, \
  MASK_PARAMETERS, float scale, int heads, int L, int S, int d, int e

// A warp a row.
template <class T> __global__ void attention_delta(float* delta, const T* dy, const float* o, int rows, int e) {
  int i = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x & 31;
  float sum = 0.0f;
  if (i < rows)
    for (int c = lane; c < e; c += 32) sum += up(dy[(long long)i * e + c]) * o[(long long)i * e + c];
  sum = lanes_sum<32>(sum);
  if (i < rows && lane == 0) delta[i] = sum;
}

// P_ij from a score and its row's (m, 1/l).
__device__ __forceinline__ float normalised(float s, float2 of) { return weight(s, of.x) * of.y; }

// Naive: one thread a query, or a key, its sums in local memory and everything else read from global memory.
template <class T, int D> __global__ void attention_dq_naive(T* dq, VJP_PARAMETERS) {
  int tiles = (L + blockDim.x - 1) / blockDim.x, b = blockIdx.x / tiles, i = blockIdx.x % tiles * blockDim.x + threadIdx.x;
  if (i >= L) return;
  Mask see = MASK(b, heads);
  long long row = (long long)b * L + i;
  float sum[D] = {};
  for (int j = 0; j < S; ++j) {
    if (!seen(see, i, j)) continue;
    float s = 0.0f, dp = 0.0f;
    for (int c = 0; c < d; ++c) s += up(q[row * d + c]) * up(k[((long long)b * S + j) * d + c]);
    for (int c = 0; c < e; ++c) dp += up(dy[row * e + c]) * up(v[((long long)b * S + j) * e + c]);
    float ds = normalised(s * scale, stats[row]) * (dp - delta[row]) * scale;
    for (int c = 0; c < d; ++c) sum[c] += ds * up(k[((long long)b * S + j) * d + c]);
  }
  for (int c = 0; c < d; ++c) down(&dq[row * d + c], sum[c]);
}
template <class T, int D> __global__ void attention_dkv_naive(T* dk, T* dv, VJP_PARAMETERS) {
  int tiles = (S + blockDim.x - 1) / blockDim.x, b = blockIdx.x / tiles, j = blockIdx.x % tiles * blockDim.x + threadIdx.x;
  if (j >= S) return;
  Mask see = MASK(b, heads);
  long long row = (long long)b * S + j;
  float sum_k[D] = {}, sum_v[D] = {};
  for (int i = 0; i < L; ++i) {
    if (!seen(see, i, j)) continue;
    long long at = (long long)b * L + i;
    float s = 0.0f, dp = 0.0f;
    for (int c = 0; c < d; ++c) s += up(q[at * d + c]) * up(k[row * d + c]);
    for (int c = 0; c < e; ++c) dp += up(dy[at * e + c]) * up(v[row * e + c]);
    float p = normalised(s * scale, stats[at]), ds = p * (dp - delta[at]) * scale;
    for (int c = 0; c < d; ++c) sum_k[c] += ds * up(q[at * d + c]);
    for (int c = 0; c < e; ++c) sum_v[c] += p * up(dy[at * e + c]);
  }
  for (int c = 0; c < d; ++c) down(&dk[row * d + c], sum_k[c]);
  for (int c = 0; c < e; ++c) down(&dv[row * e + c], sum_v[c]);
}

// Tiled and best: tiles in shared memory serve all rows of a block, LANES threads share a row and take LANES scores at a
// time, one each, as attention_best does. Best: R rows a thread, so that a float4 read serves R products.
template <class T, int D, int LANES, int R, int KEYS>
__global__ void __launch_bounds__(128, BLOCKS<D>) attention_dq_tiled(T* dq, VJP_PARAMETERS) {
  __shared__ float4 keys[KEYS * D / 4], values[KEYS * D / 4];
  constexpr int ROWS = 128 / LANES * R;
  int lane = threadIdx.x % LANES, tiles = (L + ROWS - 1) / ROWS, b = blockIdx.x / tiles;
  int start = blockIdx.x % tiles * ROWS, first = start + threadIdx.x / LANES * R;
  Mask see = MASK(b, heads);
  float mine[R][D / LANES], dout[R][D / LANES], sum[R][D / LANES] = {}, mean[R];
  float2 of[R];
  #pragma unroll
  for (int r = 0; r < R; ++r) {
    long long row = (long long)b * L + first + r;
    load_row<T, D, LANES>(mine[r], q + row * d, first + r < L, d, lane);
    load_row<T, D, LANES>(dout[r], dy + row * e, first + r < L, e, lane);
    of[r] = first + r < L ? stats[row] : make_float2(0.0f, 0.0f);
    mean[r] = first + r < L ? delta[row] : 0.0f;
  }
  int last = causal ? min(S, start + ROWS) : S;                               // no query of the block sees a later key
  for (int tile = 0; tile < last; tile += KEYS) {
    __syncthreads();
    load_tile<T, D, KEYS, 128>(keys, k + (long long)b * S * d, tile, S, d);
    load_tile<T, D, KEYS, 128>(values, v + (long long)b * S * e, tile, S, e);
    __syncthreads();
    for (int part = 0; part < min(KEYS, S - tile); part += LANES) {
      float p[R], ds[R];
      scores<D, LANES>(p, mine, keys + part * D / 4, lane);
      scores<D, LANES>(ds, dout, values + part * D / 4, lane);
      #pragma unroll
      for (int r = 0; r < R; ++r) {
        int i = first + r, j = tile + part + lane;
        bool on = i < L && j < S && seen(see, i, j);
        ds[r] = on ? normalised(p[r] * scale, of[r]) * (ds[r] - mean[r]) * scale : 0.0f;
      }
      #pragma unroll 2
      for (int j = 0; j < LANES; ++j) {
        float of_j[R];
        #pragma unroll
        for (int r = 0; r < R; ++r) of_j[r] = __shfl_sync(0xffffffffu, ds[r], j, LANES);
        add<D, LANES>(sum, of_j, keys + (part + j) * D / 4, lane);
      }
    }
  }
  #pragma unroll
  for (int r = 0; r < R; ++r)
    if (first + r < L) store_row<T, D, LANES>(dq + ((long long)b * L + first + r) * d, sum[r], 1.0f, d, lane);
}

template <class T, int D, int LANES, int R, int QUERIES>
__global__ void __launch_bounds__(128, BLOCKS<D>) attention_dkv_tiled(T* dk, T* dv, VJP_PARAMETERS) {
  __shared__ float4 queries[QUERIES * D / 4], douts[QUERIES * D / 4];
  constexpr int ROWS = 128 / LANES * R;
  int lane = threadIdx.x % LANES, tiles = (S + ROWS - 1) / ROWS, b = blockIdx.x / tiles;
  int start = blockIdx.x % tiles * ROWS, first = start + threadIdx.x / LANES * R;
  Mask see = MASK(b, heads);
  float key[R][D / LANES], value[R][D / LANES], sum_k[R][D / LANES] = {}, sum_v[R][D / LANES] = {};
  #pragma unroll
  for (int r = 0; r < R; ++r) {
    long long row = (long long)b * S + first + r;
    load_row<T, D, LANES>(key[r], k + row * d, first + r < S, d, lane);
    load_row<T, D, LANES>(value[r], v + row * e, first + r < S, e, lane);
  }
  for (int tile = causal ? start / QUERIES * QUERIES : 0; tile < L; tile += QUERIES) {   // earlier ones see no key here
    __syncthreads();
    load_tile<T, D, QUERIES, 128>(queries, q + (long long)b * L * d, tile, L, d);
    load_tile<T, D, QUERIES, 128>(douts, dy + (long long)b * L * e, tile, L, e);
    __syncthreads();
    for (int part = 0; part < min(QUERIES, L - tile); part += LANES) {
      float p[R], ds[R];
      scores<D, LANES>(p, key, queries + part * D / 4, lane);
      scores<D, LANES>(ds, value, douts + part * D / 4, lane);
      int i = tile + part + lane;
      float2 of = i < L ? stats[(long long)b * L + i] : make_float2(0.0f, 0.0f);
      float mean = i < L ? delta[(long long)b * L + i] : 0.0f;
      #pragma unroll
      for (int r = 0; r < R; ++r) {
        bool on = i < L && first + r < S && seen(see, i, first + r);
        p[r] = on ? normalised(p[r] * scale, of) : 0.0f;
        ds[r] = on ? p[r] * (ds[r] - mean) * scale : 0.0f;
      }
      #pragma unroll 2
      for (int i = 0; i < LANES; ++i) {
        float of_i[R];
        #pragma unroll
        for (int r = 0; r < R; ++r) of_i[r] = __shfl_sync(0xffffffffu, p[r], i, LANES);
        add<D, LANES>(sum_v, of_i, douts + (part + i) * D / 4, lane);
        #pragma unroll
        for (int r = 0; r < R; ++r) of_i[r] = __shfl_sync(0xffffffffu, ds[r], i, LANES);
        add<D, LANES>(sum_k, of_i, queries + (part + i) * D / 4, lane);
      }
    }
  }
  #pragma unroll
  for (int r = 0; r < R; ++r) {
    if (first + r >= S) continue;
    store_row<T, D, LANES>(dk + ((long long)b * S + first + r) * d, sum_k[r], 1.0f, d, lane);
    store_row<T, D, LANES>(dv + ((long long)b * S + first + r) * e, sum_v[r], 1.0f, e, lane);
  }
}
