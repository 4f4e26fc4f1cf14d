// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "gpu/device_tensor.hpp"
#include "pesc/gpu/matmul.cuh"

namespace {

using namespace pesc;
using reference::matrix;
using support::device_tensor;
using support::on_device;
using support::placement;
using support::with_device_scratch;

/// \brief Numbers on both sides.
struct operand {
  matrix exact;
  device_tensor device;

  operand(gpu::context& ctx, index_t rows, index_t cols, std::uint64_t seed, placement where)
      : operand(ctx, rows, cols, support::normal_floats(rows * cols, seed), where) {}

  /// \brief The values now; nothing between the rows may have changed.
  std::vector<float> values() const {
    CHECK(device.gaps_kept());
    return device.values();
  }

 private:
  operand(gpu::context& ctx, index_t rows, index_t cols, const std::vector<float>& values, placement where)
      : exact(support::exact(rows, cols, values)), device(ctx, rows, cols, values, where) {}
};

/// \brief As the first of `count` matrices of the same shape below one another.
batch_view<float, device_space> as_stack(operand& x, index_t count) {
  return {x.device.view().data, count, x.exact.rows / count, x.exact.cols};
}

matrix rows_of(const matrix& x, index_t first, index_t count) {
  const auto begin = x.values.begin() + first * x.cols;
  return matrix(count, x.cols, std::vector<double>(begin, begin + count * x.cols));
}

matrix transposed_if(bool condition, const matrix& x) {
  if (!condition) return x;
  matrix result(x.cols, x.rows);
  for (index_t i = 0; i < x.rows; ++i)
    for (index_t j = 0; j < x.cols; ++j) result(j, i) = x(i, j);
  return result;
}

matrix exact_product(const matrix& a, const matrix& b, const matrix& y, const matmul_options& o) {
  const matrix sum = reference::product(transposed_if(o.transpose_a, a), transposed_if(o.transpose_b, b));
  matrix result = o.accumulate ? y : matrix(y.rows, y.cols);
  reference::add_to(result, sum, static_cast<double>(o.alpha));
  return result;
}

struct shape {
  index_t m, n, k;
};

void check(const shape& s, const matmul_options& o, placement where) {
  CAPTURE(s.m);
  CAPTURE(s.n);
  CAPTURE(s.k);
  CAPTURE(o.transpose_a);
  CAPTURE(o.transpose_b);
  CAPTURE(static_cast<int>(where));
  cuda_backend ctx;
  operand a(ctx, o.transpose_a ? s.k : s.m, o.transpose_a ? s.m : s.k, 1, where);
  operand b(ctx, o.transpose_b ? s.n : s.k, o.transpose_b ? s.k : s.n, 2, where);
  operand y(ctx, s.m, s.n, 3, where);
  with_device_scratch([&](workspace<device_space>& ws) {
    matmul(ctx, a.device.in(), b.device.in(), y.device.view(), o, ws);
  });
  CHECK(support::near(y.values(), exact_product(a.exact, b.exact, y.exact, o).values, 2e-6));
}

constexpr matmul_options forms[] = {{1.0f, false, false, false},
                                    {0.5f, true, false, true},
                                    {-2.0f, false, true, true},
                                    {1.0f, true, true, false}};

TEST_SUITE("gpu/matmul") {
  TEST_CASE("products agree with sums in double for every operand order, at every edge, aligned or not") {
    constexpr shape shapes[] = {{1, 1, 1},     {1, 130, 70}, {5, 64, 33},  {16, 129, 64}, {17, 8, 31},
                                {130, 16, 40}, {64, 64, 32}, {65, 67, 66}, {40, 70, 100}};
    for (const shape& s : shapes)
      for (const matmul_options& o : forms)
        for (const placement where : {placement::aligned, placement::shifted}) check(s, o, where);
    for (const matmul_options& o : forms) check({36, 20, 44}, o, placement::dense);
  }

  TEST_CASE("large results are cut into large tiles") {
    constexpr shape s{1030, 1800, 20};
    static_assert(ceil_div(s.m, 128) * ceil_div(s.n, 128) >= gpu::detail::enough_tiles);
    check(s, {1.0f, false, true, false}, placement::aligned);
    check({1800, 1030, 34}, {1.0f, true, false, true}, placement::shifted);
  }

  TEST_CASE("a long sum is cut into parts, which are added in their order") {
    for (const matmul_options& o : forms) {
      check({8, 33, 1000}, o, placement::dense);
      check({70, 9, 777}, o, placement::shifted);
      check({20, 24, 1024}, o, placement::aligned);
    }
  }

  TEST_CASE("the order of blocks does not show in the result") {
    cuda_backend ctx;
    operand a(ctx, 900, 40, 1, placement::dense), b(ctx, 900, 30, 2, placement::dense);
    std::vector<float> results[2];
    for (std::vector<float>& result : results) {
      on_device<float> y(ctx, 40 * 30);
      with_device_scratch([&](workspace<device_space>& ws) {
        matmul(ctx, a.device.in(), b.device.in(), y.matrix(40, 30), {.transpose_a = true}, ws);
      });
      result = y.values();
    }
    CHECK(results[0] == results[1]);
  }

  TEST_CASE("a product over nothing is zero, or leaves what is added to") {
    check({3, 5, 0}, {1.0f, false, true, false}, placement::dense);
    check({3, 5, 0}, {1.0f, false, false, true}, placement::shifted);
  }

  TEST_CASE("results without elements launch nothing") {
    check({0, 5, 7}, {}, placement::dense);
    check({5, 0, 7}, {1.0f, true, true, true}, placement::dense);
    check({0, 0, 0}, {}, placement::dense);
  }

  TEST_CASE("numbers of very different size keep the precision of float") {
    cuda_backend ctx;
    on_device<float> a(ctx, std::vector<float>{1.0f + 0x1p-23f, 1e-30f, -3e20f, 1.0f}),
        b(ctx, std::vector<float>{1.0f, 1e30f, 1e-20f, -1.0f - 0x1p-22f}), y(ctx, 1);
    with_device_scratch([&](workspace<device_space>& ws) {
      matmul(ctx, a.matrix(1, 4), b.matrix(4, 1), y.matrix(1, 1), {}, ws);
    });
    CHECK(static_cast<double>(y.values()[0]) == doctest::Approx(-2.0 - 0x1p-23).epsilon(3e-7));
  }

  TEST_CASE("scratch for many rows suffices for fewer") {
    const auto bytes = [](index_t m, index_t n, index_t k) {
      cuda_backend ctx;
      workspace<device_space> counting;
      matmul(ctx, {nullptr, m, k}, {nullptr, k, n}, {nullptr, m, n}, {}, counting);
      return counting.peak();
    };
    CHECK(bytes(1, 64, 256) == 0);
    index_t last = 0;
    for (index_t m = 1; m < 20000; m += 1 + m / 3) {
      CHECK(bytes(m, 64, 4096) >= last);
      last = bytes(m, 64, 4096);
    }
  }

  TEST_CASE("a captured product can be replayed") {
    cuda_backend ctx;
    operand a(ctx, 20, 600, 1, placement::dense), b(ctx, 24, 600, 2, placement::dense);
    on_device<float> y(ctx, 20 * 24);
    device_buffer<std::byte> memory(1 << 20);
    workspace<device_space> ws(memory.data(), memory.size());
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    PESC_CUDA_TRY(cudaStreamBeginCapture(ctx.stream(), cudaStreamCaptureModeThreadLocal));
    matmul(ctx, a.device.in(), b.device.in(), y.matrix(20, 24), {.transpose_b = true}, ws);
    PESC_CUDA_TRY(cudaStreamEndCapture(ctx.stream(), &graph));
    PESC_CUDA_TRY(cudaGraphInstantiate(&replay, graph, 0));
    CHECK(y.values() == std::vector<float>(20 * 24, 0.0f));
    PESC_CUDA_TRY(cudaGraphLaunch(replay, ctx.stream()));
    CHECK(support::near(y.values(), reference::product_transposed(a.exact, b.exact).values, 2e-6));
    PESC_CUDA_TRY(cudaGraphExecDestroy(replay));
    PESC_CUDA_TRY(cudaGraphDestroy(graph));
  }

  TEST_CASE("a grouped product is the product of each group") {
    struct {
      index_t rows, n, k;
      std::vector<std::int32_t> offsets;
    } const scenes[] = {{33, 19, 23, {0, 5, 5, 33}},
                        {300, 64, 40, {0, 100, 200, 290}},
                        {7, 8, 16, {0, 0, 0, 0}},
                        {250, 20, 12, {3, 70, 135, 250}}};
    for (const auto& s : scenes)
      for (const bool transpose : {false, true})
        for (const placement where : {placement::aligned, placement::shifted}) {
          CAPTURE(s.rows);
          cuda_backend ctx;
          operand a(ctx, s.rows, s.k, 1, where), y(ctx, s.rows, s.n, 2, where);
          operand b(ctx, 3 * (transpose ? s.n : s.k), transpose ? s.k : s.n, 3, placement::dense);
          on_device<std::int32_t> offsets(ctx, s.offsets);
          const matmul_options o{2.0f, false, transpose, where == placement::aligned};
          with_device_scratch([&](workspace<device_space>& ws) {
            grouped_matmul(ctx, offsets.view(), a.device.in(), as_stack(b, 3), y.device.view(), o, ws);
          });
          matrix expected = y.exact;
          for (index_t g = 0; g < 3; ++g) {
            const index_t begin = s.offsets[static_cast<std::size_t>(g)];
            const index_t count = s.offsets[static_cast<std::size_t>(g) + 1] - begin;
            const index_t lines = b.exact.rows / 3;
            const matrix part =
                exact_product(rows_of(a.exact, begin, count), rows_of(b.exact, g * lines, lines),
                              rows_of(y.exact, begin, count), o);
            std::copy(part.values.begin(), part.values.end(), expected.data() + begin * s.n);
          }
          CHECK(support::near(y.values(), expected.values, 2e-6));
        }
  }

  TEST_CASE("a grouped product finds the rows of hundreds of groups") {
    constexpr index_t groups = 300, rows = 700, n = 8, k = 8;
    std::vector<std::int32_t> starts(groups + 1);
    support::generator random(4);
    for (std::int32_t& start : starts) start = static_cast<std::int32_t>(random.below(rows + 1));
    std::sort(starts.begin(), starts.end());
    cuda_backend ctx;
    on_device<std::int32_t> offsets(ctx, starts);
    operand a(ctx, rows, k, 1, placement::dense), b(ctx, groups * k, n, 2, placement::dense),
        y(ctx, rows, n, 3, placement::dense);
    with_device_scratch([&](workspace<device_space>& ws) {
      grouped_matmul(ctx, offsets.view(), a.device.in(), as_stack(b, groups), y.device.view(), {}, ws);
    });
    matrix expected = y.exact;
    for (index_t g = 0; g < groups; ++g)
      for (index_t i = starts[static_cast<std::size_t>(g)]; i < starts[static_cast<std::size_t>(g) + 1];
           ++i) {
        const matrix row = reference::product(rows_of(a.exact, i, 1), rows_of(b.exact, g * k, k));
        std::copy(row.values.begin(), row.values.end(), expected.data() + i * n);
      }
    CHECK(support::near(y.values(), expected.values, 2e-6));
  }

  TEST_CASE("a grouped outer product adds the product of each group and leaves empty groups alone") {
    for (const index_t cols : {37, 64}) {
      constexpr index_t rows = 21;
      cuda_backend ctx;
      const std::vector<std::int32_t> starts = {0, 5, 5, 70};
      on_device<std::int32_t> offsets(ctx, starts);
      operand a(ctx, 75, rows, 1, placement::shifted), b(ctx, 75, cols, 2, placement::dense),
          y(ctx, 3 * rows, cols, 3, placement::dense);
      with_device_scratch([&](workspace<device_space>& ws) {
        grouped_outer(ctx, offsets.view(), a.device.in(), b.device.in(), as_stack(y, 3), 0.5f, ws);
      });
      matrix expected = y.exact;
      for (index_t g = 0; g < 3; ++g) {
        const index_t begin = starts[static_cast<std::size_t>(g)];
        const index_t count = starts[static_cast<std::size_t>(g) + 1] - begin;
        const matrix part =
            reference::transposed_product(rows_of(a.exact, begin, count), rows_of(b.exact, begin, count));
        for (index_t i = 0; i < part.count(); ++i) expected[g * rows * cols + i] += 0.5 * part[i];
      }
      const std::vector<float> values = y.values();
      CHECK(support::near(values, expected.values, 2e-6));
      bool untouched = true;
      for (index_t i = rows * cols; i < 2 * rows * cols; ++i)
        untouched &= static_cast<double>(values[static_cast<std::size_t>(i)]) == y.exact[i];
      CHECK(untouched);
    }
  }
}

}  // namespace
