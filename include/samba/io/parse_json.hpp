#pragma once
/// \file
/// Strict parsing of JSON into nlohmann-json's values. Not part of samba.hpp.
#include <samba/core/error.hpp>

#if !__has_include(<nlohmann/json.hpp>)
#error "samba/io/parse_json.hpp needs nlohmann-json: apt-get install nlohmann-json3-dev"
#endif
#include <nlohmann/json.hpp>

#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace samba::inline SAMBA_TARGET::detail {

/// The value of a JSON text. Throws Error, naming the source, if it is not JSON, says something twice
/// in an object, or is nested deeper than 64 levels. expected: what the text should be, for messages.
[[gnu::cold]] inline nlohmann::json parse_json(std::string_view text, const std::string& source,
                                               std::string_view expected) {
  using Json = nlohmann::json;
  // The parser would keep one of two fields with the same name.
  std::vector<std::unordered_set<std::string>> keys;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > 64) fail({source, ": nested deeper than 64 levels"});
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key &&
        !keys.back().insert(value.get_ref<const std::string&>()).second)
      fail({source, ": duplicate key ", Quoted{value.get_ref<const std::string&>()}});
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const Json::exception& error) {
    fail({source, ": expected ", expected, "; the parser says: ", error.what()});
  }
}

/// A value as text, for messages.
[[gnu::cold]] inline std::string json_text(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', true);
  if (text.size() > 200) text = text.substr(0, 200) + "...";
  return text;
}

}  // namespace samba::inline SAMBA_TARGET::detail
