#pragma once
#include <samba/kernels/cross_entropy.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/cross_entropy.hpp>
#endif

#include <algorithm>

namespace samba::inline SAMBA_TARGET::kernels {

/// Threads share the rows.
template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const CrossEntropyArgs<R>& a) {
  const Range rows = cpu.team.share(a.rows);
  for (std::int64_t i = rows.begin; i < rows.end; ++i) {
    R* const logits = a.logits + i * a.stride;
    const R weight = a.weights ? static_cast<R>(a.weights[i]) : R{1};
    if (a.targets[i] < 0 || weight == 0) {
      a.losses[i] = 0;
      std::fill_n(logits, a.n, R{0});
    } else if constexpr (std::is_same_v<R, float>) {
      a.losses[i] = weight * simd::cross_entropy(logits, a.n, a.targets[i], weight * a.scale);
    } else {
      a.losses[i] = weight * reference::cross_entropy(logits, a.n, a.targets[i], weight * a.scale);
    }
  }
  cpu.team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
