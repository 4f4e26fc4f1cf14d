// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/extent.hpp"
#include "pesc/core/types.hpp"
#include "pesc/moe/experts.hpp"
#include "pesc/moe/route.hpp"
#include "pesc/moe/shape.hpp"
#include "pesc/moe/shared_ffn.hpp"
#include "pesc/quant/nf4.hpp"

namespace pesc {

/// \brief The configuration of a layer: start from this and override what differs.
struct moe_defaults {
  static constexpr int experts = 8;         ///< or `dynamic`: the count comes from `moe_shape`
  using router = top_k_router<2>;           ///< stage 1, a `Router`
  using shared = gated_ffn<silu>;           ///< stage 3, a `SharedPath`
  using expert = adapter_expert<64, gelu>;  ///< stage 4, an `Expert`
  using weight = nf4<64, double_quant<>>;   ///< storage of the frozen weights, a `QuantFormat`
  using lora = no_lora;                     ///< low-rank update of the frozen projections, a `Lora`
  using activation = float;                 ///< type of x, y and their gradients in memory: float or bf16
  using compute = float;                    ///< how frozen products are formed, a `Compute`
};

/// \brief What a configuration must say; a wrong value names the broken clause.
template <class C>
concept MoeConfig = requires {
  { C::experts } -> std::convertible_to<int>;
  requires C::experts == dynamic || C::experts >= 1;
  requires Router<typename C::router>;
  requires SharedPath<typename C::shared>;
  requires Expert<typename C::expert>;
  requires QuantFormat<typename C::weight>;
  requires Lora<typename C::lora>;
  requires std::same_as<typename C::activation, float> || std::same_as<typename C::activation, bf16>;
  requires Compute<typename C::compute>;
  requires C::experts == dynamic || C::router::top_k <= C::experts;
};

static_assert(MoeConfig<moe_defaults>);

/// \brief The escape from compile-time numbers: counts, ranks and the weight format come from a checkpoint.
template <Compute C = float>
struct moe_dynamic : moe_defaults {
  static constexpr int experts = dynamic;
  using router = top_k_router<dynamic>;
  using expert = adapter_expert<dynamic, gelu>;
  using weight = any_format;
  using lora = pesc::lora<dynamic>;
  using compute = C;
};

static_assert(MoeConfig<moe_dynamic<>>);

namespace detail {

/// \brief A size that a type fixes or leaves to the shape.
/// \throws shape_error where both say something different, or a dynamic size is missing
template <int Static>
[[nodiscard]] index_t resolve(index_t given, const char* what) {
  if constexpr (Static == dynamic) {
    PESC_EXPECTS(given > 0, what, " must be given in moe_shape, since the configuration leaves it dynamic");
    return given;
  } else {
    PESC_EXPECTS(given == 0 || given == Static, what, " is ", given,
                 " in moe_shape, but the configuration fixes ", Static);
    return Static;
  }
}

}  // namespace detail

/// \brief The shape with every size that the configuration fixes filled in.
/// \throws shape_error for contradictions and values out of range
template <MoeConfig Config>
[[nodiscard]] moe_shape complete(moe_shape shape) {
  PESC_EXPECTS(shape.hidden > 0 && shape.intermediate > 0, "layer of hidden size ", shape.hidden,
               " and intermediate size ", shape.intermediate, ": both must be positive");
  shape.experts = detail::resolve<Config::experts>(shape.experts, "experts");
  shape.top_k = detail::resolve<Config::router::top_k>(shape.top_k, "top_k");
  shape.rank = detail::resolve<Config::expert::rank>(shape.rank, "rank");
  if constexpr (Config::lora::rank != dynamic)
    shape.lora_rank = detail::resolve<Config::lora::rank>(shape.lora_rank, "lora_rank");
  PESC_EXPECTS(shape.top_k >= 1 && shape.top_k <= shape.experts, "top-k of ", shape.top_k, " with ",
               shape.experts, " experts: must be 1 to the number of experts");
  PESC_EXPECTS(shape.top_k <= max_top_k, "top-k of ", shape.top_k, ": at most ", max_top_k, " are supported");
  PESC_EXPECTS(shape.rank <= shape.hidden, "adapter rank ", shape.rank, " is larger than the hidden size ",
               shape.hidden);
  PESC_EXPECTS(shape.lora_rank >= 0 && shape.lora_rank <= shape.hidden, "LoRA rank ", shape.lora_rank,
               ": must be 0 to the hidden size ", shape.hidden);
  return shape;
}

}  // namespace pesc
