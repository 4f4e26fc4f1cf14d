// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pesc/text/merge_table.hpp"

namespace pesc {

/// \brief Joins the best pair of neighbours until none is left: lowest rank first, leftmost among equals.
///
/// Time n log n. Keeps its memory for the next call.
class byte_pair_merger {
 public:
  /// \param merges  must outlive this object
  explicit byte_pair_merger(const merge_table& merges) : merges_{&merges} {}

  /// \brief Appends what `ids` join to to `out`.
  void append(std::span<const std::int32_t> ids, std::vector<std::int32_t>& out);

 private:
  struct symbol {
    std::int32_t id;
    std::int32_t previous;
    std::int32_t next;
  };
  struct candidate {
    std::int32_t rank, left, left_id, right_id;
    // The heap hands out the greatest first.
    bool operator<(const candidate& b) const { return rank != b.rank ? rank > b.rank : left > b.left; }
  };

  [[nodiscard]] symbol& at(std::int32_t i) { return list_[static_cast<std::size_t>(i)]; }

  void consider(std::int32_t left) {
    if (left < 0 || at(left).next < 0) return;
    const std::int32_t right_id = at(at(left).next).id;
    const auto* merge = merges_->find(at(left).id, right_id);
    if (merge == nullptr) return;
    queue_.push_back({merge->rank, left, at(left).id, right_id});
    std::push_heap(queue_.begin(), queue_.end());
  }

  const merge_table* merges_;
  std::vector<symbol> list_;
  std::vector<candidate> queue_;
};

inline void byte_pair_merger::append(std::span<const std::int32_t> ids, std::vector<std::int32_t>& out) {
  const auto count = static_cast<std::int32_t>(ids.size());
  list_.resize(ids.size());
  for (std::int32_t i = 0; i < count; ++i)
    at(i) = {ids[static_cast<std::size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1};
  queue_.clear();
  for (std::int32_t i = 0; i < count; ++i) consider(i);
  while (!queue_.empty()) {
    std::pop_heap(queue_.begin(), queue_.end());
    const candidate best = queue_.back();
    queue_.pop_back();
    symbol& left = at(best.left);
    // A pair that has changed since it was queued was queued again in its new form.
    if (left.id != best.left_id || left.next < 0 || at(left.next).id != best.right_id) continue;
    const std::int32_t gone = left.next;
    left.id = merges_->find(best.left_id, best.right_id)->piece;
    left.next = at(gone).next;
    if (left.next >= 0) at(left.next).previous = best.left;
    at(gone).id = -1;
    consider(left.previous);
    consider(best.left);
  }
  for (std::int32_t i = count > 0 ? 0 : -1; i >= 0; i = at(i).next) out.push_back(at(i).id);
}

}  // namespace pesc
