// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "pesc/io/gguf.hpp"
#include "pesc/text/gguf_vocabulary.hpp"

namespace pesc {

/// \brief The tokenizer inside a GGUF file.
struct gguf_tokenizer {
  /// \throws io_error, format_error
  [[nodiscard]] static tokenizer load(const std::string& path) {
    return from(gguf_file::open(path, {.on_demand = true}));
  }

  /// \throws format_error
  [[nodiscard]] static tokenizer from(const gguf_file& file) {
    return tokenizer_from_gguf(arrays_of(file), file.name());
  }

  /// \brief What the keys of the file say, unchecked but for their types.
  /// \throws format_error
  [[nodiscard]] static gguf_vocabulary arrays_of(const gguf_file& file) {
    const json_fields f = file.fields();
    gguf_vocabulary out;
    out.model = f.get_string("tokenizer.ggml.model");
    out.pre = f.get_string("tokenizer.ggml.pre", "");
    for (const std::string_view token : file.strings("tokenizer.ggml.tokens")) out.tokens.emplace_back(token);
    if (file.has_list("tokenizer.ggml.scores")) out.scores = file.floats("tokenizer.ggml.scores");
    if (file.has_list("tokenizer.ggml.token_type"))
      out.token_type = file.integers("tokenizer.ggml.token_type");
    if (file.has_list("tokenizer.ggml.merges"))
      for (const std::string_view merge : file.strings("tokenizer.ggml.merges"))
        out.merges.emplace_back(merge);
    const auto id = [&](const char* key) -> std::optional<std::int64_t> {
      if (!f.has(key)) return {};
      return f.get_int(key);
    };
    const auto flag = [&](const char* key) -> std::optional<bool> {
      if (!f.has(key)) return {};
      return f.get_bool(key);
    };
    out.bos_token_id = id("tokenizer.ggml.bos_token_id");
    out.eos_token_id = id("tokenizer.ggml.eos_token_id");
    out.unknown_token_id = id("tokenizer.ggml.unknown_token_id");
    out.add_bos_token = flag("tokenizer.ggml.add_bos_token");
    out.add_space_prefix = flag("tokenizer.ggml.add_space_prefix");
    out.chat_template = f.get_string("tokenizer.chat_template", "");
    return out;
  }
};

}  // namespace pesc
