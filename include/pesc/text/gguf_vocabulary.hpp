// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/io/quoted.hpp"
#include "pesc/text/detail/refusal.hpp"
#include "pesc/text/raw_vocabulary.hpp"
#include "pesc/text/tokenizer.hpp"

namespace pesc {

/// \brief What a GGUF file says about its tokenizer, each member under the key `tokenizer.ggml.` and its name here
/// unless it says another.
struct gguf_vocabulary {
  std::string model;                     ///< "gpt2" or "llama"
  std::string pre;                       ///< name of the splitting pattern, for "gpt2"
  std::vector<std::string> tokens;       ///< by id
  std::vector<float> scores;             ///< for "llama"
  std::vector<std::int32_t> token_type;  ///< empty: all normal
  std::vector<std::string> merges;       ///< "left right", best first, for "gpt2"
  std::optional<std::int64_t> bos_token_id{};
  std::optional<std::int64_t> eos_token_id{};
  std::optional<std::int64_t> unknown_token_id{};
  std::optional<bool> add_bos_token{};     ///< absent: as the model or pattern has it
  std::optional<bool> add_space_prefix{};  ///< absent: true, for "llama"
  std::string chat_template{};             ///< key `tokenizer.chat_template`
};

namespace detail {

/// \brief Turns the arrays of one GGUF file into a tokenizer's parts.
class gguf_vocabulary_reader {
 public:
  gguf_vocabulary_reader(const gguf_vocabulary& in, const std::string& file)
      : in_{in},
        file_{file},
        bytes_{in.model == "gpt2"},
        raw_{file, bytes_ ? piece_spelling::byte_level : piece_spelling::spaced} {}

  [[nodiscard]] tokenizer_parts read() {
    check();
    add_pieces();
    tokenizer_parts out;
    out.name = file_;
    out.bos = id_of(in_.bos_token_id, "bos_token_id");
    out.eos = id_of(in_.eos_token_id, "eos_token_id");
    out.unk = id_of(in_.unknown_token_id, "unknown_token_id");
    out.byte_level = bytes_;
    out.strip = strip_rule::none;
    out.marks_in_text = true;
    out.added = added_tokens{std::move(added_), file_};
    out.chat_template = in_.chat_template;
    bytes_ ? finish_bytes(out) : finish_spaced(out);
    return out;
  }

 private:
  static std::string key(std::string_view name) { return concat("key \"tokenizer.ggml.", name, '"'); }

  void check() const;
  void add_pieces();
  void finish_bytes(tokenizer_parts& out);
  void finish_spaced(tokenizer_parts& out);

  [[nodiscard]] std::int32_t id_of(const std::optional<std::int64_t>& id, std::string_view name) const {
    if (!id || *id == -1 || *id == 0xFFFFFFFF) return -1;
    if (*id < 0 || *id >= raw_.size())
      refuse(file_, "id outside the vocabulary", concat(*id), concat("0 to ", raw_.size() - 1), key(name));
    return static_cast<std::int32_t>(*id);
  }

  const gguf_vocabulary& in_;
  const std::string& file_;
  bool bytes_;
  raw_vocabulary raw_;
  std::vector<added_token> added_;
};

inline void gguf_vocabulary_reader::check() const {
  if (!bytes_ && in_.model != "llama")
    refuse(file_, "unknown tokenizer", in_quotes(in_.model), "gpt2 or llama", key("model"),
           "Other kinds of tokenizers are not supported.");
  if (in_.tokens.empty()) refuse(file_, "no pieces", "0", "at least 1", key("tokens"));
  const auto same_size = [&, this](std::size_t size, std::string_view name) {
    if (size != in_.tokens.size())
      refuse(file_, "arrays of different sizes", concat(size),
             concat(in_.tokens.size(), ", as many as tokens"), key(name));
  };
  if (!in_.token_type.empty()) same_size(in_.token_type.size(), "token_type");
  if (!bytes_) same_size(in_.scores.size(), "scores");
  for (const float score : in_.scores)
    if (!std::isfinite(score)) refuse(file_, "wrong score", "NaN or infinity", "numbers", key("scores"));
}

inline void gguf_vocabulary_reader::add_pieces() {
  for (std::size_t i = 0; i < in_.tokens.size(); ++i) {
    const std::string& text = in_.tokens[i];
    const std::int32_t type = in_.token_type.empty() ? 1 : in_.token_type[i];
    const std::string where = concat("piece ", i);
    if (type < 1 || type > 6 || (type == 6 && bytes_))
      refuse(file_, "unknown type of a piece", concat(type), bytes_ ? "1 to 5" : "1 to 6", where);
    // Pairs are found in all pieces that come from joining; the length bounds the time.
    if (!bytes_ && type == 1 && text.size() > 256)
      refuse(file_, "wrong length of a piece", concat(text.size(), " bytes"), "at most 256", where);
    constexpr piece_kind kinds[] = {piece_kind::text,    piece_kind::unknown, piece_kind::control,
                                    piece_kind::literal, piece_kind::literal, piece_kind::byte};
    raw_.add(text, kinds[type - 1]);
    if ((type == 3 || type == 4) && !text.empty())
      added_.push_back({text, static_cast<std::int32_t>(i), type == 3});
  }
}

inline void gguf_vocabulary_reader::finish_bytes(tokenizer_parts& out) {
  const auto pattern = split_pattern_named(in_.pre);
  if (!pattern)
    refuse(file_, "unknown splitting pattern", in_quotes(in_.pre), "one of " + split_pattern_names(),
           key("pre"), "Tokenizers with other patterns are not supported.");
  for (const std::string& pair : in_.merges) raw_.add_written_merge(pair);
  out.split = *pattern;
  out.prefix = prefix_rule::none;
  out.ignore_merges = *pattern == split_pattern::llama_bpe;
  out.add_bos = in_.add_bos_token.value_or(*pattern == split_pattern::llama_bpe);
  out.merges = raw_.take_merges();
  out.pieces = raw_.to_text();
}

inline void gguf_vocabulary_reader::finish_spaced(tokenizer_parts& out) {
  const bool prefix = in_.add_space_prefix.value_or(true);
  out.prefix = prefix ? prefix_rule::always : prefix_rule::none;
  out.strip = prefix ? strip_rule::start : strip_rule::none;
  out.space_mark = true;
  out.add_bos = in_.add_bos_token.value_or(true);
  out.pieces = raw_.to_text();
  out.merges = merge_table::from_scores(out.pieces, in_.scores);
}

}  // namespace detail

/// \brief The tokenizer of a GGUF file.
/// \param file  name for messages
/// \throws format_error
[[nodiscard]] inline tokenizer tokenizer_from_gguf(const gguf_vocabulary& vocabulary,
                                                   const std::string& file) {
  return tokenizer{detail::gguf_vocabulary_reader{vocabulary, file}.read()};
}

}  // namespace pesc
