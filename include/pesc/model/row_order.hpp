// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "pesc/nn/rope.hpp"
#include "pesc/quant/quantized_matrix.hpp"

// Rows of queries and keys lie in a file in the order of its rotary pairing: with neighbours row 2i of a head holds
// what is row i with halves, and row 2i + 1 what is row i + head_dim / 2.

namespace pesc {

/// \brief Which row of a stored projection of queries or keys becomes a row in the order of another rotary pairing.
class row_order {
 public:
  row_order() = default;  ///< every row stays
  row_order(index_t head_dim, rope_pairing from, rope_pairing to)
      : head_dim_{from == to ? 0 : head_dim}, from_{from} {}

  [[nodiscard]] bool changes() const { return head_dim_ > 0; }

  /// \brief The row of the source that becomes `row`.
  [[nodiscard]] index_t source(index_t row) const {
    if (!changes()) return row;
    const index_t half = head_dim_ / 2, i = row % head_dim_, head = row - i;
    if (from_ == rope_pairing::neighbours) return head + (i < half ? 2 * i : 2 * (i - half) + 1);
    return head + (i % 2 == 0 ? i / 2 : i / 2 + half);
  }

  /// \brief Rows of `row_bytes` bytes each in the new order.
  [[nodiscard]] std::vector<std::byte> apply(std::span<const std::byte> rows, std::size_t row_bytes) const {
    std::vector<std::byte> out(rows.size());
    for (std::size_t r = 0; r * row_bytes < rows.size(); ++r)
      std::memcpy(out.data() + r * row_bytes,
                  rows.data() + static_cast<std::size_t>(source(static_cast<index_t>(r))) * row_bytes,
                  row_bytes);
    return out;
  }

 private:
  index_t head_dim_ = 0;
  rope_pairing from_ = rope_pairing::halves;
};

/// \brief Whether a tensor of this name has its rows in the order of a rotary pairing: of queries and keys the weight,
/// the bias and the second matrix of a low-rank update.
[[nodiscard]] inline bool has_head_rows(std::string_view name) {
  for (const std::string_view module : {".self_attn.q_proj.", ".self_attn.k_proj."})
    if (const std::size_t at = name.find(module); at != name.npos)
      return !name.substr(at + module.size()).starts_with("lora_A");
  return false;
}

/// \brief A weight with its rows in another order, its codes unchanged.
///
/// Scales that are quantised again share a value among 256 of them, which may lie in rows that come apart: they become
/// the plain numbers that they stand for.
/// \throws format_error where a block of weights reaches over a row's end
template <QuantFormat Format>
  requires std::same_as<Format, any_format>
[[nodiscard]] quantized_matrix<Format, row_blocks> reorder(const quantized_matrix<Format, row_blocks>& from,
                                                           const row_order& order) {
  format_info format = from.format();
  const index_t cols = from.cols();
  if (cols % format.block != 0)
    detail::raise<format_error>(detail::concat("rows of ", cols, " weights in blocks of ", format.block,
                                               " share scales and cannot be put in another order"));
  const bool nested = format.scales == scale_kind::double_quant;
  if (nested) format.scales = scale_kind::plain;
  quantized_matrix<Format, row_blocks> out(format, from.rows(), cols);
  const auto view = from.view();
  const index_t row_bytes = format.code_bytes(cols), row_scales = format.blocks(cols);
  for (index_t r = 0; r < from.rows(); ++r) {
    const index_t s = order.source(r);
    std::memcpy(out.codes().data + r * row_bytes, view.codes + s * row_bytes,
                static_cast<std::size_t>(row_bytes));
    for (index_t b = 0; b < row_scales; ++b) {
      out.absmax()[r * row_scales + b] = decode_scale(from.format().scales, view.scales, s * row_scales + b);
      if (format.scales == scale_kind::with_minimum)
        out.minimum()[r * row_scales + b] = view.scales.minimum[s * row_scales + b];
    }
  }
  return out;
}

}  // namespace pesc
