#pragma once
/// \file
/// Three ways to write a layer schedule without naming every layer: by period and offset, by a list
/// of indices, and by a string. Each defines a stack; elements are layers or stacks.
#include <samba/stack/hybrid_stack.hpp>

namespace samba::inline SAMBA_TARGET {

/// The letter of a layer in a Pattern.
template <char letter, class Element>
struct Is {};

/// Positions in a schedule, from 0.
template <int... i>
struct Indices {};

namespace detail {

template <std::size_t n>
struct FixedString {
  char text[n];
  consteval FixedString(const char (&s)[n]) {
    for (std::size_t i = 0; i < n; ++i) text[i] = s[i];
  }
  static constexpr std::size_t size = n - 1;
};

template <class... Map>
struct Letters : Map... {};
template <char letter, class E>
std::type_identity<E> element_of(const Is<letter, E>&);

template <char letter, class... Map>
struct ElementAt {
  static constexpr bool known = requires(Letters<Map...> map) { element_of<letter>(map); };
  static_assert(known,
                "Pattern: a letter of the string has no Is<letter, Element>, or more than one");
  using type = typename decltype(element_of<letter>(Letters<Map...>{}))::type;
};

template <FixedString pattern, class Index, class... Map>
struct PatternOf;
template <FixedString pattern, std::size_t... i, class... Map>
struct PatternOf<pattern, std::index_sequence<i...>, Map...> {
  using type = HybridStack<typename ElementAt<pattern.text[i], Map...>::type...>;
};

template <int offset, class At, class Else, class Index>
struct PeriodOf;
template <int offset, class At, class Else, std::size_t... i>
struct PeriodOf<offset, At, Else, std::index_sequence<i...>> {
  // Names the width, because the rest of a schedule may consist of attention alone.
  using type =
      HybridStack<DModel<agreed_d_model<At, Else>()>, std::conditional_t<i == offset, At, Else>...>;
};

template <int n, int period, int offset, class At, class Else>
struct PeriodicOf {
  static_assert(n > 0 && period > 0, "Periodic: n and period must be positive");
  static_assert(offset >= 0 && offset < period, "Periodic: offset must lie in [0, period)");
  template <int count>
  using Part = typename PeriodOf<offset, At, Else, std::make_index_sequence<count>>::type;

  static constexpr auto make() {
    if constexpr (n < period)
      return std::type_identity<Part<n>>{};
    else if constexpr (n % period == 0)
      return std::type_identity<Repeat<n / period, Part<period>>>{};
    else
      return std::type_identity<HybridStack<Repeat<n / period, Part<period>>, Part<n % period>>>{};
  }
  using type = typename decltype(make())::type;
};

template <class List, class At, class Else, class Index>
struct AtIndicesOf;
template <int... at, class At, class Else, std::size_t... i>
struct AtIndicesOf<Indices<at...>, At, Else, std::index_sequence<i...>> {
  static_assert(((at >= 0 && at < static_cast<int>(sizeof...(i))) && ...),
                "AtIndices: an index lies outside [0, n)");
  static constexpr bool is_at(int position) { return ((position == at) || ...); }
  using type = HybridStack<std::conditional_t<is_at(i), At, Else>...>;
};

}  // namespace detail

/// The stack that a string spells: Pattern<"MSAS", Is<'M', Mamba<512>>, Is<'S', SwiGLU<512>>,
/// Is<'A', SWA<256>>>.
template <detail::FixedString pattern, class... Map>
using Pattern =
    typename detail::PatternOf<pattern, std::make_index_sequence<pattern.size>, Map...>::type;

/// n elements: At where i % period == offset, Else elsewhere.
template <int n, int period, int offset, class At, class Else>
using Periodic = typename detail::PeriodicOf<n, period, offset, At, Else>::type;

/// n elements: At at the listed indices, Else elsewhere: AtIndices<8, Indices<1, 5>, Attending,
/// Recurrent>.
template <int n, class List, class At, class Else>
using AtIndices = typename detail::AtIndicesOf<List, At, Else, std::make_index_sequence<n>>::type;

}  // namespace samba::inline SAMBA_TARGET
