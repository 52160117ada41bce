#pragma once
#include <samba/kernels/attention.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/attention_backward.hpp>
#endif

#include <algorithm>
#include <new>

namespace samba::inline SAMBA_TARGET::kernels {

namespace detail {

/// One thread's part of the attention of one sequence. scratch: of this thread.
template <class R, class KV>
void attend(const Team& team, const AttentionArgs<R, KV>& args, R* scratch) {
  const std::int64_t block = (std::max)(1, attention_rows / args.group),
                     blocks = (args.rows + block - 1) / block;
  // In a short chunk one thread takes several heads at once.
  const std::int64_t together =
      blocks > 1 ? 1
                 : std::max<std::int64_t>(
                       1, attention_rows / (args.group * std::max<std::int64_t>(args.rows, 1)));
  const Range share = team.share(blocks * args.n_kv_heads);
  for (std::int64_t task = share.begin, n; task < share.end; task += n) {
    n = (std::min)(together, share.end - task);
    const std::int64_t g = task / blocks, first = task % blocks * block;
    const Range heads{g, g + n}, rows{first, (std::min)(first + block, args.rows)};
    if constexpr (std::is_same_v<R, float>)
      simd::attention(args, heads, rows, reinterpret_cast<std::byte*>(scratch));
    else
      reference::attention(args, heads, rows);
  }
}

/// The arguments of a segment's sequence.
template <class R, class KV>
AttentionArgs<R, KV> of_segment(AttentionArgs<R, KV> a, const Segment& s,
                                const RingData<KV>& ring_k, const RingData<KV>& ring_v) {
  const std::int64_t row = s.first_row;
  a.q.data += row * a.q.stride;
  a.k.data += row * a.k.stride;
  a.v.data += row * a.v.stride;
  a.out += row * a.out_stride;
  if (a.log_sum) a.log_sum += row * a.n_kv_heads * a.group;
  a.ring_k = ring_k.of(s.state);
  a.ring_v = ring_v.of(s.state);
  a.position = s.position;
  a.rows = s.rows;
  return a;
}

/// The gradients of a segment's sequence; those in `forward` as of the first row.
template <class R, class KV>
AttentionBackwardArgs<R, KV> of_segment(AttentionBackwardArgs<R, KV> b, const Segment& s,
                                        const RingData<R>& dring_k, const RingData<R>& dring_v) {
  const std::int64_t row = s.first_row;
  b.dout += row * b.dout_stride;
  b.dq.data += row * b.dq.stride;
  b.dk.data += row * b.dk.stride;
  b.dv.data += row * b.dv.stride;
  b.dring_k = dring_k.of(s.state);
  b.dring_v = dring_v.of(s.state);
  b.forward.position = s.position;
  b.forward.rows = s.rows;
  return b;
}

}  // namespace detail

/// Threads take key/value heads and blocks of rows.
template <class R, class KV>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk& chunk,
                              const AttentionChunk<R, KV>& all) {
  const Team& team = cpu.team;
  R* const scratch = all.scratch + team.rank * round_up(all.scratch_size, alignment);
  for (const Segment& s : chunk.segments)
    detail::attend(team, detail::of_segment(all.args, s, all.ring_k, all.ring_v), scratch);
  team.barrier();  // the rings have been read
  if (all.update_rings)
    launch(cpu, chunk, UpdateRingsChunk<R, KV>{all.args, all.ring_k, all.ring_v});
}

/// Threads take rows.
template <class R, class KV>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk& chunk,
                              const UpdateRingsChunk<R, KV>& all) {
  for (const Segment& s : chunk.segments) {
    const auto a = detail::of_segment(all.args, s, all.ring_k, all.ring_v);
    const std::int64_t skip = std::max<std::int64_t>(0, a.rows - a.n_slots);
    const Range rows = cpu.team.share(a.rows - skip);
    for (int head = 0; head < a.n_kv_heads; ++head)
      reference::update_rings(a, head, {skip + rows.begin, skip + rows.end}, all.ring_k.of(s.state),
                              all.ring_v.of(s.state));
  }
  cpu.team.barrier();
}
template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk& chunk,
                              const UpdateRingsBackwardChunk<R>& all) {
  for (const Segment& s : chunk.segments) {
    const auto b = detail::of_segment(all.args, s, all.dring_k, all.dring_v);
    const Range rows = cpu.team.share(s.rows);
    for (int head = 0; head < b.forward.n_kv_heads; ++head)
      reference::update_rings_backward(b, head, rows);
  }
  cpu.team.barrier();
}

/// Its gradients. Threads take pairs of a sequence and a key/value head; all of them share each of the
/// pairs that are left over, by tiles of keys. Every sum has one order.
template <class R, class KV>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk& chunk,
                              const AttentionBackwardChunk<R, KV>& all) {
  const Team& team = cpu.team;
  const auto scratch_of = [&](int rank) {
    return all.scratch + rank * round_up(all.scratch_size, alignment);
  };
  const int heads = all.args.forward.n_kv_heads;
  const auto args = [&](std::int64_t task) {
    const Segment& s = chunk.segments[static_cast<std::size_t>(task / heads)];
    AttentionBackwardArgs<R, KV> b = detail::of_segment(all.args, s, all.dring_k, all.dring_v);
    b.forward = detail::of_segment(b.forward, s, all.ring_k, all.ring_v);
    return b;
  };
  const std::int64_t tasks = std::ssize(chunk.segments) * heads;
  if (all.args.dsinks != nullptr) {
    const Range own = team.share(heads);
    for (std::int64_t task = 0; task < tasks; ++task)
      if (task % heads >= own.begin && task % heads < own.end)
        reference::attention_backward_sinks(args(task), task % heads);
  }
  if constexpr (std::is_same_v<R, float>) {
    const std::int64_t whole = tasks / team.size * team.size;
    const Range own = team.share(whole);
    for (std::int64_t task = own.begin; task < own.end; ++task) {
      const AttentionBackwardArgs<R, KV> b = args(task);
      reference::attention_backward_start(b, task % heads, {0, b.forward.rows});
      simd::attention_backward(b, task % heads, {}, scratch_of(team.rank));
    }
    for (std::int64_t task = whole; task < tasks; ++task) {
      const AttentionBackwardArgs<R, KV> b = args(task);
      reference::attention_backward_start(b, task % heads, team.share(b.forward.rows));
      TileTeam tiles{team.rank, team.size};
      tiles.mine = new (scratch_of(team.rank)) ThreadProgress;
      tiles.before = reinterpret_cast<const ThreadProgress*>(
          scratch_of((team.rank + team.size - 1) % team.size));
      team.barrier();
      simd::attention_backward(b, task % heads, tiles, scratch_of(team.rank));
      team.barrier();
    }
  } else {
    const Range own = team.share(tasks);
    for (std::int64_t task = own.begin; task < own.end; ++task)
      reference::attention_backward(args(task), {task % heads, task % heads + 1});
  }
  team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
