// 04_new_schedule: five layer schedules of one budget, compared by constants of the program.
//   04_new_schedule [POSITION]      FLOPs are given at position 0 and at POSITION (32768)
// Nothing is allocated and nothing runs: sizes, FLOPs and state are known to the compiler.
#include "output.hpp"

#include <samba/samba.hpp>

#include <cstdio>
#include <cstdlib>

using namespace samba;

// One width for all, about 100 million parameters each; only the schedule differs.
using M = Mamba<768>;
using A = SWA<2048>;
using F = SwiGLU<768>;

template <class Stack>
using Model = LanguageModel<Stack, ModelOptions{.vocab_size = 32000, .tie_embeddings = true}>;

// By letters, by period and offset, by repeating one layer.
struct Samba : Model<Repeat<5, Pattern<"MFAF", Is<'M', M>, Is<'A', A>, Is<'F', F>>>> {};
struct MambaSwaMlp : Model<Repeat<7, Pattern<"MAF", Is<'M', M>, Is<'A', A>, Is<'F', F>>>> {};
struct MambaMlp : Model<Periodic<18, 2, 1, F, M>> {};  // at odd places F, elsewhere M
struct SwaMlp : Model<Periodic<22, 2, 1, F, A>> {};
struct MambaOnly : Model<Repeat<21, M>> {};

template <class Schedule>  // of at most 2 % more or less
constexpr bool within_budget = 100 * Schedule::parameters >= 98 * Samba::parameters &&
                               100 * Schedule::parameters <= 102 * Samba::parameters;
static_assert(within_budget<MambaSwaMlp> && within_budget<MambaMlp>);
static_assert(within_budget<SwaMlp> && within_budget<MambaOnly>);

// By indices: the places of attention blocks among Mamba blocks. These make Samba again.
using AttentionBlock = HybridStack<A, F>;
using MambaBlock = HybridStack<M, F>;
struct SambaByIndices : Model<AtIndices<10, Indices<1, 3, 5, 7, 9>, AttentionBlock, MambaBlock>> {};
static_assert(SambaByIndices::parameters == Samba::parameters);

template <class Schedule>
void print_row(const char* name, std::int64_t position) {
  const auto millions = [](std::int64_t n) { return static_cast<double>(n) / 1e6; };
  std::printf("%-14s %12lld %7d %12.1f %16.1f %14.2f %14.1f\n", name,
              static_cast<long long>(Schedule::parameters), Schedule::depth,
              millions(Schedule::flops_per_token(0)), millions(Schedule::flops_per_token(position)),
              millions(Schedule::template state_bytes<>),
              millions(Schedule::template weight_bytes<float>));
}

constexpr const char* help =
    "Compares five layer schedules of one budget: parameters, FLOPs of a token at position 0 and\n"
    "at POSITION (32768), bytes of state and of weights.\n"
    "Usage: 04_new_schedule [POSITION]\n"
    "Example: 04_new_schedule 1000000\n";

void compare(std::int64_t position) {
  if (position < 1) fail({"expected a position, 1 or more, found ", position});
  const std::string at = "at " + std::to_string(position);
  std::printf("%-14s %12s %7s %12s %16s %14s %14s\n", "", "", "", "MFLOPs/token", "MFLOPs/token",
              "", "");
  std::printf("%-14s %12s %7s %12s %16s %14s %14s\n", "schedule", "parameters", "depth", "at 0",
              at.c_str(), "state MB", "weights MB");
  print_row<Samba>("Samba", position);
  print_row<MambaSwaMlp>("Mamba-SWA-MLP", position);
  print_row<MambaMlp>("Mamba-MLP", position);
  print_row<SwaMlp>("SWA-MLP", position);
  print_row<MambaOnly>("Mamba", position);

  if (structure<SambaByIndices>() != structure<Samba>())
    fail({"Samba by indices is not the model that Samba by letters is"});
  std::printf("\nSamba by indices is the same model as Samba by letters.\n");
}

int main(int argc, char** argv) {
  return run_main(argc, argv, help, [&] { compare(argc > 1 ? std::atoll(argv[1]) : 32768); });
}
