#pragma once
#include <samba/kernels/matmul.hpp>

#include <algorithm>
#include <cmath>

namespace samba::inline SAMBA_TARGET::kernels {

namespace reference {

/// sum_k x[k] * w[n, k]
template <class T>
Real<T> dot(const T* w, std::int64_t n, std::int64_t K, const Real<T>* x, Real<T> start) {
  Real<T> sum = start;
  for (std::int64_t k = 0; k < K; ++k)
    sum += static_cast<Real<T>>(static_cast<T>(x[k])) *
           static_cast<Real<T>>(w[Packing<T>::index(n, k, K)]);
  return sum;
}
/// Sums are integers within 32 k and floats across them.
inline float dot(const int8* w, std::int64_t n, std::int64_t K, const float* x, float start) {
  const auto* block =
      reinterpret_cast<const Int8Block*>(w) + n / panel_width * Packing<int8>::groups(K);
  const auto r = n % panel_width;
  float sum = start;
  for (std::int64_t begin = 0; begin < K; begin += Int8Block::size, ++block) {
    const std::int64_t some = std::min<std::int64_t>(K - begin, Int8Block::size);
    const Int8Scale scale(largest_magnitude(x + begin, some));
    long part = 0;
    for (std::int64_t k = 0; scale.is_finite() && k < some; ++k)
      part += std::lrint(x[begin + k] * scale.inverse) * (block->q[k / 4][r][k % 4] - 128);
    sum += static_cast<float>(part) * scale.value * block->scale[r];
  }
  return sum;
}

/// The same for q4, where minimum * sum(x) is added for each 32 k.
inline float dot(const q4* w, std::int64_t n, std::int64_t K, const float* x, float start) {
  const auto* block =
      reinterpret_cast<const Q4Block*>(w) + n / panel_width * Packing<q4>::groups(K);
  const auto r = n % panel_width;
  float sum = start;
  for (std::int64_t begin = 0; begin < K; begin += Q4Block::size, ++block) {
    const std::int64_t some = std::min<std::int64_t>(K - begin, Q4Block::size);
    const Int8Scale scale(largest_magnitude(x + begin, some));
    long part = 0, total = 0;
    for (std::int64_t k = 0; scale.is_finite() && k < some; ++k) {
      const long q = std::lrint(x[begin + k] * scale.inverse);
      part += q * Packing<q4>::level(*block, r, k);
      total += q;
    }
    sum += static_cast<float>(part) * scale.value * f16_to_float(block->scale[r]);
    sum += static_cast<float>(total) * scale.value * f16_to_float(block->minimum[r]);
  }
  return sum;
}

/// For the outputs in a range of panels.
template <class T>
void matmul(const MatmulArgs<T>& a, Range panels) {
  const std::int64_t end = (std::min)(panels.end * panel_width, a.N);
  for (std::int64_t i = 0; i < a.rows; ++i)
    for (std::int64_t n = panels.begin * panel_width; n < end; ++n)
      a.out[i * a.out_stride + n] =
          dot(a.w, n, a.K, a.x + i * a.x_stride, a.bias ? a.bias[n] : Real<T>{0});
}

/// dx[i, k] = sum_n dout[i, n] w[n, k] for the columns k of some panels. Operands are converted to
/// the type of the weights.
template <class T>
void matmul_backward_input(const MatmulBackwardArgs<T>& a, Range panels) {
  using R = Real<T>;
  const std::int64_t end = (std::min)(panels.end * panel_width, a.K);
  for (std::int64_t i = 0; i < a.rows; ++i)
    for (std::int64_t k = panels.begin * panel_width; k < end; ++k) {
      R& to = a.dx[i * a.dx_stride + k];
      R sum = a.add ? to : R{0};
      for (std::int64_t n = 0; n < a.N; ++n)
        sum += static_cast<R>(static_cast<T>(a.dout[i * a.dout_stride + n])) *
               static_cast<R>(a.w[Packing<T>::index(n, k, a.K)]);
      to = sum;
    }
}

/// dw[n, k] += sum_i dout[i, n] x[i, k] and dbias[n] += sum_i dout[i, n] for a range of outputs n.
template <class T>
void matmul_backward_weight(const MatmulBackwardArgs<T>& a, Range outputs) {
  using R = Real<T>;
  const auto rounded = [](R value) { return static_cast<R>(static_cast<T>(value)); };
  for (std::int64_t n = outputs.begin; n < outputs.end; ++n) {
    for (std::int64_t i = 0; i < a.rows; ++i) {
      const R d = rounded(a.dout[i * a.dout_stride + n]);
      for (std::int64_t k = 0; k < a.K; ++k)
        a.dw[n * a.K + k] += d * rounded(a.x[i * a.x_stride + k]);
    }
    for (std::int64_t i = 0; i < (a.dbias ? a.rows : 0); ++i)
      a.dbias[n] += a.dout[i * a.dout_stride + n];
  }
}

}  // namespace reference
}  // namespace samba::inline SAMBA_TARGET::kernels
