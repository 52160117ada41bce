#pragma once
#include <samba/core/config.hpp>

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// Frees a block of operator new, or what the system mapped for it.
struct FreeBlock {
  void* mapped;
  std::size_t size;

  explicit FreeBlock(void* at = nullptr, std::size_t bytes = 0) : mapped(at), size(bytes) {}
  void operator()(std::byte* p) const {
    if (mapped)
      ::munmap(mapped, size);
    else
      ::operator delete(p, std::align_val_t{alignment});
  }
};

}  // namespace detail

/// One aligned, zeroed block of memory with a single owner. Types compute offsets into it.
///
/// A large block comes from the system as zero pages, which it fills in when they are first touched
/// (by the thread that touches them), and in large pages where the system has them: reading weights
/// in order then costs no look-ups of addresses.
class Arena {
 public:
  Arena() = default;
  explicit Arena(std::int64_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    const auto size = static_cast<std::size_t>(bytes);
    if (bytes >= large) {
      map(size);
      return;
    }
    data_.reset(static_cast<std::byte*>(::operator new(size, std::align_val_t{alignment})));
    std::memset(data_.get(), 0, size);
  }

  /// Takes over `bytes` bytes from `first` on, of a block that the system mapped.
  Arena(void* mapped, std::size_t size, std::byte* first, std::int64_t bytes)
      : data_(first, detail::FreeBlock(mapped, size)), bytes_(bytes) {}

  /// Not null where there is nothing: std::memcpy and std::memset take no null for 0 bytes either.
  std::byte* data() const { return data_ ? data_.get() : nothing; }
  std::int64_t bytes() const { return bytes_; }

 private:
  static constexpr std::int64_t large = std::int64_t{4} << 20;
  static constexpr std::size_t huge_page = std::size_t{2} << 20;

  /// Takes a block from the system, from the beginning of a large page on.
  [[gnu::cold, gnu::noinline]] void map(std::size_t size) {
    void* const mapped = ::mmap(nullptr, size + huge_page, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    const std::size_t skip = -reinterpret_cast<std::uintptr_t>(mapped) % huge_page;
    data_ = {static_cast<std::byte*>(mapped) + skip, detail::FreeBlock(mapped, size + huge_page)};
#ifdef MADV_HUGEPAGE
    ::madvise(data_.get(), size, MADV_HUGEPAGE);  // a wish
#endif
  }

  alignas(alignment) static inline std::byte nothing[1] = {};

  std::unique_ptr<std::byte, detail::FreeBlock> data_;
  std::int64_t bytes_ = 0;
};

/// Hands out consecutive aligned places of a block. With a null block it only counts.
struct Placer {
  std::byte* block = nullptr;
  std::int64_t offset = 0;

  [[gnu::noinline]] std::byte* take(std::int64_t bytes) {
    std::byte* place = block ? block + offset : nullptr;
    offset += (bytes + alignment - 1) / alignment * alignment;
    return place;
  }
};

}  // namespace samba::inline SAMBA_TARGET
