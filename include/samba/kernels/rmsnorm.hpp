#pragma once
#include <samba/core/chunk.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/rmsnorm.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels {

namespace detail {

template <class R>
[[gnu::noinline]] void rmsnorm_rows(const Team& team, std::int64_t count, std::int64_t N,
                                    const R* weight, float eps, const R* x, std::int64_t x_stride,
                                    R* out, std::int64_t out_stride) {
  const Range rows = team.share(count);
  for (std::int64_t i = rows.begin; i < rows.end; ++i)
    if constexpr (std::is_same_v<R, float>)
      simd::rmsnorm(x + i * x_stride, weight, eps, N, out + i * out_stride);
    else
      reference::rmsnorm(x + i * x_stride, weight, R{eps}, N, out + i * out_stride);
  team.barrier();
}

template <class R>
[[gnu::noinline]] void rmsnorm_backward_rows(const Team& team, std::int64_t count, std::int64_t N,
                                             const R* weight, float eps, const R* x,
                                             std::int64_t x_stride, const R* dout,
                                             std::int64_t dout_stride, R* inverse, R* dx,
                                             std::int64_t dx_stride, R* dweight) {
  const Range rows = team.share(count);
  for (std::int64_t i = rows.begin; i < rows.end; ++i) {
    const R *row = x + i * x_stride, *dy = dout + i * dout_stride;
    if constexpr (std::is_same_v<R, float>) {
      inverse[i] = simd::rms_inverse(row, eps, N);
      simd::rmsnorm_backward(row, weight, inverse[i], N, dy, dx + i * dx_stride);
    } else {
      inverse[i] = reference::rms_inverse(row, R{eps}, N);
      reference::rmsnorm_backward(row, weight, inverse[i], N, dy, dx + i * dx_stride);
    }
  }
  team.barrier();
  const Range columns = team.share(N, line_floats);
  for (std::int64_t i = 0; i < count; ++i) {
    const R *row = x + i * x_stride, *dy = dout + i * dout_stride;
    if constexpr (std::is_same_v<R, float>)
      simd::rmsnorm_backward_weight(row, inverse[i], dy, columns, dweight);
    else
      reference::rmsnorm_backward_weight(row, inverse[i], dy, columns, dweight);
  }
  team.barrier();
}

}  // namespace detail

/// out = x / sqrt(mean(x^2) + eps) * weight for each row. x, out: (rows, N); out may be x.
/// Threads take rows.
template <class R, int N>
void rmsnorm(const Team& team, const Vector<R, N>& weight, float eps,
             std::type_identity_t<In<R, N>> x, std::type_identity_t<Out<R, N>> out) {
  detail::rmsnorm_rows<R>(team, x.count, N, weight.data(), eps, x.data, x.stride, out.data,
                          out.stride);
}

/// dx += the gradient of x and dweight += that of the weight, for dout that of rmsnorm's out.
/// inverse: (rows) of scratch. Threads take rows, then columns.
template <class R, int N>
void rmsnorm_backward(const Team& team, const Vector<R, N>& weight, float eps,
                      std::type_identity_t<In<R, N>> x, std::type_identity_t<In<R, N>> dout,
                      std::type_identity_t<Rows<R, 1>> inverse, std::type_identity_t<Rows<R, N>> dx,
                      Vector<R, N>& dweight) {
  detail::rmsnorm_backward_rows<R>(team, x.count, N, weight.data(), eps, x.data, x.stride,
                                   dout.data, dout.stride, inverse.data, dx.data, dx.stride,
                                   dweight.data());
}

}  // namespace samba::inline SAMBA_TARGET::kernels
