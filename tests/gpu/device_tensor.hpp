// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <doctest/doctest.h>

#include "gpu/device.hpp"
#include "pesc/core/workspace.hpp"
#include "support/near.hpp"
#include "support/random.hpp"
#include "support/reference_matrix.hpp"

namespace support {

using pesc::device_space;
using pesc::index_t;

/// \brief How the rows of a device matrix lie: `aligned` for 16-byte accesses, `shifted` by one element and with a gap
/// of three between rows, `dense` without gaps.
enum class placement { dense, aligned, shifted };

constexpr placement placements[] = {placement::dense, placement::aligned, placement::shifted};

/// \brief A float matrix in device memory; what lies between its rows holds a mark that no operation may touch.
class device_tensor {
 public:
  static constexpr float mark = -12345.5f;

  device_tensor(pesc::gpu::context& ctx, index_t rows, index_t cols, const std::vector<float>& values,
                placement where = placement::shifted)
      : rows_{rows},
        cols_{cols},
        begin_{where == placement::shifted ? 1 : 0},
        stride_{where == placement::dense     ? cols
                : where == placement::aligned ? pesc::round_up(cols, 4) + 4
                                              : cols + 3},
        memory_(ctx, spread(values)) {}

  /// \brief Zeros.
  device_tensor(pesc::gpu::context& ctx, index_t rows, index_t cols, placement where = placement::shifted)
      : device_tensor(ctx, rows, cols, std::vector<float>(static_cast<std::size_t>(rows * cols)), where) {}

  [[nodiscard]] pesc::matrix_view<float, device_space> view() {
    return {memory_.data() + begin_, rows_, cols_, stride_};
  }
  [[nodiscard]] pesc::matrix_view<const float, device_space> in() { return pesc::as_const(view()); }

  [[nodiscard]] std::vector<float> values() const {
    const std::vector<float> all = memory_.values();
    std::vector<float> result;
    for (index_t i = 0; i < rows_; ++i) {
      const auto row = all.begin() + begin_ + i * stride_;
      result.insert(result.end(), row, row + cols_);
    }
    return result;
  }

  [[nodiscard]] bool gaps_kept() const { return memory_.values() == spread(values()); }

 private:
  [[nodiscard]] std::vector<float> spread(const std::vector<float>& values) const {
    std::vector<float> all(static_cast<std::size_t>(begin_ + rows_ * stride_), mark);
    for (index_t i = 0; i < rows_; ++i)
      std::copy_n(values.begin() + i * cols_, cols_, all.begin() + begin_ + i * stride_);
    return all;
  }

  index_t rows_, cols_, begin_, stride_;
  on_device<float> memory_;
};

/// \brief Scratch for an operation: counted first, then used.
template <class Op>
void with_device_scratch(const Op& op) {
  pesc::workspace<device_space> counting;
  op(counting);
  pesc::device_buffer<std::byte> memory(counting.peak() + 64);
  pesc::workspace<device_space> ws(memory.data(), counting.peak());
  op(ws);
  CHECK(ws.peak() == counting.peak());
}

/// \brief The numbers as a matrix of doubles.
inline reference::matrix exact(index_t rows, index_t cols, const std::vector<float>& values) {
  return {rows, cols, std::vector<double>(values.begin(), values.end())};
}

}  // namespace support
