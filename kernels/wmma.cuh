// The product of gemm.cuh on tensor cores: float16 or bfloat16 factors, float accumulation. 64 x 64 of c a block of four
// warps, each 32 x 32 as 2 x 2 fragments; one instruction multiplies 16 x 16 x 16 where the plain kernel multiplies one.
#include <mma.h>

template <class T, class A, class B, class Store>
__device__ __forceinline__ void gemm_wmma(const A& a, const B& b, const Store& store, int M, int N, int K) {
  using namespace nvcuda;
  constexpr int TILE = 64, BK = 32, PITCH = BK + 8;          // + 8: rows of a tile start on different banks
  __shared__ __align__(32) T tile_a[TILE * PITCH], tile_b[TILE * PITCH];
  __shared__ __align__(32) float tile_c[TILE * (TILE + 4)];
  int t = threadIdx.x, warp = t / 32, m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE;
  int wm = warp / 2 * 32, wn = warp % 2 * 32;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum[2][2];
  #pragma unroll
  for (int i = 0; i < 4; ++i) wmma::fill_fragment(sum[i / 2][i % 2], 0.0f);
  for (int k0 = 0; k0 < K; k0 += BK) {
    __syncthreads();                                         // all are done with the tiles that are now overwritten
    for (int i = t; i < TILE * BK; i += 128) {
      down(&tile_a[i % TILE * PITCH + i / TILE], a(m0 + i % TILE, k0 + i / TILE));
      down(&tile_b[i / BK * PITCH + i % BK], b(n0 + i / BK, k0 + i % BK));
    }
    __syncthreads();
    #pragma unroll
    for (int k = 0; k < BK; k += 16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, T, wmma::row_major> fa[2];
      wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::col_major> fb[2];
      #pragma unroll
      for (int i = 0; i < 2; ++i) {
        wmma::load_matrix_sync(fa[i], tile_a + (wm + 16 * i) * PITCH + k, PITCH);
        wmma::load_matrix_sync(fb[i], tile_b + (wn + 16 * i) * PITCH + k, PITCH);
      }
      #pragma unroll
      for (int i = 0; i < 4; ++i) wmma::mma_sync(sum[i / 2][i % 2], fa[i / 2], fb[i % 2], sum[i / 2][i % 2]);
    }
  }
  #pragma unroll
  for (int i = 0; i < 4; ++i)
    wmma::store_matrix_sync(tile_c + (wm + i / 2 * 16) * (TILE + 4) + wn + i % 2 * 16, sum[i / 2][i % 2], TILE + 4,
                            wmma::mem_row_major);
  __syncthreads();
  for (int i = t; i < TILE * TILE; i += 128) {
    int m = i % TILE, n = i / TILE;
    if (m0 + m < M && n0 + n < N) store(m0 + m, n0 + n, tile_c[m * (TILE + 4) + n]);
  }
}
