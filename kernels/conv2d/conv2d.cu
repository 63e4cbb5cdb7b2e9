// Convolution y_{noij} = b_o + sum_{crs} w_{ocrs} x_{n, c, i stride + r dilation - top, j stride + s dilation - left}, and
// its gradients, for x (N, I, H, W), w (O, I/g, R, S), y (N, O, P, Q), all contiguous. blockIdx.z is the group.
#include "numbers.cuh"
#include "gemm.cuh"
#include "wmma.cuh"

struct Geometry {
  int N, I, H, W, O, P, Q, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, groups;
};

#define GEOMETRY_PARAMETERS int N, int I, int H, int W, int O, int P, int Q, int R, int S, int stride_h, int stride_w, \
  int top, int left, int dilation_h, int dilation_w, int groups
#define GEOMETRY Geometry{N, I, H, W, O, P, Q, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, groups}

// Naive: one thread an output, which reads its whole window and filter from global memory: 8 bytes a product.
template <class T> __global__ void conv2d_naive(T* y, const T* x, const T* w, const T* b, GEOMETRY_PARAMETERS) {
  long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (at >= (long long)N * O * P * Q) return;
  int j = (int)(at % Q), i = (int)(at / Q % P), o = (int)(at / Q / P % O), n = (int)(at / Q / P / O);
  int channels = I / groups, first = o / (O / groups) * channels;
  float sum = 0.0f;
  for (int c = 0; c < channels; ++c)
    for (int r = 0; r < R; ++r)
      for (int s = 0; s < S; ++s) {
        int row = i * stride_h + r * dilation_h - top, col = j * stride_w + s * dilation_w - left;
        if (row >= 0 && row < H && col >= 0 && col < W)
          sum += up(x[(((long long)n * I + first + c) * H + row) * W + col]) * up(w[((o * channels + c) * R + r) * S + s]);
      }
  down(&y[at], sum + (b ? up(b[o]) : 0.0f));
}

// The windows of x as a matrix: row m is the output pixel (n, i, j), column k the tap (c, r, s).
template <class T> struct Windows {
  const T* x; Geometry g; int group;
  __device__ __forceinline__ float operator()(int m, int k) const {
    if (m >= g.N * g.P * g.Q || k >= g.I / g.groups * g.R * g.S) return 0.0f;
    int n = m / (g.P * g.Q), i = m / g.Q % g.P, j = m % g.Q, c = k / (g.R * g.S), r = k / g.S % g.R, s = k % g.S;
    int row = i * g.stride_h + r * g.dilation_h - g.top, col = j * g.stride_w + s * g.dilation_w - g.left;
    if (row < 0 || row >= g.H || col < 0 || col >= g.W) return 0.0f;
    return up(x[(((long long)n * g.I + group * (g.I / g.groups) + c) * g.H + row) * g.W + col]);
  }
};

// The outputs that an input pixel (row m = (n, row, col)) reaches, by tap (o, r, s): windows of the transposed sum.
template <class T> struct Reached {
  const T* y; Geometry g; int group;
  __device__ __forceinline__ float operator()(int m, int k) const {
    if (m >= g.N * g.H * g.W || k >= g.O / g.groups * g.R * g.S) return 0.0f;
    int n = m / (g.H * g.W), o = k / (g.R * g.S), r = k / g.S % g.R, s = k % g.S;
    int i = m / g.W % g.H + g.top - r * g.dilation_h, j = m % g.W + g.left - s * g.dilation_w;
    if (i < 0 || j < 0 || i % g.stride_h || j % g.stride_w) return 0.0f;
    i /= g.stride_h; j /= g.stride_w;
    if (i >= g.P || j >= g.Q) return 0.0f;
    return up(y[(((long long)n * g.O + group * (g.O / g.groups) + o) * g.P + i) * g.Q + j]);
  }
};

// The filters by (o, tap (c, r, s)), and by (c, tap (o, r, s)).
template <class T> struct Filters {
  const T* w; Geometry g; int group;
  __device__ __forceinline__ float operator()(int o, int k) const {
    int K = g.I / g.groups * g.R * g.S;
    return o < g.O / g.groups && k < K ? up(w[((long long)group * (g.O / g.groups) + o) * K + k]) : 0.0f;
  }
};
template <class T> struct FiltersByInput {
  const T* w; Geometry g; int group;
  __device__ __forceinline__ float operator()(int c, int k) const {
    int taps = g.R * g.S, channels = g.I / g.groups, o = k / taps;
    if (c >= channels || o >= g.O / g.groups) return 0.0f;
    return up(w[(((long long)group * (g.O / g.groups) + o) * channels + c) * taps + k % taps]);
  }
};

// y by (o, pixel), and the windows by (tap, pixel): the two factors of the filters' gradient, a sum over pixels.
template <class T> struct ByChannel {
  const T* y; Geometry g; int group, first, last;
  __device__ __forceinline__ float operator()(int o, int p) const {
    int area = g.P * g.Q, m = first + p;
    if (o >= g.O / g.groups || m >= last) return 0.0f;
    return up(y[((long long)(m / area) * g.O + group * (g.O / g.groups) + o) * area + m % area]);
  }
};
template <class T> struct ByTap {
  Windows<T> windows; int first, last;
  __device__ __forceinline__ float operator()(int k, int p) const {
    return first + p < last ? windows(first + p, k) : 0.0f;
  }
};

#define TILED 64, 64, 16, 4, 4, 1
#define BEST 128, 64, 8, 8, 8, 2

template <class T> struct StoreOutputs {
  T* y; const T* b; Geometry g; int group;
  __device__ __forceinline__ void operator()(int m, int o, float sum) const {
    int at = group * (g.O / g.groups) + o, area = g.P * g.Q;
    down(&y[((long long)(m / area) * g.O + at) * area + m % area], sum + (b ? up(b[at]) : 0.0f));
  }
};

template <class T, int... TILE> __device__ __forceinline__ void forward(T* y, const T* x, const T* w, const T* b,
                                                                        const Geometry& g) {
  int group = blockIdx.z;
  gemm<TILE...>(Windows<T>{x, g, group}, Filters<T>{w, g, group}, StoreOutputs<T>{y, b, g, group}, g.N * g.P * g.Q,
                g.O / g.groups, g.I / g.groups * g.R * g.S);
}

// Tiled: 64 x 64 outputs a block from tiles in shared memory. Best: 128 x 64 with 8 x 8 a thread (16 shared floats read
// for 64 products instead of 8 for 16) and two buffers, so that fetching and multiplying overlap. Wmma: tensor cores.
template <class T> __global__ void __launch_bounds__(256) conv2d_tiled(T* y, const T* x, const T* w, const T* b,
                                                                       GEOMETRY_PARAMETERS) {
  forward<T, TILED>(y, x, w, b, GEOMETRY);
}
template <class T> __global__ void __launch_bounds__(128) conv2d_best(T* y, const T* x, const T* w, const T* b,
                                                                      GEOMETRY_PARAMETERS) {
  forward<T, BEST>(y, x, w, b, GEOMETRY);
}
template <class T> __global__ void __launch_bounds__(128) conv2d_wmma(T* y, const T* x, const T* w, const T* b,
                                                                      GEOMETRY_PARAMETERS) {
  Geometry g = GEOMETRY;
  int group = blockIdx.z;
  gemm_wmma<T>(Windows<T>{x, g, group}, Filters<T>{w, g, group}, StoreOutputs<T>{y, b, g, group}, N * P * Q, O / groups,
               I / groups * R * S);
}

// Data gradient, which is transposed convolution's forward (b is its bias): the same product over the reached outputs.
template <class T, int... TILE> __device__ __forceinline__ void backward_data(T* dx, const T* dy, const T* w, const T* b,
                                                                              const Geometry& g) {
  int group = blockIdx.z, channels = g.I / g.groups, area = g.H * g.W;
  auto store = [&](int m, int c, float sum) {
    int at = group * channels + c;
    down(&dx[((long long)(m / area) * g.I + at) * area + m % area], sum + (b ? up(b[at]) : 0.0f));
  };
  gemm<TILE...>(Reached<T>{dy, g, group}, FiltersByInput<T>{w, g, group}, store, g.N * area, channels,
                g.O / g.groups * g.R * g.S);
}
template <class T> __global__ void __launch_bounds__(256) conv2d_dx_tiled(T* dx, const T* dy, const T* w, const T* b,
                                                                          GEOMETRY_PARAMETERS) {
  backward_data<T, TILED>(dx, dy, w, b, GEOMETRY);
}
template <class T> __global__ void __launch_bounds__(128) conv2d_dx_best(T* dx, const T* dy, const T* w, const T* b,
                                                                         GEOMETRY_PARAMETERS) {
  backward_data<T, BEST>(dx, dy, w, b, GEOMETRY);
}

// Filter gradient: a sum over all pixels. The pixels are cut into `parts`, each block of the grid's z leaving its share
// in `shares` (parts, O, I/g R S); `conv2d_sum_shares` adds them in a fixed order.
template <class T> __global__ void __launch_bounds__(256) conv2d_dw_tiled(float* shares, const T* dy, const T* x, int parts,
                                                                          GEOMETRY_PARAMETERS) {
  Geometry g = GEOMETRY;
  int group = blockIdx.z / parts, part = blockIdx.z % parts, pixels = N * P * Q, taps = I / groups * R * S;
  int each = (pixels + parts - 1) / parts, first = part * each, last = min(pixels, first + each);
  auto store = [&](int o, int k, float sum) {
    shares[((long long)part * O + group * (O / groups) + o) * taps + k] = sum;
  };
  gemm<TILED>(ByChannel<T>{dy, g, group, first, last}, ByTap<T>{{x, g, group}, first, last}, store, O / groups, taps,
              max(last - first, 0));
}

template <class T> __global__ void conv2d_sum_shares(T* dw, const float* shares, int parts, long long size) {
  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i >= size) return;
  float sum = 0.0f;
  for (int p = 0; p < parts; ++p) sum += shares[p * size + i];
  down(&dw[i], sum);
}

// Bias gradient: one block a channel, its pixels summed by 256 threads and a tree.
template <class T> __global__ void conv2d_db(T* db, const T* dy, int N, int O, int area) {
  __shared__ float scratch[256];
  float sum = 0.0f;
  for (int i = threadIdx.x; i < N * area; i += 256)
    sum += up(dy[((long long)(i / area) * O + blockIdx.x) * area + i % area]);
  scratch[threadIdx.x] = sum;
  for (int half = 128; half; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) scratch[threadIdx.x] += scratch[threadIdx.x + half];
  }
  if (threadIdx.x == 0) down(&db[blockIdx.x], scratch[0]);
}
