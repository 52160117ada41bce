// The published sizes: constants that were computed by hand, and the two texts that describe a
// model.
#include <set>
#include <sstream>

#include <samba/model/published.hpp>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;
using namespace samba::presets;

// Parameters: the table of the design; the 1.7B strategies of the paper as follows.
//
//   width 2048: Mamba     in 2*4096*2048, conv 4096*(4 + 1), x (128 + 32)*4096, dt 4096*(128 + 1),
//                         A_log 16*4096, D 4096, out 2048*4096, norm 2048                26,441,728
//               attention qkv (32 + 2*4)*64*2048, out 2048*2048, norm 2048                9,439,232
//               MLP       3*8192*2048, norm 2048                                         50,333,696
//               embedding 50304*2048 and the final norm                                 103,024,640
//   Mamba-SWA-MLP   18*(26,441,728 + 9,439,232 + 50,333,696) + 103,024,640            1,654,888,448
//   Mamba-MLP       24*(26,441,728 + 50,333,696) + 103,024,640                        1,945,634,816
//   Llama, Mistral  24*(9,439,232 + 50,333,696) + 103,024,640                         1,537,574,912
//   Mamba           64*26,441,728 + 103,024,640                                       1,795,295,232
static_assert(Samba421M::parameters == 421'793'280);
static_assert(Samba1_3B::parameters == 1'330'207'488);
static_assert(Samba1_7B::parameters == 1'741'604'864);
static_assert(Samba3_8B::parameters == 3'864'275'712);
static_assert(MambaSwaMlp400M::parameters == 394'999'296);
static_assert(MambaSwaMlp1_3B::parameters == 1'239'397'632);
static_assert(Samba421M_NoPE::parameters == 421'793'280);
static_assert(Mlp2SwaMlp417M::parameters == 417'240'576);
static_assert(Llama438M::parameters == 438'081'024);
static_assert(Llama438M_SWA::parameters == 438'081'024);
static_assert(Mamba370M::parameters == 352'797'696);
static_assert(Mamba1_3B::parameters == 1'334'740'992);
static_assert(PaperMambaSwaMlp_1700M::parameters == 1'654'888'448);
static_assert(PaperMambaMlp_1700M::parameters == 1'945'634'816);
static_assert(PaperLlama3_1700M::parameters == 1'537'574'912);
static_assert(PaperMistral_1700M::parameters == 1'537'574'912);
static_assert(PaperMamba_1700M::parameters == 1'795'295'232);

// Of other families: the numbers of their published checkpoints, which test_config computes too.
static_assert(SmolLM2_135M::parameters == 134'515'008);
static_assert(SmolLM2_360M::parameters == 361'821'120);
static_assert(SmolLM2_1_7B::parameters == 1'711'376'384);
static_assert(Llama2_7B::parameters == 6'738'415'616);
static_assert(Llama2_13B::parameters == 13'015'864'320);
static_assert(Llama3_8B::parameters == 8'030'261'248);
static_assert(Llama3_1_8B::parameters == 8'030'261'248);
static_assert(Llama3_2_1B::parameters == 1'235'814'400);
static_assert(Llama3_2_3B::parameters == 3'212'749'824);
static_assert(Mistral_7B::parameters == 7'241'732'096);
static_assert(Phi3Mini_4K::parameters == 3'821'079'552);
static_assert(Gemma_2B::parameters == 2'506'172'416);
static_assert(Gemma_7B::parameters == 8'537'680'896);
static_assert(Gemma3_270M::parameters == 268'098'176);
static_assert(Gemma3_1B::parameters == 999'885'952);
static_assert(RecurrentGemma_2B::parameters == 2'682'862'080);
static_assert(PileMamba_130M::parameters == 129'135'360);
static_assert(PileMamba_370M::parameters == 371'516'416);
static_assert(PileMamba_790M::parameters == 793'204'224);
static_assert(PileMamba_1_4B::parameters == 1'372'178'432);
static_assert(PileMamba_2_8B::parameters == 2'768'345'600);

// The MLP width that the paper prints for the 1.7B model.
constexpr AttentionOptions heads_32_4{.n_heads = 32, .n_kv_heads = 4};
struct Printed1_7B
    : LanguageModel<Repeat<12, HybridStack<Mamba<2048>, SwiGLU<2048, 8196>, SWA<2048, heads_32_4>,
                                           SwiGLU<2048, 8196>>>,
                    golden::tied(50304)> {};
static_assert(Printed1_7B::parameters == 1'742'194'688);

static_assert(Samba421M::depth == 24 && Samba421M::d_model == 1536 &&
              Samba421M::vocab_size == 32000);
static_assert(Samba1_3B::depth == 36 && Samba1_3B::d_model == 2304 &&
              Samba1_3B::vocab_size == 32000);
static_assert(Samba1_7B::depth == 48 && Samba1_7B::d_model == 2048 &&
              Samba1_7B::vocab_size == 50304);
static_assert(Samba3_8B::depth == 64 && Samba3_8B::d_model == 2816 &&
              Samba3_8B::vocab_size == 32064);
static_assert(MambaSwaMlp400M::depth == 24 && MambaSwaMlp1_3B::depth == 36 &&
              PaperMambaSwaMlp_1700M::depth == 54);
static_assert(Samba421M_NoPE::depth == 24 && Mlp2SwaMlp417M::depth == 24);
static_assert(Llama438M::depth == 24 && Llama438M_SWA::depth == 24 &&
              PaperLlama3_1700M::depth == 48 && PaperMistral_1700M::depth == 48);
static_assert(Mamba370M::depth == 48 && Mamba1_3B::depth == 48 && PaperMamba_1700M::depth == 64 &&
              PaperMambaMlp_1700M::depth == 48);
static_assert(Samba421M::tie_embeddings && !Llama438M::tie_embeddings &&
              !Llama438M_SWA::tie_embeddings);

// State: a Mamba layer keeps (d_conv - 1 + d_state) * d_inner floats, an attention layer keys and
// values of its window: 2 * 2048 * kv_width of type KV.
static_assert(Samba421M::state_bytes<float> == 6 * (19 * 3072 * 4 + 2 * 2048 * 1536 * 4));
static_assert(Samba421M::state_bytes<float> == 152'395'776);
static_assert(Samba421M::state_bytes<bf16> == 76'898'304);
static_assert(Samba1_3B::state_bytes<float> == 342'890'496 &&
              Samba1_3B::state_bytes<bf16> == 173'021'184);
static_assert(Samba1_7B::state_bytes<float> == 54'067'200 &&
              Samba1_7B::state_bytes<bf16> == 28'901'376);
static_assert(Samba3_8B::state_bytes<float> == 73'957'376 &&
              Samba3_8B::state_bytes<bf16> == 40'402'944);
static_assert(MambaSwaMlp400M::state_bytes<float> == 203'194'368 &&
              MambaSwaMlp1_3B::state_bytes<float> == 457'187'328);
static_assert(Samba421M_NoPE::state_bytes<float> == 152'395'776 &&
              Mlp2SwaMlp417M::state_bytes<float> == 150'994'944);
static_assert(Mamba370M::state_bytes<float> == 7'471'104 &&
              Mamba370M::state_bytes<bf16> == 7'471'104);
static_assert(Mamba1_3B::state_bytes<float> == 14'942'208 &&
              PaperMamba_1700M::state_bytes<float> == 19'922'944);
static_assert(Llama438M_SWA::state_bytes<float> == 301'989'888 &&
              PaperMistral_1700M::state_bytes<float> == 100'663'296);
static_assert(!Samba421M::has_capacity && !Llama438M_SWA::has_capacity && !Mamba370M::has_capacity);
// Full attention: 12 layers of keys and values for as many positions as the session has capacity.
static_assert(Llama438M::has_capacity && Llama438M::state_bytes<float> == 603'979'776);
static_assert(Llama438M::state_bytes<float>(4096) == 603'979'776 &&
              Llama438M::state_bytes<float>(8192) == 1'207'959'552);
static_assert(Llama438M::state_bytes<bf16>(8192) == 603'979'776);

// Weights in memory: the parameters and the negative exponential of A_log; no size here needs
// padding.
static_assert(Samba421M::weight_bytes<float> == 4 * (421'793'280 + 6 * 16 * 3072));
static_assert(Samba421M::weight_bytes<double> == 2 * Samba421M::weight_bytes<float>);
static_assert(Llama438M::weight_bytes<float> == 4 * Llama438M::parameters);
// 50 outputs are padded to whole panels of the instruction set; vectors to 64 bytes.
struct Padded : LanguageModel<HybridStack<SwiGLU<20, 50>>, golden::untied(30)> {};
static_assert(Padded::parameters == 2 * 30 * 20 + 20 + 3 * 50 * 20 + 20);
static_assert(Padded::weight_bytes<float> ==
              round_up(4 * 30 * 20, 64) + 4 * round_up(30, panel_width) * 20 + 2 * 128 +
                  2 * (4 * round_up(50, panel_width) * 20) + 4 * round_up(20, panel_width) * 50);

// FLOPs: attention sees one key more per position until the window is full, 4 * n_heads * head_dim
// each.
static_assert(Samba421M::flops_per_token(2047) - Samba421M::flops_per_token(0) ==
              6LL * 2047 * 4 * 1536);
static_assert(Samba421M::flops_per_token(2048) == Samba421M::flops_per_token(2047));
static_assert(Samba421M::flops_per_token(1LL << 40) == Samba421M::flops_per_token(2047));
static_assert(Llama438M::flops_per_token(100'000) - Llama438M::flops_per_token(0) ==
              12LL * 100'000 * 4 * 1536);
static_assert(Mamba370M::flops_per_token(0) == Mamba370M::flops_per_token(1'000'000));
// Two per weight of a product: the embedding as head, but no norm, convolution, bias, A_log or D.
static_assert(Llama438M_SWA::flops_per_token(0) ==
              2 * (Llama438M_SWA::parameters - 32000 * 1536 - 25 * 1536) +
                  12 * (4 * 1536 + 5 * 4096));

namespace {

/// 1234567 as 1,234,567.
std::string grouped(std::int64_t n) {
  const std::string digits = std::to_string(n);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

template <class Model>
void check_description() {
  const std::string table = describe<Model>();
  INFO(table);
  for (const BranchInfo& branch : branches<Model>()) {
    std::istringstream words(branch.text());  // the table breaks lines between them
    for (std::string word; words >> word;) CHECK(table.find(word) != table.npos);
    CHECK(table.find(grouped(branch.parameters)) != table.npos);
  }
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) CHECK(line.size() <= 100);
  CHECK(table.find("window=0") == table.npos);
  const std::string sums = table.substr(table.rfind("\nsum"));
  CHECK(sums.find(grouped(Model::parameters)) != sums.npos);
  CHECK(sums.find(grouped(Model::template state_bytes<float>)) != sums.npos);
  CHECK(sums.find(grouped(Model::flops_per_token(0))) != sums.npos);
  CHECK(sums.find(grouped(Model::flops_per_token(4095))) != sums.npos);
  // A program built for any processor of its kind says so.
  const bool least = std::string_view(target).starts_with("sse");
  CHECK((sums.find("-march=native") != sums.npos) == least);
}

template <class... Models>
std::set<std::string> structures() {
  return {structure<Models>()...};
}

}  // namespace

TEST_CASE("presets differ in their structure") {
  CHECK(structures<Samba421M, Samba1_3B, Samba1_7B, Samba3_8B, MambaSwaMlp400M, MambaSwaMlp1_3B,
                   Samba421M_NoPE, Mlp2SwaMlp417M, Llama438M, Llama438M_SWA, Mamba370M, Mamba1_3B,
                   PaperMambaSwaMlp_1700M, PaperMambaMlp_1700M, PaperLlama3_1700M,
                   PaperMistral_1700M, PaperMamba_1700M>()
            .size() == 17);
}

namespace {
constexpr AttentionOptions eight_heads{.n_heads = 8, .n_kv_heads = 2};
template <AttentionOptions A, int Window = 16>
struct Attending : LanguageModel<HybridStack<DModel<64>, SWA<Window, A>>, golden::tied(32)> {};
template <MambaOptions O, int N = 16>
struct Recurrent : LanguageModel<Mamba<64, N, O>, golden::tied(32)> {};
template <ModelOptions O>
struct Small : LanguageModel<SwiGLU<64>, O> {};
}  // namespace

TEST_CASE("structure tells every option apart, and nothing else") {
  using A = AttentionOptions;
  const auto attention =
      structures<Attending<eight_heads>, Attending<eight_heads, 17>,
                 Attending<A{.n_heads = 4, .n_kv_heads = 2}>,
                 Attending<A{.n_heads = 8, .n_kv_heads = 4}>,
                 Attending<A{.n_heads = 8, .n_kv_heads = 2, .head_dim = 16}>,
                 Attending<A{.n_heads = 8, .n_kv_heads = 2, .rope = false}>,
                 Attending<A{.n_heads = 8, .n_kv_heads = 2, .rope_theta = 10001}>,
                 Attending<A{.n_heads = 8, .n_kv_heads = 2, .rotary_fraction = 0.5f}>,
                 Attending<A{.n_heads = 8, .n_kv_heads = 2, .rope_table = RopeTable::bfloat16}>,
                 Attending<A{.n_heads = 8, .n_kv_heads = 2, .bias = true}>>();
  CHECK(attention.size() == 10);
  using M = MambaOptions;
  const auto mamba = structures<Recurrent<M{}>, Recurrent<M{}, 8>, Recurrent<M{.d_conv = 3}>,
                                Recurrent<M{.expand = 1}>, Recurrent<M{.dt_rank = 5}>>();
  CHECK(mamba.size() == 5);
  using O = ModelOptions;
  const auto model = structures<Small<O{.vocab_size = 32}>, Small<O{.vocab_size = 33}>,
                                Small<O{.vocab_size = 32, .tie_embeddings = true}>,
                                Small<O{.vocab_size = 32, .norm_eps = 1e-6f}>>();
  CHECK(model.size() == 4);

  // A derived value is the same as the value written out, and another C++ name changes nothing.
  CHECK(structure<Attending<eight_heads>>() ==
        structure<Attending<A{.n_heads = 8, .n_kv_heads = 2, .head_dim = 8}>>());
  CHECK(structure<Recurrent<M{}>>() == structure<Recurrent<M{.dt_rank = 4}>>());
  struct Block : HybridStack<Mamba<1536, 16>, SwiGLU<1536>, SWA<2048>, SwiGLU<1536>> {};
  struct Mine
      : LanguageModel<Repeat<6, Block>, ModelOptions{.vocab_size = 32000, .tie_embeddings = true}> {
  };
  CHECK(structure<Mine>() == structure<Samba421M>());
}

TEST_CASE("describe shows every layer and the sums") {
  check_description<Samba421M>();
  check_description<Llama438M>();
  check_description<Samba3_8B>();
  check_description<Mamba370M>();
  check_description<golden::SwaMlp>();
  check_description<tiny::Mixed>();
  check_description<DemoModel>();
}

TEST_CASE("build_info says where nothing was optimised") {
#ifdef __OPTIMIZE__
  constexpr bool optimised = true;
#else
  constexpr bool optimised = false;
#endif
  CHECK(is_optimised == optimised);
  CHECK((build_info().find("not optimised") == std::string::npos) == optimised);
}

TEST_CASE("weights and states take what the constants say") {
  const auto check = [](auto model) {
    using Model = typename decltype(model)::type;
    CHECK(Weights<Model>().bytes() == Model::template weight_bytes<float>);
    const Weights<Model> weights;
    CHECK(Session(weights).state_bytes() == Model::template state_bytes<float>);
    CHECK(Session(weights, {.capacity = 100}).state_bytes() ==
          Model::template state_bytes<float>(100));
    CHECK(Session<Model, float, bf16>(weights).state_bytes() == Model::template state_bytes<bf16>);
    const Weights<Model, double> twice;
    CHECK(twice.bytes() == Model::template weight_bytes<double>);
    CHECK(Session(twice).state_bytes() == Model::template state_bytes<double>);
    std::int64_t parameters = 0;
    for (const auto& tensor : weights.tensors()) parameters += tensor.rows * tensor.row_size;
    CHECK(parameters == Model::parameters);
  };
  check(std::type_identity<tiny::Samba>{});
  check(std::type_identity<tiny::AttentionOnly>{});
  check(std::type_identity<tiny::Mixed>{});
  check(std::type_identity<tiny::Odd>{});
  check(std::type_identity<Padded>{});
}
