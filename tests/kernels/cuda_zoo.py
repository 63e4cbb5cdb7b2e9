"""Broken CUDA kernels: small edits of our own sources, each with its defect named and the sentence that finds it."""
from typing import NamedTuple

import numpy as np


class Broken(NamedTuple):
    """One broken kernel. edits: (old, new) texts of the .cu file or of its headers; launch: edits the launch instead.

    found: what names the defect, a regular expression for "kind: sentence" of the verdict's Defect.
    """

    name: str
    operation: str
    version: str
    edits: tuple
    defect: str
    found: str
    dtype: str
    where: dict
    launch: object


ZOO = []


def broken(operation, version, name, defect, *edits, found="^(value|integer): ", dtype="float32", where=None, launch=None):
    where = (where or {}) | ({"head": 16} if operation.startswith("attention") else {})
    ZOO.append(Broken(name, operation, version, edits, defect, found, dtype, where, launch))


RACE, UNWRITTEN = "race: ", "shared memory that no thread wrote"

# Barriers.
broken("group_norm", "tiled", "sum_before_barrier", "a block's sum is read before its warps have left their shares",
       ("if (lane == 0) scratch[warp] = v;\n  __syncthreads();", "if (lane == 0) scratch[warp] = v;"), found=f"{RACE}|{UNWRITTEN}")
broken("group_norm", "best", "scratch_again", "the second sum is left where others still read the first",
       ("  __syncthreads();\n  return v;", "  return v;"), found=RACE)
broken("attention", "tiled", "tile_overwritten", "a tile of keys is overwritten while others read it",
       ("    __syncthreads();                                                        // all are done with the previous tile\n"
        "    load_tile<T, D, KEYS, 128>(keys", "    load_tile<T, D, KEYS, 128>(keys"), found=RACE)
broken("attention", "best", "tile_too_early", "a tile is read before it is filled",
       ("    load_tile<T, D, KEYS, 128>(values, v + (long long)b * S * e, tile, S, e);\n    __syncthreads();",
        "    load_tile<T, D, KEYS, 128>(values, v + (long long)b * S * e, tile, S, e);"), found=f"{RACE}|{UNWRITTEN}")
broken("conv2d", "tiled", "one_buffer_no_barrier", "the only tile is overwritten while others multiply it",
       ("if (BUFFERS == 1) __syncthreads();", ""), found=RACE)
broken("conv2d", "best", "two_buffers_used_as_one", "the two buffers are one",
       ("int buffer = step % BUFFERS;", "int buffer = 0;"), found=RACE)
broken("attention", "wmma", "no_syncwarp", "factors are read by other lanes without __syncwarp",
       ("    __syncwarp();\n    wmma::load_matrix_sync(factors, scores, PITCH_F, wmma::mem_row_major);",
        "    for (int x = 0; x < factors.num_elements; ++x) factors.x[x] = scores[(x * 32 + threadIdx.x % 32) / 16 * PITCH_F + threadIdx.x % 16];"),
       found=RACE, dtype="float16")
broken("attention", "tiled", "early_return", "threads without a query leave before the block's barriers",
       ("  Mask see = MASK(b, heads);\n  float mine[D / LANES]", "  if (i >= L) return;\n  Mask see = MASK(b, heads);\n  float mine[D / LANES]"),
       found="reached by some threads only")
broken("group_norm", "tiled", "divergent_barrier", "a barrier in a branch that only some warps take",
       ("  if (lane == 0) scratch[warp] = v;\n  __syncthreads();", "  if (lane == 0) { scratch[warp] = v; __syncthreads(); }"),
       found="waits at|some threads only|different __syncthreads|waits for lanes")
broken("group_norm", "partial", "everyone_writes", "all threads write a chunk's statistics, not one",
       ("if (threadIdx.x == 0) partial[", "partial["), found="race: write here and write")
broken("sampler_step", "vector", "blocks_overlap", "every block takes the first block's elements",
       ("first = blockIdx.x * (int)blockDim.x * QUADS;", "first = 0;"),
       launch=lambda grid, block, args, shared: ((2,), block, args, shared), found="blocks of one launch are not ordered")

# Warps.
broken("group_norm", "tiled", "half_mask", "a shuffle's mask names half of the warp", ("v += __shfl_xor_sync(0xffffffffu, v, d)",
       "v += __shfl_xor_sync(0x0000ffffu, v, d)"), found="does not name")
broken("group_norm", "best", "short_tree", "a warp's sum leaves out half of its lanes", ("for (int d = 16; d; d >>= 1)", "for (int d = 8; d; d >>= 1)"))
broken("attention", "best", "whole_warp_broadcast", "a weight is taken from the wrong group of lanes",
       ("__shfl_sync(0xffffffffu, p[r], j, LANES)", "__shfl_sync(0xffffffffu, p[r], j)"))
broken("attention_vjp", "best", "swapped_halves", "a sum over lanes keeps what it should give", (
    "float give = upper ? s[r][i] : s[r][i + w], keep = upper ? s[r][i + w] : s[r][i];",
    "float give = upper ? s[r][i + w] : s[r][i], keep = upper ? s[r][i] : s[r][i + w];"))

# Shared memory.
broken("group_norm", "best", "tile_not_filled", "the group is never put where it is read from", ("    tile[i] = v;\n", "    ;\n"), found=UNWRITTEN)
broken("group_norm", "tiled", "one_warp_more", "the sum takes one warp's share more than there are", ("lane < warps ? scratch", "lane <= warps ? scratch"),
       found=UNWRITTEN)
broken("group_norm", "best", "half_the_memory", "the launch gives half of the dynamic shared memory", launch=lambda grid, block, args, shared: (
    grid, block, args, shared // 2), found="past the end of the launch's dynamic shared memory")
broken("group_norm", "tiled", "static_limit", "more than 48 KiB of static shared memory", ("__shared__ float scratch[32];", "__shared__ float scratch[12300];"),
       found="bytes of static shared memory exceed the limit")
broken("attention", "naive", "scratch_too_short", "an array in shared memory is one element too short",
       ("  if (i >= L) return;", "  __shared__ float rows[127];\n  float* room = rows;\n  room[threadIdx.x] = scale;\n  scale = room[threadIdx.x];\n  if (i >= L) return;"),
       found="past the end of shared array rows|index outside")

# Bounds.
broken("group_norm", "tiled", "one_element_more", "a loop over a group takes one element more", ("i < size; i += blockDim.x) sum", "i <= size; i += blockDim.x) sum"),
       found="past the end of argument 2")
broken("sampler_step", "best", "no_bound", "the last block writes past the end", ("    if (q >= total) break;\n    int n", "    int n"),
       ("    if (q >= total) break;\n    xs", "    xs"), found="past the end")
broken("conv2d", "best", "window_too_high", "a tap below the image is taken for one inside", ("(unsigned)(m.row + k.row) < (unsigned)g.H",
       "(unsigned)(m.row + k.row) <= (unsigned)g.H"), found="past the end of argument 2")
broken("conv2d", "naive", "one_tap_more", "a window has one row more", ("for (int r = 0; r < R; ++r)\n      for", "for (int r = 0; r <= R; ++r)\n      for"),
       found="past the end of argument")
broken("attention", "best", "keys_past_the_end", "a tile reads keys that are not there", ("j < rows ? width - c : 0", "width - c"), found="past the end of argument")
broken("conv2d_vjp", "best", "filters_past_the_end", "the last columns of the filters are not masked", ("return {o * (channels - 1) * taps.divisor + k, o < filters};",
       "return {o * (channels - 1) * taps.divisor + k, true};"), found="past the end of argument|value|integer")
broken("q_sample", "vector", "no_tail", "a block of threads takes the next one's first element too", ("j < length; j += blockDim.x", "j <= length; j += blockDim.x"),
       found="race|past the end|no thread wrote")

# Types and addresses.
broken("sampler_step", "vector", "misaligned", "16 bytes are read from an address that is 4 mod 16", ("xs[j] = four(x, q);", "xs[j] = four(x + 1, q);"),
       found="misaligned access|misaligned read")
broken("sampler_step", "naive", "writes_input", "the estimate is written over the input", ("  x0_hat[i] = x0;", "  ((float*)x)[i] = x0;"), found="through a pointer to const")
broken("sampler_step", "vector", "narrow_index", "an offset in bytes overflows 32 bits", ("    int n = quads.of(q);",
       "    int n = quads.of(q), bits = (q + 1) * (1 << 30);\n    n += bits & 1;"), found="signed integer overflow")
broken("group_norm", "naive", "wide_integer", "an argument is 8 bytes where the parameter is 4", launch=lambda grid, block, args, shared: (
    grid, block, (*args[:-1], np.int64(args[-1])), shared), found="argument 10 must be np.int32, got int64")
broken("group_norm", "naive", "wide_float", "an array is float64 where the parameter is float", launch=lambda grid, block, args, shared: (
    grid, block, (args[0], args[1].astype("float64"), *args[2:]), shared), found="argument 2 must be an array of float32, got float64")
broken("conv2d", "tiled", "block_too_large", "a block has more threads than the kernel was compiled for", launch=lambda grid, block, args, shared: (
    grid, (512,), args, shared), found="compiled for blocks of at most 256 threads")

# Values: what the checker cannot see.
broken("group_norm", "tiled", "one_pass_variance", "variance as E[x^2] - E[x]^2", ("square += (in[i] - mean) * (in[i] - mean);\n  float inverse = 1.0f / sqrtf(block_sum(square, scratch) / size",
       "square += in[i] * in[i];\n  float inverse = 1.0f / sqrtf(fmaxf(block_sum(square, scratch) / size - mean * mean, 0.0f)"), found="value|non-finite")
broken("group_norm", "partial", "chunks_not_moved", "chunks' squares are added without the distance of their means", ("square += partial[j].y + d * d *", "square += partial[j].y + 0.0f *"))
broken("group_norm", "best", "wrong_channel", "every channel takes the gamma and beta of its group's first", ("c = first + area.of(V * i);", "c = first;"))
broken("group_norm_vjp", "best", "mean_forgotten", "the gradient without its second mean", ("- s1 - v.x[k] * s2) * inverse;", "- s1) * inverse;"))
broken("group_norm_vjp", "partial", "one_slice_short", "the sums over a channel without its last slice", ("j < slices; j += 32", "j < slices - 1; j += 32"))
broken("group_norm_vjp", "x_kept", "own_scale_forgotten", "the gradient without gamma where dy is read again", ("gradient(v, d, g, s1, s2, inverse)", "gradient(v, d, 1.0f, s1, s2, inverse)"))
broken("group_norm_vjp", "tiled", "one_sample_short", "dgamma without the last sample", ("for (int n = 0; n < samples; ++n)", "for (int n = 0; n < samples - 1; ++n)"))
broken("attention", "tiled", "no_rescale", "the past is not rescaled when the maximum grows", ("for (int c = 0; c < D / LANES; ++c) out[0][c] *= keep;", ";"))
broken("attention", "naive", "stale_sum", "the softmax's sum is not rescaled", ("l = l * keep + p;", "l = l + p;"))
broken("attention", "best", "no_causal_limit", "a query sees one key too few under the causal mask", ("(!m.causal || j <= i)", "(!m.causal || j < i)"), where={"causal": True})
broken("attention", "tiled", "causal_ignored", "the causal mask is ignored inside a tile", ("(!m.causal || j <= i) && ", ""), where={"causal": True})
broken("attention", "best", "causal_tiles_short", "the last tile under the causal mask is left out", ("int last = causal ? min(S, start + ROWS) : S;", "int last = causal ? min(S, start) : S;"),
       found="value|integer|non-finite", where={"causal": True})
broken("attention", "naive", "swapped_mask_strides", "the mask's strides are exchanged", ("m.at[i * m.l + j * m.s]", "m.at[i * m.s + j * m.l]"),
       found="past the end of argument|value|integer", where={"mask": True})
broken("attention_vjp", "naive", "delta_forgotten", "the softmax's own term is missing from dS", ("* (dp - delta[row]) * scale", "* dp * scale"), ("p * (dp - delta[at]) * scale", "p * dp * scale"))
broken("conv2d", "best", "transposed_image", "height and width are exchanged in a tap's offset", ("return {(c * g.H + row) * g.W + col, row, col};\n  }\n  __device__ __forceinline__ T at(const Row& m, "
       "const Column& k) const {\n    bool inside = (unsigned)", "return {(c * g.W + col) * g.H + row, row, col};\n  }\n  __device__ __forceinline__ T at(const Row& m, const Column& k) const {\n"
       "    bool inside = (unsigned)"), found="argument|value|integer")
broken("conv2d", "tiled", "swapped_stride", "the strides are exchanged", ("int row = i * g.stride_h - g.top, col = j * g.stride_w - g.left;", "int row = i * g.stride_w - g.top, col = j * g.stride_h - g.left;"))
broken("conv2d", "naive", "wrong_padding", "the bottom's padding is taken for the top's", ("r * dilation_h - top", "r * dilation_h - left"))
broken("conv2d", "best", "one_group", "every group takes the first group's filters", ("first(group * filters)", "first(0)"))
broken("conv2d", "wmma", "swapped_factors", "a fragment is read by rows where it lies by columns", ("wmma::matrix_b, 16, 16, 16, T, wmma::col_major> fb", "wmma::matrix_b, 16, 16, 16, T, wmma::row_major> fb"),
       dtype="float16")
broken("conv2d_vjp", "tiled", "no_stride_check", "an input pixel between two outputs is given one of them", ("i * g.stride_h == row && ", ""))
broken("sampler_step", "best", "philox_constant", "one digit of Philox's multiplier is wrong", ("0xD2511F53u, c.x), lo0", "0xD2511F57u, c.x), lo0"), where={"z": "key"})
broken("q_sample", "vector", "philox_rounds", "Philox has nine rounds", ("round < 10", "round < 9"), where={"z": "key"})
broken("sampler_step", "vector", "same_noise", "every sample has the first one's noise", ("normal4((unsigned)(q - n * quads.divisor), index[n]",
       "normal4((unsigned)(q - n * quads.divisor), index[0]"), where={"z": "key"})
broken("noise_mse", "best", "quadrant", "the angle's third quadrant has the wrong sign", ("q == 1 || q == 2 ? -zc", "q == 1 ? -zc"), where={"z": "key"})
broken("sampler_step", "naive", "limits_swapped", "the estimate is clipped to the wrong end", ("x0 < lo ? lo : (x0 > hi ? hi : x0)", "x0 < lo ? hi : (x0 > hi ? lo : x0)"),
       found="^(value|integer|non-finite): ")
broken("sampler_step", "best", "history_exchanged", "two of the history's coefficients are exchanged", ("if (h0) add(ys[j], c_h0,", "if (h0) add(ys[j], c_h1,"))
broken("sampler_step", "vector", "guidance_reversed", "guidance away from the label", ("w * (es[j].x[i] - us[j].x[i])", "w * (us[j].x[i] - es[j].x[i])"))
broken("noise_mse", "best", "tail_counted", "a sample's last block of four is taken for a whole one", ("int n = quads.of(q); return n * size + 4 * (q - n * quads.divisor);",
       "return 4 * q;"), where={"z": "key"}, found=f"{RACE}|{UNWRITTEN}|past the end|value")
broken("sampler_step", "best", "head_forgotten", "what is before the first multiple of 32 bytes is not taken last", ("i + head : i + head - count", "i + head : i + head"), found="race|past the end|no thread wrote|value")
broken("noise_mse_vjp", "naive", "factor", "the gradient without its factor of two", ("2.0f * dL[n] / size * (e[i] - made)", "dL[n] / size * (e[i] - made)"))
broken("sampler_step", "best", "noise_not_shared", "a block of noise is read before its thread has left it", (
    "noise[k][j] = made.x[k];\n    }\n    __syncthreads();", "noise[k][j] = made.x[k];\n    }"),
       where={"z": "key"}, found=f"{RACE}|{UNWRITTEN}")
broken("noise_mse", "best", "noise_overwritten", "the next blocks' noise overwrites what others still read", (
    "    __syncthreads();                                         // all are done with the noise", "    // all are done with the noise"),
       ("first += 2 * blockDim.x", "first += 8"), ("min(high - first, 2 * (int)blockDim.x)", "min(high - first, 8)"),  # twice, then
       where={"z": "key"}, found=RACE)

