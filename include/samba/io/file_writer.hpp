#pragma once
#include <samba/io/mapped_file.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// True for paths of open files of processes, such as what /dev/stdout links to. A link there is
/// the file itself, whatever its text.
inline bool is_open_file(std::string_view path) {
  return path.starts_with("/proc/") || path.starts_with("/dev/fd/");
}

/// The file descriptor of this process that a path names, or -1.
template <int = 0>
[[gnu::cold]] int open_number(std::string_view path) {
  for (const std::string_view folder : {"/proc/self/fd/", "/dev/fd/"}) {
    if (!path.starts_with(folder)) continue;
    int number = -1;
    const char* const all = path.data() + path.size();
    const auto [end, code] = std::from_chars(path.data() + folder.size(), all, number);
    if (code == std::errc{} && end == all) return number;
  }
  return -1;
}

/// The target of a path after following links, even if nothing exists there yet.
template <int = 0>
[[gnu::cold]] std::string follow_links(std::string path) {
  char text[4096];
  for (int links = 0; links < 40 && !is_open_file(path); ++links) {  // the limit of Linux
    const ::ssize_t n = ::readlink(path.c_str(), text, sizeof text);
    if (n <= 0 || n == sizeof text) break;
    const std::string_view place(text, static_cast<std::size_t>(n));
    path.resize(place.starts_with('/') ? 0 : path.rfind('/') + 1);
    path += place;
  }
  return path;
}

}  // namespace detail

/// Writes a file atomically: it appears complete, or not at all.
///
/// Until finish() returns, the bytes are in `<path>.tmp-<process>` (shortened for names near the
/// limit) and whatever is at `path` is unchanged. A writer that is destroyed early or fails removes
/// what it wrote; a program that is killed leaves it. finish() waits until the bytes are on the
/// disk, renames the file, and waits for that, too; it does not fail on file systems that cannot
/// wait. (If only the last step fails, the Error says that the new file is there.) For a link, the
/// file that it points to is replaced. A replaced file passes on its mode and, where the system
/// allows it, its owner; its other hard links keep the old bytes. A file without write permission
/// is an error. A new file gets the default mode.
///
/// Anything at `path` other than a regular file (a device, a pipe) is written to directly. So is a
/// file that is already open, such as /dev/stdout: it is not truncated, and a file opened for
/// appending is appended to.
///
/// Errors are Error and name the path. After one, as after finish(), every call is an error.
/// (A template only so that programs that do not use it need not compile it.)
template <class = void>
class BasicFileWriter {
 public:
  [[gnu::cold]] explicit BasicFileWriter(std::string path) : path_(std::move(path)) {
    if (path_.empty()) fail({"FileWriter: expected the path of a file to write, found none"});
    const std::string place = detail::follow_links(path_);
    struct ::stat old{};
    const bool exists = ::stat(place.c_str(), &old) == 0;
    if (!exists && errno != ENOENT) fail_errno(path_, "cannot create");
    if (exists && S_ISDIR(old.st_mode))
      fail({path_, ": expected the name of a file to write, found a directory"});
    if (detail::is_open_file(place) || (exists && !S_ISREG(old.st_mode))) {
      shared_ = exists && S_ISREG(old.st_mode);
      open_in_place(place);
      if (file_.get() < 0) fail_errno(path_, "cannot open for writing");
      return;
    }
    const std::size_t slash = place.rfind('/') + 1;
    name_ = place.substr(slash);
    open_folder(slash == 0 ? "." : place.substr(0, slash));
    if (exists && ::faccessat(folder_.get(), name_.c_str(), W_OK, AT_EACCESS) != 0)
      fail_errno(path_, "cannot write");
    create(exists ? old.st_mode & 0777 : 0666);
    if (exists) {
      // The owner before the mode, because changing the owner clears bits of it. The set-id bits
      // are kept only if the owner is.
      const bool owned = ::fchown(file_.get(), old.st_uid, old.st_gid) == 0;
      // If the file system has no modes, the new file's is no wider than the old one's.
      static_cast<void>(::fchmod(file_.get(), old.st_mode & (owned ? 07777 : 0777)));
    }
  }
  BasicFileWriter(const BasicFileWriter&) = delete;
  BasicFileWriter& operator=(const BasicFileWriter&) = delete;
  ~BasicFileWriter() { remove(); }

  /// Throws if nothing more can be written.
  void check_open() const {
    if (file_.get() < 0) fail({path_, ": this writer is finished or has failed"});
  }

  /// Appends bytes.
  void write(std::span<const std::byte> bytes) {
    check_open();
    while (!bytes.empty()) {
      const ::ssize_t count = ::write(file_.get(), bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) give_up("cannot write");
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
  }

  /// The next write overwrites the bytes starting at `offset`. An error for a pipe, and for a file
  /// that was already open, which may belong to someone else.
  void seek(std::int64_t offset) {
    check_open();
    errno = ESPIPE;
    if (shared_ || ::lseek(file_.get(), offset, SEEK_SET) < 0) give_up("cannot move back");
  }

  /// Waits until everything is on the disk, and replaces what was at `path`.
  [[gnu::cold]] void finish() {
    check_open();
    if (!sync_to_disk(file_.get()) || !file_.close()) give_up("cannot write");
    if (temporary_.empty()) return;
    if (::renameat(folder_.get(), temporary_.c_str(), folder_.get(), name_.c_str()) != 0)
      give_up("cannot replace");
    temporary_.clear();
    if (!sync_to_disk(folder_.get()) && errno != EBADF)  // EBADF: opened with O_PATH
      fail_errno(path_, "written, but its name may not be on the disk yet");
  }

  const std::string& path() const { return path_; }

 private:
  void open_folder(const std::string& folder) {
    constexpr int flags = O_DIRECTORY | O_CLOEXEC;
    folder_ = FileDescriptor(::open(folder.c_str(), O_RDONLY | flags));
#ifdef O_PATH
    if (folder_.get() < 0 && errno == EACCES)  // perhaps writable but not readable
      folder_ = FileDescriptor(::open(folder.c_str(), O_PATH | flags));
#endif
    if (folder_.get() < 0) fail_errno(path_, "cannot create");
  }

  /// Opens a file that is written to directly. On failure file_ is empty, and errno says why.
  void open_in_place(const std::string& place) {
    if (const int number = detail::open_number(place); number >= 0) {
      const int flags = ::fcntl(number, F_GETFL);
      if (flags >= 0 && (flags & O_ACCMODE) != O_RDONLY)
        file_ = FileDescriptor(::fcntl(number, F_DUPFD_CLOEXEC, 0));
      else
        errno = EBADF;
      return;
    }
    const int flags = O_WRONLY | (shared_ ? O_APPEND : 0) | O_CLOEXEC | O_NOCTTY;
    do {
      file_ = FileDescriptor(::open(place.c_str(), flags));
    } while (file_.get() < 0 && errno == EINTR);  // while a pipe waits for its reader
  }

  void create(::mode_t mode) {
    const long found = ::fpathconf(folder_.get(), _PC_NAME_MAX);
    const std::size_t longest = found > 0 ? static_cast<std::size_t>(found) : 255;
    // Adds a number if the name is taken, by another writer of this process or by a killed process
    // that had the same id.
    for (int attempt = 0; attempt < 100; ++attempt) {
      std::string ending = detail::join({".tmp-", ::getpid()});
      if (attempt > 0) detail::append(ending, {"-", attempt});
      const std::string temporary = name_.substr(0, longest - ending.size()) + ending;
      file_ = FileDescriptor(::openat(folder_.get(), temporary.c_str(),
                                      O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
      if (file_.get() >= 0) temporary_ = temporary;
      if (file_.get() >= 0 || errno != EEXIST) break;
    }
    if (file_.get() < 0) fail_errno(path_, "cannot create");
  }

  void remove() {
    if (!temporary_.empty()) ::unlinkat(folder_.get(), temporary_.c_str(), 0);
    temporary_.clear();
  }

  [[noreturn, gnu::cold]] void give_up(const char* what) {
    const int code = errno;
    remove();
    file_ = FileDescriptor();
    errno = code;
    fail_errno(path_, what);
  }

  // The file is `temporary_` in the folder until it is finished, then `name_`; both are "" if it is
  // written to directly. Relative to the open folder, because the process may change its working
  // directory meanwhile.
  std::string path_, name_, temporary_;
  FileDescriptor folder_, file_;
  bool shared_ = false;  // a regular file that is written to directly, because it is open elsewhere
};

using FileWriter = BasicFileWriter<>;

}  // namespace samba::inline SAMBA_TARGET
