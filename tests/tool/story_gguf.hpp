// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/core/types.hpp"
#include "pesc/model/model_files.hpp"
#include "support/tiny_gguf.hpp"
#include "tool/program.hpp"

namespace support {

/// \brief What of the bundled story model goes into a GGUF file besides its weights.
struct story_gguf_options {
  std::string architecture = "llama";
  std::string chat_template{};       ///< empty: none
  bool end_mark = true;              ///< whether the file names the mark that ends a text
  std::uint32_t context_length = 0;  ///< 0: the model's own
  bool q8_0 = false;                 ///< projections of whole blocks as Q8_0
};

/// \brief The arrays of a llama2.c tokenizer file as a GGUF file has them.
inline void add_story_vocabulary(gguf_builder& to) {
  const std::string file = read_text(bundled("tok512.bin"));
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<std::int32_t> types;
  for (std::size_t at = 4; at < file.size();) {
    float score;
    std::int32_t length;
    std::memcpy(&score, file.data() + at, 4);
    std::memcpy(&length, file.data() + at + 4, 4);
    std::string piece = file.substr(at + 8, static_cast<std::size_t>(length));
    at += 8 + piece.size();
    const std::size_t id = tokens.size();
    if (id == 1 || id == 2) piece = id == 1 ? "<s>" : "</s>";
    std::string written;
    for (const char c : piece) written += c == ' ' ? std::string{"\xE2\x96\x81"} : std::string{c};
    tokens.push_back(written);
    scores.push_back(score);
    types.push_back(id == 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1);
  }
  to.string("tokenizer.ggml.model", "llama")
      .list("tokenizer.ggml.tokens", 8, tokens)
      .list("tokenizer.ggml.scores", 6, scores)
      .list("tokenizer.ggml.token_type", 5, types)
      .u32("tokenizer.ggml.bos_token_id", 1);
}

/// \brief Numbers as blocks of 32 with one scale each.
inline std::vector<std::byte> q8_0_blocks(const std::vector<float>& values) {
  std::vector<std::byte> out;
  for (std::size_t at = 0; at < values.size(); at += 32) {
    float largest = 0;
    for (std::size_t i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(values[at + i]));
    const pesc::f16 scale = pesc::to_f16(largest / 127.0f);
    const auto* bytes = reinterpret_cast<const std::byte*>(&scale);
    out.insert(out.end(), bytes, bytes + 2);
    const float step = pesc::to_float(scale);
    for (std::size_t i = 0; i < 32; ++i)
      out.push_back(static_cast<std::byte>(
          static_cast<std::int8_t>(step == 0.0f ? 0.0f : std::nearbyint(values[at + i] / step))));
  }
  return out;
}

/// \brief The bundled story model as a GGUF file; returns its path.
inline std::string story_gguf(const temporary_folder& folder, const story_gguf_options& options = {}) {
  auto files = pesc::model_files::open({.path = bundled("stories260K.bin")});
  pesc::llama_config config = files.config().llama;
  if (options.context_length != 0) config.max_positions = options.context_length;
  gguf_builder out = gguf_keys(config, options.architecture);
  add_story_vocabulary(out);
  if (options.end_mark) out.u32("tokenizer.ggml.eos_token_id", 2);
  if (!options.chat_template.empty()) out.string("tokenizer.chat_template", options.chat_template);
  for (const pesc::tensor_info* tensor : files.tensors()) {
    const std::vector<float> values = pesc::to_floats(*tensor, files.name());
    const auto dims = gguf_dims(tensor->shape);
    // Both kinds of file keep the halves of a rotary pair in neighbouring rows.
    if (options.q8_0 && dims.size() == 2 && dims[0] % 32 == 0)
      out.tensor(gguf_name(tensor->name), dims, 8, q8_0_blocks(values));
    else
      out.floats(gguf_name(tensor->name), dims, values);
  }
  return folder.write("story.gguf", pesc::as_text(out.bytes()));
}

}  // namespace support
