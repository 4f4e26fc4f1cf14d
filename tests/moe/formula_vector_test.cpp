// SPDX-License-Identifier: Apache-2.0
// One small layer whose parameters come from a formula, with every number of its forward and backward pass, on every
// instruction set. The numbers themselves are proven with the double reference in tests/reference/pesc_vector_test.cpp.

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/pesc.hpp"
#include "support/host_isas.hpp"
#include "support/near.hpp"

namespace {

using pesc::index_t;
using backend = pesc::cpu_backend;

struct static_layer : pesc::moe_defaults {
  static constexpr int experts = 4;
  using router = pesc::top_k_router<2>;
  using expert = pesc::adapter_expert<2>;
  using weight = pesc::unquantized<float>;
  using lora = pesc::lora<2>;
};
struct dynamic_layer : pesc::moe_dynamic<> {
  using weight = pesc::unquantized<float>;
};

constexpr pesc::moe_shape shape{
    .hidden = 4, .intermediate = 3, .experts = 4, .top_k = 2, .rank = 2, .lora_rank = 2};
constexpr index_t tokens = 3;

void put_formula(pesc::matrix_view<float> m, index_t a, index_t b, index_t c, float q) {
  for (index_t i = 0; i < m.rows; ++i)
    for (index_t j = 0; j < m.cols; ++j)
      m(i, j) = q * static_cast<float>((a * i + b * j + c) % 11 - 5) / 10.0f;
}

std::vector<float> formula(index_t a, index_t b, index_t c, index_t rows, index_t cols, float q) {
  std::vector<float> out(static_cast<std::size_t>(rows * cols));
  put_formula({out.data(), rows, cols}, a, b, c, q);
  return out;
}

std::vector<float> list(pesc::matrix_view<const float> m) { return {m.data, m.data + m.size()}; }

template <class Config>
pesc::moe_layer<Config, backend> vector_layer(backend& ctx) {
  const auto gate = formula(2, 7, 3, 3, 4, 1);
  const auto up = formula(5, 3, 2, 3, 4, 1);
  const auto down = formula(4, 9, 6, 4, 3, 1);
  // alpha / rank = 0.25
  pesc::moe_layer<Config, backend> layer(
      ctx, shape, pesc::dense_ffn<float>{{gate.data(), 3, 4}, {up.data(), 3, 4}, {down.data(), 4, 3}},
      {.expert_scale = 0.25f, .lora_alpha = 0.5f});
  const auto& p = layer.parameters();
  put_formula(p.router.weight, 7, 2, 5, 1);
  for (index_t e = 0; e < 4; ++e) {
    put_formula(p.experts.down[e], 3 + e, 4, e, 1);
    put_formula(p.experts.up[e], 2, 5 + e, 2 * e + 1, 1);
  }
  put_formula(p.shared.gate.a, 1, 6, 2, 1);
  put_formula(p.shared.gate.b, 5, 2, 1, 1);
  put_formula(p.shared.up.a, 0, 0, 5, 0);  // without an update
  put_formula(p.shared.up.b, 0, 0, 5, 0);
  put_formula(p.shared.down.a, 2, 3, 4, 1);
  put_formula(p.shared.down.b, 6, 1, 3, 1);
  return layer;
}

template <class Config>
void check_vector(pesc::cpu::isa level) {
  backend ctx(level);
  const auto layer = vector_layer<Config>(ctx);
  const auto x = formula(3, 5, 1, tokens, 4, 2);
  const auto target = formula(2, 3, 7, tokens, 4, 1);
  std::vector<float> y(x.size());
  std::vector<float> dx(x.size());
  auto buffers = layer.prepare(ctx, tokens);
  layer.forward(ctx, {x.data(), tokens, 4}, {y.data(), tokens, 4}, buffers, {.training = true});

  const double tolerance = 1e-5;
  const auto& r = buffers.routing();
  const std::vector<int> experts(r.expert.begin(), r.expert.end());
  CHECK(experts == std::vector<int>{1, 2, 2, 3, 0, 2});
  CHECK(support::near(
      list(r.logits),
      std::vector{-0.36, 0.28, 0.26, -0.20, -0.30, 0.04, 0.38, 0.28, 0.42, -0.20, -0.16, -0.56}, tolerance));
  CHECK(support::near(std::vector(r.gate.begin(), r.gate.end()),
                      std::vector{0.504999833340, 0.495000166660, 0.524979187479, 0.475020812521,
                                  0.641067406335, 0.358932593665},
                      tolerance));
  CHECK(support::near(y,
                      std::vector{0.011151665005, -0.016514551277, 0.002342951017, 0.002705031389,
                                  0.018819812789, -0.046729516160, 0.019364676949, 0.002934612285,
                                  0.051910318569, -0.050121467638, -0.028296994225, 0.013444971186},
                      tolerance));

  pesc::balance_pool pool(4, 2);
  layer.pool_balance(ctx, pool, buffers);
  const pesc::balance_options losses{.coefficient = 0.01f, .z_coefficient = 0.001f};
  CHECK(pool.values(ctx, losses).balance == doctest::Approx(2.097873796588).epsilon(tolerance));
  CHECK(pool.values(ctx, {}).z == doctest::Approx(2.026613457451).epsilon(tolerance));
  CHECK(pool.values(ctx, {.per_slot = true}).balance ==
        doctest::Approx(2.097873796588 / 2).epsilon(tolerance));
  CHECK(pool.values(ctx, {.kind = pesc::balance_kind::camelidae_constant}).balance == 2.0);

  auto gradients = layer.make_gradients();
  layer.backward(ctx, {target.data(), tokens, 4}, {dx.data(), tokens, 4}, gradients, buffers,
                 pool.gradient(ctx, losses));
  const auto& g = gradients.views();
  CHECK(support::near(
      dx,
      std::vector{-0.0270761499, -0.0355360956, 0.0276510714, 0.0137241127, -0.0151862677, 0.0317027426,
                  -0.0141107297, 0.0174582008, -0.0299198834, -0.0132428393, -0.0169947648, 0.0251140258},
      tolerance));
  CHECK(support::near(
      list(g.router.weight),
      std::vector{-0.0002175917, 0.0007508002, 0.0001666755, 0.0011350673, 0.0003830847, -0.0002372991,
                  0.0006151844, -0.0000051994, -0.0010859135, 0.0000796303, -0.0024691675, -0.0013036236,
                  0.0003141211, -0.0003006875, 0.0005124479, -0.0001023607},
      tolerance));
  const auto& e = g.experts;
  CHECK(support::near(list(e.down[0]),
                      std::vector{0.0012532487, -0.0012065735, -0.0006630725, 0.0003040896, -0.0008997066,
                                  0.0008661985, 0.0004760194, -0.0002183058},
                      tolerance));
  CHECK(support::near(list(e.up[0]),
                      std::vector{0.0013285653, 0.0003133479, 0.0005314261, 0.0001253392, -0.0002657131,
                                  -0.0000626696, -0.0010628522, -0.0002506783},
                      tolerance));
  CHECK(support::near(list(e.down[1]),
                      std::vector{-0.0000724003, 0.0001036950, -0.0000148835, -0.0000156491, -0.0000576726,
                                  0.0000826013, -0.0000118559, -0.0000124657},
                      tolerance));
  CHECK(support::near(list(e.up[1]),
                      std::vector{-0.0000555997, -0.0000888817, -0.0001389992, -0.0002222043, 0.0000833995,
                                  0.0001333226, 0.0, 0.0},
                      tolerance));
  CHECK(support::near(list(e.down[2]),
                      std::vector{-0.0007375621, 0.0011028399, -0.0000355535, -0.0001292901, 0.0006060735,
                                  -0.0004487747, -0.0004956614, 0.0001598811},
                      tolerance));
  CHECK(support::near(list(e.down[3]),
                      std::vector{-0.0001026028, 0.0002369436, -0.0000943528, -0.0000072545, -0.0000122827,
                                  0.0000283649, -0.0000112951, -0.0000008685},
                      tolerance));
  CHECK(support::near(list(g.shared.gate.a),
                      std::vector{0.0027048816, -0.0084813454, 0.0004521784, -0.0107340486, 0.0012169762,
                                  -0.0064768478, -0.0003437716, -0.0080375956},
                      tolerance));
  CHECK(support::near(
      list(g.shared.gate.b),
      std::vector{0.0066271241, 0.0081936101, -0.0044815090, -0.0064118560, 0.0092818453, 0.0108542539},
      tolerance));
  CHECK(support::near(
      list(g.shared.down.a),
      std::vector{0.0002498603, -0.0034740721, -0.0066175556, 0.0023104461, 0.0106715662, 0.0104634258},
      tolerance));
  CHECK(support::near(list(g.shared.down.b),
                      std::vector{0.0061117224, -0.0042599614, 0.0054891066, 0.0004952133, 0.0000027603,
                                  0.0012700021, -0.0100032009, 0.0007186041},
                      tolerance));
}

}  // namespace

TEST_SUITE("moe/formula_vector") {
  TEST_CASE_TEMPLATE("outputs, losses and all gradients are the printed numbers on every instruction set",
                     Config, static_layer, dynamic_layer) {
    for (const auto level : support::host_isas()) {
      CAPTURE(std::string(pesc::cpu::name_of(level)));
      check_vector<Config>(level);
    }
  }
}
