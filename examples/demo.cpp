// demo: loads the small trained Samba of the folder demo_model, scores text with it, lets it write.
//   demo examples/demo_model
// Fails if the score is not the one that a float64 reference computed (expected.json).
#include "demo_model.hpp"
#include "output.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

using namespace samba;

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double megabytes(std::int64_t bytes) { return static_cast<double>(bytes) / 1e6; }

std::string read_text(const std::string& path) {
  const MappedFile file(path);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

/// The number behind "bits_per_byte" in a JSON file.
double expected_bits_per_byte(const std::string& path) {
  const std::string text = read_text(path), key = "\"bits_per_byte\":";
  const auto at = text.find(key);
  if (at == std::string::npos) fail({path, ": expected a member \"bits_per_byte\", found none"});
  return std::strtod(text.c_str() + at + key.size(), nullptr);
}

/// The most memory this process has had, in bytes; 0 where the system does not say.
std::int64_t peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::atoll(line.c_str() + 6) * 1024;
  return 0;
}

constexpr const char* help =
    "Loads the small trained Samba of the folder MODEL, scores text with it and lets it write.\n"
    "Fails if the score is not the one that a float64 reference computed.\n"
    "Usage: demo MODEL\n"
    "Example: demo examples/demo_model\n";

void show(const std::string& folder) {
  std::printf("%s\n\n%s\n", build_info().c_str(), describe<DemoModel>().c_str());

  auto start = Clock::now();
  const auto weights = load<DemoModel>(folder);
  std::printf("loaded %s: %.1f MB of weights in %.2f s\n", folder.c_str(),
              megabytes(weights.bytes()), seconds_since(start));

  constexpr std::size_t scored_bytes = 4096;
  const std::string text = read_text(folder + "/heldout.txt").substr(0, scored_bytes);
  if (text.size() < scored_bytes)
    fail({folder, "/heldout.txt: expected ", scored_bytes, " bytes, found ", text.size()});
  const ByteTokenizer tokenizer;
  Session session(weights);
  start = Clock::now();
  Score scored;
  {
    Progress progress;
    scored = score(session, tokenizer.encode(text), [&](std::int64_t done, std::int64_t total) {
      progress.show("scoring held-out text: %lld of %lld", static_cast<long long>(done),
                    static_cast<long long>(total));
    });
  }
  const double bits = scored.bits_per_byte(scored.tokens),
               expected = expected_bits_per_byte(folder + "/expected.json");
  std::printf("scored %lld bytes in %.2f s, each given all before it\n",
              static_cast<long long>(scored.tokens), seconds_since(start));
  std::printf("bits/byte: %.6f\n", bits);
  if (!(std::abs(bits - expected) <= 0.0005))
    fail({"expected ", std::to_string(expected), " bits/byte within 0.0005, found ",
          std::to_string(bits)});
  std::printf("the float64 reference has %.6f\n\n", expected);

  constexpr int generated = 400;
  const std::string prompt = "In the beginning God";
  Sampler sample{{.temperature = 0.7f, .top_p = 0.95f, .seed = 1}};
  StreamDecoder decode(tokenizer);
  session.reset();
  start = Clock::now();
  auto logits = session.prefill(tokenizer.encode(prompt));
  std::printf("%s", prompt.c_str());
  for (int i = 0; i < generated; ++i) {
    const auto token = sample(logits);
    std::printf("%s", decode(token).c_str());
    std::fflush(stdout);
    logits = session.step(token);
  }
  const double seconds = seconds_since(start);
  std::printf(
      "%s\n\n%d tokens in %.2f s: %.0f tokens/s; peak memory %.1f MB; state %.2f MB, whatever the "
      "position\n",
      decode.finish().c_str(), generated, seconds, generated / seconds, megabytes(peak_memory()),
      megabytes(session.state_bytes()));
}

}  // namespace

int main(int argc, char** argv) {
  return run_main(argc, argv, help, [&] {
    if (argc != 2)
      fail({"expected one argument, the folder of the demo model: demo examples/demo_model"});
    show(argv[1]);
  });
}
