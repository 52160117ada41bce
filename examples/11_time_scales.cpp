// 11_time_scales: how long the Mamba layers of the demo model remember, measured on a text.
//   11_time_scales [--text FILE] [--bytes N] [--model DIR]
// Every token multiplies number n of channel c of a layer's state by exp(delta_c A_cn), an eigenvalue
// of its transition, where delta_c depends on the text. Over a text that is a decay with the time
// constant -1 / (A_cn mean delta_c) in tokens. Prints for each layer quantiles of the mean delta and of
// the time constants, the part of these that the attention window does not cover, and how many
// dimensions the state really has. Computed with Eigen on samba's own data.
#include "demo_model.hpp"
#include "program.hpp"

#include <samba/interop/eigen.hpp>

#include <Eigen/SVD>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

using namespace samba;

namespace {

/// Mamba, and what it did: a layer that stands on another one and watches it. Tensors and names are
/// those of Mamba, so it reads the same checkpoints.
template <int D>
struct WatchedMamba : Mamba<D> {
  using Base = Mamba<D>;

  struct Record {
    const void* weights;
    Eigen::ArrayXXd A;          // (d_state, d_inner)
    Eigen::ArrayXXd sum_delta;  // (1, d_inner)
    std::int64_t tokens = 0;
  };
  static inline std::vector<Record> records;  // of the layers, in their order

  template <class P>
  static void forward(const Context<P>& c, const typename Base::template Weights<Weight<P>>& w,
                      const typename Base::template State<P>& s,
                      const typename Base::template Scratch<P>& t, In<P, D> u, Out<P, D> out) {
    const Team& team = c.device.team;
    Base::forward(c, w, s, t, u, out);
    if (team.rank == 0) {
      auto record = std::ranges::find(records, &w, &Record::weights);
      if (record == records.end())
        record = records.insert(record, {&w, as_eigen(w.A).template cast<double>(),
                                         Eigen::ArrayXXd::Zero(1, Base::d_inner)});
      // delta = softplus(W_dt r + b_dt), from the r that forward left in its scratch.
      const auto r = as_eigen(first<Base::dt_rank>(t.rBC));  // (rows, dt_rank)
      const EigenMatrix<Real<P>> x =
          (r * to_eigen(w.dt_proj).transpose()).rowwise() + as_eigen(w.dt_bias).row(0);
      record->sum_delta += x.template cast<double>().array().exp().log1p().colwise().sum();
      record->tokens += c.rows;
    }
    team.barrier();  // until here nobody uses the scratch for the next layer
  }
};

constexpr int window = 512, blocks = 4;
struct Block
    : HybridStack<WatchedMamba<256>, SwiGLU<256, 768>,
                  SWA<window, AttentionOptions{.n_heads = 4, .n_kv_heads = 2}>, SwiGLU<256, 768>> {
};
struct Model : LanguageModel<Repeat<blocks, Block>, DemoModel::options> {};
/// The number of the branch of a block's Mamba: it is the first of four.
constexpr int branch_of(std::size_t block) { return static_cast<int>(4 * block); }

/// The value below which a part of the numbers lie.
double quantile(const Eigen::ArrayXXd& numbers, double part) {
  std::vector<double> sorted(numbers.data(), numbers.data() + numbers.size());
  std::ranges::sort(sorted);
  return sorted[static_cast<std::size_t>(
      std::lround(part * static_cast<double>(sorted.size() - 1)))];
}

/// How many dimensions a matrix really has: the exponential of the entropy of its singular values (Roy
/// & Vetterli 2007). That is n for n equal ones.
double effective_rank(const Eigen::MatrixXf& matrix) {
  Eigen::ArrayXf values = Eigen::JacobiSVD<Eigen::MatrixXf>(matrix).singularValues();
  values = (values / values.sum()).max(1e-30f);
  return std::exp(-(values * values.log()).sum());
}

struct Options {
  std::string text = "examples/demo_model/heldout.txt", model = "examples/demo_model";
  std::size_t bytes = 4096;
};

void measure(const Options& options) {
  const MappedFile file(options.text);
  const auto text =
      std::string_view(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size())
          .substr(0, options.bytes);
  const auto tokens = ByteTokenizer().encode(text);
  if (tokens.empty()) fail({options.text, ": expected some text, found none"});
  const auto weights = load<Model>(options.model);
  Session session(weights);

  // The states on the way are looked at in snapshots.
  constexpr std::size_t piece = 256;
  std::vector<double> ranks(blocks);
  Snapshot snapshot;
  int snapshots = 0;
  for (std::size_t at = 0; at < tokens.size(); at += piece, ++snapshots) {
    session.prefill(std::span(tokens).subspan(at, std::min(piece, tokens.size() - at)));
    session.snapshot(snapshot);
    for (std::size_t block = 0; block < blocks; ++block)
      ranks[block] +=
          effective_rank(as_eigen<Model>(snapshot, std::to_string(branch_of(block)) + ".ssm"));
  }

  std::printf("%s: %zu bytes; time constants in bytes\n\n", options.text.c_str(), tokens.size());
  std::printf(
      "branch        mean delta              time constant             beyond   state rank\n");
  std::printf(
      "          10 %%   50 %%   90 %%    10 %%    50 %%    90 %%     most    %d     of %d\n",
      window, WatchedMamba<256>::d_state);
  for (std::size_t block = 0; block < blocks; ++block) {
    const auto& record = WatchedMamba<256>::records[block];
    const Eigen::ArrayXXd delta = record.sum_delta / static_cast<double>(record.tokens);
    const Eigen::ArrayXXd constants = -1 / (record.A.rowwise() * delta.row(0));
    const auto beyond = static_cast<double>((constants > window).count());
    std::printf("%6d %7.4f %7.4f %7.4f %7.2f %7.1f %7.1f %8.0f %5.1f %% %8.1f\n", branch_of(block),
                quantile(delta, 0.1), quantile(delta, 0.5), quantile(delta, 0.9),
                quantile(constants, 0.1), quantile(constants, 0.5), quantile(constants, 0.9),
                constants.maxCoeff(), 100 * beyond / static_cast<double>(constants.size()),
                ranks[block] / snapshots);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Measures how long the Mamba layers of the demo model remember.");
  app.footer("Example:\n  11_time_scales --text examples/demo_model/heldout.txt");
  app.option_defaults()->always_capture_default();
  app.add_option("--text", options.text, "what the model reads meanwhile");
  app.add_option("--bytes", options.bytes, "bytes of it");
  app.add_option("--model", options.model, "folder or file of the weights");
  return run_program(app, argc, argv, [&] { measure(options); });
}
