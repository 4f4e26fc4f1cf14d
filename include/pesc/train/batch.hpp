// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"
#include "pesc/train/mixture.hpp"
#include "pesc/train/token_records.hpp"

namespace pesc {

/// \brief How records are laid into a micro-batch.
enum class batch_layout : std::uint8_t {
  pack,  ///< one after the other; the last is split and goes on in the next micro-batch, nothing is padded
  pack_whole,  ///< one after the other, none split; what is left at the end is padded
  pad,         ///< one per row, each padded to the row length
};

/// \brief Shape of the micro-batches.
struct batch_options {
  batch_layout layout = batch_layout::pack;
  index_t sequences = 16;
  index_t length = 256;         ///< tokens of a row, and the most a document may have
  std::int32_t padding_id = 0;  ///< any id of the vocabulary
};

/// \brief One micro-batch as flat arrays over `tokens()` = sequences * length places.
///
/// Document i covers the places [documents[i], documents[i + 1]); attention must not leave it. A place of
/// padding is a document of its own and has `valid` 0; it counts in no loss, routing statistic or speed.
struct token_batch {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> targets;    ///< the id to predict at each place, -1 where no loss counts
  std::vector<std::int32_t> positions;  ///< place within the document, for the rotary embedding
  std::vector<std::uint8_t> valid;
  std::vector<index_t> documents;  ///< document_count + 1 ascending places
  index_t document_count = 0;
  index_t valid_tokens = 0;
  index_t target_tokens = 0;

  token_batch() = default;
  explicit token_batch(const batch_options& options) {
    const auto places = static_cast<std::size_t>(options.sequences * options.length);
    ids.resize(places);
    targets.resize(places);
    positions.resize(places);
    valid.resize(places);
    documents.resize(places + 1);
  }

  [[nodiscard]] index_t tokens() const { return static_cast<index_t>(ids.size()); }

  /// \brief The document boundaries that are in use.
  [[nodiscard]] std::span<const index_t> boundaries() const {
    return std::span<const index_t>{documents}.first(static_cast<std::size_t>(document_count) + 1);
  }
};

/// \brief Where a builder stands between two micro-batches.
struct batch_state {
  mixture_state order;
  bool pending = false;  ///< a record was drawn and is not laid down to its end
  mixture::pick record;
  index_t offset = 0;  ///< its tokens that are done

  friend bool operator==(const batch_state&, const batch_state&) = default;
};

/// \brief Draws records and lays them into micro-batches; fills preallocated arrays and allocates nothing.
///
/// The last token of a record is a target only, so a record of n tokens takes n - 1 places; the token that
/// follows a split is still the target of the last one before it. With `pack` no target is lost; the other
/// layouts cut records that are longer than a row.
class batch_builder {
 public:
  /// \param sets  tokenised data sets in the order of the mixture; they must outlive the builder
  /// \throws shape_error when sets and mixture differ or a size is out of range
  batch_builder(std::vector<const token_records*> sets, mixture order, const batch_options& options)
      : sets_{std::move(sets)}, order_{std::move(order)}, options_{options} {
    PESC_EXPECTS(static_cast<index_t>(sets_.size()) == order_.sources(), "mixture of ", order_.sources(),
                 " data sets, but ", sets_.size(), " are given");
    PESC_EXPECTS(options.sequences >= 1 && options.sequences <= 1 << 20, "micro-batch of ", options.sequences,
                 " sequences, expected 1 to 1048576");
    PESC_EXPECTS(options.length >= 2 && options.length <= 1 << 24, "sequences of ", options.length,
                 " tokens, expected 2 to 16777216");
  }

  /// \brief Fills the next micro-batch, which must have been made with the same options.
  void fill(token_batch& batch) {
    const index_t places = options_.sequences * options_.length;
    PESC_EXPECTS(batch.tokens() == places, "batch holds ", batch.tokens(), " tokens, this builder fills ",
                 places);
    batch.document_count = 0;
    batch.valid_tokens = 0;
    batch.target_tokens = 0;
    batch.documents[0] = 0;
    if (options_.layout == batch_layout::pad) {
      for (index_t row = 0; row < options_.sequences; ++row) {
        draw();
        const index_t used = put(batch, row * options_.length, options_.length);
        pad(batch, row * options_.length + used, (row + 1) * options_.length);
      }
      return;
    }
    index_t place = 0;
    while (place < places) {
      if (!pending_) draw();
      const index_t whole = std::min(inputs(record()), options_.length);
      if (options_.layout == batch_layout::pack_whole && whole > places - place) break;
      place += put(batch, place, places - place);
    }
    pad(batch, place, places);
  }

  [[nodiscard]] batch_state state() const { return {order_.state(), pending_, pick_, offset_}; }

  /// \brief Goes on where `state()` was read.
  /// \throws shape_error when the state does not belong to these data sets
  void restore(const batch_state& state) {
    order_.restore(state.order);
    if (state.pending) {
      PESC_EXPECTS(state.record.source >= 0 && state.record.source < order_.sources(),
                   "saved record is of data set ", state.record.source, ", this run has ", order_.sources());
      const token_records& set = *sets_[static_cast<std::size_t>(state.record.source)];
      PESC_EXPECTS(state.record.record >= 0 && state.record.record < set.size(), "saved record is number ",
                   state.record.record, ", the data set has ", set.size());
      PESC_EXPECTS(state.offset >= 0 && state.offset < set[state.record.record].size() - 1,
                   "saved record goes on at token ", state.offset, ", it has ",
                   set[state.record.record].size());
    }
    pending_ = state.pending;
    pick_ = state.record;
    offset_ = state.offset;
  }

  [[nodiscard]] const batch_options& options() const { return options_; }

 private:
  void draw() {
    pick_ = order_.next();
    offset_ = 0;
    pending_ = true;
  }

  [[nodiscard]] token_record record() const {
    return (*sets_[static_cast<std::size_t>(pick_.source)])[pick_.record];
  }

  /// \brief Places that a record takes: its last token is a target only.
  [[nodiscard]] static index_t inputs(const token_record& record) { return record.size() - 1; }

  /// \brief Lays down the pending record from its offset on as one document of at most `space` tokens.
  index_t put(token_batch& batch, index_t place, index_t space) {
    const token_record source = record();
    const index_t count = std::min({inputs(source) - offset_, space, options_.length});
    for (index_t i = 0; i < count; ++i) {
      const auto at = static_cast<std::size_t>(place + i);
      const index_t next = offset_ + i + 1;
      const bool counted = next >= source.target_begin;
      batch.ids[at] = source.ids[static_cast<std::size_t>(next - 1)];
      batch.targets[at] = counted ? source.ids[static_cast<std::size_t>(next)] : -1;
      batch.positions[at] = static_cast<std::int32_t>(i);
      batch.valid[at] = 1;
      batch.target_tokens += counted ? 1 : 0;
    }
    batch.valid_tokens += count;
    close_document(batch, place + count);
    offset_ += count;
    pending_ = options_.layout == batch_layout::pack && offset_ < inputs(source);
    return count;
  }

  void pad(token_batch& batch, index_t begin, index_t end) {
    for (index_t place = begin; place < end; ++place) {
      const auto at = static_cast<std::size_t>(place);
      batch.ids[at] = options_.padding_id;
      batch.targets[at] = -1;
      batch.positions[at] = 0;
      batch.valid[at] = 0;
      close_document(batch, place + 1);
    }
  }

  static void close_document(token_batch& batch, index_t end) {
    batch.documents[static_cast<std::size_t>(++batch.document_count)] = end;
  }

  std::vector<const token_records*> sets_;
  mixture order_;
  batch_options options_;
  bool pending_ = false;
  mixture::pick pick_;
  index_t offset_ = 0;
};

}  // namespace pesc
