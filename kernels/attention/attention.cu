// o = softmax(scale q k^T + log mask) v for q (N h, L, d), k (N h, S, d), v (N h, S, e), without an L x S matrix:
// one pass over the keys with a running maximum m, sum l and output, rescaled whenever m grows (online softmax).
// stats (N h, L), if not null, takes (m, 1/l) for the backward pass, apart: in m + log l the logarithm would be lost where
// scores are large. A row with nothing to attend to gives 0 and (-inf, 0).
// D is the compiled head size, at least d and e; O is T, or float where the backward pass wants o unrounded. Blocks are
// numbered tile by tile, head after head.
#include "numbers.cuh"
#include "attention.cuh"
#include <mma.h>

#define ATTENTION_PARAMETERS O* o, float2* stats, const T* q, const T* k, const T* v, MASK_PARAMETERS, float scale, \
  int heads, int L, int S, int d, int e

// One step of the online softmax: a score joins (m, l); returns the weight it gets, `keep` what the past is scaled by.
__device__ __forceinline__ float join(float s, float& m, float& l, float& keep) {
  float top = larger(s, m), p = weight(s, top);
  keep = m == top ? 1.0f : expf(m - top);
  m = top;
  l = l * keep + p;
  return p;
}

// Naive: one thread a query, its output in local memory, every key and value read from global memory by every thread.
template <class T, class O, int D> __global__ void attention_naive(ATTENTION_PARAMETERS) {
  int tiles = (L + blockDim.x - 1) / blockDim.x, b = blockIdx.x / tiles, i = blockIdx.x % tiles * blockDim.x + threadIdx.x;
  if (i >= L) return;
  Mask see = MASK(b, heads);
  const T* row = q + ((long long)b * L + i) * d;
  float out[D] = {}, m = NEGATIVE_INFINITY, l = 0.0f, keep;
  for (int j = 0; j < S; ++j) {
    if (!seen(see, i, j)) continue;
    float s = 0.0f;
    for (int c = 0; c < d; ++c) s += up(row[c]) * up(k[((long long)b * S + j) * d + c]);
    float p = join(s * scale, m, l, keep);
    for (int c = 0; c < e; ++c) out[c] = out[c] * keep + p * up(v[((long long)b * S + j) * e + c]);
  }
  float inverse = l == 0.0f ? 0.0f : 1.0f / l;
  for (int c = 0; c < e; ++c) down(&o[((long long)b * L + i) * e + c], out[c] * inverse);
  if (stats) stats[(long long)b * L + i] = make_float2(m, inverse);
}

// Tiled: a tile of keys and values in shared memory serves all queries of a block, so global memory gives each of them
// once a block, not once a query. LANES threads share a query, so that q and o stay in registers.
template <class T, class O, int D, int LANES, int QUERIES, int KEYS>
__global__ void __launch_bounds__(128) attention_tiled(ATTENTION_PARAMETERS) {
  __shared__ float4 keys[KEYS * D / 4], values[KEYS * D / 4];
  constexpr int ROWS = 128 / LANES;
  int lane = threadIdx.x % LANES, tiles = (L + ROWS - 1) / ROWS, b = blockIdx.x / tiles;
  int start = blockIdx.x % tiles * ROWS, i = start + threadIdx.x / LANES;
  Mask see = MASK(b, heads);
  float mine[D / LANES], out[1][D / LANES] = {}, m = NEGATIVE_INFINITY, l = 0.0f;
  load_row<T, D, LANES>(mine, q + ((long long)b * L + i) * d, i < L, d, lane);
  int last = causal ? min(S, start + ROWS) : S;                             // no query of the block sees a later key
  for (int tile = 0; tile < last; tile += KEYS) {
    __syncthreads();                                                        // all are done with the previous tile
    load_tile<T, D, KEYS, 128>(keys, k + (long long)b * S * d, tile, S, d);
    load_tile<T, D, KEYS, 128>(values, v + (long long)b * S * e, tile, S, e);
    __syncthreads();
    for (int j = 0; j < min(KEYS, S - tile); ++j) {
      float share = 0.0f, p[1], keep;
      #pragma unroll
      for (int c = 0; c < D / LANES; c += 4) {
        float4 t = keys[j * D / 4 + c / 4 * LANES + lane];
        share += mine[c] * t.x + mine[c + 1] * t.y + mine[c + 2] * t.z + mine[c + 3] * t.w;
      }
      float s = lanes_sum<LANES>(share) * scale;
      p[0] = join(i < L && seen(see, i, tile + j) ? s : NEGATIVE_INFINITY, m, l, keep);
      #pragma unroll
      for (int c = 0; c < D / LANES; ++c) out[0][c] *= keep;
      add<D, LANES>(out, p, values + j * D / 4, lane);
    }
  }
  if (i >= L) return;
  float inverse = l == 0.0f ? 0.0f : 1.0f / l;
  store_row<O, D, LANES>(o + ((long long)b * L + i) * e, out[0], inverse, e, lane);
  if (stats && lane == 0) stats[(long long)b * L + i] = make_float2(m, inverse);
}

// Best: LANES keys at a time. Their scores are summed so that each lane ends with one of them, so a lane takes one
// exponential and looks at one element of the mask where it took LANES, and the past is rescaled once for LANES keys.
// QUERIES rows a thread: a float4 read from shared memory serves that many products.
template <class T, class O, int D, int LANES, int QUERIES, int KEYS>
__global__ void __launch_bounds__(128, BLOCKS<D>) attention_best(ATTENTION_PARAMETERS) {
  __shared__ float4 keys[KEYS * D / 4], values[KEYS * D / 4];
  constexpr int ROWS = 128 / LANES * QUERIES;
  int lane = threadIdx.x % LANES, tiles = (L + ROWS - 1) / ROWS, b = blockIdx.x / tiles;
  int start = blockIdx.x % tiles * ROWS, first = start + threadIdx.x / LANES * QUERIES;
  Mask see = MASK(b, heads);
  float mine[QUERIES][D / LANES], out[QUERIES][D / LANES] = {}, m[QUERIES], l[QUERIES];   // l: this lane's share
  #pragma unroll
  for (int r = 0; r < QUERIES; ++r) {
    load_row<T, D, LANES>(mine[r], q + ((long long)b * L + first + r) * d, first + r < L, d, lane);
    m[r] = NEGATIVE_INFINITY;
    l[r] = 0.0f;
  }
  int last = causal ? min(S, start + ROWS) : S;
  for (int tile = 0; tile < last; tile += KEYS) {
    __syncthreads();
    load_tile<T, D, KEYS, 128>(keys, k + (long long)b * S * d, tile, S, d);
    load_tile<T, D, KEYS, 128>(values, v + (long long)b * S * e, tile, S, e);
    __syncthreads();
    for (int part = 0; part < min(KEYS, S - tile); part += LANES) {
      float p[QUERIES];
      scores<D, LANES>(p, mine, keys + part * D / 4, lane);
      #pragma unroll
      for (int r = 0; r < QUERIES; ++r) {
        int key = tile + part + lane;
        bool on = first + r < L && key < S && seen(see, first + r, key);
        float score = on ? p[r] * scale : NEGATIVE_INFINITY;
        float top = larger(lanes_larger<LANES>(score), m[r]), keep = m[r] == top ? 1.0f : expf(m[r] - top);
        p[r] = weight(score, top);
        m[r] = top;
        l[r] = l[r] * keep + p[r];
        #pragma unroll
        for (int c = 0; c < D / LANES; ++c) out[r][c] *= keep;
      }
      #pragma unroll
      for (int j = 0; j < LANES; ++j) {
        float of[QUERIES];
        #pragma unroll
        for (int r = 0; r < QUERIES; ++r) of[r] = __shfl_sync(0xffffffffu, p[r], j, LANES);
        add<D, LANES>(out, of, values + (part + j) * D / 4, lane);
      }
    }
  }
  #pragma unroll
  for (int r = 0; r < QUERIES; ++r) {
    float total = lanes_sum<LANES>(l[r]), inverse = total == 0.0f ? 0.0f : 1.0f / total;
    if (first + r >= L) continue;
    long long row = (long long)b * L + first + r;
    store_row<O, D, LANES>(o + row * e, out[r], inverse, e, lane);
    if (stats && lane == 0) stats[row] = make_float2(m[r], inverse);
  }
}

// Rows first .. first + ROWS - 1 of `width` half-precision numbers to shared memory, PITCH apart, as they are.
template <class T, int D, int ROWS> __device__ __forceinline__ void copy_tile(T* tile, const T* from, int first, int rows,
                                                                              int width) {
  bool whole = width % 8 == 0 && aligned<T, 8>(from);
  for (int i = threadIdx.x; i < ROWS * D / 8; i += 128) {
    int j = i / (D / 8), c = i % (D / 8) * 8;
    *(Pack<T, 8>*)(tile + j * (D + 8) + c) =
        load_up_to<8>(from + (long long)(first + j) * width + c, first + j < rows ? width - c : 0, whole);
  }
}

// Tensor cores, for half types: a warp holds 16 queries and their output in fragments and multiplies 16 x 16 x 16 an
// instruction; only scores and weights pass through shared memory, two lanes a row. Weights are rounded to T, which is
// an error of the algorithm, and has its own bound. A fragment's layout is unknown, so the factors that rescale its rows
// come as a fragment too.
template <class T, class O, int D> __global__ void __launch_bounds__(128, BLOCKS<D>) attention_wmma(ATTENTION_PARAMETERS) {
  using namespace nvcuda;
  constexpr int KEYS = 32, PITCH = D + 8, PITCH_S = KEYS + 8, PITCH_P = KEYS + 8, PITCH_F = 16 + 4;
  __shared__ __align__(32) T tiles_kv[2 * KEYS * PITCH], all_weights[4 * 16 * PITCH_P];
  __shared__ __align__(32) float all_scores[4 * 16 * PITCH_S];
  T *keys = tiles_kv, *values = tiles_kv + KEYS * PITCH;
  int warp = threadIdx.x / 32, row = threadIdx.x % 32 / 2, half_row = threadIdx.x % 2, tiles = (L + 63) / 64;
  int b = blockIdx.x / tiles, start = blockIdx.x % tiles * 64, i = start + 16 * warp + row;
  float* scores = all_scores + warp * 16 * PITCH_S;
  T* weights = all_weights + warp * 16 * PITCH_P;
  Mask see = MASK(b, heads);

  copy_tile<T, D, 64>(tiles_kv, q + (long long)b * L * d, start, L, d);      // the two tiles hold 64 queries, for once
  __syncthreads();
  wmma::fragment<wmma::matrix_a, 16, 16, 16, T, wmma::row_major> fq[D / 16];
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> out[D / 16], factors;
  #pragma unroll
  for (int c = 0; c < D / 16; ++c) {
    wmma::load_matrix_sync(fq[c], tiles_kv + 16 * warp * PITCH + 16 * c, PITCH);
    wmma::fill_fragment(out[c], 0.0f);
  }
  // Multiplies row r of `out` by the factor that the two lanes of row r hold.
  auto rescale = [&](float factor) {
    __syncwarp();
    #pragma unroll
    for (int c = 0; c < 16; c += 2) scores[row * PITCH_F + c + half_row] = factor;
    __syncwarp();
    wmma::load_matrix_sync(factors, scores, PITCH_F, wmma::mem_row_major);
    #pragma unroll
    for (int c = 0; c < D / 16; ++c)
      #pragma unroll
      for (int x = 0; x < factors.num_elements; ++x) out[c].x[x] *= factors.x[x];
  };

  float m = NEGATIVE_INFINITY, l = 0.0f;                                    // l: this lane's share
  int last = causal ? min(S, start + 64) : S;
  for (int tile = 0; tile < last; tile += KEYS) {
    __syncthreads();                                                        // all are done with the previous tile
    copy_tile<T, D, KEYS>(keys, k + (long long)b * S * d, tile, S, d);
    copy_tile<T, D, KEYS>(values, v + (long long)b * S * e, tile, S, e);
    __syncthreads();
    #pragma unroll
    for (int n = 0; n < KEYS; n += 16) {
      wmma::fragment<wmma::accumulator, 16, 16, 16, float> s;
      wmma::fill_fragment(s, 0.0f);
      #pragma unroll
      for (int c = 0; c < D / 16; ++c) {
        wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::col_major> fk;
        wmma::load_matrix_sync(fk, keys + n * PITCH + 16 * c, PITCH);
        wmma::mma_sync(s, fq[c], fk, s);
      }
      wmma::store_matrix_sync(scores + n, s, PITCH_S, wmma::mem_row_major);
    }
    __syncwarp();
    float s[KEYS / 2], top = m;                                             // every second four of the row
    #pragma unroll
    for (int c = 0; c < KEYS / 2; c += 4) {
      int j = 2 * c + 4 * half_row;
      float4 four = *(const float4*)(scores + row * PITCH_S + j);
      s[c] = four.x; s[c + 1] = four.y; s[c + 2] = four.z; s[c + 3] = four.w;
      #pragma unroll
      for (int x = 0; x < 4; ++x) {
        int key = tile + j + x;
        s[c + x] = i < L && key < S && seen(see, i, key) ? s[c + x] * scale : NEGATIVE_INFINITY;
        top = larger(s[c + x], top);
      }
    }
    top = larger(top, __shfl_xor_sync(0xffffffffu, top, 1));
    float keep = m == top ? 1.0f : expf(m - top);
    m = top;
    l *= keep;
    #pragma unroll
    for (int c = 0; c < KEYS / 2; c += 4) {
      Pack<T, 4> four;
      #pragma unroll
      for (int x = 0; x < 4; ++x) {
        float p = weight(s[c + x], top);
        l += p;
        down(&four.x[x], p);
      }
      *(Pack<T, 4>*)(weights + row * PITCH_P + 2 * c + 4 * half_row) = four;
    }
    if (__any_sync(0xffffffffu, keep != 1.0f)) rescale(keep);
    __syncwarp();
    #pragma unroll
    for (int n = 0; n < KEYS; n += 16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, T, wmma::row_major> fp;
      wmma::load_matrix_sync(fp, weights + n, PITCH_P);
      #pragma unroll
      for (int c = 0; c < D / 16; ++c) {
        wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::row_major> fv;
        wmma::load_matrix_sync(fv, values + n * PITCH + 16 * c, PITCH);
        wmma::mma_sync(out[c], fp, fv, out[c]);
      }
    }
  }
  l += __shfl_xor_sync(0xffffffffu, l, 1);
  float inverse = l == 0.0f ? 0.0f : 1.0f / l;
  rescale(inverse);
  #pragma unroll
  for (int c = 0; c < D / 16; ++c) {
    __syncwarp();
    wmma::store_matrix_sync(scores, out[c], PITCH_S, wmma::mem_row_major);
    __syncwarp();
    Pack<O, 8> p;
    #pragma unroll
    for (int x = 0; x < 8; x += 4) {
      float4 four = *(const float4*)(scores + row * PITCH_S + 8 * half_row + x);
      down(&p.x[x], four.x); down(&p.x[x + 1], four.y); down(&p.x[x + 2], four.z); down(&p.x[x + 3], four.w);
    }
    O* to = o + ((long long)b * L + i) * e + 16 * c + 8 * half_row;
    int inside = i < L ? e - 16 * c - 8 * half_row : 0;
    store_up_to<8>(to, p, inside, e % 8 == 0 && aligned<O, 8>(o));
  }
  if (stats && i < L && half_row == 0) stats[(long long)b * L + i] = make_float2(m, inverse);
}
