#include <samba/samba.hpp>
using namespace samba;

// expect: HybridStack: no element names d_model; begin with DModel<...>
using Stack = HybridStack<SWA<256>, SWA<128>>;
constexpr int d_model = Stack::d_model;
