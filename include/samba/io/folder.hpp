#pragma once
/// \file
/// Folders of the operating system (POSIX). Every Error names the path and what the system said.
#include <samba/io/mapped_file.hpp>

#include <dirent.h>

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace samba::inline SAMBA_TARGET {

/// The names of what is in a folder, in no order; none where there is no such folder.
[[gnu::cold]] inline std::vector<std::string> names_in_folder(const std::string& path) {
  std::vector<std::string> names;
  const auto close = [](DIR* folder) { ::closedir(folder); };
  const std::unique_ptr<DIR, decltype(close)> folder(::opendir(path.c_str()));
  if (!folder && errno != ENOENT) fail_errno(path, "cannot read the folder");
  while (const ::dirent* const entry = folder ? ::readdir(folder.get()) : nullptr)
    if (const std::string_view name = entry->d_name; name != "." && name != "..")
      names.emplace_back(name);
  return names;
}

/// Makes a folder and those above it, where they are not there.
[[gnu::cold]] inline void make_folders(const std::string& path) {
  for (std::size_t end = 0; end != path.npos;) {
    end = path.find('/', end + 1);
    const std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), 0777) != 0 && !is_directory(part))
      fail_errno(part, "cannot make the folder");
  }
}

/// Removes a folder and the files in it; a folder in it is an Error.
[[gnu::cold]] inline void remove_folder(const std::string& path) {
  for (const std::string& name : names_in_folder(path))
    if (const std::string file = detail::join({path, "/", name}); ::unlink(file.c_str()) != 0)
      fail_errno(file, "cannot remove");
  if (::rmdir(path.c_str()) != 0) fail_errno(path, "cannot remove");
}

[[gnu::cold]] inline void rename_folder(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) fail_errno(to, "cannot rename to this");
}

/// Waits until the names in a folder are on the disk.
[[gnu::cold]] inline void sync_folder(const std::string& path) {
  const FileDescriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0 || ::fsync(folder.get()) != 0) fail_errno(path, "cannot write");
}

/// True if both paths lead to the same file or folder.
[[gnu::cold]] inline bool same_file(const std::string& a, const std::string& b) {
  struct ::stat first{}, second{};
  return ::stat(a.c_str(), &first) == 0 && ::stat(b.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

}  // namespace samba::inline SAMBA_TARGET
