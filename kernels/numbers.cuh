// float, float16 and bfloat16 data with float arithmetic.
#include <cuda_fp16.h>
#include <cuda_bf16.h>

__device__ __forceinline__ float up(float x) { return x; }
__device__ __forceinline__ float up(__half x) { return __half2float(x); }
__device__ __forceinline__ float up(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ void down(float* p, float x) { *p = x; }
__device__ __forceinline__ void down(__half* p, float x) { *p = __float2half(x); }
__device__ __forceinline__ void down(__nv_bfloat16* p, float x) { *p = __float2bfloat16(x); }
