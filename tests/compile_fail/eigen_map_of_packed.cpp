#include <samba/interop/eigen.hpp>
using namespace samba;

// expect: as_eigen: this matrix is packed in panels: to_eigen makes a copy, and the matrices of Weights<Model, Master<float>> are not packed
void f(const Matrix<float, 8, 8>& w) { as_eigen(w); }
