// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/io/file.hpp"
#include "pesc/io/json.hpp"
#include "pesc/io/quoted.hpp"
#include "pesc/text/detail/refusal.hpp"
#include "pesc/text/detail/tokenizer_json_steps.hpp"
#include "pesc/text/raw_vocabulary.hpp"
#include "pesc/text/tokenizer.hpp"

namespace pesc {
namespace detail {

/// \brief Puts pieces, merges and steps of one tokenizer.json together.
class tokenizer_json_reader {
 public:
  tokenizer_json_reader(const json& value, const std::string& file)
      : root_{value, file},
        model_{root_.get_object("model")},
        steps_{(check_model(), json_steps_reader{root_}.read())},
        raw_{file, steps_.byte_level ? piece_spelling::byte_level : piece_spelling::spaced} {}

  [[nodiscard]] tokenizer_parts read() {
    read_pieces();
    add_merges();
    tokenizer_parts out;
    out.name = root_.file();
    add_tokens(out);
    set_marks(out);
    out.byte_level = steps_.byte_level;
    out.ignore_merges = model_.get_bool("ignore_merges", false);
    out.fuse_unk = model_.get_bool("fuse_unk", false);
    out.split = steps_.split;
    out.prefix = steps_.prefix;
    out.strip = steps_.strip;
    out.space_mark = !steps_.byte_level;
    out.late_prefix = steps_.late_prefix;
    out.marks_in_text = true;
    out.merges = raw_.take_merges();
    out.pieces = raw_.to_text();
    return out;
  }

 private:
  struct entry {
    std::string_view piece;
    const json* added = nullptr;  ///< its entry of `added_tokens`
    bool in_model = false;
  };

  void check_model();
  void read_pieces();
  void place(std::vector<entry>& all, std::string_view piece, std::int64_t id, const json* added) const;
  [[nodiscard]] std::vector<json> added() const {
    return root_.has("added_tokens") ? root_.get_list("added_tokens") : std::vector<json>{};
  }
  [[nodiscard]] piece_kind kind_of(const entry& e) const;
  void add_merges();
  void add_tokens(tokenizer_parts& out) const;
  void set_marks(tokenizer_parts& out) const;
  [[nodiscard]] std::int32_t first_mark(std::initializer_list<std::string_view> names) const;

  json_fields root_;
  json_fields model_;
  json_steps steps_;
  raw_vocabulary raw_;
  std::vector<json> added_;
};

inline void tokenizer_json_reader::check_model() {
  // Files of the first versions do not name the type.
  const std::string type = model_.get_string("type", model_.has("merges") ? "BPE" : "");
  if (type != "BPE")
    refuse(root_.file(), "unknown model type", type.empty() ? "none" : in_quotes(type), "BPE",
           "key \"model.type\"", "Other kinds of tokenizers are not supported.");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (const std::string value = model_.get_string(key, ""); !value.empty())
      refuse(root_.file(), concat("unsupported ", key), in_quotes(value), "none",
             concat("key \"model.", key, "\""));
  if (const double dropout = model_.get_double("dropout", 0); dropout != 0)
    refuse(root_.file(), "unsupported dropout", concat(dropout), "none", "key \"model.dropout\"");
}

/// \brief Takes a piece into the table of ids; a piece may come from the model and as an added token.
inline void tokenizer_json_reader::place(std::vector<entry>& all, std::string_view piece, std::int64_t id,
                                         const json* added) const {
  const auto count = static_cast<std::int64_t>(all.size());
  if (id < 0 || id >= count)
    refuse(root_.file(), "id outside the vocabulary", concat(id), concat("0 to ", count - 1),
           concat("piece ", in_quotes(piece)), "Ids must be without holes.");
  entry& e = all[static_cast<std::size_t>(id)];
  if (e.piece.data() != nullptr && (added == nullptr || e.added != nullptr || e.piece != piece))
    refuse(root_.file(), "duplicate id", concat(in_quotes(piece), " and ", in_quotes(e.piece)), "one piece",
           concat("id ", id));
  e.piece = piece;
  e.added = added;
  e.in_model = e.in_model || added == nullptr;
}

inline void tokenizer_json_reader::read_pieces() {
  static_cast<void>(model_.get_object("vocab"));  // says so when it is none
  const auto& vocab = model_.find("vocab")->members();
  added_ = added();
  // An added token is one more piece unless the model has its text.
  std::size_t count = vocab.size();
  for (const json& token : added_)
    if (model_.find("vocab")->find(json_fields{token, root_.file(), "added_tokens."}.get_string("content")) ==
        nullptr)
      ++count;
  std::vector<entry> all(count);
  for (const auto& [piece, id] : vocab) {
    const auto number = id.to_int();
    if (!number)
      refuse(root_.file(), "wrong id", id.type_name(), "an integer", concat("piece ", in_quotes(piece)));
    place(all, piece, *number, nullptr);
  }
  for (const json& token : added_) {
    const json_fields fields{token, root_.file(), "added_tokens."};
    place(all, *token.find("content")->if_string(), fields.get_int("id"), &token);
  }
  for (std::size_t id = 0; id < all.size(); ++id)
    if (all[id].piece.data() == nullptr)
      refuse(root_.file(), "hole in the vocabulary", "no piece", "one for every id", concat("id ", id));
  for (const entry& e : all) raw_.add(e.piece, kind_of(e));
}

inline piece_kind tokenizer_json_reader::kind_of(const entry& e) const {
  if (e.added != nullptr && json_fields{*e.added, root_.file(), "added_tokens."}.get_bool("special", false))
    return piece_kind::control;
  if (e.in_model && e.piece == model_.get_string("unk_token", "")) return piece_kind::unknown;
  if (!e.in_model) return piece_kind::literal;
  if (!model_.get_bool("byte_fallback", false)) return piece_kind::text;
  // The length of a byte piece with its signs is a byte piece, or a damaged one, which `add` refuses.
  return e.piece.size() == 6 && e.piece.starts_with("<0x") && e.piece.ends_with('>') ? piece_kind::byte
                                                                                     : piece_kind::text;
}

inline void tokenizer_json_reader::add_merges() {
  for (const json& merge : model_.get_list("merges")) {
    if (const std::string* pair = merge.if_string()) {
      raw_.add_written_merge(*pair);
      continue;
    }
    const auto& two = merge.items();
    if (two.size() != 2 || !two[0].is_string() || !two[1].is_string())
      refuse(root_.file(), "wrong merge", merge.type_name(), "\"a b\" or [\"a\", \"b\"]",
             "key \"model.merges\"");
    raw_.add_merge(*two[0].if_string(), *two[1].if_string());
  }
}

inline void tokenizer_json_reader::add_tokens(tokenizer_parts& out) const {
  std::vector<added_token> first, later;
  for (const json& token : added_) {
    const json_fields fields{token, root_.file(), "added_tokens."};
    const std::string content = fields.get_string("content");
    if (fields.get_bool("single_word", false))
      refuse(root_.file(), "unsupported added token", "single_word true", "false",
             concat("added token ", in_quotes(content)));
    added_token t{content, static_cast<std::int32_t>(fields.get_int("id")), fields.get_bool("special", false),
                  fields.get_bool("lstrip", false), fields.get_bool("rstrip", false)};
    if (!fields.get_bool("normalized", !t.special)) {
      first.push_back(std::move(t));
      continue;
    }
    // Found in the normalised text, so the normalizer has gone over it too.
    if (!steps_.byte_level && !steps_.late_prefix)
      t.text = (steps_.prefix == prefix_rule::always ? " " : "") + unmarked_spaces(t.text);
    later.push_back(std::move(t));
  }
  out.added = added_tokens{std::move(first), root_.file()};
  out.later = added_tokens{std::move(later), root_.file()};
}

inline void tokenizer_json_reader::set_marks(tokenizer_parts& out) const {
  const auto named = [&, this](const std::string& name, const char* where) {
    const std::int32_t id = raw_.find(name);
    if (id < 0)
      refuse(root_.file(), "unknown mark", in_quotes(name), "a piece of the vocabulary",
             concat("key \"", where, "\""));
    return id;
  };
  out.add_bos = !steps_.bos.empty();
  out.bos = steps_.bos.empty() ? first_mark({"<s>", "<|begin_of_text|>"})
                               : named(steps_.bos, "post_processor.single");
  out.eos = steps_.eos.empty() ? first_mark({"</s>", "<|end_of_text|>", "<|endoftext|>"})
                               : named(steps_.eos, "post_processor.single");
  if (const std::string unk = model_.get_string("unk_token", ""); !unk.empty())
    out.unk = named(unk, "model.unk_token");
  if (model_.get_bool("byte_fallback", false) != (!steps_.byte_level && steps_.byte_fallback))
    refuse(root_.file(), "byte_fallback and decoder do not agree",
           concat("byte_fallback ", model_.get_bool("byte_fallback", false) ? "true" : "false"),
           steps_.byte_level      ? "false with ByteLevel"
           : steps_.byte_fallback ? "true with the step ByteFallback"
                                  : "false without the step ByteFallback",
           "key \"model.byte_fallback\"");
}

inline std::int32_t tokenizer_json_reader::first_mark(std::initializer_list<std::string_view> names) const {
  for (const std::string_view name : names)
    if (const std::int32_t id = raw_.find(name); id >= 0 && raw_.kind(id) == piece_kind::control) return id;
  return -1;
}

}  // namespace detail

/// \brief Reads tokenizer.json of Hugging Face: byte-pair encoding, byte-level or SentencePiece style.
struct tokenizer_json {
  static constexpr index_t max_file = index_t{64} << 20;

  /// \throws io_error, format_error
  [[nodiscard]] static tokenizer load(const std::string& path) {
    return parse(path, as_text(read_file(path, max_file)));
  }

  /// \param file  name for messages
  /// \throws format_error
  [[nodiscard]] static tokenizer parse(const std::string& file, std::string_view text) {
    return from(file, parse_json(text, file));
  }

  /// \throws format_error
  [[nodiscard]] static tokenizer from(const std::string& file, const json& value) {
    return tokenizer{detail::tokenizer_json_reader{value, file}.read()};
  }
};

}  // namespace pesc
