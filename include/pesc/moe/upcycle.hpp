// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "pesc/moe/parameters.hpp"
#include "pesc/quant/quantize.hpp"

namespace pesc {

/// \brief The weights of a dense gated feed-forward network, in the caller's memory: gate and up [F, H], down [H, F].
template <Scalar T>
struct dense_ffn {
  matrix_view<const T> gate, up, down;
};

/// \brief Owns the frozen projections of one layer in the order of the kernels.
template <QuantFormat Format, class Resource = host_resource>
struct frozen_ffn {
  using matrix = quantized_matrix<Format, kernel_layout<typename Resource::memory_space>, Resource>;
  matrix gate, up, down;

  frozen_ffn() = default;

  /// \brief Takes weights as a checkpoint holds them, in the caller's memory, without quantising again.
  template <class X>
  frozen_ffn(X& ctx, const quantized_view<Format, row_blocks>& gate_weight,
             const quantized_view<Format, row_blocks>& up_weight,
             const quantized_view<Format, row_blocks>& down_weight)
      : gate{pack(ctx, gate_weight)}, up{pack(ctx, up_weight)}, down{pack(ctx, down_weight)} {}
  template <class X>
  frozen_ffn(X& ctx, const quantized_matrix<Format, row_blocks>& gate_weight,
             const quantized_matrix<Format, row_blocks>& up_weight,
             const quantized_matrix<Format, row_blocks>& down_weight)
      : frozen_ffn(ctx, gate_weight.view(), up_weight.view(), down_weight.view()) {}

  /// \brief Quantises the caller's weights; the caller may release them afterwards.
  /// \throws numeric_error when a weight is not finite
  template <class X, Scalar T>
  frozen_ffn(X& ctx, const format_info& info, const dense_ffn<T>& dense)
      : frozen_ffn(ctx, quantize<Format>(info, dense.gate), quantize<Format>(info, dense.up),
                   quantize<Format>(info, dense.down)) {}

  [[nodiscard]] index_t bytes() const { return gate.bytes() + up.bytes() + down.bytes(); }

  /// \brief The views that a layer holds; valid while this object lives and is not moved.
  template <class Frozen>
  [[nodiscard]] Frozen view() const {
    return {{gate.view(), {}}, {up.view(), {}}, {down.view(), {}}};
  }
};

/// \brief The description of the weight format of a configuration; a dynamic one must be given.
template <MoeConfig Config>
[[nodiscard]] format_info format_of(const format_info* given = nullptr) {
  if constexpr (std::same_as<typename Config::weight, any_format>) {
    PESC_EXPECTS(given != nullptr, "the weight format is dynamic in this configuration and must be given");
    return *given;
  } else {
    static_cast<void>(given);
    return Config::weight::info();
  }
}

}  // namespace pesc
