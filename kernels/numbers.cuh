// float, float16 and bfloat16 data with float arithmetic; several numbers in one access; cheap division.
#include <cuda_fp16.h>
#include <cuda_bf16.h>

__device__ __forceinline__ float up(float x) { return x; }
__device__ __forceinline__ float up(__half x) { return __half2float(x); }
__device__ __forceinline__ float up(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ void down(float* p, float x) { *p = x; }
__device__ __forceinline__ void down(__half* p, float x) { *p = __float2half(x); }
__device__ __forceinline__ void down(__nv_bfloat16* p, float x) { *p = __float2bfloat16(x); }

template <class T> __device__ __forceinline__ T zero() {
  T z;
  down(&z, 0.0f);
  return z;
}

// V numbers that are read or written at once.
template <class T, int V> struct alignas(V * sizeof(T)) Pack { T x[V]; };

// To global memory in one access: the compiler now and then writes a struct, even of its own, number by number.
template <int BYTES> struct Word { typedef uint4 type; };
template <> struct Word<8> { typedef uint2 type; };
template <> struct Word<4> { typedef unsigned type; };
template <class T, int V> __device__ __forceinline__ void store(T* p, const Pack<T, V>& v) {
  typedef typename Word<V * sizeof(T)>::type W;
  W w;
  memcpy(&w, &v, sizeof(W));
  __stcg((W*)p, w);
}

template <class T, int V> __device__ __forceinline__ bool aligned(const T* p) {
  return (unsigned long long)p % (V * sizeof(T)) == 0;
}

// V numbers from p, of which the first `inside` exist; `whole`: p is aligned for one access. The rest are 0.
template <int V, class T> __device__ __forceinline__ Pack<T, V> load_up_to(const T* p, int inside, bool whole) {
  Pack<T, V> out;
  if (whole && inside >= V) return *(const Pack<T, V>*)p;
  #pragma unroll
  for (int i = 0; i < V; ++i) out.x[i] = i < inside ? p[i] : zero<T>();
  return out;
}

template <int V, class T> __device__ __forceinline__ void store_up_to(T* p, const Pack<T, V>& v, int inside, bool whole) {
  if (whole && inside >= V) {
    store(p, v);
    return;
  }
  #pragma unroll
  for (int i = 0; i < V; ++i) if (i < inside) p[i] = v.x[i];
}

// Division by a number that the compiler does not know, for dividends below 2^31: a high product instead of some twenty
// instructions (Granlund and Montgomery 1994, PLDI).
struct Divider {
  int divisor, shift;
  unsigned magic;
  __device__ __forceinline__ explicit Divider(int d) : divisor(d), shift(32 - __clz(d - 1)) {
    magic = (unsigned)((((1ull << shift) - d) << 32) / d + 1);
  }
  __device__ __forceinline__ int of(int n) const { return (int)((__umulhi((unsigned)n, magic) + (unsigned)n) >> shift); }
};

// Threads that step through `count` accesses of V floats from p on should start on a multiple of 32 bytes: then no request
// of a warp touches more sectors than it must. `head` accesses are before it, and are taken last.
template <int V> __device__ __forceinline__ int head_of(const float* p, int count) {
  return min((int)(-(unsigned long long)p % 32) / (4 * V), count);
}
__device__ __forceinline__ int turned(int i, int count, int head) { return i < count - head ? i + head : i + head - count; }
