// c(m, n) = sum_k a(m, k) b(n, k), a and b being any functions of their indices: a convolution is this product with a
// gather for a (implicit GEMM).
//
// A factor splits its work: row(m) and column(k) turn an index into coordinates (the divisions), at(row, column) is one
// load. Indices outside the matrix give 0. ORDER says which way its memory runs.
enum Order { ALONG_ROWS, ALONG_COLUMNS };

// What a thread fetches of a tile of X rows and BK columns of a factor. ALONG_ROWS: a warp takes 32 neighbouring rows of
// a column, so a thread has few columns to work out a step and its rows once and for all. ALONG_COLUMNS: neighbouring
// threads take neighbouring runs of V columns.
template <int X, int BK, int THREADS, int V, class F> struct Loader {
  static constexpr bool ROWS = F::ORDER == ALONG_ROWS;
  static constexpr int RUNS = BK / V, ROWS_EACH = ROWS ? X / 32 : X * RUNS / THREADS;
  static constexpr int COLUMNS_EACH = ROWS ? BK * 32 / THREADS : V;
  typename F::Row rows[ROWS_EACH];
  typename F::Number next[ROWS_EACH][COLUMNS_EACH];

  __device__ __forceinline__ static int row(int i) {
    return ROWS ? threadIdx.x % 32 + 32 * i : threadIdx.x / RUNS + THREADS / RUNS * i;
  }
  __device__ __forceinline__ static int column(int j) {
    return ROWS ? threadIdx.x / 32 + THREADS / 32 * j : threadIdx.x % RUNS * V + j;
  }
  __device__ __forceinline__ void start(const F& f, int first) {
    #pragma unroll
    for (int i = 0; i < ROWS_EACH; ++i) rows[i] = f.row(first + row(i));
  }
  __device__ __forceinline__ void fetch(const F& f, int k0) {
    if constexpr (ROWS || V == 1) {
      #pragma unroll
      for (int j = 0; j < COLUMNS_EACH; ++j) {
        auto c = f.column(k0 + column(j));
        #pragma unroll
        for (int i = 0; i < ROWS_EACH; ++i) next[i][j] = f.at(rows[i], c);
      }
    } else {
      #pragma unroll
      for (int i = 0; i < ROWS_EACH; ++i) {
        auto run = f.template run<V>(rows[i], k0 + column(0));
        #pragma unroll
        for (int j = 0; j < V; ++j) next[i][j] = run.x[j];
      }
    }
  }
};

// Blocks that a multiprocessor's registers must hold: left to itself the compiler takes a few registers more for 64 sums a
// thread, and a quarter fewer blocks fit.
template <class T, int SUMS> constexpr int BLOCKS = sizeof(T) == 4 && SUMS == 64 ? 4 : 0;

// One block a BM x BN tile of c, one thread TM x TN of it; BK columns of a and b in shared memory at a time, so each
// number fetched serves BN (or BM) products. Two buffers: while one is multiplied, the next is already on its way into
// registers, and one barrier a step is enough. A thread's rows come in fours, BM / (TM / 4) apart, so that its warp reads
// neighbouring float4s and stores neighbouring elements: store.four(m, n, sums) takes rows m .. m + 3 of column n.
template <int BM, int BN, int BK, int TM, int TN, int BUFFERS, int V, class A, class B, class Store>
__device__ __forceinline__ void gemm(const A& a, const B& b, const Store& store, int M, int N, int K) {
  constexpr int ACROSS = BM / TM, DOWN = BN / TN, THREADS = ACROSS * DOWN;
  __shared__ float4 tile_a[BUFFERS][BK][BM / 4 + 1], tile_b[BUFFERS][BK][BN / 4 + 1];   // + 1: rows on different banks
  int m0 = blockIdx.x * BM, n0 = blockIdx.y * BN, tm = threadIdx.x % ACROSS, tn = threadIdx.x / ACROSS;
  float sum[TN][TM] = {};
  Loader<BM, BK, THREADS, 1, A> from_a;
  Loader<BN, BK, THREADS, V, B> from_b;
  from_a.start(a, m0);
  from_b.start(b, n0);
  from_a.fetch(a, 0);
  from_b.fetch(b, 0);
  for (int k0 = 0, step = 0; k0 < K; k0 += BK, ++step) {
    int buffer = step % BUFFERS;
    if (BUFFERS == 1) __syncthreads();                     // all are done with the tile that is now overwritten
    #pragma unroll
    for (int i = 0; i < from_a.ROWS_EACH; ++i)
      #pragma unroll
      for (int j = 0; j < from_a.COLUMNS_EACH; ++j)
        ((float*)tile_a[buffer][from_a.column(j)])[from_a.row(i)] = up(from_a.next[i][j]);
    #pragma unroll
    for (int i = 0; i < from_b.ROWS_EACH; ++i)
      #pragma unroll
      for (int j = 0; j < from_b.COLUMNS_EACH; ++j)
        ((float*)tile_b[buffer][from_b.column(j)])[from_b.row(i)] = up(from_b.next[i][j]);
    __syncthreads();
    if (k0 + BK < K) {
      from_a.fetch(a, k0 + BK);
      from_b.fetch(b, k0 + BK);
    }
    #pragma unroll
    for (int k = 0; k < BK; ++k) {
      float ra[TM], rb[TN];
      #pragma unroll
      for (int i = 0; i < TM; i += 4) *(float4*)(ra + i) = tile_a[buffer][k][tm + i / 4 * ACROSS];
      #pragma unroll
      for (int j = 0; j < TN; j += 4) *(float4*)(rb + j) = tile_b[buffer][k][tn + j / 4 * DOWN];
      #pragma unroll
      for (int j = 0; j < TN; ++j)
        #pragma unroll
        for (int i = 0; i < TM; ++i) sum[j][i] += ra[i] * rb[j];
    }
  }
  #pragma unroll
  for (int i = 0; i < TM; i += 4)
    #pragma unroll
    for (int j = 0; j < TN; ++j) {
      int m = m0 + 4 * (tm + i / 4 * ACROSS), n = n0 + 4 * (tn + j / 4 * DOWN) + j % 4;
      if (m < M && n < N) store.four(m, n, sum[j] + i);
    }
}
