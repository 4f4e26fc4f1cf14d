// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include <sys/mman.h>

#include "pesc/core/error.hpp"
#include "pesc/io/file.hpp"

namespace pesc {

/// \brief A file mapped into memory for reading.
///
/// If another program cuts the file while it is mapped, touching the lost part ends this process; read files that
/// may change into memory instead.
class mapped_file {
 public:
  mapped_file() = default;

  /// \throws io_error
  explicit mapped_file(const std::string& path) {
    const auto [file, size] = detail::open_to_read(path);
    if (size == 0) return;
    void* data = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (data == MAP_FAILED)
      detail::raise<io_error>(
          detail::concat(path, ": ", size, " bytes cannot be mapped: ", detail::system_reason(errno)));
    data_ = static_cast<const std::byte*>(data);
    size_ = static_cast<std::size_t>(size);
  }

  mapped_file(mapped_file&& other) noexcept
      : data_{std::exchange(other.data_, nullptr)}, size_{std::exchange(other.size_, 0)} {}
  mapped_file& operator=(mapped_file&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~mapped_file() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  }

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace pesc
