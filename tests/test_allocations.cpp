// After construction the calls of a session allocate nothing, whatever the length of a prompt.
// Every form of operator new is replaced here and counts.
#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/catch.hpp"
#include "tests/models.hpp"

namespace {

std::atomic<long> allocations{0};

/// Null without memory.
void* allocate(std::size_t size, std::align_val_t align) {
  ++allocations;
  const auto alignment = std::max(alignof(std::max_align_t), static_cast<std::size_t>(align));
  return std::aligned_alloc(alignment, size / alignment * alignment + alignment);
}
void* allocate_or_throw(std::size_t size, std::align_val_t align) {
  if (void* p = allocate(size, align)) return p;
  throw std::bad_alloc();
}
constexpr std::align_val_t plain{alignof(std::max_align_t)};

}  // namespace

// clang-format off
using nothrow = const std::nothrow_t&;
void* operator new(std::size_t n) { return allocate_or_throw(n, plain); }
void* operator new[](std::size_t n) { return allocate_or_throw(n, plain); }
void* operator new(std::size_t n, std::align_val_t a) { return allocate_or_throw(n, a); }
void* operator new[](std::size_t n, std::align_val_t a) { return allocate_or_throw(n, a); }
void* operator new(std::size_t n, nothrow) noexcept { return allocate(n, plain); }
void* operator new[](std::size_t n, nothrow) noexcept { return allocate(n, plain); }
void* operator new(std::size_t n, std::align_val_t a, nothrow) noexcept { return allocate(n, a); }
void* operator new[](std::size_t n, std::align_val_t a, nothrow) noexcept { return allocate(n, a); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, nothrow) noexcept { std::free(p); }
void operator delete[](void* p, nothrow) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t, nothrow) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t, nothrow) noexcept { std::free(p); }
// clang-format on

using namespace samba_test;

namespace {

/// Allocations while f runs.
template <class F>
long allocations_in(F&& f) {
  const long before = allocations;
  f();
  return allocations - before;
}

template <class Model>
void check_calls(int threads) {
  CAPTURE(threads);
  Random rng;
  const auto weights = random_weights<Model>(1);
  const auto prompt = random_tokens<Model>(rng, 1000);
  std::vector<float> logits(700 * Model::vocab_size);

  Session session(weights, {.threads = threads});
  CHECK(allocations_in([&] { session.step(1); }) == 0);  // the very first call
  CHECK(allocations_in([&] { session.prefill(std::span(prompt).first(1)); }) == 0);
  CHECK(allocations_in([&] { session.prefill(prompt); }) == 0);
  CHECK(allocations_in([&] { session.forward(std::span(prompt).first(700), logits); }) == 0);
  CHECK(allocations_in([&] { session.reset(); }) == 0);
  Snapshot snapshot;
  CHECK(allocations_in([&] { snapshot = session.snapshot(); }) > 0);  // the counter counts
  CHECK(allocations_in([&] { session.restore(snapshot); }) == 0);
  CHECK(allocations_in([&] { session.snapshot(snapshot); }) == 0);

  Batch batch(weights, 3, {.threads = threads, .chunk = 64});
  using Tokens = std::span<const std::int32_t>;
  const std::array<Tokens, 3> prompts{Tokens(prompt).first(900), Tokens{},
                                      Tokens(prompt).first(100)};
  CHECK(allocations_in([&] { batch.step(std::array{1, 2, 3}); }) == 0);
  CHECK(allocations_in([&] { batch.prefill(prompts); }) == 0);
  CHECK(allocations_in([&] { batch.prefill(1, prompt); }) == 0);
  CHECK(allocations_in([&] { batch.snapshot(2, snapshot); }) == 0);
  CHECK(allocations_in([&] { batch.restore(0, snapshot); }) == 0);
  CHECK(allocations_in([&] { batch.reset(2); }) == 0);

  CHECK(allocations_in([&] { Session fork = session; }) > 0);
}

}  // namespace

TEMPLATE_TEST_CASE("calls allocate nothing", "", tiny::Samba, tiny::AttentionOnly, tiny::Mixed) {
  check_calls<TestType>(1);
  check_calls<TestType>(2);
}
