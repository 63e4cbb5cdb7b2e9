// The product of gemm.cuh on tensor cores: float16 or bfloat16 factors, float accumulation. 64 x 64 of c a block of four
// warps, each 32 x 32 as 2 x 2 fragments; one instruction multiplies 16 x 16 x 16 where the plain kernel multiplies one.
// The coordinates of a step's columns are worked out once a block, one step ahead, instead of once a thread.
#include <mma.h>

template <class A, class B, class Store>
__device__ __forceinline__ void gemm_wmma(const A& a, const B& b, const Store& store, int M, int N, int K) {
  using namespace nvcuda;
  using T = typename A::Number;
  constexpr int TILE = 64, BK = 32, THREADS = 128, PITCH_A = TILE + 8, PITCH_B = BK + 8, PITCH_C = TILE + 4;
  __shared__ __align__(32) T tile_a[BK * PITCH_A], tile_b[TILE * PITCH_B];   // + 8: rows on different banks
  __shared__ __align__(32) float tile_c[TILE * PITCH_C];
  __shared__ typename A::Column columns[BK];
  int t = threadIdx.x, m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE;
  int wm = t / 32 / 2 * 32, wn = t / 32 % 2 * 32;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum[2][2];
  #pragma unroll
  for (int i = 0; i < 4; ++i) wmma::fill_fragment(sum[i / 2][i % 2], 0.0f);
  Loader<TILE, BK, THREADS, 1, A> from_a;
  Loader<TILE, BK, THREADS, 8, B> from_b;
  from_a.start(a, m0);
  from_b.start(b, n0);
  auto fetch = [&](int k0) {
    #pragma unroll
    for (int j = 0; j < from_a.COLUMNS_EACH; ++j)
      #pragma unroll
      for (int i = 0; i < from_a.ROWS_EACH; ++i) from_a.next[i][j] = a.at(from_a.rows[i], columns[from_a.column(j)]);
    from_b.fetch(b, k0);
  };
  if (t < BK) columns[t] = a.column(t);
  __syncthreads();
  fetch(0);
  for (int k0 = 0; k0 < K; k0 += BK) {
    __syncthreads();                                         // all are done with tiles and columns
    #pragma unroll
    for (int i = 0; i < from_a.ROWS_EACH; ++i)
      #pragma unroll
      for (int j = 0; j < from_a.COLUMNS_EACH; ++j)
        tile_a[from_a.column(j) * PITCH_A + from_a.row(i)] = from_a.next[i][j];
    #pragma unroll
    for (int i = 0; i < from_b.ROWS_EACH; ++i) {
      Pack<T, 8> run;
      #pragma unroll
      for (int j = 0; j < 8; ++j) run.x[j] = from_b.next[i][j];
      *(Pack<T, 8>*)(tile_b + from_b.row(i) * PITCH_B + from_b.column(0)) = run;
    }
    if (t < BK) columns[t] = a.column(k0 + BK + t);
    __syncthreads();
    if (k0 + BK < K) fetch(k0 + BK);
    #pragma unroll
    for (int k = 0; k < BK; k += 16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, T, wmma::col_major> fa[2];
      wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::col_major> fb[2];
      #pragma unroll
      for (int i = 0; i < 2; ++i) {
        wmma::load_matrix_sync(fa[i], tile_a + k * PITCH_A + wm + 16 * i, PITCH_A);
        wmma::load_matrix_sync(fb[i], tile_b + (wn + 16 * i) * PITCH_B + k, PITCH_B);
      }
      #pragma unroll
      for (int i = 0; i < 4; ++i) wmma::mma_sync(sum[i / 2][i % 2], fa[i / 2], fb[i % 2], sum[i / 2][i % 2]);
    }
  }
  #pragma unroll
  for (int i = 0; i < 4; ++i)
    wmma::store_matrix_sync(tile_c + (wn + i % 2 * 16) * PITCH_C + wm + i / 2 * 16, sum[i / 2][i % 2], PITCH_C,
                            wmma::mem_col_major);
  __syncthreads();
  for (int i = t; i < TILE * TILE / 4; i += THREADS) {
    int m = i % (TILE / 4) * 4, n = i / (TILE / 4);
    float4 sums = *(const float4*)(tile_c + n * PITCH_C + m);
    if (m0 + m < M && n0 + n < N) store.four(m0 + m, n0 + n, (const float*)&sums);
  }
}
