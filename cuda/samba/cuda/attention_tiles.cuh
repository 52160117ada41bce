#pragma once
/// \file
/// Attention of many rows on tensor cores: FlashAttention-2 (Dao 2023, algorithm 1) over tiles of 64 keys
/// that begin at absolute positions, with the order of work of FlashAttention-3 (Shah et al. 2024,
/// section 3.2): the scores of the next tile and the values of this one are multiplied while weights
/// are computed.
#include <samba/cuda/tensor_cores.cuh>
#include <samba/kernels/attention.hpp>

namespace samba::inline SAMBA_TARGET::cuda {

template <int D, int Groups>
struct AttentionTiles {
  static constexpr int rows = 64 * Groups, keys = 64, threads = 128 * Groups, chunks = D / 8;
  static constexpr int tile_bytes = keys * D * 2, stages = 3;
  static constexpr std::size_t shared_bytes = 1024 + rows * D * 2 + stages * 2 * tile_bytes;
};

/// Starts scores = q k^T for 16 query rows a warp, of a tile of Rows, and the keys of a tile.
template <int D, int Rows>
__device__ void start_scores(float (&scores)[32], unsigned q, unsigned k) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
#if SAMBA_WGMMA
  wgmma_begin();
#pragma unroll
  for (int step = 0; step < D / 16; ++step)
    wgmma(scores, wgmma_tile(q + step / 4 * (Rows * 128) + warp / 4 * 8192 + step % 4 * 32),
          wgmma_tile(k + step / 4 * 8192 + step % 4 * 32), step > 0);
  wgmma_commit();
#else
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < 32; ++i) scores[i] = 0;
#pragma unroll
  for (int step = 0; step < D / 16; ++step) {
    unsigned a[4];
    load_matrices(
        a, q + tile_place<Rows>(warp * 16 + lane / 8 % 2 * 8 + lane % 8, 2 * step + lane / 16));
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      unsigned b[4];
      load_matrices(b,
                    k + tile_place<64>(n * 16 + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
      multiply_add(scores + 8 * n, a, b[0], b[1]);
      multiply_add(scores + 8 * n + 4, a, b[2], b[3]);
    }
  }
#endif
}

/// Starts sums += weights v for a tile.
template <int D>
__device__ void start_values(float (&sums)[D / 64][32], const unsigned (&weights)[4][4],
                             unsigned v) {
#if SAMBA_WGMMA
  wgmma_begin();
#pragma unroll
  for (int step = 0; step < 4; ++step)
#pragma unroll
    for (int part = 0; part < D / 64; ++part)
      wgmma(sums[part], weights[step], wgmma_tile(v + part * 8192 + step * 2048));
  wgmma_commit();
#else
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int step = 0; step < 4; ++step)
#pragma unroll
    for (int n = 0; n < D / 16; ++n) {
      unsigned b[4];
      load_matrices_transposed(
          b, v + tile_place<64>(step * 16 + lane / 8 % 2 * 8 + lane % 8, 2 * n + lane / 16));
      float* const sum = sums[n / 4] + n % 4 * 8;
      multiply_add(sum, weights[step], b[0], b[1]);
      multiply_add(sum + 4, weights[step], b[2], b[3]);
    }
#endif
}

/// Waits for the scores, while the values may go on.
template <bool ValuesToo>
__device__ void wait_for_scores(float (&scores)[32]) {
#if SAMBA_WGMMA
  wgmma_wait<ValuesToo ? 1 : 0>();
  wgmma_results(scores);
#endif
}
template <int Parts>
__device__ void wait_for_values(float (&sums)[Parts][32]) {
#if SAMBA_WGMMA
  wgmma_wait<0>();
#pragma unroll
  for (int part = 0; part < Parts; ++part) wgmma_results(sums[part]);
#endif
}

/// Block (x, g): 64 Groups query rows of key/value head g in one of the segments, whose tiles of rows
/// are counted through, a row being a token and a query head of the group, so that all heads of a
/// group read a tile of keys once. Every warp has 16 rows, every warpgroup 64. Three tiles of keys and values are in shared memory: the one in use, the
/// next, and one on its way. Scores, weights and sums are in float, the operands of both products in
/// bf16. Every row takes the same tiles in the same order for any split of its sequence.
///
/// Per row and visible key: 4 D FLOPs and one exponential. Capped: scores have a cap.
template <int D, bool Capped, int Groups, int BlocksPerSm>
__global__ void __launch_bounds__(128 * Groups, BlocksPerSm)
    attention_tiles(const Segment* segments, int n_segments, kernels::AttentionArgs<bf16, bf16> a,
                    ArrayData<bf16> rings_k, ArrayData<bf16> rings_v) {
  using Tiles = AttentionTiles<D, Groups>;
  constexpr int n_keys = Tiles::keys, chunks = Tiles::chunks;
  extern __shared__ unsigned char memory[];
  const int group = a.group, tid = static_cast<int>(threadIdx.x);
  int number = static_cast<int>(blockIdx.x), which = 0, all_rows = 0;
  for (; which < n_segments; ++which) {
    all_rows = static_cast<int>(segments[which].rows) * group;
    const int tiles = (all_rows + Tiles::rows - 1) / Tiles::rows;
    if (number < tiles) break;
    number -= tiles;
  }
  if (which == n_segments) return;
  const Segment segment = segments[which];
  const int row0 = number * Tiles::rows;
  const int g = static_cast<int>(blockIdx.y), warp = tid / 32, lane = tid % 32;
  const unsigned shared_q =
                     (static_cast<unsigned>(__cvta_generic_to_shared(memory)) + 1023u) & ~1023u,
                 shared_kv = shared_q + Tiles::rows * D * 2;

  for (int at = tid; at < Tiles::rows * chunks; at += Tiles::threads) {
    const int row = at / chunks, chunk = at % chunks, r = row0 + row;
    const bool valid = r < all_rows;
    const bf16* const from = a.q.data + (segment.first_row + (valid ? r / group : 0)) * a.q.stride +
                             g * a.q.head_stride + (valid ? r % group : 0) * D + chunk * 8;
    copy_async(shared_q + tile_place<Tiles::rows>(row, chunk), from, valid);
  }

  // Positions are counted from the segment's first row: earlier keys have negative ones.
  const auto position_of = [&](int r) { return (r < all_rows ? r : all_rows - 1) / group; };
  const auto first_seen = [&](int position) {
    const std::int64_t absolute = segment.position + position;
    return absolute < a.window ? static_cast<int>(-segment.position)
                               : position - static_cast<int>(a.window - 1);
  };
  const int last = position_of(row0 + Tiles::rows - 1), seen = first_seen(position_of(row0)),
            begin = seen - static_cast<int>((segment.position + seen) % n_keys),
            n_tiles = (last - begin) / n_keys + 1;
  const int warp_row = row0 + warp * 16;

  // This thread copies one chunk of every step-th key and value of a tile.
  constexpr int copying = Tiles::threads == 384 ? 256 : Tiles::threads, step = copying / chunks,
                passes = n_keys / step;
  static_assert(step % 8 == 0 && n_keys % step == 0);
  const int own_key = tid / chunks, own_chunk = tid % chunks;
  const unsigned own_place =
      static_cast<unsigned>(tile_place<n_keys>(own_key, own_chunk));  // + 128 bytes for a key
  const bf16 *const ring_k = of(rings_k, segment.state) + g * a.n_slots * D + own_chunk * 8,
                    *const ring_v = of(rings_v, segment.state) + g * a.n_slots * D + own_chunk * 8,
                    *const new_k = a.k.data + segment.first_row * a.k.stride + g * a.k.head_stride +
                                   own_chunk * 8,
                    *const new_v = a.v.data + segment.first_row * a.v.stride + g * a.v.head_stride +
                                   own_chunk * 8;
  const auto k_stride = static_cast<int>(a.k.stride), v_stride = static_cast<int>(a.v.stride);
  const auto n_slots = static_cast<unsigned>(a.n_slots),
             first_slot = static_cast<unsigned>((segment.position + begin) % a.n_slots);
  const auto stage_of = [&](int tile) {
    return shared_kv + static_cast<unsigned>(tile % Tiles::stages * 2 * Tiles::tile_bytes);
  };
  const auto load_tile = [&](int tile) {
    if (tid >= copying) return commit_copies();
    const unsigned to = stage_of(tile) + own_place;
    const int start = begin + tile * n_keys;
    if (start >= seen && start >= 0 && start + n_keys - 1 <= last) {  // all are of this launch
      const bf16 *const k = new_k + std::int64_t{start + own_key} * k_stride,
                        *const v = new_v + std::int64_t{start + own_key} * v_stride;
#pragma unroll
      for (int pass = 0; pass < passes; ++pass) {
        copy_async(to + pass * step * 128, k + pass * step * k_stride, true);
        copy_async(to + pass * step * 128 + Tiles::tile_bytes, v + pass * step * v_stride, true);
      }
    } else {
#pragma unroll 1
      for (int pass = 0; pass < passes; ++pass) {
        const int j = start + own_key + pass * step, i = j <= last ? j : last;
        const std::int64_t slot = (first_slot + static_cast<unsigned>(j - begin)) % n_slots;
        const bf16 *const k = j < 0 ? ring_k + slot * D : new_k + std::int64_t{i} * k_stride,
                          *const v = j < 0 ? ring_v + slot * D : new_v + std::int64_t{i} * v_stride;
        const bool in_sight = j >= seen && j <= last;
        copy_async(to + pass * step * 128, k, in_sight);
        copy_async(to + pass * step * 128 + Tiles::tile_bytes, v, in_sight);
      }
    }
    commit_copies();
  };
  load_tile(0);
  if (n_tiles > 1) load_tile(1);

  // Row i of the two that a lane has (0: lane / 4, 1: 8 below), in units of log2.
  const float scale = log2_e / a.divisor;
  float maximum[2], total[2];
  int first_key[2], last_key[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int r = warp_row + lane / 4 + 8 * i;
    last_key[i] = position_of(r);
    first_key[i] = first_seen(last_key[i]);
    maximum[i] = a.sinks ? log2_e * a.sinks[g * group + r % group] : -INFINITY;
    total[i] = a.sinks && lane % 4 == 0 ? 1.f : 0.f;
  }
  float sums[D / 64][32] = {}, scores[32], keep[2];
  unsigned weights[4][4];

  // Turns scores of a tile into weights; sums so far are to be multiplied by keep. Masked: not every
  // row sees all keys.
  const auto weigh = [&]<bool Masked>(std::bool_constant<Masked>, int tile) {
    if constexpr (Capped) {
#pragma unroll
      for (int n = 0; n < 32; ++n)
        scores[n] = a.divisor * a.cap * tanhf(scores[n] / (a.divisor * a.cap));
    }
    if constexpr (Masked) {
#pragma unroll
      for (int n = 0; n < 32; ++n) {
        const int j = begin + tile * n_keys + n / 4 * 8 + lane % 4 * 2 + n % 2;
        if (j > last_key[n / 2 % 2] || j < first_key[n / 2 % 2]) scores[n] = -INFINITY;
      }
    }
    float highest[2] = {-INFINITY, -INFINITY}, minus[2];
#pragma unroll
    for (int n = 0; n < 32; ++n) highest[n / 2 % 2] = fmaxf(highest[n / 2 % 2], scores[n]);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      highest[i] = fmaxf(highest[i], __shfl_xor_sync(0xffffffffu, highest[i], 1));
      highest[i] = fmaxf(highest[i], __shfl_xor_sync(0xffffffffu, highest[i], 2));
      highest[i] = fmaxf(maximum[i], highest[i] * scale);
      minus[i] = highest[i] == -INFINITY ? 0.f : highest[i];  // no key seen yet
      keep[i] = fast_exp2(maximum[i] - minus[i]);
      maximum[i] = highest[i];
      total[i] *= keep[i];
    }
#pragma unroll
    for (int n = 0; n < 32; ++n) {
      scores[n] = fast_exp2(fmaf(scores[n], scale, -minus[n / 2 % 2]));
      total[n / 2 % 2] += scores[n];
    }
#if SAMBA_WGMMA
    wgmma_results(scores);  // all of this before the values are waited for
#endif
  };
  const auto round_weights = [&] {
#pragma unroll
    for (int step = 0; step < 4; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        weights[step][i] = pack_bf16(scores[step * 8 + 2 * i], scores[step * 8 + 2 * i + 1]);
  };

  const auto wait_for_tile = [&](bool next_too) {  // next_too: the latest that was asked for
    if (next_too)
      wait_for_copies<0>();
    else
      wait_for_copies<1>();
#if SAMBA_WGMMA
    wgmma_operands_written();
#endif
    __syncthreads();
  };
  wait_for_tile(n_tiles == 1);  // the queries and tile 0
  start_scores<D, Tiles::rows>(scores, shared_q, stage_of(0));
  wait_for_scores<false>(scores);
  weigh(std::true_type{}, 0);
  round_weights();

  // The values of a tile, and the weights of the next.
  const auto advance = [&](auto masked, int tile) {
    wait_for_tile(true);  // and nobody reads the stage of tile + 2 any more
    if (tile + 2 < n_tiles) load_tile(tile + 2);
    start_scores<D, Tiles::rows>(scores, shared_q, stage_of(tile + 1));
    start_values<D>(sums, weights, stage_of(tile) + Tiles::tile_bytes);
    wait_for_scores<true>(scores);
    weigh(masked, tile + 1);
    // (The branch also keeps the compiler from waiting before the weights are computed.)
    if (!__any_sync(0xffffffffu, keep[0] != 1 || keep[1] != 1)) {
      wait_for_values(sums);
    } else {
      wait_for_values(sums);
#pragma unroll
      for (int part = 0; part < D / 64; ++part)
#pragma unroll
        for (int n = 0; n < 32; ++n) sums[part][n] *= keep[n / 2 % 2];
    }
    round_weights();
  };
  // Tiles that all rows see as a whole are [first_whole, end_whole).
  const int all_seen = first_seen(last), first_whole = (all_seen - begin + n_keys - 1) / n_keys,
            end_whole = (position_of(row0) + 1 - begin) / n_keys;
  int tile = 1;
  for (; tile < n_tiles && tile < first_whole; ++tile) advance(std::true_type{}, tile - 1);
  for (; tile < end_whole; ++tile) advance(std::false_type{}, tile - 1);
  for (; tile < n_tiles; ++tile) advance(std::true_type{}, tile - 1);
  start_values<D>(sums, weights, stage_of(n_tiles - 1) + Tiles::tile_bytes);
  wait_for_values(sums);

#pragma unroll
  for (int i = 0; i < 2; ++i) {
    total[i] += __shfl_xor_sync(0xffffffffu, total[i], 1);
    total[i] += __shfl_xor_sync(0xffffffffu, total[i], 2);
    const int r = warp_row + lane / 4 + 8 * i;
    if (r >= all_rows) continue;
    const std::int64_t row = segment.first_row + r / group;
    const int head = g * group + r % group;
    auto* const out =
        reinterpret_cast<unsigned*>(a.out + row * a.out_stride + std::int64_t{head} * D) + lane % 4;
    const float by = 1.f / total[i];
#pragma unroll
    for (int n = 0; n < D / 8; ++n)
      out[n * 4] =
          pack_bf16(sums[n / 8][n % 8 * 4 + 2 * i] * by, sums[n / 8][n % 8 * 4 + 2 * i + 1] * by);
    if (a.log_sum && lane % 4 == 0)
      store(a.log_sum + row * a.n_kv_heads * group + head, maximum[i] / log2_e + logf(total[i]));
  }
}

/// Launches attention_tiles if it fits: heads of 64 or 128 in bf16, with rows of 16-byte alignment.
/// Returns false otherwise.
template <int Groups64 = 2, int Blocks64 = 2, int Groups128 = 3, int Blocks128 = 1>
bool launch_attention_tiles(const Cuda& device, const Chunk& chunk,
                            const kernels::AttentionChunk<bf16, bf16>& a) {
  const auto& args = a.args;
  if ((args.head_dim != 64 && args.head_dim != 128) ||
      !rows_aligned<8>(args.q.data, args.q.stride | args.q.head_stride) ||
      !rows_aligned<8>(args.k.data, args.k.stride | args.k.head_stride) ||
      !rows_aligned<8>(args.v.data, args.v.stride | args.v.head_stride) ||
      !rows_aligned<8>(args.out, args.out_stride))
    return false;
  const auto run = [&]<int D, int Groups, int BlocksPerSm>() {
    const auto kernel = args.cap > 0 ? attention_tiles<D, true, Groups, BlocksPerSm>
                                     : attention_tiles<D, false, Groups, BlocksPerSm>;
    using Tiles = AttentionTiles<D, Groups>;
    check_call(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(Tiles::shared_bytes)),
               "cudaFuncSetAttribute");
    const auto n_segments = static_cast<unsigned>(chunk.segments.size());
    const dim3 grid(blocks(chunk.rows * args.group, Tiles::rows) + n_segments - 1,
                    static_cast<unsigned>(args.n_kv_heads));
    kernel<<<grid, Tiles::threads, Tiles::shared_bytes, device.stream()>>>(
        chunk.segments.data(), static_cast<int>(n_segments), args, ArrayData<bf16>(a.ring_k),
        ArrayData<bf16>(a.ring_v));
    check_launch("attention_tiles");
  };
  if (args.head_dim == 64)
    run.template operator()<64, Groups64, Blocks64>();
  else
    run.template operator()<128, Groups128, Blocks128>();
  return true;
}

}  // namespace samba::inline SAMBA_TARGET::cuda
