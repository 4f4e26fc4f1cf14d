// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <unistd.h>

#include "pesc/core/error.hpp"
#include "pesc/io/element_type.hpp"
#include "pesc/io/file.hpp"
#include "pesc/io/file_kind.hpp"
#include "pesc/io/gguf.hpp"
#include "pesc/io/json.hpp"
#include "pesc/text/gguf_tokenizer.hpp"
#include "pesc/text/gpt2_files.hpp"
#include "pesc/text/llama2c_tokenizer.hpp"
#include "pesc/text/sentencepiece_model.hpp"
#include "pesc/text/tokenizer.hpp"
#include "pesc/text/tokenizer_json.hpp"

namespace pesc {

/// \brief Kinds of tokenizer files.
enum class tokenizer_kind : std::uint8_t {
  unknown,
  json,           ///< tokenizer.json, or vocab.json of a pair: both are JSON objects
  sentencepiece,  ///< tokenizer.model
  llama2c,        ///< tok*.bin
};

/// \brief The kind that the first bytes of a file speak for.
[[nodiscard]] inline tokenizer_kind tokenizer_kind_of(std::span<const std::byte> bytes) {
  std::string_view text = as_text(bytes);
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '{') return tokenizer_kind::json;
  if (bytes.size() < 4) return tokenizer_kind::unknown;
  // llama2.c: the length of the longest piece in four bytes. SentencePiece: the first piece, field 1, and its length,
  // which the number of another field follows; that is never 0.
  const index_t longest = load_unaligned<std::int32_t>(bytes.data());
  if (longest >= 1 && longest <= llama2c_tokenizer::max_piece) return tokenizer_kind::llama2c;
  return bytes[0] == std::byte{0x0A} ? tokenizer_kind::sentencepiece : tokenizer_kind::unknown;
}

namespace detail {

inline bool is_readable(const std::string& file) { return ::access(file.c_str(), R_OK) == 0; }

/// \brief Text of a mark in tokenizer_config.json: a string, or an object with the key `content`.
inline std::string mark_of_config(const json& config, std::string_view key) {
  const json* value = config.find(key);
  if (value != nullptr && value->is_object()) value = value->find("content");
  return value != nullptr && value->is_string() ? *value->if_string() : std::string{};
}

/// \brief The chat template in tokenizer_config.json: a text, or the one called "default" of a list.
inline std::string template_of_config(const json& config) {
  const json* value = config.find("chat_template");
  if (value == nullptr) return {};
  if (value->is_string()) return *value->if_string();
  for (const json& item : value->items()) {
    const json* name = item.find("name");
    const json* text = item.find("template");
    if (name != nullptr && *name == json{"default"} && text != nullptr && text->is_string())
      return *text->if_string();
  }
  return {};
}

/// \brief Takes marks and chat template from the files that a folder of Hugging Face has beside the tokenizer.
inline void read_tokenizer_config(tokenizer& t, const std::string& path) {
  const std::string folder = folder_of(path) + '/';
  if (const std::string file = folder + "tokenizer_config.json"; is_readable(file)) {
    const json config = read_json(file);
    const std::int32_t bos = t.find_mark(mark_of_config(config, "bos_token"));
    const std::int32_t eos = t.find_mark(mark_of_config(config, "eos_token"));
    t.set_marks(bos >= 0 && !t.add_bos() ? bos : t.bos(), eos >= 0 ? eos : t.eos());
    if (t.chat_template().empty()) t.set_chat_template(template_of_config(config));
  }
  if (const std::string file = folder + "chat_template.jinja"; is_readable(file))
    t.set_chat_template(std::string{as_text(read_file(file, index_t{1} << 20))});
}

}  // namespace detail

/// \brief Files beside a tokenizer's that `load_tokenizer` reads too, where they are there; a copy needs them.
[[nodiscard]] inline std::vector<std::string> files_beside_tokenizer(const std::string& path) {
  std::vector<std::string> out;
  if (path.ends_with(".bin")) return out;
  const std::string folder = detail::folder_of(path) + '/';
  std::vector<std::string> wanted{folder + "tokenizer_config.json", folder + "chat_template.jinja"};
  if (path.ends_with("vocab.json")) wanted.push_back(gpt2_files::merges_beside(path));
  for (std::string& file : wanted)
    if (detail::is_readable(file)) out.push_back(std::move(file));
  return out;
}

/// \brief Reads a tokenizer file: tokenizer.json, tokenizer.model, vocab.json with merges.txt beside it, a llama2.c
/// tok*.bin, or the one inside a GGUF file, told apart by what they hold.
///
/// tokenizer_config.json and chat_template.jinja beside the first three give marks and chat template.
/// \param pieces  rows of the model's embedding; -1 takes all pieces of the file
/// \throws io_error, format_error when the file is damaged, of another kind or has fewer or more pieces
[[nodiscard]] inline tokenizer load_tokenizer(const std::string& path, index_t pieces = -1) {
  if (is_gguf(path)) {
    tokenizer out = gguf_tokenizer::load(path);
    if (pieces >= 0) out.expect_vocabulary(pieces);
    return out;
  }
  const std::vector<std::byte> bytes = read_file(path, tokenizer_json::max_file);
  if (const std::string foreign = describe_foreign_file(bytes); !foreign.empty())
    detail::raise<format_error>(path + ": " + foreign);
  const tokenizer_kind kind = tokenizer_kind_of(bytes);
  if (kind == tokenizer_kind::llama2c) return llama2c_tokenizer::parse(path, bytes, pieces);
  if (kind == tokenizer_kind::unknown)
    detail::refuse(path, "this is no tokenizer", detail::concat(bytes.size(), " bytes of another kind"),
                   "tokenizer.json, tokenizer.model, vocab.json or a llama2.c tok*.bin", "byte 0");
  tokenizer out;
  if (kind == tokenizer_kind::sentencepiece) {
    out = sentencepiece_model::parse(path, as_text(bytes));
  } else {
    const json value = parse_json(as_text(bytes), path);
    const json* model = value.find("model");
    if (model != nullptr && model->is_object()) {
      out = tokenizer_json::from(path, value);
    } else {
      // The file of pairs is looked for once this one is known to hold pieces.
      if (value.members().empty() || !value.members().front().value.to_int())
        detail::refuse(path, "this is no tokenizer", "a JSON object of another kind",
                       "key \"model\" or pieces with their ids", "byte 0");
      const std::string merges = gpt2_files::merges_beside(path);
      out = gpt2_files::from(path, value, merges, as_text(read_file(merges, gpt2_files::max_file)));
    }
  }
  detail::read_tokenizer_config(out, path);
  if (pieces >= 0) out.expect_vocabulary(pieces);
  return out;
}

}  // namespace pesc
