// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include "pesc/io/json.hpp"
#include "pesc/train/batch.hpp"
#include "pesc/train/trainer.hpp"

// The part of run.json that says where a run stands: counters of the trainer and the place in the data.

namespace pesc {

[[nodiscard]] inline json to_json(const trainer_counters& c) {
  json out = json::object();
  out.set("step", c.step)
      .set("updates", c.updates)
      .set("micro_step", c.micro_step)
      .set("tokens", c.tokens)
      .set("bad_steps", index_t{c.bad_steps});
  return out;
}

[[nodiscard]] inline json to_json(const batch_state& s) {
  json taken = json::array();
  for (const std::uint64_t count : s.order.taken) taken.push_back(static_cast<index_t>(count));
  json out = json::object();
  out.set("draws", static_cast<index_t>(s.order.draws))
      .set("taken", std::move(taken))
      .set("pending", s.pending)
      .set("source", s.record.source)
      .set("record", s.record.record)
      .set("offset", s.offset);
  return out;
}

namespace detail {

inline index_t count_of(const json_fields& f, std::string_view key) {
  const index_t value = f.get_int(key);
  if (value < 0) raise<format_error>(concat(f.where(key), " is ", value, ", expected 0 or more"));
  return value;
}

}  // namespace detail

/// \throws format_error
[[nodiscard]] inline trainer_counters parse_counters(const json_fields& f) {
  trainer_counters out{detail::count_of(f, "step"), detail::count_of(f, "updates"),
                       detail::count_of(f, "micro_step"), detail::count_of(f, "tokens"), 0};
  out.bad_steps = static_cast<int>(std::min<index_t>(detail::count_of(f, "bad_steps"), 1000000));
  return out;
}

/// \throws format_error
[[nodiscard]] inline batch_state parse_batch_state(const json_fields& f) {
  batch_state out;
  out.order.draws = static_cast<std::uint64_t>(detail::count_of(f, "draws"));
  for (const json& count : f.get_list("taken")) {
    const auto value = count.to_int();
    if (!value || *value < 0) f.wrong_type("taken", count, "counts");
    out.order.taken.push_back(static_cast<std::uint64_t>(*value));
  }
  out.pending = f.get_bool("pending");
  out.record = {detail::count_of(f, "source"), detail::count_of(f, "record")};
  out.offset = detail::count_of(f, "offset");
  return out;
}

}  // namespace pesc
