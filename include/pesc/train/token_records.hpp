// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/train/records.hpp"

namespace pesc {

/// \brief Turns text into token ids, without a begin and an end token.
template <class F>
concept TextEncoder = requires(F& f, std::string_view text) {
  { f(text) } -> std::convertible_to<std::vector<std::int32_t>>;
};

/// \brief Token ids of one record; the ids from `target_begin` on are what the loss counts.
struct token_record {
  std::span<const std::int32_t> ids;
  index_t target_begin = 1;  ///< at least 1, since nothing predicts the first token

  [[nodiscard]] index_t size() const { return static_cast<index_t>(ids.size()); }
  [[nodiscard]] index_t targets() const { return size() - target_begin; }
};

/// \brief Tokenised records of one data set in one block of memory.
class token_records {
 public:
  [[nodiscard]] index_t size() const { return static_cast<index_t>(target_begin_.size()); }
  [[nodiscard]] bool empty() const { return target_begin_.empty(); }

  [[nodiscard]] token_record operator[](index_t i) const {
    const auto k = static_cast<std::size_t>(i);
    return {std::span<const std::int32_t>{ids_}.subspan(offsets_[k], offsets_[k + 1] - offsets_[k]),
            target_begin_[k]};
  }

  /// \throws shape_error unless `target_begin` leaves a token to predict and one to predict it from
  void add(std::span<const std::int32_t> ids, index_t target_begin) {
    PESC_EXPECTS(target_begin >= 1 && target_begin < static_cast<index_t>(ids.size()), "record of ",
                 ids.size(), " tokens cannot have its target at token ", target_begin);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    offsets_.push_back(ids_.size());
    target_begin_.push_back(target_begin);
  }

  /// \brief Tokens of all records.
  [[nodiscard]] index_t tokens() const { return static_cast<index_t>(ids_.size()); }

 private:
  std::vector<std::int32_t> ids_;
  std::vector<std::size_t> offsets_{0};
  std::vector<index_t> target_begin_;
};

/// \brief Special tokens and the length at which records are cut.
struct token_options {
  std::int32_t begin = 1;    ///< id before every record, -1 for none
  std::int32_t end = 2;      ///< id after every target, -1 for none
  index_t max_tokens = 513;  ///< one more than the model takes in, since the last is only predicted
};

/// \brief What tokenising did to the records.
struct token_summary {
  index_t records = 0;
  index_t tokens = 0;
  index_t target_tokens = 0;
  index_t cut = 0;        ///< records longer than `max_tokens`, which lost their end
  index_t no_target = 0;  ///< records left out: no target token within `max_tokens`
};

/// \brief Tokenises records in any way, cut at `max_tokens`.
///
/// \param encode  `encode(record, ids)` fills the empty `ids` with a whole record and returns where its target begins
/// \throws format_error when no record is left
template <class Encode>
  requires std::invocable < Encode&, const text_record&, std::vector<std::int32_t>
& > [[nodiscard]] token_records tokenize_records(const std::vector<text_record>& records, Encode&& encode,
                                                 index_t max_tokens, token_summary& summary) {
  PESC_EXPECTS(max_tokens >= 2, "records are cut at ", max_tokens, " tokens, expected 2 or more");
  token_records out;
  summary = {};
  const std::size_t most = static_cast<std::size_t>(max_tokens);
  std::vector<std::int32_t> ids;
  for (const text_record& record : records) {
    ids.clear();
    const std::size_t begin = std::max<std::size_t>(encode(record, ids), 1);
    if (ids.size() > most) {
      ++summary.cut;
      ids.resize(most);
    }
    if (begin >= ids.size()) {
      ++summary.no_target;
      continue;
    }
    out.add(ids, static_cast<index_t>(begin));
    summary.target_tokens += static_cast<index_t>(ids.size() - begin);
  }
  summary.records = out.size();
  summary.tokens = out.tokens();
  if (out.empty())
    detail::raise<format_error>(detail::concat("none of ", records.size(),
                                               " records has a target token within ", max_tokens,
                                               " tokens. Allow longer records"));
  return out;
}

/// \brief The same with begin token, prompt and target encoded as one text, end token.
///
/// A token that reaches over the end of the prompt belongs to the target, so every byte of the target is
/// learnt.
template <TextEncoder Encode>
[[nodiscard]] token_records tokenize_records(const std::vector<text_record>& records, Encode&& encode,
                                             const token_options& options, token_summary& summary) {
  const auto whole = [&](const text_record& record, std::vector<std::int32_t>& ids) {
    if (options.begin >= 0) ids.push_back(options.begin);
    std::size_t begin = ids.size();
    const std::vector<std::int32_t> text = encode(std::string_view{record.prompt + record.target});
    ids.insert(ids.end(), text.begin(), text.end());
    if (record.ends && options.end >= 0) ids.push_back(options.end);
    if (record.prompt.empty()) return begin;
    const std::vector<std::int32_t> prompt = encode(std::string_view{record.prompt});
    const auto differ = std::mismatch(text.begin(), text.end(), prompt.begin(), prompt.end());
    return begin + static_cast<std::size_t>(differ.first - text.begin());
  };
  return tokenize_records(records, whole, options.max_tokens, summary);
}

/// \brief One line about a data set for the table before the start of a run.
[[nodiscard]] inline std::string describe(const std::string& name, const record_summary& text,
                                          const token_summary& tokens) {
  std::string out = detail::concat(name, ": ", tokens.records, " records, ", tokens.tokens, " tokens, ",
                                   tokens.target_tokens, " of them targets");
  if (tokens.cut != 0) detail::append(out, detail::concat("; ", tokens.cut, " cut"));
  if (tokens.no_target != 0)
    detail::append(out, detail::concat("; ", tokens.no_target, " too long for any target"));
  if (text.empty_target != 0)
    detail::append(out, detail::concat("; ", text.empty_target, " with an empty target"));
  if (text.skipped != 0)
    detail::append(out, detail::concat("; ", text.skipped, " bad lines skipped, first ", text.first_bad));
  return out;
}

}  // namespace pesc
