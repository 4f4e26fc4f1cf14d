// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/moe/routing_types.hpp"
#include "support/reference.hpp"

namespace support {

/// \brief Every rule by which gates follow from logits.
inline constexpr pesc::gate_options all_gates[] = {{pesc::gate_order::softmax_after_top_k, true},
                                                   {pesc::gate_order::softmax_before_top_k, true},
                                                   {pesc::gate_order::softmax_before_top_k, false}};

/// \brief The same rule in the words of the reference.
inline reference::router_options exact_options(const pesc::gate_options& options, int k) {
  reference::router_options exact;
  exact.top_k = k;
  exact.kind = options.order == pesc::gate_order::softmax_after_top_k
                   ? reference::router_kind::softmax_after_top_k
                   : reference::router_kind::softmax_before_top_k;
  exact.renormalise = options.renormalize;
  return exact;
}

}  // namespace support
