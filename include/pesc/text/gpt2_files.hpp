// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/io/file.hpp"
#include "pesc/io/json.hpp"
#include "pesc/io/quoted.hpp"
#include "pesc/text/detail/refusal.hpp"
#include "pesc/text/raw_vocabulary.hpp"
#include "pesc/text/tokenizer.hpp"

namespace pesc {

/// \brief Reads the two files of GPT-2's tokenizer: pieces with their ids (JSON), and pairs, best first.
struct gpt2_files {
  static constexpr index_t max_file = index_t{64} << 20;

  /// \brief The file of pairs beside one of pieces: merges.txt for vocab.json, a_merges.txt for a_vocab.json.
  [[nodiscard]] static std::string merges_beside(const std::string& vocab_path) {
    constexpr std::string_view end = "vocab.json";
    const std::size_t slash = vocab_path.rfind('/') + 1;  // 0 where there is none
    return vocab_path.ends_with(end) ? vocab_path.substr(0, vocab_path.size() - end.size()) + "merges.txt"
                                     : vocab_path.substr(0, slash) + "merges.txt";
  }

  /// \throws io_error, format_error
  [[nodiscard]] static tokenizer load(const std::string& vocab_path, const std::string& merges_path) {
    const json vocab = read_json(vocab_path);
    return from(vocab_path, vocab, merges_path, as_text(read_file(merges_path, max_file)));
  }

  /// \brief The same from what the files hold; the names are for messages.
  /// \throws format_error
  [[nodiscard]] static tokenizer from(const std::string& vocab_file, const json& vocab,
                                      const std::string& merges_file, std::string_view merges);

 private:
  static raw_vocabulary pieces_of(const std::string& file, const json& vocab);
};

inline raw_vocabulary gpt2_files::pieces_of(const std::string& file, const json& vocab) {
  if (!vocab.is_object() || vocab.members().empty())
    detail::refuse(file, "no vocabulary", vocab.type_name(), "an object of pieces with their ids", "byte 0");
  std::vector<const std::string*> by_id(vocab.members().size());
  for (const auto& [piece, value] : vocab.members()) {
    const auto id = value.to_int();
    const std::string where = "piece " + in_quotes(piece);
    if (!id) detail::refuse(file, "wrong id", value.type_name(), "an integer", where);
    if (*id < 0 || *id >= static_cast<std::int64_t>(by_id.size()))
      detail::refuse(file, "id outside the vocabulary", detail::concat(*id),
                     detail::concat("0 to ", by_id.size() - 1), where, "Ids must be without holes.");
    const std::string*& place = by_id[static_cast<std::size_t>(*id)];
    if (place != nullptr)
      detail::refuse(file, "duplicate id", in_quotes(piece) + " and " + in_quotes(*place), "one piece",
                     detail::concat("id ", *id));
    place = &piece;
  }
  raw_vocabulary out{file, piece_spelling::byte_level};
  for (const std::string* piece : by_id)
    out.add(*piece, *piece == "<|endoftext|>" ? piece_kind::control : piece_kind::text);
  return out;
}

inline tokenizer gpt2_files::from(const std::string& vocab_file, const json& vocab,
                                  const std::string& merges_file, std::string_view merges) {
  raw_vocabulary raw = pieces_of(vocab_file, vocab);
  for (std::size_t line = 1; !merges.empty(); ++line) {
    const std::size_t end = std::min(merges.find('\n'), merges.size());
    std::string_view pair = merges.substr(0, end);
    merges.remove_prefix(std::min(end + 1, merges.size()));
    if (pair.ends_with('\r')) pair.remove_suffix(1);
    if (pair.empty() || (line == 1 && pair.starts_with("#version"))) continue;
    raw.add_written_merge(pair, detail::concat(merges_file, " line ", line));
  }
  tokenizer_parts out;
  out.name = vocab_file;
  out.bos = out.eos = raw.find("<|endoftext|>");
  out.unk = -1;
  out.add_bos = false;
  out.byte_level = true;
  out.split = split_pattern::gpt2;
  out.prefix = prefix_rule::none;
  out.strip = strip_rule::none;
  out.marks_in_text = true;
  if (out.eos >= 0) out.added = added_tokens{{{"<|endoftext|>", out.eos, true}}, vocab_file};
  out.merges = raw.take_merges();
  out.pieces = raw.to_text();
  return tokenizer{std::move(out)};
}

}  // namespace pesc
