// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/optimizer.hpp"

#include "cpu/op_test.hpp"

namespace {

using namespace pesc;

TEST_CASE("twenty AdamW steps follow double precision") {
  for (const index_t n : {0, 1, 15, 16, 33, 20000}) {
    CAPTURE(n);
    const adamw_options options{.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-7, .weight_decay = 0.1};
    const std::vector<float> start = support::normal_floats(n, 1);
    reference::matrix p(1, n, std::vector<double>(start.begin(), start.end()));
    reference::adamw_state state;
    reference::adamw_options exact;
    exact.beta1 = options.beta1;
    exact.beta2 = options.beta2;
    exact.epsilon = options.epsilon;
    exact.weight_decay = options.weight_decay;
    for (std::uint64_t t = 1; t <= 20; ++t) {
      reference::matrix g(1, n, support::normal_doubles(n, 100 + t));
      for (double& x : g.values) x = static_cast<double>(static_cast<float>(x)) * 0.5;
      reference::adamw_step(p, g, state, 1e-2 / static_cast<double>(t), exact);
    }
    support::check_on_every_context(
        [&](cpu_backend& ctx) {
          std::vector<float> q = start, m(start.size()), v(start.size());
          for (std::uint64_t t = 1; t <= 20; ++t) {
            const std::vector<float> g = support::normal_floats(n, 100 + t);
            adamw_step(ctx, vector_view<float>{q.data(), n}, vector_view<const float>{g.data(), n},
                       vector_view<float>{m.data(), n}, vector_view<float>{v.data(), n},
                       adamw_step_coefficients(options, 1e-2 / static_cast<double>(t),
                                               static_cast<index_t>(t), 0.5));
          }
          return q;
        },
        p.values, 1e-6);
  }
}

TEST_CASE("a gradient of zero leaves only the decay") {
  const std::vector<float> zeros(20, 0.0f);
  support::on_every_context(
      [&](cpu_backend& ctx) {
        std::vector<float> p(20, 2.0f), m(20), v(20);
        adamw_step(ctx, vector_view<float>{p.data(), 20}, vector_view<const float>{zeros.data(), 20},
                   vector_view<float>{m.data(), 20}, vector_view<float>{v.data(), 20},
                   adamw_step_coefficients({.weight_decay = 0.5}, 0.5, 1));
        return p;
      },
      [](const std::vector<float>& p) { CHECK(p == std::vector<float>(20, 1.5f)); });
}

}  // namespace
