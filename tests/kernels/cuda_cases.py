"""Small CUDA kernels for the tests of the CPU model: correct ones, and one for each thing that the checker finds."""

CORRECT = r'''
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <cuda_pipeline.h>
__device__ float counter[4];
__constant__ float weights[3];
__shared__ float outer[64];
extern __shared__ float dynamic[];
struct Pair { int a; float b[5]; };

extern "C" __global__ void reverse(float* out, const float* in) {
  __shared__ float tile[64];
  int t = threadIdx.x, i = blockIdx.x * 64 + t;
  tile[t] = in[i];
  __syncthreads();
  out[i] = tile[63 - t];
}
template <int N, class T> __global__ void sums(T* out, const T* in) {
  T v = in[threadIdx.x];
  for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(0xffffffffu, v, d);
  extern __shared__ __align__(16) unsigned char raw[];
  T* s = (T*)raw;
  if (threadIdx.x % 32 == 0) s[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x == 0) { T t = 0; for (int i = 0; i < N; ++i) t += s[i]; out[0] = t; }
}
extern "C" __global__ void shuffles(int* out, const int* in, int arg, int width) {
  int t = threadIdx.x, n = blockDim.x, v = in[t];
  out[t] = __shfl_sync(~0u, v, arg, width);
  out[n + t] = __shfl_xor_sync(~0u, v, arg, width);
  out[2 * n + t] = __shfl_up_sync(~0u, v, arg, width);
  out[3 * n + t] = __shfl_down_sync(~0u, v, arg, width);
}
extern "C" __global__ void votes(unsigned* out, const int* in) {   // blocks of any size: the last warp may be partial
  int t = threadIdx.x, n = blockDim.x, p = in[t];
  out[t] = __ballot_sync(~0u, p);
  out[n + t] = __any_sync(~0u, p);
  out[2 * n + t] = __all_sync(~0u, p);
  out[3 * n + t] = __syncthreads_count(p);
  out[4 * n + t] = __syncthreads_and(p);
  out[5 * n + t] = __syncthreads_or(p);
}
extern "C" __global__ void early(float* out, const float* in, int n) {   // lanes that have ended are not waited for
  int t = threadIdx.x;
  if (t >= n) return;
  __shared__ float s[64];
  s[t] = in[t];
  __syncwarp();
  out[t] = s[(t ^ 1) < n ? t ^ 1 : t] + __popc(__ballot_sync(~0u, 1));
}
extern "C" __global__ void where(int* out) {
  int b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z), n = blockDim.x * blockDim.y * blockDim.z;
  dim3 size = blockDim;
  int t = threadIdx.x + size.x * (threadIdx.y + size.y * threadIdx.z);
  out[b * n + t] = (((blockIdx.z * 8 + blockIdx.y) * 8 + blockIdx.x) * 8 + threadIdx.z) * 64 + threadIdx.y * 8 + threadIdx.x;
}
extern "C" __global__ void atomics(int* out, float* sum, const int* in) {
  int v = in[blockIdx.x * blockDim.x + threadIdx.x];
  atomicAdd(&out[0], v); atomicMax(&out[1], v); atomicMin(&out[2], v); atomicOr(&out[3], v); atomicAdd(sum, (float)v);
  atomicInc((unsigned*)&out[4], 9u);
  int seen, old;                                              // a lock-free maximum by compare and swap
  do { old = atomicAdd(&out[5], 0); seen = atomicCAS(&out[5], old, v > old ? v : old); } while (seen != old);
}
extern "C" __global__ void pipeline(float* out, const float* in, int n) {   // two tiles of 64 in flight, n of them in all
  __shared__ float tile[2][64];
  int t = threadIdx.x;
  __pipeline_memcpy_async(&tile[0][t], &in[t], 4);
  __pipeline_commit();
  for (int i = 0; i < n; ++i) {
    if (i + 1 < n) __pipeline_memcpy_async(&tile[(i + 1) % 2][t], &in[(i + 1) * 64 + t], 4, t == 0 ? 4 : 0);
    __pipeline_commit();
    __pipeline_wait_prior(1);
    __syncthreads();
    out[i * 64 + t] = tile[i % 2][63 - t];
    __syncthreads();
  }
}
extern "C" __global__ void halves(__half* h, __nv_bfloat16* b, const float* x, float* back, int n) {
  __shared__ __half tile[64];                                 // neighbours share a word, which is no race
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  tile[threadIdx.x] = __float2half(i < n ? x[i] : 0.0f);
  __half mine = tile[threadIdx.x];
  if (i < n) { h[i] = mine; b[i] = __float2bfloat16(x[i]); back[i] = __half2float(mine * mine) + (float)b[i]; }
}
extern "C" __global__ void variables(float* out, Pair p, bool negative, double d) {
  int t = threadIdx.x;
  outer[t] = t;
  dynamic[t] = 2 * t;
  __syncthreads();
  if (blockIdx.x) return;
  if (t < 3) out[t] = weights[t] + p.b[t] * p.a * (negative ? -1 : 1) + (float)d;
  if (t == 3) out[3] = outer[1] + dynamic[2];
  if (t < 4) counter[t] += 1;
}
extern "C" __global__ void joined(float* out, const float* in, int n) {   // g++ may copy the barrier into both arms
  __shared__ float tile[64];
  int t = threadIdx.x; bool even = t % 2 == 0; float v;
  if (even) v = in[t]; else v = -in[t];
  tile[t] = v;
  __syncthreads();
  if (even) out[t] = tile[t + 1]; else out[t] = tile[t - 1];
}
extern "C" __launch_bounds__(64) __global__ void speak(int n) { if (threadIdx.x == 0) printf("n is %d\n", n); assert(n > 0); }
extern "C" __global__ void lines(float* out, const float* in, long long step) { out[0] = in[0] + in[step]; }
'''

# name: what is wrong, the kernel's body (threads of one block of 64; out, in and sizes below), what the checker says
DEFECTS = {
    "no_barrier": ("no barrier between writing and reading a tile",
                   "__shared__ float s[64]; s[t] = in[t]; out[t] = s[63 - t];", "that no thread wrote|race: read here"),
    "no_barrier_again": ("no barrier before a tile is written again",
                         "__shared__ float s[64]; s[t] = in[t]; __syncthreads(); float v = s[63 - t]; s[t] = v * 2; out[t] = v;",
                         "race: (write here and read|read here and write) by thread"),
    "no_syncwarp": ("no __syncwarp between lanes", "__shared__ float s[64]; s[t] = in[t]; __syncthreads(); "
                    "if (t < 32) { s[t] += s[t + 32]; s[t] += s[(t + 16) % 32]; } out[t] = s[t];", "race: .*__syncwarp"),
    "half_syncwarp": ("a barrier of half the warp where the whole is read", "__shared__ float s[64]; s[t] = in[t]; "
                      "__syncwarp(t % 32 < 16 ? 0xffffu : 0xffff0000u); out[t] = s[t ^ 16];", "race|no thread wrote"),
    "same_cell": ("all threads write one cell", "__shared__ float s; s = in[t]; __syncthreads(); out[t] = s;",
                  "race: write here and write"),
    "read_back": ("a cell that its writer reads again, and another thread without a barrier", "__shared__ float s; "
                  "if (t == 0) s = 0; __syncthreads(); if (t == 0) { s = in[1]; out[0] = *(volatile float*)&s; } "
                  "else if (t == 40) out[t] = s;",
                  "race: (read here and write|write here and read)"),
    "plain_count": ("a shared counter without an atomic", "__shared__ int c; if (t == 0) c = 0; __syncthreads(); "
                    "c += 1; __syncthreads(); out[t] = c;", "race"),
    "mixed_count": ("an atomic here, a plain access there", "__shared__ int c; if (t == 0) c = 0; __syncthreads(); "
                    "atomicAdd(&c, 1); out[t] = c;", "race: (read here and atomic|atomic here and read)"),
    "blocks": ("blocks that write one output", "out[t] = in[t];", "blocks of one launch are not ordered"),
    "block_reads": ("a block that reads what another writes", "if (blockIdx.x) out[t] = 1; else out[64 + t] = out[t];",
                    "blocks of one launch are not ordered"),
    "uninitialised": ("shared memory that was never written", "__shared__ float s[64]; if (t) s[t] = 1; __syncthreads(); "
                      "out[t] = s[t];", r"no thread wrote \(byte 0 of shared array s"),
    "uninitialised_dynamic": ("dynamic shared memory that was never written", "out[t] = dynamic[t];", "no thread wrote"),
    "past_end": ("an index one past the end", "out[t] = in[t + 65];", "read of 4 bytes .* past the end of argument 2"),
    "before": ("an index before the start", "out[t] = in[t - 1];", "4 bytes before the start of argument 2"),
    "past_shared": ("an index past one shared array, where another may lie",
                    "__shared__ float a[64], b[64]; float* p = a; p[t + 1] = in[t]; b[t] = 1; __syncthreads(); "
                    "out[t] = a[t] + b[t];", "write of 4 bytes 4 bytes past the end of shared array a|index outside"),
    "past_dynamic": ("an index past the dynamic shared memory", "dynamic[t + 1] = 1;", "past the end of .*dynamic shared"),
    "wide": ("a float4 that sticks out", "if (t == 0) { float4 v = *(const float4*)(in + 124); out[0] = v.x; } "
             "else if (t == 1) out[1] = ((const float4*)in)[31].w + ((const float4*)(in + 128))[0].x;", "past the end"),
    "misaligned": ("a float4 at a multiple of four bytes only", "float4 v = *(const float4*)(in + 1); out[t] = v.x;",
                   "misaligned access: an address that is 4 mod 16"),
    "constant": ("a write through const", "if (t == 0) *(float*)in = 1;", "write through a pointer to const"),
    "constant_memory": ("a write to __constant__ memory", "if (t == 0) weights[0] = 1;", "__constant__ variable weights"),
    "null": ("a null pointer", "if (n == 2) out[t] = *(const float*)(long)(t * 4);", "null pointer"),
    "wild": ("a wild pointer", "out[t] = *(const float*)((long)in ^ (1L << 45));", "no argument's"),
    "others_local": ("a pointer to another thread's local memory", "__shared__ float* p; float mine[2] = {in[t], 1}; "
                "if (t == 0) p = &mine[n & 1]; __syncthreads(); out[t] = *p;", "local memory, which no other thread"),
    "divergent": ("a barrier for some threads", "if (t < 32) __syncthreads(); out[t] = 1;", "reached by some threads only"),
    "divergent_two": ("two barriers, one for each half", "if (t < 32) __syncthreads(); else __syncthreads(); out[t] = 1;",
                      "different __syncthreads"),
    "barrier_and_warp": ("a warp barrier where others wait for the block's", "if (t == 3) __syncwarp(); else "
                         "__syncthreads(); out[t] = 1;", "waits at a warp synchronisation|meets lane"),
    "mask_without_me": ("a mask that does not name the caller", "out[t] = __shfl_sync(0xffffu, in[t], 0);",
                        "mask 0xffff does not name the calling lane"),
    "mask_absent": ("a mask that names lanes which do not come", "if (t % 32 < 16) out[t] = __shfl_sync(~0u, in[t], 0);"
                    " else __syncthreads();", "some threads only|lanes that never come|meets lane"),
    "from_outside": ("a shuffle from a lane outside of the mask", "if (t % 32 < 16) out[t] = "
                     "__shfl_sync(0xffffu, in[t], 20);", "shuffle from lane 20, which mask 0xffff does not name"),
    "from_ended": ("a shuffle from a lane that has ended", "if (t >= 40) return; out[t] = __shfl_xor_sync(~0u, in[t], 8);",
                   "shuffle from lane [0-9]+, which has ended"),
    "overflow": ("an index that overflows 32 bits", "int i = (n + t) * 65536 * 1024; out[t] = i;", "signed integer overflow"),
    "shift": ("a shift by the width", "out[t] = 1 << (n + 30);", "shift by a negative or too large amount"),
    "division": ("a division by zero", "out[t] = 7 / (n - 2);", "division by zero"),
    "bounds": ("an index outside a local array", "float a[4] = {1, 2, 3, 4}; a[(t + n) % 4] = 2; out[t] = a[t / 8];",
               "index outside an array|local memory"),
    "no_wait": ("an asynchronous copy that is read at once", "__shared__ float s[64]; __pipeline_memcpy_async(&s[t], "
                "&in[t], 4); __pipeline_commit(); out[t] = s[t]; __pipeline_wait_prior(0);", "has not been waited for"),
    "wait_one_short": ("a wait that leaves the group that is read in flight", "__shared__ float s[64]; "
                       "__pipeline_memcpy_async(&s[t], &in[t], 4); __pipeline_commit(); __pipeline_wait_prior(1); "
                       "out[t] = s[t]; __pipeline_wait_prior(0);", "has not been waited for"),
    "wait_no_barrier": ("a wait without the barrier for other threads' copies", "__shared__ float s[64]; "
                        "__pipeline_memcpy_async(&s[t], &in[t], 4); __pipeline_commit(); __syncthreads(); "
                        "__pipeline_wait_prior(0); out[t] = s[63 - t]; ", "race|has not been waited for"),
    "never_waited": ("an asynchronous copy that nobody waits for", "__shared__ float s[64]; "
                     "__pipeline_memcpy_async(&s[t], &in[t], 4); __pipeline_commit(); out[t] = 1;", "never waited for"),
    "endless": ("a loop that never ends", "while (n) { if (n == 3) break; }", "time limit of 0.3 s"),
    "endless_barrier": ("a loop of barriers that never ends", "for (;;) { __syncthreads(); if (n == 3) break; }",
                        "time limit of 0.3 s"),
    "trap": ("a trap", "if (t == 5) __trap();", "thread \\(5, 0, 0\\), block \\(0, 0, 0\\): __trap"),
    "assertion": ("an assertion", "assert(t < 7);", "assertion failed: t < 7"),
}

DEFECTIVE = '#include <cuda_pipeline.h>\n__constant__ float weights[3];\nextern __shared__ float dynamic[];\n' + "".join(
    f'extern "C" __global__ void {name}(float* out, const float* in, int n) {{ int t = threadIdx.x;\n{body}\n}}\n'
    for name, (_, body, _) in DEFECTS.items())
