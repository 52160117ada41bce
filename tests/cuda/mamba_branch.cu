// The text of Mamba in residual branches on a CUDA device: a prefill of two sequences, then steps of a
// captured graph, which is replayed for other sequences too. Compared with the same model in double on
// the processor: the error may be twice that of the processor in bf16.
// Usage: mamba_branch          Exit status 77 where there is no device.
#include <samba/kernels/cpu.hpp>
#include <samba/layers/mamba.hpp>
#include <samba/model/initialize.hpp>

#include <cstdio>
#include <vector>

#include "tests/cuda/support.cuh"

using namespace samba;
using namespace samba_test;

namespace {

constexpr int D = 1024;
struct Model
    : LanguageModel<Repeat<2, Mamba<D>>, ModelOptions{.vocab_size = 32, .tie_embeddings = true}> {};

/// Three sequences, of which two go through the model at a time.
constexpr std::int64_t sequences = 3, prefill[2] = {96, 37}, steps = 24;

/// A pass through the branches on the processor, in T.
template <class T>
class OnCpu {
  using P = Policy<T>;
  using R = Real<T>;

 public:
  explicit OnCpu(const Weights<Model, T>& weights) : weights_(&weights) {
    const std::int64_t each = Model::template place_states<P>(states_, nullptr, 0, 0);
    memory_ = Arena(sequences * each);
    Model::template place_states<P>(states_, memory_.data(), each, 0);
  }

  std::vector<double> run(const std::vector<float>& x, const std::vector<Segment>& segments) {
    std::vector<R> stream(x.begin(), x.end());
    const auto rows = static_cast<std::int64_t>(x.size()) / D;
    std::int64_t bytes = 0;
    for_each_branch<Model::Stack>([&](auto branch, Use) {
      typename decltype(branch)::type::template Scratch<P> scratch;
      bytes = std::max(bytes, scratch.place({nullptr, rows, 1}));
    });
    const Arena scratch(bytes);
    Model::forward(Context<P>{{segments, rows}, {}, Model::norm_eps}, weights_->tree(), states_,
                   {scratch.data(), rows, 1}, Rows<R, D>{stream.data(), rows});
    return {stream.begin(), stream.end()};
  }

 private:
  const Weights<Model, T>* weights_;
  typename Model::template States<P> states_;
  Arena memory_;
};

/// The same on a device, matrices in bf16.
class OnDevice {
  using T = RowMajor<bf16>;
  using P = Policy<T, bf16, Cuda>;

 public:
  explicit OnDevice(const Weights<Model, T>& weights)
      : weights_(cuda::to_device(weights.memory(), "weights")),
        segments_(cuda::allocate(2 * sizeof(Segment), "segments")),
        x_(cuda::allocate(rows_at_most * D * sizeof(float), "the residual stream")) {
    const std::int64_t each = Model::place_states<P>(states_, nullptr, 0, 0);
    memory_ = cuda::allocate(sequences * each, "states");
    Model::place_states<P>(states_, memory_.data(), each, 0);
    std::int64_t bytes = 0;
    for_each_branch<Model::Stack>([&](auto branch, Use) {
      typename decltype(branch)::type::template Scratch<P> scratch;
      bytes = std::max(bytes, scratch.place({nullptr, rows_at_most, 1}));
    });
    scratch_ = cuda::allocate(bytes, "scratch");
  }

  /// Puts inputs and segments on the device.
  void set(const std::vector<float>& x, const std::vector<Segment>& segments) {
    cuda::check_call(cudaMemcpyAsync(x_.data(), x.data(), x.size() * sizeof(float),
                                     cudaMemcpyHostToDevice, device_.get().stream()),
                     "cudaMemcpyAsync");
    cuda::check_call(
        cudaMemcpyAsync(segments_.data(), segments.data(), segments.size() * sizeof(Segment),
                        cudaMemcpyHostToDevice, device_.get().stream()),
        "cudaMemcpyAsync");
    device_.synchronize();
  }
  /// Enqueues a pass of `rows` rows of n segments.
  void enqueue(std::int64_t rows, std::size_t n) {
    const std::span segments(reinterpret_cast<const Segment*>(segments_.data()), n);
    Model::forward(Context<P>{{segments, rows}, device_.get(), Model::norm_eps}, weights_.tree(),
                   states_, {scratch_.data(), rows, 1},
                   Rows<float, D>{reinterpret_cast<float*>(x_.data()), rows});
  }
  std::vector<float> result(std::int64_t rows) {
    device_.synchronize();
    std::vector<float> x(static_cast<std::size_t>(rows * D));
    cuda::check_call(
        cudaMemcpy(x.data(), x_.data(), x.size() * sizeof(float), cudaMemcpyDeviceToHost),
        "cudaMemcpy");
    return x;
  }
  const cuda::Device& device() const { return device_; }

 private:
  static constexpr std::int64_t rows_at_most = prefill[0] + prefill[1];

  cuda::Device device_;
  Weights<Model, T> weights_;
  typename Model::template States<P> states_;
  Arena memory_, segments_, x_, scratch_;
};

double distance(const auto& a, const auto& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    norm += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return is_finite(static_cast<float>(difference)) ? std::sqrt(difference / norm) : 1e300;
}

/// Compares what the device gave, and says how far it is from the model in double.
void check_agrees(const char* what, const std::vector<float>& device,
                  const std::vector<double>& narrow, const std::vector<double>& exact) {
  const double error = distance(device, exact), allowed = 2 * distance(narrow, exact);
  std::printf("%-44s error %.3e, at most %.3e (twice that of bf16 on the processor)\n", what, error,
              allowed);
  is_right(error <= allowed, what);
}

void check() {
  // The same weights for all: matrices rounded to bf16.
  Weights<Model, bf16> narrow;
  initialize(narrow, 1);
  Weights<Model, double> exact;
  const auto by_rows = cuda::by_rows(narrow);
  const auto from = narrow.tensors();
  const auto to = exact.tensors();
  std::vector<float> row;
  std::vector<double> wide;
  for (std::size_t t = 0; t < from.size(); ++t) {
    row.resize(static_cast<std::size_t>(from[t].row_size));
    for (std::int64_t r = 0; r < from[t].rows; ++r) {
      from[t].get_row(r, row.data());
      wide.assign(row.begin(), row.end());
      to[t].set_row(r, wide.data());
    }
  }
  exact.derive();

  OnCpu<double> in_double(exact);
  OnCpu<bf16> in_bf16(narrow);
  OnDevice on_device(by_rows);
  SplitMix64 random(2);
  const auto draw = [&](std::int64_t rows) {
    std::vector<float> x(static_cast<std::size_t>(rows * D));
    for (float& value : x) value = static_cast<float>(2 * random.uniform() - 1);
    return x;
  };

  const std::int64_t rows = prefill[0] + prefill[1];
  const std::vector<Segment> both{{0, 0, prefill[0], 0}, {0, prefill[0], prefill[1], 1}};
  const std::vector<float> prompt = draw(rows);
  on_device.set(prompt, both);
  on_device.enqueue(rows, 2);
  check_agrees("prefill of two sequences", on_device.result(rows), in_bf16.run(prompt, both),
               in_double.run(prompt, both));

  // Steps: sequences 0 and 1, then 2 and 0.
  const cuda::Graph graph(on_device.device(), [&] { on_device.enqueue(2, 2); });
  std::vector<double> all_bf16, all_double;
  std::vector<float> all;
  for (std::int64_t i = 0; i < steps; ++i) {
    const bool first_half = i < steps / 2;
    const std::vector<Segment> segments{{prefill[0] + i, 0, 1, first_half ? 0 : 2},
                                        {prefill[1] + i, 1, 1, first_half ? 1 : 0}};
    const std::vector<float> x = draw(2);
    on_device.set(x, segments);
    graph.replay();
    const auto append = [](auto& to_all, const auto& part) {
      to_all.insert(to_all.end(), part.begin(), part.end());
    };
    append(all, on_device.result(2));
    append(all_bf16, in_bf16.run(x, segments));
    append(all_double, in_double.run(x, segments));
  }
  check_agrees("24 steps of a graph, of three sequences", all, all_bf16, all_double);

  // The time of a step, without copies.
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  constexpr int replays = 200;
  cudaEventRecord(begin, on_device.device().get().stream());
  for (int i = 0; i < replays; ++i) graph.replay();
  cudaEventRecord(end, on_device.device().get().stream());
  cuda::check_call(cudaEventSynchronize(end), "cudaEventSynchronize");
  float milliseconds = 0;
  cudaEventElapsedTime(&milliseconds, begin, end);
  std::printf("a step of 2 sequences through %d branches of d_model %d: %.1f us\n", Model::depth, D,
              static_cast<double>(milliseconds) * 1000 / replays);
}

}  // namespace

int main() { return run_checks(check); }
