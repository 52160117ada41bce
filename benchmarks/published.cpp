// A published model from its GGUF file, as scripts/peers --published compares it with llama.cpp.
// Prints JSON: how long it takes to load and to step once; to read 512 tokens of a text; to step 64
// times after the first 16 of them, with the tokens that the text has there; which tokens were most
// likely in these steps; the memory that all this needs; and the bandwidth of the machine. Keys and
// values are in bf16. Threads and repetitions that are not given: all, 3.
// Usage: published MODEL.gguf bf16|int8|q4 TEXT [--threads N] [--repetitions N]
#include "ceiling.hpp"

#include <samba/io/dispatch.hpp>
#include <samba/io/load_tokenizer.hpp>
#include <samba/model/published.hpp>
#include <samba/samba.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

using namespace samba;

namespace {

constexpr std::int64_t prompt_tokens = 512, short_prompt_tokens = 16, decoded_tokens = 64;

constexpr const char* usage =
    "usage: published MODEL.gguf bf16|int8|q4 TEXT [--threads N] [--repetitions N]\n";

using Known = Registry<presets::SmolLM2_135M, presets::Gemma3_270M>;
using Ids = std::vector<std::int32_t>;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string model, type, text;
  int threads = 0, repetitions = 3;
};

int positive(std::string_view option, std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number < 1)
    fail({option, ": expected a number from 1, found ", Quoted{text}});
  return number;
}

Options read_options(int argc, char** argv) {
  Options options;
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--threads" || word == "--repetitions") {
      if (i + 1 == argc) fail({word, ": expected a number"});
      (word == "--threads" ? options.threads : options.repetitions) = positive(word, argv[++i]);
    } else if (word.starts_with('-')) {
      fail({"unknown option ", Quoted{word}});
    } else {
      words.emplace_back(word);
    }
  }
  if (words.size() != 3)
    fail({"expected MODEL.gguf, a type and TEXT, found ", words.size(), " of these three"});
  options.model = words[0];
  options.type = words[1];
  options.text = words[2];
  if (options.type != "bf16" && options.type != "int8" && options.type != "q4")
    fail({"type: expected bf16, int8 or q4, found ", Quoted{options.type}});
  return options;
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// A field of /proc/self/status that counts memory, in bytes.
std::int64_t memory(const char* field) {
  long long kilobytes = 0;
  char line[256];
  std::FILE* const file = std::fopen("/proc/self/status", "r");
  if (!file) fail_errno("/proc/self/status", "cannot open for reading");
  while (std::fgets(line, sizeof line, file))
    if (std::strncmp(line, field, std::strlen(field)) == 0)
      std::sscanf(line + std::strlen(field), ": %lld", &kilobytes);
  std::fclose(file);
  return kilobytes * 1024;
}

/// Bytes/s of reading an array that no cache holds.
double bandwidth(int threads) {
  const std::vector<float> numbers(std::size_t{1} << 26, 1.f);
  double most = 0;
  for (int i = 0; i < 3; ++i)
    most = std::max(most, bench::read_rate(numbers.data(), std::ssize(numbers), threads));
  return most;
}

template <class X>
void print_list(const char* name, const std::vector<X>& list) {
  std::printf("\"%s\": [", name);
  for (const char* comma = ""; const X x : list) {
    std::printf("%s%.9g", comma, static_cast<double>(x));
    comma = ", ";
  }
  std::printf("], ");
}

std::int32_t most_likely(std::span<const float> logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

template <class Model, class T>
void measure(const Options& options, Clock::time_point start, std::int64_t memory_before) {
  const auto weights = load_gguf<Model, T>(options.model);
  const BpeTokenizer tokenizer = load_tokenizer(options.model);
  Session<Model, T, bf16> session(
      weights, {.capacity = prompt_tokens + decoded_tokens, .threads = options.threads});
  session.step(0);
  const double load = seconds_since(start);

  const MappedFile text(options.text);
  const std::string_view bytes(reinterpret_cast<const char*>(text.bytes().data()),
                               text.bytes().size());
  Ids ids = tokenizer.encode(bytes, {.add_bos = tokenizer.adds_bos()});
  if (std::ssize(ids) < prompt_tokens)
    fail({options.text, ": expected at least ", prompt_tokens, " tokens of text, found ",
          std::ssize(ids)});
  ids.resize(prompt_tokens);

  std::vector<double> prefill, decode;
  for (int i = 0; i <= options.repetitions; ++i) {  // the first one warms up
    session.reset();
    const auto before = Clock::now();
    session.prefill(ids);
    if (i > 0) prefill.push_back(seconds_since(before));
  }
  Ids likely;
  for (int i = 0; i <= options.repetitions; ++i) {
    session.reset();
    session.prefill(std::span(ids).first(short_prompt_tokens));
    const auto before = Clock::now();
    for (const std::int32_t id : std::span(ids).subspan(short_prompt_tokens, decoded_tokens)) {
      const auto logits = session.step(id);
      if (i == 0) likely.push_back(most_likely(logits));
    }
    if (i > 0) decode.push_back(seconds_since(before));
  }
  const std::int64_t peak = memory("VmHWM") - memory_before;

  std::printf("{\"target\": \"%s\", \"load_seconds\": %.6g, ", target, load);
  print_list("prefill_seconds", prefill);
  print_list("decode_seconds", decode);
  print_list("ids", ids);
  print_list("likely", likely);
  std::printf("\"peak_bytes\": %lld, \"weight_bytes\": %lld, \"read_bytes_per_s\": %.6g}\n",
              static_cast<long long>(peak), static_cast<long long>(Model::template weight_bytes<T>),
              bandwidth(usable_threads(options.threads)));
}

void run(const Options& options) {
  const std::int64_t memory_before = memory("VmRSS");
  const auto start = Clock::now();
  dispatch(Known{}, options.model, [&]<class Model>(std::type_identity<Model>) {
    if (options.type == "bf16")
      measure<Model, bf16>(options, start, memory_before);
    else if (options.type == "int8")
      measure<Model, int8>(options, start, memory_before);
    else
      measure<Model, q4>(options, start, memory_before);
  });
}

}  // namespace

int main(int argc, char** argv) {
  bool started = false;
  try {
    const Options options = read_options(argc, argv);
    started = true;
    run(options);
    return std::fflush(stdout) == 0 ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    if (started) return 1;
    std::fputs(usage, stderr);
    return 2;
  }
}
