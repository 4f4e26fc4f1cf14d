// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <string>
#include <utility>

#include "pesc/io/json.hpp"
#include "pesc/io/safetensors_writer.hpp"

namespace pesc {

/// \brief Collects the tensors of a model for `model.safetensors`, or for several files of a limited size with their
/// index, as Hugging Face folders have them.
class sharded_writer {
 public:
  /// \param max_bytes  of the tensors of a file; a tensor or group beyond that gets a file of its own
  explicit sharded_writer(index_t max_bytes) : max_bytes_{max_bytes} { begin_file(); }

  /// \brief The file that takes the next tensors, `bytes` together, which stay in one file.
  [[nodiscard]] safetensors_writer& next(index_t bytes) {
    const index_t have = files_.back().data_bytes();
    if (have > 0 && have + bytes > max_bytes_) begin_file();
    return files_.back();
  }

  [[nodiscard]] index_t file_count() const { return static_cast<index_t>(files_.size()); }

  /// \throws io_error, format_error
  void write(const std::string& folder) const {
    if (files_.size() == 1) return files_.front().write(folder + "/model.safetensors");
    json places = json::object();
    index_t total = 0;
    for (std::size_t i = 0; i < files_.size(); ++i) {
      const std::string name =
          detail::concat("model-", digits(i + 1), "-of-", digits(files_.size()), ".safetensors");
      files_[i].write(folder + '/' + name);
      for (std::string& tensor : files_[i].names()) places.set(std::move(tensor), name);
      total += files_[i].data_bytes();
    }
    json about = json::object();
    about.set("total_size", total);
    json index = json::object();
    index.set("metadata", std::move(about)).set("weight_map", std::move(places));
    write_file(folder + "/model.safetensors.index.json", to_string(index, 2) + '\n');
  }

 private:
  void begin_file() { files_.emplace_back().set_metadata("format", "pt"); }

  static std::string digits(std::size_t number) {
    const std::string text = std::to_string(number);
    return text.size() < 5 ? std::string(5 - text.size(), '0') + text : text;
  }

  index_t max_bytes_;
  std::deque<safetensors_writer> files_;
};

}  // namespace pesc
