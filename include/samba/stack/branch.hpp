#pragma once
#include <samba/kernels/elementwise.hpp>
#include <samba/kernels/rmsnorm.hpp>
#include <samba/stack/layer.hpp>

namespace samba::inline SAMBA_TARGET {

/// Where a branch's weights are shared: a key and the branch's number under it; 0 if they are not.
struct Use {
  std::uint64_t shared = 0;
  int number = 0;
};

/// What a tree of a stack holds at each branch: its weights, its state, or nothing.
template <class T>
struct WeightsOf {
  template <class B>
  using of = typename B::template Weights<T>;
};
template <class T, class KV>
struct StateOf {
  template <class B>
  using of = typename B::template State<T, KV>;
};
struct NothingOf {
  template <class B>
  struct of {};
};

/// Scratch memory of a chunk; each branch lays its buffers out from the beginning.
struct Workspace {
  std::byte* block = nullptr;
  std::int64_t rows = 0, threads = 1;
};

/// A residual branch: x += layer(rmsnorm(x)), or x += layer(x) if Normed is false.
template <class L, bool Normed>
struct Branch {
  static constexpr int d_model = L::d_model;
  static constexpr bool normed = Normed;
  using Layer = L;

  template <class T>
  struct Weights {
    Vector<Real<T>, d_model> norm;
    typename L::template Weights<T> layer;
  };
  template <class T, class KV>
  using State = typename L::template State<T, KV>;

  template <class Kind>
  using Tree = typename Kind::template of<Branch>;

  static constexpr void walk(auto& tree, auto&& f, Use use) {
    f(std::type_identity<Branch>{}, tree, use);
  }

  template <class T>
  struct Scratch {
    Rows<Real<T>, d_model> normed, out;
    typename L::template Scratch<T> layer;

    /// Places the buffers in the workspace; returns the bytes they take.
    std::int64_t place(const Workspace& workspace) {
      ScratchPlacer place{{workspace.block}, workspace.rows, workspace.threads};
      if constexpr (Normed) place(normed);
      place(out);
      L::template Scratch<T>::visit(layer, place);
      return place.placer.offset;
    }
  };

  template <class T, class KV>
  static void forward(const Chunk& chunk, const Weights<T>& w, States<State<T, KV>> s,
                      const Workspace& workspace, float norm_eps, Rows<Real<T>, d_model> x) {
    Scratch<T> t;
    t.place(workspace);
    if constexpr (Normed) kernels::rmsnorm(chunk.team, w.norm, norm_eps, x, t.normed);
    L::forward(chunk, w.layer, s, t.layer, Normed ? t.normed : x, t.out);
    kernels::add(chunk.team, t.out, x);
  }
};

}  // namespace samba::inline SAMBA_TARGET
