// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"

namespace pesc {

/// \brief Reads a text file line by line in bounded memory, whatever the file holds.
///
/// Line ends are LF or CRLF; a byte order mark at the start is dropped.
class line_reader {
 public:
  /// \brief A longer line is not data but a file of another kind.
  static constexpr std::size_t max_line = std::size_t{16} << 20;

  /// \throws io_error when the file cannot be opened
  explicit line_reader(std::string path) : path_{std::move(path)}, chunk_(std::size_t{1} << 16) {
    file_ = std::fopen(path_.c_str(), "rb");
    if (file_ == nullptr)
      detail::raise<io_error>(detail::concat(path_, ": cannot be read (", std::strerror(errno), ")"));
  }
  ~line_reader() { std::fclose(file_); }
  line_reader(const line_reader&) = delete;
  line_reader& operator=(const line_reader&) = delete;

  /// \brief Moves to the next line; false at the end of the file.
  /// \throws io_error when the system cannot read on
  bool next() {
    if (ended_ && begin_ == end_) return false;
    line_.clear();
    length_ = 0;
    while (begin_ != end_ || fill()) {
      const char* first = chunk_.data() + begin_;
      const void* stop = std::memchr(first, '\n', end_ - begin_);
      const std::size_t count =
          stop != nullptr ? static_cast<std::size_t>(static_cast<const char*>(stop) - first) : end_ - begin_;
      // Past the limit the bytes are counted only, so that a huge line costs no memory.
      if (length_ <= max_line) line_.append(first, std::min(count, max_line + 1 - line_.size()));
      length_ += count;
      begin_ += count;
      if (stop != nullptr) {
        ++begin_;
        return finish_line();
      }
    }
    return length_ != 0 && finish_line();
  }

  /// \brief The current line without its end; only its beginning when `too_long()`.
  [[nodiscard]] const std::string& line() const { return line_; }

  /// \brief Number of the current line, from 1.
  [[nodiscard]] index_t number() const { return number_; }

  /// \brief Bytes of the current line.
  [[nodiscard]] std::size_t length() const { return length_; }

  [[nodiscard]] bool too_long() const { return length_ > max_line; }

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  bool fill() {
    if (ended_) return false;
    begin_ = 0;
    end_ = std::fread(chunk_.data(), 1, chunk_.size(), file_);
    if (end_ == 0) {
      if (std::ferror(file_) != 0)
        detail::raise<io_error>(detail::concat(path_, ": cannot be read (", std::strerror(errno), ")"));
      ended_ = true;
    }
    return end_ != 0;
  }

  bool finish_line() {
    if (!line_.empty() && line_.back() == '\r' && !too_long()) line_.pop_back();
    if (number_++ == 0 && std::string_view{line_}.substr(0, 3) == "\xEF\xBB\xBF") line_.erase(0, 3);
    return true;
  }

  std::string path_;
  std::FILE* file_ = nullptr;
  std::vector<char> chunk_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  bool ended_ = false;
  std::string line_;
  std::size_t length_ = 0;
  index_t number_ = 0;
};

}  // namespace pesc
