// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/io/element_type.hpp"
#include "pesc/io/file.hpp"
#include "pesc/io/file_kind.hpp"
#include "pesc/io/quoted.hpp"
#include "pesc/text/tokenizer.hpp"

namespace pesc {

/// \brief Reads tokenizer files of llama2.c.
///
/// Layout: int32 length of the longest piece; then per piece float32 score, int32 length, that many bytes. The
/// number of pieces is not in the file. Ids 0, 1, 2 are unknown, start and end; spaces stand as spaces.
struct llama2c_tokenizer {
  // Both bound the time to find all pairs, size times length of a piece; vocabularies in use stay far below.
  static constexpr index_t max_piece = 256;
  static constexpr index_t max_file = index_t{16} << 20;

  /// \param pieces  rows of the model's embedding; -1 takes all pieces of the file
  /// \throws io_error, format_error when the file is damaged or has fewer or more pieces
  [[nodiscard]] static tokenizer load(const std::string& path, index_t pieces = -1) {
    return parse(path, read_file(path, max_file), pieces);
  }

  /// \param file  name for messages
  /// \throws format_error
  [[nodiscard]] static tokenizer parse(const std::string& file, std::span<const std::byte> bytes,
                                       index_t pieces = -1) {
    tokenizer_parts parts;
    parts.name = file;
    parts.unk = 0;
    parts.bos = 1;
    parts.eos = 2;
    const std::vector<float> scores = read_pieces(file, bytes, parts.pieces);
    if (parts.pieces.size() < 3)
      detail::raise<format_error>(detail::concat(file, ": the file has ", parts.pieces.size(),
                                                 " pieces, expected at least unknown, start and end"));
    if (pieces >= 0 && parts.pieces.size() != pieces)
      detail::raise<format_error>(detail::concat(file, " has ", parts.pieces.size(),
                                                 " pieces, the embedding has ", pieces,
                                                 " rows. Use the tokenizer that belongs to the model."));
    // The file names its marks in a form of its own.
    parts.added = added_tokens{{{"<s>", 1, true}, {"</s>", 2, true}}, file};
    parts.merges = merge_table::from_scores(parts.pieces, scores);
    return tokenizer{std::move(parts)};
  }

 private:
  static std::vector<float> read_pieces(const std::string& file, std::span<const std::byte> bytes,
                                        vocabulary& out) {
    const auto fail = [&](std::size_t at, const std::string& what) {
      const std::string foreign = describe_foreign_file(bytes);
      detail::raise<format_error>(foreign.empty() ? detail::concat(file, ": byte ", at, ": ", what)
                                                  : file + ": " + foreign);
    };
    if (bytes.size() < 4) fail(bytes.size(), "the tokenizer ends before the length of its longest piece");
    const index_t longest = load_unaligned<std::int32_t>(bytes.data());
    if (longest < 1 || longest > max_piece)
      fail(0, detail::concat("longest piece of ", longest, " bytes, expected 1 to ", max_piece));
    std::vector<float> scores;
    std::size_t at = 4;
    while (at < bytes.size()) {
      const std::string which = detail::concat("piece ", scores.size(), ": ");
      if (bytes.size() - at < 8) fail(at, which + "the file ends inside it. The download may be cut short.");
      const auto score = load_unaligned<float>(bytes.data() + at);
      const index_t length = load_unaligned<std::int32_t>(bytes.data() + at + 4);
      if (!std::isfinite(score)) fail(at, which + "the score is not finite");
      if (length < 0 || length > longest)
        fail(at + 4, detail::concat(which, "length ", length, ", expected 0 to ", longest));
      if (static_cast<index_t>(bytes.size() - at - 8) < length)
        fail(at, which + "the file ends inside it. The download may be cut short.");
      const std::string_view text = as_text(bytes.subspan(at + 8, static_cast<std::size_t>(length)));
      const piece_kind kind = scores.empty()        ? piece_kind::unknown
                              : scores.size() < 3   ? piece_kind::control
                              : byte_of_piece(text) ? piece_kind::byte
                                                    : piece_kind::text;
      out.add(text, kind);
      scores.push_back(score);
      at += 8 + static_cast<std::size_t>(length);
    }
    return scores;
  }
};

}  // namespace pesc
