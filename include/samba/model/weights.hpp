#pragma once
#include <samba/model/structure.hpp>

namespace samba::inline SAMBA_TARGET {

/// One tensor of the weights, whatever its C++ type, read and written in rows of R. A row is the
/// elements at one index of the first extent; a vector is one row.
template <class R>
struct TensorRef : TensorInfo {
  bool is_matrix = false;  ///< an operand of a product, or an embedding
  Layout layout = Layout::rows;
  std::int64_t rows = 0, row_size = 0;
  void* data = nullptr;
  const char* type = nullptr;  ///< a tag of the elements' type
  void (*set)(const TensorRef&, std::int64_t row, const R* values) = nullptr;
  void (*get)(const TensorRef&, std::int64_t row, R* values) = nullptr;

  void set_row(std::int64_t r, const R* values) const { set(*this, r, values); }
  void get_row(std::int64_t r, R* values) const { get(*this, r, values); }

  /// The elements; null if their type is not T.
  template <class T>
  T* elements() const {
    return type == &type_tag<T> ? static_cast<T*>(data) : nullptr;
  }

  /// Sets the members that depend on the type of the elements.
  template <class T>
  void bind(T* elements) {
    data = elements;
    type = &type_tag<T>;
    set = [](const TensorRef& t, std::int64_t r, const R* values) {
      samba::set_row(static_cast<T*>(t.data), t.layout, r, t.rows, t.row_size, values);
    };
    get = [](const TensorRef& t, std::int64_t r, R* values) {
      samba::get_row(static_cast<const T*>(t.data), t.layout, r, t.rows, t.row_size, values);
    };
  }

 private:
  template <class T>
  static constexpr char type_tag = 0;
};

/// The weights of a model in one arena: matrices of type T (float, bf16, int8, q4, or double for
/// checking; the head of HeadWeight<T>), all other tensors of Real<T>. Sessions share them by
/// reference.
template <class Model, class T = float>
class Weights {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, bf16> || std::is_same_v<T, int8> ||
                    std::is_same_v<T, q4> || std::is_same_v<T, double> ||
                    std::is_same_v<T, Master<float>> || std::is_same_v<T, Master<double>> ||
                    std::is_same_v<T, RowMajor<bf16>>,
                "Weights<Model, T>: T must be float, bf16, int8 or q4, or double for checking");

 public:
  /// All zero; fill them through visit() and then call derive(), or use load().
  Weights() : Weights(Arena(Model::template weight_bytes<T>, "weights")) {}
  /// Uses memory that already holds them: weight_bytes<T>, laid out as in memory().
  explicit Weights(Arena arena) : arena_(std::move(arena)) {
    Bind bind{{arena_.data()}};
    if constexpr (!Model::tie_embeddings) bind(0, tree_.embedding);
    tree_.visit_norm(tree_, bind);
    tree_.visit_norm_derived(tree_, bind);
    bind(0, tree_.head);
    Model::Stack::walk(bind, Use{}, tree_.stack);
  }
  Weights(Weights&&) = default;
  Weights& operator=(Weights&&) = default;

  const auto& tree() const { return tree_; }
  auto& tree() { return tree_; }
  /// All weights as stored: packed, with the derived tensors. The layout depends only on Model and
  /// T.
  std::span<const std::byte> memory() const {
    return {arena_.data(), static_cast<std::size_t>(arena_.bytes())};
  }
  std::int64_t bytes() const { return arena_.bytes(); }

  /// Calls f(branch, tag, name, tensor), or f(branch, tag, name, tensor, attributes...) if f takes
  /// the attributes of core/initial.hpp, for every tensor in a file, in file order: the embedding,
  /// the branches, the final norm, the head if it is not tied. Shared tensors are visited at their
  /// first use. branch: index of the residual branch, -1 outside; tag: std::type_identity of the
  /// Branch, of void outside.
  template <class F>
  void visit(F&& f) {
    visit(tree_, f);
  }
  template <class F>
  void visit(F&& f) const {
    visit(tree_, f);
  }

  /// The tensors that visit() visits, in its order.
  std::vector<TensorRef<Real<T>>> tensors() const {
    std::vector<TensorRef<Real<T>>> all;
    const auto list = [&]<class X>(int branch, auto, auto name, X& x, const auto&... attributes) {
      constexpr bool is_matrix = requires { X::is_matrix; };
      set(all.emplace_back(), branch, detail::name_text(name), X::shape,
          is_matrix || (branch < 0 && X::rows > 1), X::layout, X::rows, X::row_size, x.data());
      all.back().attributes = TensorAttributes(attributes...);
    };
    visit(const_cast<typename Model::template Tree<T>&>(tree_), list);
    return all;
  }

  /// Recomputes the tensors that layers derive from their weights; call it after changing them.
  void derive() {
    Derive derive;
    Model::Stack::walk(derive, Use{}, tree_.stack);
    detail::derive(tree_.norm);
  }

  /// Sets all numbers to zero.
  void clear() { std::memset(arena_.data(), 0, static_cast<std::size_t>(arena_.bytes())); }

 private:
  /// Records the first use of shared weights; later uses refer to it.
  struct SharedWeights {
    detail::SharedSeen seen;
    void* at[detail::SharedSeen::capacity];  // of each use seen

    [[gnu::cold, gnu::noinline]] void* first(Use use, void* weights) {
      if (!use.shared) return weights;
      if (seen.first(use)) return at[seen.count - 1] = weights;
      int i = 0;
      while (seen.uses[static_cast<std::size_t>(i)].shared != use.shared ||
             seen.uses[static_cast<std::size_t>(i)].number != use.number)
        ++i;
      return at[i];
    }
  };

  /// Places every tensor in memory; shared ones where their first use is.
  struct Bind {
    Placer placer;
    SharedWeights shared = {};

    template <class X>
    void operator()(const auto&, X& tensor, const auto&...) {
      tensor.bind(placer.take(X::bytes));
    }
    template <class B, class Part>
    void operator()(std::type_identity<B>, Use use, Part& weights) {
      if (void* const first = shared.first(use, &weights); first != &weights)
        weights = *static_cast<const Part*>(first);
      else
        detail::visit_all<B, T>(weights, *this);
    }
  };
  struct Derive {
    void operator()(auto, Use, auto& weights) const { detail::derive(weights); }
  };

  /// Calls f with a tensor, and with its attributes if f takes them.
  static void show(auto& f, int branch, auto tag, const auto& name, auto& tensor,
                   const auto&... attributes) {
    if constexpr (requires { f(branch, tag, name, tensor, attributes...); })
      f(branch, tag, name, tensor, attributes...);
    else
      f(branch, tag, name, tensor);
  }

  /// Call f for the tensors of one branch, and of all branches.
  template <class F, class B>
  struct VisitTensors {
    F& f;
    int number;
    void operator()(const auto& name, auto& tensor, const auto&... attributes) const {
      show(f, number, std::type_identity<B>{}, name, tensor, attributes...);
    }
  };
  template <class F>
  struct VisitBranches {
    F& f;
    int number = 0;
    detail::SharedSeen seen = {};
    void operator()(auto branch, Use use, auto& weights) {
      using B = typename decltype(branch)::type;
      VisitTensors<F, B> visit{f, number++};
      if (seen.first(use)) B::template Weights<T>::visit(weights, visit);
    }
  };

  template <class Element>
  [[gnu::cold, gnu::noinline]] static void set(TensorRef<Real<T>>& tensor, int branch,
                                               std::string_view name, const Shape& shape,
                                               bool is_matrix, Layout layout, std::int64_t rows,
                                               std::int64_t row_size, Element* data) {
    tensor.branch = branch;
    tensor.name = name;
    tensor.shape = shape;
    tensor.is_matrix = is_matrix;
    tensor.layout = layout;
    tensor.rows = rows;
    tensor.row_size = row_size;
    tensor.bind(data);
  }

  template <class Tree, class F>
  static void visit(Tree& tree, F&& f) {
    const std::type_identity<void> model;
    if constexpr (Model::tie_embeddings)
      show(f, -1, model, "embedding", tree.head, init::normal(0.02));
    else
      show(f, -1, model, "embedding", tree.embedding, init::normal(0.02));
    VisitBranches<std::remove_reference_t<F>> branches{f};
    Model::Stack::walk(branches, Use{}, tree.stack);
    VisitTensors<std::remove_reference_t<F>, void> visit{f, -1};
    tree.visit_norm(tree, visit);
    if constexpr (!Model::tie_embeddings) f(-1, model, "head", tree.head);
  }

  Arena arena_;
  typename Model::template Tree<T> tree_;
};

}  // namespace samba::inline SAMBA_TARGET
