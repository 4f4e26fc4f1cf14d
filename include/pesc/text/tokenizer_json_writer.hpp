// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "pesc/io/json.hpp"
#include "pesc/text/gguf_vocabulary.hpp"
#include "pesc/text/split_pattern.hpp"
#include "pesc/text/utf8.hpp"

namespace pesc {
namespace detail {

/// \brief Puts together the text of a tokenizer.json. Text, not a tree: vocabularies have a hundred thousand keys.
class tokenizer_json_writer {
 public:
  explicit tokenizer_json_writer(const gguf_vocabulary& from) : from_{from}, bytes_{from.model == "gpt2"} {}

  [[nodiscard]] std::string write() {
    out_ = "{\n\"version\":\"1.0\",\n\"truncation\":null,\n\"padding\":null,\n\"added_tokens\":[";
    added();
    out_ += "],\n\"normalizer\":" + normalizer() + ",\n\"pre_tokenizer\":" + pre_tokenizer() +
            ",\n\"post_processor\":" + post_processor() + ",\n\"decoder\":" + decoder() + ",\n\"model\":";
    model();
    return out_ + "}\n";
  }

 private:
  static std::string quoted(std::string_view text) { return to_string(json{text}); }

  [[nodiscard]] std::string token(const std::optional<std::int64_t>& id) const {
    const bool there = id && *id >= 0 && *id < static_cast<std::int64_t>(from_.tokens.size());
    return there ? from_.tokens[static_cast<std::size_t>(*id)] : std::string{};
  }

  void added() {
    const char* comma = "\n";
    for (std::size_t i = 0; i < from_.token_type.size(); ++i) {
      const std::int32_t type = from_.token_type[i];
      // Control and user-defined pieces; the unknown one is a mark in such files as well.
      if (type != 3 && type != 4 && !(type == 2 && !bytes_)) continue;
      out_ += comma + concat("{\"id\":", i, ",\"content\":", quoted(from_.tokens[i]),
                             ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
                             "\"special\":",
                             type == 4 ? "false}" : "true}");
      comma = ",\n";
    }
  }

  [[nodiscard]] std::string normalizer() const {
    if (bytes_) return "null";
    const std::string replace =
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\u2581\"}";
    if (!from_.add_space_prefix.value_or(true)) return replace;
    return "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\u2581\"}," +
           replace + "]}";
  }

  [[nodiscard]] std::string pre_tokenizer() const {
    if (!bytes_) return "null";
    const auto byte_level = [](const char* expression) {
      return std::string{
                 "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":"} +
             expression + '}';
    };
    const split_pattern pattern = *split_pattern_named(from_.pre);
    if (pattern == split_pattern::gpt2) return byte_level("true");
    const std::string first =
        pattern == split_pattern::smollm
            ? "{\"type\":\"Digits\",\"individual_digits\":true}"
            : "{\"type\":\"Split\",\"pattern\":{\"Regex\":" + quoted(expression_of(pattern)) +
                  "},\"behavior\":\"Isolated\",\"invert\":false}";
    return "{\"type\":\"Sequence\",\"pretokenizers\":[" + first + ',' +
           byte_level(pattern == split_pattern::smollm ? "true" : "false") + "]}";
  }

  [[nodiscard]] std::string post_processor() const {
    const bool by_default = !bytes_ || *split_pattern_named(from_.pre) == split_pattern::llama_bpe;
    const std::string bos = token(from_.bos_token_id);
    if (!from_.add_bos_token.value_or(by_default) || bos.empty()) return "null";
    const std::string mark = quoted(bos);
    const auto place = [&](const char* sequence, int type) {
      return concat("{\"SpecialToken\":{\"id\":", mark, ",\"type_id\":", type, "}},{\"Sequence\":{\"id\":\"",
                    sequence, "\",\"type_id\":", type, "}}");
    };
    return concat("{\"type\":\"TemplateProcessing\",\"single\":[", place("A", 0), "],\"pair\":[",
                  place("A", 0), ',', place("B", 1), "],\"special_tokens\":{", mark, ":{\"id\":", mark,
                  ",\"ids\":[", *from_.bos_token_id, "],\"tokens\":[", mark, "]}}}");
  }

  [[nodiscard]] std::string decoder() const {
    if (bytes_)
      return "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true}";
    std::string out =
        "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\u2581\"},"
        "\"content\":\" \"}";
    if (has_bytes()) out += ",{\"type\":\"ByteFallback\"}";
    out += ",{\"type\":\"Fuse\"}";
    if (from_.add_space_prefix.value_or(true))
      out += ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}";
    return out + "]}";
  }

  [[nodiscard]] bool has_bytes() const {
    return std::find(from_.token_type.begin(), from_.token_type.end(), 6) != from_.token_type.end();
  }

  void model() {
    const std::string unknown = token(from_.unknown_token_id);
    out_ += concat(
        "{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":", unknown.empty() ? "null" : quoted(unknown),
        ",\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":",
        bytes_ ? "false" : "true", ",\"byte_fallback\":", !bytes_ && has_bytes() ? "true" : "false",
        ",\"ignore_merges\":",
        bytes_ && *split_pattern_named(from_.pre) == split_pattern::llama_bpe ? "true" : "false",
        ",\"vocab\":{");
    for (std::size_t i = 0; i < from_.tokens.size(); ++i)
      out_ += concat(i > 0 ? ",\n" : "\n", quoted(from_.tokens[i]), ':', i);
    out_ += "},\"merges\":[";
    if (bytes_) {
      for (std::size_t i = 0; i < from_.merges.size(); ++i)
        out_ += (i > 0 ? ",\n" : "\n") + quoted(from_.merges[i]);
    } else {
      merges_by_score();
    }
    out_ += "]}";
  }

  /// \brief All pairs that join to a piece, that of the highest score first: what the scores say of SentencePiece's BPE.
  void merges_by_score() {
    std::unordered_map<std::string_view, std::size_t> ids;
    for (std::size_t i = 0; i < from_.tokens.size(); ++i)
      if (is_text(i)) ids.emplace(from_.tokens[i], i);
    std::vector<std::size_t> order(from_.tokens.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&, this](std::size_t a, std::size_t b) { return from_.scores[a] > from_.scores[b]; });
    const char* comma = "\n";
    for (const std::size_t i : order) {
      const std::string_view text = from_.tokens[i];
      if (!is_text(i) || ids.at(text) != i) continue;
      for (std::size_t cut = utf8_first(text.empty() ? " " : text).length; cut < text.size();
           cut += utf8_first(text.substr(cut)).length) {
        const std::string_view left = text.substr(0, cut), right = text.substr(cut);
        if (!ids.contains(left) || !ids.contains(right)) continue;
        out_ += comma + concat('[', quoted(left), ',', quoted(right), ']');
        comma = ",\n";
      }
    }
  }

  [[nodiscard]] bool is_text(std::size_t i) const {
    return from_.token_type.empty() || from_.token_type[i] == 1;
  }

  const gguf_vocabulary& from_;
  bool bytes_;
  std::string out_;
};

}  // namespace detail

/// \brief The text of a tokenizer.json that says what the arrays of a GGUF file say.
/// \param from  arrays that `tokenizer_from_gguf` accepts
[[nodiscard]] inline std::string to_tokenizer_json(const gguf_vocabulary& from) {
  return detail::tokenizer_json_writer{from}.write();
}

/// \brief The text of the tokenizer_config.json beside it: marks and chat template.
[[nodiscard]] inline std::string to_tokenizer_config(const gguf_vocabulary& from) {
  json out = json::object();
  const auto mark = [&](const char* key, const std::optional<std::int64_t>& id) {
    if (id && *id >= 0 && *id < static_cast<std::int64_t>(from.tokens.size()))
      out.set(key, from.tokens[static_cast<std::size_t>(*id)]);
  };
  mark("bos_token", from.bos_token_id);
  mark("eos_token", from.eos_token_id);
  mark("unk_token", from.unknown_token_id);
  if (!from.chat_template.empty()) out.set("chat_template", from.chat_template);
  out.set("clean_up_tokenization_spaces", false).set("tokenizer_class", "PreTrainedTokenizerFast");
  return to_string(out, 2) + '\n';
}

}  // namespace pesc
