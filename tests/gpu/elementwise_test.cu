// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cstring>

#include "gpu/device_tensor.hpp"
#include "pesc/gpu/elementwise.cuh"
#include "support/reference_ops.hpp"

namespace {

using namespace pesc;
using reference::activation;
using support::device_tensor;
using support::placement;

/// A user's own activation.
struct cube {
  PESC_HOST_DEVICE static float value(float x) { return x * x * x; }
  PESC_HOST_DEVICE static float derivative(float x) { return 3 * x * x; }
};

struct shape {
  index_t rows, cols;
};
constexpr shape shapes[] = {{1, 9}, {3, 7}, {5, 16}, {2, 172}, {67, 33}, {33, 260}};

template <class F>
std::vector<double> each(const std::vector<float>& x, F f) {
  std::vector<double> y;
  for (const float v : x) y.push_back(f(static_cast<double>(v)));
  return y;
}

std::vector<double> times(std::vector<double> a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] *= static_cast<double>(b[i]);
  return a;
}

template <class A, class Value, class Derivative>
void check_activation(A act, Value value, Derivative derivative) {
  cuda_backend ctx;
  for (const shape s : shapes)
    for (const placement where : support::placements) {
      CAPTURE(s.rows);
      CAPTURE(s.cols);
      const index_t n = s.rows * s.cols;
      const auto x = support::normal_floats(n, 1, 3), u = support::normal_floats(n, 2),
                 d = support::normal_floats(n, 3);
      device_tensor gate(ctx, s.rows, s.cols, x, where), up(ctx, s.rows, s.cols, u, where),
          dout(ctx, s.rows, s.cols, d, where), y(ctx, s.rows, s.cols, where);
      const auto values = each(x, value), slopes = times(each(x, derivative), d);

      activate(ctx, act, gate.in(), y.view());
      CHECK(support::near(y.values(), values, 1e-6));
      gated_activate(ctx, act, gate.in(), up.in(), y.view());
      CHECK(support::near(y.values(), times(values, u), 1e-6));
      CHECK(y.gaps_kept());

      device_tensor dx = device_tensor(ctx, s.rows, s.cols, d, where);
      activate_backward(ctx, act, gate.in(), dx.in(), dx.view());
      CHECK(support::near(dx.values(), slopes, 1e-6));
      CHECK(dx.gaps_kept());
      // In place, as the layer does to save memory. Slopes near their zero keep what two steps of a device's exponential leave.
      gated_activate_backward(ctx, act, gate.in(), up.in(), dout.in(), gate.view(), dout.view());
      CHECK(support::near(gate.values(), times(slopes, u), 3e-6));
      CHECK(support::near(dout.values(), times(values, d), 1e-6));
      CHECK(gate.gaps_kept());
      CHECK(dout.gaps_kept());
    }
}

template <class A>
void check_activation(A act, activation kind) {
  check_activation(
      act, [=](double x) { return reference::activate(kind, x); },
      [=](double x) { return reference::activation_derivative(kind, x); });
}

TEST_SUITE("gpu/elementwise") {
  TEST_CASE("activations and their gradients agree with double precision") {
    check_activation(silu{}, activation::silu);
    check_activation(gelu{}, activation::gelu);
    check_activation(gelu_tanh{}, activation::gelu_tanh);
    check_activation(relu{}, activation::relu);
    check_activation(
        cube{}, [](double x) { return x * x * x; }, [](double x) { return 3 * x * x; });
  }

  TEST_CASE("activations stay defined far from zero, and keep NaN") {
    cuda_backend ctx;
    const std::vector<float> values = {-1e30f, -200.0f, -104.0f, -88.0f, -0.0f,  1e-30f,
                                       88.0f,  104.0f,  200.0f,  1e30f,  -20.0f, NAN};
    const auto check = [&](auto act, activation kind) {
      const auto n = static_cast<index_t>(values.size());
      device_tensor x(ctx, 1, n, values), y(ctx, 1, n);
      activate(ctx, act, x.in(), y.view());
      const std::vector<float> result = y.values();
      device_tensor d(ctx, 1, n, std::vector<float>(values.size(), 1.0f));
      activate_backward(ctx, act, x.in(), d.in(), d.view());
      const std::vector<float> slopes = d.values();
      for (std::size_t i = 0; i + 1 < values.size(); ++i) {
        CAPTURE(values[i]);
        const double v = reference::activate(kind, static_cast<double>(values[i]));
        CHECK(static_cast<double>(result[i]) == doctest::Approx(v).epsilon(1e-5));
        CHECK(std::isfinite(slopes[i]));
      }
      CHECK(std::isnan(result.back()));
    };
    check(silu{}, activation::silu);
    check(gelu{}, activation::gelu);
  }

  TEST_CASE("fill, add_scaled and add_bias touch the matrix alone") {
    cuda_backend ctx;
    for (const shape s : shapes)
      for (const placement where : support::placements) {
        const index_t n = s.rows * s.cols;
        const auto x = support::normal_floats(n, 5), start = support::normal_floats(n, 6),
                   bias = support::normal_floats(s.cols, 7);
        std::vector<double> expected;
        for (index_t i = 0; i < n; ++i) {
          const auto at = static_cast<std::size_t>(i);
          expected.push_back(static_cast<double>(start[at]) - 0.75 * static_cast<double>(x[at]) +
                             static_cast<double>(bias[static_cast<std::size_t>(i % s.cols)]));
        }
        device_tensor a(ctx, s.rows, s.cols, x, where), b(ctx, s.rows, s.cols, start, where),
            y(ctx, s.rows, s.cols, where);
        support::on_device<float> offsets(ctx, bias);
        fill(ctx, y.view(), 2.5f);
        CHECK(y.values() == std::vector<float>(static_cast<std::size_t>(n), 2.5f));
        CHECK(y.gaps_kept());
        copy(ctx, b.in(), y.view());
        CHECK(y.values() == start);
        add_scaled(ctx, a.in(), -0.75f, y.view());
        add_bias(ctx, as_const(offsets.view()), y.view());
        CHECK(support::near(y.values(), expected, 3e-7));
        CHECK(y.gaps_kept());
      }
  }

  TEST_CASE("vectors of floats and doubles are filled up to their last element") {
    cuda_backend ctx;
    for (const index_t n : {0, 1, 2, 5, 1027}) {
      support::on_device<float> x(ctx, n + 1);
      support::on_device<double> y(ctx, n + 1);
      fill(ctx, x.view().part(0, n), 1.5f);
      fill(ctx, y.view().part(0, n), -3.0);
      std::vector<float> floats(static_cast<std::size_t>(n), 1.5f);
      std::vector<double> doubles(static_cast<std::size_t>(n), -3.0);
      floats.push_back(0);
      doubles.push_back(0);
      CHECK(x.values() == floats);
      CHECK(y.values() == doubles);
    }
  }

  TEST_CASE_TEMPLATE("copy converts like the scalar conversions", From, float, bf16, f16) {
    cuda_backend ctx;
    support::generator g(4);
    constexpr index_t rows = 31, cols = 44;
    std::vector<From> values(rows * 50);
    using bits = std::conditional_t<sizeof(From) == 4, std::uint32_t, std::uint16_t>;
    for (From& x : values) x = std::bit_cast<From>(static_cast<bits>(g.bits()));
    support::on_device<From> x(ctx, values);
    const auto check = [&]<class To>(To, index_t begin, index_t stride) {
      support::on_device<To> y(ctx, begin + rows * stride);
      const matrix_view<const From, device_space> source(x.data() + begin, rows, cols, stride);
      copy(ctx, source, matrix_view<To, device_space>(y.data() + begin, rows, cols, stride));
      const std::vector<To> result = y.values();
      bool same = true;
      for (index_t i = 0; i < begin + rows * stride; ++i) {
        const bool inside = i >= begin && (i - begin) % stride < cols;
        To expected = {};
        if (inside) {
          if constexpr (std::is_same_v<From, To>)
            expected = values[static_cast<std::size_t>(i)];
          else
            expected = from_float<To>(to_float(values[static_cast<std::size_t>(i)]));
        }
        same &= std::memcmp(&expected, &result[static_cast<std::size_t>(i)], sizeof(To)) == 0;
      }
      CHECK(same);
    };
    for (const index_t stride : {44, 48, 49})
      for (const index_t begin : {0, 1}) {
        check(float{}, begin, stride);
        check(bf16{}, begin, stride);
        check(f16{}, begin, stride);
      }
  }

  TEST_CASE("dropout keeps, scales or clears by the stream alone, with the bits of the CPU") {
    cuda_backend ctx;
    const random_stream stream{
        .seed = 0x123456789ABCDEFu, .step = 3, .layer = 2, .site = random_site::lora_dropout, .part = 1};
    const float p = 0.3f;
    for (const index_t cols : {3, 35, 64, 300})
      for (const placement where : support::placements) {
        constexpr index_t rows = 61;
        const auto x = support::normal_floats(rows * cols, 8);
        std::vector<std::int32_t> ids;
        for (index_t i = 0; i < rows; ++i) ids.push_back(static_cast<std::int32_t>((i * 7) % rows));
        const auto expected = [&](const random_stream& s, bool named) {
          std::vector<float> y;
          for (index_t i = 0; i < rows; ++i)
            for (index_t j = 0; j < cols; ++j) {
              const auto row = static_cast<std::uint32_t>(named ? ids[static_cast<std::size_t>(i)] : i);
              const bool keep = s.uniform(row, static_cast<std::uint32_t>(j)) >= p;
              y.push_back(keep ? x[static_cast<std::size_t>(i * cols + j)] * (1.0f / (1.0f - p)) : 0.0f);
            }
          return y;
        };
        device_tensor y(ctx, rows, cols, x, where), z(ctx, rows, cols, where);
        support::on_device<std::int32_t> names(ctx, ids);
        dropout_rows(ctx, y.in(), as_const(names.view()), p, stream, z.view());
        dropout(ctx, y.in(), p, stream, y.view());
        CHECK(y.values() == expected(stream, false));
        CHECK(z.values() == expected(stream, true));
        CHECK(y.gaps_kept());
        CHECK(z.gaps_kept());

        // Seed and step from device memory, as a captured graph needs them.
        gpu::step_values now;
        now.seed = 5;
        now.step = 77;
        support::on_device<gpu::step_values> values(ctx, {now});
        ctx.read_step_values(values.data());
        device_tensor u(ctx, rows, cols, x, where);
        dropout(ctx, u.in(), p, stream, u.view());
        ctx.read_step_values(nullptr);
        random_stream later = stream;
        later.seed = 5;
        later.step = 77;
        CHECK(u.values() == expected(later, false));
      }
  }

  TEST_CASE("operations on nothing do nothing") {
    cuda_backend ctx;
    const matrix_view<float, device_space> none, flat(nullptr, 0, 5), thin(nullptr, 5, 0);
    for (const matrix_view<float, device_space> m : {none, flat, thin}) {
      fill(ctx, m, 1.0f);
      copy(ctx, as_const(m), m);
      activate(ctx, silu{}, as_const(m), m);
      activate_backward(ctx, silu{}, as_const(m), as_const(m), m);
      gated_activate(ctx, gelu{}, as_const(m), as_const(m), m);
      gated_activate_backward(ctx, gelu{}, as_const(m), as_const(m), as_const(m), m, m);
      add_scaled(ctx, as_const(m), 1.0f, m);
      dropout(ctx, as_const(m), 0.5f, {}, m);
    }
    fill(ctx, vector_view<float, device_space>{}, 1.0f);
    ctx.synchronize();
  }

  TEST_CASE("a matrix of more rows than a grid has along y is covered") {
    cuda_backend ctx;
    const index_t rows = 70000;
    support::on_device<float> memory(ctx, rows * 2);
    const matrix_view<float, device_space> column(memory.data(), rows, 1, 2);
    fill(ctx, column, 1.0f);
    float sum = 0;
    for (const float v : memory.values()) sum += v;
    CHECK(sum == 70000.0f);
  }
}

}  // namespace
