#pragma once
/// \file
/// Attention for few query rows in bf16: a step of decoding, whose time is that of reading the rings.
#include <samba/cuda/tensor_cores.cuh>
#include <samba/kernels/attention.hpp>

#include <algorithm>

namespace samba::inline SAMBA_TARGET::cuda {

/// The keys of a part: those at positions [64 s, 64 s + 64). Parts are at absolute positions, so they
/// depend neither on the batch nor on how a sequence was split.
inline constexpr int split_keys = 64;
inline constexpr int split_threads = 128;
/// The most rows of attention_parts.
inline constexpr std::int64_t split_rows = 64;

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

/// The shared memory of attention_parts: a tile of keys, one of values, and one of weights of 16 heads.
template <int D>
struct PartTiles {
  static constexpr int bytes = split_keys * D * 2, of_weights = 16 * split_keys * 2;
  static constexpr std::size_t shared_bytes = 1024 + 2 * bytes + of_weights;
};

/// One block per part, key/value head and row. It reads a key and a value once for all query heads of
/// the group, 16 of which are the rows of products on tensor cores: a warp has the scores of 16 keys,
/// then the values of D / 4 columns. Bytes: those of the rings, once.
template <int D>
__global__ void __launch_bounds__(split_threads)
    attention_parts(const Segment* segments, int n_segments, kernels::AttentionArgs<bf16, bf16> a,
                    ArrayData<bf16> rings_k, ArrayData<bf16> rings_v, AttentionParts to) {
  start();
  using Tiles = PartTiles<D>;
  constexpr int chunks = D / 8, at_once = split_threads / chunks, warps = split_threads / 32;
  static_assert(warps == 4 && split_keys == 16 * warps);
  extern __shared__ unsigned char memory[];
  __shared__ float of_warps[2][warps][16];  // maxima, totals
  const std::int64_t row = blockIdx.z;
  const Segment segment = segment_of(segments, n_segments, row);
  if (segment.rows == 0) return;
  const int g = static_cast<int>(blockIdx.y), tid = static_cast<int>(threadIdx.x), lane = tid % 32,
            warp = tid / 32, group = a.group;
  const std::int64_t position = segment.position + row - segment.first_row,
                     begin = position < a.window ? 0 : position - a.window + 1,
                     part_begin = (begin / split_keys + blockIdx.x) * split_keys;
  if (part_begin > position) return;
  const unsigned keys = (static_cast<unsigned>(__cvta_generic_to_shared(memory)) + 1023u) & ~1023u,
                 values = keys + Tiles::bytes, weights = values + Tiles::bytes;

  const auto visible = [&](std::int64_t j) { return j >= begin && j <= position; };
  const auto copy_tile = [&](unsigned tile, const kernels::HeadRows<const bf16>& own,
                             const ArrayData<bf16>& rings) {
    const bf16* const ring = of(rings, segment.state);
#pragma unroll
    for (int key = tid / chunks; key < split_keys; key += at_once) {
      const std::int64_t j = part_begin + key;
      const bf16* const from =
          j < segment.position
              ? ring + (g * a.n_slots + j % a.n_slots) * D
              : own.data +
                    (segment.first_row + (j <= position ? j : position) - segment.position) *
                        own.stride +
                    g * own.head_stride;
      copy_async(tile + tile_place<split_keys>(key, tid % chunks), from + tid % chunks * 8,
                 visible(j));
    }
    commit_copies();
  };
  copy_tile(keys, a.k, rings_k);
  copy_tile(values, a.v, rings_v);

  const std::int64_t first_part = (row * a.n_kv_heads + g) * group * to.parts + blockIdx.x;
  for (int first_head = 0; first_head < group; first_head += 16) {
    // Heads h = first_head + lane / 4 and h + 8 are this lane's rows.
    const int h = first_head + lane / 4;
    unsigned q[D / 16][4];
    const bf16* const query = a.q.data + row * a.q.stride + g * a.q.head_stride + lane % 4 * 2;
#pragma unroll
    for (int step = 0; step < D / 16; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int head = h + i % 2 * 8;
        q[step][i] =
            head < group
                ? *reinterpret_cast<const unsigned*>(query + head * D + step * 16 + i / 2 * 8)
                : 0u;
      }
    if (first_head == 0) wait_for_copies<1>();
    __syncthreads();  // keys are there; of the heads before, weights have been read

    float scores[2][4] = {};
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
      unsigned b[4];
      load_matrices(b, keys + tile_place<split_keys>(warp * 16 + lane / 16 * 8 + lane % 8,
                                                     2 * step + lane / 8 % 2));
      multiply_add(scores[0], q[step], b[0], b[1]);
      multiply_add(scores[1], q[step], b[2], b[3]);
    }
    // Every part has a visible key, so its maximum is finite.
    float maximum[2] = {-INFINITY, -INFINITY}, total[2] = {};
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& score = scores[n][i];
        score /= a.divisor;
        if (a.cap > 0) score = a.cap * tanhf(score / a.cap);
        if (!visible(part_begin + warp * 16 + n * 8 + lane % 4 * 2 + i % 2)) score = -INFINITY;
        maximum[i / 2] = fmaxf(maximum[i / 2], score);
      }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      for (int step = 1; step < 4; step *= 2)
        maximum[i] = fmaxf(maximum[i], __shfl_xor_sync(0xffffffffu, maximum[i], step));
      if (lane % 4 == 0) of_warps[0][warp][lane / 4 + 8 * i] = maximum[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; ++i)
      for (int other = 0; other < warps; ++other)
        maximum[i] = fmaxf(maximum[i], of_warps[0][other][lane / 4 + 8 * i]);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scores[n][i] = expf(scores[n][i] - maximum[i / 2]);
        total[i / 2] += scores[n][i];
      }
#pragma unroll
      for (int i = 0; i < 2; ++i)
        store_shared(weights + tile_place<16>(lane / 4 + 8 * i, 2 * warp + n) + lane % 4 * 4,
                     pack_bf16(scores[n][2 * i], scores[n][2 * i + 1]));
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      for (int step = 1; step < 4; step *= 2)
        total[i] += __shfl_xor_sync(0xffffffffu, total[i], step);
      if (lane % 4 == 0) of_warps[1][warp][lane / 4 + 8 * i] = total[i];
    }
    if (first_head == 0) wait_for_copies<0>();
    __syncthreads();  // weights and values are there
    if (warp == 0 && lane % 4 == 0)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        if (h + 8 * i < group) {
          float sum = 0;
          for (int other = 0; other < warps; ++other) sum += of_warps[1][other][lane / 4 + 8 * i];
          to.maxima[first_part + (h + 8 * i) * to.parts] = maximum[i];
          to.totals[first_part + (h + 8 * i) * to.parts] = sum;
        }

    float sums[D / 32][4] = {};
#pragma unroll
    for (int step = 0; step < split_keys / 16; ++step) {
      unsigned w[4];
      load_matrices(w, weights + tile_place<16>(lane / 8 % 2 * 8 + lane % 8, 2 * step + lane / 16));
#pragma unroll
      for (int n = 0; n < D / 64; ++n) {
        unsigned b[4];
        load_matrices_transposed(
            b, values + tile_place<split_keys>(step * 16 + lane / 8 % 2 * 8 + lane % 8,
                                               2 * (warp * (D / 64) + n) + lane / 16));
        multiply_add(sums[2 * n], w, b[0], b[1]);
        multiply_add(sums[2 * n + 1], w, b[2], b[3]);
      }
    }
#pragma unroll
    for (int n = 0; n < D / 32; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        if (h + 8 * i < group)
          *reinterpret_cast<float2*>(to.sums + (first_part + (h + 8 * i) * to.parts) * D +
                                     warp * (D / 4) + n * 8 +
                                     lane % 4 * 2) = {sums[n][2 * i], sums[n][2 * i + 1]};
  }
}

/// One block per query head and row adds its parts, every combine_threads / D of them in order, and, if
/// update_rings, stores the row's key and value: all that read the rings have ended. Of rows with the
/// same slot the last is stored. Shared memory: a float for each part.
inline constexpr int combine_threads = 256;
template <int D>
__global__ void __launch_bounds__(combine_threads)
    combine_parts(const Segment* segments, int n_segments, kernels::AttentionArgs<bf16, bf16> a,
                  ArrayData<bf16> rings_k, ArrayData<bf16> rings_v, AttentionParts from,
                  bool update_rings) {
  start();
  constexpr int slices = combine_threads / D;
  extern __shared__ float factors[];
  __shared__ float partial[combine_threads / 32], of_slices[slices][D];
  const std::int64_t row = blockIdx.y;
  const Segment segment = segment_of(segments, n_segments, row);
  if (segment.rows == 0) return;
  const int head = static_cast<int>(blockIdx.x), tid = static_cast<int>(threadIdx.x), d = tid % D;
  const std::int64_t in_segment = row - segment.first_row, position = segment.position + in_segment,
                     begin = position < a.window ? 0 : position - a.window + 1;
  const int parts = static_cast<int>(position / split_keys - begin / split_keys) + 1;
  const std::int64_t first = (row * a.n_kv_heads * a.group + head) * from.parts;

  const bool sink = a.sinks != nullptr;
  float maximum = sink ? a.sinks[head] : -INFINITY;
  for (int i = tid; i < parts; i += combine_threads)
    maximum = fmaxf(maximum, from.maxima[first + i]);
  maximum = block_max<combine_threads>(maximum, partial);
  float total = 0, sum = 0;
  for (int i = tid; i < parts; i += combine_threads) {
    factors[i] = expf(from.maxima[first + i] - maximum);
    total += factors[i] * from.totals[first + i];
  }
  total = block_sum<combine_threads>(total, partial);  // and all factors are there
  if (sink) total += expf(a.sinks[head] - maximum);
#pragma unroll 8
  for (int i = tid / D; i < parts; i += slices) sum += factors[i] * from.sums[(first + i) * D + d];
  of_slices[tid / D][d] = sum;
  __syncthreads();
  if (tid >= D) return;
  for (int i = 1; i < slices; ++i) sum += of_slices[i][d];
  store(a.out + row * a.out_stride + std::int64_t{head} * D + d, sum / total);
  if (a.log_sum && d == 0)
    store(a.log_sum + row * a.n_kv_heads * a.group + head, maximum + logf(total));

  if (update_rings && head % a.group == 0 && in_segment >= segment.rows - a.n_slots) {
    const std::int64_t g = head / a.group, at = (g * a.n_slots + position % a.n_slots) * D + d;
    of(rings_k, segment.state)[at] = a.k.data[row * a.k.stride + g * a.k.head_stride + d];
    of(rings_v, segment.state)[at] = a.v.data[row * a.v.stride + g * a.v.head_stride + d];
  }
}

/// Attention by parts, if there are few rows and heads of 64, 128 or 256 that can be read 16 bytes at a
/// time; false if not. What passes between the two kernels is in the workspace: matrix products, which
/// use it too, come before or after, never between.
inline bool attention_by_parts(const Cuda& device, const Chunk& chunk,
                               const kernels::AttentionChunk<bf16, bf16>& c) {
  const auto& a = c.args;
  if (chunk.rows > split_rows || (a.head_dim != 64 && a.head_dim != 128 && a.head_dim != 256))
    return false;
  const ArrayData<bf16> rings_k(c.ring_k), rings_v(c.ring_v);
  constexpr std::int64_t number = sizeof(bf16);
  if (!rows_aligned<2>(a.q.data, a.q.stride | a.q.head_stride) ||
      !rows_aligned<8>(a.k.data, a.k.stride | a.k.head_stride) ||
      !rows_aligned<8>(a.v.data, a.v.stride | a.v.head_stride) ||
      !rows_aligned<8>(rings_k.data, rings_k.stride / number) ||
      !rows_aligned<8>(rings_v.data, rings_v.stride / number))
    return false;

  const std::int64_t keys = (std::min)(a.window, a.n_slots + chunk.rows),
                     parts = (keys + split_keys - 1) / split_keys + 1,
                     n_heads = std::int64_t{a.n_kv_heads} * a.group,
                     n = chunk.rows * n_heads * parts;
  const std::int64_t of_parts = parts * std::int64_t{sizeof(float)}, most = 40 << 10;
  if (of_parts > most || chunk.rows > 65535 || a.n_kv_heads > 65535 ||
      n * (a.head_dim + 2) * std::int64_t{sizeof(float)} >
          static_cast<std::int64_t>(device.workspace_bytes))
    return false;
  float* const memory = static_cast<float*>(device.workspace);
  const AttentionParts to{memory, memory + n, memory + 2 * n, static_cast<int>(parts)};
  const int n_segments = static_cast<int>(chunk.segments.size());

  const auto run = [&]<int D>() {
    constexpr std::size_t shared = PartTiles<D>::shared_bytes;
    if constexpr (shared > 48 * 1024)
      check_call(
          cudaFuncSetAttribute(attention_parts<D>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared)),
          "cudaFuncSetAttribute");
    launch_kernel(device, "attention_parts", attention_parts<D>,
                  dim3(static_cast<unsigned>(parts), static_cast<unsigned>(a.n_kv_heads),
                       static_cast<unsigned>(chunk.rows)),
                  split_threads, shared, chunk.segments.data(), n_segments, a, rings_k, rings_v,
                  to);
    launch_kernel(device, "combine_parts", combine_parts<D>,
                  dim3(static_cast<unsigned>(n_heads), static_cast<unsigned>(chunk.rows)),
                  combine_threads, static_cast<std::size_t>(of_parts), chunk.segments.data(),
                  n_segments, a, rings_k, rings_v, to, c.update_rings);
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
