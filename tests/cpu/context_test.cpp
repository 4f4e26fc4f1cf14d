// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/context.hpp"

#include <doctest/doctest.h>

#include "pesc/cpu/elementwise.hpp"
#include "support/message_of.hpp"

namespace {

using namespace pesc;

TEST_CASE("a context holds its threads and its instruction set") {
  cpu_backend ctx(3, cpu::runtime_isa{cpu::isa::scalar});
  CHECK(ctx.executor().concurrency() == 3);
  CHECK(ctx.level() == cpu::isa::scalar);
  CHECK(cpu_backend(2).level() == cpu::detect_isa());
  CHECK(cpu_backend(cpu::isa::scalar).level() == cpu::isa::scalar);
  static_assert(!std::is_copy_constructible_v<cpu_backend>);
}

TEST_CASE("an instruction set that the processor lacks is refused by name") {
  if (cpu::detect_isa() == cpu::isa::avx512_bf16) return;
  const std::string message = support::message_of<shape_error>([] { cpu_backend{cpu::isa::avx512_bf16}; });
  CHECK(support::contains(message, "avx512_bf16"));
  CHECK(support::contains(message, cpu::name_of(cpu::detect_isa())));
}

/// A user's own pool: runs chunks backwards.
struct backwards {
  int* calls;
  static constexpr int concurrency() { return 2; }
  void parallel_for(index_t count, index_t grain, cpu::chunk_function f) const {
    for (index_t begin = (ceil_div(count, grain) - 1) * grain; begin >= 0; begin -= grain) {
      ++*calls;
      f(begin, std::min(begin + grain, count), static_cast<int>(begin / grain % 2));
    }
  }
};

TEST_CASE("operations run on a user's executor and a fixed instruction set") {
  int calls = 0;
  cpu::context<backwards, cpu::fixed_isa<cpu::isa::scalar>> ctx(backwards{&calls});
  std::vector<float> x(100000, 1.0f), y(100000, 2.0f);
  add_scaled(ctx, matrix_view<const float>{x.data(), 1000, 100}, 3.0f,
             matrix_view<float>{y.data(), 1000, 100});
  CHECK(calls > 1);
  CHECK(y == std::vector<float>(100000, 5.0f));
}

TEST_CASE("a context without threads takes no more room than its parts") {
  using small = cpu::context<cpu::inline_executor, cpu::fixed_isa<cpu::isa::scalar>>;
  static_assert(sizeof(small) <= 2);
  small ctx;
  std::vector<float> y(3);
  fill(ctx, vector_view<float>{y.data(), 3}, 2.0f);
  CHECK(y == std::vector<float>{2, 2, 2});
}

}  // namespace
