// SPDX-License-Identifier: Apache-2.0
#pragma once

// A checkpoint is a folder DIR of files under standard names and a manifest.json that lists them. Saving
// never harms the state that is there:
//
//   1. All files of the new state are written to a folder of their own, DIR/checkpoints/NAME.PROCESS.partial,
//      its manifest last, everything synchronised to the disk.
//   2. That folder is renamed to DIR/checkpoints/NAME: the new state is complete.
//   3. Its files get second names (or copies) in DIR under temporary names; then each is renamed to its
//      standard name, the manifest last. In between the old manifest does not fit the files in DIR.
//   4. Files of the old state that the new one lacks are removed, and older folders in DIR/checkpoints.
//
// A reader looks at the manifests of DIR and of all folders DIR/checkpoints/*, and takes the newest state (by
// the counter `sequence`) whose files agree with their manifest. Stopped before the end of step 2 that is the
// old state in DIR, later the new one, first in DIR/checkpoints/NAME, at last in DIR.

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/core/function_ref.hpp"
#include "pesc/io/safetensors_writer.hpp"
#include "pesc/model/detail/folder.hpp"
#include "pesc/model/manifest.hpp"

namespace pesc {

/// \brief Where a state lies that can be read.
struct checkpoint_place {
  std::string folder;
  std::optional<checkpoint_manifest> manifest;  ///< nothing: a model folder of another program
  std::string note;                             ///< one line when it is not the folder that was named
};

namespace detail {

struct found_checkpoint {
  std::string folder;
  checkpoint_manifest manifest;
};

/// \brief States with a readable manifest in `folder` and below its `checkpoints`, newest first.
inline std::vector<found_checkpoint> list_checkpoints(const std::string& folder, bool with_folder) {
  std::vector<found_checkpoint> out;
  const auto look = [&](const std::string& path) {
    if (auto reading = read_manifest(path); reading.manifest)
      out.push_back({path, std::move(*reading.manifest)});
  };
  if (with_folder) look(folder);
  const std::string below = folder + "/checkpoints";
  for (const std::string& name : names_in(below))
    if (!name.ends_with(".partial") && is_folder(below + '/' + name)) look(below + '/' + name);
  std::stable_sort(out.begin(), out.end(), [](const found_checkpoint& a, const found_checkpoint& b) {
    return a.manifest.sequence > b.manifest.sequence;
  });
  return out;
}

/// \brief Whether config.json was written by a save of this library.
inline bool has_own_config(const std::string& folder) {
  const std::string file = folder + "/config.json";
  return exists(file) && read_json(file).find("pesc") != nullptr;
}

inline std::string without_slash(const std::string& path) {
  return path.size() > 1 && path.ends_with('/') ? path.substr(0, path.size() - 1) : path;
}

}  // namespace detail

/// \brief Finds the newest complete state of a folder, or tells that the folder is not one of this library.
/// \param checksums  compare the checksums of all files, not only their sizes
/// \throws io_error, format_error when no state is complete
[[nodiscard]] inline checkpoint_place find_checkpoint(const std::string& path, bool checksums = true) {
  const std::string folder = detail::without_slash(path);
  if (!detail::exists(folder)) detail::raise<io_error>(folder + ": there is no such folder");
  if (!detail::is_folder(folder))
    detail::raise<io_error>(folder + ": this is a file, expected a model folder");
  const manifest_reading own = read_manifest(folder);
  const bool listed = detail::exists(folder + '/' + checkpoint_manifest::file_name);
  if (!own.manifest && detail::exists(folder + "/config.json") && !detail::has_own_config(folder))
    return {folder, {}, {}};
  std::string problem = own.problem;
  for (auto& [place, manifest] : detail::list_checkpoints(folder, true)) {
    const std::string wrong = manifest_problem(place, manifest, checksums);
    if (!wrong.empty()) {
      if (problem.empty()) problem = wrong;
      continue;
    }
    if (place == folder) return {folder, std::move(manifest), {}};
    const std::string why = problem.empty() ? folder + ": a save was interrupted" : problem;
    return {place, std::move(manifest), why + "; using " + place};
  }
  if (!listed && !detail::exists(folder + "/config.json")) return {folder, {}, {}};
  detail::raise<format_error>(problem + ". No other complete state is below it.");
}

/// \brief How a checkpoint is saved.
struct checkpoint_options {
  index_t step = 0;    ///< training steps done; names the folder below `checkpoints`
  bool keep = false;   ///< leave this state in `checkpoints` as well
  int keep_last = 2;   ///< states that stay in `checkpoints`
  bool fresh = false;  ///< a new model, not a later state: remove all earlier ones
  /// \brief Called with a short text before every change of the file system; for tests.
  const function_ref<void(std::string_view)>* on_step = nullptr;
};

/// \brief Collects the files of a new state and puts them in place; see the top of the file. Without
/// `commit`, and after an error, the state in the folder is what it was.
class checkpoint_writer {
 public:
  /// \throws io_error; format_error when the folder holds a model of another program
  explicit checkpoint_writer(const std::string& folder, checkpoint_options options = {})
      : folder_{detail::without_slash(folder)}, below_{folder_ + "/checkpoints"}, options_{options} {
    detail::make_folders(folder_);
    refuse_other_models();
    about_to("make checkpoints");
    had_below_ = detail::exists(below_);
    detail::make_folders(below_);
    sweep();
    const auto earlier = detail::list_checkpoints(folder_, true);
    sequence_ = earlier.empty() ? 1 : earlier.front().manifest.sequence + 1;
    std::string digits = std::to_string(options_.step);
    if (digits.size() < 6) digits.insert(0, 6 - digits.size(), '0');
    name_ = "step-" + digits;
    if (detail::exists(below_ + '/' + name_)) name_ += '-' + std::to_string(sequence_);
    stage_ = detail::concat(below_, '/', name_, '.', static_cast<long>(::getpid()), ".partial");
    detail::make_folders(stage_);
  }

  checkpoint_writer(const checkpoint_writer&) = delete;
  checkpoint_writer& operator=(const checkpoint_writer&) = delete;
  ~checkpoint_writer() {
    for (const std::string& name : temporary_) ::unlink(name.c_str());
    // Once the first file is in place, the new folder is the one that is whole.
    if (stage_.empty() || placed_) return;
    detail::remove_folder(stage_, checkpoint_manifest::file_name);
    if (!had_below_) ::rmdir(below_.c_str());
  }

  [[nodiscard]] const std::string& folder() const { return folder_; }

  /// \brief Adds a file; `name` is plain and new.
  /// \throws io_error
  void add(const std::string& name, const safetensors_writer& tensors) {
    begin_file(name);
    tensors.write(path_of(name));
  }
  void add(const std::string& name, const json& value) {
    begin_file(name);
    write_file(path_of(name), to_string(value, 2) + '\n');
  }
  void add(const std::string& name, const std::string& text) {
    begin_file(name);
    write_file(path_of(name), std::string_view{text});
  }
  void add_copy(const std::string& name, const std::string& source) {
    begin_file(name);
    detail::copy_file(source, path_of(name));
  }

  /// \brief Completes the state and puts it in place.
  /// \throws io_error
  void commit() {
    const manifest_reading old = read_manifest(folder_);
    complete();
    publish();
    if (old.manifest) remove_stale(*old.manifest);
    prune();
    stage_.clear();
  }

 private:
  void about_to(std::string_view what) const {
    if (options_.on_step != nullptr) (*options_.on_step)(what);
  }

  [[nodiscard]] std::string path_of(const std::string& name) const { return stage_ + '/' + name; }

  void refuse_other_models() const {
    if (detail::exists(folder_ + "/config.json") && !detail::has_own_config(folder_))
      detail::raise<format_error>(folder_ +
                                  ": holds a model of another program, which saving would overwrite. Name "
                                  "another folder.");
  }

  /// \brief Removes what stopped processes left.
  void sweep() const {
    for (const std::string& name : detail::names_in(below_))
      if (detail::left_behind(name, ".partial"))
        detail::remove_folder(below_ + '/' + name, checkpoint_manifest::file_name);
    for (const std::string& name : detail::names_in(folder_))
      if (detail::left_behind(name, ".new")) ::unlink((folder_ + '/' + name).c_str());
  }

  void begin_file(const std::string& name) {
    const bool taken = std::find(names_.begin(), names_.end(), name) != names_.end();
    PESC_EXPECTS(!taken && detail::is_plain_name(name) && name != checkpoint_manifest::file_name,
                 "checkpoint file ", in_quotes(name), ": the name is taken or leaves the folder");
    names_.push_back(name);
    about_to("write " + name);
  }

  void complete() {
    checkpoint_manifest manifest{sequence_, options_.step, {}};
    std::sort(names_.begin(), names_.end());
    for (const std::string& name : names_) manifest.files.push_back({name, checksum_file(path_of(name))});
    about_to("write the manifest");
    write_file(path_of(checkpoint_manifest::file_name), to_string(to_json(manifest), 2) + '\n');
    detail::sync_folder(stage_);
    about_to("complete the new state");
    const std::string whole = below_ + '/' + name_;
    detail::rename_path(stage_, whole);
    stage_ = whole;
    detail::sync_folder(below_);
    detail::sync_folder(folder_);
    names_.emplace_back(checkpoint_manifest::file_name);  // the last to be put in place
  }

  void publish() {
    // What can fail for want of space comes first, so that a full disk leaves the old state in place.
    for (const std::string& name : names_) {
      about_to("prepare " + name);
      const std::string to = detail::concat(folder_, "/.", name, '.', static_cast<long>(::getpid()), ".new");
      ::unlink(to.c_str());
      temporary_.push_back(to);
      detail::link_or_copy(path_of(name), to);
    }
    for (std::size_t i = 0; i < names_.size(); ++i) {
      // The files must be durable before the manifest vouches for them.
      if (i + 1 == names_.size()) detail::sync_folder(folder_);
      about_to("put in place " + names_[i]);
      placed_ = true;
      detail::rename_path(temporary_[i], folder_ + '/' + names_[i]);
    }
    temporary_.clear();
    detail::sync_folder(folder_);
  }

  void remove_stale(const checkpoint_manifest& old) const {
    for (const auto& entry : old.files)
      if (std::find(names_.begin(), names_.end(), entry.name) == names_.end()) {
        about_to("remove " + entry.name);
        ::unlink((folder_ + '/' + entry.name).c_str());
      }
  }

  void prune() const {
    const auto all = detail::list_checkpoints(folder_, false);
    int kept = 0;
    for (const auto& [place, manifest] : all) {
      const bool mine = place == stage_;
      const bool stays = mine ? options_.keep : !options_.fresh && kept < options_.keep_last;
      if (stays && kept++ < options_.keep_last) continue;
      about_to("remove " + place);
      detail::remove_folder(place, checkpoint_manifest::file_name);
    }
    ::rmdir(below_.c_str());  // only where it is empty
  }

  std::string folder_, below_, name_, stage_;
  checkpoint_options options_;
  index_t sequence_ = 0;
  bool had_below_ = false;
  bool placed_ = false;
  std::vector<std::string> names_;
  std::vector<std::string> temporary_;
};

}  // namespace pesc
