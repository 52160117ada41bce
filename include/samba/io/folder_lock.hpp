#pragma once
#include <samba/io/folder.hpp>

#include <sys/file.h>

#include <cerrno>
#include <string>
#include <string_view>

namespace samba::inline SAMBA_TARGET {

/// Exclusive write access to a folder: holds a lock on the file `lock` in it. Creates both if they
/// do not exist. The system releases the lock when the object is destroyed or the process ends in
/// any way (and with it any processes forked meanwhile). On file systems without locks the folder
/// is not protected. Move-only.
class FolderLock {
 public:
  FolderLock() = default;
  /// Throws if the folder is already locked, naming the process that holds the lock.
  [[gnu::cold]] explicit FolderLock(const std::string& folder) {
    make_folders(folder);
    const std::string path = folder + "/lock";
    // Not a link: its target would be overwritten.
    file_ = FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666));
    if (file_.get() < 0) fail_errno(path, "cannot open for writing");
    if (::flock(file_.get(), LOCK_EX | LOCK_NB) == 0) {
      const std::string process = std::to_string(::getpid()) + "\n";
      // Only for the message below: the lock is held whether or not this is written.
      [[maybe_unused]] const bool written =
          ::ftruncate(file_.get(), 0) == 0 &&
          ::pwrite(file_.get(), process.data(), process.size(), 0) > 0;
    } else if (errno == EWOULDBLOCK) {
      char process[24] = {};
      if (::pread(file_.get(), process, sizeof process - 1, 0) <= 0) process[0] = '\n';
      std::string_view number = process;
      number = number.substr(0, number.find('\n'));
      fail({folder, ": another training run writes to this folder",
            number.empty() ? "" : ", process ", number,
            "; choose another folder, or wait until it has ended"});
    } else if (errno != ENOTSUP && errno != ENOLCK && errno != EINVAL && errno != ENOSYS) {
      fail_errno(path, "cannot lock");
    }
  }

 private:
  FileDescriptor file_;
};

}  // namespace samba::inline SAMBA_TARGET
