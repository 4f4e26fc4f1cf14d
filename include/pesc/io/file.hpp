// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"

namespace pesc {
namespace detail {

/// \brief Closes a file descriptor at the end of its life.
class descriptor {
 public:
  descriptor() = default;
  explicit descriptor(int number) : number_{number} {}
  descriptor(descriptor&& other) noexcept : number_{std::exchange(other.number_, -1)} {}
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~descriptor() { close(); }

  [[nodiscard]] int get() const { return number_; }
  [[nodiscard]] explicit operator bool() const { return number_ >= 0; }

  /// \brief False when the system could not keep what was written.
  bool close() {
    const int number = std::exchange(number_, -1);
    return number < 0 || ::close(number) == 0;
  }

 private:
  int number_ = -1;
};

inline std::string system_reason(int code) { return std::strerror(code); }

/// \brief Opens a regular file for reading and tells its size, both from one descriptor.
inline std::pair<descriptor, index_t> open_to_read(const std::string& path) {
  descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!file) {
    const int code = errno;
    if (code == ENOENT) raise<io_error>(path + ": there is no such file");
    if (code == EACCES) raise<io_error>(path + ": no permission to read this file");
    raise<io_error>(path + ": cannot be opened: " + system_reason(code));
  }
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) raise<io_error>(path + ": cannot be read: " + system_reason(errno));
  if (S_ISDIR(status.st_mode)) raise<io_error>(path + ": this is a folder, expected a file");
  if (!S_ISREG(status.st_mode)) raise<io_error>(path + ": this is not a regular file");
  return {std::move(file), static_cast<index_t>(status.st_size)};
}

/// \brief Fills `out` from the current position; a signal in between does not end it.
inline void read_exactly(int file, std::span<std::byte> out, const std::string& path) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t count = ::read(file, out.data() + done, std::min(out.size() - done, std::size_t{1} << 30));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) raise<io_error>(path + ": cannot be read: " + system_reason(errno));
    if (count == 0)
      raise<io_error>(concat(path, ": the file ended at byte ", done, ", expected ", out.size(),
                             " bytes. It was cut while it was read."));
    done += static_cast<std::size_t>(count);
  }
}

/// \brief Fills `out` from byte `position` on.
inline void read_exactly_at(int file, index_t position, std::span<std::byte> out, const std::string& path) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t count = ::pread(file, out.data() + done, std::min(out.size() - done, std::size_t{1} << 30),
                                  static_cast<off_t>(position) + static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) raise<io_error>(path + ": cannot be read: " + system_reason(errno));
    if (count == 0)
      raise<io_error>(concat(path, ": the file ended at byte ", position + static_cast<index_t>(done),
                             ", expected ", out.size() - done, " more. It was cut after it was opened."));
    done += static_cast<std::size_t>(count);
  }
}

/// \brief Whether a file begins with these bytes; false for one that is shorter.
inline bool begins_with(const std::string& path, std::string_view mark) {
  const auto [file, size] = open_to_read(path);
  if (size < static_cast<index_t>(mark.size())) return false;
  std::string start(mark.size(), '\0');
  read_exactly(file.get(), std::as_writable_bytes(std::span{start}), path);
  return start == mark;
}

inline std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace detail

/// \brief The bytes of a file; its size is checked before memory is taken.
/// \param max_bytes  a larger file is refused
/// \throws io_error, format_error when the file is larger than `max_bytes`
[[nodiscard]] inline std::vector<std::byte> read_file(
    const std::string& path, index_t max_bytes = std::numeric_limits<index_t>::max()) {
  const auto [file, size] = detail::open_to_read(path);
  if (size > max_bytes)
    detail::raise<format_error>(detail::concat(path, ": the file has ", size, " bytes, at most ", max_bytes,
                                               " are read from a file of this kind"));
  std::vector<std::byte> bytes(static_cast<std::size_t>(size));
  detail::read_exactly(file.get(), bytes, path);
  return bytes;
}

/// \brief A new file that appears under its name only when it is complete.
///
/// The bytes go to a file beside it with a name of its own; `commit` makes them durable and renames. Without a
/// commit (an error, the end of the program) the old file stays as it was.
class atomic_file {
 public:
  /// \throws io_error
  explicit atomic_file(std::string path) : path_{std::move(path)} {
    static std::atomic<unsigned> counter{0};
    int code = EEXIST;
    while (!file_ && code == EEXIST) {
      temporary_ =
          detail::concat(path_, ".", static_cast<long>(::getpid()), "-", counter.fetch_add(1u), ".tmp");
      file_ = detail::descriptor{::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)};
      code = errno;
    }
    if (file_) return;
    temporary_.clear();
    if (code == ENOENT)
      detail::raise<io_error>(path_ + ": cannot be written: there is no folder " + detail::folder_of(path_));
    detail::raise<io_error>(path_ + ": cannot be written: " + detail::system_reason(code));
  }

  atomic_file(const atomic_file&) = delete;
  atomic_file& operator=(const atomic_file&) = delete;
  ~atomic_file() {
    file_.close();
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  /// \throws io_error when the disk is full or a limit is reached; the object can then only be destroyed
  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::write(file_.get(), bytes.data(), std::min(bytes.size(), std::size_t{1} << 30));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) fail(count < 0 ? errno : ENOSPC, bytes.size());
      written_ += count;
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
  }
  void write(std::string_view text) { write(std::as_bytes(std::span{text.data(), text.size()})); }

  [[nodiscard]] index_t bytes_written() const { return written_; }

  /// \brief Puts the file in its place, replacing an older one.
  /// \throws io_error
  void commit() {
    if (::fsync(file_.get()) != 0) fail(errno, 0);
    if (!file_.close()) fail(errno, 0);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0)
      detail::raise<io_error>(path_ + ": cannot be replaced: " + detail::system_reason(errno));
    temporary_.clear();
    // The new name is durable only when the folder is; some file systems cannot sync a folder.
    const detail::descriptor folder{::open(detail::folder_of(path_).c_str(), O_RDONLY | O_CLOEXEC)};
    if (folder) ::fsync(folder.get());
  }

 private:
  [[noreturn]] void fail(int code, std::size_t left) const {
    detail::raise<io_error>(detail::concat(path_, ": cannot be written: ", detail::system_reason(code),
                                           " after ", written_, " bytes", left > 0 ? ", " : "",
                                           left > 0 ? detail::concat(left, " more to write") : std::string{},
                                           ". An older file of this name is unchanged."));
  }

  std::string path_;
  std::string temporary_;
  detail::descriptor file_;
  index_t written_ = 0;
};

/// \brief Writes a whole file as `atomic_file` does.
/// \throws io_error
inline void write_file(const std::string& path, std::span<const std::byte> bytes) {
  atomic_file file{path};
  file.write(bytes);
  file.commit();
}
inline void write_file(const std::string& path, std::string_view text) {
  write_file(path, std::as_bytes(std::span{text.data(), text.size()}));
}

}  // namespace pesc
