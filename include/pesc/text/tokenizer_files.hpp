// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "pesc/io/gguf.hpp"
#include "pesc/text/gguf_tokenizer.hpp"
#include "pesc/text/load_tokenizer.hpp"
#include "pesc/text/tokenizer_json_writer.hpp"

namespace pesc {

/// \brief A file of a tokenizer that goes into a model folder: a copy of another, or a text.
struct tokenizer_file {
  std::string name;    ///< plain
  std::string source;  ///< path of the file to copy; empty: `text`
  std::string text;
};

/// \brief The files with which a folder has the tokenizer of `path`, the one to open first.
///
/// A tokenizer's file and those that belong to it are copied; that inside a GGUF file becomes a tokenizer.json.
/// \throws io_error, format_error
[[nodiscard]] inline std::vector<tokenizer_file> tokenizer_files(const std::string& path) {
  if (is_gguf(path)) {
    const gguf_file file = gguf_file::open(path, {.on_demand = true});
    const gguf_vocabulary arrays = gguf_tokenizer::arrays_of(file);
    static_cast<void>(tokenizer_from_gguf(arrays, path));  // checks them
    return {{"tokenizer.json", {}, to_tokenizer_json(arrays)},
            {"tokenizer_config.json", {}, to_tokenizer_config(arrays)}};
  }
  const auto copy_of = [](const std::string& file) {
    return tokenizer_file{file.substr(file.rfind('/') + 1), file, {}};
  };
  std::vector<tokenizer_file> out{copy_of(path)};
  for (const std::string& file : files_beside_tokenizer(path)) out.push_back(copy_of(file));
  return out;
}

}  // namespace pesc
