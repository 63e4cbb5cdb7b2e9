// Philox4x32-10 and Box-Muller as in refimpl/ops/random.py: the same integers bit for bit, the same layout of words.
// The accurate logarithm, sine and cosine: __logf loses 1e-3 of z near u = 1, and no honest bound could hold.

__device__ __forceinline__ uint4 philox(uint4 c, uint2 k) {
  #pragma unroll
  for (int round = 0; round < 10; ++round) {
    unsigned hi0 = __umulhi(0xD2511F53u, c.x), lo0 = 0xD2511F53u * c.x;
    unsigned hi1 = __umulhi(0xCD9E8D57u, c.z), lo1 = 0xCD9E8D57u * c.z;
    c = make_uint4(hi1 ^ c.y ^ k.x, lo1, hi0 ^ c.w ^ k.y, lo0);
    k.x += 0x9E3779B9u; k.y += 0xBB67AE85u;
  }
  return c;
}

// Two normals from a word for the radius and a word for the angle. The two top bits are the quadrant, exactly.
__device__ __forceinline__ float2 box_muller(unsigned radius, unsigned angle) {
  float u = 1.0f - (float)(radius >> 8) * 5.9604644775390625e-08f;        // in (0, 1], exact
  float r = sqrtf(-2.0f * logf(u));
  // In units of pi the angle is exact, and no range reduction (which needs local memory) is compiled.
  float half_turns = (float)((angle >> 6) & 0xFFFFFFu) * 2.98023223876953125e-08f;
  float s = sinpif(half_turns), c = cospif(half_turns);
  unsigned q = angle >> 30;
  float zc = q & 1 ? s : c, zs = q & 1 ? c : s;
  return make_float2(r * (q == 1 || q == 2 ? -zc : zc), r * (q >= 2 ? -zs : zs));
}

// Elements 4 block .. 4 block + 3 of a sample's normal(key, index, draw).
__device__ __forceinline__ Pack<float, 4> normal4(unsigned block, unsigned index, unsigned draw, uint2 key) {
  uint4 w = philox(make_uint4(block, index, draw, 0u), key);
  float2 a = box_muller(w.x, w.y), b = box_muller(w.z, w.w);
  return {{a.x, a.y, b.x, b.y}};
}

// Element k of it.
__device__ __forceinline__ float normal1(int k, unsigned index, unsigned draw, uint2 key) {
  Pack<float, 4> z = normal4((unsigned)(k / 4), index, draw, key);
  return k % 4 == 0 ? z.x[0] : k % 4 == 1 ? z.x[1] : k % 4 == 2 ? z.x[2] : z.x[3];
}

// Of `count` blocks of four elements from block `first` on, at most 512: sample(n) before a thread's first element of sample
// n, then each(i, made) for every element, i counted over all samples, made its noise where `keyed`. For samples that do
// not start on 16 bytes: 4 bytes an access, but these blocks' elements are one run of all samples, and the threads step
// through it as numbers.cuh's `turned`. They give each other the noise through shared memory, so that a block of it is still
// formed once; by the rows' pitch no more than two lanes of a warp meet in a bank. For all threads of a block.
template <class Sample, class Each>
__device__ __forceinline__ void each_element(int first, int count, int size, bool keyed, const unsigned* index,
                                             unsigned draw, uint2 key, const Sample& sample, const Each& each) {
  __shared__ float noise[4][512 + 8];
  Divider quads((size + 3) / 4), samples(size);
  auto start = [&](int q) { int n = quads.of(q); return n * size + 4 * (q - n * quads.divisor); };
  if (keyed) {
    __syncthreads();                                         // all are done with the noise that is now overwritten
    for (int j = threadIdx.x; j < count; j += blockDim.x) {
      int n = quads.of(first + j);
      Pack<float, 4> made = normal4((unsigned)(first + j - n * quads.divisor), index[n], draw, key);
      #pragma unroll
      for (int k = 0; k < 4; ++k) noise[k][j] = made.x[k];
    }
    __syncthreads();
  }
  int from = start(first), length = start(first + count) - from, head = min(-from & 7, length), known = -1;
  for (int j = threadIdx.x; j < length; j += blockDim.x) {
    int i = from + turned(j, length, head), n = samples.of(i), k = i - n * size;
    if (n != known) sample(known = n);
    each((long long)i, keyed ? noise[k & 3][n * quads.divisor + (k >> 2) - first] : 0.0f);
  }
}
