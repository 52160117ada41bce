#pragma once
#include <samba/kernels/reference/selective_scan.hpp>
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

namespace detail {

/// The number of states computed side by side. (One with vectors of four floats: more would not be
/// worth the code.)
constexpr int scan_side_by_side(int N) {
  return lanes == 4 ? 1 : N % 4 == 0 ? 4 : N % 2 == 0 ? 2 : 1;
}

/// Calls f(n) for every group of `count` of the N states, with compile-time constants if N vectors
/// fit in registers.
template <int N, int count, class F>
[[gnu::always_inline]] inline void each_states(F&& f) {
  if constexpr (N <= lanes)
    unroll<N / count>([&](auto i) __attribute__((always_inline)) { f(i * count); });
  else
    for (int n = 0; n < N; n += count) f(n);
}

/// The decays of `count` states: 2^(delta A), where A points to the first of them.
template <int count>
[[gnu::always_inline]] inline void scan_decays(vec delta, const vec* A, vec (&decay)[count]) {
#pragma GCC unroll 8
  for (int i = 0; i < count; ++i) decay[i] = delta * A[i];
  exp2_below(decay);
}

}  // namespace detail

/// A vector of channels at a time; its N states stay in registers or in the L1 cache for all
/// tokens. exp(delta A) is computed as 2^(delta A log2(e)).
template <int N>
void selective_scan(const SelectiveScanArgs<float>& a, Range channels) {
  constexpr int count = detail::scan_side_by_side(N);
  // One loop for whole vectors and the remainder, because it is long and this compiles it once.
  for (std::int64_t c = channels.begin; c < channels.end; c += lanes) {
    const std::int64_t m = (std::min<std::int64_t>)(channels.end - c, lanes);
    vec A[N], h[N];
    for (int n = 0; n < N; ++n) {
      A[n] = load_part(a.A + n * a.channels + c, m) * vec(1.44269504f);
      h[n] = load_part(a.h + n * a.channels + c, m);
    }
    const vec D = load_part(a.D + c, m), dt_bias = load_part(a.dt_bias + c, m);
    for (std::int64_t t = 0; t < a.rows; ++t) {
      prefetch_row(a.x + c, t, a.rows, a.x_stride);
      prefetch_row(a.dt + c, t, a.rows, a.dt_stride);
      if (a.z) prefetch_row(a.z + c, t, a.rows, a.z_stride);
      const float* B = a.B + t * a.B_stride;
      const float* C = a.C + t * a.C_stride;
      const vec x = load_part(a.x + t * a.x_stride + c, m);
      const vec delta = softplus(load_part(a.dt + t * a.dt_stride + c, m) + dt_bias);
      const vec delta_x = delta * x;
      vec y = D * x;
      detail::each_states<N, count>([&](int n) __attribute__((always_inline)) {
        vec decay[count];
        detail::scan_decays(delta, A + n, decay);
        unroll<count>([&](auto i) __attribute__((always_inline)) {
          h[n + i] = fma(decay[i], h[n + i], delta_x * vec(B[n + i]));
          y = fma(vec(C[n + i]), h[n + i], y);
        });
      });
      if (a.before_gate) store_part(a.before_gate + t * a.before_gate_stride + c, y, m);
      if (a.z) y = y * silu(load_part(a.z + t * a.z_stride + c, m));
      store_part(a.y + t * a.y_stride + c, y, m);
    }
    for (int n = 0; n < N; ++n) store_part(a.h + n * a.channels + c, h[n], m);
  }
}

/// As reference::selective_scan_backward, a vector of channels at a time. kept: (pieces - 1, N,
/// scan_block); piece: for each of its tokens the state, the decay and, lane by lane, dB and dC
/// summed over the block's channels.
template <int N>
void selective_scan_backward(const SelectiveScanBackwardArgs<float>& b, Range channels, float* kept,
                             float* piece) {
  constexpr std::int64_t states = std::int64_t{N} * lanes;
  constexpr int count = detail::scan_side_by_side(N);
  constexpr float log2e = 1.44269504f, ln2 = 0.693147181f;
  const SelectiveScanArgs<float>& a = b.forward;
  const std::int64_t pieces = (a.rows + scan_piece - 1) / scan_piece;
  float* const decays = piece + (scan_piece + 1) * states;
  float* const sums = decays + scan_piece * states;
  for (std::int64_t first = channels.begin; first < channels.end; first += scan_block) {
    const Range block{first, (std::min)(first + scan_block, channels.end)};
    const auto kept_at = [&](std::int64_t p, int n, std::int64_t c) {
      return kept + ((p - 1) * N + n) * scan_block + c - first;
    };
    // What is the same for all tokens.
    struct Constants {
      vec A[N], dt_bias;
    };
    const auto constants = [&](std::int64_t c, std::int64_t m) {
      Constants k;
      for (int n = 0; n < N; ++n) k.A[n] = load_part(a.A + n * a.channels + c, m) * vec(log2e);
      k.dt_bias = load_part(a.dt_bias + c, m);
      return k;
    };
    const auto state_before = [&](std::int64_t p, std::int64_t c, std::int64_t m, vec(&h)[N]) {
      for (int n = 0; n < N; ++n)
        h[n] = p ? load(kept_at(p, n, c)) : load_part(a.h + n * a.channels + c, m);
    };

    // The forward step of one token: returns delta, and calls done(n, decay) when h[n] is updated.
    const auto advance = [&](std::int64_t t, std::int64_t c, std::int64_t m, const Constants& k,
                             vec(&h)[N], auto&& done) __attribute__((always_inline)) {
      const float* const B = a.B + t * a.B_stride;
      const vec delta = softplus(load_part(a.dt + t * a.dt_stride + c, m) + k.dt_bias);
      const vec delta_x = delta * load_part(a.x + t * a.x_stride + c, m);
      detail::each_states<N, count>([&](int n) __attribute__((always_inline)) {
        vec decay[count];
        detail::scan_decays(delta, k.A + n, decay);
        unroll<count>([&](auto i) __attribute__((always_inline)) {
          h[n + i] = fma(decay[i], h[n + i], delta_x * vec(B[n + i]));
          done(n + i, decay[i]);
        });
      });
      return delta;
    };

    for_each_vec(block, [&](std::int64_t c, std::int64_t m) {
      const Constants k = constants(c, m);
      vec h[N];
      state_before(0, c, m, h);
      for (std::int64_t p = 1; p < pieces; ++p) {
        for (std::int64_t t = (p - 1) * scan_piece; t < p * scan_piece; ++t)
          advance(t, c, m, k, h, [](int, vec) {});
        for (int n = 0; n < N; ++n) store(kept_at(p, n, c), h[n]);
      }
    });

    for (std::int64_t p = pieces - 1; p >= 0; --p) {
      const std::int64_t begin = p * scan_piece, end = (std::min)(begin + scan_piece, a.rows);
      std::fill_n(sums, (end - begin) * 2 * states, 0.f);
      for_each_vec(block, [&](std::int64_t c, std::int64_t m) {
        const Constants k = constants(c, m);
        vec h[N], deltas[scan_piece];
        state_before(p, c, m, h);
        for (int n = 0; n < N; ++n) store(piece + n * lanes, h[n]);
        for (std::int64_t t = begin; t < end; ++t) {
          float* const decay_at = decays + (t - begin) * states;
          float* const after = piece + (t - begin + 1) * states;
          const auto keep = [&](int n, vec decay) __attribute__((always_inline)) {
            store(decay_at + n * lanes, decay);
            store(after + n * lanes, h[n]);
          };
          deltas[t - begin] = advance(t, c, m, k, h, keep);
        }

        vec dh[N], dA[N], dD(0.f), ddt_bias(0.f);
        for (int n = 0; n < N; ++n) {
          dh[n] = load_part(b.dh + n * a.channels + c, m);
          dA[n] = vec(0.f);
        }
        const vec D = load_part(a.D + c, m);
        for (std::int64_t t = end - 1; t >= begin; --t) {
          const float *const B = a.B + t * a.B_stride, *const C = a.C + t * a.C_stride;
          const float* const decay_at = decays + (t - begin) * states;
          const float* const before = piece + (t - begin) * states;
          float* const sum = sums + (t - begin) * 2 * states;
          const vec x = load_part(a.x + t * a.x_stride + c, m),
                    z = a.z ? load_part(a.z + t * a.z_stride + c, m) : vec(0.f),
                    dy = load_part(b.dy + t * b.dy_stride + c, m), delta = deltas[t - begin],
                    delta_x = delta * x;
          vec g = a.z ? dy * silu(z) : dy;
          if (b.dbefore_gate) g += load_part(b.dbefore_gate + t * b.dbefore_gate_stride + c, m);
          vec y = D * x, from_decay(0.f), from_input(0.f);
          detail::each_states<N, 1>([&](int n) __attribute__((always_inline)) {
            const vec after = load(before + (N + n) * lanes);
            const vec h_gradient = fma(g, vec(C[n]), dh[n]);
            dh[n] = h_gradient * load(decay_at + n * lanes);
            const vec decayed = dh[n] * load(before + n * lanes);
            y = fma(vec(C[n]), after, y);
            dA[n] = fma(decayed, delta, dA[n]);
            from_decay = fma(decayed, k.A[n], from_decay);
            from_input = fma(h_gradient, vec(B[n]), from_input);
            float *const dB = sum + n * lanes, *const dC = sum + (N + n) * lanes;
            store(dB, fma(h_gradient, delta_x, load(dB)));
            store(dC, fma(g, after, load(dC)));
          });
          const vec raw = load_part(a.dt + t * a.dt_stride + c, m) + k.dt_bias;
          const vec ddt = fma(from_decay, vec(ln2), from_input * x) * sigmoid(raw);
          if (b.dz) store_part(b.dz + t * b.dz_stride + c, dy * y * silu_derivative(z), m);
          store_part(b.dx + t * b.dx_stride + c, fma(from_input, delta, g * D), m);
          store_part(b.ddt + t * b.ddt_stride + c, ddt, m);
          dD = fma(g, x, dD);
          ddt_bias += ddt;
        }
        const auto add = [&](float* to, vec v) { store_part(to, load_part(to, m) + v, m); };
        for (int n = 0; n < N; ++n) {
          store_part(b.dh + n * a.channels + c, dh[n], m);
          add(b.dA + n * a.channels + c, dA[n]);
        }
        add(b.dD + c, dD);
        add(b.ddt_bias + c, ddt_bias);
      });
      for (std::int64_t t = begin; t < end; ++t) {
        float* const dBC = b.dBC + t * b.dBC_stride + first / scan_block * 2 * N;
        for (int n = 0; n < 2 * N; ++n)
          dBC[n] = sum(load(sums + (t - begin) * 2 * states + n * lanes));
      }
    }
  }
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
