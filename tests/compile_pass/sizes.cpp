#include <samba/samba.hpp>
#include <type_traits>
using namespace samba;

// Views are pointers: trees of weights and states are trivially copyable, so they cost nothing to
// pass around.
using Ssm = Mamba<256>;
using Window = SWA<64, AttentionOptions{.n_heads = 4, .n_kv_heads = 2}>::with_d_model<256>;
using Block = HybridStack<Ssm, SwiGLU<256, 768>, SWA<64>, SwiGLU<256, 768>>;
struct Model : LanguageModel<Repeat<6, Block>, ModelOptions{.vocab_size = 100}> {};
static_assert(std::is_trivially_copyable_v<Ssm::Weights<float>>);
static_assert(std::is_trivially_copyable_v<Ssm::State<Policy<float>>>);
static_assert(std::is_trivially_copyable_v<Window::State<Policy<float, bf16>>>);
static_assert(std::is_trivially_copyable_v<Model::Tree<float>>);
static_assert(std::is_trivially_copyable_v<Model::States<Policy<float>>>);
static_assert(sizeof(Matrix<float, 1536, 4096>) == sizeof(void*));
static_assert(sizeof(Ssm::State<Policy<float>>) == 4 * sizeof(void*));
static_assert(std::is_empty_v<Stateless> && sizeof(bf16) == 2);

// Layers are known by the concept alone.
static_assert(Layer<Ssm> && Layer<Window> && Layer<SwiGLU<256, 768>>);
static_assert(!Layer<SWA<64>> && !Layer<int> && !Layer<Block>);

// Counts: one branch a layer, one padded panel a matrix.
static_assert(Model::depth == 24);
static_assert(Matrix<float, 1, 8>::bytes == panel_width * 8 * 4 &&
              Matrix<float, panel_width + 1, 8>::bytes == 2 * panel_width * 8 * 4);
static_assert(SwiGLU<768>::d_ff == 2048 && Mamba<1536>::dt_rank == 96 && Mamba<100>::dt_rank == 7);
static_assert(Window::head_dim == 64 && Window::group == 2 && Window::qkv_width == 8 * 64);
static_assert(SWA<64>::with_d_model<256>::head_dim == 128 &&
              SWA<64>::with_d_model<256>::n_heads == 2);
static_assert(Model::state_bytes<float> == 6 * ((3 + 16) * 512 * 4 + 2 * 64 * 256 * 4));
static_assert(!Model::has_capacity && LanguageModel<HybridStack<DModel<128>, Attention<>>,
                                                    ModelOptions{.vocab_size = 9}>::has_capacity);
