// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/cpu/matmul.hpp"
#include "pesc/cpu/quantized_matmul.hpp"
#include "pesc/quant/fp4.hpp"
#include "pesc/quant/nf4.hpp"
#include "pesc/quant/q4_0.hpp"
#include "pesc/quant/q4_1.hpp"
#include "pesc/quant/q8_0.hpp"
#include "pesc/quant/quantize.hpp"
#include "pesc/quant/unquantized.hpp"
#include "support/random.hpp"

// Products of the CPU backend against sums in double; the same checks serve real and emulated instruction
// sets.

namespace support {

using pesc::index_t;
using pesc::cpu::isa;

/// \brief A matrix at an address of no alignment, rows further apart than long, and guards around them.
struct padded_matrix {
  index_t rows, cols, stride;
  std::vector<float> values;

  padded_matrix(index_t row_count, index_t col_count, std::uint64_t seed)
      : rows{row_count},
        cols{col_count},
        stride{col_count + 3},
        values(uniform_floats(row_count * (col_count + 3) + 8, seed)) {}

  pesc::matrix_view<float> view() { return {values.data() + 1, rows, cols, stride}; }
  pesc::matrix_view<const float> view() const { return {values.data() + 1, rows, cols, stride}; }

  /// \brief True if nothing outside the rows differs from `before`.
  bool same_outside(const padded_matrix& before) const {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const index_t place = static_cast<index_t>(i) - 1;
      const bool inside = place >= 0 && place / stride < rows && place % stride < cols;
      if (!inside && values[i] != before.values[i]) return false;
    }
    return true;
  }
};

/// \brief Runs `operation(ws)` on a workspace of exactly the bytes that counting asked for.
template <class Operation>
void run_counted(Operation operation) {
  pesc::workspace<> count;
  operation(count);
  pesc::buffer<std::byte> memory(count.peak());
  pesc::workspace<> ws(memory.data(), memory.size());
  operation(ws);
  CHECK(ws.peak() == count.peak());
}

/// \brief Largest |y - expected| / (bound of the rounding of that element); at most 1 when y is right.
class error_meter {
 public:
  explicit error_meter(double relative) : relative_{relative} {}

  /// \param magnitude  sum of the magnitudes of all terms
  void add(double actual, double expected, double magnitude) {
    const double ratio = std::fabs(actual - expected) / (relative_ * magnitude + 1e-30);
    if (!(ratio <= worst_)) worst_ = std::isnan(ratio) ? 1e30 : ratio;
  }
  double worst() const { return worst_; }

 private:
  double relative_;
  double worst_ = 0;
};

inline constexpr double float_rounding = 4e-7;   ///< of the sum of magnitudes; random signs make it far less
inline constexpr double bf16_rounding = 2.4e-3;  ///< weights rounded to 8 bits

inline void check_matmul(isa level, index_t m, index_t n, index_t k, const pesc::matmul_options& options) {
  CAPTURE(pesc::cpu::name_of(level));
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  CAPTURE(options.transpose_a);
  CAPTURE(options.transpose_b);
  const padded_matrix a(options.transpose_a ? k : m, options.transpose_a ? m : k, 1);
  const padded_matrix b(options.transpose_b ? n : k, options.transpose_b ? k : n, 2);
  padded_matrix y(m, n, 3);
  const padded_matrix before = y;
  pesc::cpu::context<> ctx(1, pesc::cpu::runtime_isa{level});
  run_counted([&](pesc::workspace<>& ws) { matmul(ctx, a.view(), b.view(), y.view(), options, ws); });
  error_meter errors(float_rounding);
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < n; ++j) {
      double sum = 0, magnitude = 0;
      for (index_t q = 0; q < k; ++q) {
        const double term = static_cast<double>(options.transpose_a ? a.view()(q, i) : a.view()(i, q)) *
                            static_cast<double>(options.transpose_b ? b.view()(j, q) : b.view()(q, j));
        sum += term;
        magnitude += std::fabs(term);
      }
      const double old = options.accumulate ? static_cast<double>(before.view()(i, j)) : 0.0;
      const double alpha = static_cast<double>(options.alpha);
      errors.add(static_cast<double>(y.view()(i, j)), old + alpha * sum,
                 std::fabs(old) + std::fabs(alpha) * magnitude);
    }
  CHECK(errors.worst() <= 1.0);
  CHECK(y.same_outside(before));
}

/// \brief A frozen weight in both orders and as numbers.
struct frozen_case {
  pesc::quantized_matrix<pesc::any_format, pesc::row_blocks> stored;
  pesc::quantized_matrix<pesc::any_format, pesc::panels> packed;
  std::vector<float> values;

  frozen_case(const pesc::format_info& info, index_t rows, index_t cols) {
    const std::vector<float> weights = normal_floats(rows * cols, 5);
    stored = info.is_read_only() ? arbitrary(info, rows, cols)
                                 : pesc::quantize<pesc::any_format>(
                                       info, pesc::matrix_view<const float>(weights.data(), rows, cols));
    packed = pesc::pack(stored);
    values.resize(weights.size());
    pesc::dequantize(stored.view(), pesc::matrix_view<float>(values.data(), rows, cols));
  }

 private:
  /// \brief Any codes, scales and minima: for formats that come from files.
  static pesc::quantized_matrix<pesc::any_format, pesc::row_blocks> arbitrary(const pesc::format_info& info,
                                                                              index_t rows, index_t cols) {
    pesc::quantized_matrix<pesc::any_format, pesc::row_blocks> out(info, rows, cols);
    const std::vector<float> noise = normal_floats(out.codes().size, 6);
    for (index_t i = 0; i < out.codes().size; ++i)
      out.codes()[i] = static_cast<std::uint8_t>(static_cast<int>(noise[static_cast<std::size_t>(i)] * 1000));
    const std::vector<float> scales = normal_floats(2 * out.absmax().size, 7);
    for (index_t b = 0; b < out.absmax().size; ++b)
      out.absmax()[b] = (b % 3 == 0 ? -1.0f : 1.0f) + 0.1f * scales[static_cast<std::size_t>(2 * b)];
    for (index_t b = 0; b < out.minimum().size; ++b)
      out.minimum()[b] = scales[static_cast<std::size_t>(2 * b + 1)];
    return out;
  }
};

/// \brief Every kind of format that can hold rows of `cols`.
inline std::vector<pesc::format_info> frozen_formats(index_t cols) {
  using pesc::double_quant;
  std::vector<pesc::format_info> out{pesc::nf4<64>::info(),
                                     pesc::nf4<64, double_quant<>>::info(),
                                     pesc::nf4<32>::info(),
                                     pesc::nf4<32, double_quant<>>::info(),
                                     pesc::nf4<128, double_quant<>>::info(),
                                     pesc::nf4<4096>::info(),
                                     pesc::fp4<64>::info(),
                                     pesc::fp4<128, double_quant<>>::info(),
                                     pesc::unquantized<float>::info(),
                                     pesc::unquantized<pesc::bf16>::info(),
                                     pesc::unquantized<pesc::f16>::info()};
  if (cols % 32 == 0) out.insert(out.end(), {pesc::q4_0::info(), pesc::q4_1::info(), pesc::q8_0::info()});
  return out;
}

inline std::string describe(const pesc::format_info& info) {
  return std::string(info.name) + "/" + std::to_string(info.block) +
         (info.scales == pesc::scale_kind::double_quant ? "/dq" : "");
}

/// \brief y of a product with a frozen weight on `threads` threads.
inline padded_matrix frozen_product(isa level, const frozen_case& w, const padded_matrix& x,
                                    const pesc::quantized_options& options, int threads = 1) {
  padded_matrix y(x.rows, options.transpose ? w.packed.cols() : w.packed.rows(), 3);
  const padded_matrix before = y;
  pesc::cpu::context<> ctx(threads, pesc::cpu::runtime_isa{level});
  run_counted([&](pesc::workspace<>& ws) {
    quantized_matmul(ctx, x.view(), w.packed.view(), y.view(), options, ws);
  });
  CHECK(y.same_outside(before));
  return y;
}

inline void check_frozen(isa level, const frozen_case& w, index_t m, const pesc::quantized_options& options) {
  const index_t rows = w.packed.rows(), cols = w.packed.cols();
  const index_t k = options.transpose ? rows : cols;
  CAPTURE(pesc::cpu::name_of(level));
  CAPTURE(describe(w.packed.format()));
  CAPTURE(rows);
  CAPTURE(cols);
  CAPTURE(m);
  CAPTURE(options.transpose);
  CAPTURE(options.round_bf16);
  const padded_matrix x(m, k, 1);
  const padded_matrix y = frozen_product(level, w, x, options);
  const padded_matrix before(y.rows, y.cols, 3);
  error_meter errors(options.round_bf16 && level == isa::avx512_bf16 ? bf16_rounding : float_rounding);
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < y.cols; ++j) {
      double sum = 0, magnitude = 0;
      for (index_t q = 0; q < k; ++q) {
        const float exact = x.view()(i, q);
        const float left = options.round_bf16 ? pesc::to_float(pesc::to_bf16(exact)) : exact;
        const float right =
            w.values[static_cast<std::size_t>(options.transpose ? q * cols + j : j * cols + q)];
        sum += static_cast<double>(left) * static_cast<double>(right);
        magnitude += std::fabs(static_cast<double>(left) * static_cast<double>(right));
      }
      const double old = options.accumulate ? static_cast<double>(before.view()(i, j)) : 0.0;
      errors.add(static_cast<double>(y.view()(i, j)), old + sum, std::fabs(old) + magnitude);
    }
  CHECK(errors.worst() <= 1.0);
}

}  // namespace support
