#pragma once
/// \file
/// Files of the operating system (POSIX): a read-only memory map, and what else readers and writers
/// share. Every error gives the path and the system's reason.
#include <samba/core/arena.hpp>
#include <samba/core/error.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <system_error>
#include <utility>

namespace samba::inline SAMBA_TARGET {

/// Throws "<path>: <what>: <text of errno>".
[[noreturn, gnu::cold, gnu::noinline]] inline void fail_errno(const std::string& path,
                                                              const char* what) {
  const int code = errno;  // before anything can change it
  fail({path, ": ", what, ": ", std::generic_category().message(code)});
}

/// True for a directory or a link to one.
[[gnu::cold, gnu::noinline]] inline bool is_directory(const std::string& path) {
  struct ::stat status{};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

/// True if there is anything at this path, following links.
[[gnu::cold, gnu::noinline]] inline bool path_exists(const std::string& path) {
  struct ::stat status{};
  return ::stat(path.c_str(), &status) == 0;
}

/// An open file, closed by the destructor. Move-only.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int number) : number_(number) {}
  FileDescriptor(FileDescriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~FileDescriptor() {
    if (number_ >= 0) ::close(number_);
  }

  int get() const { return number_; }

  /// Closes now; returns false, with errno, on an error (such as a write that failed late). EINTR
  /// does not count: the file is closed anyway.
  bool close() { return ::close(std::exchange(number_, -1)) == 0 || errno == EINTR; }

 private:
  int number_ = -1;
};

/// Waits until what was written to a file, or the names in a folder, are on the disk. Returns
/// false, with errno, if that fails. Files that do not support it (pipes, devices, some network and
/// user-space file systems) do not count as failures.
[[gnu::cold]] inline bool sync_to_disk(int file) {
  while (::fsync(file) != 0)
    if (errno != EINTR)
      return errno == EINVAL || errno == ENOTSUP || errno == ENOSYS || errno == EROFS;
  return true;
}

/// The bytes of a regular file, mapped into memory for reading: pages are read when first touched.
/// Move-only; moving the object does not move the bytes. The file must not shrink meanwhile: reads
/// past its new end raise SIGBUS.
class MappedFile {
 public:
  /// Throws Error if the path is missing, unreadable or not a regular file. An empty file has no
  /// bytes.
  [[gnu::cold]] explicit MappedFile(std::string path) : path_(std::move(path)) {
    // O_NONBLOCK: opening a pipe by mistake fails below instead of blocking.
    const FileDescriptor file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (file.get() < 0) fail_errno(path_, "cannot open for reading");
    struct ::stat status{};
    if (::fstat(file.get(), &status) != 0) fail_errno(path_, "cannot read its size");
    if (S_ISDIR(status.st_mode)) fail({path_, ": expected a file, found a directory"});
    if (!S_ISREG(status.st_mode))
      fail({path_, ": expected a regular file, found a device or pipe"});
    size_ = static_cast<std::size_t>(status.st_size);
    if (size_ == 0) return;
    void* const address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (address == MAP_FAILED) fail_errno(path_, "cannot map into memory");
    data_ = static_cast<std::byte*>(address);
  }
  MappedFile(MappedFile&& other) noexcept
      : path_(std::move(other.path_)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~MappedFile() {
    if (data_) ::munmap(data_, size_);
  }

  /// Hands the map over to an arena of `bytes` bytes starting at `offset`. Writes stay in memory
  /// and do not change the file.
  Arena to_arena(std::ptrdiff_t offset, std::int64_t bytes) && {
    if (::mprotect(data_, size_, PROT_READ | PROT_WRITE) != 0) fail_errno(path_, "cannot map");
    std::byte* const map = std::exchange(data_, nullptr);
    return Arena(map, size_, map + offset, bytes);
  }

  /// Gives back the memory of the pages with any of these bytes, as far as they are in this file. They
  /// are read from the file again when they are next touched, by whatever thread: only time is lost.
  [[gnu::cold]] void drop(std::span<const std::byte> part) const {
    const auto address = [](const std::byte* p) { return reinterpret_cast<std::uintptr_t>(p); };
    const std::uintptr_t map = address(data_);
    const std::uintptr_t begin = (std::max)(address(part.data()), map),
                         end = (std::min)(address(part.data()) + part.size(), map + size_);
    if (begin >= end) return;
    const std::uintptr_t page =
        (begin - map) % static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    ::madvise(data_ + (begin - map - page), end - begin + page, MADV_DONTNEED);  // or they stay
  }

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace samba::inline SAMBA_TARGET
