#pragma once
#include <samba/cuda/attention_few_rows.cuh>
#include <samba/cuda/attention_tiles.cuh>
#include <samba/kernels/attention.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

inline constexpr int attention_threads = 128;

/// One block per query row, query head and segment, with a running maximum over tiles of as many
/// keys as it has threads. Tiles start at the first key in sight, so that results do not depend on
/// how a sequence was split. Keys are read once for each query head of a group and each row.
/// Shared memory: the query, and the sum of the values.
template <class E, class KV>
__global__ void attention(const Segment* segments, kernels::AttentionArgs<E, KV> a,
                          ArrayData<KV> rings_k, ArrayData<KV> rings_v) {
  extern __shared__ float shared[];
  __shared__ float weights[attention_threads], partial[attention_threads / 32];
  start();
  const Segment segment = segments[blockIdx.z];
  if (blockIdx.x >= segment.rows) return;
  const int D = a.head_dim, tid = static_cast<int>(threadIdx.x);
  const int head = static_cast<int>(blockIdx.y), g = head / a.group;
  const std::int64_t row = segment.first_row + blockIdx.x, position = segment.position + blockIdx.x;
  const KV *const ring_k = of(rings_k, segment.state), *const ring_v = of(rings_v, segment.state);
  float *const q = shared, *const sum = shared + D;

  const E* const query = a.q.data + row * a.q.stride + g * a.q.head_stride + head % a.group * D;
  for (int d = tid; d < D; d += attention_threads) {
    q[d] = rounded<KV>(number(query[d]));
    sum[d] = 0;
  }
  __syncthreads();

  const auto own = [&](const kernels::HeadRows<const E>& x, std::int64_t j) {
    return x.data + (segment.first_row + j - segment.position) * x.stride + g * x.head_stride;
  };
  const auto in_ring = [&](const KV* ring, std::int64_t j) {
    return ring + (g * a.n_slots + j % a.n_slots) * D;
  };
  const bool sink = a.sinks != nullptr;
  float maximum = sink ? a.sinks[head] : -INFINITY, total = sink ? 1.f : 0.f;
  const std::int64_t begin = position < a.window ? 0 : position - a.window + 1;
  for (std::int64_t tile = begin; tile <= position; tile += attention_threads) {
    float score = -INFINITY;
    if (const std::int64_t j = tile + tid; j <= position) {
      score = 0;
      if (j < segment.position) {
        const KV* const key = in_ring(ring_k, j);
        for (int d = 0; d < D; ++d) score += q[d] * number(key[d]);
      } else {
        const E* const key = own(a.k, j);
        for (int d = 0; d < D; ++d) score += q[d] * rounded<KV>(number(key[d]));
      }
      score /= a.divisor;
      if (a.cap > 0) score = a.cap * tanhf(score / a.cap);
    }
    const float new_maximum = fmaxf(maximum, block_max<attention_threads>(score, partial));
    const float keep = expf(maximum - new_maximum), weight = expf(score - new_maximum);
    maximum = new_maximum;
    weights[tid] = rounded<KV>(weight);
    total = keep * total + block_sum<attention_threads>(weight, partial);
    __syncthreads();  // all weights are there
    const int keys = static_cast<int>(position - tile < attention_threads - 1 ? position - tile + 1
                                                                              : attention_threads);
    for (int d = tid; d < D; d += attention_threads) {
      float value = keep * sum[d];
      for (int i = 0; i < keys; ++i) {
        const std::int64_t j = tile + i;
        value += weights[i] * (j < segment.position ? number(in_ring(ring_v, j)[d])
                                                    : rounded<KV>(number(own(a.v, j)[d])));
      }
      sum[d] = value;
    }
    __syncthreads();  // all weights have been read
  }
  E* const out = a.out + row * a.out_stride + std::int64_t{head} * D;
  for (int d = tid; d < D; d += attention_threads) store(out + d, sum[d] / total);
  if (a.log_sum && tid == 0)
    store(a.log_sum + row * a.n_kv_heads * a.group + head, maximum + logf(total));
}

/// One block per row, key/value head and segment. Of rows with the same slot the last is stored.
template <class E, class KV>
__global__ void update_rings(const Segment* segments, kernels::AttentionArgs<E, KV> a,
                             ArrayData<KV> rings_k, ArrayData<KV> rings_v) {
  start();
  const Segment segment = segments[blockIdx.z];
  const std::int64_t i = blockIdx.x;
  if (i >= segment.rows || i < segment.rows - a.n_slots) return;
  const std::int64_t g = blockIdx.y, row = segment.first_row + i;
  const E *const key = a.k.data + row * a.k.stride + g * a.k.head_stride, *const value =
                                                                              a.v.data +
                                                                              row * a.v.stride +
                                                                              g * a.v.head_stride;
  const std::int64_t at = (g * a.n_slots + (segment.position + i) % a.n_slots) * a.head_dim;
  KV *const ring_k = of(rings_k, segment.state) + at, *const ring_v =
                                                          of(rings_v, segment.state) + at;
  for (int d = static_cast<int>(threadIdx.x); d < a.head_dim; d += static_cast<int>(blockDim.x)) {
    store(ring_k + d, number(key[d]));
    store(ring_v + d, number(value[d]));
  }
}

}  // namespace cuda

namespace kernels {

template <class E, class KV>
void launch(const Cuda& device, const Chunk& chunk, const UpdateRingsChunk<E, KV>& a) {
  if (chunk.segments.empty() || chunk.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(chunk.rows), static_cast<unsigned>(a.args.n_kv_heads),
                  static_cast<unsigned>(chunk.segments.size()));
  cuda::launch_kernel(device, "update_rings", cuda::update_rings<E, KV>, grid, 64, 0,
                      chunk.segments.data(), a.args, ArrayData<KV>(a.ring_k),
                      ArrayData<KV>(a.ring_v));
}

template <class E, class KV>
void launch(const Cuda& device, const Chunk& chunk, const AttentionChunk<E, KV>& a) {
  if (chunk.segments.empty() || chunk.rows == 0) return;
  bool tiles = false;
  if constexpr (std::is_same_v<E, bf16> && std::is_same_v<KV, bf16>) {
    if (cuda::attention_by_parts(device, chunk, a)) return;
    tiles = cuda::launch_attention_tiles(device, chunk, a);
  }
  if (!tiles) {
    const dim3 grid(static_cast<unsigned>(chunk.rows),
                    static_cast<unsigned>(a.args.n_kv_heads * a.args.group),
                    static_cast<unsigned>(chunk.segments.size()));
    const auto shared = static_cast<std::size_t>(2 * a.args.head_dim) * sizeof(float);
    cuda::launch_kernel(device, "attention", cuda::attention<E, KV>, grid, cuda::attention_threads,
                        shared, chunk.segments.data(), a.args, ArrayData<KV>(a.ring_k),
                        ArrayData<KV>(a.ring_v));
  }
  if (a.update_rings) launch(device, chunk, UpdateRingsChunk<E, KV>{a.args, a.ring_k, a.ring_v});
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
