// libFuzzer target over the GGUF reader: its header, metadata, tensors and blocks. Build with clang++
// -fsanitize=fuzzer,address,undefined and run from tests/fuzz/corpus_gguf, which make_corpus.py
// writes.
#include <samba/io/gguf.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>
#include <vector>

namespace {

/// Ends the process, which the fuzzer reports with the input, unless the condition holds.
void require(bool condition) {
  if (!condition) std::abort();
}

/// Calls f; samba::Error is an answer, any other exception escapes and is a finding.
template <class F>
bool try_to(F&& f) {
  try {
    f();
    return true;
  } catch (const samba::Error& error) {
    require(!std::string_view(error.what()).empty());
    return false;
  }
}

/// Reads the entry as T in both ways; it cannot be both a value and an array.
template <class T>
int readings(const samba::GgufMetadata& metadata, const samba::GgufEntry& entry) {
  const bool one = try_to([&] { metadata.get<T>(entry.key); });
  const bool many = try_to([&] {
    std::size_t count = 0;
    for ([[maybe_unused]] const T value : metadata.array<T>(entry.key)) ++count;
    require(count == metadata.array<T>(entry.key).size());
  });
  require(!(one && many));
  return one + many;
}

void check(std::span<const std::byte> bytes) {
  const samba::GgufContent content = samba::parse_gguf(bytes, "input");
  const std::byte *const begin = bytes.data(), *const end = begin + bytes.size();
  require(content.version == 2 || content.version == 3);

  const samba::GgufEntry* previous = nullptr;
  for (const samba::GgufEntry& entry : content.metadata) {
    require(!previous || previous->key < entry.key);
    previous = &entry;
    require(content.metadata.find(entry.key) == &entry);
    require(entry.data >= begin && entry.data <= end && entry.count >= 0);
    const int reals = readings<double>(content.metadata, entry);
    const int others = readings<bool>(content.metadata, entry) +
                       readings<std::int64_t>(content.metadata, entry) +
                       readings<std::string_view>(content.metadata, entry);
    // One type takes it, but for integers that are too large.
    require(reals + others == 1 || (reals + others == 0 && entry.element == samba::GgufType::u64));
    require(readings<float>(content.metadata, entry) <= reals);
  }

  std::size_t covered = 0;
  std::string_view name;
  for (const samba::GgufTensor& tensor : content.tensors) {
    require(name < tensor.name);
    name = tensor.name;
    require(tensor.data.data() > begin && tensor.data.data() + tensor.data.size() <= end);
    require((tensor.data.data() - begin) % content.alignment == 0);
    require(tensor.rows() > 0 && tensor.columns() > 0);
    require(tensor.row_bytes() * static_cast<std::size_t>(tensor.rows()) == tensor.data.size());
    covered += tensor.data.size();
    const samba::detail::GgmlTypeRow* const type = samba::detail::find_ggml_type(tensor.type);
    require(type != nullptr);
    // No more than two per byte of the input; of other types there may be more, and none is read.
    const auto size =
        type->to_floats ? static_cast<std::size_t>(tensor.rows() * tensor.columns()) : 0;
    require(size <= 2 * bytes.size());
    std::vector<float> floats(size);
    require(try_to([&] { samba::read_rows(tensor, 0, tensor.rows(), floats); }) ==
            (type->to_floats != nullptr));
  }
  require(covered <= bytes.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_to([&] { check(std::as_bytes(std::span(data, size))); });
  return 0;
}
