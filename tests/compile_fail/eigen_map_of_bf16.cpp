#include <samba/interop/eigen.hpp>
using namespace samba;

// expect: as_eigen: Eigen has no scalar of this type: to_eigen makes a copy in float
void f(const Table<bf16, 8, 8>& w) { as_eigen(w); }
