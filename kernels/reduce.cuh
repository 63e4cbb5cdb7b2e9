// Sums over a block, the same for every thread of it. Each thread's own sum comes first, then a tree: the longest chain
// of additions is a thread's share plus ten.

__device__ __forceinline__ float warp_sum(float v) {
  #pragma unroll
  for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(0xffffffffu, v, d);
  return v;
}

// blockDim.x a multiple of 32; scratch holds 32 floats. Ends with every thread past its last read of scratch.
__device__ __forceinline__ float block_sum(float v, float* scratch) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  v = warp_sum(v);
  if (lane == 0) scratch[warp] = v;
  __syncthreads();
  v = warp_sum(lane < warps ? scratch[lane] : 0.0f);
  __syncthreads();
  return v;
}

// Mean and sum of squared deviations of `size` floats, V an access, which wait in `tile` between the passes: memory is
// read once. The first sum's barrier is between the writes to tile and its first reads.
template <int V> __device__ __forceinline__ float2 statistics(Pack<float, V>* tile, const float* from, int size,
                                                              float* scratch) {
  float sum = 0.0f, square = 0.0f;
  int count = size / V, head = head_of<V>(from, count);
  for (int j = threadIdx.x; j < count; j += blockDim.x) {
    int i = turned(j, count, head);
    Pack<float, V> v = ((const Pack<float, V>*)from)[i];
    tile[i] = v;
    #pragma unroll
    for (int k = 0; k < V; ++k) sum += v.x[k];
  }
  float mean = block_sum(sum, scratch) / size;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    Pack<float, V> v = tile[i];
    #pragma unroll
    for (int k = 0; k < V; ++k) square += (v.x[k] - mean) * (v.x[k] - mean);
  }
  return make_float2(mean, block_sum(square, scratch));
}

// Mean and variance of a group from what `statistics` says of its chunks: total mean, then squares about it (Chan, Golub,
// LeVeque 1983).
__device__ __forceinline__ float2 combine(const float2* partial, int chunks, int size, int chunk, float* scratch) {
  float sum = 0.0f, square = 0.0f;
  for (int j = threadIdx.x; j < chunks; j += blockDim.x) sum += partial[j].x * (min(size, (j + 1) * chunk) - j * chunk);
  float mean = block_sum(sum, scratch) / size;
  for (int j = threadIdx.x; j < chunks; j += blockDim.x) {
    float d = partial[j].x - mean;
    square += partial[j].y + d * d * (min(size, (j + 1) * chunk) - j * chunk);
  }
  return make_float2(mean, block_sum(square, scratch) / size);
}
