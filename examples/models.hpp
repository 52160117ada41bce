#pragma once
// The models that the programs are compiled for, and which of them is at a path.
#include "demo_model.hpp"

#include <samba/io/dispatch.hpp>
#include <samba/io/load_tokenizer.hpp>
#include <samba/model/published.hpp>

#include <string>
#include <vector>

/// A model that is missing here can be added: the error for its file prints its type.
using Models =
    samba::Registry<DemoModel, samba::presets::SmolLM2_135M, samba::presets::Gemma3_270M>;

/// The ids of a text, after the beginning-of-text token if the model expects it.
inline std::vector<std::int32_t> ids_of(const samba::ByteTokenizer& tokenizer,
                                        std::string_view text) {
  return tokenizer.encode(text);
}
inline std::vector<std::int32_t> ids_of(const samba::BpeTokenizer& tokenizer,
                                        std::string_view text) {
  return tokenizer.encode(text, {.add_bos = tokenizer.adds_bos()});
}

/// Calls f(std::type_identity<Model>, tokenizer) for the model at a path: a GGUF file, or a folder with
/// config.json, weights and tokenizer. Weights that stand alone are the demo model's.
template <class F>
void with_model(const std::string& path, F f) {
  using namespace samba;
  const auto call = [&]<class Model>(std::type_identity<Model> model) {
    if constexpr (Model::vocab_size == ByteTokenizer::vocab_size)
      f(model, ByteTokenizer());
    else
      f(model, load_tokenizer(path));
  };
  const std::string folder = is_directory(path) ? path : path.substr(0, path.rfind('/') + 1) + ".";
  if (path_exists(path) && !is_gguf(path) && !path_exists(folder + "/config.json"))
    call(std::type_identity<DemoModel>{});
  else
    dispatch(Models{}, path, call);
}
