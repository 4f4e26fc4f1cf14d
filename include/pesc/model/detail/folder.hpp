// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pesc/io/file.hpp"
#include "pesc/io/hf_directory.hpp"

namespace pesc::detail {

/// \brief Names in a folder, sorted; none where it cannot be read.
inline std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> out;
  folder_names list(folder);
  while (const char* next = list.next()) {
    const std::string_view name = next;
    if (name != "." && name != "..") out.emplace_back(name);
  }
  std::sort(out.begin(), out.end());
  return out;
}

/// \brief Makes a folder and those above it.
inline void make_folders(const std::string& path) {
  for (std::size_t at = 1; at <= path.size(); ++at) {
    if (at != path.size() && path[at] != '/') continue;
    const std::string part = path.substr(0, at);
    if (::mkdir(part.c_str(), 0777) == 0 || is_folder(part)) continue;
    const int code = errno;
    if (code == EEXIST) raise<io_error>(part + ": this is a file, expected a folder");
    raise<io_error>(concat(part, ": this folder cannot be made: ", system_reason(code)));
  }
}

/// \brief Makes the names in a folder durable; some file systems cannot, which is no error.
inline void sync_folder(const std::string& path) {
  const descriptor folder{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (folder) ::fsync(folder.get());
}

/// \brief Removes a folder of files; what says that it is complete goes first.
inline void remove_folder(const std::string& path, const char* first) {
  ::unlink((path + "/" + first).c_str());
  for (const std::string& name : names_in(path)) ::unlink((path + "/" + name).c_str());
  ::rmdir(path.c_str());
}

/// \brief Renames in one step, replacing a file of the new name.
inline void rename_path(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0)
    raise<io_error>(concat(to, ": cannot be put in place: ", system_reason(errno)));
}

/// \brief Copies a file piece by piece; it appears under its name when it is whole.
inline void copy_file(const std::string& from, const std::string& to) {
  const auto [file, size] = open_to_read(from);
  atomic_file out{to};
  std::vector<std::byte> piece(static_cast<std::size_t>(std::min<index_t>(size, 1 << 20)));
  for (index_t done = 0; done < size;) {
    const auto count = static_cast<std::size_t>(std::min<index_t>(size - done, 1 << 20));
    read_exactly(file.get(), std::span{piece}.first(count), from);
    out.write(std::span<const std::byte>{piece}.first(count));
    done += static_cast<index_t>(count);
  }
  out.commit();
}

/// \brief A second name for the same bytes, or a copy where the file system has no such thing.
///
/// Small files are copied: people edit them in place, and that must not change the other one.
inline void link_or_copy(const std::string& from, const std::string& to) {
  struct stat status {};
  const bool large = ::stat(from.c_str(), &status) == 0 && status.st_size > (1 << 16);
  if (!large || ::link(from.c_str(), to.c_str()) != 0) copy_file(from, to);
}

/// \brief Whether the process whose number ends `name` before `suffix` ("x.123.partial") is gone.
inline bool left_behind(std::string_view name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return false;
  name.remove_suffix(suffix.size());
  const std::size_t dot = name.rfind('.');
  if (dot == name.npos) return false;
  int process = 0;
  const auto [end, code] = std::from_chars(name.data() + dot + 1, name.data() + name.size(), process);
  if (code != std::errc{} || end != name.data() + name.size() || process <= 0) return false;
  return process != ::getpid() && ::kill(process, 0) != 0 && errno == ESRCH;
}

}  // namespace pesc::detail
