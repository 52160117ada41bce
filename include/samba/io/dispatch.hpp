#pragma once
/// \file
/// Choosing the type of a model by its file at run time. Not part of samba.hpp; needs nlohmann-json.
#include <samba/io/architecture_cpp.hpp>
#include <samba/io/config.hpp>
#include <samba/io/gguf_checkpoint.hpp>

#include <string>
#include <type_traits>
#include <utility>

namespace samba::inline SAMBA_TARGET {

/// The types among which dispatch() chooses. A program compiles its code for each of them.
template <class... Models>
struct Registry {};

/// True if a file begins as GGUF files do.
[[gnu::cold]] inline bool is_gguf(const std::string& path) {
  if (is_directory(path)) return false;
  const MappedFile file(path);
  return std::string_view(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size())
      .starts_with("GGUF");
}

/// The architecture of a GGUF file, or of a folder or checkpoint with a config.json.
[[gnu::cold]] inline Architecture read_architecture(const std::string& path) {
  return is_gguf(path) ? architecture_of(GgufFile(path)) : architecture_of(path);
}

/// Reads weights from a GGUF file or from what load() reads.
template <class Model, class T = float>
Weights<Model, T> load_checkpoint(const std::string& path) {
  return is_gguf(path) ? load_gguf<Model, T>(path) : load<Model, T>(path);
}

/// The format in which to save() the model at `path` under the names that it has there; if that is a
/// GGUF file, the one that the same models have in transformers.
[[gnu::cold]] inline const CheckpointFormat& save_format(const std::string& path) {
  return is_gguf(path) ? *detail::gguf_family(GgufFile(path)).transformers
                       : checkpoint_format(path);
}

namespace detail {

/// The name of a type, without the namespace of the instruction set.
template <class Model>
[[gnu::cold]] std::string type_name() {
  std::string name = __PRETTY_FUNCTION__;  // "... [with Model = X; ...]" or "[Model = X]"
  name = name.substr(name.find("Model = ") + 8);
  name = name.substr(0, name.find_first_of(";]"));
  const std::string inner = join({target, "::"});
  for (std::size_t at; (at = name.find(inner)) != name.npos;) name.erase(at, inner.size());
  return name;
}

[[noreturn]] [[gnu::cold]] inline void fail_dispatch(const std::string& path, const Architecture& a,
                                                     const std::string& known) {
  fail({path, ": this program has no type for ", a.family, " of this size:\n  ", a.structure(),
        "\nIt has been compiled for", known, "\nThis type can be added:\n\n",
        cpp_text(a, "NewModel")});
}

}  // namespace detail

/// Calls f(std::type_identity<Model>{}) with the type of the registry that has the architecture of the
/// model at `path`, a GGUF file or a folder with a config.json; returns what it returns, which is the
/// same type for all. If there is none, throws Error with the architecture, those of the registry, and
/// the C++ that declares the missing type.
template <class First, class... Models, class F>
auto dispatch(Registry<First, Models...>, const std::string& path, F&& f) {
  const Architecture a = read_architecture(path);
  const std::string wanted = a.structure();
  std::string known;
  using Result = std::invoke_result_t<F&, std::type_identity<First>>;
  if constexpr (std::is_void_v<Result>) {
    const auto call = [&]<class Model>(std::type_identity<Model> model) {
      if (structure<Model>() == wanted) return f(model), true;
      known += "\n  " + detail::type_name<Model>();
      return false;
    };
    if (!(call(std::type_identity<First>{}) || ... || call(std::type_identity<Models>{})))
      detail::fail_dispatch(path, a, known);
  } else {
    const auto next = [&]<class Model, class... Others>(const auto& self,
                                                        std::type_identity<Model> model,
                                                        Others... others) -> Result {
      if (structure<Model>() == wanted) return f(model);
      known += "\n  " + detail::type_name<Model>();
      if constexpr (sizeof...(Others) > 0)
        return self(self, others...);
      else
        detail::fail_dispatch(path, a, known);
    };
    return next(next, std::type_identity<First>{}, std::type_identity<Models>{}...);
  }
}

}  // namespace samba::inline SAMBA_TARGET
