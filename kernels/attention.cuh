// What the kernels of attention share: masks, tiles of rows in shared memory, rows spread over neighbouring lanes.
#define NEGATIVE_INFINITY __int_as_float(0xff800000)

// Blocks of 128 threads that a multiprocessor's registers must hold: left to itself the compiler now and then spills a
// register or two to reach one block more.
template <int D> constexpr int BLOCKS = D > 64 ? 2 : D > 32 ? 3 : 4;

// mask: bytes, or null; strides of its (N, h, L, S), 0 where it broadcasts. Here for one sample and head.
struct Mask { const unsigned char* at; int causal; long long l, s; };

#define MASK_PARAMETERS const unsigned char* mask, int causal, long long mask_n, long long mask_h, long long mask_l, \
  long long mask_s
#define MASK(b, heads) \
  Mask{mask ? mask + (b) / (heads) * mask_n + (b) % (heads) * mask_h : mask, causal, mask_l, mask_s}

__device__ __forceinline__ bool seen(const Mask& m, int i, int j) {
  return (!m.causal || j <= i) && (!m.at || m.at[i * m.l + j * m.s]);
}

// The larger of two scores; NaN wins and stays.
__device__ __forceinline__ float larger(float a, float b) { return a > b || a != a ? a : b; }

// exp(s - top), 0 for a score that is not there: -inf, even where top is -inf too.
__device__ __forceinline__ float weight(float s, float top) { return s == NEGATIVE_INFINITY ? 0.0f : expf(s - top); }

// ROWS rows of `width` numbers, from row `first` of `rows`, to shared memory as floats; zero beyond. 16 bytes a load.
template <class T, int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_tile(float4* tile, const T* from, int first, int rows, int width) {
  constexpr int V = 16 / sizeof(T);
  bool whole = width % V == 0 && aligned<T, V>(from);
  for (int i = threadIdx.x; i < ROWS * D / V; i += THREADS) {
    int j = first + i / (D / V), c = i % (D / V) * V;
    Pack<T, V> p = load_up_to<V>(from + (long long)j * width + c, j < rows ? width - c : 0, whole);
    #pragma unroll
    for (int k = 0; k < V; k += 4)
      tile[(i * V + k) / 4] = make_float4(up(p.x[k]), up(p.x[k + 1]), up(p.x[k + 2]), up(p.x[k + 3]));
  }
}

// A row is spread over LANES neighbouring threads: a lane holds every LANES-th float4 of it, so that reading a row of a
// tile in shared memory the lanes read neighbours.
template <class T, int D, int LANES>
__device__ __forceinline__ void load_row(float (&mine)[D / LANES], const T* row, bool inside, int width, int lane) {
  bool whole = width % 4 == 0 && aligned<T, 4>(row);
  #pragma unroll
  for (int i = 0; i < D / LANES; i += 4) {
    int c = i * LANES + 4 * lane;
    Pack<T, 4> p = load_up_to<4>(row + c, inside ? width - c : 0, whole);
    #pragma unroll
    for (int k = 0; k < 4; ++k) mine[i + k] = up(p.x[k]);
  }
}

template <class T, int D, int LANES>
__device__ __forceinline__ void store_row(T* row, const float (&mine)[D / LANES], float factor, int width, int lane) {
  bool whole = width % 4 == 0 && aligned<T, 4>(row);
  #pragma unroll
  for (int i = 0; i < D / LANES; i += 4) {
    int c = i * LANES + 4 * lane;
    Pack<T, 4> p;
    #pragma unroll
    for (int k = 0; k < 4; ++k) down(&p.x[k], mine[i + k] * factor);
    store_up_to<4>(row + c, p, width - c, whole);
  }
}

// mine[r] += p[r] row. A float4 read serves all r.
template <int D, int LANES, int R> __device__ __forceinline__ void add(
    float (&mine)[R][D / LANES], const float (&p)[R], const float4* row, int lane) {
  #pragma unroll
  for (int i = 0; i < D / LANES; i += 4) {
    float4 t = row[i / 4 * LANES + lane];
    #pragma unroll
    for (int r = 0; r < R; ++r) {
      mine[r][i] += p[r] * t.x; mine[r][i + 1] += p[r] * t.y;
      mine[r][i + 2] += p[r] * t.z; mine[r][i + 3] += p[r] * t.w;
    }
  }
}

template <int LANES> __device__ __forceinline__ float lanes_sum(float v) {
  #pragma unroll
  for (int w = LANES / 2; w; w /= 2) v += __shfl_xor_sync(0xffffffffu, v, w);
  return v;
}
template <int LANES> __device__ __forceinline__ float lanes_larger(float v) {
  #pragma unroll
  for (int w = LANES / 2; w; w /= 2) v = larger(v, __shfl_xor_sync(0xffffffffu, v, w));
  return v;
}

// out[r] = <mine[r], row `lane` of `rows`>: LANES rows at once, so that each lane takes one score further. A float4 read
// serves all r, and LANES - 1 shuffles share out the sums, where summing each alone takes LANES log LANES.
template <int D, int LANES, int R> __device__ __forceinline__ void scores(
    float (&out)[R], const float (&mine)[R][D / LANES], const float4* rows, int lane) {
  float s[R][LANES] = {};
  #pragma unroll
  for (int j = 0; j < LANES; ++j)
    #pragma unroll
    for (int i = 0; i < D / LANES; i += 4) {
      float4 t = rows[j * D / 4 + i / 4 * LANES + lane];
      #pragma unroll
      for (int r = 0; r < R; ++r)
        s[r][j] += mine[r][i] * t.x + mine[r][i + 1] * t.y + mine[r][i + 2] * t.z + mine[r][i + 3] * t.w;
    }
  #pragma unroll
  for (int r = 0; r < R; ++r) {
    #pragma unroll
    for (int w = LANES / 2; w; w /= 2) {
      bool upper = lane & w;
      #pragma unroll
      for (int i = 0; i < w; ++i) {
        float give = upper ? s[r][i] : s[r][i + w], keep = upper ? s[r][i + w] : s[r][i];
        s[r][i] = keep + __shfl_xor_sync(0xffffffffu, give, w);
      }
    }
    out[r] = s[r][0];
  }
}
