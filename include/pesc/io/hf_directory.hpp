// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <dirent.h>
#include <sys/stat.h>

#include "pesc/core/error.hpp"
#include "pesc/io/json.hpp"
#include "pesc/io/quoted.hpp"
#include "pesc/io/safetensors.hpp"

namespace pesc {
namespace detail {

inline bool is_folder(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

inline bool exists(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0;
}

/// \brief A plain name that stays in its folder.
inline bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == name.npos &&
         name.find('\\') == name.npos && name.find(':') == name.npos && name.find('\0') == name.npos;
}

/// \brief The names in a folder, one by one; none where it cannot be read.
class folder_names {
 public:
  explicit folder_names(const std::string& folder) : list_{::opendir(folder.c_str())} {}
  folder_names(const folder_names&) = delete;
  folder_names& operator=(const folder_names&) = delete;
  ~folder_names() {
    if (list_ != nullptr) ::closedir(list_);
  }

  /// \brief The next name, or null at the end.
  [[nodiscard]] const char* next() {
    const dirent* entry = list_ != nullptr ? ::readdir(list_) : nullptr;
    return entry != nullptr ? entry->d_name : nullptr;
  }

 private:
  DIR* list_;
};

/// \brief One name of a file with pickled weights in the folder, or nothing.
inline std::string find_pickle(const std::string& folder) {
  std::string found;
  folder_names list(folder);
  while (const char* next = list.next()) {
    const std::string_view name = next;
    const bool pickle =
        name.ends_with(".pth") || name.ends_with(".pt") || name.ends_with(".ckpt") ||
        (name.ends_with(".bin") && (name.starts_with("pytorch_model") || name.starts_with("adapter_model") ||
                                    name.starts_with("moe_model")));
    if (pickle && (found.empty() || name < found)) found = name;
  }
  return found;
}

}  // namespace detail

/// \brief What `model.safetensors.index.json` says: which file holds which tensor.
struct shard_index {
  std::vector<std::pair<std::string, std::string>> files;  ///< tensor and file, in the order of the text
  std::vector<std::string> shards;                         ///< different file names, sorted
  index_t total_size = -1;                                 ///< -1 when it is not told

  /// \brief Reads and checks the index; file names must be plain.
  /// \throws format_error
  [[nodiscard]] static shard_index parse(std::string_view text, const std::string& file) {
    const json root = parse_json(text, file);
    const json_fields fields{root, file};
    shard_index out;
    // The size is often wrong in public repositories: it is for a warning only, whatever type it has.
    if (const json* metadata = fields.find("metadata"))
      if (const json* size = metadata->find("total_size")) out.total_size = size->to_int().value_or(-1);
    static_cast<void>(fields.get_object("weight_map"));
    for (const auto& [tensor, name] : fields.find("weight_map")->members()) {
      const std::string* shard = name.if_string();
      if (shard == nullptr)
        detail::raise<format_error>(detail::concat(file, ": weight_map: tensor ", in_quotes(tensor), " is ",
                                                   name.type_name(), ", expected a file name"));
      if (!detail::is_plain_name(*shard))
        detail::raise<format_error>(
            detail::concat(file, ": shard ", in_quotes(*shard), " leaves the model folder"));
      out.files.emplace_back(tensor, *shard);
      out.shards.push_back(*shard);
    }
    if (out.files.empty()) detail::raise<format_error>(file + ": weight_map is empty, expected tensor names");
    std::sort(out.shards.begin(), out.shards.end());
    out.shards.erase(std::unique(out.shards.begin(), out.shards.end()), out.shards.end());
    return out;
  }
};

/// \brief A model folder in the layout of Hugging Face: config.json and one or several safetensors files.
class hf_directory {
 public:
  /// \throws io_error, format_error
  [[nodiscard]] static hf_directory open(const std::string& path, open_options options = {});

  [[nodiscard]] const std::string& path() const { return path_; }

  /// \brief The text of config.json; the name for messages is `config_name()`.
  [[nodiscard]] const json& config() const { return config_; }
  [[nodiscard]] std::string config_name() const { return path_ + "/config.json"; }

  /// \brief Names of all tensors, sorted.
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const place& p : places_) out.push_back(p.tensor->name);
    return out;
  }

  /// \brief Whether there is such a tensor; does not count as using it.
  [[nodiscard]] bool contains(std::string_view name) const { return index_of(name) < places_.size(); }

  /// \brief The tensor of that name, or null; marks it as used.
  [[nodiscard]] const tensor_info* find(std::string_view name) {
    const std::size_t i = index_of(name);
    if (i == places_.size()) return nullptr;
    places_[i].used = true;
    return places_[i].tensor;
  }

  /// \throws format_error when there is no such tensor
  [[nodiscard]] const tensor_info& get(std::string_view name) {
    const tensor_info* tensor = find(name);
    if (tensor == nullptr)
      detail::raise<format_error>(
          detail::concat(path_, ": there is no tensor ", in_quotes(name), " among ", places_.size()));
    return *tensor;
  }

  /// \brief Values of an F32, F16, BF16 or F64 tensor as float; marks it as used.
  /// \throws format_error
  [[nodiscard]] std::vector<float> read_floats(std::string_view name) {
    const tensor_info& tensor = get(name);
    return to_floats(tensor, path_);
  }

  /// \brief Tensors that nobody asked for: a model that leaves some unread is not the one that was meant.
  [[nodiscard]] std::vector<std::string> unused_names() const {
    std::vector<std::string> out;
    for (const place& p : places_)
      if (!p.used) out.push_back(p.tensor->name);
    return out;
  }

  /// \brief Oddities that do not stop a load, one line each.
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }

  [[nodiscard]] const std::vector<safetensors_file>& files() const { return files_; }

 private:
  struct place {
    const tensor_info* tensor;
    std::size_t file;
    bool used = false;
  };

  [[nodiscard]] std::size_t index_of(std::string_view name) const {
    const auto at = std::lower_bound(places_.begin(), places_.end(), name,
                                     [](const place& p, std::string_view n) { return p.tensor->name < n; });
    return at != places_.end() && at->tensor->name == name ? static_cast<std::size_t>(at - places_.begin())
                                                           : places_.size();
  }

  void open_shards(open_options options);
  void collect();
  void compare(const shard_index& index, const std::string& file);

  std::string path_;
  json config_;
  std::vector<safetensors_file> files_;
  std::vector<place> places_;
  std::vector<std::string> warnings_;
};

inline hf_directory hf_directory::open(const std::string& path, open_options options) {
  hf_directory out;
  out.path_ = path.size() > 1 && path.ends_with('/') ? path.substr(0, path.size() - 1) : path;
  if (!detail::exists(out.path_)) detail::raise<io_error>(out.path_ + ": there is no such folder");
  if (!detail::is_folder(out.path_))
    detail::raise<io_error>(out.path_ + ": this is a file, expected a model folder");
  if (!detail::exists(out.config_name()))
    detail::raise<format_error>(out.path_ +
                                ": there is no config.json in this folder, so it is no model folder");
  out.config_ = read_json(out.config_name());
  const std::string single = out.path_ + "/model.safetensors";
  if (detail::exists(single)) {
    out.files_.push_back(safetensors_file::open(single, options));
    out.collect();
  } else {
    out.open_shards(options);
  }
  return out;
}

inline void hf_directory::open_shards(open_options options) {
  const std::string file = path_ + "/model.safetensors.index.json";
  if (!detail::exists(file)) {
    const std::string pickle = detail::find_pickle(path_);
    if (!pickle.empty())
      detail::raise<format_error>(
          detail::concat(path_, ": holds only pickled weights (", in_quotes(pickle),
                         "), which can run code when they are loaded and are not read. Save "
                         "them again from Python with safe_serialization=True."));
    detail::raise<format_error>(path_ +
                                ": there is neither model.safetensors nor model.safetensors.index.json");
  }
  const std::vector<std::byte> bytes = read_file(file, index_t{64} << 20);
  const shard_index index = shard_index::parse(as_text(bytes), file);
  for (const std::string& shard : index.shards)
    if (!detail::exists(path_ + "/" + shard))
      detail::raise<io_error>(detail::concat(file, ": shard ", in_quotes(shard), " is missing, one of ",
                                             index.shards.size(), ". The download may be incomplete."));
  for (const std::string& shard : index.shards)
    files_.push_back(safetensors_file::open(path_ + "/" + shard, options));
  collect();
  compare(index, file);
}

/// \brief Puts the tensors of all files in one sorted list.
inline void hf_directory::collect() {
  for (std::size_t i = 0; i < files_.size(); ++i)
    for (const tensor_info& tensor : files_[i].tensors()) places_.push_back({&tensor, i});
  std::sort(places_.begin(), places_.end(),
            [](const place& a, const place& b) { return a.tensor->name < b.tensor->name; });
  for (std::size_t i = 1; i < places_.size(); ++i)
    if (places_[i - 1].tensor->name == places_[i].tensor->name)
      detail::raise<format_error>(detail::concat(path_, ": tensor ", in_quotes(places_[i].tensor->name),
                                                 " is in two files, ", files_[places_[i - 1].file].name(),
                                                 " and ", files_[places_[i].file].name()));
}

inline void hf_directory::compare(const shard_index& index, const std::string& file) {
  for (const auto& [tensor, shard] : index.files) {
    const std::size_t i = index_of(tensor);
    if (i == places_.size() || files_[places_[i].file].name() != path_ + "/" + shard)
      detail::raise<format_error>(
          detail::concat(file, ": tensor ", in_quotes(tensor), " is not in shard ", in_quotes(shard)));
  }
  if (places_.size() > index.files.size())
    warnings_.push_back(detail::concat(file, ": the shards hold ", places_.size(),
                                       " tensors, the index names ", index.files.size()));
  index_t bytes = 0;
  for (const place& p : places_) bytes += p.tensor->size;
  if (index.total_size >= 0 && index.total_size != bytes)
    warnings_.push_back(
        detail::concat(file, ": total_size is ", index.total_size, ", the tensors have ", bytes, " bytes"));
}

}  // namespace pesc
