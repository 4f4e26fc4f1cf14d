// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "gpu/device_tensor.hpp"
#include "pesc/gpu/routing.cuh"

namespace support {

/// \brief Assignments of tokens to experts; an expert index of `experts` is a dropped slot.
struct slot_scene {
  index_t experts, tokens;
  std::vector<std::int32_t> token, expert;
};

/// \brief Slots of every kind: tokens out of order, with none and with many slots; dropped slots.
inline std::vector<slot_scene> slot_scenes() {
  std::vector<slot_scene> all = {
      {4, 0, {}, {}}, {1, 1, {0}, {0}}, {3, 2, {0, 1}, {3, 3}}, {4, 3, {2, 0, 2}, {1, 4, 1}}};
  generator g(6);
  for (const index_t experts : {1, 8, 100, 700})
    for (const index_t n : {1, 50, 1300}) {
      slot_scene s{experts, 1 + n / 2, {}, {}};
      for (index_t i = 0; i < n; ++i) {
        s.token.push_back(static_cast<std::int32_t>(g.below(s.tokens)));
        s.expert.push_back(static_cast<std::int32_t>(g.below(experts + 1)));
      }
      all.push_back(s);
      for (std::int32_t& e : s.expert) e = static_cast<std::int32_t>(experts - 1);
      for (std::size_t i = 0; i < s.token.size(); ++i) s.token[i] = static_cast<std::int32_t>(i / 2);
      all.push_back(s);
    }
  return all;
}

/// \brief Owns the arrays of `slot_groups`, filled by `group_by_expert`.
struct device_groups {
  on_device<std::int32_t> expert_offsets, slots, slot_of, token_of, token_offsets, token_slots;
  index_t experts, tokens;

  device_groups(pesc::gpu::context& ctx, const slot_scene& s)
      : expert_offsets(ctx, s.experts + 1),
        slots(ctx, static_cast<index_t>(s.token.size())),
        slot_of(ctx, static_cast<index_t>(s.token.size())),
        token_of(ctx, static_cast<index_t>(s.token.size())),
        token_offsets(ctx, s.tokens + 1),
        token_slots(ctx, static_cast<index_t>(s.token.size())),
        experts{s.experts},
        tokens{s.tokens} {
    on_device<std::int32_t> token(ctx, s.token), expert(ctx, s.expert);
    with_device_scratch([&](pesc::workspace<device_space>& ws) {
      group_by_expert(ctx, token.view(), expert.view(), view(), ws);
    });
  }

  [[nodiscard]] pesc::slot_groups<device_space> view() {
    return {experts,        tokens,          expert_offsets.view(), slots.view(),
            slot_of.view(), token_of.view(), token_offsets.view(),  token_slots.view()};
  }
};

}  // namespace support
