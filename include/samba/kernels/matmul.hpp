#pragma once
#include <samba/core/context.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// out[i, n] = bias[n] + sum_k x[i, k] * w[n, k] for i < rows and n < N. x is converted to the type
/// of the weights: bf16 rounds it; int8 and q4 quantise 32 k of a row at a time to 8 bits,
/// symmetrically, by their largest magnitude / 127. E: of x, O: of out.
template <class T, class E = Real<T>, class O = E>
struct MatmulArgs {
  const Element<T>* w;  ///< (N, K), packed (see Packing), or row major
  const Real<T>* bias;  ///< (N), or null
  const E* x;           ///< (rows, K)
  std::int64_t x_stride;
  O* out;  ///< (rows, N)
  std::int64_t out_stride;
  std::int64_t rows, N, K;
};

/// The gradients of matmul given dout, the gradient of out: dw and dbias are added to; dx is
/// written, or added to.
template <class T, class E = Real<T>>
struct MatmulBackwardArgs {
  const Element<T>* w;  ///< (N, K), packed (see Packing), or row major
  const E* x;           ///< (rows, K)
  std::int64_t x_stride;
  const E* dout;  ///< (rows, N)
  std::int64_t dout_stride;
  Real<T>* dw;     ///< (N, K), row major
  Real<T>* dbias;  ///< (N), or null
  E* dx;           ///< (rows, K)
  std::int64_t dx_stride;
  bool add;  ///< add to dx, instead of overwriting it
  std::int64_t rows, N, K;
};

/// A block-diagonal linear map: that of `first` on channels [0, N), the next block's on the next N,
/// and so on. N = K; bias is null.
template <class T, class E = Real<T>>
struct BlockMatmulArgs {
  MatmulArgs<T, E> first;
  std::int64_t blocks, w_stride;  ///< elements of w from block to block
};
/// Its gradients. dw: (blocks, K, N), as in a file; dbias is null.
template <class T, class E = Real<T>>
struct BlockMatmulBackwardArgs {
  MatmulBackwardArgs<T, E> first;
  std::int64_t blocks, w_stride;
};

/// Rows that an operation writes or, given as add_to(rows), adds to.
template <class R, int C>
struct AddTo : Rows<R, C> {};
template <class R, int C>
AddTo<R, C> add_to(Rows<R, C> x) {
  return {x};
}
template <class R, int C>
struct WrittenOrAdded : RowsArgument<R, C> {
  bool add = false;

  constexpr WrittenOrAdded(Rows<R, C> x) : RowsArgument<R, C>(x) {}
  constexpr WrittenOrAdded(AddTo<R, C> x) : RowsArgument<R, C>(x), add(true) {}
};

/// The arguments of matmul_backward.
template <class P, int N, int K>
struct MatmulBackward {
  In<P, K> x;                             ///< (rows, K), the input of matmul
  In<P, N> dout;                          ///< (rows, N), the gradient of its output
  Added<Real<P>, Layout::rows, N, K> dw;  ///< added to
  Real<P>* dbias = nullptr;               ///< (N), added to; or null
  WrittenOrAdded<Act<P>, K> dx;           ///< (rows, K)
};

/// out = x w^T (+ bias), a linear map of the chunk's rows. x: (rows, K), out: (rows, N), not
/// overlapping. x is converted to the type of the weights: bf16 rounds it; int8 and q4 quantise 32
/// k of each row at a time to 8 bits by their largest magnitude. Sums are float (for int8 and q4,
/// integers within 32 k).
/// An unbound bias is left out.
template <class P, class T, int N, int K>
void matmul(const Context<P>& c, const Matrix<T, N, K>& w, const Vector<Real<T>, N>& bias,
            std::type_identity_t<In<P, K>> x, std::type_identity_t<Out<P, N>> out) {
  samba::detail::launch_on(c, MatmulArgs<T, Act<P>>{.w = w.data(),
                                                    .bias = bias.data(),
                                                    .x = x.data,
                                                    .x_stride = x.stride,
                                                    .out = out.data,
                                                    .out_stride = out.stride,
                                                    .rows = x.rows,
                                                    .N = N,
                                                    .K = K});
}
template <class P, class T, int N, int K>
void matmul(const Context<P>& c, const Matrix<T, N, K>& w, std::type_identity_t<In<P, K>> x,
            std::type_identity_t<Out<P, N>> out) {
  matmul(c, w, Vector<Real<T>, N>{}, x, out);
}
/// The same, with sums that are not rounded to activations: logits.
template <class P, class T, int N, int K>
void matmul_to_real(const Context<P>& c, const Matrix<T, N, K>& w, std::type_identity_t<In<P, K>> x,
                    std::type_identity_t<RowsArgument<Real<P>, N>> out) {
  samba::detail::launch_on(c, MatmulArgs<T, Act<P>, Real<P>>{.w = w.data(),
                                                             .bias = nullptr,
                                                             .x = x.data,
                                                             .x_stride = x.stride,
                                                             .out = out.data,
                                                             .out_stride = out.stride,
                                                             .rows = x.rows,
                                                             .N = N,
                                                             .K = K});
}

/// The gradients of matmul. Operands are converted to the type of the weights.
template <class P, class T, int N, int K>
void matmul_backward(const Context<P>& c, const Matrix<T, N, K>& w,
                     const std::type_identity_t<MatmulBackward<P, N, K>>& a) {
  samba::detail::launch_on(c, MatmulBackwardArgs<T, Act<P>>{.w = w.data(),
                                                            .x = a.x.data,
                                                            .x_stride = a.x.stride,
                                                            .dout = a.dout.data,
                                                            .dout_stride = a.dout.stride,
                                                            .dw = a.dw.data,
                                                            .dbias = a.dbias,
                                                            .dx = a.dx.data,
                                                            .dx_stride = a.dx.stride,
                                                            .add = a.dx.add,
                                                            .rows = a.dout.rows,
                                                            .N = N,
                                                            .K = K});
}

/// The arguments of block_matmul_backward.
template <class P, int Blocks, int Width>
struct BlockMatmulBackward {
  In<P, Blocks * Width> x;                                      ///< the input of block_matmul
  In<P, Blocks * Width> dout;                                   ///< the gradient of its output
  AddedTable<Real<P>, Blocks, std::int64_t{Width} * Width> dw;  ///< added to
  WrittenOrAdded<Act<P>, Blocks * Width> dx;
};

/// out = x w for every block of Width channels by itself. x, out: (rows, Blocks * Width), not
/// overlapping. Types as in matmul; int8 quantises the channels of a block, 32 at a time.
template <class P, class T, int Blocks, int Width>
void block_matmul(const Context<P>& c, const BlockDiagonal<T, Blocks, Width>& w,
                  std::type_identity_t<In<P, Blocks * Width>> x,
                  std::type_identity_t<Out<P, Blocks * Width>> out) {
  samba::detail::launch_on(c, BlockMatmulArgs<T, Act<P>>{.first = {.w = w.data(),
                                                                   .bias = nullptr,
                                                                   .x = x.data,
                                                                   .x_stride = x.stride,
                                                                   .out = out.data,
                                                                   .out_stride = out.stride,
                                                                   .rows = x.rows,
                                                                   .N = Width,
                                                                   .K = Width},
                                                         .blocks = Blocks,
                                                         .w_stride = block_stride<T>(Width)});
}

/// The gradients of block_matmul. Operands are converted to the type of the weights.
template <class P, class T, int Blocks, int Width>
void block_matmul_backward(const Context<P>& c, const BlockDiagonal<T, Blocks, Width>& w,
                           const std::type_identity_t<BlockMatmulBackward<P, Blocks, Width>>& a) {
  samba::detail::launch_on(
      c, BlockMatmulBackwardArgs<T, Act<P>>{.first = {.w = w.data(),
                                                      .x = a.x.data,
                                                      .x_stride = a.x.stride,
                                                      .dout = a.dout.data,
                                                      .dout_stride = a.dout.stride,
                                                      .dw = a.dw.data,
                                                      .dbias = nullptr,
                                                      .dx = a.dx.data,
                                                      .dx_stride = a.dx.stride,
                                                      .add = a.dx.add,
                                                      .rows = a.dout.rows,
                                                      .N = Width,
                                                      .K = Width},
                                            .blocks = Blocks,
                                            .w_stride = block_stride<T>(Width)});
}

}  // namespace samba::inline SAMBA_TARGET::kernels
