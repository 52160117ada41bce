#pragma once
/// \file
/// Folders of the operating system (POSIX). Every Error gives the path and the system's reason.
#include <samba/core/callback.hpp>
#include <samba/io/mapped_file.hpp>

#include <dirent.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace samba::inline SAMBA_TARGET {

namespace detail {

struct CloseFolder {
  void operator()(DIR* folder) const { ::closedir(folder); }
};
using OpenFolder = std::unique_ptr<DIR, CloseFolder>;

/// Appends the names of the entries of a folder. Returns false, with errno, if they cannot all be
/// read.
[[gnu::cold]] inline bool read_names(DIR* folder, std::vector<std::string>& names) {
  for (errno = 0; const ::dirent* const entry = ::readdir(folder); errno = 0)
    if (const std::string_view name = entry->d_name; name != "." && name != "..")
      names.emplace_back(name);
  return errno == 0;
}

}  // namespace detail

/// The names of the entries of a folder, in no particular order; none if there is no such folder.
[[gnu::cold]] inline std::vector<std::string> names_in_folder(const std::string& path) {
  const detail::OpenFolder folder(::opendir(path.c_str()));
  std::vector<std::string> names;
  if (folder ? !detail::read_names(folder.get(), names) : errno != ENOENT)
    fail_errno(path, "cannot read the folder");
  return names;
}

/// Creates a folder and its parents, unless they exist.
[[gnu::cold]] inline void make_folders(const std::string& path) {
  for (std::size_t end = 0; end != path.npos;) {
    end = path.find('/', end + 1);
    const std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), 0777) == 0) continue;
    const int code = errno;  // before is_directory, which may change it
    if (is_directory(part)) continue;
    errno = code;
    fail_errno(part, "cannot create the folder");
  }
}

/// Removes a folder with everything in it except folders, or whatever else is at this path. Links
/// are removed, never followed. If something cannot be removed, it stays, and stays(path, why) is
/// called.
[[gnu::cold]] inline void remove_folder(const std::string& path,
                                        Callback<const std::string&, int> stays) {
  const int file = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  const detail::OpenFolder folder(file < 0 ? nullptr : ::fdopendir(file));
  std::vector<std::string> names;
  bool emptied = !folder || detail::read_names(folder.get(), names);
  if (!emptied) stays(path, errno);
  for (const std::string& name : names)
    // In the folder that was opened, whatever has its name by now.
    if (::unlinkat(file, name.c_str(), 0) != 0) {
      emptied = false;
      stays(detail::join({path, "/", name}), errno);
    }
  if (emptied && std::remove(path.c_str()) != 0 && errno != ENOENT) stays(path, errno);
}

[[gnu::cold]] inline void rename_folder(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) fail_errno(to, "cannot rename to this");
}

/// Waits until the names in a folder are on the disk.
[[gnu::cold]] inline void sync_folder(const std::string& path) {
  const FileDescriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0 || !sync_to_disk(folder.get())) fail_errno(path, "cannot write");
}

/// True if both paths lead to the same file or folder.
[[gnu::cold]] inline bool same_file(const std::string& a, const std::string& b) {
  struct ::stat first{}, second{};
  return ::stat(a.c_str(), &first) == 0 && ::stat(b.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

}  // namespace samba::inline SAMBA_TARGET
