// SPDX-License-Identifier: Apache-2.0
#include "pesc/train/batch.hpp"

#include <array>
#include <map>
#include <numeric>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

namespace {

/// Record r of set s holds the ids 1000 * (s + 1) + 40 * r + 0, 1, 2, ..., so that every token tells where it
/// is from.
pesc::token_records numbered(pesc::index_t set, const std::vector<std::pair<int, int>>& sizes_and_targets) {
  pesc::token_records out;
  int record = 0;
  for (const auto& [size, target] : sizes_and_targets) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(size));
    std::iota(ids.begin(), ids.end(), static_cast<std::int32_t>(1000 * (set + 1) + 40 * record++));
    out.add(ids, target);
  }
  return out;
}

struct fixture {
  pesc::token_records first = numbered(0, {{5, 2}, {9, 1}, {2, 1}, {30, 12}, {17, 16}, {7, 3}});
  pesc::token_records second = numbered(1, {{12, 6}, {3, 1}});

  pesc::batch_builder builder(const pesc::batch_options& options, std::uint64_t seed = 3) const {
    return {{&first, &second}, pesc::mixture{{{first.size(), 2.0}, {second.size(), 1.0}}, seed}, options};
  }
};

/// What holds for every micro-batch of these records, whatever the layout.
void check_batch(const pesc::token_batch& batch, const pesc::batch_options& options) {
  const auto boundaries = batch.boundaries();
  REQUIRE(boundaries.front() == 0);
  REQUIRE(boundaries.back() == batch.tokens());
  pesc::index_t targets = 0;
  pesc::index_t valid = 0;
  for (pesc::index_t d = 0; d < batch.document_count; ++d) {
    const auto begin = static_cast<std::size_t>(boundaries[static_cast<std::size_t>(d)]);
    const auto end = static_cast<std::size_t>(boundaries[static_cast<std::size_t>(d) + 1]);
    REQUIRE(begin < end);
    CHECK(end - begin <= static_cast<std::size_t>(options.length));
    if (batch.valid[begin] == 0) {
      CHECK(end - begin == 1);
      CHECK(batch.targets[begin] == -1);
      CHECK(batch.ids[begin] == options.padding_id);
      continue;
    }
    for (std::size_t i = begin; i < end; ++i) {
      CHECK(batch.valid[i] == 1);
      CHECK(batch.positions[i] == static_cast<std::int32_t>(i - begin));
      if (i > begin) CHECK(batch.ids[i] == batch.ids[i - 1] + 1);
      if (batch.targets[i] != -1) CHECK(batch.targets[i] == batch.ids[i] + 1);
      targets += batch.targets[i] != -1;
      ++valid;
    }
  }
  CHECK(targets == batch.target_tokens);
  CHECK(valid == batch.valid_tokens);
}

using batch_arrays = std::vector<std::int32_t>;

batch_arrays flat(const pesc::token_batch& batch) {
  batch_arrays out = batch.ids;
  out.insert(out.end(), batch.targets.begin(), batch.targets.end());
  for (const pesc::index_t place : batch.boundaries()) out.push_back(static_cast<std::int32_t>(place));
  return out;
}

constexpr std::array layouts{pesc::batch_layout::pack, pesc::batch_layout::pack_whole,
                             pesc::batch_layout::pad};

}  // namespace

TEST_SUITE("train/batch") {
  TEST_CASE("ids, targets, positions and documents belong together in every layout") {
    const fixture data;
    for (const auto layout : layouts) {
      CAPTURE(static_cast<int>(layout));
      for (const pesc::index_t length : {2, 7, 16, 40}) {
        CAPTURE(length);
        const pesc::batch_options options{layout, 3, length, 9};
        auto builder = data.builder(options);
        pesc::token_batch batch{options};
        for (int i = 0; i < 30; ++i) {
          builder.fill(batch);
          check_batch(batch, options);
        }
      }
    }
  }

  TEST_CASE("packing pads nothing and loses no target") {
    const fixture data;
    const pesc::batch_options options{pesc::batch_layout::pack, 2, 8};
    auto builder = data.builder(options);
    pesc::token_batch batch{options};
    std::map<std::int32_t, int> seen;
    for (int i = 0; i < 400; ++i) {
      builder.fill(batch);
      CHECK(batch.valid_tokens == batch.tokens());
      for (const std::int32_t target : batch.targets)
        if (target >= 0) ++seen[target];
    }
    // Every record of a set was drawn equally often, up to one for the running round and one for the record
    // in work.
    for (int set = 0; set < 2; ++set) {
      const pesc::token_records& records = set == 0 ? data.first : data.second;
      for (pesc::index_t r = 0; r < records.size(); ++r) {
        const pesc::token_record record = records[r];
        for (pesc::index_t t = 0; t < record.size(); ++t) {
          const int count = seen[record.ids[static_cast<std::size_t>(t)]];
          CAPTURE(record.ids[static_cast<std::size_t>(t)]);
          if (t < record.target_begin) {
            CHECK(count == 0);
          } else {
            const int rounds = static_cast<int>(builder.state().order.taken[static_cast<std::size_t>(set)]) /
                               static_cast<int>(records.size());
            CHECK(std::abs(count - rounds) <= 2);
          }
        }
      }
    }
  }

  TEST_CASE(
      "without splitting, every document begins at the beginning of a record and holds all of it that fits") {
    const fixture data;
    for (const auto layout : {pesc::batch_layout::pack_whole, pesc::batch_layout::pad}) {
      const pesc::batch_options options{layout, 4, 20};
      auto builder = data.builder(options);
      pesc::token_batch batch{options};
      for (int i = 0; i < 20; ++i) {
        builder.fill(batch);
        for (pesc::index_t d = 0; d < batch.document_count; ++d) {
          const auto begin = static_cast<std::size_t>(batch.documents[static_cast<std::size_t>(d)]);
          if (batch.valid[begin] == 0) continue;
          const std::int32_t id = batch.ids[begin];
          CHECK(id % 40 == 0);
          const auto& set = id < 2000 ? data.first : data.second;
          const pesc::token_record record = set[id % 1000 / 40];
          const pesc::index_t size =
              batch.documents[static_cast<std::size_t>(d) + 1] - batch.documents[static_cast<std::size_t>(d)];
          CHECK(size == std::min<pesc::index_t>(record.size() - 1, 20));
        }
      }
    }
  }

  TEST_CASE("padding begins every row with a record") {
    const fixture data;
    const pesc::batch_options options{pesc::batch_layout::pad, 5, 16};
    auto builder = data.builder(options);
    pesc::token_batch batch{options};
    builder.fill(batch);
    for (std::size_t row = 0; row < 5; ++row) {
      CHECK(batch.valid[row * 16] == 1);
      CHECK(batch.positions[row * 16] == 0);
    }
  }

  TEST_CASE("a restored builder goes on exactly, in the middle of a record too") {
    const fixture data;
    for (const auto layout : layouts) {
      CAPTURE(static_cast<int>(layout));
      const pesc::batch_options options{layout, 2, 8};
      bool pending = false;
      for (int before = 0; before < 25; ++before) {
        auto straight = data.builder(options);
        pesc::token_batch batch{options};
        for (int i = 0; i < before; ++i) straight.fill(batch);
        const pesc::batch_state state = straight.state();
        pending = pending || state.pending;
        auto resumed = data.builder(options);
        resumed.fill(batch);
        resumed.restore(state);
        CHECK(resumed.state() == state);
        pesc::token_batch other{options};
        for (int i = 0; i < 10; ++i) {
          straight.fill(batch);
          resumed.fill(other);
          CHECK(flat(batch) == flat(other));
        }
      }
      CHECK(pending == (layout != pesc::batch_layout::pad));
    }
  }

  TEST_CASE("filling touches no other memory than the arrays of the batch") {
    const fixture data;
    const pesc::batch_options options{pesc::batch_layout::pack, 2, 8};
    auto builder = data.builder(options);
    pesc::token_batch batch{options};
    const auto* ids = batch.ids.data();
    const auto* documents = batch.documents.data();
    for (int i = 0; i < 50; ++i) builder.fill(batch);
    CHECK(batch.ids.data() == ids);
    CHECK(batch.documents.data() == documents);
    CHECK(batch.tokens() == 16);
  }

  TEST_CASE("sizes and states that do not fit are refused") {
    const fixture data;
    CHECK_THROWS_AS(data.builder({pesc::batch_layout::pack, 0, 8}), pesc::shape_error);
    CHECK_THROWS_AS(data.builder({pesc::batch_layout::pack, 1, 1}), pesc::shape_error);
    CHECK_THROWS_AS((pesc::batch_builder{{&data.first}, pesc::mixture{{{1, 1.0}, {1, 1.0}}, 1}, {}}),
                    pesc::shape_error);
    auto builder = data.builder({pesc::batch_layout::pack, 2, 8});
    pesc::token_batch small{{pesc::batch_layout::pack, 2, 4}};
    CHECK_THROWS_WITH_AS(builder.fill(small), "batch holds 8 tokens, this builder fills 16",
                         pesc::shape_error);
    pesc::batch_state state = builder.state();
    state.pending = true;
    for (const auto& [source, record, offset] :
         {std::array<pesc::index_t, 3>{2, 0, 0}, {0, 6, 0}, {0, 0, 4}, {0, -1, 0}, {-1, 0, 0}, {0, 0, -1}}) {
      state.record = {source, record};
      state.offset = offset;
      CHECK_THROWS_AS(builder.restore(state), pesc::shape_error);
    }
  }
}
