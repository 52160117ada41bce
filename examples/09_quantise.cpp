// 09_quantise: a checkpoint to a file of packed weights, with matrices of fewer bits, that is opened
// by mapping it.
//   09_quantise --type int8 --out demo.int8.safetensors [--model DIR] [--text FILE]
// Says what the file takes and how long it takes to open, and what the bits that are gone cost: bits
// per byte of a text, before and after.
#include "demo_model.hpp"
#include "program.hpp"

#include <chrono>
#include <cstdio>
#include <string>

using namespace samba;

namespace {

struct Options {
  std::string model = "examples/demo_model", text = "examples/demo_model/heldout.txt";
  std::string type = "int8", out = "demo.packed.safetensors";
  std::size_t bytes = 4096;
};

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

template <class T>
double bits_per_byte(const Weights<DemoModel, T>& weights, const Options& options) {
  const MappedFile file(options.text);
  const auto tokens = ByteTokenizer().encode(
      std::string_view(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size())
          .substr(0, options.bytes));
  Session session(weights);
  const Score scored = score(session, tokens);
  return scored.bits_per_byte(scored.tokens);
}

template <class T>
void quantise(const Options& options) {
  const auto weights = load<DemoModel>(options.model);
  auto start = std::chrono::steady_clock::now();
  save_packed(load<DemoModel, T>(options.model), options.out);
  std::printf("%s: %s, %.1f MB instead of %.1f, written in %.0f ms\n", options.out.c_str(),
              options.type.c_str(), static_cast<double>(DemoModel::weight_bytes<T>) / 1e6,
              static_cast<double>(weights.bytes()) / 1e6, milliseconds_since(start));

  start = std::chrono::steady_clock::now();
  const auto packed = load_packed<DemoModel, T>(options.out);
  std::printf("opened in %.1f ms\n", milliseconds_since(start));
  const double before = bits_per_byte(weights, options), after = bits_per_byte(packed, options);
  std::printf("bits/byte: %.6f in float, %.6f in %s (%+.3f %%)\n", before, after,
              options.type.c_str(), 100 * (after / before - 1));
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Packs the demo model's weights with matrices of fewer bits.");
  app.footer("Example:\n  09_quantise --type int8 --out demo.int8.safetensors");
  app.option_defaults()->always_capture_default();
  app.add_option("--type", options.type, "type of the matrices")
      ->check(CLI::IsMember({"float", "bf16", "int8"}));
  app.add_option("--out", options.out, "file to write");
  app.add_option("--model", options.model, "folder or file of the weights");
  app.add_option("--text", options.text, "what to score before and after");
  app.add_option("--bytes", options.bytes, "bytes of it");
  return run_program(app, argc, argv, [&] {
    check_output("--out", options.out);
    if (options.type == "int8")
      quantise<int8>(options);
    else if (options.type == "bf16")
      quantise<bf16>(options);
    else
      quantise<float>(options);
  });
}
