#pragma once
#include <samba/kernels/elementwise.hpp>
#include <samba/kernels/rmsnorm.hpp>
#include <samba/stack/layer.hpp>

#include <cstring>

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

/// Where a forward pass leaves what its backward pass needs: of each branch in turn its input, and
/// what its layer computed from it. With `recompute` only the input, and the backward pass computes
/// the rest anew. With `fresh` every sequence starts from an empty state: those of all branches may
/// then stand in one place, where each branch clears what it uses.
struct Tape {
  std::byte* block = nullptr;
  std::int64_t offset = 0;
  std::byte* scratch = nullptr;  ///< of one branch
  std::int64_t rows = 0, threads = 1;
  bool recompute = false, fresh = false;
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
    std::int64_t place(const Workspace& workspace, bool keep = false) {
      ScratchPlacer place{{workspace.block}, workspace.rows, workspace.threads, keep};
      if constexpr (Normed) place(normed);
      place(out);
      L::template Scratch<T>::visit(layer, place);
      return place.placer.offset;
    }
  };

  template <class T, class KV>
  [[gnu::noinline]] static void forward(const Chunk& chunk, const Weights<T>& w,
                                        States<State<T, KV>> s, const Workspace& workspace,
                                        float norm_eps, Rows<Real<T>, d_model> x) {
    Scratch<T> t;
    t.place(workspace);
    run<T, KV>(chunk, w, s, t, norm_eps, x, x);
  }

  /// A branch's part of a tape: its input, and what its layer computed.
  template <class T>
  struct Record {
    Rows<Real<T>, d_model> x;
    Scratch<T> scratch;

    /// Places it at the end of the tape; returns its bytes there.
    std::int64_t place(const Tape& tape) {
      ScratchPlacer input{{tape.block ? tape.block + tape.offset : nullptr}, tape.rows};
      input(x);
      std::int64_t bytes = input.placer.offset;
      std::byte* const behind = tape.block ? tape.block + tape.offset + bytes : nullptr;
      const std::int64_t kept =
          scratch.place({tape.recompute ? tape.scratch : behind, tape.rows, tape.threads}, true);
      return checked_sum("tokens", bytes, tape.recompute ? 0 : kept);
    }
  };

  /// What the backward pass of a branch needs beside its record.
  template <class T>
  struct BackwardScratch {
    static_assert(sizeof(detail::CheckTrained<L>) > 0);
    Rows<Real<T>, d_model> du;
    Rows<Real<T>, 1> inverse;
    typename detail::BackwardOf<L, T>::type layer;

    std::int64_t place(const Workspace& workspace) {
      ScratchPlacer place{{workspace.block}, workspace.rows, workspace.threads};
      place(du), place(inverse);
      detail::BackwardOf<L, T>::type::visit(layer, place);
      return place.placer.offset;
    }
  };

  /// Bytes that tape.scratch needs for this branch.
  template <class T>
  static std::int64_t scratch_bytes(Tape tape) {
    tape.block = tape.scratch = nullptr;
    Record<T> record;
    const std::int64_t kept = record.scratch.place({nullptr, tape.rows, tape.threads}, true);
    BackwardScratch<T> d;
    return checked_sum("tokens", tape.recompute ? kept : 0,
                       d.place({nullptr, tape.rows, tape.threads}));
  }

  /// forward, leaving its record on the tape.
  template <class T, class KV>
  static void record(const Chunk& chunk, const Weights<T>& w, States<State<T, KV>> s, Tape& tape,
                     float norm_eps, Rows<Real<T>, d_model> x) {
    Record<T> record;
    tape.offset += record.place(tape);
    kernels::copy(chunk.team, x, record.x);
    if (tape.fresh) clear(chunk, s);
    run<T, KV>(chunk, w, s, record.scratch, norm_eps, record.x, x);
  }

  /// dx: the gradient of what the branch left, then of what it found; g is added to. s: the states
  /// that the branch found; again: a copy, which recomputing advances; ds: the gradients of the
  /// states that it left, then of those that it found.
  template <class T, class KV>
  static void backward(const Chunk& chunk, const Weights<T>& w, Weights<Master<Real<T>>>& g,
                       States<State<T, KV>> s, States<State<T, KV>> again,
                       States<State<T, Real<T>>> ds, Tape& tape, float norm_eps,
                       Rows<Real<T>, d_model> dx) {
    Record<T> record;
    Tape sizes = tape;
    sizes.block = sizes.scratch = nullptr;
    tape.offset -= record.place(sizes);
    record.place(tape);
    std::byte* scratch = tape.scratch;
    if (tape.recompute) {
      scratch += record.scratch.place({tape.scratch, tape.rows, tape.threads}, true);
      if (tape.fresh) clear(chunk, again);
      run<T, KV>(chunk, w, again, record.scratch, norm_eps, record.x, record.scratch.out);
    }
    BackwardScratch<T> d;
    d.place({scratch, tape.rows, tape.threads});
    if (tape.fresh) clear(chunk, ds);
    const In<Real<T>, d_model> in = Normed ? record.scratch.normed : record.x;
    if constexpr (detail::HasBackward<L>)  // or CheckTrained has said that it has not
      detail::call_backward<L, T, KV>(chunk, w.layer, g.layer, s, ds, record.scratch.layer, d.layer,
                                      in, In<Real<T>, d_model>(dx), d.du);
    if constexpr (Normed)
      kernels::rmsnorm_backward(chunk.team, w.norm, norm_eps, record.x, d.du, d.inverse, dx,
                                g.norm);
    else
      kernels::add(chunk.team, d.du, dx);
  }

 private:
  /// Empties the states of the sequences that have rows.
  template <class S>
  static void clear(const Chunk& chunk, States<S> states) {
    if constexpr (!std::is_empty_v<S>) {
      chunk.team.barrier();  // what was in their place has been used
      for (std::size_t i = 0; i < chunk.segments.size(); ++i)
        if (chunk.segments[i].n_rows > 0)
          S::visit(states[i], [&](auto, auto& x) {
            const Range mine = chunk.team.share(x.size_bytes(), alignment);
            std::memset(reinterpret_cast<std::byte*>(x.data) + mine.begin, 0,
                        static_cast<std::size_t>(mine.end - mine.begin));
          });
      chunk.team.barrier();
    }
  }

  /// out += layer(norm(x)); out may be x. Without the sum where out is the scratch's own.
  template <class T, class KV>
  static void run(const Chunk& chunk, const Weights<T>& w, States<State<T, KV>> s, Scratch<T>& t,
                  float norm_eps, Rows<Real<T>, d_model> x, Rows<Real<T>, d_model> out) {
    if constexpr (Normed) kernels::rmsnorm(chunk.team, w.norm, norm_eps, x, t.normed);
    const In<Real<T>, d_model> in = Normed ? t.normed : x;
    detail::call_forward<L, T, KV>(chunk, w.layer, s, t.layer, in, t.out);
    if (out.data != t.out.data) kernels::add(chunk.team, t.out, out);
  }
};

}  // namespace samba::inline SAMBA_TARGET
