// Gemma 3 270M: losses and continuations as in compare.hpp, and its tokenizer: the ids of all texts, and
// the texts back. Usage: gemma3 FILE.gguf EXPECTED.json
#include "compare.hpp"

#include <samba/io/gguf_tokenizer.hpp>

int main(int argc, char** argv) {
  return real::main_of("gemma3", argc, argv, [](const char* gguf, const auto& cases) {
    const samba::BpeTokenizer tokenizer = bpe_tokenizer(samba::GgufFile(gguf));
    // Most weights of the branches have 5 bits and more, and are rounded to 4: found +60 %, of which the
    // rounded weights alone make +58 % in float.
    bool right = real::compare<samba::presets::Gemma3_270M>(gguf, cases, 0.7);
    for (const real::Case& c : cases) right = real::same_ids(c, c.ids, tokenizer, true) && right;
    return right;
  });
}
