// Files of token ids: what is written comes back, and what is damaged is refused.
#include <samba/train/token_file.hpp>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

/// Writes a token file of these ids.
void write_tokens(const std::string& path, std::int64_t vocab_size, std::int32_t separator,
                  const std::vector<std::int32_t>& ids) {
  TokenFileWriter writer(path, vocab_size, separator);
  writer.append(ids);
  writer.close();
}

std::vector<std::int32_t> all_of(const TokenFile& file) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(file.size()));
  file.read(0, ids);
  return ids;
}

/// The ids that the parts of a text have as bytes, each part followed by the separator.
std::vector<std::int32_t> documents(std::initializer_list<std::string> texts,
                                    std::int32_t separator) {
  std::vector<std::int32_t> ids;
  for (const std::string& text : texts) {
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    ids.push_back(separator);
  }
  return ids;
}

constexpr std::size_t header_bytes = 48;

}  // namespace

TEST_CASE("token file: ids come back, in as few bytes as the vocabulary needs") {
  const TempDir dir;
  Random rng;
  CAPTURE(rng.seed);
  struct Case {
    std::int64_t vocab_size;
    std::size_t bytes;
  };
  for (const auto& [vocab_size, bytes] : {Case{1, 1}, Case{2, 1}, Case{256, 1}, Case{257, 2},
                                          Case{65536, 2}, Case{65537, 4}, Case{1LL << 31, 4}}) {
    CAPTURE(vocab_size);
    std::vector<std::int32_t> ids = {static_cast<std::int32_t>(vocab_size - 1), 0};
    while (ids.size() < 300'001)  // more than the writer keeps
      ids.push_back(static_cast<std::int32_t>(rng.bits() % static_cast<std::uint64_t>(vocab_size)));

    const std::string path = dir.file("x.tokens");
    TokenFileWriter writer(path, vocab_size, 0);
    for (std::size_t begin = 0, n; begin < ids.size(); begin += n) {
      n = std::min(static_cast<std::size_t>(rng.below(100'000)), ids.size() - begin);
      writer.append(std::span(ids).subspan(begin, n));
      CHECK(writer.size() == static_cast<std::int64_t>(begin + n));
      CHECK_FALSE(path_exists(path));
    }
    writer.close();

    const TokenFile file(path);
    CHECK(file.path() == path);
    CHECK(file.size() == std::ssize(ids));
    CHECK(file.vocab_size() == vocab_size);
    CHECK(file.separator() == 0);
    CHECK(all_of(file) == ids);
    CHECK_NOTHROW(file.verify());
    const std::string stored = read_file(path);
    CHECK(stored.size() == header_bytes + ids.size() * bytes);
    CHECK(file.hash() == fnv1a(std::string_view(stored).substr(header_bytes)));

    std::vector<std::int32_t> some(1000);
    file.read(299'001, some);
    CHECK(std::equal(some.begin(), some.end(), ids.begin() + 299'001));
    CHECK_NOTHROW(file.read(300'001, {}));
    for (const std::int64_t begin : {std::int64_t{-1}, std::int64_t{299'002}, INT64_MAX})
      CHECK_MESSAGE_OF(file.read(begin, some), path + ": holds 300001 tokens; asked for 1000 from ",
                       std::to_string(begin));
    std::filesystem::remove(path);
  }
  CHECK(dir.files().empty());
}

TEST_CASE("token file: the format") {
  const TempDir dir;
  const std::string path = dir.file("x.tokens");
  write_tokens(path, 1000, 7, {1, 999, 7, 256});
  const auto number = [](std::uint64_t x, int bytes) {
    std::string text;
    for (int i = 0; i < bytes; ++i) text += static_cast<char>(x >> 8 * i & 0xff);
    return text;
  };
  const std::string ids = number(1, 2) + number(999, 2) + number(7, 2) + number(256, 2);
  CHECK(read_file(path) == "sambatok" + number(1, 4) + number(2, 4) + number(1000, 8) +
                               number(7, 8) + number(4, 8) + number(fnv1a(ids), 8) + ids);
}

TEST_CASE("token file: weights of the loss stand behind the ids") {
  const TempDir dir;
  const std::string path = dir.file("x.tokens");
  for (const std::int64_t vocab_size : {200, 300, 70'000}) {
    TokenFileWriter writer(path, vocab_size, 7, true);
    writer.append(std::vector{1, 2, 3}, 0);
    writer.append(std::vector{4, 5}, std::vector{0.25f, 3.f});
    writer.append(std::vector{6});
    writer.end_document();
    writer.close();
    const TokenFile file(path);
    CHECK((file.weighted() && file.size() == 7 && file.vocab_size() == vocab_size));
    CHECK(all_of(file) == std::vector{1, 2, 3, 4, 5, 6, 7});
    std::vector<float> weights(5);
    file.read_weights(2, weights);
    CHECK(weights == std::vector{0.f, 0.25f, 3.f, 1.f, 1.f});
    CHECK_NOTHROW(file.verify());
    CHECK_MESSAGE_OF(file.read_weights(3, weights), "holds 7 tokens; asked for 5 from 3");
  }
  std::string bytes = read_file(path);
  write_file(path, bytes.substr(0, bytes.size() - 4));
  CHECK_MESSAGE_OF(TokenFile{path}, "expected 7 ids of 4 bytes and a weight of 4", "found 52");
  const float wrong = -1;
  std::memcpy(bytes.data() + header_bytes + 2 * 8 + 4, &wrong, sizeof wrong);
  write_file(path, bytes);
  CHECK_MESSAGE_OF(TokenFile(path).verify(), path + ": damaged: the weight of token 2 is -1");

  TokenFileWriter writer(path, 10, -1, true);
  CHECK_MESSAGE_OF(writer.append(std::vector{1, 2}, std::vector{1.f}), "as many weights as tokens");
  CHECK_MESSAGE_OF(writer.append(std::vector{1, 2}, -0.5f), "weight -0.5 at index 0");
  CHECK(writer.size() == 0);
  TokenFileWriter without(path, 10);
  CHECK_MESSAGE_OF(without.append(std::vector{1}, 0.5f), "this file has no weights");
  write_tokens(path, 10, -1, {1, 2});
  std::vector<float> weights(2);
  TokenFile(path).read_weights(0, weights);
  CHECK((!TokenFile(path).weighted() && weights == std::vector{1.f, 1.f}));
}

TEST_CASE("token file: those of nanoGPT and llm.c") {
  const TempDir dir;
  const std::string path = dir.file("train.bin");
  const auto bytes_of = [](auto... numbers) {
    std::string text;
    (text.append(reinterpret_cast<const char*>(&numbers), sizeof numbers), ...);
    return text;
  };
  using u16 = std::uint16_t;
  const std::string two = bytes_of(u16{50256}, u16{3}, u16{40000}, u16{0}),
                    four = bytes_of(128000, 3, 40000, 0);
  const auto header = [&](int magic, int version, int size) {
    std::string text = bytes_of(magic, version, size);
    text.resize(1024);
    return text;
  };
  const auto check = [&](const std::string& content, std::int32_t first) {
    write_file(path, content);
    for (const std::int64_t vocab_size : {std::int64_t{0}, std::int64_t{200'000}}) {
      const auto file = TokenFile::from_bin(path, vocab_size, first);
      CHECK(all_of(file) == std::vector<std::int32_t>{first, 3, 40000, 0});
      CHECK(file.vocab_size() == (vocab_size > 0 ? vocab_size : first + 1));
      CHECK((file.separator() == first && !file.weighted()));
      CHECK_NOTHROW(file.verify());
      std::vector<std::int32_t> some(2);
      file.read(1, some);
      CHECK(some == std::vector{3, 40000});
    }
    CHECK_MESSAGE_OF(TokenFile::from_bin(path, 1000), path, "is " + std::to_string(first) + ",",
                     "outside the vocabulary [0, 1000)");
  };
  check(two, 50256);
  check(header(20240520, 1, 4) + two, 50256);
  check(header(20240801, 7, 4) + four, 128000);
  CHECK(TokenFile::from_bin(path).separator() == -1);

  const auto open = [&](const std::string& content, std::int64_t vocab_size = 0,
                        std::int32_t separator = -1) {
    write_file(path, content);
    TokenFile::from_bin(path, vocab_size, separator);
  };
  CHECK_MESSAGE_OF(open(header(20240520, 1, 5) + two), path, "expected 5 ids of 2 bytes",
                   "found 8");
  CHECK_MESSAGE_OF(open("abc"), path, "expected one or more ids of 2 bytes", "found 3");
  CHECK_MESSAGE_OF(open(""), path, "expected one or more ids", "found 0");
  CHECK_MESSAGE_OF(open(two, -1), "vocab_size: expected 0 to ", "found -1");
  CHECK_MESSAGE_OF(open(two, 0, 50257), "separator: expected an id in [0, 50257)", "found 50257");
  CHECK_MESSAGE_OF(TokenFile{path}, "not a token file", "TokenFile::from_bin");
}

TEST_CASE("token file: damage is found") {
  const TempDir dir;
  const std::string path = dir.file("x.tokens");
  write_tokens(path, 300, 7, {1, 299, 7, 256});
  const std::string good = read_file(path);
  const auto damaged = [&](std::size_t at, std::string_view bytes) {
    std::string text = good;
    text.replace(at, bytes.size(), bytes);
    write_file(path, text);
  };
  const auto open = [&] { const TokenFile file(path); };
  using namespace std::string_view_literals;

  SECTION("in the header, when the file is opened") {
    damaged(0, "S");
    CHECK_MESSAGE_OF(open(), path + ": not a token file");
    damaged(8, "\3");
    CHECK_MESSAGE_OF(open(), path + ": token file: expected version 1 or 2, found 3");
    for (const auto& [at, bytes] : {std::pair(12u, "\1"sv),
                                    {12u, "\0"sv},
                                    {12u, "\4"sv},
                                    {16u, "\0\0"sv},
                                    {16u, "\1\0"sv},
                                    {23u, "\x80"sv},
                                    {24u, "\x2c\1"sv},
                                    {31u, "\xff"sv},
                                    {32u, "\0"sv},
                                    {39u, "\xff"sv}}) {
      CAPTURE(at, bytes);
      damaged(at, bytes);
      CHECK_MESSAGE_OF(open(), path + ": token file: damaged header: vocab_size ");
    }
    damaged(32, "\5");
    CHECK_MESSAGE_OF(open(), "expected 5 ids of 2 bytes after 48 bytes of header, found 8 bytes");
    write_tokens(path, 70'000, -1, {1, 2});
    std::string large = read_file(path);
    large[39] = 0x40;  // 2 + 2^62 ids of 4 bytes: 8 bytes, modulo 2^64
    write_file(path, large);
    CHECK_MESSAGE_OF(open(), "expected 4611686018427387906 ids of 4 bytes", "found 8 bytes");
  }
  SECTION("in the length, when the file is opened") {
    for (std::size_t n = 0; n < good.size(); ++n) {
      write_file(path, good.substr(0, n));
      CHECK_MESSAGE_OF(open(), path, n < header_bytes ? "not a token file" : "expected 4 ids");
    }
    for (const std::size_t n : {1u, 2u, 3u}) {
      write_file(path, good + std::string(n, '\1'));
      CHECK_MESSAGE_OF(open(), path, "expected 4 ids of 2 bytes", "found " + std::to_string(8 + n));
    }
  }
  SECTION("an id outside the vocabulary, when it is read") {
    damaged(header_bytes + 2, "\x2c\1");  // 300
    const TokenFile file(path);
    CHECK_MESSAGE_OF(all_of(file), path + ": damaged: an id among tokens 0 to 3 is 300",
                     "[0, 300)");
    CHECK_MESSAGE_OF(file.verify(), "is 300");
    std::vector<std::int32_t> rest(2);
    CHECK_NOTHROW(file.read(2, rest));
  }
  SECTION("any other id, when the file is verified") {
    damaged(header_bytes, "\2");
    const TokenFile file(path);
    CHECK(all_of(file)[0] == 2);
    CHECK_MESSAGE_OF(file.verify(), path + ": damaged: the ids do not match the hash");
  }
  SECTION("any byte, without a crash") {
    for (std::size_t at = 0; at < good.size(); ++at)
      for (const char bit : {'\1', '\x10', '\x80'}) {
        const char changed[] = {static_cast<char>(good[at] ^ bit)};
        damaged(at, {changed, 1});
        CAPTURE(at, bit);
        const bool metadata = at >= 16 && at < 32;  // another vocabulary or separator may be right
        const std::string message = message_of([&] {
          const TokenFile file(path);
          file.verify();
        });
        CHECK((metadata || message.starts_with(path)));
      }
  }
  SECTION("no file") {
    const TempDir empty;
    CHECK_MESSAGE_OF(TokenFile(empty.file("none")), empty.file("none"), "No such file");
    CHECK_MESSAGE_OF(TokenFile(empty.path()), "found a directory");
  }
}

TEST_CASE("token file: what cannot be written") {
  const TempDir dir;
  const std::string path = dir.file("x.tokens");
  write_tokens(path, 10, -1, {1, 2});
  const std::string good = read_file(path);

  SECTION("ids outside the vocabulary: none of them is added") {
    TokenFileWriter writer(path, 10);
    writer.append(std::vector{3, 4});
    CHECK_MESSAGE_OF(writer.append(std::vector{5, 10}),
                     path + ": token 10 at index 1 of 2 to be written", "[0, 10)");
    CHECK_MESSAGE_OF(writer.append(std::vector{-1}), "token -1 at index 0");
    CHECK_MESSAGE_OF(writer.end_document(),
                     path + ": end_document() in a file without a separator");
    CHECK(read_file(path) == good);
    writer.close();
    CHECK(all_of(TokenFile(path)) == std::vector{3, 4});
    CHECK_MESSAGE_OF(writer.append(std::vector{3}), path + ": this writer is finished");
    CHECK_MESSAGE_OF(writer.close(), path + ": this writer is finished");
    CHECK(all_of(TokenFile(path)) == std::vector{3, 4});
  }
  SECTION("no tokens") {
    CHECK_MESSAGE_OF(TokenFileWriter(path, 10).close(), path + ": expected at least 1 token");
    CHECK(read_file(path) == good);
  }
  SECTION("vocabularies and separators") {
    CHECK_MESSAGE_OF(TokenFileWriter(path, 0), path + ": vocab_size: expected 1 to 2147483648");
    CHECK_MESSAGE_OF(TokenFileWriter(path, (1LL << 31) + 1), "found 2147483649");
    CHECK_MESSAGE_OF(TokenFileWriter(path, 10, 10), path + ": separator: expected an id in [0, 10)",
                     "found 10");
    CHECK_MESSAGE_OF(TokenFileWriter(path, 10, -2), "found -2");
    CHECK(read_file(path) == good);
  }
  SECTION("a disk that fills up, at once or at the end") {
    for (const std::size_t n : {300'000u, 50'000u}) {
      const FileSizeLimit full(10'000);
      TokenFileWriter writer(path, 10);
      const std::vector<std::int32_t> ids(n);
      const std::string message = message_of([&] {
        writer.append(ids);
        writer.close();
      });
      CAPTURE(message);
      CHECK(message == path + ": cannot write: File too large");
      CHECK_MESSAGE_OF(writer.append(ids), path + ": this writer is finished or has failed");
      CHECK_MESSAGE_OF(writer.close(), "has failed");
      CHECK(dir.files() == std::vector<std::string>{"x.tokens"});
    }
    CHECK(read_file(path) == good);
  }
  SECTION("places where nothing can be written") {
    CHECK_MESSAGE_OF(TokenFileWriter(dir.file("none/x.tokens"), 10), dir.file("none/x.tokens"),
                     "cannot create: No such file or directory");
    CHECK_MESSAGE_OF(TokenFileWriter(path + "/x", 10), "cannot create: Not a directory");
    CHECK_MESSAGE_OF(TokenFileWriter(dir.path(), 10), dir.path(), "found a directory");
    // Its header is written last: told before the work, not after.
    const std::string pipe = dir.file("pipe");
    REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
    const FileDescriptor reader(::open(pipe.c_str(), O_RDWR | O_NONBLOCK));
    CHECK_MESSAGE_OF(TokenFileWriter(pipe, 10), pipe + ": cannot move back");
    REQUIRE(::unlink(pipe.c_str()) == 0);
  }
  CHECK(dir.files() == std::vector<std::string>{"x.tokens"});
}

TEST_CASE("tokenize: documents, and the lines between them") {
  const TempDir dir;
  const std::string text = dir.file("text"), path = dir.file("x.tokens");
  const auto ids_of = [&](const std::string& content, std::string_view line) {
    write_file(text, content);
    TokenFileWriter writer(path, 257, 256);
    const std::int64_t n = tokenize(text, ByteTokenizer(), writer, line);
    CHECK(n == writer.size());
    writer.close();
    return all_of(TokenFile(path));
  };
  const auto same = [](const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b) {
    return a == b;  // Catch would print both
  };
  CHECK(same(ids_of("a\n%\nb\n", ""), documents({"a\n%\nb\n"}, 256)));
  CHECK(same(ids_of("a\n%\nb\n", "%"), documents({"a\n", "b\n"}, 256)));
  CHECK(same(ids_of("a\n%\nb\n%\n", "%"), documents({"a\n", "b\n"}, 256)));
  CHECK(same(ids_of("a\n%\nb\n%", "%"), documents({"a\n", "b\n"}, 256)));
  CHECK(same(ids_of("%\n%\na\n%\n%\n%\nb", "%"), documents({"a\n", "b"}, 256)));
  CHECK(same(ids_of("a\n%%\n %\n% \nx%\n%x\nb%", "%"),
             documents({"a\n%%\n %\n% \nx%\n%x\nb%"}, 256)));
  CHECK(same(ids_of("\n\n%\n\n", "%"), documents({"\n\n", "\n"}, 256)));
  CHECK(same(ids_of("a\n<end>\nb", "<end>"), documents({"a\n", "b"}, 256)));
  CHECK(same(ids_of("a\r\n%\r\nb\r\n%\r\n", "%"), documents({"a\r\n", "b\r\n"}, 256)));
  CHECK(same(ids_of("a\n%\r\nb\r%\r\n%\r", "%"), documents({"a\n", "b\r%\r\n"}, 256)));
  CHECK(same(ids_of("a\n%\r\n%\nb\n", "%\r"), documents({"a\n", "%\nb\n"}, 256)));
  CHECK(same(ids_of(std::string("\0\xff\x80%", 4), "%"),
             documents({std::string("\0\xff\x80%", 4)}, 256)));
}

TEST_CASE("tokenize: several texts, with and without a separator, by any tokenizer") {
  const TempDir dir;
  write_file(dir.file("a"), "one\n%\ntwo\n");
  write_file(dir.file("b"), "three");
  const auto ids_of = [&](const auto& tokenizer, std::int32_t separator) {
    const std::string path = dir.file("x.tokens");
    TokenFileWriter writer(path, 300, separator);
    for (const char* name : {"a", "b"}) tokenize(dir.file(name), tokenizer, writer, "%");
    writer.close();
    return all_of(TokenFile(path));
  };
  const auto lengths = [](std::string_view text) {
    return std::vector<std::int32_t>{static_cast<std::int32_t>(text.size())};
  };
  struct Lengths {
    std::vector<std::int32_t> encode(std::string_view text, bool = false) const {
      return {static_cast<std::int32_t>(text.size())};
    }
  };
  CHECK(ids_of(ByteTokenizer(), 299) == documents({"one\n", "two\n", "three"}, 299));
  CHECK(ids_of(ByteTokenizer(), -1) == ByteTokenizer().encode("one\ntwo\nthree"));
  CHECK(ids_of(lengths, 0) == std::vector{4, 0, 4, 0, 5, 0});
  CHECK(ids_of(Lengths(), 0) == std::vector{4, 0, 4, 0, 5, 0});
}

TEST_CASE("tokenize: a document of any length goes in pieces where the tokenizer allows that") {
  const TempDir dir;
  Random rng;
  CAPTURE(rng.seed);
  std::string content(2'500'001, ' ');
  for (char& c : content) c = static_cast<char>(rng.bits());
  write_file(dir.file("text"), content);
  struct Bytes : ByteTokenizer {
    std::size_t* longest;
    std::vector<std::int32_t> encode(std::string_view text) const {
      *longest = std::max(*longest, text.size());
      return ByteTokenizer::encode(text);
    }
  };
  std::size_t longest = 0;
  TokenFileWriter writer(dir.file("x.tokens"), 257, 256);
  CHECK(tokenize(dir.file("text"), Bytes{{}, &longest}, writer) == std::ssize(content) + 1);
  writer.close();
  CHECK(longest < content.size() / 2);
  auto expected = ByteTokenizer().encode(content);
  expected.push_back(256);
  CHECK((all_of(TokenFile(dir.file("x.tokens"))) == expected));
}

TEST_CASE("tokenize: texts that cannot be taken") {
  const TempDir dir;
  const std::string text = dir.file("text"), path = dir.file("x.tokens");
  TokenFileWriter writer(path, 256, '$');
  const auto take = [&](const std::string& content) {
    write_file(text, content);
    tokenize(text, ByteTokenizer(), writer, "%");
  };
  CHECK_MESSAGE_OF(take(""), text + ": expected text, found none");
  CHECK_MESSAGE_OF(take("%\n%\n%"), text + ": expected text, found none");
  CHECK_MESSAGE_OF(take("a\n%\n5 $ each\n"), text + ": the id of the separator, 36",
                   path + " needs a different one");
  CHECK_MESSAGE_OF(tokenize(dir.file("none"), ByteTokenizer(), writer), dir.file("none"),
                   "No such file");
  const auto beyond = [](std::string_view) { return std::vector<std::int32_t>{256}; };
  CHECK_MESSAGE_OF(tokenize(text, beyond, writer), path + ": token 256", "[0, 256)");
}
