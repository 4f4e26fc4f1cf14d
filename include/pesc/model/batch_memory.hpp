// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/buffer.hpp"
#include "pesc/nn/attention_types.hpp"

namespace pesc {

/// \brief The tokens of one call: flat over documents, which attention does not cross.
template <class Space = host_space>
struct model_input {
  vector_view<const std::int32_t, Space> ids;        ///< [tokens]
  vector_view<const std::int32_t, Space> positions;  ///< [tokens], within their document
  vector_view<const attention_span, Space> spans;    ///< every token belongs to one
  vector_view<const std::int32_t, Space> targets{};  ///< [tokens], the id to predict or -1; needed for a loss
  vector_view<const std::uint8_t, Space> valid{};    ///< [tokens], 0: padding; empty: all count

  /// \brief Of this many tokens and without memory, for calls that count scratch.
  [[nodiscard]] static model_input counting(index_t tokens) {
    return {{nullptr, tokens}, {nullptr, tokens}, {}, {nullptr, tokens}, {}};
  }
};

/// \brief Memory of the backend for the inputs of calls of up to `tokens` tokens.
template <class Resource = host_resource>
class batch_memory {
 public:
  using space = typename Resource::memory_space;

  batch_memory() = default;
  explicit batch_memory(index_t tokens)
      : ids_(tokens), positions_(tokens), spans_(tokens), targets_(tokens), valid_(tokens) {}

  /// \brief Copies a host input there; what is empty stays empty.
  template <class X>
  [[nodiscard]] model_input<space> set(X& ctx, const model_input<>& host) {
    const auto there = [&]<class T>(vector_view<const T> from, buffer<T, Resource>& to) {
      const auto part = to.view().part(0, from.size);
      upload(ctx, from, part);
      return vector_view<const T, space>(part);
    };
    return {there(host.ids, ids_), there(host.positions, positions_), there(host.spans, spans_),
            there(host.targets, targets_), there(host.valid, valid_)};
  }

 private:
  buffer<std::int32_t, Resource> ids_, positions_;
  buffer<attention_span, Resource> spans_;
  buffer<std::int32_t, Resource> targets_;
  buffer<std::uint8_t, Resource> valid_;
};

}  // namespace pesc
