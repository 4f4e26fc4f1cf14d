// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/elementwise.hpp"

#include <bit>

#include "cpu/op_test.hpp"

namespace {

using namespace pesc;
using support::tensor;

/// A user's own activation, which no kernel knows.
struct cube {
  static float value(float x) { return x * x * x; }
  static float derivative(float x) { return 3 * x * x; }
};

struct shape {
  index_t rows, cols;
};
constexpr shape shapes[] = {{1, 9}, {3, 7}, {5, 16}, {2, 172}, {67, 33}, {300, 257}};

template <class A>
void check_activation(A act, double (*value)(double), double (*derivative)(double)) {
  for (const shape s : shapes) {
    CAPTURE(s.rows);
    CAPTURE(s.cols);
    const tensor gate = tensor::random(s.rows, s.cols, 1, 3), up = tensor::random(s.rows, s.cols, 2),
                 d = tensor::random(s.rows, s.cols, 3);
    std::vector<double> out, backward, plain, plain_backward;
    const auto g = gate.exact(), u = up.exact(), e = d.exact();
    for (index_t i = 0; i < g.count(); ++i) {
      out.push_back(value(g[i]) * u[i]);
      plain.push_back(value(g[i]));
      plain_backward.push_back(derivative(g[i]) * e[i]);
      backward.push_back(e[i] * u[i] * derivative(g[i]));
    }
    for (index_t i = 0; i < g.count(); ++i) backward.push_back(e[i] * value(g[i]));
    support::check_on_every_context(
        [&](cpu_backend& ctx) {
          tensor y(s.rows, s.cols);
          gated_activate(ctx, act, gate.view(), up.view(), y.view());
          CHECK(y.gaps_kept());
          return y.values();
        },
        out, 1e-6);
    support::check_on_every_context(
        [&](cpu_backend& ctx) {
          tensor y(s.rows, s.cols);
          activate(ctx, act, gate.view(), y.view());
          CHECK(y.gaps_kept());
          return y.values();
        },
        plain, 1e-6);
    support::check_on_every_context(
        [&](cpu_backend& ctx) {
          tensor dx = d;
          activate_backward(ctx, act, gate.view(), as_const(dx.view()), dx.view());
          CHECK(dx.gaps_kept());
          return dx.values();
        },
        plain_backward, 1e-6);
    support::check_on_every_context(
        [&](cpu_backend& ctx) {
          // In place, as the layer does to save memory.
          tensor dgate = gate, dup = d;
          gated_activate_backward(ctx, act, as_const(dgate.view()), up.view(), as_const(dup.view()),
                                  dgate.view(), dup.view());
          CHECK(dgate.gaps_kept());
          CHECK(dup.gaps_kept());
          return support::together(dgate, dup);
        },
        backward, 1e-6);
  }
}

using reference::activation;

TEST_CASE("activations and their gradients agree with double precision") {
  check_activation(
      silu{}, [](double x) { return reference::activate(activation::silu, x); },
      [](double x) { return reference::activation_derivative(activation::silu, x); });
  check_activation(
      gelu{}, [](double x) { return reference::activate(activation::gelu, x); },
      [](double x) { return reference::activation_derivative(activation::gelu, x); });
  check_activation(
      gelu_tanh{}, [](double x) { return reference::activate(activation::gelu_tanh, x); },
      [](double x) { return reference::activation_derivative(activation::gelu_tanh, x); });
  check_activation(
      relu{}, [](double x) { return reference::activate(activation::relu, x); },
      [](double x) { return reference::activation_derivative(activation::relu, x); });
  check_activation(
      cube{}, [](double x) { return x * x * x; }, [](double x) { return 3 * x * x; });
}

TEST_CASE("activations stay defined far from zero") {
  std::vector<float> values = {-1e30f, -200.0f, -104.0f, -88.0f, -0.0f, 1e-30f,
                               88.0f,  104.0f,  200.0f,  1e30f,  -20.0f};
  const matrix_view<const float> x(values.data(), 1, static_cast<index_t>(values.size()));
  const auto check = [&](auto act, activation kind) {
    support::on_every_context(
        [&](cpu_backend& ctx) {
          std::vector<float> y(2 * values.size());
          std::vector<float> ones(values.size(), 1.0f);
          const index_t n = x.cols;
          activate(ctx, act, x, matrix_view<float>{y.data(), 1, n});
          activate_backward(ctx, act, x, matrix_view<const float>{ones.data(), 1, n},
                            matrix_view<float>{y.data() + n, 1, n});
          return y;
        },
        [&](const std::vector<float>& y) {
          for (std::size_t i = 0; i < values.size(); ++i) {
            CAPTURE(values[i]);
            const double v = reference::activate(kind, static_cast<double>(values[i]));
            CHECK(static_cast<double>(y[i]) == doctest::Approx(v).epsilon(1e-5));
            CHECK(std::isfinite(y[values.size() + i]));
          }
        });
  };
  check(silu{}, activation::silu);
  check(gelu{}, activation::gelu);
  check(relu{}, activation::relu);
}

TEST_CASE("NaN passes through activations") {
  float x = NAN;
  support::on_every_context(
      [&](cpu_backend& ctx) {
        std::vector<float> y(3);
        activate(ctx, silu{}, matrix_view<const float>{&x, 1, 1}, matrix_view<float>{y.data(), 1, 1});
        activate(ctx, gelu{}, matrix_view<const float>{&x, 1, 1}, matrix_view<float>{y.data() + 1, 1, 1});
        activate(ctx, gelu_tanh{}, matrix_view<const float>{&x, 1, 1},
                 matrix_view<float>{y.data() + 2, 1, 1});
        return std::vector<float>{static_cast<float>(std::isnan(y[0])), static_cast<float>(std::isnan(y[1])),
                                  static_cast<float>(std::isnan(y[2]))};
      },
      [](const std::vector<float>& y) {
        CHECK(y == std::vector<float>{1, 1, 1});
      });
}

TEST_CASE("fill, add_scaled and add_bias touch the matrix alone") {
  for (const shape s : shapes) {
    const tensor x = tensor::random(s.rows, s.cols, 5), start = tensor::random(s.rows, s.cols, 6);
    const std::vector<float> bias = support::normal_floats(s.cols, 7);
    std::vector<double> expected;
    for (index_t i = 0; i < s.rows; ++i)
      for (index_t j = 0; j < s.cols; ++j)
        expected.push_back(start.exact(i, j) - 0.75 * x.exact(i, j) +
                           static_cast<double>(bias[static_cast<std::size_t>(j)]));
    support::check_on_every_context(
        [&](cpu_backend& ctx) {
          tensor y(s.rows, s.cols);
          fill(ctx, y.view(), 2.5f);
          CHECK(y.view()(s.rows - 1, s.cols - 1) == 2.5f);
          copy(ctx, start.view(), y.view());
          CHECK(y.values() == start.values());
          add_scaled(ctx, x.view(), -0.75f, y.view());
          add_bias(ctx, vector_view<const float>{bias.data(), s.cols}, y.view());
          CHECK(y.gaps_kept());
          return y.values();
        },
        expected, 3e-7);
  }
}

TEST_CASE("copy converts like the scalar conversions, for every bit pattern") {
  std::vector<bf16> wide(65536);
  std::vector<f16> half(65536);
  for (std::uint32_t i = 0; i < 65536; ++i) {
    wide[i] = {static_cast<std::uint16_t>(i)};
    half[i] = {static_cast<std::uint16_t>(i)};
  }
  support::generator g(4);
  std::vector<float> floats(70000);
  for (float& x : floats) x = std::bit_cast<float>(static_cast<std::uint32_t>(g.bits()));
  const auto bits = [](float x) { return std::bit_cast<std::uint32_t>(x); };
  support::on_every_context(
      [&](cpu_backend& ctx) {
        std::vector<float> y(65536);
        std::vector<bf16> b(70000);
        std::vector<f16> h(70000);
        bool same = true;
        copy(ctx, matrix_view<const bf16>{wide.data(), 256, 256}, matrix_view<float>{y.data(), 256, 256});
        for (std::size_t i = 0; i < y.size(); ++i) same &= bits(y[i]) == bits(to_float(wide[i]));
        copy(ctx, matrix_view<const f16>{half.data(), 256, 256}, matrix_view<float>{y.data(), 256, 256});
        // Hardware makes a signalling NaN quiet.
        for (std::size_t i = 0; i < y.size(); ++i)
          same &=
              bits(y[i]) == bits(to_float(half[i])) || (std::isnan(y[i]) && std::isnan(to_float(half[i])));
        copy(ctx, matrix_view<const float>{floats.data(), 70, 1000}, matrix_view<bf16>{b.data(), 70, 1000});
        for (std::size_t i = 0; i < b.size(); ++i)
          same &= b[i] == to_bf16(floats[i]) || (std::isnan(to_float(b[i])) && std::isnan(floats[i]));
        copy(ctx, matrix_view<const float>{floats.data(), 70, 1000}, matrix_view<f16>{h.data(), 70, 1000});
        for (std::size_t i = 0; i < h.size(); ++i)
          same &= h[i] == to_f16(floats[i]) || (std::isnan(to_float(h[i])) && std::isnan(floats[i]));
        return std::vector<float>{same ? 1.0f : 0.0f};
      },
      [](const std::vector<float>& same) { CHECK(same[0] == 1.0f); });
}

TEST_CASE("dropout keeps, scales or clears by the stream alone") {
  const random_stream stream{.seed = 99, .step = 3, .layer = 2, .site = random_site::lora_dropout, .part = 1};
  constexpr index_t rows = 61, cols = 35;
  const tensor x = tensor::random(rows, cols, 8);
  std::vector<std::int32_t> ids;
  for (index_t i = 0; i < rows; ++i) ids.push_back(static_cast<std::int32_t>((i * 7) % rows));
  std::vector<double> expected;
  index_t kept = 0;
  for (const bool named : {false, true})
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = 0; j < cols; ++j) {
        const auto row = static_cast<std::uint32_t>(named ? ids[static_cast<std::size_t>(i)] : i);
        const bool keep = stream.uniform(row, static_cast<std::uint32_t>(j)) >= 0.3f;
        kept += keep;
        expected.push_back(keep ? x.exact(i, j) / (1 - 0.3) : 0);
      }
  CHECK(static_cast<double>(kept) / (2.0 * rows * cols) == doctest::Approx(0.7).epsilon(0.05));
  support::check_on_every_context(
      [&](cpu_backend& ctx) {
        tensor y = x, z(rows, cols);
        dropout(ctx, as_const(y.view()), 0.3f, stream, y.view());
        dropout_rows(ctx, x.view(), vector_view<const std::int32_t>{ids.data(), rows}, 0.3f, stream,
                     z.view());
        CHECK(y.gaps_kept());
        CHECK(z.gaps_kept());
        return support::together(y, z);
      },
      expected, 3e-7);
}

TEST_CASE("operations on nothing do nothing") {
  support::on_every_context(
      [&](cpu_backend& ctx) {
        matrix_view<float> none, flat(nullptr, 0, 5), thin(nullptr, 5, 0);
        for (const matrix_view<float> m : {none, flat, thin}) {
          fill(ctx, m, 1.0f);
          copy(ctx, as_const(m), m);
          activate(ctx, silu{}, as_const(m), m);
          gated_activate(ctx, gelu{}, as_const(m), as_const(m), m);
          gated_activate_backward(ctx, gelu{}, as_const(m), as_const(m), as_const(m), m, m);
          add_scaled(ctx, as_const(m), 1.0f, m);
          dropout(ctx, as_const(m), 0.5f, {}, m);
        }
        fill(ctx, vector_view<float>{}, 1.0f);
        return std::vector<float>{};
      },
      [](const std::vector<float>&) {});
}

}  // namespace
