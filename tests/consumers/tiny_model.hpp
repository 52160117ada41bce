#pragma once
// A tiny model with fixed pseudo-random weights, run by the programs of this folder.
#include <samba/samba.hpp>

#include <array>
#include <cstdint>
#include <vector>

namespace {

struct TinyBlock
    : samba::HybridStack<samba::Mamba<64>, samba::SwiGLU<64>,
                         samba::SWA<8, samba::AttentionOptions{.n_heads = 4, .n_kv_heads = 2}>,
                         samba::SwiGLU<64>> {};
struct TinyModel
    : samba::LanguageModel<samba::Repeat<2, TinyBlock>,
                           samba::ModelOptions{.vocab_size = 50, .tie_embeddings = true}> {};

/// The logits after a prompt longer than the window and one step. In an unnamed namespace, because
/// each translation unit compiles it with flags of its own.
[[maybe_unused]] std::vector<float> tiny_logits() {
  samba::Weights<TinyModel> weights;
  std::uint32_t random = 1;
  weights.visit([&](int, auto, auto, auto& tensor, const auto&...) {
    std::vector<float> row(static_cast<std::size_t>(tensor.row_size));
    for (std::int64_t r = 0; r < tensor.rows; ++r) {
      for (float& value : row) {
        random = random * 1664525u + 1013904223u;
        value = static_cast<float>(random >> 8) / 0x1p24f * 0.5f - 0.2f;
      }
      tensor.set_row(r, row.data());
    }
  });
  weights.derive();
  samba::Session session(weights);
  session.prefill(std::array<std::int32_t, 12>{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8});
  const auto logits = session.step(7);
  return {logits.begin(), logits.end()};
}

}  // namespace
