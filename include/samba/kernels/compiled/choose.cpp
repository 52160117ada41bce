// samba::compiled: the functions that programs call. Each forwards to the version for the best
// instruction set that the processor supports, or for the one that the program chose.
#include <samba/core/build_info.hpp>
#include <samba/kernels/compiled/entries.hpp>

#include <atomic>

#ifndef SAMBA_COMPILED
#error "choose.cpp is compiled with -DSAMBA_COMPILED, as the programs that link samba::compiled are"
#endif

#define SAMBA_SET(set) SAMBA_JOIN(set, SAMBA_MATH_MODE, SAMBA_THREADING)

// Defined by kernels.cpp, compiled for each set.
#if defined(__x86_64__)
namespace samba::SAMBA_SET(sse2)::kernels::compiled {
void list_kernels(void (**)());
}
namespace samba::SAMBA_SET(avx2)::kernels::compiled {
void list_kernels(void (**)());
}
namespace samba::SAMBA_SET(avx512)::kernels::compiled {
void list_kernels(void (**)());
}
namespace samba::SAMBA_SET(avx512_vnni)::kernels::compiled {
void list_kernels(void (**)());
}
namespace samba::SAMBA_SET(avx512_bf16)::kernels::compiled {
void list_kernels(void (**)());
}
#else
namespace samba::SAMBA_SET(neon)::kernels::compiled {
void list_kernels(void (**)());
}
#endif

namespace samba::inline SAMBA_TARGET {
namespace kernels::compiled {
namespace {

struct InstructionSet {
  std::string_view name;
  void (*list_kernels)(Entry*);
  bool present;  ///< this processor supports it
  Entry entries[Kernels::size];
};

/// All sets that the library contains, in ascending order.
struct InstructionSets {
#if defined(__x86_64__)
  static constexpr std::size_t size = 5;
  InstructionSet sets[size] = {
      {"sse2", &SAMBA_SET(sse2)::kernels::compiled::list_kernels, true, {}},
      {"avx2",
       &SAMBA_SET(avx2)::kernels::compiled::list_kernels,
       __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"),
       {}},
      {"avx512", &SAMBA_SET(avx512)::kernels::compiled::list_kernels, has_avx512(), {}},
      {"avx512_vnni",
       &SAMBA_SET(avx512_vnni)::kernels::compiled::list_kernels,
       has_avx512() && __builtin_cpu_supports("avx512vnni"),
       {}},
      {"avx512_bf16",
       &SAMBA_SET(avx512_bf16)::kernels::compiled::list_kernels,
       has_avx512() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16"),
       {}}};

  static bool has_avx512() {
    return __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
#else
  static constexpr std::size_t size = 1;
  InstructionSet sets[size] = {
      {"neon", &SAMBA_SET(neon)::kernels::compiled::list_kernels, true, {}}};
#endif

  std::atomic<const InstructionSet*> used;

  InstructionSets() {
    for (InstructionSet& set : sets)
      if (set.present) {
        set.list_kernels(set.entries);
        used = &set;
      }
  }

  static InstructionSets& get() {
    static InstructionSets all;
    return all;
  }
};

/// Calls the chosen version of `function`.
template <auto function>
auto call(auto&&... args) {
  static_assert(Kernels::index<function> < Kernels::size, "not in the list of entries.hpp");
  const InstructionSet* const set = InstructionSets::get().used.load(std::memory_order_relaxed);
  return reinterpret_cast<decltype(function)>(set->entries[Kernels::index<function>])(args...);
}

}  // namespace

template <class T>
void matmul(const MatmulArgs<T>& a, Range panels) {
  call<&matmul<T>>(a, panels);
}
template <class T>
void matmul_backward_input(const MatmulBackwardArgs<T>& a, Range panels) {
  call<&matmul_backward_input<T>>(a, panels);
}
template <class T>
void matmul_backward_weight(const MatmulBackwardArgs<T>& a, Range outputs) {
  call<&matmul_backward_weight<T>>(a, outputs);
}
template <class KV>
void attention(const AttentionArgs<float, KV>& a, Range heads, Range rows, std::byte* scratch) {
  call<&attention<KV>>(a, heads, rows, scratch);
}
template <class KV>
void attention_backward(const AttentionBackwardArgs<float, KV>& b, std::int64_t head,
                        const TileTeam& team, float* scratch) {
  call<&attention_backward<KV>>(b, head, team, scratch);
}
template <int N>
void selective_scan(const SelectiveScanArgs<float>& a, Range channels) {
  call<&selective_scan<N>>(a, channels);
}
template <int N>
void selective_scan_backward(const SelectiveScanBackwardArgs<float>& b, Range channels, float* kept,
                             float* piece) {
  call<&selective_scan_backward<N>>(b, channels, kept, piece);
}
template <int Taps, bool Silu>
void causal_conv1d(const CausalConv1dArgs<float>& a, Range channels) {
  call<&causal_conv1d<Taps, Silu>>(a, channels);
}
template <int Taps, bool Silu>
void causal_conv1d_backward(const CausalConv1dBackwardArgs<float>& b, Range channels) {
  call<&causal_conv1d_backward<Taps, Silu>>(b, channels);
}
void rg_lru(const RgLruArgs<float>& a, Range channels) { call<&rg_lru>(a, channels); }
void rg_lru_backward(const RgLruBackwardArgs<float>& b, Range channels) {
  call<&rg_lru_backward>(b, channels);
}
void gelu_mul(const float* gate, const float* up, Range columns, Gelu form, float* out) {
  call<&gelu_mul>(gate, up, columns, form, out);
}
void gelu_mul_backward(const float* gate, const float* up, const float* dout, Range columns,
                       Gelu form, float* dgate, float* dup) {
  call<&gelu_mul_backward>(gate, up, dout, columns, form, dgate, dup);
}
void silu_mul(const float* gate, const float* up, Range columns, float* out) {
  call<&silu_mul>(gate, up, columns, out);
}
void silu_mul_backward(const float* gate, const float* up, const float* dout, Range columns,
                       float* dgate, float* dup) {
  call<&silu_mul_backward>(gate, up, dout, columns, dgate, dup);
}
void sigmoid_mul(const float* gate, const float* up, Range columns, float* out) {
  call<&sigmoid_mul>(gate, up, columns, out);
}
void sigmoid_mul_backward(const float* gate, const float* up, const float* dout, Range columns,
                          float* dgate, float* dup) {
  call<&sigmoid_mul_backward>(gate, up, dout, columns, dgate, dup);
}
void soft_cap(float cap, Range columns, float* x) { call<&soft_cap>(cap, columns, x); }
void soft_cap_backward(float cap, const float* x, Range columns, float* dx) {
  call<&soft_cap_backward>(cap, x, columns, dx);
}
void add(const float* y, Range columns, float* x) { call<&add>(y, columns, x); }
void add_scaled(const float* y, float factor, Range columns, float* x) {
  call<&add_scaled>(y, factor, columns, x);
}
float rms_inverse(const float* x, float eps, std::int64_t n) {
  return call<&rms_inverse>(x, eps, n);
}
void rmsnorm(const float* x, const float* weight, float eps, std::int64_t n, float* out) {
  call<&rmsnorm>(x, weight, eps, n, out);
}
void rmsnorm_backward(const float* x, const float* weight, float s, std::int64_t n, const float* dy,
                      float* dx) {
  call<&rmsnorm_backward>(x, weight, s, n, dy, dx);
}
void rmsnorm_backward_weight(const float* x, float s, const float* dy, Range columns,
                             float* dweight) {
  call<&rmsnorm_backward_weight>(x, s, dy, columns, dweight);
}
RowStatistics<float> row_statistics(const float* x, float eps, std::int64_t n) {
  return call<&row_statistics>(x, eps, n);
}
void layernorm(const float* x, const float* weight, const float* bias, float eps, std::int64_t n,
               float* out) {
  call<&layernorm>(x, weight, bias, eps, n, out);
}
void layernorm_backward(const float* x, const float* weight, RowStatistics<float> s, std::int64_t n,
                        const float* dy, float* dx) {
  call<&layernorm_backward>(x, weight, s, n, dy, dx);
}
void layernorm_backward_weight(const float* x, RowStatistics<float> s, const float* dy,
                               Range columns, float* dweight, float* dbias) {
  call<&layernorm_backward_weight>(x, s, dy, columns, dweight, dbias);
}
void rope(const float* cos, const float* sin, int half, float* head) {
  call<&rope>(cos, sin, half, head);
}
void rope_backward(const float* cos, const float* sin, int half, float* head) {
  call<&rope_backward>(cos, sin, half, head);
}
float cross_entropy(float* logits, std::int64_t n, std::int64_t target, float scale) {
  return call<&cross_entropy>(logits, n, target, scale);
}

/// Never called: it instantiates the templates of the list.
void list_kernels(Entry* entries) { Kernels::copy_to(entries); }

}  // namespace kernels::compiled

std::string_view instruction_set() {
  return kernels::compiled::InstructionSets::get().used.load()->name;
}

void use_instruction_set(std::string_view name) {
  auto& all = kernels::compiled::InstructionSets::get();
  std::string present;
  for (const auto& set : all.sets) {
    if (set.present && set.name == name) {
      all.used = &set;
      return;
    }
    if (set.present) present += (present.empty() ? "" : ", ") + std::string(set.name);
  }
  fail(
      {"use_instruction_set: expected a set that samba::compiled contains and this processor "
       "supports (",
       present, "), found ", Quoted{name}});
}

}  // namespace samba::inline SAMBA_TARGET
