#include <samba/samba.hpp>
using namespace samba;

// expect: HybridStack: not a layer: it has no `template <class T> struct Weights` with visit
struct Almost {
  static constexpr const char* name = "almost";
  static constexpr int d_model = 256;
};
using Stack = HybridStack<Almost>;
Stack::Tree<WeightsOf<float>> weights;
