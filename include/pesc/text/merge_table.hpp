// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "pesc/core/types.hpp"
#include "pesc/text/utf8.hpp"
#include "pesc/text/vocabulary.hpp"

namespace pesc {

/// \brief Which neighbouring pieces join to which piece, and which pair goes first (byte-pair encoding).
class merge_table {
 public:
  struct merge {
    std::int32_t rank = 0;  ///< the lowest joins first
    std::int32_t piece = -1;
  };

  /// \brief A pair that joins; the first one given for a pair stays.
  void add(std::int32_t left, std::int32_t right, merge result) {
    rows_.push_back({key(left, right), result});
  }

  /// \brief Sorts the pairs for `find`; call once after the last `add`.
  void finish() {
    std::stable_sort(rows_.begin(), rows_.end(), [](const row& a, const row& b) { return a.pair < b.pair; });
    rows_.erase(
        std::unique(rows_.begin(), rows_.end(), [](const row& a, const row& b) { return a.pair == b.pair; }),
        rows_.end());
    std::size_t slots = 16;
    while (slots < 2 * rows_.size()) slots *= 2;
    slots_.assign(slots, -1);
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      std::size_t i = slot(rows_[r].pair);
      while (slots_[i] >= 0) i = (i + 1) & (slots_.size() - 1);
      slots_[i] = static_cast<std::int32_t>(r);
    }
  }

  /// \brief What `left` and `right` join to, or null.
  [[nodiscard]] const merge* find(std::int32_t left, std::int32_t right) const {
    if (left < 0 || right < 0 || slots_.empty()) return nullptr;
    const std::uint64_t pair = key(left, right);
    for (std::size_t i = slot(pair); slots_[i] >= 0; i = (i + 1) & (slots_.size() - 1)) {
      const row& r = rows_[static_cast<std::size_t>(slots_[i])];
      if (r.pair == pair) return &r.result;
    }
    return nullptr;
  }

  [[nodiscard]] std::size_t size() const { return rows_.size(); }

  /// \brief All pairs whose text together is a piece; the piece with the higher score goes first, equal ones are equal.
  [[nodiscard]] static merge_table from_scores(const vocabulary& pieces, std::span<const float> scores);

 private:
  struct row {
    std::uint64_t pair;
    merge result;
  };

  [[nodiscard]] static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
           static_cast<std::uint32_t>(right);
  }
  [[nodiscard]] std::size_t slot(std::uint64_t pair) const {
    // Multiplication by an odd constant spreads the ids; the upper half is the mixed one.
    return static_cast<std::size_t>(pair * 0x9E3779B97F4A7C15u >> 32) & (slots_.size() - 1);
  }

  std::vector<row> rows_;
  std::vector<std::int32_t> slots_;
};

inline merge_table merge_table::from_scores(const vocabulary& pieces, std::span<const float> scores) {
  std::vector<std::int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const auto score = [&](std::int32_t id) { return scores[static_cast<std::size_t>(id)]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return score(a) > score(b); });

  merge_table out;
  std::int32_t rank = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::int32_t id = order[i];
    if (i > 0 && score(order[i - 1]) != score(id)) ++rank;
    const std::string_view text = pieces.piece(id);
    if (pieces.kind(id) != piece_kind::text || pieces.find(text) != id) continue;
    // Encoding starts from characters, so pieces meet between characters only.
    for (std::size_t cut = utf8_first(text.empty() ? " " : text).length; cut < text.size();
         cut += utf8_first(text.substr(cut)).length) {
      const std::int32_t left = pieces.find(text.substr(0, cut));
      if (left < 0) continue;
      const std::int32_t right = pieces.find(text.substr(cut));
      if (right >= 0) out.add(left, right, {rank, id});
    }
  }
  out.finish();
  return out;
}

}  // namespace pesc
