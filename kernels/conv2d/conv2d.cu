// Convolution y_{noij} = b_o + sum_{crs} w_{ocrs} x_{n, c, i stride + r dilation - top, j stride + s dilation - left} for
// x (N, I, H, W), w (O, I/g, R, S), y (N, O, P, Q), all contiguous. blockIdx.z is the group. b may be null.
#include "numbers.cuh"
#include "gemm.cuh"
#include "wmma.cuh"
#include "windows.cuh"

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

// Tiled: a tile of windows and one of filters in shared memory serve 64 x 64 outputs: 1/8 byte from global memory a
// product, and 8 shared floats a thread for 16 products. Best: 128 x 64 outputs, 8 x 8 a thread (16 shared floats for 64
// products), and two buffers, so that the next tile is on its way while this one is multiplied and one barrier a step goes.
template <class T, int BM, int BN, int BK, int TM, int TN, int BUFFERS>
__global__ void __launch_bounds__((BM / TM) * (BN / TN), BLOCKS<T, TM * TN>) conv2d_tiled(
    T* y, const T* x, const T* w, const T* b, GEOMETRY_PARAMETERS) {
  Geometry g = GEOMETRY;
  int group = blockIdx.z, filters = O / groups;
  gemm<BM, BN, BK, TM, TN, BUFFERS, 4>(Windows<T>(x, g, group), Filters<T>(w, g, group),
                                       Images<T>(y, b, N, O, group * filters, P * Q), N * P * Q, filters,
                                       I / groups * R * S);
}

// Tensor cores, for half types: 4096 products an instruction of a warp, from tiles of two bytes a number.
template <class T> __global__ void __launch_bounds__(128) conv2d_wmma(T* y, const T* x, const T* w, const T* b,
                                                                      GEOMETRY_PARAMETERS) {
  Geometry g = GEOMETRY;
  int group = blockIdx.z, filters = O / groups;
  gemm_wmma(Windows<T>(x, g, group), Filters<T>(w, g, group), Images<T>(y, b, N, O, group * filters, P * Q), N * P * Q,
            filters, I / groups * R * S);
}
