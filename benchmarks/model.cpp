// Whole models with random weights: `prefill` reads tokens, `decode` steps one by one from a position
// on, `decode_beside` does so while another process keeps one processor busy, `batch` steps 8 sequences
// together. Variants end in the type of the matrices; `kv_bf16`: keys
// and values in bf16. Rows of Samba421M (1.7 GB of weights in float) are there when
// SAMBA_BENCH_LARGE is set.
#include "model.hpp"

#include <csignal>
#include <cstdlib>
#include <optional>

#include <sys/wait.h>
#include <unistd.h>

using namespace bench;
using namespace samba;

namespace {

struct Mamba130M : LanguageModel<Repeat<24, Mamba<768>>,
                                 ModelOptions{.vocab_size = 50280, .tie_embeddings = true}> {};

template <class Model, class T>
const Weights<Model, T>& random_weights() {
  static const Weights<Model, T> weights = [] {
    Weights<Model, T> w;
    Random random;
    w.visit([&]<class X>(int, const auto&, const auto&, X& x, const auto&...) {
      fill(x.data(), X::bytes, random);
    });
    w.derive();
    return w;
  }();
  return weights;
}

/// Bytes of the weights that a token needs: all but an embedding that stands alone.
template <class Model, class T>
constexpr double weights_read =
    static_cast<double>(Model::template weight_bytes<T>) -
    (Model::tie_embeddings
         ? 0.
         : static_cast<double>(Table<TableElement<T>, Model::vocab_size, Model::d_model>::bytes));

/// Bytes of state that are read and written by a chunk of `rows` tokens from `position` on.
template <class Model, class KV>
double model_state_traffic(std::int64_t position, std::int64_t rows) {
  double bytes = 0;
  for_each_branch<typename Model::Stack>([&](auto branch, Use) {
    using B = typename decltype(branch)::type;
    bytes += state_traffic<typename B::template State<Policy<float, KV>>>(position, rows);
  });
  return bytes;
}

template <class Model, class T, class KV>
std::string variant(const std::string& what) {
  const std::string name = what + type_suffix<T>();
  return std::is_same_v<KV, float> ? name : name + "_kv_bf16";
}

template <class Model, class T, class KV = float>
void add_prefill(const std::string& model, std::int64_t n) {
  for (const int threads : thread_counts())
    model_row(path({"model", variant<Model, T, KV>("prefill"), model, std::to_string(n)}), threads,
              n, dot_of<T>, [=](benchmark::State& state) {
                Session<Model, T, KV> session(random_weights<Model, T>(), {.threads = threads});
                const auto prompt = tokens<Model>(n);
                while (state.KeepRunning()) {
                  session.reset();
                  session.prefill(prompt);
                }
                // The head is needed for the last token only.
                double flops =
                    -2.0 * Model::vocab_size * Model::d_model * static_cast<double>(n - 1);
                for (std::int64_t i = 0; i < n; ++i)
                  flops += static_cast<double>(Model::flops_per_token(i));
                return Cost{.bytes = weights_read<Model, T> + model_state_traffic<Model, KV>(0, n),
                            .flops = flops};
              });
}

/// A process that does nothing but keep a processor busy.
struct BusyProcess {
  pid_t id = fork();

  BusyProcess() {
    if (id == 0)
      for (;;) __asm__ volatile("");
  }
  BusyProcess(const BusyProcess&) = delete;
  BusyProcess& operator=(const BusyProcess&) = delete;
  ~BusyProcess() {
    if (id > 0) {
      kill(id, SIGKILL);
      waitpid(id, nullptr, 0);
    }
  }
};

/// Steps from `position` on; a restored state costs nothing beside them.
template <class Model, class T, class KV = float>
void add_decode(const std::string& model, std::int64_t position, bool beside = false) {
  constexpr int most = 512;
  const char* const name = beside ? "decode_beside" : "decode";
  for (const int threads : thread_counts())
    model_row(path({"model", variant<Model, T, KV>(name), model, rows_at(1, position)}), threads, 1,
              dot_of<T>, [=](benchmark::State& state) {
                std::optional<BusyProcess> other;
                if (beside) other.emplace();
                Session<Model, T, KV> session(random_weights<Model, T>(), {.threads = threads});
                if (position > 0) session.prefill(tokens<Model>(position));
                const Snapshot begin = session.snapshot();
                session.step(0);
                session.restore(begin);
                while (state.KeepRunning()) {
                  if (session.position() == position + most) session.restore(begin);
                  session.step(token<Model>(session.position()));
                }
                const std::int64_t middle =
                    position + std::min<std::int64_t>(most, state.iterations()) / 2;
                return Cost{
                    .bytes = weights_read<Model, T> + model_state_traffic<Model, KV>(middle, 1),
                    .flops = static_cast<double>(Model::flops_per_token(middle))};
              });
}

template <class Model, class T, class KV = float>
void add_batch(const std::string& model, int batch_size) {
  for (const int threads : thread_counts())
    model_row(
        path({"model", variant<Model, T, KV>("batch"), model, std::to_string(batch_size)}), threads,
        batch_size, dot_of<T>, [=](benchmark::State& state) {
          Batch<Model, T, KV> batch(random_weights<Model, T>(), batch_size, {.threads = threads});
          const auto next = tokens<Model>(batch_size);
          while (state.KeepRunning()) {
            if (batch.position(0) == 512)
              for (int i = 0; i < batch_size; ++i) batch.reset(i);
            batch.step(next);
          }
          const std::int64_t middle = std::min<std::int64_t>(512, state.iterations()) / 2;
          return Cost{.bytes = weights_read<Model, T> +
                               batch_size * model_state_traffic<Model, KV>(middle, 1),
                      .flops = static_cast<double>(batch_size * Model::flops_per_token(middle))};
        });
}

template <class Model>
void add(const std::string& model) {
  add_prefill<Model, float>(model, 512);
  add_prefill<Model, bf16, bf16>(model, 512);
  add_prefill<Model, int8, bf16>(model, 512);
  add_prefill<Model, q4, bf16>(model, 512);
  add_decode<Model, float>(model, 0);
  add_decode<Model, bf16>(model, 0);
  add_decode<Model, int8>(model, 0);
  add_decode<Model, q4>(model, 0);
  add_decode<Model, bf16>(model, 0, true);
}

[[maybe_unused]] const bool registered = [] {
  add<Demo>("demo");
  add<Mamba130M>("mamba130m");
  if (!std::getenv("SAMBA_BENCH_LARGE")) return true;
  using Large = presets::Samba421M;
  add<Large>("samba421m");
  add<presets::Llama438M>("llama438m");
  add_prefill<Large, bf16, bf16>("samba421m", 4096);
  add_decode<Large, float>("samba421m", 2048);
  add_decode<Large, bf16, bf16>("samba421m", 2048);
  add_decode<Large, int8, bf16>("samba421m", 2048);
  add_batch<Large, bf16, bf16>("samba421m", 1);
  add_batch<Large, bf16, bf16>("samba421m", 8);
  return true;
}();

}  // namespace
