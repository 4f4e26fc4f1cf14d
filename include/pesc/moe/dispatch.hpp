// SPDX-License-Identifier: Apache-2.0
#pragma once

// Stage 2. Reads the assignments; writes their order by expert and by token (integers, no backward).

#include "pesc/core/workspace.hpp"
#include "pesc/moe/route.hpp"

namespace pesc {

/// \brief Memory of the groups of up to `slots` assignments.
template <class Space>
[[nodiscard]] slot_groups<Space> carve_groups(workspace<Space>& ws, index_t tokens, index_t experts,
                                              index_t slots) {
  slot_groups<Space> groups;
  groups.experts = experts;
  groups.tokens = tokens;
  groups.expert_offsets = ws.template take<std::int32_t>(experts + 1);
  groups.slots = ws.template take<std::int32_t>(slots);
  groups.slot_of = ws.template take<std::int32_t>(slots);
  groups.token_of = ws.template take<std::int32_t>(slots);
  groups.token_offsets = ws.template take<std::int32_t>(tokens + 1);
  groups.token_slots = ws.template take<std::int32_t>(slots);
  return groups;
}

/// \brief Groups the kept slots by expert, stable, so that results do not depend on the order of threads.
template <class X, class Space>
void dispatch(X& ctx, const routing_state<Space>& routing, const slot_groups<Space>& groups,
              workspace<Space>& ws) {
  group_by_expert(ctx, as_const(routing.token), as_const(routing.expert), groups, ws);
}

}  // namespace pesc
