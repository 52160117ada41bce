#pragma once
/// \file
/// Attention for few query rows in bf16: a step of decoding, whose time is that of reading the rings.
#include <samba/cuda/device.cuh>
#include <samba/kernels/attention.hpp>

#include <algorithm>

namespace samba::inline SAMBA_TARGET::cuda {

/// The keys of a part: those at positions [64 s, 64 s + 64). Parts are at absolute positions, so they
/// depend neither on the batch nor on how a sequence was split.
inline constexpr int split_keys = 64;
inline constexpr int split_threads = 128;
/// The most rows of attention_parts.
inline constexpr std::int64_t split_rows = 16;

/// What attention_parts leaves for combine_parts, in float: for every row, query head and part its
/// maximal score, the sum of the weights exp(score - maximum), and the sum of values with these weights.
struct AttentionParts {
  float* maxima;  ///< (rows, n_heads, parts)
  float* totals;  ///< (rows, n_heads, parts)
  float* sums;    ///< (rows, n_heads, parts, head_dim)
  int parts;      ///< the most that a row sees
};

/// The segment of a row of the chunk; rows = 0 if there is none.
__device__ inline Segment segment_of(const Segment* segments, int n_segments, std::int64_t row) {
  for (int i = 0; i < n_segments; ++i) {
    const Segment segment = segments[i];
    if (row >= segment.first_row && row < segment.first_row + segment.rows) return segment;
  }
  return {};
}

/// The 8 numbers in 16 bytes.
__device__ inline void unpack(const uint4& from, float (&to)[8]) {
  const unsigned pairs[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    to[2 * i] = __uint_as_float(pairs[i] << 16);
    to[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
  }
}

/// One block per part, key/value head and row; it reads a key and a value once for all query heads of
/// the group. D / 8 lanes share a key, so that a block has `at_once` keys under way in a pass.
/// Shared memory, in floats: the queries (group, D), the weights (group, split_keys), and the sums of
/// each warp (warps, group, D). Bytes: those of the rings, once.
template <int D>
__global__ void __launch_bounds__(split_threads)
    attention_parts(const Segment* segments, int n_segments, kernels::AttentionArgs<bf16, bf16> a,
                    ArrayData<bf16> rings_k, ArrayData<bf16> rings_v, AttentionParts to) {
  start();
  constexpr int lanes = D / 8, at_once = split_threads / lanes, passes = split_keys / at_once,
                warps = split_threads / 32;
  extern __shared__ float shared[];
  const std::int64_t row = blockIdx.z;
  const Segment segment = segment_of(segments, n_segments, row);
  if (segment.rows == 0) return;
  const int g = static_cast<int>(blockIdx.y), tid = static_cast<int>(threadIdx.x), group = a.group,
            lane = tid % lanes, mine = tid / lanes;
  const std::int64_t position = segment.position + row - segment.first_row,
                     begin = position < a.window ? 0 : position - a.window + 1,
                     part_begin = (begin / split_keys + blockIdx.x) * split_keys;
  if (part_begin > position) return;
  float *const q = shared, *const weights = q + group * D,
               *const of_warps = weights + group * split_keys;

  const bf16 *const ring_k = of(rings_k, segment.state), *const ring_v = of(rings_v, segment.state);
  const auto visible = [&](std::int64_t j) { return j >= begin && j <= position; };
  const auto load = [&](const kernels::HeadRows<const bf16>& own, const bf16* ring,
                        std::int64_t j) {
    if (!visible(j)) return uint4{0, 0, 0, 0};
    const bf16* const from =
        j < segment.position ? ring + (g * a.n_slots + j % a.n_slots) * D
                             : own.data + (segment.first_row + j - segment.position) * own.stride +
                                   g * own.head_stride;
    return *reinterpret_cast<const uint4*>(from + lane * 8);
  };
  uint4 keys[passes], values[passes];
#pragma unroll
  for (int i = 0; i < passes; ++i) keys[i] = load(a.k, ring_k, part_begin + i * at_once + mine);
#pragma unroll
  for (int i = 0; i < passes; ++i) values[i] = load(a.v, ring_v, part_begin + i * at_once + mine);

  const bf16* const query = a.q.data + row * a.q.stride + g * a.q.head_stride;
  for (int i = tid; i < group * D; i += split_threads) q[i] = number(query[i]);
  __syncthreads();

  // Scores, one query head after the other.
#pragma unroll
  for (int i = 0; i < passes; ++i) {
    float key[8];
    unpack(keys[i], key);
    const int at = i * at_once + mine;
    for (int head = 0; head < group; ++head) {
      const float* const of_head = q + head * D + lane * 8;
      float score = 0;
#pragma unroll
      for (int d = 0; d < 8; ++d) score = fmaf(of_head[d], key[d], score);
#pragma unroll
      for (int step = lanes / 2; step > 0; step /= 2)
        score += __shfl_xor_sync(0xffffffffu, score, step);
      if (lane == 0) {
        score /= a.divisor;
        if (a.cap > 0) score = a.cap * tanhf(score / a.cap);
        weights[head * split_keys + at] = visible(part_begin + at) ? score : -INFINITY;
      }
    }
  }
  __syncthreads();

  // Weights: a warp for each query head. Every part has a visible key, so its maximum is finite.
  const std::int64_t first_part = (row * a.n_kv_heads + g) * group * to.parts + blockIdx.x;
  for (int head = tid / 32; head < group; head += warps) {
    float* const of_head = weights + head * split_keys;
    const int i = tid % 32;
    const float s0 = of_head[i], s1 = of_head[i + 32];
    float maximum = fmaxf(s0, s1);
    for (int step = 16; step > 0; step /= 2)
      maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, step));
    const float w0 = expf(s0 - maximum), w1 = expf(s1 - maximum);
    of_head[i] = rounded<bf16>(w0);
    of_head[i + 32] = rounded<bf16>(w1);
    float total = w0 + w1;
    for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(0xffffffffu, total, step);
    if (i == 0) {
      to.maxima[first_part + head * to.parts] = maximum;
      to.totals[first_part + head * to.parts] = total;
    }
  }
  __syncthreads();

  // Values: over the passes, the keys of a warp, then the warps.
  for (int head = 0; head < group; ++head) {
    float sum[8] = {};
#pragma unroll
    for (int i = 0; i < passes; ++i) {
      float value[8];
      unpack(values[i], value);
      const float weight = weights[head * split_keys + i * at_once + mine];
#pragma unroll
      for (int d = 0; d < 8; ++d) sum[d] = fmaf(weight, value[d], sum[d]);
    }
#pragma unroll
    for (int d = 0; d < 8; ++d)
#pragma unroll
      for (int step = lanes; step < 32; step *= 2)
        sum[d] += __shfl_xor_sync(0xffffffffu, sum[d], step);
    if (tid % 32 < lanes)
#pragma unroll
      for (int d = 0; d < 8; ++d) of_warps[(tid / 32 * group + head) * D + lane * 8 + d] = sum[d];
  }
  __syncthreads();
  for (int i = tid; i < group * D; i += split_threads) {
    float sum = 0;
    for (int warp = 0; warp < warps; ++warp) sum += of_warps[warp * group * D + i];
    to.sums[(first_part + i / D * to.parts) * D + i % D] = sum;
  }
}

/// One block of D threads per query head and row adds its parts in order, and, if update_rings, stores
/// the row's key and value: all that read the rings have ended. Of rows with the same slot the last is
/// stored. Shared memory: a float for each part.
template <int D>
__global__ void __launch_bounds__(D)
    combine_parts(const Segment* segments, int n_segments, kernels::AttentionArgs<bf16, bf16> a,
                  ArrayData<bf16> rings_k, ArrayData<bf16> rings_v, AttentionParts from,
                  bool update_rings) {
  start();
  extern __shared__ float factors[];
  __shared__ float partial[D / 32];
  const std::int64_t row = blockIdx.y;
  const Segment segment = segment_of(segments, n_segments, row);
  if (segment.rows == 0) return;
  const int head = static_cast<int>(blockIdx.x), d = static_cast<int>(threadIdx.x);
  const std::int64_t in_segment = row - segment.first_row, position = segment.position + in_segment,
                     begin = position < a.window ? 0 : position - a.window + 1;
  const int parts = static_cast<int>(position / split_keys - begin / split_keys) + 1;
  const std::int64_t first = (row * a.n_kv_heads * a.group + head) * from.parts;

  const bool sink = a.sinks != nullptr;
  float maximum = sink ? a.sinks[head] : -INFINITY;
  for (int i = d; i < parts; i += D) maximum = fmaxf(maximum, from.maxima[first + i]);
  maximum = block_max<D>(maximum, partial);
  for (int i = d; i < parts; i += D) factors[i] = expf(from.maxima[first + i] - maximum);
  __syncthreads();
  float total = sink ? expf(a.sinks[head] - maximum) : 0.f, sum = 0;
#pragma unroll 4
  for (int i = 0; i < parts; ++i) {
    total += factors[i] * from.totals[first + i];
    sum += factors[i] * from.sums[(first + i) * D + d];
  }
  store(a.out + row * a.out_stride + std::int64_t{head} * D + d, sum / total);
  if (a.log_sum && d == 0)
    store(a.log_sum + row * a.n_kv_heads * a.group + head, maximum + logf(total));

  if (update_rings && head % a.group == 0 && in_segment >= segment.rows - a.n_slots) {
    const std::int64_t g = head / a.group, at = (g * a.n_slots + position % a.n_slots) * D + d;
    of(rings_k, segment.state)[at] = a.k.data[row * a.k.stride + g * a.k.head_stride + d];
    of(rings_v, segment.state)[at] = a.v.data[row * a.v.stride + g * a.v.head_stride + d];
  }
}

/// The bytes of shared memory that attention_parts takes.
constexpr std::int64_t split_shared_bytes(std::int64_t group, std::int64_t head_dim) {
  return group * (head_dim * (1 + split_threads / 32) + split_keys) * std::int64_t{sizeof(float)};
}

/// Attention by parts, if there are few rows and heads of 64, 128 or 256 that can be read 16 bytes at a
/// time; false if not. What passes between the two kernels is in the workspace: matrix products, which
/// use it too, come before or after, never between.
inline bool attention_by_parts(const Cuda& device, const Chunk& chunk,
                               const kernels::AttentionChunk<bf16, bf16>& c) {
  const auto& a = c.args;
  if (chunk.rows > split_rows || (a.head_dim != 64 && a.head_dim != 128 && a.head_dim != 256))
    return false;
  const auto address = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
  const ArrayData<bf16> rings_k(c.ring_k), rings_v(c.ring_v);
  const std::int64_t strides = a.k.stride | a.k.head_stride | a.v.stride | a.v.head_stride;
  if ((address(a.k.data) | address(a.v.data) | address(rings_k.data) | address(rings_v.data) |
       static_cast<std::uintptr_t>(rings_k.stride) | static_cast<std::uintptr_t>(rings_v.stride)) %
              16 !=
          0 ||
      strides % 8 != 0)
    return false;

  const std::int64_t keys = (std::min)(a.window, a.n_slots + chunk.rows),
                     parts = (keys + split_keys - 1) / split_keys + 1,
                     n_heads = std::int64_t{a.n_kv_heads} * a.group,
                     n = chunk.rows * n_heads * parts;
  const std::int64_t shared = split_shared_bytes(a.group, a.head_dim),
                     of_parts = parts * std::int64_t{sizeof(float)}, most = 40 << 10;
  if (shared > most || of_parts > most || chunk.rows > 65535 || a.n_kv_heads > 65535 ||
      n * (a.head_dim + 2) * std::int64_t{sizeof(float)} >
          static_cast<std::int64_t>(device.workspace_bytes))
    return false;
  float* const memory = static_cast<float*>(device.workspace);
  const AttentionParts to{memory, memory + n, memory + 2 * n, static_cast<int>(parts)};
  const int n_segments = static_cast<int>(chunk.segments.size());

  const auto run = [&]<int D>() {
    launch_kernel(device, "attention_parts", attention_parts<D>,
                  dim3(static_cast<unsigned>(parts), static_cast<unsigned>(a.n_kv_heads),
                       static_cast<unsigned>(chunk.rows)),
                  split_threads, static_cast<std::size_t>(shared), chunk.segments.data(),
                  n_segments, a, rings_k, rings_v, to);
    launch_kernel(device, "combine_parts", combine_parts<D>,
                  dim3(static_cast<unsigned>(n_heads), static_cast<unsigned>(chunk.rows)), D,
                  static_cast<std::size_t>(of_parts), chunk.segments.data(), n_segments, a, rings_k,
                  rings_v, to, c.update_rings);
  };
  if (a.head_dim == 64)
    run.template operator()<64>();
  else if (a.head_dim == 128)
    run.template operator()<128>();
  else
    run.template operator()<256>();
  return true;
}

}  // namespace samba::inline SAMBA_TARGET::cuda
