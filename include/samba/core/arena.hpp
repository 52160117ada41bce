#pragma once
#include <samba/core/config.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace samba::inline SAMBA_TARGET {

/// One aligned, zeroed block of memory with a single owner. Types compute offsets into it.
class Arena {
 public:
  Arena() = default;
  explicit Arena(std::int64_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    const auto size = static_cast<std::size_t>(bytes);
    data_.reset(static_cast<std::byte*>(::operator new(size, std::align_val_t{alignment})));
    std::memset(data_.get(), 0, size);
  }

  std::byte* data() const { return data_.get(); }
  std::int64_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{alignment}); }
  };
  std::unique_ptr<std::byte, Free> data_;
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
