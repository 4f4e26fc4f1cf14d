// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include <sys/statvfs.h>
#include <unistd.h>

#include "pesc/core/types.hpp"

namespace pesc {

/// \brief Bytes in a unit that people read: `812 kB`, `1.07 GB` (powers of 1000).
[[nodiscard]] inline std::string bytes_text(index_t bytes) {
  constexpr const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 999.5 && unit < 4; ++unit) value /= 1000.0;
  char text[48];
  std::snprintf(text, sizeof text,
                value < 9.995 && unit > 0   ? "%.2f %s"
                : value < 99.95 && unit > 0 ? "%.1f %s"
                                            : "%.0f %s",
                value, units[unit]);
  return text;
}

namespace detail {

/// \brief The number behind `key` in a file of the kernel's text kind, or the file's only number; -1 without one.
inline index_t number_in(const char* path, const char* key) {
  std::FILE* file = std::fopen(path, "r");
  if (file == nullptr) return -1;
  char line[256];
  index_t out = -1;
  while (out < 0 && std::fgets(line, sizeof line, file) != nullptr) {
    const std::size_t length = std::strlen(key);
    long long value = 0;
    if (std::strncmp(line, key, length) == 0 && std::sscanf(line + length, "%lld", &value) == 1) out = value;
  }
  std::fclose(file);
  return out;
}

}  // namespace detail

/// \brief Memory that the process can still take: what the system has and, in a container, what its limit leaves; -1 when
/// unknown.
[[nodiscard]] inline index_t available_memory() {
  const index_t kilobytes = detail::number_in("/proc/meminfo", "MemAvailable:");
  index_t out = kilobytes < 0 ? -1 : kilobytes * 1024;
  const index_t limit = detail::number_in("/sys/fs/cgroup/memory.max", "");
  const index_t used = detail::number_in("/sys/fs/cgroup/memory.current", "");
  if (limit > 0 && used >= 0) {
    const index_t left = std::max<index_t>(0, limit - used);
    out = out < 0 ? left : std::min(out, left);
  }
  return out;
}

/// \brief Resident memory of this process; 0 when unknown.
[[nodiscard]] inline index_t resident_memory() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  long long size = 0;
  long long resident = 0;
  const bool good = std::fscanf(file, "%lld %lld", &size, &resident) == 2;
  std::fclose(file);
  return good ? static_cast<index_t>(resident) * static_cast<index_t>(::sysconf(_SC_PAGESIZE)) : 0;
}

/// \brief Free bytes of the disk that holds an existing folder; -1 when unknown.
[[nodiscard]] inline index_t free_disk(const std::string& folder) {
  struct statvfs status {};
  if (::statvfs(folder.c_str(), &status) != 0) return -1;
  return static_cast<index_t>(status.f_bavail) * static_cast<index_t>(status.f_frsize);
}

}  // namespace pesc
