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

template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const SiluMulArgs<R>& a) {
  const Range columns = cpu.team.share(a.columns, line_floats);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    const R *const gate = a.gate + i * a.gate_stride, *const up = a.up + i * a.up_stride;
    if constexpr (std::is_same_v<R, float>)
      simd::silu_mul(gate, up, columns, a.out + i * a.out_stride);
    else
      reference::silu_mul(gate, up, columns, a.out + i * a.out_stride);
  }
  cpu.team.barrier();
}

template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const SiluMulBackwardArgs<R>& a) {
  const Range columns = cpu.team.share(a.columns, line_floats);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    const R *const gate = a.gate + i * a.gate_stride, *const up = a.up + i * a.up_stride,
                   *const dout = a.dout + i * a.dout_stride;
    R *const dgate = a.dgate + i * a.dgate_stride, *const dup = a.dup + i * a.dup_stride;
    if constexpr (std::is_same_v<R, float>)
      simd::silu_mul_backward(gate, up, dout, columns, dgate, dup);
    else
      reference::silu_mul_backward(gate, up, dout, columns, dgate, dup);
  }
  cpu.team.barrier();
}

template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const GeluMulArgs<R>& a) {
  const Range columns = cpu.team.share(a.columns, line_floats);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    const R *const gate = a.gate + i * a.gate_stride, *const up = a.up + i * a.up_stride;
    if constexpr (std::is_same_v<R, float>)
      simd::gelu_mul(gate, up, columns, a.form, a.out + i * a.out_stride);
    else
      reference::gelu_mul(gate, up, columns, a.form, a.out + i * a.out_stride);
  }
  cpu.team.barrier();
}

template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const GeluMulBackwardArgs<R>& a) {
  const Range columns = cpu.team.share(a.columns, line_floats);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    const R *const gate = a.gate + i * a.gate_stride, *const up = a.up + i * a.up_stride,
                   *const dout = a.dout + i * a.dout_stride;
    R *const dgate = a.dgate + i * a.dgate_stride, *const dup = a.dup + i * a.dup_stride;
    if constexpr (std::is_same_v<R, float>)
      simd::gelu_mul_backward(gate, up, dout, columns, a.form, dgate, dup);
    else
      reference::gelu_mul_backward(gate, up, dout, columns, a.form, dgate, dup);
  }
  cpu.team.barrier();
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
