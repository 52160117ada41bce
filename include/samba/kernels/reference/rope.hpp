#pragma once
#include <samba/kernels/rope.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

namespace reference {

/// Rotates one head in place, in half-split pairs: channels i and i + half, i < half, by angle i.
/// Channels from 2 * half on are unchanged.
template <class R>
void rope(const R* cos, const R* sin, int half, R* head) {
  for (int i = 0; i < half; ++i) {
    const R a = head[i], b = head[i + half];
    head[i] = a * cos[i] - b * sin[i];
    head[i + half] = a * sin[i] + b * cos[i];
  }
}

/// Rotates by the negative angles: the transposed map, which propagates gradients.
template <class R>
void rope_backward(const R* cos, const R* sin, int half, R* head) {
  for (int i = 0; i < half; ++i) {
    const R a = head[i], b = head[i + half];
    head[i] = a * cos[i] + b * sin[i];
    head[i + half] = b * cos[i] - a * sin[i];
  }
}

}  // namespace reference
}  // namespace samba::inline SAMBA_TARGET::kernels
