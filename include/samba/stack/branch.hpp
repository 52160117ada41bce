#pragma once
#include <samba/stack/node.hpp>

#include <cstring>

namespace samba::inline SAMBA_TARGET {

/// Where a branch's weights are shared: a key and the branch's number under it; 0 if they are not.
struct Use {
  std::uint64_t shared = 0;
  int number = 0;
};

/// What a tree of a stack holds at each branch: its weights, its states, or nothing.
template <class T>
struct WeightsOf {
  template <class B>
  using of = typename B::template Weights<T>;
};
template <class P>
struct StateOf {
  template <class B>
  using of = typename B::template State<P>;
};
struct NothingOf {
  template <class B>
  struct of {};
};

/// Scratch memory of a chunk; each branch lays its buffers out from the beginning.
struct ScratchMemory {
  std::byte* block = nullptr;
  std::int64_t rows = 0, threads = 1;
};

/// Where a forward pass leaves what its backward pass needs: of each branch in turn its input, and
/// what its layer computed from it. With `recompute` only the input, and the backward pass computes
/// the rest again. With `fresh` every sequence starts from an empty state: those of all branches may
/// then be in one place, where each branch clears what it uses.
struct Tape {
  std::byte* block = nullptr;
  std::int64_t offset = 0;
  std::byte* scratch = nullptr;  ///< of one branch
  std::int64_t rows = 0, threads = 1;
  bool recompute = false, fresh = false;
};

/// A residual branch: x += node(x).
template <class N>
struct Branch {
  using Node = N;
  using Layer = typename N::Layer;
  static constexpr int d_model = N::d_model;

  template <class T>
  using Weights = typename N::template Weights<T>;
  template <class P>
  using State = typename N::template State<P>;

  template <class Kind>
  struct Tree : Kind::template of<Branch> {
    using kind = Kind;
  };

  static constexpr void walk(auto& f, Use use, auto&... leaves) {
    f(std::type_identity<Branch>{}, use, leaves...);
  }
  static constexpr void walk_back(auto& f, Use use, auto&... leaves) { walk(f, use, leaves...); }

  template <class P>
  struct Scratch {
    Rows<Act<P>, d_model> out;
    typename N::template Scratch<P> node;

    /// Places the buffers in the memory; returns the bytes they take.
    std::int64_t place(const ScratchMemory& memory, bool keep_all = false) {
      ScratchPlacer place{{memory.block}, memory.rows, memory.threads, keep_all};
      place(out);
      N::template Scratch<P>::visit(node, place);
      return place.placer.offset;
    }
  };

  template <class P>
  [[gnu::noinline]] static void forward(const Context<P>& c, const Weights<Weight<P>>& w,
                                        const State<P>& s, const ScratchMemory& memory,
                                        Rows<Residual<P>, d_model> x) {
    Scratch<P> t;
    t.place(memory);
    run<P>(c, w, s, t, x, x);
  }

  /// A branch's part of a tape: its input, and what its layer computed.
  template <class P>
  struct Record {
    Rows<Residual<P>, d_model> x;
    Scratch<P> scratch;

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

  /// What the backward pass of a branch needs besides its record.
  template <class P>
  struct BackwardScratch {
    Rows<Act<P>, d_model> dout;
    typename N::template Backward<P> node;

    std::int64_t place(const ScratchMemory& memory) {
      ScratchPlacer place{{memory.block}, memory.rows, memory.threads};
      if constexpr (detail::factor_of<N> != 1.f) place(dout);
      N::template Backward<P>::visit(node, place);
      return place.placer.offset;
    }
  };

  /// Bytes that tape.scratch needs for this branch.
  template <class P>
  static std::int64_t scratch_bytes(Tape tape) {
    tape.block = tape.scratch = nullptr;
    Record<P> record;
    const std::int64_t kept = record.scratch.place({nullptr, tape.rows, tape.threads}, true);
    BackwardScratch<P> d;
    return checked_sum("tokens", tape.recompute ? kept : 0,
                       d.place({nullptr, tape.rows, tape.threads}));
  }

  /// forward, leaving its record on the tape.
  template <class P>
  static void record(const Context<P>& c, const Weights<Weight<P>>& w, const State<P>& s,
                     Tape& tape, Rows<Residual<P>, d_model> x) {
    Record<P> record;
    tape.offset += record.place(tape);
    kernels::copy<d_model>(c, {.from = x, .to = record.x});
    if (tape.fresh) clear<P>(c, s);
    run<P>(c, w, s, record.scratch, record.x, x);
  }

  /// dx: the gradient of what the branch left, then of what it found; g is added to. s: the states
  /// that the branch found; again: a copy, which recomputing advances; ds: the gradients of the
  /// states that it left, then of those that it found.
  template <class P>
  static void backward(const Context<P>& c, const Weights<Weight<P>>& w,
                       Weights<Weight<Gradients<P>>>& g, const State<P>& s, const State<P>& again,
                       const State<Gradients<P>>& ds, Tape& tape, Rows<Residual<P>, d_model> dx) {
    Record<P> record;
    Tape sizes = tape;
    sizes.block = sizes.scratch = nullptr;
    tape.offset -= record.place(sizes);
    record.place(tape);
    std::byte* scratch = tape.scratch;
    if (tape.recompute) {
      scratch += record.scratch.place({tape.scratch, tape.rows, tape.threads}, true);
      if (tape.fresh) clear<P>(c, again);
      N::forward(c, w, again, record.scratch.node, record.x, record.scratch.out);
    }
    BackwardScratch<P> d;
    d.place({scratch, tape.rows, tape.threads});
    if (tape.fresh) clear<Gradients<P>>(c, ds);
    In<P, d_model> dout = dx;
    if constexpr (detail::factor_of<N> != 1.f) {
      kernels::copy<d_model>(c, {.from = dx, .to = d.dout, .factor = detail::factor_of<N>});
      dout = d.dout;
    }
    N::backward(c, w, g, s, ds, record.scratch.node, d.node, record.x, dout, dx);
  }

 private:
  /// Empties the states of the sequences that have rows.
  template <class P>
  static void clear(const auto& c, const State<P>& state) {
    if constexpr (!std::is_empty_v<State<P>>) {
      const Team& team = c.device.team;
      team.barrier();  // their memory has been read
      for (const Segment& segment : c.segments)
        if (segment.rows > 0)
          State<P>::visit(state, [&](const auto&, const auto& x) {
            const Range mine = team.share(x.size_bytes(), alignment);
            std::memset(reinterpret_cast<std::byte*>(x.of(segment.state)) + mine.begin, 0,
                        static_cast<std::size_t>(mine.end - mine.begin));
          });
      team.barrier();
    }
  }

  /// out += node(x); out may be x.
  template <class P>
  static void run(const Context<P>& c, const Weights<Weight<P>>& w, const State<P>& s,
                  const Scratch<P>& t, Rows<Residual<P>, d_model> x,
                  Rows<Residual<P>, d_model> out) {
    N::forward(c, w, s, t.node, x, t.out);
    kernels::add_to_residual<d_model>(c,
                                      {.term = t.out, .to = out, .factor = detail::factor_of<N>});
  }
};

}  // namespace samba::inline SAMBA_TARGET
