// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/buffer.hpp"
#include "pesc/model/llama_shape.hpp"

namespace pesc {

/// \brief Keys and values of the tokens that one sequence has seen, for every layer.
template <class Resource = host_resource>
class kv_cache {
 public:
  using space = typename Resource::memory_space;

  kv_cache() = default;

  /// \param capacity  most tokens of the sequence
  kv_cache(const llama_shape& shape, index_t capacity)
      : capacity_{capacity},
        width_{shape.kv_width()},
        keys_(shape.layers * capacity * shape.kv_width()),
        values_(shape.layers * capacity * shape.kv_width()) {}

  [[nodiscard]] index_t capacity() const { return capacity_; }
  [[nodiscard]] index_t size() const { return size_; }  ///< tokens seen
  void clear() { size_ = 0; }

  /// \brief Forgets all tokens but the first ones.
  void shrink(index_t tokens) {
    PESC_ASSERT(tokens >= 0 && tokens <= size_);
    size_ = tokens;
  }

  /// \brief Counts `tokens` more, once all layers have written their rows.
  void advance(index_t tokens) { size_ += tokens; }

  [[nodiscard]] matrix_view<float, space> keys(index_t layer) {
    return {keys_.data() + layer * capacity_ * width_, capacity_, width_};
  }
  [[nodiscard]] matrix_view<float, space> values(index_t layer) {
    return {values_.data() + layer * capacity_ * width_, capacity_, width_};
  }

 private:
  index_t capacity_ = 0;
  index_t width_ = 0;
  index_t size_ = 0;
  buffer<float, Resource> keys_;
  buffer<float, Resource> values_;
};

}  // namespace pesc
