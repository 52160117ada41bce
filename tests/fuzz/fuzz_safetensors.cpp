// libFuzzer target over everything that reads bytes of strangers: the safetensors header, the index
// of shards, and JSON values in general. Build with clang++ -fsanitize=fuzzer,address,undefined and
// run from tests/fuzz/corpus, which make_corpus.py writes.
#include <samba/io/safetensors.hpp>
#include <samba/io/shards.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace {

/// Ends the process, which the fuzzer reports with the input, unless the condition holds.
void require(bool condition) {
  if (!condition) std::abort();
}

/// Calls f; samba::Error is an answer, any other exception escapes and is a finding.
template <class F>
void try_to(F&& f) {
  try {
    f();
  } catch (const samba::Error& error) {
    require(!std::string_view(error.what()).empty());
  }
}

void check_views(std::span<const std::byte> bytes) {
  const auto content = samba::parse_safetensors(bytes, "input");
  std::size_t covered = 0;
  const std::string_view* previous = nullptr;
  for (const samba::TensorView& tensor : content.tensors) {
    require(tensor.data.data() >= bytes.data() + 8);
    require(tensor.data.data() + tensor.data.size() <= bytes.data() + bytes.size());
    require(!previous || *previous < tensor.name);
    previous = &tensor.name;
    covered += tensor.data.size();

    std::int64_t size = 1;
    for (const std::int64_t extent : tensor.shape) {
      require(extent >= 0);
      size *= extent;
    }
    require(size == tensor.size());
    if (tensor.dtype == samba::Dtype::other) {  // any number of elements
      require(!tensor.dtype_text().empty());
      std::array<float, 1> one{};
      bool refused = false;
      try {
        samba::read_floats(tensor, 0, std::span(one).first(size > 0));
      } catch (const samba::Error&) {
        refused = true;
      }
      require(refused);
      continue;
    }
    require(static_cast<std::size_t>(size) * static_cast<std::size_t>(dtype_bytes(tensor.dtype)) ==
            tensor.data.size());

    // No larger than the input, which holds the bytes of every element.
    std::vector<float> floats(static_cast<std::size_t>(size));
    std::vector<double> doubles(floats.size());
    std::vector<std::int64_t> integers(floats.size());
    try_to([&] { samba::read_floats(tensor, 0, std::span(floats)); });
    try_to([&] { samba::read_floats(tensor, 0, std::span(doubles)); });
    try_to([&] { samba::read_integers(tensor, 0, integers); });
  }
  require(covered <= bytes.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try_to([&] { check_views(bytes); });
  // The same bytes without their length: mutations of the header need not keep it right.
  std::vector<std::byte> prefixed(8 + size);
  for (std::size_t i = 0; i < 8; ++i) prefixed[i] = static_cast<std::byte>(size >> (8 * i) & 255);
  std::copy(bytes.begin(), bytes.end(), prefixed.begin() + 8);
  try_to([&] { check_views(prefixed); });
  try_to([&] {
    for (const auto& [name, shard] : samba::parse_shard_index(text, "input")) {
      require(!shard.empty() && shard.find('/') == std::string::npos &&
              shard.find("..") == std::string::npos);
    }
  });
  try_to([&] {
    samba::JsonReader json(text, "input");
    json.skip();
    json.end();
  });
  return 0;
}
