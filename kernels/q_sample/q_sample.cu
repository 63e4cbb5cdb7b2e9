// x_t = signal x0 + noise z for `samples` samples of `size` elements; signal and noise (N,). A null z stands for noise from
// the counter. whole: size is a multiple of 4 and every array starts on 16 bytes.
#include "numbers.cuh"
#include "philox.cuh"

#define PARAMETERS float* x_t, const float* x0, const float* z, const float* signal, const float* noise, \
  const unsigned* index, unsigned key_lo, unsigned key_hi, unsigned draw, int whole, int samples, int size

// Naive: one thread an element; the four threads of a block of noise each compute all of it.
extern "C" __global__ void q_sample_naive(PARAMETERS) {
  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i >= (long long)samples * size) return;
  int n = (int)(i / size), k = (int)(i % size);
  float made = z ? z[i] : normal1(k, index[n], draw, make_uint2(key_lo, key_hi));
  x_t[i] = signal[n] * x0[i] + noise[n] * made;
}

// Vector: one thread a block of four elements: Philox once instead of four times, accesses of 16 bytes, and z, where it is
// not given, never in memory: 8 bytes an element instead of 12 and another 4 to write it. (256, 8): as many warps as a
// multiprocessor holds.
extern "C" __global__ void __launch_bounds__(256, 8) q_sample_vector(PARAMETERS) {
  Divider quads((size + 3) / 4);
  int each = (whole ? 1 : 2) * (int)blockDim.x, first = blockIdx.x * each, q = first + (int)threadIdx.x;
  int total = samples * quads.divisor;
  uint2 key = make_uint2(key_lo, key_hi);
  if (!whole) {
    float s, r;
    each_element(first, min(total - first, each), size, !z, index, draw, key, [&](int n) {
      s = signal[n];
      r = noise[n];
    }, [&](long long i, float made) { x_t[i] = s * x0[i] + r * (z ? z[i] : made); });
    return;
  }
  if (q >= total) return;
  int n = quads.of(q);
  Pack<float, 4> x = ((const Pack<float, 4>*)x0)[q];
  Pack<float, 4> made = z ? ((const Pack<float, 4>*)z)[q] : normal4((unsigned)(q - n * quads.divisor), index[n], draw, key);
  #pragma unroll
  for (int i = 0; i < 4; ++i) x.x[i] = signal[n] * x.x[i] + noise[n] * made.x[i];
  ((Pack<float, 4>*)x_t)[q] = x;
}
