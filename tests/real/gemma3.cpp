// Gemma 3 270M: losses and continuations as in compare.hpp. Usage: gemma3 FILE.gguf EXPECTED.json
#include "compare.hpp"

int main(int argc, char** argv) {
  return real::main_of("gemma3", argc, argv, [](const char* gguf, const auto& cases) {
    // Most weights of the branches have 5 bits and more, and are rounded to 4: found +60 %, of which the
    // rounded weights alone make +58 % in float.
    return real::compare<samba::presets::Gemma3_270M>(gguf, cases, 0.7);
  });
}
