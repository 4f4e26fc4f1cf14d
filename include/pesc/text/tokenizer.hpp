// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"
#include "pesc/text/detail/text_encoder.hpp"
#include "pesc/text/tokenizer_parts.hpp"
#include "pesc/text/vocabulary.hpp"

namespace pesc {

/// \brief What becomes of marks that a text names, such as "<s>".
enum class mark_rule : std::uint8_t {
  file,  ///< as the tokenizer's file says
  text,  ///< they are text as any other: for texts of strangers
  ids,   ///< they become their ids
};

/// \brief Choices of one call of `encode`.
struct encode_options {
  bool bos = true;           ///< begin with the mark of a text's start, where the file has that rule
  bool eos = false;          ///< end with the mark of a text's end
  bool dummy_prefix = true;  ///< one space before the text, where the vocabulary was trained so
  mark_rule marks = mark_rule::file;
};

/// \brief Choices of `decode`.
struct decode_options {
  bool skip_control = true;  ///< leave marks out instead of printing their names
  bool strip_prefix = true;  ///< drop the one space that `encode` put before a text
};

/// \brief A stretch of a text, in bytes.
struct text_range {
  std::size_t begin = 0;
  std::size_t end = 0;
};

/// \brief Turns text into ids and back by byte-pair encoding over characters or bytes.
class tokenizer {
 public:
  tokenizer() = default;

  /// \throws format_error when some text would have no ids; of byte-level vocabularies, text of printable ASCII
  explicit tokenizer(tokenizer_parts parts);

  [[nodiscard]] const std::string& name() const { return parts_.name; }
  [[nodiscard]] std::int32_t size() const { return parts_.pieces.size(); }
  [[nodiscard]] std::int32_t bos() const { return parts_.bos; }
  [[nodiscard]] std::int32_t eos() const { return parts_.eos; }
  [[nodiscard]] std::int32_t unk() const { return parts_.unk; }

  /// \brief Whether texts begin with `bos` by the rules of the file.
  [[nodiscard]] bool add_bos() const { return parts_.add_bos && parts_.bos >= 0; }

  /// \brief The chat template of the file as it stands there (Jinja); empty when there is none.
  [[nodiscard]] const std::string& chat_template() const { return parts_.chat_template; }

  /// \brief The same with another chat template, from a file beside the tokenizer's.
  void set_chat_template(std::string jinja) { parts_.chat_template = std::move(jinja); }

  /// \brief Marks the start and the end of texts by other pieces, -1 for none; `add_bos` stays as it is.
  void set_marks(std::int32_t bos, std::int32_t eos) {
    PESC_EXPECTS(bos >= -1 && bos < size() && eos >= -1 && eos < size(), parts_.name, ": marks ", bos,
                 " and ", eos, " are outside the vocabulary of ", size(), " pieces");
    parts_.bos = bos;
    parts_.eos = eos;
  }

  /// \brief Whether every byte has an id, so that no text is lost.
  [[nodiscard]] bool has_all_bytes() const { return has_all_bytes_; }

  /// \brief The text of a piece; for byte pieces, marks and the unknown piece its name.
  [[nodiscard]] std::string_view piece(std::int32_t id) const {
    check(id);
    return parts_.pieces.piece(id);
  }
  [[nodiscard]] piece_kind kind(std::int32_t id) const {
    check(id);
    return parts_.pieces.kind(id);
  }

  /// \brief Id of the mark or other added token with this name; -1 when there is none.
  [[nodiscard]] std::int32_t find_mark(std::string_view text) const {
    for (const added_tokens* set : {&parts_.added, &parts_.later})
      if (const added_token* found = set->find(text)) return found->id;
    for (std::int32_t id = 0; id < size(); ++id)
      if (parts_.pieces.kind(id) == piece_kind::control && parts_.pieces.piece(id) == text) return id;
    return -1;
  }

  /// \brief Ids of `text`; bytes that are not UTF-8 get the ids of their bytes. Time n log n.
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text,
                                                 const encode_options& options = {}) const {
    return encode(text, {}, options);
  }

  /// \brief The same with stretches in which marks are text whatever the options say.
  /// \param untrusted  in ascending order, inside the text
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text, std::span<const text_range> untrusted,
                                                 const encode_options& options = {}) const;

  /// \brief The bytes that ids stand for; they need not be whole characters.
  /// \throws shape_error for an id outside the vocabulary
  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids,
                                   const decode_options& options = {}) const;

  /// \brief The bytes of one id, for output as it comes; empty for marks.
  /// \param at_start  the id is the first of a text: the space that `encode` puts there is dropped
  /// \throws shape_error for an id outside the vocabulary
  [[nodiscard]] std::string_view decode_piece(std::int32_t id, bool at_start = false) const {
    check(id);
    std::string_view piece = parts_.pieces.piece(id);
    const piece_kind kind = parts_.pieces.kind(id);
    if (kind == piece_kind::control) return {};
    if (kind == piece_kind::byte) piece = {&all_bytes()[byte_of_piece(piece).value_or(0)], 1};
    if (kind == piece_kind::unknown && !parts_.unk_text.empty()) piece = parts_.unk_text;
    return at_start && parts_.strip != strip_rule::none && piece.starts_with(' ') ? piece.substr(1) : piece;
  }

  [[nodiscard]] bool is_control(std::int32_t id) const {
    check(id);
    return parts_.pieces.kind(id) == piece_kind::control;
  }

  /// \brief Checks that every row of an embedding has a piece.
  /// \throws format_error
  void expect_vocabulary(index_t rows) const {
    if (size() != rows)
      detail::raise<format_error>(detail::concat(parts_.name, " has ", size(), " pieces, the embedding has ",
                                                 rows,
                                                 " rows. Use the tokenizer that belongs to the model."));
  }

 private:
  void check(std::int32_t id) const {
    PESC_EXPECTS(id >= 0 && id < size(), parts_.name, ": id ", id, " is outside the vocabulary of ", size(),
                 " pieces");
  }

  [[nodiscard]] static const std::array<char, 256>& all_bytes() {
    static const std::array<char, 256> bytes = [] {
      std::array<char, 256> out{};
      for (std::size_t i = 0; i < 256; ++i) out[i] = static_cast<char>(static_cast<unsigned char>(i));
      return out;
    }();
    return bytes;
  }

  tokenizer_parts parts_;
  std::array<std::int32_t, 256> byte_ids_{};
  bool has_all_bytes_ = false;
};

inline tokenizer::tokenizer(tokenizer_parts parts) : parts_{std::move(parts)} {
  byte_ids_.fill(-1);
  for (std::size_t b = 0; parts_.byte_level && b < 256; ++b)
    byte_ids_[b] = parts_.pieces.find({&all_bytes()[b], 1});
  for (std::int32_t id = 0; !parts_.byte_level && id < size(); ++id) {
    if (parts_.pieces.kind(id) != piece_kind::byte) continue;
    const auto byte = byte_of_piece(parts_.pieces.piece(id));
    if (byte && byte_ids_[*byte] < 0) byte_ids_[*byte] = id;
  }
  has_all_bytes_ = true;
  int missing = -1;
  for (int b = 0; b < 256; ++b) {
    if (byte_ids_[static_cast<std::size_t>(b)] >= 0) continue;
    has_all_bytes_ = false;
    // Published byte-level vocabularies lack rare bytes, which their tokenizers leave out of a text.
    const bool rare = (b < 0x20 && b != '\t' && b != '\n') || b >= 0x7F;
    if (missing < 0 && !(parts_.byte_level && rare)) missing = b;
  }
  if (missing >= 0 && parts_.unk < 0)
    detail::raise<format_error>(detail::concat(parts_.name,
                                               ": the vocabulary has no unknown piece and not all 256 byte "
                                               "pieces, so some texts would have no ids (byte ",
                                               missing, " has none)"));
}

inline std::string tokenizer::decode(std::span<const std::int32_t> ids, const decode_options& options) const {
  std::string out;
  bool at_start = options.strip_prefix;
  for (const std::int32_t id : ids) {
    if (is_control(id)) {
      if (!options.skip_control) out += parts_.pieces.piece(id);
      if (parts_.strip == strip_rule::each_bos)
        at_start = options.strip_prefix && (at_start || id == parts_.bos);
      else
        at_start = at_start && options.skip_control;
      continue;
    }
    out += decode_piece(id, at_start);
    at_start = false;
  }
  return out;
}

inline std::vector<std::int32_t> tokenizer::encode(std::string_view text,
                                                   std::span<const text_range> untrusted,
                                                   const encode_options& options) const {
  PESC_EXPECTS(text.size() < std::size_t{1} << 30, parts_.name, ": a text of ", text.size(),
               " bytes is too long to encode at once, at most 2^30");
  std::string guard(untrusted.empty() ? 0 : text.size(), '\0');
  for (const text_range& r : untrusted) {
    PESC_EXPECTS(r.begin <= r.end && r.end <= text.size(), parts_.name, ": bytes ", r.begin, " to ", r.end,
                 " are outside the text of ", text.size(), " bytes");
    guard.replace(r.begin, r.end - r.begin, r.end - r.begin, '\1');
  }
  std::vector<std::int32_t> out;
  if (options.bos && add_bos()) out.push_back(parts_.bos);
  const bool marks =
      options.marks == mark_rule::ids || (options.marks == mark_rule::file && parts_.marks_in_text);
  const prefix_rule prefix = options.dummy_prefix ? parts_.prefix : prefix_rule::none;
  if (!text.empty()) detail::text_encoder{parts_, byte_ids_, marks, prefix, out}.add(text, guard);
  if (options.eos && parts_.eos >= 0) out.push_back(parts_.eos);
  return out;
}

}  // namespace pesc
