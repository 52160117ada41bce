#pragma once
#include <samba/io/mapped_file.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <utility>

namespace samba::inline SAMBA_TARGET {

/// Writes a file that is there whole or not at all. Until finish() returns the bytes are in
/// `<path>.tmp-<process>` beside the target; whatever was at `path` stays as it is, and a writer
/// that is destroyed early, or meets an error, removes what it wrote. Errors are Error and name the
/// path; after one, as after finish(), every call is an error.
class FileWriter {
 public:
  explicit FileWriter(std::string path) : path_(std::move(path)) {
    if (is_directory(path_))
      fail({path_, ": expected the name of a file to write, found a directory"});
    // A number is added where the name is taken: by another writer of this process, or by one that
    // was killed in an earlier process of the same number.
    for (int attempt = 0; file_.get() < 0 && attempt < 100; ++attempt) {
      temporary_ = detail::join({path_, ".tmp-", ::getpid()});
      if (attempt > 0) temporary_ += detail::join({"-", attempt});
      file_ =
          FileDescriptor(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
      if (file_.get() < 0 && errno != EEXIST) break;
    }
    if (file_.get() < 0) fail_errno(temporary_, "cannot create");
  }
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  ~FileWriter() {
    if (file_.get() >= 0) ::unlink(temporary_.c_str());
  }

  /// Throws where nothing more can be written.
  void check_open() const {
    if (file_.get() < 0) fail({path_, ": this writer is finished, or met an error before"});
  }

  /// Appends bytes.
  void write(std::span<const std::byte> bytes) {
    check_open();
    while (!bytes.empty()) {
      const ::ssize_t count = ::write(file_.get(), bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) give_up(temporary_, "cannot write");
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
  }

  /// The next bytes go over those from `offset` on.
  void seek(std::int64_t offset) {
    check_open();
    if (::lseek(file_.get(), offset, SEEK_SET) < 0) give_up(temporary_, "cannot move back");
  }

  /// Waits until all is on the disk, and puts the file in place of what was at `path`.
  void finish() {
    check_open();
    if (::fsync(file_.get()) != 0 || !file_.close()) give_up(temporary_, "cannot write");
    if (std::rename(temporary_.c_str(), path_.c_str()) != 0) give_up(path_, "cannot replace");
  }

  const std::string& path() const { return path_; }

 private:
  [[noreturn]] void give_up(const std::string& path, const char* what) {
    const int code = errno;
    ::unlink(temporary_.c_str());
    file_ = FileDescriptor();
    errno = code;
    fail_errno(path, what);
  }

  std::string path_, temporary_;
  FileDescriptor file_;
};

}  // namespace samba::inline SAMBA_TARGET
