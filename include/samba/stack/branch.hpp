#pragma once
#include <samba/stack/node.hpp>

#include <cstring>

namespace samba::inline SAMBA_TARGET {

/// The shared weights that a branch uses: their key, or 0 if it shares none, and the branch's
/// number under that key.
struct Use {
  std::uint64_t shared = 0;
  int number = 0;
};

/// What a tree of a stack has at each branch: the branch's weights, its states, or nothing.
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

/// Scratch memory for a chunk. Every branch places its buffers at the beginning.
struct ScratchMemory {
  std::byte* block = nullptr;
  std::int64_t rows = 0, threads = 1;
};

/// What a forward pass records for its backward pass: for each branch in turn, its input and what
/// its layer computed from it. With `recompute` it records only the input, and the backward pass
/// recomputes the rest. With `fresh` every sequence starts from an empty state; the states of all
/// branches may then share the same memory, and each branch clears what it uses.
struct Tape {
  std::byte* block = nullptr;
  std::int64_t offset = 0;
  std::byte* scratch = nullptr;  ///< for one branch at a time
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

    /// Places the buffers in `memory`; returns their size in bytes.
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

  /// A branch's part of a tape: its input, and what its layer computed from it.
  template <class P>
  struct Record {
    Rows<Residual<P>, d_model> x;
    Scratch<P> scratch;

    /// Places it at the end of the tape; returns the number of bytes it takes there.
    std::int64_t place(const Tape& tape) {
      ScratchPlacer input{{tape.block ? tape.block + tape.offset : nullptr}, tape.rows};
      input(x);
      std::int64_t bytes = input.placer.offset;
      std::byte* const next = tape.block ? tape.block + tape.offset + bytes : nullptr;
      const std::int64_t kept =
          scratch.place({tape.recompute ? tape.scratch : next, tape.rows, tape.threads}, true);
      return checked_sum("tokens", bytes, tape.recompute ? 0 : kept);
    }
  };

  /// What the backward pass of a branch needs in addition to its record.
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

  /// The bytes of tape.scratch that this branch needs.
  template <class P>
  static std::int64_t scratch_bytes(Tape tape) {
    tape.block = tape.scratch = nullptr;
    Record<P> record;
    const std::int64_t kept = record.scratch.place({nullptr, tape.rows, tape.threads}, true);
    BackwardScratch<P> d;
    return checked_sum("tokens", tape.recompute ? kept : 0,
                       d.place({nullptr, tape.rows, tape.threads}));
  }

  /// Runs forward and records it on the tape.
  template <class P>
  static void record(const Context<P>& c, const Weights<Weight<P>>& w, const State<P>& s,
                     Tape& tape, Rows<Residual<P>, d_model> x) {
    Record<P> record;
    tape.offset += record.place(tape);
    kernels::copy<d_model>(c, {.from = x, .to = record.x});
    if (tape.fresh) clear<P>(c, s);
    run<P>(c, w, s, record.scratch, record.x, x);
  }

  /// dx: on entry the gradient of the stream after the branch, on return that before it. g is added
  /// to. s: the states before the forward pass; again: a copy, which recomputation advances; ds: on
  /// entry the gradients of the states after the forward pass, on return of those before it.
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
  /// Clears the states of the sequences that have rows in this chunk.
  template <class P>
  static void clear(const auto& c, const State<P>& state) {
    if constexpr (!std::is_empty_v<State<P>>) {
      const Team& team = c.device.team;
      team.barrier();  // until no thread reads this memory any more
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
