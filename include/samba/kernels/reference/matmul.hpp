#pragma once
#include <samba/core/tensor.hpp>

#include <algorithm>

namespace samba::inline SAMBA_TARGET::kernels {

/// out[i, n] = bias[n] + sum_k x[i, k] * w[n, k] for i < rows and the outputs n of panels
/// [panels.begin, panels.end).
template <class T>
struct MatmulArgs {
  const T* w;           ///< (N, K), packed (see packed_index)
  const Real<T>* bias;  ///< (N), or null
  const Real<T>* x;     ///< (rows, K)
  std::int64_t x_stride;
  Real<T>* out;  ///< (rows, N)
  std::int64_t out_stride;
  std::int64_t rows, N, K;
};

namespace reference {

template <class T>
void matmul(const MatmulArgs<T>& a, Range panels) {
  const std::int64_t end = std::min(panels.end * panel_width, a.N);
  for (std::int64_t i = 0; i < a.rows; ++i)
    for (std::int64_t n = panels.begin * panel_width; n < end; ++n) {
      Real<T> sum = a.bias ? a.bias[n] : Real<T>{0};
      for (std::int64_t k = 0; k < a.K; ++k)
        sum += a.x[i * a.x_stride + k] * static_cast<Real<T>>(a.w[packed_index(n, k, a.K)]);
      a.out[i * a.out_stride + n] = sum;
    }
}

}  // namespace reference
}  // namespace samba::inline SAMBA_TARGET::kernels
