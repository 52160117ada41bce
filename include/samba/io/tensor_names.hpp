#pragma once
/// \file
/// Tensors by their names in files.
#include <samba/core/glob.hpp>
#include <samba/io/format/samba.hpp>
#include <samba/model/weights.hpp>

namespace samba::inline SAMBA_TARGET {

/// The names that save() writes for the tensors of Weights::tensors(), in the same order.
template <class Model, class T>
[[gnu::cold]] std::vector<std::string> tensor_names(const Weights<Model, T>& weights) {
  const CheckpointNaming naming(formats::samba, branches<Model>());
  std::vector<std::string> names;
  for (const TensorInfo& tensor : weights.tensors()) names.push_back(naming.name(tensor));
  return names;
}

/// The indices of the names that a pattern (see glob_match) matches. If there are none, throws
/// Error with `option`, the pattern and some of the names.
[[gnu::cold]] inline std::vector<std::size_t> matching_names(
    const char* option, std::string_view pattern, const std::vector<std::string>& names) {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < names.size(); ++i)
    if (glob_match(pattern, names[i])) found.push_back(i);
  if (!found.empty()) return found;
  constexpr std::size_t shown = 8;
  std::string some;
  for (std::size_t i = 0; i < (std::min)(shown, names.size()); ++i)
    detail::append(some, {i ? ", " : "", names[i]});
  fail({option, ": no tensor matches the pattern ", Quoted{pattern}, "; there are ", some,
        names.size() > shown ? detail::join({" and ", names.size() - shown, " more"}) : ""});
}

}  // namespace samba::inline SAMBA_TARGET
