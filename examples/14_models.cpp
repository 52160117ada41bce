// 14_models: published models of several families beside each other, by the constants of their types.
//   14_models [SVG]      SVG: a file for the plot
// Prints the table of docs/models.md: parameters, bytes of state and FLOPs per token, and draws the last
// two over the context. Nothing is loaded, allocated or run.
#include "output.hpp"
#include "svg.hpp"

#include <samba/model/published.hpp>

#include <array>
#include <cstdint>
#include <cstdio>
#include <string>

using namespace samba;

namespace {

constexpr std::int64_t shortest = 1024, longest = 1024 * 1024;
constexpr std::array<std::int64_t, 2> contexts = {4096, 131072};

/// Bytes of state for texts of some tokens, keys and values in bf16.
template <class Model>
constexpr std::int64_t state_bytes(std::int64_t tokens) {
  return Model::template state_bytes<bf16>(tokens);
}
/// FLOPs of the last of some tokens.
template <class Model>
constexpr std::int64_t flops(std::int64_t tokens) {
  return Model::flops_per_token(tokens - 1);
}

double mega(std::int64_t n) { return static_cast<double>(n) / 1e6; }
double giga(std::int64_t n) { return static_cast<double>(n) / 1e9; }

std::string grouped(std::int64_t n) {
  std::string digits = std::to_string(n);
  for (auto at = std::ssize(digits) - 3; at > 0; at -= 3)
    digits.insert(static_cast<std::size_t>(at), 1, ',');
  return digits;
}

const svg::Axis context{
    .label = "context, tokens", .log = true, .marks = {1024, 4096, 16384, 65536, 262144, 1048576}};

struct Plots {
  svg::LineChart state{.title = "State of one sequence, keys and values in bf16",
                       .x = context,
                       .y = {.label = "MB", .log = true},
                       .series = {}};
  svg::LineChart work{.title = "Work of the last token",
                      .x = context,
                      .y = {.label = "GFLOPs", .log = true},
                      .series = {}};
};

template <class Model>
void add_row(Plots& plots, const char* name, bool drawn = true) {
  std::printf("| `%s` | %d | %d | %s", name, Model::d_model, Model::depth,
              grouped(Model::parameters).c_str());
  for (const std::int64_t tokens : contexts)
    std::printf(" | %.1f", mega(state_bytes<Model>(tokens)));
  for (const std::int64_t tokens : contexts) std::printf(" | %.2f", giga(flops<Model>(tokens)));
  std::printf(" |\n");
  if (!drawn) return;
  svg::Series state{.name = name}, work{.name = name};
  for (std::int64_t tokens = shortest; tokens <= longest; tokens *= 2) {
    const auto x = static_cast<double>(tokens);
    state.points.push_back({x, mega(state_bytes<Model>(tokens))});
    work.points.push_back({x, giga(flops<Model>(tokens))});
  }
  plots.state.series.push_back(state);
  plots.work.series.push_back(work);
}

constexpr const char* help =
    "Usage: 14_models [SVG]\n"
    "Prints a table of published models by the constants of their types: width, residual "
    "branches,\n"
    "parameters, state in MB and GFLOPs of the last token for contexts of 4,096 and 131,072 "
    "tokens.\n"
    "SVG: a file, in which state and FLOPs are drawn over the context.\n"
    "Example: 14_models models.svg\n";

}  // namespace

int main(int argc, char** argv) {
  return run_main(argc, argv, help, [&] {
    if (argc > 2) fail({"expected [SVG]; see --help"});
    if (argc == 2) check_output("SVG", argv[1]);
    std::printf("| type | d_model | branches | parameters");
    for (const std::int64_t tokens : contexts)
      std::printf(" | state at %s, MB", grouped(tokens).c_str());
    for (const std::int64_t tokens : contexts)
      std::printf(" | at %s, GFLOPs", grouped(tokens).c_str());
    std::printf(" |\n|---|---|---|---|---|---|---|---|\n");
    Plots plots;
    add_row<presets::Llama3_1_8B>(plots, "Llama3_1_8B");
    add_row<presets::Mistral_7B>(plots, "Mistral_7B");
    add_row<presets::Phi3Mini_4K>(plots, "Phi3Mini_4K", false);
    add_row<presets::Gemma_2B>(plots, "Gemma_2B");
    add_row<presets::Gemma3_1B>(plots, "Gemma3_1B");
    add_row<presets::Gemma3_270M>(plots, "Gemma3_270M", false);
    add_row<presets::SmolLM2_135M>(plots, "SmolLM2_135M");
    add_row<presets::RecurrentGemma_2B>(plots, "RecurrentGemma_2B");
    add_row<presets::Samba1_7B>(plots, "Samba1_7B");
    add_row<presets::PileMamba_2_8B>(plots, "PileMamba_2_8B");
    if (argc == 2) {
      svg::Page page;
      page.add(plots.state);
      page.add(plots.work);
      page.save(argv[1]);
    }
  });
}
