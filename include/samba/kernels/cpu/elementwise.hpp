#pragma once
#include <samba/kernels/elementwise.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/elementwise.hpp>
#endif

#include <algorithm>

namespace samba::inline SAMBA_TARGET::kernels {

// Threads share the columns, or, for copies, the rows.

namespace detail {

/// Calls kernel(gate, up, columns, out) for every row.
template <class R, class Kernel>
void for_each_gated(const Cpu& cpu, const SiluMulArgs<R>& a, Kernel kernel) {
  const Range columns = cpu.team.share(a.columns, line_floats);
  for (std::int64_t i = 0; i < a.rows; ++i)
    kernel(a.gate + i * a.gate_stride, a.up + i * a.up_stride, columns, a.out + i * a.out_stride);
  cpu.team.barrier();
}
/// Calls kernel(gate, up, dout, columns, dgate, dup) for every row.
template <class R, class Kernel>
void for_each_gated(const Cpu& cpu, const SiluMulBackwardArgs<R>& a, Kernel kernel) {
  const Range columns = cpu.team.share(a.columns, line_floats);
  for (std::int64_t i = 0; i < a.rows; ++i)
    kernel(a.gate + i * a.gate_stride, a.up + i * a.up_stride, a.dout + i * a.dout_stride, columns,
           a.dgate + i * a.dgate_stride, a.dup + i * a.dup_stride);
  cpu.team.barrier();
}

}  // namespace detail

template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const SiluMulArgs<R>& a) {
  detail::for_each_gated(cpu, a, [](const auto&... row) {
    if constexpr (std::is_same_v<R, float>)
      simd::silu_mul(row...);
    else
      reference::silu_mul(row...);
  });
}

template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const SiluMulBackwardArgs<R>& a) {
  detail::for_each_gated(cpu, a, [](const auto&... row) {
    if constexpr (std::is_same_v<R, float>)
      simd::silu_mul_backward(row...);
    else
      reference::silu_mul_backward(row...);
  });
}

template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const SigmoidMulArgs<R>& a) {
  detail::for_each_gated(cpu, a, [](const auto&... row) {
    if constexpr (std::is_same_v<R, float>)
      simd::sigmoid_mul(row...);
    else
      reference::sigmoid_mul(row...);
  });
}

template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const SigmoidMulBackwardArgs<R>& a) {
  detail::for_each_gated(cpu, a, [](const auto&... row) {
    if constexpr (std::is_same_v<R, float>)
      simd::sigmoid_mul_backward(row...);
    else
      reference::sigmoid_mul_backward(row...);
  });
}

template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const GeluMulArgs<R>& a) {
  detail::for_each_gated(cpu, a, [&](const R* gate, const R* up, Range columns, R* out) {
    if constexpr (std::is_same_v<R, float>)
      simd::gelu_mul(gate, up, columns, a.form, out);
    else
      reference::gelu_mul(gate, up, columns, a.form, out);
  });
}

template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const GeluMulBackwardArgs<R>& a) {
  detail::for_each_gated(
      cpu, a, [&](const R* gate, const R* up, const R* dout, Range columns, R* dgate, R* dup) {
        if constexpr (std::is_same_v<R, float>)
          simd::gelu_mul_backward(gate, up, dout, columns, a.form, dgate, dup);
        else
          reference::gelu_mul_backward(gate, up, dout, columns, a.form, dgate, dup);
      });
}

template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const SoftCapArgs<R>& a) {
  const Range columns = cpu.team.share(a.columns, line_floats);
  for (std::int64_t i = 0; i < a.rows; ++i)
    if constexpr (std::is_same_v<R, float>)
      simd::soft_cap(a.cap, columns, a.x + i * a.x_stride);
    else
      reference::soft_cap(a.cap, columns, a.x + i * a.x_stride);
  cpu.team.barrier();
}

template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const SoftCapBackwardArgs<R>& a) {
  const Range columns = cpu.team.share(a.columns, line_floats);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    const R* const x = a.x + i * a.x_stride;
    if constexpr (std::is_same_v<R, float>)
      simd::soft_cap_backward(a.cap, x, columns, a.dx + i * a.dx_stride);
    else
      reference::soft_cap_backward(a.cap, x, columns, a.dx + i * a.dx_stride);
  }
  cpu.team.barrier();
}

template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const AddArgs<R, R>& a) {
  const Range columns = cpu.team.share(a.columns, line_floats);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    const R* const term = a.term + i * a.term_stride;
    R* const to = a.to + i * a.to_stride;
    if constexpr (std::is_same_v<R, float>) {
      if (a.factor == 1)
        simd::add(term, columns, to);
      else
        simd::add_scaled(term, a.factor, columns, to);
    } else if (a.factor == 1) {
      reference::add(term, columns, to);
    } else {
      reference::add_scaled(term, static_cast<R>(a.factor), columns, to);
    }
  }
  cpu.team.barrier();
}

template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const CopyArgs<R, R>& a) {
  const Range rows = cpu.team.share(a.rows);
  for (std::int64_t i = rows.begin; i < rows.end; ++i) {
    R* const to = a.to + i * a.to_stride;
    if (a.factor == 0)
      std::fill_n(to, a.columns, R{0});
    else if (a.factor == 1)
      std::copy_n(a.from + i * a.from_stride, a.columns, to);
    else
      reference::scale(a.from + i * a.from_stride, static_cast<R>(a.factor), a.columns, to);
  }
  cpu.team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
