// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "pesc/cpu/matmul.hpp"
#include "pesc/cpu/norm.hpp"
#include "pesc/cpu/quantized_matmul.hpp"
#include "pesc/quant/nf4.hpp"
#include "pesc/quant/quantize.hpp"
#include "support/host_isas.hpp"
#include "support/random.hpp"

// This program is linked with the unit that includes pesc/cpu/instantiate.hpp.
#if !defined(PESC_COMPILED)
#error "units of this program must only declare the instances"
#endif

namespace {

using namespace pesc;

constexpr index_t tokens = 9, hidden = 75, features = 130;

/// \brief Results of operations of several kinds, one after the other.
template <class X>
std::vector<float> results_of(X& ctx) {
  std::vector<float> x = support::normal_floats(tokens * hidden, 1);
  const std::vector<float> w = support::normal_floats(features * hidden, 2);
  const matrix_view<const float> weight(w.data(), features, hidden);
  const matrix_view<const float> input(x.data(), tokens, hidden);
  const auto packed = pack(quantize<nf4<32>>(nf4<32>::info(), weight));
  std::vector<float> out(2 * static_cast<std::size_t>(tokens * features) + x.size());
  std::vector<float> inverse(static_cast<std::size_t>(tokens));
  const matrix_view<float> dense(out.data(), tokens, features);
  const matrix_view<float> frozen(dense.data + dense.size(), tokens, features);
  const matrix_view<float> normed(frozen.data + frozen.size(), tokens, hidden);
  const auto run = [&](workspace<>& ws) {
    matmul(ctx, input, weight, dense, {.transpose_b = true}, ws);
    quantized_matmul(ctx, input, packed.view(), frozen, {}, ws);
  };
  workspace<> count;
  run(count);
  buffer<std::byte> memory(count.peak());
  workspace<> ws(memory.data(), memory.size());
  run(ws);
  rms_norm(ctx, input, vector_view<const float>(w.data(), hidden), 1e-5f, normed,
           vector_view<float>(inverse.data(), tokens));
  return out;
}

TEST_CASE("operations compiled elsewhere give the bits of those compiled here") {
  for (const cpu::isa level : support::host_isas()) {
    CAPTURE(cpu::name_of(level));
    cpu::context<> declared(2, cpu::runtime_isa{level});
    cpu::context<cpu::inline_executor> here(cpu::inline_executor{}, cpu::runtime_isa{level});
    CHECK(results_of(declared) == results_of(here));
  }
}

}  // namespace
