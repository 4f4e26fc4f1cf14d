// SPDX-License-Identifier: Apache-2.0
#include "pesc/train/run_json.hpp"

#include <doctest/doctest.h>

#include "support/message_of.hpp"

namespace {

pesc::json through_text(const pesc::json& value) { return pesc::parse_json(to_string(value), "run.json"); }

}  // namespace

TEST_SUITE("train/run_json") {
  TEST_CASE("counters come back from text") {
    const pesc::trainer_counters out{
        .step = 17, .updates = 16, .micro_step = 34, .tokens = (pesc::index_t{1} << 60) + 1, .bad_steps = 2};
    const pesc::json text = through_text(to_json(out));
    const pesc::trainer_counters in = pesc::parse_counters({text, "run.json"});
    CHECK(in.step == out.step);
    CHECK(in.updates == out.updates);
    CHECK(in.micro_step == out.micro_step);
    CHECK(in.tokens == out.tokens);
    CHECK(in.bad_steps == out.bad_steps);
  }

  TEST_CASE("the place in the data comes back from text") {
    const pesc::batch_state out{{37, {20, 17, 0}}, true, {1, 757}, 377};
    const pesc::json text = through_text(to_json(out));
    CHECK(pesc::parse_batch_state({text, "run.json"}) == out);
    CHECK(pesc::parse_batch_state({text, "run.json"}) != pesc::batch_state{});
  }

  TEST_CASE("a count that is missing, negative or no number is refused by name") {
    pesc::json counters = to_json(pesc::trainer_counters{});
    counters.set("tokens", pesc::index_t{-1});
    CHECK(support::message_of([&] {
            static_cast<void>(pesc::parse_counters({counters, "run.json"}));
          }).find("tokens") != std::string::npos);
    pesc::json order = to_json(pesc::batch_state{});
    order.set("taken", pesc::json::array().push_back("many"));
    CHECK(support::message_of([&] {
            static_cast<void>(pesc::parse_batch_state({order, "run.json"}));
          }).find("taken") != std::string::npos);
    const pesc::json empty = pesc::json::object();
    CHECK(support::message_of([&] {
            static_cast<void>(pesc::parse_counters({empty, "run.json"}));
          }).find("step") != std::string::npos);
  }
}
