// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include <unistd.h>

#include "pesc/model/checkpoint.hpp"
#include "pesc/model/detail/folder.hpp"

namespace pesc {

/// \brief Refuses a name that is taken by anything but an empty folder.
/// \throws format_error
inline void check_new_folder(const std::string& name) {
  if (detail::exists(name) && !detail::is_folder(name))
    detail::raise<format_error>(name + ": this is a file, expected the name of a new folder");
  if (!detail::names_in(name).empty())
    detail::raise<format_error>(
        name + ": this folder is not empty, and nothing in it is overwritten. Name another.");
}

/// \brief A folder that appears under its name when all its files are complete: they are written to
/// `NAME.PROCESS.partial`, which is renamed. Without `commit`, and after an error, nothing is left.
class new_folder {
 public:
  /// \throws io_error; format_error where the name is taken by anything but an empty folder
  explicit new_folder(const std::string& name) : name_{detail::without_slash(name)} {
    check_new_folder(name_);
    const std::string parent = detail::folder_of(name_);
    detail::make_folders(parent);
    sweep(parent);
    stage_ = detail::concat(name_, '.', static_cast<long>(::getpid()), ".partial");
    detail::remove_folder(stage_, "config.json");
    detail::make_folders(stage_);
  }

  new_folder(const new_folder&) = delete;
  new_folder& operator=(const new_folder&) = delete;
  ~new_folder() {
    if (!stage_.empty()) detail::remove_folder(stage_, "config.json");
  }

  /// \brief Where its files are written.
  [[nodiscard]] const std::string& path() const { return stage_; }
  [[nodiscard]] const std::string& name() const { return name_; }

  /// \throws io_error
  void commit() {
    detail::sync_folder(stage_);
    detail::rename_path(stage_, name_);
    stage_.clear();
    detail::sync_folder(detail::folder_of(name_));
  }

 private:
  /// \brief Removes what stopped processes left of the same folder.
  void sweep(const std::string& parent) const {
    const std::string start = name_.substr(name_.rfind('/') + 1) + '.';
    for (const std::string& name : detail::names_in(parent))
      if (name.starts_with(start) && detail::left_behind(name, ".partial"))
        detail::remove_folder(parent + '/' + name, "config.json");
  }

  std::string name_;
  std::string stage_;
};

}  // namespace pesc
