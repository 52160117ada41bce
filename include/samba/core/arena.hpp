#pragma once
#include <samba/core/checked.hpp>

#include <sys/mman.h>
#ifdef __linux__
#include <sys/sysinfo.h>
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// A block of memory and how it is freed: one from operator new, one the system mapped, or device
/// memory. Plain data; its owner is an Arena.
struct MemoryBlock {
  std::byte* data = nullptr;  ///< the first byte in use
  std::int64_t bytes = 0;     ///< in use
  void* mapped = nullptr;
  std::size_t mapped_bytes = 0;
  void (*release)(std::byte*) = nullptr;

  [[gnu::cold, gnu::noinline]] void free() const {
    if (release)
      release(data);
    else if (mapped)
      ::munmap(mapped, mapped_bytes);
    else
      ::operator delete(data, std::align_val_t{alignment});
  }
};

/// The machine's memory and swap in bytes, where the system reports it.
[[gnu::cold]] inline std::size_t machine_memory() {
#ifdef __linux__
  struct ::sysinfo info{};
  if (::sysinfo(&info) == 0) return (info.totalram + info.totalswap) * info.mem_unit;
#endif
  return SIZE_MAX;
}

}  // namespace detail

/// One aligned, zeroed block of host or device memory with a single owner. Types compute offsets
/// into it. A moved-from arena is empty.
///
/// A large block is mapped as zero pages, each of which becomes resident when a thread first
/// touches it, and uses large pages where the system has them: reading weights in order then hardly
/// misses the TLB.
class Arena {
 public:
  Arena() = default;
  /// Throws Error, naming its purpose and size, if the system cannot provide the block.
  [[gnu::cold, gnu::noinline]] explicit Arena(std::int64_t bytes, const char* what = "Arena") {
    block_.bytes = bytes;
    if (bytes == 0) return;
    const auto size = static_cast<std::size_t>(bytes);
    if (bytes >= large)
      map(size);
    else if (void* const block = ::operator new(size, std::align_val_t{alignment}, std::nothrow))
      block_.data = static_cast<std::byte*>(std::memset(block, 0, size));
    if (!block_.data) fail_no_memory(what, bytes);
  }

  /// Takes over a block that the system mapped; the arena is the `bytes` bytes starting at `first`.
  Arena(void* mapped, std::size_t size, std::byte* first, std::int64_t bytes)
      : block_{first, bytes, mapped, size} {}

  /// Takes over a block of other memory, such as a device's; release(data) frees it.
  Arena(std::byte* data, std::int64_t bytes, void (*release)(std::byte*))
      : block_{data, bytes, nullptr, 0, release} {}

  Arena(Arena&& other) noexcept : block_(std::exchange(other.block_, {})) {}
  Arena& operator=(Arena&& other) noexcept {
    Arena taken(std::move(other));
    std::swap(block_, taken.block_);
    return *this;
  }
  ~Arena() {
    if (block_.data) block_.free();
  }

  /// Never null, even when empty: std::memcpy and std::memset do not accept null, even for 0 bytes.
  std::byte* data() const { return block_.data ? block_.data : nothing; }
  std::int64_t bytes() const { return block_.bytes; }

 private:
  static constexpr std::int64_t large = std::int64_t{4} << 20;
  static constexpr std::size_t huge_page = std::size_t{2} << 20;

  /// Maps a block that starts at a large page, if the system can provide one.
  void map(std::size_t size) {
    // A system that overcommits would kill the program once it touched the memory.
    if (size > detail::machine_memory()) return;
    void* const mapped = ::mmap(nullptr, size + huge_page, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return;
    const std::size_t skip = -reinterpret_cast<std::uintptr_t>(mapped) % huge_page;
    block_.data = static_cast<std::byte*>(mapped) + skip;
    block_.mapped = mapped;
    block_.mapped_bytes = size + huge_page;
#ifdef MADV_HUGEPAGE
    ::madvise(block_.data, size, MADV_HUGEPAGE);  // a hint
#endif
  }

  alignas(alignment) static inline std::byte nothing[1] = {};

  detail::MemoryBlock block_;
};

/// Hands out consecutive aligned places in a block. With a null block it only counts.
struct Placer {
  std::byte* block = nullptr;
  std::int64_t offset = 0;

  /// what: the purpose, for the Error thrown if the total overflows.
  [[gnu::noinline]] std::byte* take(std::int64_t bytes, const char* what = "a block of memory") {
    std::byte* place = block ? block + offset : nullptr;
    offset = checked_round_up(what, checked_sum(what, offset, bytes), alignment);
    return place;
  }
  /// A place for n items of `size` bytes each.
  [[gnu::noinline]] std::byte* take_array(std::int64_t n, std::int64_t size,
                                          const char* what = "a block of memory") {
    return take(checked_product(what, n, size), what);
  }
};

}  // namespace samba::inline SAMBA_TARGET
