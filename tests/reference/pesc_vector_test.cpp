// SPDX-License-Identifier: Apache-2.0
// One small layer whose parameters come from a formula, with every number of its forward and backward pass.
#include <cmath>

#include <doctest/doctest.h>

#include "support/near.hpp"
#include "support/reference.hpp"

namespace {

using reference::index_t;
using reference::list;
using reference::matrix;

matrix formula(index_t a, index_t b, index_t c, index_t rows, index_t cols, double q) {
  matrix m(rows, cols);
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < cols; ++j) m(i, j) = q * static_cast<double>((a * i + b * j + c) % 11 - 5) / 10;
  return m;
}

/// Largest difference to numbers that are printed with `digits` decimals is half a unit of the last one.
support::near_result printed(const matrix& actual, const std::vector<double>& expected, int digits) {
  support::near_result r = support::near(actual, expected, 0);
  r.error = std::fabs(r.actual - r.expected);
  r.tolerance = 0.501 * std::pow(10.0, -digits);
  r.close = r.actual_size == r.expected_size && r.error <= r.tolerance;
  return r;
}

matrix number(double value) { return matrix(1, 1, value); }

double sum_of_magnitudes(const matrix& m) {
  double sum = 0;
  for (const double value : m.values) sum += std::fabs(value);
  return sum;
}

reference::moe_layer vector_layer() {
  reference::moe_layer layer;
  layer.ffn.gate = {
      formula(2, 7, 3, 3, 4, 1), {}, {formula(1, 6, 2, 2, 4, 1), formula(5, 2, 1, 3, 2, 1), 0.25, {}}};
  layer.ffn.up.weight = formula(5, 3, 2, 3, 4, 1);
  layer.ffn.down = {
      formula(4, 9, 6, 4, 3, 1), {}, {formula(2, 3, 4, 2, 3, 1), formula(6, 1, 3, 4, 2, 1), 0.25, {}}};
  layer.router.weight = formula(7, 2, 5, 4, 4, 1);
  for (index_t e = 0; e < 4; ++e)
    layer.experts.push_back({formula(3 + e, 4, e, 2, 4, 1), formula(2, 5 + e, 2 * e + 1, 4, 2, 1)});
  layer.expert_scale = 0.25;
  return layer;
}

struct pass {
  reference::moe_layer layer = vector_layer();
  matrix x = formula(3, 5, 1, 3, 4, 2);
  matrix target = formula(2, 3, 7, 3, 4, 1);
  reference::layer_state state = reference::layer_forward(layer, x);
  reference::pooled_loss balance = reference::balance_loss({state.routed});
  reference::pooled_loss z = reference::z_loss({state.routed});
  reference::layer_gradients gradients = backward();

  reference::layer_gradients backward() const {
    reference::logit_gradients auxiliary;
    add_to(auxiliary.logits, balance.dlogits[0], 0.01);
    add_to(auxiliary.logits, z.dlogits[0], 0.001);
    return layer_backward(layer, state, target, auxiliary);
  }
};

TEST_CASE("the forward pass of the layer gives the printed logits, experts, gates and outputs") {
  const pass p;
  CHECK(printed(p.state.routed.logits,
                {-0.36, 0.28, 0.26, -0.20, -0.30, 0.04, 0.38, 0.28, 0.42, -0.20, -0.16, -0.56}, 12));
  const index_t experts[] = {1, 2, 2, 3, 0, 2};
  matrix gates(1, 6);
  for (index_t n = 0; n < 6; ++n) {
    CHECK(p.state.routed.assignments[n].token == n / 2);
    CHECK(p.state.routed.assignments[n].expert == experts[n]);
    gates[n] = p.state.routed.assignments[n].gate;
  }
  CHECK(printed(
      gates, {0.504999833340, 0.495000166660, 0.524979187479, 0.475020812521, 0.641067406335, 0.358932593665},
      12));
  CHECK(printed(
      p.state.ffn.out,
      {0.011550823644, -0.016543609960, 0.002374524422, 0.002496672097, 0.019913839433, -0.045987629218,
       0.018312631600, 0.001408009319, 0.051683647588, -0.049758774425, -0.027344936818, 0.012540576277},
      12));
  CHECK(printed(
      p.state.y,
      {0.011151665005, -0.016514551277, 0.002342951017, 0.002705031389, 0.018819812789, -0.046729516160,
       0.019364676949, 0.002934612285, 0.051910318569, -0.050121467638, -0.028296994225, 0.013444971186},
      12));
}

TEST_CASE("the losses of the layer are the printed ones") {
  const pass p;
  double task = 0;
  for (index_t i = 0; i < p.state.y.count(); ++i) task += p.state.y[i] * p.target[i];
  CHECK(printed(number(task), {0.004757781694}, 12));
  CHECK(printed(number(p.balance.loss), {2.097873796588}, 12));
  CHECK(printed(number(p.z.loss), {2.026613457451}, 12));
  CHECK(printed(number(task + 0.01 * p.balance.loss + 0.001 * p.z.loss), {0.027763133117}, 12));
  CHECK(support::near(p.balance.fractions, std::vector<double>{1 / 3.0, 1 / 3.0, 1, 1 / 3.0}, 1e-15));
  CHECK(
      printed(p.balance.probabilities, {0.245072125441, 0.255093014648, 0.286702673721, 0.213132186191}, 12));
  CHECK(std::fabs(reference::camelidae_constant({p.state.routed}) - 2) < 1e-14);
}

TEST_CASE("the three parts of the gradient of the logits are the printed ones") {
  const pass p;
  const auto task = reference::layer_backward(p.layer, p.state, p.target).logits.logits;
  CHECK(printed(task,
                {0, 0.000091546852, -0.000091546852, 0, 0, 0, -0.000075108341, 0.000075108341,
                 -0.000857133118, 0, 0.000857133118, 0},
                12));
  CHECK(printed(
      p.balance.dlogits[0],
      {-0.047006607182, -0.089147131722, 0.191316503441, -0.055162764537, -0.046165841842, -0.064860588263,
       0.193480397823, -0.082453967718, -0.081368140616, -0.043771538642, 0.155678045524, -0.030538366266},
      12));
  CHECK(printed(
      p.z.dlogits[0],
      {0.159651570759, 0.302776151295, 0.296780781808, 0.187352853856, 0.164249754425, 0.230762296731,
       0.324208932785, 0.293356373645, 0.357301990874, 0.192208618532, 0.200052801061, 0.134099402817},
      12));
}

TEST_CASE("the gradients of the adapters are the printed ones") {
  const pass p;
  const auto& experts = p.gradients.experts;
  CHECK(printed(experts[0].down,
                {0.0012532487, -0.0012065735, -0.0006630725, 0.0003040896, -0.0008997066, 0.0008661985,
                 0.0004760194, -0.0002183058},
                10));
  CHECK(printed(experts[0].up,
                {0.0013285653, 0.0003133479, 0.0005314261, 0.0001253392, -0.0002657131, -0.0000626696,
                 -0.0010628522, -0.0002506783},
                10));
  CHECK(printed(experts[1].down,
                {-0.0000724003, 0.0001036950, -0.0000148835, -0.0000156491, -0.0000576726, 0.0000826013,
                 -0.0000118559, -0.0000124657},
                10));
  CHECK(printed(
      experts[1].up,
      {-0.0000555997, -0.0000888817, -0.0001389992, -0.0002222043, 0.0000833995, 0.0001333226, 0, 0}, 10));
  CHECK(printed(experts[2].down,
                {-0.0007375621, 0.0011028399, -0.0000355535, -0.0001292901, 0.0006060735, -0.0004487747,
                 -0.0004956614, 0.0001598811},
                10));
  CHECK(printed(experts[3].down,
                {-0.0001026028, 0.0002369436, -0.0000943528, -0.0000072545, -0.0000122827, 0.0000283649,
                 -0.0000112951, -0.0000008685},
                10));
}

TEST_CASE("the gradients of router, low-rank factors and input are the printed ones") {
  const pass p;
  const auto& g = p.gradients;
  CHECK(printed(g.router.weight,
                {-0.0002175917, 0.0007508002, 0.0001666755, 0.0011350673, 0.0003830847, -0.0002372991,
                 0.0006151844, -0.0000051994, -0.0010859135, 0.0000796303, -0.0024691675, -0.0013036236,
                 0.0003141211, -0.0003006875, 0.0005124479, -0.0001023607},
                10));
  CHECK(printed(g.ffn.gate.a,
                {0.0027048816, -0.0084813454, 0.0004521784, -0.0107340486, 0.0012169762, -0.0064768478,
                 -0.0003437716, -0.0080375956},
                10));
  CHECK(printed(g.ffn.gate.b,
                {0.0066271241, 0.0081936101, -0.0044815090, -0.0064118560, 0.0092818453, 0.0108542539}, 10));
  CHECK(printed(g.ffn.down.a,
                {0.0002498603, -0.0034740721, -0.0066175556, 0.0023104461, 0.0106715662, 0.0104634258}, 10));
  CHECK(printed(g.ffn.down.b,
                {0.0061117224, -0.0042599614, 0.0054891066, 0.0004952133, 0.0000027603, 0.0012700021,
                 -0.0100032009, 0.0007186041},
                10));
  CHECK(printed(g.dx,
                {-0.0270761499, -0.0355360956, 0.0276510714, 0.0137241127, -0.0151862677, 0.0317027426,
                 -0.0141107297, 0.0174582008, -0.0299198834, -0.0132428393, -0.0169947648, 0.0251140258},
                10));
}

TEST_CASE("the summed magnitudes of all gradients are the printed ones") {
  const auto g = pass{}.gradients;
  const auto check = [](const matrix& gradient, double expected) {
    CHECK(printed(number(sum_of_magnitudes(gradient)), {expected}, 10));
  };
  check(g.dx, 0.2677168838);
  check(g.ffn.gate.weight, 0.2624819840);
  check(g.ffn.up.weight, 0.2376494854);
  check(g.ffn.down.weight, 0.2678084663);
  check(g.router.weight, 0.0096788545);
  const double down[] = {0.0058872146, 0.0003712234, 0.0037156363, 0.0004939649};
  const double up[] = {0.0039405917, 0.0007224070, 0.0038244126, 0.0030595284};
  for (index_t e = 0; e < 4; ++e) {
    check(g.experts[e].down, down[e]);
    check(g.experts[e].up, up[e]);
  }
}

TEST_CASE("with gates that sum to one both residuals give the same outputs and gradients") {
  pass p;
  p.layer.shared = reference::residual::gate_sum;
  const auto state = reference::layer_forward(p.layer, p.x);
  const auto g = reference::layer_backward(p.layer, state, p.target);
  const auto plain = reference::layer_backward(vector_layer(), p.state, p.target);
  CHECK(support::near(state.y, p.state.y, 1e-14));
  CHECK(support::near(g.dx, plain.dx, 1e-13));
  CHECK(support::near(g.router.weight, plain.router.weight, 1e-12));
}

}  // namespace
