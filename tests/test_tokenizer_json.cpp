#include <samba/io/tokenizer_json.hpp>

#include <tests/catch.hpp>
#include <tests/support.hpp>

#include <cstdint>
#include <string>
#include <vector>

using namespace samba;
using Json = nlohmann::json;
using samba_test::data_path;
using samba_test::message_of;

namespace {

std::string content(const std::string& name) {
  return samba_test::read_file(data_path("bpe/" + name + ".json"));
}

std::string error_of(const std::string& text) {
  return message_of([&] { parse_tokenizer_json(text, "t.json"); });
}

/// The message for the file of this name after change(json).
template <class Change>
std::string error_after(const std::string& name, Change&& change) {
  Json json = Json::parse(content(name));
  change(json);
  return error_of(json.dump());
}

bool starts(const std::string& message, const std::string& expected) {
  UNSCOPED_INFO(message);
  return message.starts_with("t.json: " + expected);
}

}  // namespace

TEST_CASE("both ways to write merges, and an old file, give the same tokenizer") {
  const std::string text = "I'm sure they're right, we've said it's what he'd do. 東京 123";
  const auto ids = parse_tokenizer_json(content("smollm"), "t.json").encode(text);
  Json json = Json::parse(content("smollm"));
  REQUIRE(json["model"]["merges"][0].is_array());
  for (Json& merge : json["model"]["merges"])
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  for (const char* key : {"type", "fuse_unk", "byte_fallback", "ignore_merges", "dropout"})
    json["model"].erase(key);
  json["model"]["end_of_word_suffix"] = "";
  json["model"]["continuing_subword_prefix"] = "";
  for (const char* key : {"truncation", "padding", "post_processor", "normalizer", "version"})
    json.erase(key);
  CHECK(parse_tokenizer_json(json.dump(), "t.json").encode(text) == ids);
}

TEST_CASE("one pre-tokenizer and a sequence of it are the same") {
  Json json = Json::parse(content("gpt2"));
  const std::string text = "It's  12 o'clock";
  const auto ids = parse_tokenizer_json(json.dump(), "t.json").encode(text);
  json["pre_tokenizer"] = Json{{"type", "Sequence"}, {"pretokenizers", {json["pre_tokenizer"]}}};
  json["normalizer"] = Json{{"type", "Sequence"}, {"normalizers", Json::array()}};
  CHECK(parse_tokenizer_json(json.dump(), "t.json").encode(text) == ids);
  json["normalizer"]["normalizers"].push_back({{"type", "NFC"}});
  const BpeTokenizer normal = parse_tokenizer_json(json.dump(), "t.json");
  CHECK(normal.encode("e\u0301") == normal.encode("\u00e9"));
}

TEST_CASE("the unknown token stands for bytes that have none") {
  Json json = Json::parse(content("smollm"));
  // A byte of no merge gives its id to another token.
  const std::int32_t id = json["model"]["vocab"]["ÿ"];
  json["model"]["vocab"].erase("ÿ");
  json["model"]["vocab"]["ÿÿÿ"] = id;
  CHECK(message_of([&] { parse_tokenizer_json(json.dump(), "t.json").encode("\xff"); }) ==
        "t.json: byte 255 of the text has no token, and there is no unknown token");
  json["model"]["unk_token"] = "<|endoftext|>";
  CHECK(parse_tokenizer_json(json.dump(), "t.json").encode("\xff") == std::vector<std::int32_t>{0});
  json["model"]["unk_token"] = "absent";
  CHECK(starts(error_of(json.dump()),
               "model.unk_token: expected a token of the vocabulary, found \"absent\""));
}

TEST_CASE("files that are no JSON are refused by name") {
  const samba_test::TempDir folder;
  const std::string path = folder.file("tokenizer.json");
  CHECK_MESSAGE_OF(load_tokenizer_json(path), path + ": cannot open");
  const std::string text = content("smollm");
  for (std::size_t size = 0; size < text.size(); size += 1 + size / 3) {
    CAPTURE(size);
    samba_test::write_file(path, text.substr(0, size));
    CHECK_MESSAGE_OF(load_tokenizer_json(path),
                     path + ": expected a tokenizer.json; the parser says: ");
  }
  CHECK(starts(error_of(text + "x"), "expected a tokenizer.json; the parser says: "));
  CHECK(starts(error_of("\xff"), "expected a tokenizer.json; the parser says: "));
  CHECK(starts(error_of("{\"model\": \"\xff\"}"), "expected a tokenizer.json; the parser says: "));
  CHECK(starts(error_of("[]"), "the file: expected an object, found []"));
  CHECK(starts(error_of("{}"), "decoder is missing"));
  CHECK(starts(error_of(std::string(100000, '[')), "nested deeper than 64 levels"));
  CHECK(starts(error_of(R"({"model": {"a": 1, "a": 2}})"), "duplicate key \"a\""));
  std::string twice = text;
  const std::size_t at = twice.find("\"vocab\":{") + 9;
  twice.insert(at, "\"Ġthe\":5,");
  CHECK(starts(error_of(twice), "duplicate key \"Ġthe\""));
}

TEST_CASE("what is not implemented is refused by its field") {
  const auto refused = [](const std::string& name, const std::string& pointer, const Json& value,
                          const std::string& expected) {
    CAPTURE(name, pointer);
    CHECK(starts(error_after(name, [&](Json& json) { json[Json::json_pointer(pointer)] = value; }),
                 expected));
  };
  refused("gpt2", "/padding", {{"strategy", "BatchLongest"}}, "padding: expected null, found {");
  refused("gpt2", "/truncation", {{"max_length", 5}}, "truncation: expected null, found {");
  refused("gpt2", "/extra", 1, "extra: expected no such field, found 1");
  refused("gpt2", "/normalizer", {{"type", "NFKC"}},
          "normalizer: expected null or NFC, found {\"type\":\"NFKC\"}");
  refused("gpt2", "/normalizer",
          {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}, {{"type", "Lowercase"}}}}},
          "normalizer: expected null or NFC, found {\"type\":\"Lowercase\"}");
  refused("gpt2", "/decoder", {{"type", "Metaspace"}},
          "decoder: expected ByteLevel, or a Sequence of Replace (U+2581 by a space), ");
  refused("gpt2", "/decoder", nullptr, "decoder: expected an object, found null");

  const std::string pre = "pre_tokenizer: expected ByteLevel with use_regex, ";
  refused("gpt2", "/pre_tokenizer/add_prefix_space", true, pre);
  refused("gpt2", "/pre_tokenizer/use_regex", false, pre);
  refused("gpt2", "/pre_tokenizer/type", "Whitespace", pre);
  refused("gpt2", "/pre_tokenizer", nullptr, pre);
  refused("gpt2", "/pre_tokenizer", 5, pre);
  refused("smollm", "/pre_tokenizer/pretokenizers/0/individual_digits", false, pre);
  refused("smollm", "/pre_tokenizer/pretokenizers/1/use_regex", false, pre);
  refused("smollm", "/pre_tokenizer/pretokenizers/2", {{"type", "Punctuation"}}, pre);
  refused("smollm", "/pre_tokenizer/pretokenizers", Json::array(), pre);
  refused("smollm", "/pre_tokenizer/pretokenizers", 5,
          "pre_tokenizer.pretokenizers: expected an array, found 5");
  refused("llama3", "/pre_tokenizer/pretokenizers/0/pattern/Regex", "\\s+", pre);
  refused("llama3", "/pre_tokenizer/pretokenizers/0/behavior", "Removed", pre);
  refused("llama3", "/pre_tokenizer/pretokenizers/0/invert", true, pre);
  refused("llama3", "/pre_tokenizer/pretokenizers/1/use_regex", true, pre);
  refused("gpt2", "/pre_tokenizer/use_regex", 1,
          "pre_tokenizer.use_regex: expected true or false, found 1");

  refused("gpt2", "/model/type", "Unigram", "model: expected BPE, found {");
  refused("gpt2", "/model/dropout", 0.1, "model.dropout: expected null, found 0.1");
  refused("gpt2", "/model/continuing_subword_prefix", "##",
          "model.continuing_subword_prefix: expected null, found \"##\"");
  refused("gpt2", "/model/end_of_word_suffix", "</w>",
          "model.end_of_word_suffix: expected null, found \"</w>\"");
  refused("gpt2", "/model/fuse_unk", true, "model.fuse_unk: expected false, found true");
  refused("gpt2", "/model/byte_fallback", true, "model.byte_fallback: expected false, found true");
  refused("gpt2", "/model/ignore_merges", 1, "model.ignore_merges: expected true or false, found");
  refused("gpt2", "/model/other", 1, "model.other: expected no such field, found 1");
  refused("gpt2", "/added_tokens/0/single_word", true,
          "added_tokens[0].single_word: expected false, found {");

  const std::string post = "post_processor: expected ByteLevel or TemplateProcessing, found {";
  refused("gpt2", "/post_processor", {{"type", "BertProcessing"}}, post);
  const Json::json_pointer single("/post_processor/processors/1/single");
  const std::string expected =
      "post_processor.single: expected a text, or one special token and a text, found [";
  CHECK(starts(error_after("llama3", [&](Json& json) { json[single].push_back(json[single][0]); }),
               expected));
  CHECK(starts(error_after("llama3", [&](Json& json) { json[single].erase(1); }), expected));
  CHECK(starts(
      error_after("llama3", [&](Json& json) { std::swap(json[single][0], json[single][1]); }),
      expected));
  CHECK(starts(error_after("llama3",
                           [](Json& json) {
                             json["post_processor"]["processors"].push_back(
                                 json["post_processor"]["processors"][1]);
                           }),
               expected));
  refused("llama3", "/post_processor/processors/1/special_tokens", Json::object(),
          "post_processor.special_tokens.<|begin_of_text|> is missing");
  refused("llama3", "/post_processor/processors/1/special_tokens/<|begin_of_text|>/ids", {1, 2},
          "post_processor.special_tokens.<|begin_of_text|>.ids: expected one id, found [1,2]");
}

TEST_CASE("what is not implemented of a SentencePiece model is refused by its field") {
  const auto refused = [](const std::string& name, const std::string& pointer, const Json& value,
                          const std::string& expected) {
    CAPTURE(name, pointer);
    CHECK(starts(error_after(name, [&](Json& json) { json[Json::json_pointer(pointer)] = value; }),
                 expected));
  };
  const std::string prepend = "../sentencepiece/prepend", replace = "../sentencepiece/replace",
                    metaspace = "../sentencepiece/metaspace";
  const std::string decoder = "decoder: expected ByteLevel, or a Sequence of Replace ";
  refused(prepend, "/decoder/type", "Metaspace", decoder);
  refused(prepend, "/decoder/decoders/0/content", "_", decoder);
  refused(prepend, "/decoder/decoders/1/type", "Fuse", decoder);
  refused(prepend, "/decoder/decoders/2/type", "ByteFallback", decoder);
  refused(prepend, "/decoder/decoders/3/start", 2, decoder);
  refused(prepend, "/decoder/decoders/3/stop", 1, decoder);
  refused(prepend, "/decoder/decoders/4", {{"type", "Fuse"}}, decoder);
  const std::string strip = "decoder: expected Strip if, and only if, text gets a space in front, ";
  CHECK(starts(error_after(prepend, [](Json& json) { json["decoder"]["decoders"].erase(3); }),
               strip));
  CHECK(starts(error_after(prepend, [](Json& json) { json["normalizer"]["normalizers"].erase(0); }),
               strip));

  const std::string normalizer =
      "normalizer: expected null, Prepend (U+2581) and Replace (a space by U+2581), found {";
  refused(replace, "/normalizer", {{"type", "NFC"}}, normalizer);
  refused(replace, "/normalizer/content", "_", normalizer);
  refused(replace, "/normalizer/pattern", {{"Regex", " "}}, normalizer);
  refused(prepend, "/normalizer/normalizers/0/prepend", "_", normalizer);
  refused(prepend, "/normalizer/normalizers/2", {{"type", "Prepend"}, {"prepend", "\u2581"}},
          normalizer);
  const std::string missing = "normalizer: expected Replace (a space by U+2581), or Metaspace as ";
  CHECK(
      starts(error_after(replace,
                         [](Json& json) { json["normalizer"] = json["pre_tokenizer"] = nullptr; }),
             missing));

  const std::string pre = "pre_tokenizer: expected null, Split by a space where the normalizer ";
  refused(replace, "/pre_tokenizer/pattern", {{"String", "x"}}, pre);
  refused(replace, "/pre_tokenizer/type", "Whitespace", pre);
  refused(replace, "/normalizer", nullptr, pre);
  refused(metaspace, "/pre_tokenizer/split", true, pre);
  refused(metaspace, "/pre_tokenizer/replacement", "_", pre);
  refused(metaspace, "/pre_tokenizer/prepend_scheme", "sometimes",
          "pre_tokenizer.prepend_scheme: expected always, first or never, found {");
  CHECK(starts(error_after(metaspace, [](Json& json) { json["pre_tokenizer"].erase("split"); }),
               pre));
  refused(prepend, "/pre_tokenizer", Json::parse(content(metaspace))["pre_tokenizer"], pre);

  refused(prepend, "/model/byte_fallback", 1,
          "model.byte_fallback: expected true or false, found 1");
  CHECK(starts(error_after(prepend,
                           [](Json& json) {
                             json["model"]["vocab"]["other"] = json["model"]["vocab"]["<0x41>"];
                             json["model"]["vocab"].erase("<0x41>");
                           }),
               "byte_fallback: expected a token for each byte, found none <0x41>"));
}

TEST_CASE("variants of a SentencePiece model's tokenizer.json") {
  const std::string text = " the sea<s>and 東京", plain = "the sea<s>and 東京";
  Json json = Json::parse(content("../sentencepiece/prepend"));
  const auto ids = parse_tokenizer_json(json.dump(), "t.json").encode(plain);
  // Metaspace puts a space in front of every part that has none, or of none.
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = {{"type", "Metaspace"},
                           {"replacement", "\u2581"},
                           {"prepend_scheme", "always"},
                           {"split", false}};
  CHECK(parse_tokenizer_json(json.dump(), "t.json").encode(plain) == ids);
  CHECK(parse_tokenizer_json(json.dump(), "t.json").encode(text) == ids);
  json["pre_tokenizer"]["prepend_scheme"] = "never";
  json["decoder"]["decoders"].erase(3);
  const BpeTokenizer never = parse_tokenizer_json(json.dump(), "t.json");
  CHECK(never.encode(" the sea<s> and 東京") == ids);
  CHECK(never.decode(never.encode(text), true) == text);
  // A part that is a token is that token, whatever the merges say.
  json["model"]["ignore_merges"] = true;
  json["model"]["vocab"]["the\u2581sea"] = json["model"]["vocab"].size();
  for (Json& token : json["added_tokens"])
    if (token["id"] >= 1100) token["id"] = token["id"].get<int>() + 1;
  const BpeTokenizer ignoring = parse_tokenizer_json(json.dump(), "t.json");
  CHECK(ignoring.encode("the sea").size() == 1);
  CHECK(ignoring.encode("the sea ").size() > 1);
  // Without tokens of bytes: the unknown token, one for neighbours or one for each.
  json["model"]["byte_fallback"] = false;
  CHECK(parse_tokenizer_json(json.dump(), "t.json").encode("𒀀𒀀") == std::vector<std::int32_t>{0});
  json["model"]["fuse_unk"] = false;
  CHECK(parse_tokenizer_json(json.dump(), "t.json").encode("𒀀𒀀") ==
        std::vector<std::int32_t>{0, 0});
  json["model"]["unk_token"] = nullptr;
  CHECK(message_of([&] { parse_tokenizer_json(json.dump(), "t.json").encode("𒀀"); }) ==
        "t.json: \"𒀀\" in the text has no token, and there is no unknown token");
}

TEST_CASE("a template of the text alone adds nothing") {
  Json json = Json::parse(content("llama3"));
  json["post_processor"]["processors"][1]["single"].erase(0);
  const BpeTokenizer tokenizer = parse_tokenizer_json(json.dump(), "t.json");
  CHECK_FALSE(tokenizer.adds_bos());
  CHECK(tokenizer.bos_id() == -1);
}

TEST_CASE("fields that are missing or of another type are named") {
  for (const char* field : {"pre_tokenizer", "decoder", "model"})
    CHECK(starts(error_after("gpt2", [&](Json& json) { json.erase(field); }),
                 std::string(field) + " is missing"));
  for (const char* field : {"vocab", "merges"})
    CHECK(starts(error_after("gpt2", [&](Json& json) { json["model"].erase(field); }),
                 std::string("model.") + field + " is missing"));
  for (const char* field : {"id", "content", "special", "normalized", "lstrip", "rstrip"})
    CHECK(starts(error_after("gpt2", [&](Json& json) { json["added_tokens"][1].erase(field); }),
                 std::string("added_tokens[1].") + field + " is missing"));
  for (const Json& wrong : {Json("a"), Json(-1), Json(1.5), Json(nullptr), Json(4294967296)})
    CHECK(starts(error_after("gpt2", [&](Json& json) { json["model"]["vocab"]["x"] = wrong; }),
                 "model.vocab.x: expected an id, found " + wrong.dump()));
  CHECK(starts(error_after("gpt2", [](Json& json) { json["model"]["vocab"] = 3; }),
               "model.vocab: expected an object, found 3"));
  CHECK(starts(error_after("gpt2", [](Json& json) { json["model"]["merges"][2] = {"a"}; }),
               "model.merges[2]: expected two tokens with a space between or an array of two "
               "tokens, found [\"a\"]"));
  CHECK(starts(error_after("gpt2", [](Json& json) { json["added_tokens"] = 1; }),
               "added_tokens: expected an array, found 1"));
}

TEST_CASE("vocabularies that contradict themselves are refused") {
  CHECK(starts(error_after("gpt2", [](Json& json) { json["model"]["vocab"]["qqq"] = 7; }),
               "model.vocab: id 7 is that of "));
  CHECK(starts(error_after("gpt2", [](Json& json) { json["model"]["vocab"]["qqq"] = 2000000000; }),
               "model.vocab: id 2000000000 is too large"));
  CHECK(starts(error_after("gpt2", [](Json& json) { json["model"]["vocab"].erase("ÿ"); }),
               "expected tokens for all ids in [0, 906), found none for "));
  CHECK(starts(error_after("gpt2", [](Json& json) { json["added_tokens"][0]["id"] = 3; }),
               "added_tokens[0].id: expected that of the vocabulary, 0, found {"));
  CHECK(starts(error_after("gpt2", [](Json& json) { json["added_tokens"][1]["id"] = 3; }),
               "added_tokens: id 3 is that of "));
  CHECK(starts(
      error_after("gpt2",
                  [](Json& json) { json["added_tokens"].push_back(json["added_tokens"][0]); }),
      "added tokens: id 0 is there twice"));
  CHECK(starts(error_after("gpt2", [](Json& json) { json["added_tokens"][1]["content"] = ""; }),
               "added_tokens: the token of id 900 is empty"));
  CHECK(starts(
      error_after("gpt2", [](Json& json) { json["model"]["merges"].push_back({"zz", "q"}); }),
      "merges["));
}
