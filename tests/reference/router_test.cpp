// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include "support/gradient_check.hpp"
#include "support/near.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"

namespace {

using namespace reference;
using numbers = std::vector<double>;

// Rows A to D; B ties everywhere.
const matrix rows(4, 4, {1, 2, 0.5, -1, 0, 0, 0, 0, 3, -1, 2, 2.5, -0.5, 1.5, 1.25, 0});

list<index_t> experts_of(const routing& r) {
  list<index_t> result;
  for (const assignment& a : r.assignments) result.push_back(a.expert);
  return result;
}

matrix gates_of(const routing& r) {
  matrix result(1, r.assignments.count());
  for (index_t n = 0; n < result.count(); ++n) result[n] = r.assignments[n].gate;
  return result;
}

TEST_CASE("top-2 of the four rows chooses the larger logits and the lower index on ties") {
  const numbers renormalised = {0.731058579, 0.268941421, 0.5,         0.5,
                                0.622459331, 0.377540669, 0.562176501, 0.437823499};
  const routing after = route_logits({router_kind::softmax_after_top_k, 2}, rows);
  CHECK(experts_of(after) == list<index_t>{1, 0, 0, 1, 0, 3, 1, 2});
  CHECK(support::near(gates_of(after), renormalised, 1e-9));
  const routing before = route_logits({router_kind::softmax_before_top_k, 2, true}, rows);
  CHECK(experts_of(before) == experts_of(after));
  CHECK(support::near(gates_of(before), renormalised, 1e-9));
  const routing raw = route_logits({router_kind::softmax_before_top_k, 2, false}, rows);
  CHECK(support::near(
      gates_of(raw),
      numbers{0.609460038, 0.224207818, 0.25, 0.25, 0.501825204, 0.304372372, 0.467887429, 0.364391096},
      1e-9));
}

TEST_CASE("the auxiliary losses of the four rows and their gradients are the known ones") {
  const list<routing> layers{route_logits({router_kind::softmax_after_top_k, 2}, rows)};
  const pooled_loss balance = balance_loss(layers);
  CHECK(std::fabs(balance.loss - 2.187946707630509) < 1e-14);
  CHECK(std::fabs(balance_loss(layers, true).loss - 1.093973353815) < 1e-12);
  CHECK(support::near(balance.fractions, numbers{0.75, 0.75, 0.25, 0.25}, 1e-15));
  CHECK(support::near(balance.probabilities, numbers{0.259838675, 0.334134679, 0.233747797, 0.172278849},
                      3e-9));
  CHECK(support::near(balance.dlogits[0],
                      numbers{0.018646484, 0.050686397, -0.056684794, -0.012648087, 0.0625, 0.0625, -0.0625,
                              -0.0625, 0.122692134, 0.002247185, -0.047169674, -0.077769645, 0.014842313,
                              0.109670683, -0.096783934, -0.027729061},
                      5e-9));
  const pooled_loss z = z_loss(layers);
  CHECK(std::fabs(z.loss - 6.716411246776808) < 1e-14);
  const double b = 0.173286795;
  CHECK(support::near(
      z.dlogits[0],
      numbers{0.279719645, 0.760356827, 0.169658541, 0.037855937, b, b, b, b, 0.925742902, 0.016955573,
              0.340561782, 0.561491453, 0.071538538, 0.528602268, 0.411675860, 0.117947109},
      1e-9));
  CHECK(std::fabs(balance_loss(layers, false, {1, 1, 1, 0}).loss - 2.333385439459303) < 1e-14);
  const routing first = route_logits({router_kind::switch_top_1, 1}, rows);
  CHECK(std::fabs(balance_loss({first}).loss - 1.187946707630509) < 1e-14);
}

TEST_CASE("pooling counts all layers before the product and masked rows get no gradient") {
  const matrix other(4, 4, support::normal_doubles(16, 3));
  const list<routing> layers{route_logits({router_kind::softmax_after_top_k, 2}, rows),
                             route_logits({router_kind::softmax_after_top_k, 2}, other)};
  const pooled_loss both = balance_loss(layers, false, {1, 0, 1, 1});
  CHECK(both.rows == 6);
  matrix stacked(8, 4);
  row_mask mask;
  for (index_t n = 0; n < 8; ++n) {
    for (index_t e = 0; e < 4; ++e) stacked(n, e) = n < 4 ? rows(n, e) : other(n - 4, e);
    mask.push_back(n % 4 == 1 ? 0 : 1);
  }
  const pooled_loss one =
      balance_loss({route_logits({router_kind::softmax_after_top_k, 2}, stacked)}, false, mask);
  CHECK(std::fabs(both.loss - one.loss) < 1e-15);
  for (index_t e = 0; e < 4; ++e) CHECK(both.dlogits[0](1, e) == 0);
  CHECK(z_loss(layers, {0, 0, 0, 0}).loss == 0);
  CHECK(balance_loss(layers, false, {0, 0, 0, 0}).loss == 0);
}

TEST_CASE("importance and load of the four rows have the known variation") {
  const routing r = route_logits({router_kind::noisy_top_k, 2}, rows);
  const noisy_loss loss = noisy_balance_loss(r, 0.01);
  CHECK(support::near(loss.importance, numbers{1.391400753, 1.793235080, 0.437823499, 0.377540669}, 1e-9));
  CHECK(support::near(loss.load, numbers{3, 3, 1, 1}, 0));
  CHECK(std::fabs(cv_squared(loss.importance).value - 0.495304825830) < 1e-12);
  CHECK(std::fabs(cv_squared(loss.load).value - 0.333333333325) < 1e-12);
  CHECK(std::fabs(loss.loss - 0.01 * (0.495304825830 + 0.333333333325)) < 1e-13);
  CHECK(cv_squared(matrix(1, 1, 3.0)).value == 0);
}

TEST_CASE("the published loss of Camelidae is experts over k for any routing") {
  for (const index_t k : {1, 2, 3, 4})
    CHECK(std::fabs(camelidae_constant({route_logits({router_kind::softmax_after_top_k, k}, rows)}) -
                    4.0 / static_cast<double>(k)) < 1e-14);
}

TEST_CASE("a row without a finite logit still selects the first experts with equal gates") {
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const matrix odd(3, 3, {-inf, -inf, -inf, nan, 1, -inf, nan, nan, nan});
  const routing r = route_logits({router_kind::softmax_after_top_k, 2}, odd);
  CHECK(experts_of(r) == list<index_t>{0, 1, 1, 0, 0, 1});
  CHECK(support::near(gates_of(r), numbers{0.5, 0.5, 1, 0, 0.5, 0.5}, 0));
}

TEST_CASE("an expert over its capacity drops later tokens, which still count for the balance loss") {
  router_options options{router_kind::switch_top_1, 1};
  options.capacity = expert_capacity(5, 2, 1, 0.8);
  CHECK(options.capacity == 2);
  const matrix logits(5, 2, {1, 0, 2, 0, 3, 0, 0, 1, 4, 0});
  const routing r = route_logits(options, logits);
  const bool kept[] = {true, true, false, true, false};
  for (index_t n = 0; n < 5; ++n) CHECK(r.assignments[n].kept == kept[n]);
  CHECK(expert_load(r) == list<index_t>{2, 1});
  CHECK(support::near(balance_loss({r}).fractions, numbers{0.8, 0.2}, 1e-15));
  CHECK(gates_backward(r, list<double>(5, 1.0)).logits(2, 0) == 0);
  options.group = 3;
  CHECK(route_logits(options, logits).assignments[4].kept);
}

TEST_CASE("the load indicator decides against which threshold an expert is measured") {
  const matrix logits(1, 3, {2, 1, 0});
  const matrix noise(1, 3, {0, 0, 0});
  const matrix raw(1, 3, {0, 0, 0});
  router_options options{router_kind::noisy_top_k, 1};
  const double deviation = std::log(2.0) + 0.01;
  const auto cdf = [&](double distance) { return normal_cdf(distance / deviation); };
  CHECK(support::near(noisy_load(route_logits(options, logits, noise, raw)),
                      numbers{cdf(1), cdf(-1), cdf(-2)}, 1e-14));
  options.indicator =
      load_indicator::llama_moe;  // no noise beats the threshold, so all are measured as outsiders
  CHECK(support::near(noisy_load(route_logits(options, logits, noise, raw)),
                      numbers{cdf(0), cdf(-1), cdf(-2)}, 1e-14));
}

/// Differences of loss(routing) by the logits and, with noise, by the inputs of the deviations.
template <class Loss, class Gradient>
void check_logits(const router_options& options, index_t tokens, index_t experts, bool noisy, Loss&& loss,
                  Gradient&& gradient) {
  matrix logits(tokens, experts, support::normal_doubles(tokens * experts, 11, 1.5));
  matrix raw(tokens, experts, support::normal_doubles(tokens * experts, 12));
  const matrix noise(tokens, experts, support::normal_doubles(tokens * experts, 13));
  const auto routed = [&] {
    return noisy ? route_logits(options, logits, noise, raw) : route_logits(options, logits);
  };
  const auto value = [&] { return loss(routed()); };
  const logit_gradients g = gradient(routed());
  CHECK(support::near(g.logits, support::central_differences(logits, value, 1e-4), 1e-8, 1e-2));
  if (noisy)
    CHECK(support::near(g.deviation_raw, support::central_differences(raw, value, 1e-4), 1e-8, 1e-2));
}

TEST_CASE("gradients of gates agree with differences for every router") {
  const auto weight = [](index_t n) { return std::sin(1.0 + 3.7 * static_cast<double>(n)); };
  const auto loss = [&](const routing& r) {
    double sum = 0;
    for (index_t n = 0; n < r.assignments.count(); ++n) sum += weight(n) * r.assignments[n].gate;
    return sum;
  };
  const auto gradient = [&](const routing& r) {
    list<double> dgates;
    for (index_t n = 0; n < r.assignments.count(); ++n) dgates.push_back(weight(n));
    return gates_backward(r, dgates);
  };
  for (const index_t experts : {1, 2, 3, 5, 8})
    for (index_t k = 1; k <= experts; k += 2) {
      CAPTURE(experts);
      CAPTURE(k);
      check_logits({router_kind::softmax_after_top_k, k}, 6, experts, false, loss, gradient);
      check_logits({router_kind::softmax_before_top_k, k, true}, 6, experts, false, loss, gradient);
      check_logits({router_kind::softmax_before_top_k, k, false}, 6, experts, false, loss, gradient);
      check_logits({router_kind::noisy_top_k, k}, 6, experts, true, loss, gradient);
    }
  router_options with_capacity{router_kind::switch_top_1, 1};
  with_capacity.capacity = 2;
  check_logits(with_capacity, 9, 3, false, loss, gradient);
}

TEST_CASE("gradients of the noisy balance loss agree with differences for both indicators") {
  const auto loss = [](const routing& r) { return noisy_balance_loss(r, 1).loss; };
  const auto gradient = [](const routing& r) { return noisy_balance_loss(r, 1).gradient; };
  for (const load_indicator indicator : {load_indicator::noisy_logit, load_indicator::llama_moe})
    for (const index_t k : {1, 2, 3}) {
      router_options options{router_kind::noisy_top_k, k};
      options.indicator = indicator;
      check_logits(options, 7, 5, true, loss, gradient);
    }
}

TEST_CASE("gradients of balance and z loss agree with differences") {
  const auto balance = [](const routing& r) { return balance_loss({r}, false, {1, 1, 0, 1, 1, 1}).loss; };
  const auto dbalance = [](const routing& r) {
    return logit_gradients{balance_loss({r}, false, {1, 1, 0, 1, 1, 1}).dlogits[0], {}};
  };
  const auto z = [](const routing& r) { return z_loss({r}, {1, 1, 0, 1, 1, 1}).loss; };
  const auto dz = [](const routing& r) {
    return logit_gradients{z_loss({r}, {1, 1, 0, 1, 1, 1}).dlogits[0], {}};
  };
  for (const index_t k : {1, 2, 5}) {
    check_logits({router_kind::softmax_after_top_k, k}, 6, 5, false, balance, dbalance);
    check_logits({router_kind::softmax_after_top_k, k}, 6, 5, false, z, dz);
  }
}

}  // namespace
