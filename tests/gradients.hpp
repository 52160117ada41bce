#pragma once
// What the tests of backward kernels share: numbers that know the size of their terms, and the rule
// by which gradients are compared.
#include <string>
#include <utility>
#include <vector>

#include "tests/catch.hpp"
#include "tests/support.hpp"

namespace samba_test {

/// A number in double, with the size of the terms that it was added up from: rounding errors are
/// relative to that, however the terms cancel.
struct Sized {
  double value = 0, size = 0;

  Sized() = default;
  Sized(double x) : value(x), size(std::abs(x)) {}
  Sized(double x, double terms) : value(x), size(terms) {}

  friend Sized operator+(Sized a, Sized b) { return {a.value + b.value, a.size + b.size}; }
  friend Sized operator-(Sized a, Sized b) { return {a.value - b.value, a.size + b.size}; }
  friend Sized operator*(Sized a, Sized b) { return {a.value * b.value, a.size * b.size}; }
  Sized& operator+=(Sized b) { return *this = *this + b; }
};

inline std::vector<Sized> sized(const std::vector<float>& x) { return convert<Sized>(x); }

/// As error_to, relative to the sizes.
template <class R>
double error_to(const std::vector<R>& actual, const std::vector<Sized>& exact) {
  std::vector<double> values, sizes;
  for (const Sized& x : exact) values.push_back(x.value), sizes.push_back(x.size);
  return error_to(actual, values, sizes);
}

/// The sigmoid; silu and its derivative in terms of it.
inline double exact_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
inline double exact_silu(double x) { return x * exact_sigmoid(x); }
inline Sized exact_silu_derivative(double x) {
  const double s = exact_sigmoid(x);
  return Sized(s) * (Sized(1) + Sized(x) * Sized(1 - s));
}

/// Results of a kernel under their names.
template <class R>
using Named = std::vector<std::pair<const char*, std::vector<R>>>;

/// error(fast) <= 2 error(naive) + tiny for every result, and the naive kernel is right: in float
/// roughly, which leaves room for long sums, and in double.
inline void check_results(const Named<Sized>& exact, const Named<float>& fast,
                          const Named<float>& naive, const Named<double>& naive_double, double tiny,
                          double tiny_double = 1e-14) {
  REQUIRE((exact.size() == fast.size() && exact.size() == naive.size() &&
           exact.size() == naive_double.size()));
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const auto& [name, values] = exact[i];
    CAPTURE(name);
    CHECK(error_to(fast[i].second, values) <= 2 * error_to(naive[i].second, values) + tiny);
    CHECK(error_to(naive[i].second, values) <= 100 * tiny);
    CHECK(error_to(naive_double[i].second, values) <= tiny_double);
  }
}

/// True if all results are the same, to the bit.
template <class R>
bool same_results(const Named<R>& a, const Named<R>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return same_result(x.second, y.second); });
}

}  // namespace samba_test
