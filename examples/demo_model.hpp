#pragma once
// The model of the folder demo_model: a Samba of 7.3 M parameters that reads and writes bytes,
// trained on English text. Its type says everything about it; config.json repeats it for others.
#include <samba/samba.hpp>

struct DemoBlock
    : samba::HybridStack<samba::Mamba<256>, samba::SwiGLU<256, 768>,
                         samba::SWA<512, samba::AttentionOptions{.n_heads = 4, .n_kv_heads = 2}>,
                         samba::SwiGLU<256, 768>> {};

struct DemoModel
    : samba::LanguageModel<samba::Repeat<4, DemoBlock>,
                           samba::ModelOptions{.vocab_size = 256, .tie_embeddings = true}> {};
