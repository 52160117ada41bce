#pragma once
#include <samba/io/folder.hpp>

#include <sys/file.h>

#include <cerrno>
#include <string>
#include <string_view>

namespace samba::inline SAMBA_TARGET {

/// A folder that is written to by its owner alone: holds a lock on the file `lock` in it, which it
/// makes, and the folder too. The system releases the lock when the object or the process ends, in
/// whatever way (and with it the processes that it forked meanwhile). Where the file system has no
/// locks the folder is not guarded. Move-only.
class FolderLock {
 public:
  FolderLock() = default;
  /// Throws if another lock on the folder lives, in this process or another, which it names.
  [[gnu::cold]] explicit FolderLock(const std::string& folder) {
    make_folders(folder);
    const std::string path = folder + "/lock";
    // A link is none of ours: what it leads to would be written over.
    file_ = FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666));
    if (file_.get() < 0) fail_errno(path, "cannot open for writing");
    if (::flock(file_.get(), LOCK_EX | LOCK_NB) == 0) {
      const std::string process = std::to_string(::getpid()) + "\n";
      // For the message below only: the lock is held whether or not this is written.
      [[maybe_unused]] const bool written =
          ::ftruncate(file_.get(), 0) == 0 &&
          ::pwrite(file_.get(), process.data(), process.size(), 0) > 0;
    } else if (errno == EWOULDBLOCK) {
      char process[24] = {};
      if (::pread(file_.get(), process, sizeof process - 1, 0) <= 0) process[0] = '\n';
      std::string_view number = process;
      number = number.substr(0, number.find('\n'));
      fail({folder, ": another training writes to this folder", number.empty() ? "" : ", process ",
            number, "; give another folder, or wait until it has ended"});
    } else if (errno != ENOTSUP && errno != ENOLCK && errno != EINVAL && errno != ENOSYS) {
      fail_errno(path, "cannot lock");
    }
  }

 private:
  FileDescriptor file_;
};

}  // namespace samba::inline SAMBA_TARGET
