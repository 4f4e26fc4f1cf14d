// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include <doctest/doctest.h>

#include "pesc/pesc.hpp"
#include "support/layer_bridge.hpp"
#include "support/layer_run.hpp"
#include "support/message_of.hpp"

namespace support {

using pesc::index_t;

/// \brief One thread and the plain kernels: what the logic of a stage is tested on. Instruction sets are compared in
/// the tests of operations and of the layer.
using plain_context =
    pesc::cpu::context<pesc::cpu::inline_executor, pesc::cpu::fixed_isa<pesc::cpu::isa::scalar>>;

/// \brief Runs `stage(ws)` to count its scratch and again to work; both must take the same.
template <class Stage>
void run_stage(const Stage& stage) {
  pesc::workspace<> counting;
  stage(counting);
  pesc::buffer<std::byte> memory(counting.peak() + 1);
  pesc::workspace<> ws(memory.data(), counting.peak());
  stage(ws);
  CHECK(ws.peak() == counting.peak());
}

/// \brief Memory for what a stage keeps: `carve(ws)` makes its views.
template <class Carve>
auto keep(pesc::buffer<std::byte>& memory, const Carve& carve) {
  pesc::workspace<> counting;
  static_cast<void>(carve(counting));
  memory = pesc::buffer<std::byte>(counting.peak() + 1);
  pesc::workspace<> ws(memory.data(), counting.peak());
  return carve(ws);
}

/// \brief Normal numbers as a dense matrix.
class numbers {
 public:
  numbers(index_t rows, index_t cols, std::uint64_t seed, double deviation = 1)
      : rows_{rows}, cols_{cols}, values_{normal_floats(rows * cols, seed, deviation)} {}
  numbers(index_t rows, index_t cols)
      : rows_{rows}, cols_{cols}, values_(static_cast<std::size_t>(rows * cols)) {}

  [[nodiscard]] pesc::matrix_view<float> view() { return {values_.data(), rows_, cols_}; }
  [[nodiscard]] pesc::matrix_view<const float> view() const { return {values_.data(), rows_, cols_}; }
  [[nodiscard]] pesc::matrix_view<const float> read() const { return view(); }
  [[nodiscard]] pesc::vector_view<float> list() { return {values_.data(), rows_ * cols_}; }
  [[nodiscard]] reference::matrix exact() const { return to_reference(view()); }
  [[nodiscard]] const std::vector<float>& values() const { return values_; }
  float& operator()(index_t i, index_t j) { return view()(i, j); }

 private:
  index_t rows_, cols_;
  std::vector<float> values_;
};

}  // namespace support
