// 13_new_model: the C++ of a model's type, from its config.json or GGUF file.
//   13_new_model FILE [NAME]          FILE: a config.json, a folder with one, or a GGUF file
#include "output.hpp"

#include <samba/io/dispatch.hpp>

#include <algorithm>
#include <cstdio>
#include <string>

int main(int argc, char** argv) {
  constexpr const char* help =
      "Usage: 13_new_model FILE [NAME]\n"
      "Prints a header that declares the type of a model, and asserts its number of parameters.\n"
      "FILE: a config.json, a folder with one, or a GGUF file.\n"
      "Example:\n  13_new_model config.json MyModel > my_model.hpp\n";
  return run_main(argc, argv, help, [&] {
    if (argc != 2 && argc != 3) samba::fail({"expected FILE [NAME]; see --help"});
    const std::string name = argc == 3 ? argv[2] : "NewModel";
    const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
    const auto fits = [&](char c) { return is_letter(c) || (c >= '0' && c <= '9') || c == '_'; };
    if (name.empty() || !is_letter(name[0]) || !std::all_of(name.begin(), name.end(), fits))
      samba::fail({"NAME: expected a name in C++, found ", samba::Quoted{name}});
    const samba::Architecture architecture = samba::read_architecture(argv[1]);
    std::printf("#pragma once\n// %s, from %s\n#include <samba/samba.hpp>\n\n", name.c_str(),
                argv[1]);
    std::printf("using namespace samba;\n\n%s", cpp_text(architecture, name).c_str());
  });
}
