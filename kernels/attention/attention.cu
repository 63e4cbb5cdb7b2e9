// o = softmax(scale q k^T + log mask) v for q (N h, L, d), k (N h, S, d), v (N h, S, e), without an L x S matrix:
// one pass over the keys with a running maximum m, sum l and output, rescaled whenever m grows (online softmax).
// lse (N h, L), if not null, takes m + log l for the backward pass. A row with nothing to attend to gives 0, lse -inf.
// mask: bytes, or null; strides of its (N, h, L, S), 0 where it broadcasts.
#include "numbers.cuh"

#define NEGATIVE_INFINITY __int_as_float(0xff800000)

struct Mask { const unsigned char* at; int causal; long long n, h, l, s; };

#define MASK_PARAMETERS const unsigned char* mask, int causal, long long mask_n, long long mask_h, long long mask_l, \
  long long mask_s
#define MASK(b, heads) Mask{mask ? mask + (b) / (heads) * mask_n + (b) % (heads) * mask_h : mask, causal, 0, 0, mask_l, mask_s}

__device__ __forceinline__ bool seen(const Mask& m, int i, int j) {
  return (!m.causal || j <= i) && (!m.at || m.at[i * m.l + j * m.s]);
}

// One step of the online softmax: a score joins (m, l); returns the weight it gets, `keep` what the past is scaled by.
__device__ __forceinline__ float join(float s, float& m, float& l, float& keep) {
  float top = s > m || s != s ? s : m;                       // NaN enters and stays
  keep = m == top ? 1.0f : expf(m - top);
  float p = expf(s - top);
  m = top;
  l = l * keep + p;
  return p;
}

// Naive: one thread a query, its output in local memory, every key read from global memory by every thread.
template <class T, int D> __global__ void attention_naive(
    T* o, float* lse, const T* q, const T* k, const T* v, MASK_PARAMETERS, float scale, int heads, int L, int S, int d,
    int e) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
  if (i >= L) return;
  Mask see = MASK(b, heads);
  const T* row = q + ((long long)b * L + i) * d;
  float out[D] = {}, m = NEGATIVE_INFINITY, l = 0.0f, keep;
  for (int j = 0; j < S; ++j) {
    if (!seen(see, i, j)) continue;
    float s = 0.0f;
    for (int c = 0; c < d; ++c) s += up(row[c]) * up(k[((long long)b * S + j) * d + c]);
    if (s * scale == NEGATIVE_INFINITY) continue;
    float p = join(s * scale, m, l, keep);
    for (int c = 0; c < e; ++c) out[c] = out[c] * keep + p * up(v[((long long)b * S + j) * e + c]);
  }
  for (int c = 0; c < e; ++c) down(&o[((long long)b * L + i) * e + c], l == 0.0f ? 0.0f : out[c] / l);
  if (lse) lse[(long long)b * L + i] = l == 0.0f ? NEGATIVE_INFINITY : m + logf(l);
}

constexpr int LANES = 4;     // threads that share a query: each holds every fourth float4 of its q and o
constexpr int KEYS = 32;     // keys a tile
constexpr int ROWS = 32;     // groups of four lanes a block: 128 threads

// A tile of up to KEYS rows of `width` numbers to shared memory as floats, zero beyond the matrix and beyond its width.
template <class T, int D> __device__ __forceinline__ void load_tile(float* tile, const T* from, int first, int rows,
                                                                    int width) {
  for (int i = threadIdx.x; i < KEYS * D; i += blockDim.x) {
    int j = i / D, c = i % D;
    tile[i] = first + j < rows && c < width ? up(from[(long long)(first + j) * width + c]) : 0.0f;
  }
}

// This lane's numbers of one row, zero beyond its width.
template <class T, int D> __device__ __forceinline__ void load_row(float (&mine)[D / LANES], const T* row, bool inside,
                                                                   int width, int lane) {
  #pragma unroll
  for (int i = 0; i < D / LANES; ++i) {
    int c = i / 4 * 4 * LANES + 4 * lane + i % 4;
    mine[i] = inside && c < width ? up(row[c]) : 0.0f;
  }
}

template <int D> __device__ __forceinline__ float dot4(const float (&mine)[D / LANES], const float* row, int lane) {
  float s = 0.0f;
  #pragma unroll
  for (int i = 0; i < D / LANES; i += 4) {
    float4 t = *(const float4*)(row + i * LANES + 4 * lane);   // the lanes' float4s are neighbours: no bank conflict
    s += mine[i] * t.x + mine[i + 1] * t.y + mine[i + 2] * t.z + mine[i + 3] * t.w;
  }
  s += __shfl_xor_sync(0xffffffffu, s, 1);
  return s + __shfl_xor_sync(0xffffffffu, s, 2);
}

template <int D> __device__ __forceinline__ void add4(float (&mine)[D / LANES], float p, const float* row, int lane) {
  #pragma unroll
  for (int i = 0; i < D / LANES; i += 4) {
    float4 t = *(const float4*)(row + i * LANES + 4 * lane);
    mine[i] += p * t.x; mine[i + 1] += p * t.y; mine[i + 2] += p * t.z; mine[i + 3] += p * t.w;
  }
}

// Tiled: a tile of keys and values in shared memory serves 32 queries, so global memory gives each key once a block, not
// once a query. Best: QUERIES = 2 rows a thread, so each float4 read from shared memory serves two products, and the
// past is rescaled once for eight keys instead of once for each.
template <class T, int D, int QUERIES> __global__ void attention_tiled(
    T* o, float* lse, const T* q, const T* k, const T* v, MASK_PARAMETERS, float scale, int heads, int L, int S, int d,
    int e) {
  __shared__ float4 keys4[KEYS * D / 4], values4[KEYS * D / 4];
  float *keys = (float*)keys4, *values = (float*)values4;
  constexpr int AT_ONCE = 8;
  int lane = threadIdx.x % LANES, b = blockIdx.y, first = (blockIdx.x * ROWS + threadIdx.x / LANES) * QUERIES;
  Mask see = MASK(b, heads);
  float mine[QUERIES][D / LANES], out[QUERIES][D / LANES] = {}, m[QUERIES], l[QUERIES];
  #pragma unroll
  for (int r = 0; r < QUERIES; ++r) {
    load_row<T, D>(mine[r], q + ((long long)b * L + first + r) * d, first + r < L, d, lane);
    m[r] = NEGATIVE_INFINITY;
    l[r] = 0.0f;
  }
  int last = causal ? min(S, (int)(blockIdx.x + 1) * ROWS * QUERIES) : S;   // no query of the block sees a later key
  for (int tile = 0; tile < last; tile += KEYS) {
    __syncthreads();                                                        // all are done with the previous tile
    load_tile<T, D>(keys, k + (long long)b * S * d, tile, S, d);
    load_tile<T, D>(values, v + (long long)b * S * e, tile, S, e);
    __syncthreads();
    for (int part = 0; part < KEYS; part += AT_ONCE) {
      #pragma unroll
      for (int r = 0; r < QUERIES; ++r) {
        float s[AT_ONCE], top = m[r];
        #pragma unroll
        for (int j = 0; j < AT_ONCE; ++j) {
          int key = tile + part + j;
          float score = dot4<D>(mine[r], keys + (part + j) * D, lane) * scale;
          s[j] = first + r < L && key < S && seen(see, first + r, key) ? score : NEGATIVE_INFINITY;
          top = s[j] > top || s[j] != s[j] ? s[j] : top;
        }
        if (top == NEGATIVE_INFINITY) continue;                             // the four lanes agree: no shuffle is missed
        float keep = m[r] == top ? 1.0f : expf(m[r] - top);
        m[r] = top;
        l[r] *= keep;
        #pragma unroll
        for (int i = 0; i < D / LANES; ++i) out[r][i] *= keep;
        #pragma unroll
        for (int j = 0; j < AT_ONCE; ++j) {
          float p = expf(s[j] - top);
          l[r] += p;
          if (tile + part + j < S) add4<D>(out[r], p, values + (part + j) * D, lane);
        }
      }
    }
  }
  #pragma unroll
  for (int r = 0; r < QUERIES; ++r) {
    if (first + r >= L) continue;
    #pragma unroll
    for (int i = 0; i < D / LANES; ++i) {
      int c = i / 4 * 4 * LANES + 4 * lane + i % 4;
      if (c < e) down(&o[((long long)b * L + first + r) * e + c], l[r] == 0.0f ? 0.0f : out[r][i] / l[r]);
    }
    if (lse && lane == 0) lse[(long long)b * L + first + r] = l[r] == 0.0f ? NEGATIVE_INFINITY : m[r] + logf(l[r]);
  }
}

// Backward, with P recomputed from lse: delta = rowsum(dy o), dS = P (dy v^T - delta), dq = scale dS k,
// dk = scale dS^T q, dv = P^T dy. Three launches; each output is summed by one thread in a fixed order, so the same
// input gives the same bits.
template <class T> __global__ void attention_delta(float* delta, const T* dy, const T* o, int rows, int e) {
  int i = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x & 31;
  float sum = 0.0f;
  if (i < rows) for (int c = lane; c < e; c += 32) sum += up(dy[(long long)i * e + c]) * up(o[(long long)i * e + c]);
  #pragma unroll
  for (int w = 16; w; w >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, w);
  if (i < rows && lane == 0) delta[i] = sum;
}

// P_ij = exp(s - lse); a row that saw nothing has no weights. NaN stays NaN.
__device__ __forceinline__ float weight(float s, float lse) { return lse == NEGATIVE_INFINITY ? 0.0f : expf(s - lse); }

template <class T, int D> __global__ void attention_dq(
    T* dq, const T* dy, const T* q, const T* k, const T* v, const float* lse, const float* delta, MASK_PARAMETERS,
    float scale, int heads, int L, int S, int d, int e) {
  __shared__ float4 keys4[KEYS * D / 4], values4[KEYS * D / 4];
  float *keys = (float*)keys4, *values = (float*)values4;
  int lane = threadIdx.x % LANES, b = blockIdx.y, i = blockIdx.x * ROWS + threadIdx.x / LANES;
  Mask see = MASK(b, heads);
  long long row = (long long)b * L + i;
  float mine[D / LANES], dout[D / LANES], sum[D / LANES] = {};
  load_row<T, D>(mine, q + row * d, i < L, d, lane);
  load_row<T, D>(dout, dy + row * e, i < L, e, lane);
  float top = i < L ? lse[row] : NEGATIVE_INFINITY, mean = i < L ? delta[row] : 0.0f;
  int last = causal ? min(S, (int)(blockIdx.x + 1) * ROWS) : S;
  for (int tile = 0; tile < last; tile += KEYS) {
    __syncthreads();
    load_tile<T, D>(keys, k + (long long)b * S * d, tile, S, d);
    load_tile<T, D>(values, v + (long long)b * S * e, tile, S, e);
    __syncthreads();
    for (int j = 0; j < KEYS; ++j) {
      float s = dot4<D>(mine, keys + j * D, lane) * scale, dp = dot4<D>(dout, values + j * D, lane);
      bool on = i < L && tile + j < S && seen(see, i, tile + j);
      if (on) add4<D>(sum, weight(s, top) * (dp - mean) * scale, keys + j * D, lane);
    }
  }
  if (i < L) {
    #pragma unroll
    for (int t = 0; t < D / LANES; ++t) {
      int c = t / 4 * 4 * LANES + 4 * lane + t % 4;
      if (c < d) down(&dq[row * d + c], sum[t]);
    }
  }
}

template <class T, int D> __global__ void attention_dkv(
    T* dk, T* dv, const T* dy, const T* q, const T* k, const T* v, const float* lse, const float* delta, MASK_PARAMETERS,
    float scale, int heads, int L, int S, int d, int e) {
  __shared__ float4 queries4[KEYS * D / 4], douts4[KEYS * D / 4];
  float *queries = (float*)queries4, *douts = (float*)douts4;
  int lane = threadIdx.x % LANES, b = blockIdx.y, j = blockIdx.x * ROWS + threadIdx.x / LANES;
  Mask see = MASK(b, heads);
  float key[D / LANES], value[D / LANES], sum_k[D / LANES] = {}, sum_v[D / LANES] = {};
  load_row<T, D>(key, k + ((long long)b * S + j) * d, j < S, d, lane);
  load_row<T, D>(value, v + ((long long)b * S + j) * e, j < S, e, lane);
  int start = causal ? (int)(blockIdx.x * ROWS) / KEYS * KEYS : 0;             // earlier queries see none of these keys
  for (int tile = start; tile < L; tile += KEYS) {
    __syncthreads();
    load_tile<T, D>(queries, q + (long long)b * L * d, tile, L, d);
    load_tile<T, D>(douts, dy + (long long)b * L * e, tile, L, e);
    __syncthreads();
    for (int r = 0; r < KEYS; ++r) {
      int i = tile + r;
      float s = dot4<D>(key, queries + r * D, lane) * scale, dp = dot4<D>(value, douts + r * D, lane);
      if (i < L && j < S && seen(see, i, j)) {
        float p = weight(s, lse[(long long)b * L + i]);
        add4<D>(sum_v, p, douts + r * D, lane);
        add4<D>(sum_k, p * (dp - delta[(long long)b * L + i]) * scale, queries + r * D, lane);
      }
    }
  }
  if (j < S) {
    #pragma unroll
    for (int t = 0; t < D / LANES; ++t) {
      int c = t / 4 * 4 * LANES + 4 * lane + t % 4;
      if (c < d) down(&dk[((long long)b * S + j) * d + c], sum_k[t]);
      if (c < e) down(&dv[((long long)b * S + j) * e + c], sum_v[t]);
    }
  }
}
