// c(m, n) = sum_k a(m, k) b(n, k), a and b being any functions of their indices: a convolution is this product with a
// gather for a (implicit GEMM). Functors give 0 outside the matrix; store(m, n, sum) is called inside it only.

// One block a BM x BN tile of c, one thread TM x TN of it; BK columns of a and b in shared memory at a time, so each
// number fetched serves BN (or BM) products. Two buffers: while one is multiplied, the next is already on its way into
// registers, and one barrier a step is enough.
template <int BM, int BN, int BK, int TM, int TN, int BUFFERS, class A, class B, class Store>
__device__ __forceinline__ void gemm(const A& a, const B& b, const Store& store, int M, int N, int K) {
  constexpr int THREADS = (BM / TM) * (BN / TN), LA = BM * BK / THREADS, LB = BN * BK / THREADS;
  __shared__ float4 tile_a[BUFFERS][BK][BM / 4 + 1], tile_b[BUFFERS][BK][BN / 4 + 1];   // + 1: rows on different banks
  int t = threadIdx.x, m0 = blockIdx.x * BM, n0 = blockIdx.y * BN;
  int tm = t / (BN / TN) * TM, tn = t % (BN / TN) * TN;
  float sum[TM][TN] = {}, next_a[LA], next_b[LB];

  // A thread's rows of a are m = t % BM, ..: neighbours fetch neighbouring rows (pixels); of b, neighbouring columns.
  auto fetch = [&](int k0) {
    #pragma unroll
    for (int i = 0; i < LA; ++i) { int j = t + i * THREADS; next_a[i] = a(m0 + j % BM, k0 + j / BM); }
    #pragma unroll
    for (int i = 0; i < LB; ++i) { int j = t + i * THREADS; next_b[i] = b(n0 + j / BK, k0 + j % BK); }
  };
  auto put = [&](int buffer) {
    #pragma unroll
    for (int i = 0; i < LA; ++i) { int j = t + i * THREADS; ((float*)tile_a[buffer][j / BM])[j % BM] = next_a[i]; }
    #pragma unroll
    for (int i = 0; i < LB; ++i) { int j = t + i * THREADS; ((float*)tile_b[buffer][j % BK])[j / BK] = next_b[i]; }
  };

  fetch(0);
  for (int k0 = 0, step = 0; k0 < K; k0 += BK, ++step) {
    int buffer = step % BUFFERS;
    if (BUFFERS == 1) __syncthreads();                     // all are done with the tile that is now overwritten
    put(buffer);
    __syncthreads();
    if (k0 + BK < K) fetch(k0 + BK);
    #pragma unroll
    for (int k = 0; k < BK; ++k) {
      float ra[TM], rb[TN];
      #pragma unroll
      for (int i = 0; i < TM; i += 4) *(float4*)(ra + i) = tile_a[buffer][k][(tm + i) / 4];
      #pragma unroll
      for (int i = 0; i < TN; i += 4) *(float4*)(rb + i) = tile_b[buffer][k][(tn + i) / 4];
      #pragma unroll
      for (int i = 0; i < TM; ++i)
        #pragma unroll
        for (int j = 0; j < TN; ++j) sum[i][j] += ra[i] * rb[j];
    }
  }
  #pragma unroll
  for (int i = 0; i < TM; ++i)
    #pragma unroll
    for (int j = 0; j < TN; ++j)
      if (m0 + tm + i < M && n0 + tn + j < N) store(m0 + tm + i, n0 + tn + j, sum[i][j]);
}
