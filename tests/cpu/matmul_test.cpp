// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/matmul.hpp"

#include <vector>

#include <doctest/doctest.h>

#include "support/host_isas.hpp"
#include "support/kernel_checks.hpp"

namespace {

using namespace pesc;
using support::padded_matrix;

/// \brief Three groups, the second empty.
const std::vector<std::int32_t> group_offsets{0, 5, 5, 33};

batch_view<float> as_batch(std::vector<float>& values, index_t rows, index_t cols) {
  return {values.data(), 3, rows, cols};
}

}  // namespace

TEST_SUITE("cpu/matmul") {
  TEST_CASE("dense products agree with sums in double for every instruction set, operand order and edge") {
    for (const auto level : support::host_isas())
      for (const index_t m : {1, 2, 5, 13, 33})
        for (const index_t n : {1, 8, 17, 64, 130})
          for (const index_t k : {1, 7, 64, 300})
            for (const int form : {0, 1, 2, 3})
              support::check_matmul(level, m, n, k,
                                    {form == 0 ? 1.0f : 0.5f, form % 2 == 1, form >= 2, (m + n) % 2 == 0});
  }

  TEST_CASE("large dense products cross the borders of tiles") {
    for (const auto level : support::host_isas())
      for (const bool transposed : {false, true})
        support::check_matmul(level, 257, 150, 259, {1.0f, transposed, !transposed, false});
  }

  TEST_CASE("a product over nothing is zero, or leaves what is added to") {
    for (const auto level : support::host_isas())
      for (const bool accumulate : {false, true})
        support::check_matmul(level, 3, 5, 0, {1.0f, false, true, accumulate});
  }

  TEST_CASE("dense results do not depend on the number of threads") {
    for (const auto level : support::host_isas()) {
      const padded_matrix a(150, 70, 1), b(300, 70, 2);
      std::vector<float> first;
      for (const int threads : {1, 2, 3, 8}) {
        padded_matrix y(150, 300, 3);
        cpu::context<> ctx(threads, cpu::runtime_isa{level});
        support::run_counted(
            [&](workspace<>& ws) { matmul(ctx, a.view(), b.view(), y.view(), {.transpose_b = true}, ws); });
        if (first.empty()) first = y.values;
        CHECK(y.values == first);
      }
    }
  }

  TEST_CASE("a grouped product is the product of each group") {
    const index_t n = 19, k = 23;
    for (const auto level : support::host_isas())
      for (const bool transpose : {false, true}) {
        const padded_matrix a(33, k, 1);
        std::vector<float> weights = support::uniform_floats(3 * n * k, 2);
        const batch_view<float> b = as_batch(weights, transpose ? n : k, transpose ? k : n);
        padded_matrix grouped(33, n, 3), single(33, n, 3);
        cpu::context<> ctx(2, cpu::runtime_isa{level});
        const matmul_options options{2.0f, false, transpose, true};
        support::run_counted([&](workspace<>& ws) {
          // Offsets are not known while memory is planned.
          const vector_view<const std::int32_t> offsets(ws.counting() ? nullptr : group_offsets.data(), 4);
          grouped_matmul(ctx, offsets, a.view(), b, grouped.view(), options, ws);
        });
        for (const index_t g : {0, 2}) {
          const index_t begin = group_offsets[static_cast<std::size_t>(g)];
          const index_t rows = group_offsets[static_cast<std::size_t>(g) + 1] - begin;
          support::run_counted([&](workspace<>& ws) {
            matmul(ctx, a.view().row_range(begin, rows), as_const(b[g]), single.view().row_range(begin, rows),
                   options, ws);
          });
        }
        CHECK(grouped.values == single.values);
      }
  }

  TEST_CASE("a grouped outer product adds the product of each group and leaves empty groups alone") {
    const index_t rows = 21, cols = 37;
    for (const auto level : support::host_isas()) {
      const padded_matrix a(33, rows, 1), b(33, cols, 2);
      std::vector<float> grouped = support::uniform_floats(3 * rows * cols, 4), single = grouped;
      cpu::context<> ctx(3, cpu::runtime_isa{level});
      support::run_counted([&](workspace<>& ws) {
        const vector_view<const std::int32_t> offsets(ws.counting() ? nullptr : group_offsets.data(), 4);
        grouped_outer(ctx, offsets, a.view(), b.view(), as_batch(grouped, rows, cols), 0.5f, ws);
      });
      for (const index_t g : {0, 2}) {
        const index_t begin = group_offsets[static_cast<std::size_t>(g)];
        const index_t count = group_offsets[static_cast<std::size_t>(g) + 1] - begin;
        support::run_counted([&](workspace<>& ws) {
          matmul(ctx, a.view().row_range(begin, count), b.view().row_range(begin, count),
                 as_batch(single, rows, cols)[g], {0.5f, true, false, true}, ws);
        });
      }
      CHECK(grouped == single);
    }
  }
}
