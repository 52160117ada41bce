// Batches of a token file: each window once per epoch, in an order that can be gone on with, and
// documents that know nothing of each other.
#include <samba/train/batches.hpp>

#include <map>
#include <set>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

using Ids = std::vector<std::int32_t>;

/// A token file that is removed when it is closed.
struct Stored {
  TempDir dir;
  std::shared_ptr<const TokenFile> file;

  Stored(const Ids& ids, std::int64_t vocab_size, std::int32_t separator = -1) {
    TokenFileWriter writer(dir.file("x.tokens"), vocab_size, separator);
    writer.append(ids);
    writer.close();
    file = std::make_shared<TokenFile>(dir.file("x.tokens"));
  }
};

/// 0, 1, ..., n - 1: a token is its own place.
Stored places(std::int64_t n) {
  Ids ids(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i);
  return Stored(ids, n);
}

struct Copied {
  Ids tokens, targets;
  bool operator==(const Copied&) const = default;
};
std::vector<Copied> copy_of(std::span<const Example> examples) {
  std::vector<Copied> all;
  for (const auto& [tokens, targets, weights] : examples) {
    CHECK(weights.empty());
    all.push_back({{tokens.begin(), tokens.end()}, {targets.begin(), targets.end()}});
  }
  return all;
}

/// The first tokens of the next n windows; n a multiple of the batch.
Ids starts(Batches& batches, std::int64_t n) {
  Ids all;
  while (std::ssize(all) < n)
    for (const Example& example : batches.next()) all.push_back(example.tokens[0]);
  return all;
}

}  // namespace

TEST_CASE("a permutation takes each number once, whatever their count") {
  for (std::int64_t n = 1; n <= 300; ++n) {
    CAPTURE(n);
    std::set<std::int64_t> seen;
    for (std::int64_t i = 0; i < n; ++i) seen.insert(Permutation(n, 5)(i));
    CHECK((std::ssize(seen) == n && *seen.begin() == 0 && *seen.rbegin() == n - 1));
  }
  const std::int64_t many = (std::int64_t{1} << 62) + 1;
  const Permutation far(many, 1);
  std::set<std::int64_t> seen;
  for (std::int64_t i = 0; i < 100; ++i) {
    const std::int64_t x = far(many - 1 - i);
    CHECK((x >= 0 && x < many));
    seen.insert(x);
  }
  CHECK(seen.size() == 100);
}

TEST_CASE("permutations of different seeds are spread evenly") {
  // How often place i holds x: binomial, so within five of its standard deviations.
  constexpr int n = 6, seeds = 6000;
  std::map<std::pair<std::int64_t, std::int64_t>, int> count;
  std::set<std::vector<std::int64_t>> orders;
  for (int seed = 0; seed < seeds; ++seed) {
    const Permutation permutation(n, static_cast<std::uint64_t>(seed));
    std::vector<std::int64_t> order;
    for (std::int64_t i = 0; i < n; ++i) {
      order.push_back(permutation(i));
      ++count[{i, order.back()}];
    }
    orders.insert(order);
  }
  CHECK(count.size() == n * n);
  const double expected = double{seeds} / n, deviation = std::sqrt(expected * (n - 1) / n);
  for (const auto& [place, times] : count) CHECK(std::abs(times - expected) < 5 * deviation);
  CHECK(orders.size() > 700);  // of 720
}

TEST_CASE("batches: every epoch takes each window once, in an order of its own") {
  const std::int64_t seq_len = 7;
  const int sequences = GENERATE(1, 4, 5, 30);
  CAPTURE(sequences);
  const Stored stored = places(11 * seq_len + 1);
  const BatchOptions options{.sequences = sequences, .seq_len = seq_len, .seed = 3};
  Batches batches(stored.file, options);
  CHECK(batches.windows() == 11);
  CHECK(batches.examples() == sequences);
  CHECK(batches.tokens() == sequences * seq_len);

  const Ids all = starts(batches, 60 * 11);
  CHECK(batches.position() == std::ssize(all));
  std::set<Ids> orders;
  for (std::size_t epoch = 0; epoch < 60; ++epoch) {
    Ids order(all.begin() + static_cast<std::ptrdiff_t>(11 * epoch),
              all.begin() + static_cast<std::ptrdiff_t>(11 * epoch + 11));
    orders.insert(order);
    std::sort(order.begin(), order.end());
    for (std::size_t w = 0; w < 11; ++w) CHECK(order[w] == static_cast<std::int32_t>(w * 7));
  }
  CHECK(orders.size() == 60);

  Batches again(stored.file, options);
  CHECK(starts(again, 60 * 11) == all);
  Batches other(stored.file, {.sequences = sequences, .seq_len = seq_len, .seed = 4});
  CHECK(starts(other, 60 * 11) != all);
}

TEST_CASE("batches: windows with the token after each; what fills none is left out") {
  const int more = GENERATE(0, 1, 6);  // tokens behind the last window and its target
  CAPTURE(more);
  const Stored stored = places(5 * 7 + 1 + more);
  Batches batches(stored.file, {.sequences = 5, .seq_len = 7});
  CHECK(batches.windows() == 5);
  for (const auto& [tokens, targets, weights] : batches.next()) {
    REQUIRE((tokens.size() == 7 && targets.size() == 7));
    CHECK(tokens[0] % 7 == 0);
    for (std::size_t i = 0; i < 7; ++i) {
      CHECK(tokens[i] == tokens[0] + static_cast<std::int32_t>(i));
      CHECK(targets[i] == tokens[i] + 1);
    }
  }
}

TEST_CASE("batches: a run that goes on from a position gets what an uninterrupted one would") {
  Random rng;
  CAPTURE(rng.seed);
  const bool restart = GENERATE(false, true);
  Ids ids(300);
  for (auto& id : ids) id = rng.below(9);
  const Stored stored(ids, 9, 8);
  const BatchOptions options{
      .sequences = 3, .seq_len = 16, .seed = rng.bits(), .restart_at_separators = restart};
  Batches whole(stored.file, options);
  for (int step = 0; step < 40; ++step) {
    Batches resumed(stored.file, options);
    resumed.seek(whole.position());
    const auto expected = copy_of(whole.next());
    CHECK((copy_of(resumed.next()) == expected));
    CHECK(resumed.position() == whole.position());
  }
  const std::int64_t far = 1'000'000'000'000'000'000;
  whole.seek(far);
  whole.next();
  CHECK(whole.position() == far + 3);
}

TEST_CASE("batches: documents of a window become examples, and nothing follows a separator") {
  // Windows of 6 with 1, 3, 2, 3 and 1 documents; the last target, 9, belongs to none.
  const Stored stored({1, 2, 3, 4, 5, 0,  //
                       6, 0, 7, 0, 8, 9,  //
                       1, 2, 0, 3, 4, 5,  //
                       0, 0, 1, 2, 3, 4,  //
                       5, 6, 7, 8, 9, 1,  //
                       9},
                      10, 0);
  const std::map<std::int32_t, std::vector<Copied>> expected = {
      {1, {{{1, 2, 3, 4, 5, 0}, {2, 3, 4, 5, 0, -1}}}},
      {6, {{{6, 0}, {0, -1}}, {{7, 0}, {0, -1}}, {{8, 9}, {9, 1}}}},
      {2, {{{1, 2, 0}, {2, 0, -1}}, {{3, 4, 5}, {4, 5, 0}}}},
      {0, {{{0}, {-1}}, {{0}, {-1}}, {{1, 2, 3, 4}, {2, 3, 4, 5}}}},
      {5, {{{5, 6, 7, 8, 9, 1}, {6, 7, 8, 9, 1, 9}}}}};
  Batches batches(stored.file, {.sequences = 1, .seq_len = 6, .restart_at_separators = true});
  CHECK(batches.examples() == 3);
  CHECK(batches.tokens() == 6);
  std::set<std::int32_t> seen;
  for (std::int64_t w = 0; w < batches.windows(); ++w) {
    auto found = copy_of(batches.next());
    REQUIRE(found.size() == 3);
    while (found.back().tokens.empty()) found.pop_back();
    // The first token tells windows apart, but for two.
    const std::int32_t first = found[0].tokens[0],
                       key = first == 1 && found.size() == 2 ? 2 : first;
    CHECK((found == expected.at(key)));
    seen.insert(key);
  }
  CHECK(seen.size() == 5);

  // The fullest windows, each from as many epochs as a batch may touch.
  for (const auto& [sequences, examples] : {std::pair(2, 6), {3, 9}, {4, 12}, {6, 16}, {7, 20}})
    CHECK(
        Batches(stored.file, {.sequences = sequences, .seq_len = 6, .restart_at_separators = true})
            .examples() == examples);
}

TEST_CASE("batches: no batch has more documents than examples()") {
  Random rng;
  CAPTURE(rng.seed);
  for (int file = 0; file < 30; ++file) {
    // One window in three is full of documents.
    Ids ids(static_cast<std::size_t>(10 + rng.below(100)));
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = i / 5 % 3 == 0 ? rng.below(2) : 1;
    const Stored stored(ids, 2, 0);
    const int sequences = 1 + rng.below(5);
    Batches batches(stored.file,
                    {.sequences = sequences, .seq_len = 5, .restart_at_separators = true});
    CAPTURE(sequences, batches.windows());
    for (int i = 0; i < 300; ++i) {
      std::int64_t tokens = 0;
      std::size_t documents = 0;
      for (const Example& e : batches.next()) {
        documents += !e.tokens.empty();
        tokens += std::ssize(e.tokens);
      }
      REQUIRE(tokens == batches.tokens());
      REQUIRE(documents <= static_cast<std::size_t>(batches.examples()));
    }
  }
}

TEST_CASE("batches: what cannot be used is named") {
  const Stored stored = places(100);
  const std::string path = stored.file->path();
  CHECK_MESSAGE_OF(Batches(stored.file, {.sequences = 0}), "BatchOptions::sequences: expected at",
                   "found 0");
  CHECK_MESSAGE_OF(Batches(stored.file, {.seq_len = 0}), "BatchOptions::seq_len: expected at least",
                   "found 0");
  CHECK_MESSAGE_OF(Batches(nullptr, BatchOptions{}), "Batches: expected a token file");
  CHECK_MESSAGE_OF(Batches(stored.file, {.seq_len = 100}),
                   path + ": expected more than BatchOptions::seq_len (100) tokens, found 100");
  CHECK_NOTHROW(Batches(stored.file, {.seq_len = 99}));
  CHECK_MESSAGE_OF(Batches(stored.file, {.seq_len = 10, .restart_at_separators = true}),
                   path + ": BatchOptions::restart_at_separators", "without a separator");
  Batches batches(stored.file, {.seq_len = 10});
  for (const std::int64_t position : {std::int64_t{-1}, INT64_MAX})
    CHECK_MESSAGE_OF(batches.seek(position), "Batches::seek: expected a position in [0, ",
                     "found " + std::to_string(position));
  CHECK(batches.position() == 0);
}

TEST_CASE("batches: a damaged file is an error and the position stays") {
  const Stored stored = places(100);
  const std::string path = stored.file->path();
  std::string bytes = read_file(path);
  bytes[48 + 50] = 100;
  write_file(path, bytes);
  const auto file = std::make_shared<TokenFile>(path);
  Batches batches(file, {.sequences = 9, .seq_len = 11});
  CHECK_MESSAGE_OF(batches.next(), path + ": damaged: an id among tokens 44 to 55 is 100");
  CHECK(batches.position() == 0);
}

TEST_CASE("batches: a file that gets more documents while it is read is an error") {
  const Stored stored(Ids(31, 1), 2, 0);
  Batches batches(stored.file, {.sequences = 2, .seq_len = 15, .restart_at_separators = true});
  CHECK(batches.examples() == 2);
  std::fstream file(stored.file->path(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(48);
  file.write("\0\0\0", 3);
  file.close();
  CHECK_MESSAGE_OF(batches.next(), stored.file->path() + ": changed");
}

TEST_CASE("batches: the gradients of packed documents are those of each alone") {
  using Model = tiny::Samba;
  constexpr std::int32_t separator = 60;
  Random rng;
  CAPTURE(rng.seed);
  // A window of four documents, the last of which goes on behind it.
  const auto window = [&](const Ids& kept) {
    Ids ids = kept;
    while (ids.size() < 71) ids.push_back(rng.below(separator));
    for (const std::size_t end : {24u, 25u, 51u}) ids[end] = separator;
    return ids;
  };
  const Ids ids = window({});
  const auto weights = random_weights<Model, double>(rng.bits());
  using Gradients = Weights<Model, Master<double>>;
  const auto values = [](const Gradients& g) {
    const auto bytes = g.memory();
    std::vector<double> all(bytes.size() / sizeof(double));
    std::memcpy(all.data(), bytes.data(), bytes.size());
    return all;
  };
  const auto packed = [&](const Ids& tokens) {
    const Stored stored(tokens, Model::vocab_size, separator);
    Batches batches(stored.file, {.sequences = 1, .seq_len = 70, .restart_at_separators = true});
    CHECK(batches.examples() == 4);
    return copy_of(batches.next());
  };
  const auto gradients = [&](const std::vector<Copied>& documents) {
    std::vector<Example> examples;
    for (const auto& [tokens, targets] : documents) examples.push_back({tokens, targets});
    Gradient<Model, double> gradient(
        {.sequences = static_cast<int>(examples.size()), .tokens = 70});
    Gradients g;
    const double loss = gradient.add(weights, examples, g);
    return std::pair(loss, values(g));
  };
  const auto documents = packed(ids);
  const auto [loss, all] = gradients(documents);

  // The mean over all targets: the means of the documents by how many of theirs count.
  const std::vector<double> counted = {24, 0, 25, 18};
  std::vector<double> sum(all.size());
  double loss_sum = 0;
  for (std::size_t d = 0; d < documents.size(); ++d) {
    CHECK(
        static_cast<double>(std::count_if(documents[d].targets.begin(), documents[d].targets.end(),
                                          [](auto x) { return x >= 0; })) == counted[d]);
    const auto [own_loss, own] = gradients({documents[d]});
    loss_sum += own_loss * counted[d] / 67;
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += own[i] * counted[d] / 67;
  }
  CHECK(std::abs(loss - loss_sum) < 1e-12 * loss);
  CHECK(relative_error(all, sum) < 1e-12);

  // One document counts: whatever the others are, the gradients are its own.
  const auto alone_of = [&](std::vector<Copied> copies, std::size_t d) {
    for (std::size_t other = 0; other < copies.size(); ++other)
      if (other != d) std::fill(copies[other].targets.begin(), copies[other].targets.end(), -1);
    return gradients(copies).second;
  };
  const auto others = packed(window({ids.begin(), ids.begin() + 25}));
  REQUIRE(others[0] == documents[0]);
  REQUIRE(others[2] != documents[2]);
  const auto first = gradients({documents[0]}).second;
  CHECK(relative_error(alone_of(documents, 0), first) < 1e-12);
  CHECK(relative_error(alone_of(others, 0), first) < 1e-12);
  for (const std::size_t d : {2u, 3u})
    CHECK(relative_error(alone_of(documents, d), gradients({documents[d]}).second) < 1e-12);
}

TEST_CASE("batches: weights of targets") {
  const TempDir dir;
  TokenFileWriter writer(dir.file("x.tokens"), 10, 9, true);
  const Ids ids{1, 2, 9, 3, 4, 5, 9, 6, 7};
  const std::vector<float> weights{0, 0.5f, 1, 0, 2, 3, 0.25f, 1, 5};
  writer.append(ids, weights);
  writer.close();
  const auto file = std::make_shared<TokenFile>(dir.file("x.tokens"));
  for (const bool restart : {false, true}) {
    Batches batches(file, {.sequences = 2, .seq_len = 4, .restart_at_separators = restart});
    std::size_t seen = 0;
    for (const Example& e : batches.next()) {
      CHECK(e.weights.size() == e.targets.size());
      for (std::size_t i = 0; i < e.targets.size(); ++i) {
        if (e.targets[i] < 0 || e.tokens[i] == 9) continue;  // 9 stands twice
        const auto at = std::find(ids.begin(), ids.end(), e.tokens[i]) - ids.begin() + 1;
        CHECK(e.weights[i] == weights[static_cast<std::size_t>(at)]);
        ++seen;
      }
    }
    CHECK(seen == 6);
  }
}

TEST_CASE("batches: several files by their weights, each in epochs of its own") {
  const TempDir dir;
  std::vector<DataSource> sources;
  const std::vector<std::int64_t> windows{5, 700, 40};
  const std::vector<double> weights{1, 7, 2};
  for (std::size_t f = 0; f < 3; ++f) {
    const std::string path = dir.file(std::to_string(f));
    TokenFileWriter writer(path, 3000);
    for (int i = 0; i <= 3 * windows[f]; ++i)
      writer.append(Ids{static_cast<int>(1000 * f) + i / 3});
    writer.close();
    sources.push_back({std::make_shared<TokenFile>(path), weights[f]});
  }
  const BatchOptions options{.sequences = 4, .seq_len = 3, .seed = 5};
  Batches batches(sources, options);
  CHECK((batches.files() == 3 && batches.windows() == 745));
  const Ids all = starts(batches, 3 * 4096);
  std::vector<std::vector<std::int32_t>> of(3);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto f = static_cast<std::size_t>(all[i] / 1000);
    of[f].push_back(all[i] % 1000);
    if (i + 1 == 4096)
      for (std::size_t k = 0; k < 3; ++k)
        CHECK(std::abs(static_cast<double>(of[k].size()) - 409.6 * weights[k]) < 1);
    if (i + 1 == 500)  // spread over the round: within five deviations
      for (std::size_t k = 0; k < 3; ++k)
        CHECK(std::abs(static_cast<double>(of[k].size()) - 50 * weights[k]) < 60);
  }
  for (std::size_t f = 0; f < 3; ++f) {
    CHECK(std::abs(static_cast<double>(of[f].size()) / static_cast<double>(all.size()) -
                   weights[f] / 10) < 1e-3);
    // A file's epochs: of every n windows each once, as far as rounds allow: they mix only windows
    // that stand near to each other.
    std::map<std::int32_t, int> times;
    for (const std::int32_t w : of[f]) ++times[w];
    CHECK(std::ssize(times) == windows[f]);
    const auto [least, most] = std::minmax_element(
        times.begin(), times.end(), [](auto a, auto b) { return a.second < b.second; });
    CHECK(most->second - least->second <= 1);
  }
  Batches later(sources, options);
  later.seek(4 * 1000);
  CHECK(starts(later, 400) == Ids(all.begin() + 4000, all.begin() + 4400));

  // One source is what the file alone is.
  Batches one(DataSources{sources[1]}, options), alone(sources[1].file, options);
  CHECK(starts(one, 2000) == starts(alone, 2000));
  CHECK(one.description() == std::to_string(sources[1].file->hash()));
  CHECK(batches.description() != Batches({sources[0], sources[1]}, options).description());

  sources[0].weight = 1e-5;
  CHECK_MESSAGE_OF(Batches(sources, options), dir.file("0"), "DataSource::weight",
                   "at least 1/4096 of the sum of all");
  sources[0].weight = -1;
  CHECK_MESSAGE_OF(Batches(sources, options), "DataSource::weight", "found -1");
  CHECK_MESSAGE_OF(Batches(std::vector<DataSource>{}, options), "expected a token file");
}

TEST_CASE("batches: in order, the windows of a sequence follow each other") {
  const Stored stored = places(3 * 29);  // 28 windows of 3
  const BatchOptions options{.sequences = 4, .seq_len = 3, .in_order = true};
  Batches batches(stored.file, options);
  for (int epoch = 0; epoch < 2; ++epoch)
    for (int b = 0; b < 7; ++b) {
      CHECK(batches.begins_epoch() == (b == 0));
      const auto examples = batches.next();
      for (std::size_t s = 0; s < 4; ++s)
        CHECK(examples[s].tokens[0] == static_cast<std::int32_t>(21 * s) + 3 * b);
    }
  CHECK_MESSAGE_OF(Batches(stored.file, {.sequences = 30, .seq_len = 3, .in_order = true}),
                   "x.tokens", "a window of 3 tokens for each of 30 sequences, found 28");
  CHECK_MESSAGE_OF(Batches({{stored.file}, {stored.file}}, options), "in_order: expected one file");
}
