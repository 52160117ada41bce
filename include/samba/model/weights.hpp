#pragma once
#include <samba/model/structure.hpp>

namespace samba::inline SAMBA_TARGET {

/// How the elements of a type of tensor are read and written in rows of R. A row is the elements at
/// one index of the first extent; a vector is one row.
template <class R>
struct RowAccess {
  bool is_matrix = false;  ///< an operand of a product, or an embedding
  Layout layout = Layout::rows;
  std::int64_t rows = 0, row_size = 0;
  const void* type = nullptr;  ///< a tag of the elements' type
  void (*set)(void* data, const RowAccess&, std::int64_t row, const R* values) = nullptr;
  void (*get)(const void* data, const RowAccess&, std::int64_t row, R* values) = nullptr;

  template <class X>
  static constexpr RowAccess of() {
    using T = std::remove_pointer_t<decltype(std::declval<X&>().data())>;
    constexpr bool matrix = requires { X::is_matrix; };
    return {matrix, X::layout, X::rows, X::row_size, &type_tag<T>, &set_row_of<T>, &get_row_of<T>};
  }

 protected:
  template <class T>
  static void set_row_of(void* data, const RowAccess& a, std::int64_t r, const R* values) {
    samba::set_row(static_cast<T*>(data), a.layout, r, a.rows, a.row_size, values);
  }
  template <class T>
  static void get_row_of(const void* data, const RowAccess& a, std::int64_t r, R* values) {
    samba::get_row(static_cast<const T*>(data), a.layout, r, a.rows, a.row_size, values);
  }
  template <class T>
  static constexpr char type_tag = 0;
};

/// One tensor of the weights, whatever its C++ type.
template <class R>
struct TensorRef : TensorInfo, RowAccess<R> {
  void* data = nullptr;

  void set_row(std::int64_t r, const R* values) const { this->set(data, *this, r, values); }
  void get_row(std::int64_t r, R* values) const { this->get(data, *this, r, values); }

  /// The elements; null if their type is not T.
  template <class T>
  T* elements() const {
    return this->type == &RowAccess<R>::template type_tag<T> ? static_cast<T*>(data) : nullptr;
  }
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
  [[gnu::cold]] explicit Weights(Arena arena) : arena_(std::move(arena)) {
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
  [[gnu::cold]] std::vector<TensorRef<Real<T>>> tensors() const {
    auto& tree = const_cast<typename Model::template Tree<T>&>(tree_);
    ListTensors count;
    visit_tree(tree, count);
    std::vector<TensorRef<Real<T>>> all(count.tensors);
    ListTensors list{all.data()};
    visit_tree(tree, list);
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
    [[gnu::cold]] void operator()(const auto&, X& tensor, const auto&...) {
      tensor.bind(placer.take(X::bytes));
    }
    template <class B, class Part>
    [[gnu::cold]] void operator()(std::type_identity<B>, Use use, Part& weights) {
      if (void* const first = shared.first(use, &weights); first != &weights)
        weights = *static_cast<const Part*>(first);
      else
        detail::visit_all<B, T>(weights, *this);
    }
  };
  struct Derive {
    void operator()(auto, Use, auto& weights) const { detail::derive(weights); }
  };

  /// Calls f for the tensors of one branch, of type B, or for those outside the branches.
  template <class F, class B>
  struct VisitTensors {
    F& f;
    int number;
    [[gnu::cold]] void operator()(const auto& name, auto& tensor, const auto&... attributes) const {
      const std::type_identity<B> branch;
      if constexpr (requires { f(number, branch, name, tensor, attributes...); })
        f(number, branch, name, tensor, attributes...);
      else
        f(number, branch, name, tensor);
    }
  };
  /// Calls f for all tensors.
  template <class F>
  struct VisitBranches : VisitTensors<F, void> {
    int next = 0;
    detail::SharedSeen seen = {};
    using VisitTensors<F, void>::operator();
    template <class B>
    [[gnu::cold]] void operator()(std::type_identity<B>, Use use, auto& weights) {
      VisitTensors<F, B> visit{this->f, next++};
      if (seen.first(use)) B::template Weights<T>::visit(weights, visit);
    }
  };
  /// Lists all tensors at `all`, or only counts them if it is null. (Not by VisitBranches: without the
  /// types of branches, the members that visit a layer's tensors are compiled once for it.)
  struct ListTensors {
    TensorRef<Real<T>>* all = nullptr;
    std::size_t tensors = 0;
    int branch = -1, next = 0;
    detail::SharedSeen seen = {};

    template <class X>
    [[gnu::cold]] void operator()(const auto& name, X& tensor, const auto&... attributes) {
      static constexpr auto rows = RowAccess<Real<T>>::template of<X>();
      add(rows, X::shape, detail::name_text(name), TensorAttributes(attributes...), tensor.data());
    }
    template <class B>
    [[gnu::cold]] void operator()(std::type_identity<B>, Use use, auto& weights) {
      branch = next++;
      if (seen.first(use)) B::template Weights<T>::visit(weights, *this);
      branch = -1;
    }

    [[gnu::cold, gnu::noinline]] void add(const RowAccess<Real<T>>& rows, const Shape& shape,
                                          std::string_view name, const TensorAttributes& attributes,
                                          void* data) {
      if (all) {
        TensorRef<Real<T>>& tensor = all[tensors];
        tensor.branch = branch;
        detail::append(tensor.name, {name});
        tensor.shape = shape;
        tensor.attributes = attributes;
        static_cast<RowAccess<Real<T>>&>(tensor) = rows;
        tensor.is_matrix = rows.is_matrix || (branch < 0 && rows.rows > 1);
        tensor.data = data;
      }
      ++tensors;
    }
  };

  template <class F>
  [[gnu::cold]] static void visit(auto& tree, F& f) {
    VisitBranches<F> visit{{f, -1}};
    visit_tree(tree, visit);
  }
  [[gnu::cold]] static void visit_tree(auto& tree, auto& visit) {
    if constexpr (Model::tie_embeddings)
      visit("embedding", tree.head, init::normal(0.02));
    else
      visit("embedding", tree.embedding, init::normal(0.02));
    Model::Stack::walk(visit, Use{}, tree.stack);
    tree.visit_norm(tree, visit);
    if constexpr (!Model::tie_embeddings) visit("head", tree.head);
  }

  Arena arena_;
  typename Model::template Tree<T> tree_;
};

}  // namespace samba::inline SAMBA_TARGET
