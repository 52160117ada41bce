#pragma once
/// \file
/// What follows from a model's types and its device (Policy), and what a forward or backward pass is
/// called with (Context).
#include <samba/core/channel.hpp>
#include <samba/core/parallel.hpp>
#include <samba/core/tensor.hpp>

#include <cstdint>
#include <span>
#include <type_traits>

namespace samba::inline SAMBA_TARGET {

/// The processor: the threads that call the same operations together.
struct Cpu {
  Team team;
};

namespace detail {
/// The type of activations on a device, that go with matrices of type T.
template <class T, class Device>
struct ActivationOf {
  using type = Real<T>;
};
}  // namespace detail

/// All types of a pass through a model. T: how its matrices are stored; KV: keys and values; Device:
/// where it runs.
template <class T, class KV = Real<T>, class Device = Cpu>
struct Policy {
  using weight = T;
  using kv = KV;
  using device = Device;
  using real = Real<T>;
  using act = typename detail::ActivationOf<T, Device>::type;
  using residual = Real<T>;
};

/// How matrices are stored: float, bf16, int8, q4, double or RowMajor<E>.
template <class P>
using Weight = typename P::weight;
/// Keys and values.
template <class P>
using KeyValue = typename P::kv;
/// Activations between operations.
template <class P>
using Act = typename P::act;
/// The residual stream.
template <class P>
using Residual = typename P::residual;
namespace detail {
template <class T, class KV, class Device>
struct Types<Policy<T, KV, Device>> {
  using Real = typename Types<T>::Real;
};
}  // namespace detail

/// The policy of gradients: of weights by rows, of states and of keys and values in Real<P>.
template <class P>
using Gradients = Policy<Master<Real<P>>, Real<P>, typename P::device>;

/// Activations that an operation reads, and that it writes; what it writes never overlaps what it
/// reads, unless it says so.
template <class P, int C>
using In = RowsArgument<const Act<P>, C>;
template <class P, int C>
using Out = RowsArgument<Act<P>, C>;

/// The rows of one sequence in a chunk: `rows` tokens from `first_row`, the first at `position`;
/// its state is number `state`.
struct Segment {
  std::int64_t position = 0, first_row = 0, rows = 0, state = 0;
};

/// Tokens that go through the model together. They may belong to several sequences.
struct Chunk {
  std::span<const Segment> segments;  ///< in the device's memory
  std::int64_t rows = 0;              ///< of all segments
};

/// What operations and layers are called with.
template <class P>
struct Context : Chunk {
  typename P::device device;
  float norm_eps = 0;  ///< of the norms that name none
  std::span<const detail::ChannelPlace> channels = {};

  /// A channel's values, (rows, M::width), for its writer and for its readers; `none` for void.
  template <class M>
  auto write() const {
    return rows_of<M, Act<P>>(&detail::ChannelPlace::data);
  }
  template <class M>
  auto read() const {
    return rows_of<M, const Act<P>>(&detail::ChannelPlace::data);
  }
  /// Their gradients: readers add to them, and then the writer reads them.
  template <class M>
  auto gradient() const {
    return rows_of<M, Act<P>>(&detail::ChannelPlace::gradient);
  }

  /// The state that a channel lends, as the chunk found it, and the gradient of that state.
  template <class M>
  const auto& lent() const {
    using State = typename M::template State<P>;
    return *static_cast<const State*>(find_channel(detail::type_key<M>())->state);
  }
  template <class M>
  const auto& lent_gradient() const {
    using State = typename M::template State<Gradients<P>>;
    return *static_cast<const State*>(find_channel(detail::type_key<M>())->state_gradient);
  }

  /// The place of a channel by its key, or null.
  const detail::ChannelPlace* find_channel(std::uint64_t key) const {
    for (const detail::ChannelPlace& place : channels)
      if (place.key == key) return &place;
    return nullptr;
  }

 private:
  template <class M, class E>
  auto rows_of([[maybe_unused]] void* detail::ChannelPlace::* which) const {
    if constexpr (std::is_void_v<M>) {
      return none;
    } else {
      // It is there: the model has checked that.
      const detail::ChannelPlace* const place = find_channel(detail::type_key<M>());
      return Rows<E, M::width>{static_cast<E*>(place->*which), this->rows};
    }
  }
};

namespace detail {

template <class Device, class Args>
concept HasLauncher = requires(const Device& device, const Chunk& chunk, const Args& args) {
  launch(device, chunk, args);
};

/// Calls launch(device, chunk, args), which is found where this is instantiated: in kernels/cpu for
/// the processor, in cuda for a graphics card.
template <class P, class Args>
void launch_on(const Context<P>& c, const Args& args) {
  constexpr bool found = HasLauncher<typename P::device, Args>;
  static_assert(
      found,
      "samba: this operation has no launcher for the device: include <samba/kernels/cpu.hpp> "
      "or, for CUDA, <samba/cuda.cuh>; or it does not exist there");
  if constexpr (found) launch(c.device, static_cast<const Chunk&>(c), args);
}

}  // namespace detail

}  // namespace samba::inline SAMBA_TARGET
