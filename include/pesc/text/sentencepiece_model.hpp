// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/io/file.hpp"
#include "pesc/io/file_kind.hpp"
#include "pesc/io/quoted.hpp"
#include "pesc/text/detail/refusal.hpp"
#include "pesc/text/protobuf_reader.hpp"
#include "pesc/text/raw_vocabulary.hpp"
#include "pesc/text/tokenizer.hpp"

namespace pesc {
namespace detail {

/// \brief Reads the messages of one tokenizer.model. Numbers of fields are those of sentencepiece_model.proto.
class sentencepiece_reader {
 public:
  // Bounds the time to find all pairs, size times length of a piece; vocabularies in use stay far below.
  static constexpr std::size_t longest_piece = 256;

  sentencepiece_reader(const std::string& file, std::string_view text)
      : file_{file}, text_{text}, raw_{file, piece_spelling::spaced} {}

  [[nodiscard]] tokenizer_parts read();

 private:
  void piece(protobuf_reader message);
  void trainer(protobuf_reader message);
  void normalizer(protobuf_reader message, std::string_view key);
  void set_marks(tokenizer_parts& out) const;

  [[noreturn]] void unsupported(std::string_view what, std::string_view found, std::string_view expected,
                                std::string_view key) const {
    refuse(file_, concat("unsupported ", what), found, expected, concat("key ", in_quotes(key)),
           "Models with other settings are not supported.");
  }

  const std::string& file_;
  std::string_view text_;
  raw_vocabulary raw_;
  std::vector<float> scores_;
  std::vector<added_token> marks_, whole_;
  int model_type_ = 1;
  bool byte_fallback_ = false;
  bool dummy_prefix_ = true;
  bool normalizer_seen_ = false;
  std::int32_t bos_ = 1, eos_ = 2;
  std::string bos_piece_ = "<s>", eos_piece_ = "</s>";
  std::string unk_text_ = " \xE2\x81\x87 ";
};

inline void sentencepiece_reader::piece(protobuf_reader message) {
  const std::int32_t id = raw_.size();
  const std::string where = concat("piece ", id);
  std::string_view text;
  float score = 0;
  std::uint64_t type = 1;
  while (message.next()) {
    if (message.field() == 1) text = message.text();
    if (message.field() == 2) score = message.float32();
    if (message.field() == 3) type = message.number();
  }
  if (text.empty() || text.size() > longest_piece)
    refuse(file_, "wrong length of a piece", concat(text.size(), " bytes"), concat("1 to ", longest_piece),
           where);
  if (!std::isfinite(score)) refuse(file_, "wrong score", "NaN or infinity", "a number", where);
  if (raw_.find(text) >= 0) refuse(file_, "duplicate piece", in_quotes(text), "every piece once", where);
  constexpr piece_kind kinds[] = {piece_kind::text,    piece_kind::unknown, piece_kind::control,
                                  piece_kind::literal, piece_kind::unknown, piece_kind::byte};
  if (type < 1 || type > 6 || type == 5)
    refuse(file_, "unsupported type of a piece", type == 5 ? "5 (unused)" : concat(type),
           "1 (normal), 2 (unknown), 3 (control), 4 (user-defined) or 6 (byte)", where);
  const piece_kind kind = kinds[type - 1];
  if (kind == piece_kind::control) marks_.push_back({std::string{text}, id, true});
  if (kind == piece_kind::literal) whole_.push_back({unmarked_spaces(text), id});
  raw_.add(text, kind);
  scores_.push_back(score);
}

inline void sentencepiece_reader::trainer(protobuf_reader message) {
  while (message.next()) switch (message.field()) {
      case 3:
        model_type_ = message.int32();
        break;
      case 24:
        if (message.flag()) unsupported("spaces behind words", "true", "false", "treat_whitespace_as_suffix");
        break;
      case 35:
        byte_fallback_ = message.flag();
        break;
      case 41:
        bos_ = message.int32();
        break;
      case 42:
        eos_ = message.int32();
        break;
      case 44:
        unk_text_ = message.text();
        break;
      case 46:
        bos_piece_ = message.text();
        break;
      case 47:
        eos_piece_ = message.text();
        break;
      default:
        break;
    }
}

/// \param key  name of the message; of `denormalizer_spec` only the table counts
inline void sentencepiece_reader::normalizer(protobuf_reader message, std::string_view key) {
  const bool own = key == "normalizer_spec";
  bool extra_spaces_go = true;
  std::string name;
  while (message.next()) switch (message.field()) {
      case 1:
        name = message.text();
        break;
      case 2:
        if (const std::string_view table = message.text(); !table.empty())
          unsupported("normalisation", in_quotes(name.empty() ? concat(table.size(), " bytes") : name),
                      "identity", std::string{key} + ".precompiled_charsmap");
        break;
      case 3:
        dummy_prefix_ = own ? message.flag() : dummy_prefix_;
        break;
      case 4:
        extra_spaces_go = message.flag();
        break;
      case 5:
        if (own && !message.flag())
          unsupported("spaces", "false", "true", "normalizer_spec.escape_whitespaces");
        break;
      default:
        break;
    }
  if (own && extra_spaces_go)
    unsupported("normalisation", "true", "false", "normalizer_spec.remove_extra_whitespaces");
  normalizer_seen_ = normalizer_seen_ || own;
}

inline void sentencepiece_reader::set_marks(tokenizer_parts& out) const {
  const auto mark = [&, this](std::int32_t id, const std::string& name, const char* key) {
    if (id < 0) return -1;
    // Models whose trainer was told other ids name the piece.
    if (const std::int32_t named = raw_.find(name); named >= 0 && raw_.kind(named) == piece_kind::control)
      return named;
    if (id >= raw_.size())
      refuse(file_, "id outside the vocabulary", concat(id), concat("0 to ", raw_.size() - 1),
             concat("key \"trainer_spec.", key, '"'));
    return raw_.kind(id) == piece_kind::control ? id : -1;
  };
  out.bos = mark(bos_, bos_piece_, "bos_id");
  out.eos = mark(eos_, eos_piece_, "eos_id");
  for (std::int32_t id = 0; id < raw_.size(); ++id) {
    if (raw_.kind(id) != piece_kind::unknown) continue;
    if (out.unk >= 0)
      refuse(file_, "two unknown pieces", concat("ids ", out.unk, " and ", id), "one", concat("piece ", id));
    out.unk = id;
  }
}

inline tokenizer_parts sentencepiece_reader::read() {
  protobuf_reader message{text_, file_};
  while (message.next()) {
    if (message.field() == 1) piece(message.message());
    if (message.field() == 2) trainer(message.message());
    if (message.field() == 3) normalizer(message.message(), "normalizer_spec");
    if (message.field() == 5) normalizer(message.message(), "denormalizer_spec");
  }
  if (raw_.size() == 0)
    refuse(file_, "no pieces", "0", "at least 1", "key \"pieces\"", "This may be no tokenizer.model.");
  constexpr const char* types[] = {"1 (unigram)", "2 (BPE)", "3 (word)", "4 (char)"};
  if (model_type_ != 2)
    unsupported("model type",
                model_type_ >= 1 && model_type_ <= 4 ? types[model_type_ - 1] : concat(model_type_),
                "2 (BPE)", "trainer_spec.model_type");
  if (!normalizer_seen_)
    unsupported("normalisation", "none", "remove_extra_whitespaces false", "normalizer_spec");
  tokenizer_parts out;
  out.name = file_;
  set_marks(out);
  out.unk_text = unk_text_;
  out.prefix = dummy_prefix_ ? prefix_rule::always : prefix_rule::none;
  out.strip = dummy_prefix_ ? strip_rule::start : strip_rule::none;
  out.space_mark = true;
  out.added = added_tokens{std::move(marks_), file_};
  out.later = added_tokens{std::move(whole_), file_};
  out.pieces = raw_.to_text();
  out.merges = merge_table::from_scores(out.pieces, scores_);
  return out;
}

}  // namespace detail

/// \brief Reads tokenizer.model of SentencePiece: byte-pair encoding without normalisation of characters.
struct sentencepiece_model {
  static constexpr index_t max_file = index_t{16} << 20;

  /// \throws io_error, format_error
  [[nodiscard]] static tokenizer load(const std::string& path) {
    return parse(path, as_text(read_file(path, max_file)));
  }

  /// \param file  name for messages
  /// \throws format_error
  [[nodiscard]] static tokenizer parse(const std::string& file, std::string_view text) {
    if (const std::string foreign = describe_foreign_file(as_bytes(text)); !foreign.empty())
      detail::raise<format_error>(file + ": " + foreign);
    return tokenizer{detail::sentencepiece_reader{file, text}.read()};
  }
};

}  // namespace pesc
