// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <memory>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/core/workspace.hpp"
#include "pesc/cpu/context.hpp"
#include "support/host_isas.hpp"
#include "support/near.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"

namespace support {

using pesc::index_t;

/// \brief A workspace for operations that need no scratch on the CPU.
inline pesc::workspace<> no_scratch() {
  alignas(64) static std::byte block[64];
  return {block, 64};
}

/// \brief A float matrix whose rows lie `gap` elements apart; the gaps hold a mark that no operation may
/// touch.
class tensor {
 public:
  static constexpr float mark = -12345.5f;

  tensor(index_t rows, index_t cols, index_t gap = 3)
      : rows_(rows),
        cols_(cols),
        gap_(gap),
        values_(static_cast<std::size_t>(rows * (cols + gap) + 1), mark) {
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = 0; j < cols; ++j) view()(i, j) = 0;
  }

  /// \brief Normal numbers.
  static tensor random(index_t rows, index_t cols, std::uint64_t seed, double deviation = 1) {
    tensor t(rows, cols);
    generator g(seed);
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = 0; j < cols; ++j) t.view()(i, j) = static_cast<float>(g.normal(deviation));
    return t;
  }

  /// \brief One element into the vector, so that rows are not aligned either.
  pesc::matrix_view<float> view() { return {values_.data() + 1, rows_, cols_, cols_ + gap_}; }
  pesc::matrix_view<const float> view() const { return {values_.data() + 1, rows_, cols_, cols_ + gap_}; }

  reference::matrix exact() const { return reference::from(values_.data() + 1, rows_, cols_, cols_ + gap_); }
  double exact(pesc::index_t i, pesc::index_t j) const { return static_cast<double>(view()(i, j)); }

  std::vector<float> values() const {
    std::vector<float> result;
    for (index_t i = 0; i < rows_; ++i) result.insert(result.end(), view().row(i), view().row(i) + cols_);
    return result;
  }

  bool gaps_kept() const {
    for (index_t i = 0; i < rows_; ++i)
      for (index_t j = cols_; j < cols_ + gap_; ++j)
        if (values_[static_cast<std::size_t>(1 + i * (cols_ + gap_) + j)] != mark) return false;
    return values_[0] == mark;
  }

 private:
  index_t rows_, cols_, gap_;
  std::vector<float> values_;
};

/// \brief Calls `run(context)`, which returns numbers, on every instruction set of this machine and with 1,
/// 2, 3 and 8 threads; the numbers must not depend on the threads, and `check(numbers)` sees them once per
/// instruction set.
template <class Run, class Check>
void on_every_context(const Run& run, const Check& check) {
  using namespace pesc::cpu;
  for (const isa level : host_isas()) {
    CAPTURE(std::string(name_of(level)));
    std::vector<float> first;
    for (const int threads : {1, 2, 3, 8}) {
      CAPTURE(threads);
      // Threads are kept over all tests of a program: starting them takes longer than most tests.
      static std::unique_ptr<context<>> contexts[4][9];
      std::unique_ptr<context<>>& ctx = contexts[static_cast<int>(level)][threads];
      if (!ctx) ctx = std::make_unique<context<>>(threads, runtime_isa{level});
      const std::vector<float> values = run(*ctx);
      if (threads == 1) {
        first = values;
        check(values);
      } else {
        bool equal = values.size() == first.size();
        for (std::size_t i = 0; equal && i < first.size(); ++i)
          equal = std::bit_cast<std::uint32_t>(values[i]) == std::bit_cast<std::uint32_t>(first[i]);
        CHECK_MESSAGE(equal, "results depend on the number of threads");
      }
    }
  }
}

/// \brief As above, compared with `expected` by max |a - b| / max |b|.
template <class Run>
void check_on_every_context(const Run& run, const std::vector<double>& expected, double tolerance) {
  on_every_context(run, [&](const std::vector<float>& values) { CHECK(near(values, expected, tolerance)); });
}

/// \brief The elements of several tensors behind one another.
template <class... Tensors>
std::vector<float> together(const Tensors&... tensors) {
  std::vector<float> result;
  const auto add = [&](const std::vector<float>& part) {
    result.insert(result.end(), part.begin(), part.end());
  };
  (add(tensors.values()), ...);
  return result;
}

/// \brief Caller memory for an operation that needs scratch: counted first, then used.
template <class Op>
void with_scratch(const Op& op) {
  pesc::workspace<> counting;
  op(counting);
  pesc::buffer<std::byte> memory(counting.peak());
  pesc::workspace<> ws =
      counting.peak() == 0 ? pesc::workspace<>(&memory, 0) : pesc::workspace<>(memory.data(), memory.size());
  op(ws);
  CHECK(ws.peak() == counting.peak());
}

}  // namespace support
