// The gradients of convolution (conv2d.cu) in its data, filters and bias. That in the data, with a bias of its own, is
// transposed convolution.
#include "numbers.cuh"
#include "reduce.cuh"
#include "gemm.cuh"
#include "windows.cuh"

// Data gradient. Naive: one thread an input pixel, which walks through the outputs that it reached.
template <class T> __global__ void conv2d_dx_naive(T* dx, const T* dy, const T* w, const T* b, GEOMETRY_PARAMETERS) {
  long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (at >= (long long)N * I * H * W) return;
  int col = (int)(at % W), row = (int)(at / W % H), c = (int)(at / W / H % I), n = (int)(at / W / H / I);
  int channels = I / groups, filters = O / groups, first = c / channels * filters;
  float sum = 0.0f;
  for (int o = first; o < first + filters; ++o)
    for (int r = 0; r < R; ++r)
      for (int s = 0; s < S; ++s) {
        int i = row + top - r * dilation_h, j = col + left - s * dilation_w;
        if (i >= 0 && j >= 0 && i % stride_h == 0 && j % stride_w == 0 && i / stride_h < P && j / stride_w < Q)
          sum += up(dy[(((long long)n * O + o) * P + i / stride_h) * Q + j / stride_w])
               * up(w[((o * channels + c % channels) * R + r) * S + s]);
      }
  down(&dx[at], sum + (b ? up(b[c]) : 0.0f));
}

// Tiled and best: the product of conv2d.cu over the outputs reached, with the same savings.
template <class T, int BM, int BN, int BK, int TM, int TN, int BUFFERS>
__global__ void __launch_bounds__((BM / TM) * (BN / TN)) conv2d_dx_tiled(
    T* dx, const T* dy, const T* w, const T* b, GEOMETRY_PARAMETERS) {
  Geometry g = GEOMETRY;
  int group = blockIdx.z, channels = I / groups;
  gemm<BM, BN, BK, TM, TN, BUFFERS, 1>(Reached<T>(dy, g, group), FiltersByInput<T>(w, g, group),
                                       Images<T>(dx, b, N, I, group * channels, H * W), N * H * W, channels,
                                       O / groups * R * S);
}

// Filter gradient: a sum over all pixels. Naive: one thread a number of a filter, which reads every pixel twice.
template <class T> __global__ void conv2d_dw_naive(T* dw, const T* dy, const T* x, GEOMETRY_PARAMETERS) {
  long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  int channels = I / groups;
  if (at >= (long long)O * channels * R * S) return;
  int s = (int)(at % S), r = (int)(at / S % R), o = (int)(at / S / R / channels);
  int c = o / (O / groups) * channels + (int)(at / S / R % channels);
  float sum = 0.0f;
  for (int n = 0; n < N; ++n)
    for (int i = 0; i < P; ++i)
      for (int j = 0; j < Q; ++j) {
        int row = i * stride_h + r * dilation_h - top, col = j * stride_w + s * dilation_w - left;
        if (row >= 0 && row < H && col >= 0 && col < W)
          sum += up(dy[(((long long)n * O + o) * P + i) * Q + j]) * up(x[(((long long)n * I + c) * H + row) * W + col]);
      }
  down(&dw[at], sum);
}

// Rows m .. m + 3 (taps) of column o (a filter) of dw's share.
struct Shares {
  float* to; int taps;
  __device__ __forceinline__ void four(int k, int o, const float* sums) const {
    float* at = to + (long long)o * taps + k;
    if (taps % 4 == 0 && aligned<float, 4>(to)) {
      *(float4*)at = make_float4(sums[0], sums[1], sums[2], sums[3]);
      return;
    }
    #pragma unroll
    for (int i = 0; i < 4; ++i) if (k + i < taps) at[i] = sums[i];
  }
};

// Tiled and best: the same product with taps as rows and filters as columns. There are few of those and many pixels, so
// the pixels are cut into `parts`, and each block of the grid's z leaves its share in `shares` (parts, O, I/g R S):
// `conv2d_sum_shares` adds them in a fixed order, which atomics would not.
template <class T, int BM, int BN, int BK, int TM, int TN, int BUFFERS>
__global__ void __launch_bounds__((BM / TM) * (BN / TN)) conv2d_dw_tiled(float* shares, const T* dy, const T* x, int parts,
                                                                         GEOMETRY_PARAMETERS) {
  Geometry g = GEOMETRY;
  int group = blockIdx.z / parts, part = blockIdx.z % parts, pixels = N * P * Q, taps = I / groups * R * S;
  int filters = O / groups, each = (pixels + parts - 1) / parts, first = part * each, last = min(pixels, first + each);
  Shares store = {shares + ((long long)part * O + group * filters) * taps, taps};
  gemm<BM, BN, BK, TM, TN, BUFFERS, 1>(Taps<T>{Windows<T>(x, g, group), first, last},
                                       Channels<T>(dy, g, group, first, last), store, taps, filters, max(last - first, 0));
}

template <class T> __global__ void conv2d_sum_shares(T* dw, const float* shares, int parts, long long size) {
  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i >= size) return;
  float sum = 0.0f;
  for (int p = 0; p < parts; ++p) sum += shares[p * size + i];
  down(&dw[i], sum);
}

// Bias gradient: one block a channel, its pixels summed by 256 threads and a tree.
template <class T> __global__ void conv2d_db(T* db, const T* dy, int N, int O, int pixels) {
  __shared__ float scratch[32];
  Divider area(pixels);
  float sum = 0.0f;
  for (int i = threadIdx.x; i < N * pixels; i += 256)
    sum += up(dy[((long long)area.of(i) * (O - 1) + blockIdx.x) * pixels + i]);
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) down(&db[blockIdx.x], sum);
}
