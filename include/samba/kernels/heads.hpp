#pragma once
#include <samba/core/context.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// Heads of activations, grouped by key/value head: token i's heads for key/value head g are
/// adjacent, starting at data + i * stride + g * head_stride.
template <class R>
struct HeadRows {
  R* data = nullptr;
  std::int64_t stride = 0, head_stride = 0;

  R* at(std::int64_t token, std::int64_t g) const {
    return data + token * stride + g * head_stride;
  }
};

/// (rows, KvHeads, Group, HeadDim) with any strides between tokens and between key/value heads.
/// Rows in which the heads are adjacent convert to it.
template <class R, int KvHeads, int Group, int HeadDim>
struct Heads : HeadRows<R> {
  std::int64_t rows = 0;

  constexpr Heads(R* first, std::int64_t n, std::int64_t to_next_row, std::int64_t to_next_head)
      : HeadRows<R>{first, to_next_row, to_next_head}, rows(n) {}
  template <class E>
    requires std::is_convertible_v<E*, R*>
  constexpr Heads(const Heads<E, KvHeads, Group, HeadDim>& x)
      : Heads(x.data, x.rows, x.stride, x.head_stride) {}
  template <class E>
    requires std::is_convertible_v<E*, R*>
  constexpr Heads(Rows<E, KvHeads * Group * HeadDim> x)
      : Heads(x.data, x.rows, x.stride, std::int64_t{Group} * HeadDim) {}
};

/// Queries, keys and values in one row per token: for each key/value head its query heads, then its
/// key head, then its value head.
template <class R, int KvHeads, int Group, int HeadDim>
struct FusedHeads {
  Heads<R, KvHeads, Group, HeadDim> q;
  Heads<R, KvHeads, 1, HeadDim> k, v;

  constexpr explicit FusedHeads(Rows<R, KvHeads*(Group + 2) * HeadDim> qkv)
      : q(qkv.data, qkv.rows, qkv.stride, width),
        k(head(qkv.data, Group), qkv.rows, qkv.stride, width),
        v(head(qkv.data, Group + 1), qkv.rows, qkv.stride, width) {}

 private:
  // A view of no rows may be null, and offsetting a null pointer is undefined.
  static constexpr R* head(R* row, int i) { return row ? row + i * HeadDim : nullptr; }

  static constexpr std::int64_t width = (Group + 2) * HeadDim;
};

}  // namespace samba::inline SAMBA_TARGET::kernels

namespace samba::inline SAMBA_TARGET {

/// Heads as an argument that may be left out.
template <class R, int KvHeads, int Group, int HeadDim>
struct Optional<kernels::Heads<R, KvHeads, Group, HeadDim>> : kernels::HeadRows<R> {
  constexpr Optional(None = none) {}
  constexpr Optional(const kernels::Heads<R, KvHeads, Group, HeadDim>& x)
      : kernels::HeadRows<R>(x) {}
};

}  // namespace samba::inline SAMBA_TARGET
