#pragma once
#include <samba/core/hash.hpp>

#include <cstdint>
#include <type_traits>

namespace samba::inline SAMBA_TARGET {

/// A value per token, beside the residual stream, that one branch writes and later ones read:
///
///   struct Memory : Channel<1024> {};
///
/// A layer says so in its type, `using Writes = Channels<Memory>;` or `using Reads = Channels<Memory>;`,
/// and calls c.write<Memory>(), c.read<Memory>(), c.gradient<Memory>() of its context.
template <int Width>
struct Channel {
  static_assert(Width > 0, "Channel<Width>: the width must be positive");
  static constexpr int width = Width;
};

/// A list of channels; void means none.
template <class... C>
struct Channels {};

/// The channel of the tokens' embeddings, as they entered the first branch. The model writes it.
template <int D>
struct Embedding : Channel<D> {};

namespace detail {

/// A number for a type: the FNV-1a hash of its name. (Not an address: with -fsanitize=undefined g++
/// 12 compares no addresses of templates in constants.)
template <class Key>
consteval std::uint64_t type_key() {
  return fnv1a(__PRETTY_FUNCTION__);
}

/// The width of a channel; of void `otherwise`.
template <class C, int otherwise>
inline constexpr int channel_width = C::width;
template <int otherwise>
inline constexpr int channel_width<void, otherwise> = otherwise;

/// The lists of a layer; empty where it has none.
template <class L>
struct WritesOf {
  using type = Channels<>;
};
template <class L>
  requires requires { typename L::Writes; }
struct WritesOf<L> {
  using type = typename L::Writes;
};
template <class L>
struct ReadsOf {
  using type = Channels<>;
};
template <class L>
  requires requires { typename L::Reads; }
struct ReadsOf<L> {
  using type = typename L::Reads;
};

/// One list of several.
template <class... Lists>
struct JoinedChannels {
  using type = Channels<>;
};
template <class... C>
struct JoinedChannels<Channels<C...>> {
  using type = Channels<C...>;
};
template <class... A, class... B, class... Lists>
struct JoinedChannels<Channels<A...>, Channels<B...>, Lists...>
    : JoinedChannels<Channels<A..., B...>, Lists...> {};

/// A channel that lends the state of its writer to its readers; see KeyValueChannel.
template <class C>
concept LendsState = requires { C::lends_state; };

/// True if a channel of the list lends a state.
template <class... C>
constexpr bool lends_state(Channels<C...>) {
  return (LendsState<C> || ...);
}

/// Where a chunk's values of a channel are, and their gradients in training: (rows, width). Of a
/// channel that lends a state also the views of that state and of its gradient.
struct ChannelPlace {
  std::uint64_t key = 0;
  void *data = nullptr, *gradient = nullptr;
  const void *state = nullptr, *state_gradient = nullptr;
};

}  // namespace detail
}  // namespace samba::inline SAMBA_TARGET
