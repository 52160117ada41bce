// samba's data for Eigen: maps of what stays where it is, copies of what is packed, and what Eigen
// computes from them.
#include <samba/interop/eigen.hpp>
#include <samba/train/adapters.hpp>

#include <Eigen/SVD>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

using Model = tiny::Samba;

/// A map is read-only if nothing can be assigned to its elements.
template <class Map>
constexpr bool is_read_only = !std::is_assignable_v<decltype(std::declval<Map&>()(0, 0)), float>;

/// A tensor in memory of its own, filled through set_row with values, row by row.
template <class Tensor>
struct Owned {
  using R = Real<typename Tensor::value_type>;
  Arena arena{Tensor::bytes};
  Tensor tensor;
  std::vector<R> values;

  explicit Owned(Random& rng)
      : values(rng.values<R>(static_cast<std::size_t>(Tensor::rows * Tensor::row_size))) {
    tensor.bind(arena.data());
    for (std::int64_t r = 0; r < Tensor::rows; ++r)
      tensor.set_row(r, values.data() + r * Tensor::row_size);
  }
  /// Element (r, k) as the tensor itself gives it.
  R at(std::int64_t r, std::int64_t k) const {
    std::vector<R> row(static_cast<std::size_t>(Tensor::row_size));
    tensor.get_row(r, row.data());
    return row[static_cast<std::size_t>(k)];
  }
};

/// That a map or a copy has a tensor's shape and elements.
template <class Tensor>
void check_equal(const auto& matrix, const Owned<Tensor>& owned) {
  REQUIRE(matrix.rows() == Tensor::rows);
  REQUIRE(matrix.cols() == Tensor::row_size);
  int wrong = 0;
  for (std::int64_t r = 0; r < matrix.rows(); ++r)
    for (std::int64_t k = 0; k < matrix.cols(); ++k) wrong += matrix(r, k) != owned.at(r, k);
  CHECK(wrong == 0);
}

/// A map of a tensor of weights: its elements, written through, read-only where it is const.
template <class Tensor>
void check_map(Random& rng) {
  Owned<Tensor> owned(rng);
  const auto map = as_eigen(owned.tensor);
  check_equal(map, owned);
  auto writable = as_eigen(owned.tensor);
  writable(Tensor::rows - 1, Tensor::row_size / 2) = 7;
  CHECK(owned.at(Tensor::rows - 1, Tensor::row_size / 2) == 7);
  check_equal(map, owned);

  const Tensor& same = owned.tensor;
  static_assert(is_read_only<decltype(as_eigen(same))>);
  static_assert(!is_read_only<decltype(as_eigen(owned.tensor))>);
  check_equal(as_eigen(same), owned);
  CHECK(as_eigen(same).data() == same.data());
}

/// A copy of a tensor, and a matrix put in its place.
template <class Tensor>
void check_copy(Random& rng) {
  CAPTURE(rng.seed, sizeof(typename Tensor::value_type), Tensor::rows, Tensor::row_size);
  Owned<Tensor> owned(rng);
  using R = typename Owned<Tensor>::R;
  const EigenMatrix<R> copy = to_eigen(owned.tensor);
  check_equal(copy, owned);

  // Every element doubled, as set_row stores it: from another type and order, and an expression.
  Owned<Tensor> expected(rng);
  std::vector<R> row(static_cast<std::size_t>(Tensor::row_size));
  for (std::int64_t r = 0; r < Tensor::rows; ++r) {
    owned.tensor.get_row(r, row.data());
    for (R& x : row) x *= 2;
    expected.tensor.set_row(r, row.data());
  }
  const Eigen::MatrixXd doubled = 2 * copy.template cast<double>();
  from_eigen(doubled, owned.tensor);
  check_equal(to_eigen(owned.tensor), expected);
  from_eigen(copy + copy, owned.tensor);
  check_equal(to_eigen(owned.tensor), expected);

  const auto sizes = [](std::int64_t r, std::int64_t k) { return detail::join({Shape{r, k}}); };
  constexpr auto N = Tensor::rows, K = Tensor::row_size;
  const EigenMatrix<R> long_rows = EigenMatrix<R>::Zero(N, K + 1),
                       more = EigenMatrix<R>::Zero(N + 1, K);
  CHECK_MESSAGE_OF(from_eigen(long_rows, owned.tensor), "from_eigen: expected a matrix of ",
                   sizes(N, K), "found ", sizes(N, K + 1));
  CHECK_MESSAGE_OF(from_eigen(more, owned.tensor), "expected a matrix of ", sizes(N, K), "found ",
                   sizes(N + 1, K));
  check_equal(to_eigen(owned.tensor), expected);
}

}  // namespace

TEST_CASE("eigen: rows with a stride, written through, read-only where they are const") {
  Random rng;
  CAPTURE(rng.seed);
  auto values = rng.values(5 * 12);
  const Rows<float, 9> all{values.data(), 5, 12};
  const Rows<float, 3> part = slice<4, 3>(all);
  auto map = as_eigen(part);
  REQUIRE(map.rows() == 5);
  REQUIRE(map.cols() == 3);
  for (int i = 0; i < 5; ++i)
    for (int k = 0; k < 3; ++k)
      CHECK(map(i, k) == values[static_cast<std::size_t>(i * 12 + 4 + k)]);

  const auto before = values;
  map.row(3).setConstant(7);
  for (std::size_t i = 0; i < values.size(); ++i)
    CHECK(values[i] == (i >= 3 * 12 + 4 && i < 3 * 12 + 7 ? 7 : before[i]));
  const RowsArgument<const float, 3> in = part;
  static_assert(is_read_only<decltype(as_eigen(in))>);
  static_assert(!is_read_only<decltype(as_eigen(part))>);
  CHECK(as_eigen(in) == map);
  CHECK(as_eigen(Rows<float, 3>{values.data(), 0, 12}).rows() == 0);

  // One column.
  const auto column = as_eigen(slice<8, 1>(all));
  REQUIRE(column.cols() == 1);
  for (int i = 0; i < 5; ++i) CHECK(column(i, 0) == values[static_cast<std::size_t>(i * 12 + 8)]);
}

TEST_CASE("eigen: spans as one row and in rows") {
  std::vector<double> values{1, 2, 3, 4, 5, 6};
  auto row = as_eigen(std::span(values));
  CHECK(row.rows() == 1);
  CHECK(row.sum() == 21);
  row(0, 5) = 7;
  CHECK(values[5] == 7);

  const std::span<const double> constant = values;
  static_assert(is_read_only<decltype(as_eigen(constant))>);
  static_assert(is_read_only<decltype(as_eigen(constant, 2))>);
  const auto rows = as_eigen(constant, 2);
  REQUIRE(rows.rows() == 3);
  CHECK(rows(0, 1) == 2);
  CHECK(rows(2, 0) == 5);
  CHECK(as_eigen(constant.first(0), 4).rows() == 0);
  CHECK_MESSAGE_OF(as_eigen(constant, 4), "as_eigen: expected complete rows of 4 values, found 6");
  CHECK_MESSAGE_OF(as_eigen(constant, 0), "complete rows of 0 values, found 6");
}

TEMPLATE_TEST_CASE("eigen: tensors of weights that are not packed, where they are", "", float,
                   double) {
  using R = TestType;
  Random rng;
  CAPTURE(rng.seed);
  check_map<Table<R, 7, 5>>(rng);
  check_map<Table<R, 4, 1>>(rng);
  check_map<Vector<R, 11>>(rng);
  check_map<Transposed<R, 7, 5>>(rng);
  check_map<Filter<R, 6, 4>>(rng);
  check_map<Matrix<Master<R>, 35, 6>>(rng);
}

TEST_CASE("eigen: tensors of weights copied and replaced, packed in every type") {
  Random rng;
  check_copy<Matrix<float, 70, 37>>(rng);
  check_copy<Matrix<float, 32, 1>>(rng);
  check_copy<Matrix<double, 33, 5>>(rng);
  check_copy<Matrix<bf16, 70, 37>>(rng);
  check_copy<Matrix<int8, 70, 37>>(rng);
  check_copy<Matrix<q4, 70, 37>>(rng);
  check_copy<Table<bf16, 9, 7>>(rng);
  check_copy<Vector<float, 9>>(rng);
  check_copy<Transposed<float, 9, 7>>(rng);
  check_copy<Filter<double, 9, 4>>(rng);
  check_copy<Matrix<Master<float>, 9, 7>>(rng);
}

TEST_CASE("eigen: weights by their names in files") {
  auto weights = random_weights<Model>(3);
  auto master = random_weights<Model, Master<float>>(3);
  const auto names = tensor_names(master);
  const auto tensors = master.tensors();
  REQUIRE(names.size() > 20);
  for (std::size_t t = 0; t < names.size(); ++t) {
    CAPTURE(names[t]);
    const auto values = values_of(tensors[t]);
    const auto expected = as_eigen(std::span<const float>(values), tensors[t].row_size);
    CHECK(as_eigen(master, names[t]) == expected);
    CHECK(as_eigen(std::as_const(master), names[t]) == expected);
    CHECK(to_eigen(master, names[t]) == expected);
    CHECK(to_eigen(weights, names[t]) == expected);
    CHECK(to_eigen(tensors[t]) == expected);
  }
  static_assert(is_read_only<decltype(as_eigen(std::as_const(master), ""))>);

  // A_log stands as (K, N).
  const auto& A_log = tensors[matching_names("test", "*.h.0.attn.A_log", names)[0]];
  auto values = values_of(A_log);
  as_eigen(master, "*.h.0.attn.A_log").row(2).setConstant(7);
  const auto row = values.begin() + 2 * A_log.row_size;
  std::fill(row, row + A_log.row_size, 7.f);
  CHECK(values_of(A_log) == values);

  CHECK_MESSAGE_OF(to_eigen(weights, "*.nothing"),
                   "to_eigen: no tensor matches the pattern \"*.nothing\"", names[0]);
  CHECK_MESSAGE_OF(as_eigen(master, "*.A_log"),
                   "as_eigen: expected one tensor, found 2 that match ", "\"*.A_log\"");
  CHECK_MESSAGE_OF(from_eigen(EigenMatrix<float>(2, 2), weights, "*.A_log"),
                   "from_eigen: expected one tensor, found 2");
}

TEST_CASE("eigen: weights that were replaced are those that sessions run with") {
  Random rng;
  CAPTURE(rng.seed);
  auto weights = random_weights<Model>(3), expected = random_weights<Model>(3);
  const auto other = random_weights<Model>(4);
  const auto names = tensor_names(weights);
  const auto from = other.tensors(), to = expected.tensors();
  for (const std::string pattern : {"*.0.*in_proj.weight", "*.0.*A_log", "*.1.*w3.weight"}) {
    CAPTURE(pattern);
    from_eigen(0.5f * to_eigen(other, pattern), weights, pattern);
    const std::size_t t = matching_names("test", pattern, names)[0];
    auto values = values_of(from[t]);
    for (float& x : values) x *= 0.5f;
    for (std::int64_t r = 0; r < to[t].rows; ++r)
      to[t].set_row(r, values.data() + r * to[t].row_size);
  }
  expected.derive();
  CHECK(same_bits(weights.memory(), expected.memory()));
  CHECK_FALSE(same_bits(weights.memory(), random_weights<Model>(3).memory()));
}

TEST_CASE("eigen: a tensor of a state, in a layer and in a snapshot") {
  Random rng;
  CAPTURE(rng.seed);
  const auto weights = random_weights<Model>(3);
  Session session(weights);
  session.prefill(random_tokens<Model>(rng, 40));
  Snapshot snapshot = session.snapshot();
  const Snapshot& same = snapshot;

  const TempDir folder;
  session.save(folder.file("state"));
  const auto file = SafetensorsFile::open(folder.file("state"));
  REQUIRE(file.tensors().size() == 8);
  for (const TensorView& tensor : file.tensors()) {
    const std::string name(tensor.name);
    CAPTURE(name);
    const auto values = read_tensor<float>(file, name);
    const auto map = as_eigen<Model>(same, name);
    CHECK(map.cols() == tensor.shape[tensor.shape.size() - 1]);
    CHECK(same_bits(std::span(map.data(), static_cast<std::size_t>(map.size())), values));
  }
  static_assert(is_read_only<decltype(as_eigen<Model>(same, ""))>);
  static_assert(!is_read_only<decltype(as_eigen<Model>(snapshot, ""))>);

  // Written through: a state of zeros is that of a session that has read nothing.
  using Recurrent = tiny::MambaOnly;
  const auto recurrent = random_weights<Recurrent>(3);
  Session read(recurrent), fresh(recurrent);
  read.prefill(random_tokens<Recurrent>(rng, 40));
  Snapshot emptied = read.snapshot();
  for (const char* name : {"0.conv", "0.ssm", "1.conv", "1.ssm", "2.conv", "2.ssm"})
    as_eigen<Recurrent>(emptied, name).setZero();
  CHECK_FALSE(same_result(copy(read.step(3)), copy(fresh.step(3))));
  read.restore(emptied);
  fresh.reset();
  CHECK(same_result(copy(read.step(3)), copy(fresh.step(3))));

  std::vector<float> numbers(3 * 5 * 2);
  Array<float, 3, 5, 2> array{{numbers.data()}};
  static_assert(is_read_only<decltype(as_eigen(std::as_const(array)))>);
  as_eigen(array)(14, 1) = 7;
  CHECK(numbers.back() == 7);
  CHECK(as_eigen(std::as_const(array)).sum() == 7);
}

TEST_CASE("eigen: the state of full attention has the capacity of its session") {
  const auto weights = random_weights<tiny::AttentionOnly>(3);
  Session session(weights, {.capacity = 50});
  session.prefill(std::array{1, 2, 3});
  const Snapshot snapshot = session.snapshot();
  const auto keys = as_eigen<tiny::AttentionOnly>(snapshot, "0.k");
  CHECK(keys.rows() == 50);  // one key/value head
  CHECK(keys.topRows(3).rowwise().norm().minCoeff() > 0);
  CHECK(keys.bottomRows(47).isZero(0));
}

TEST_CASE("eigen: snapshots of another model or type, and names that are not there, are errors") {
  const auto weights = random_weights<Model>(3);
  Session<Model, float, bf16> session(weights);
  const Snapshot snapshot = session.snapshot();
  CHECK(as_eigen<Model, float, bf16>(snapshot, "0.ssm").isZero(0));
  CHECK_MESSAGE_OF((as_eigen<Model, float, bf16>(snapshot, "2.k")),
                   "as_eigen: the snapshot has no F32 tensor \"2.k\"; there are ",
                   "0.conv, 0.ssm, 4.conv, 4.ssm");
  CHECK_MESSAGE_OF(
      as_eigen<Model>(snapshot, "0.ssm"),
      "as_eigen: the snapshot has other types: expected state F32, keys and values F32, "
      "found state F32, keys and values BF16");
  CHECK_MESSAGE_OF(as_eigen<tiny::MambaOnly>(snapshot, "0.ssm"),
                   "as_eigen: the snapshot belongs to another model");
  Snapshot damaged;
  damaged.structure = snapshot.structure;
  damaged.dtypes = snapshot.dtypes;
  CHECK_MESSAGE_OF((as_eigen<Model, float, bf16>(damaged, "0.ssm")),
                   "as_eigen: the snapshot: expected ", " bytes, found 0");
}

namespace {

/// A and B of the only projection of adapters: numbers() is A, (rank, in), then B, (out, rank).
auto factors(Adapters<Model, double>& adapters, std::int64_t in) {
  const std::span<double> numbers = adapters.numbers();
  const auto size_of_A = static_cast<std::size_t>(adapters.rank() * in);
  return std::pair(as_eigen(numbers.first(size_of_A), in),
                   as_eigen(numbers.subspan(size_of_A), adapters.rank()));
}

}  // namespace

TEST_CASE("eigen: what adapters add has their rank, by singular values") {
  Random rng;
  CAPTURE(rng.seed);
  const std::string name = "*.h.0.attn.in_proj.weight";
  const auto base = random_weights<Model, Master<double>>(3);
  auto merged = random_weights<Model, Master<double>>(3);
  Adapters<Model, double> adapters({.patterns = {name}, .rank = 3, .alpha = 7});
  rng.fill(adapters.numbers(), -0.3, 0.3);
  adapters.merge(merged);

  const auto W = as_eigen(base, name);
  const auto [A, B] = factors(adapters, W.cols());
  const EigenMatrix<double> added = as_eigen(merged, name) - W, expected = 7. / 3 * B * A;
  CHECK((added - expected).norm() <= 1e-14 * (W.norm() + expected.norm()));

  const auto singular = Eigen::JacobiSVD<EigenMatrix<double>>(added).singularValues();
  CHECK(singular(2) > 1e-3 * singular(0));
  CHECK(singular(3) < 1e-13 * W.norm());
}

TEST_CASE("eigen: adapters that begin with the largest singular vectors leave the model as it is") {
  const std::string name = "*.h.1.mlp.*.w3.weight";
  const auto original = random_weights<Model, Master<double>>(3);
  auto base = random_weights<Model, Master<double>>(3);
  Adapters<Model, double> adapters({.patterns = {name}, .rank = 4, .alpha = 4});
  auto W = as_eigen(base, name);
  const Eigen::JacobiSVD<Eigen::MatrixXd> svd(W, Eigen::ComputeThinU | Eigen::ComputeThinV);
  const Eigen::VectorXd roots = svd.singularValues().head(4).cwiseSqrt();
  auto [A, B] = factors(adapters, W.cols());
  B = svd.matrixU().leftCols(4) * roots.asDiagonal();
  A = roots.asDiagonal() * svd.matrixV().leftCols(4).transpose();
  W -= B * A;

  const double norm = as_eigen(original, name).norm(), largest = svd.singularValues()(4);
  CHECK(Eigen::JacobiSVD<Eigen::MatrixXd>(W).singularValues()(0) == Approx(largest).epsilon(1e-12));
  CHECK((as_eigen(original, name) - W).norm() > 0.3 * norm);
  adapters.merge(base);
  CHECK((as_eigen(original, name) - as_eigen(base, name)).norm() <= 1e-14 * norm);
}
