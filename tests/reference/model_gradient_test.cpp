// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include <doctest/doctest.h>

#include "support/gradient_check.hpp"
#include "support/near.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"

namespace {

using namespace reference;

struct model_case {
  index_t experts = 4;
  index_t top_k = 2;
  index_t rank = 3;
  router_options router = {};
  bool tied = false;
  bool biases = false;
  bool dense_first = false;
  bool dropout = false;
  bool per_slot = false;
};

constexpr index_t hidden = 6, middle = 7, vocabulary = 9, heads = 3, kv_heads = 1, head_dim = 4;

/// Tensors of a model, each from the next seed.
class builder {
 public:
  builder(const model_case& c, std::uint64_t seed) : case_(c), seed_(seed) {}

  model build() {
    model m;
    m.embedding = normal(vocabulary, hidden, 1);
    for (index_t l = 0; l < 2; ++l) m.blocks.push_back(make_block(l == 0 && case_.dense_first));
    m.final_norm = norm();
    if (!case_.tied) m.head = normal(vocabulary, hidden, 0.5);
    m.norm_epsilon = 1e-3;
    return m;
  }

 private:
  matrix normal(index_t rows, index_t cols, double deviation) {
    return {rows, cols, support::normal_doubles(rows * cols, ++seed_, deviation)};
  }
  matrix norm() { return {1, hidden, support::uniform_doubles(hidden, ++seed_, 0.7, 1.3)}; }

  linear make_linear(index_t out, index_t in) {
    linear layer{normal(out, in, 0.4), {}, {normal(2, in, 0.4), normal(out, 2, 0.4), 0.5, {}}};
    if (case_.biases) layer.bias = normal(1, out, 0.3);
    if (case_.dropout) layer.adapter.mask = matrix(7, in, support::dropout_mask(7 * in, ++seed_, 0.2));
    return layer;
  }

  block make_block(bool dense) {
    block b;
    b.input_norm = norm();
    b.post_norm = norm();
    b.attend.heads = heads;
    b.attend.kv_heads = kv_heads;
    b.attend.head_dim = head_dim;
    b.attend.rotary.theta = 100;
    b.attend.q = make_linear(heads * head_dim, hidden);
    b.attend.k = make_linear(kv_heads * head_dim, hidden);
    b.attend.v = make_linear(kv_heads * head_dim, hidden);
    b.attend.o = make_linear(hidden, heads * head_dim);
    b.mlp.ffn.gate = make_linear(middle, hidden);
    b.mlp.ffn.up = make_linear(middle, hidden);
    b.mlp.ffn.down = make_linear(hidden, middle);
    if (dense) return b;
    b.mlp.routing = case_.router;
    b.mlp.routing.top_k = case_.top_k;
    b.mlp.router.weight = normal(case_.experts, hidden, 0.9);
    for (index_t e = 0; e < case_.experts; ++e)
      b.mlp.experts.push_back({normal(case_.rank, hidden, 0.5), normal(hidden, case_.rank, 0.5)});
    b.mlp.expert_scale = 0.7;
    if (!case_.router.renormalise) b.mlp.shared = residual::gate_sum;
    return b;
  }

  model_case case_;
  std::uint64_t seed_;
};

const batch packed{
    {3, 1, 4, 1, 5, 2, 6}, {1, 4, -1, 5, 2, 6, -1}, {0, 1, 2, 0, 1, 2, 3}, {0, 0, 0, 1, 1, 1, 1}, {}};

/// Smallest gap between the last chosen logit and the first that was not.
double routing_margin(const model& m, const model_state& s) {
  double margin = INFINITY;
  for (const routing& r : routings_of(m, s)) {
    if (r.options.top_k == r.experts()) continue;
    for (index_t n = 0; n < r.tokens(); ++n) {
      const load_thresholds t = thresholds_of(r, n);
      margin = std::min(margin, r.logits(n, t.last_in) - r.logits(n, t.first_out));
    }
  }
  return margin;
}

/// A model whose choice of experts no difference quotient can change.
model safe_model(const model_case& c, const batch& b, const list<layer_randomness>& random = {}) {
  for (std::uint64_t seed = 1000; seed < 200000; seed += 1000) {
    const model m = builder(c, seed).build();
    if (routing_margin(m, model_forward(m, embed(m, b.tokens), b, random)) > 0.03) return m;
  }
  FAIL("no seed keeps the logits apart");
  return {};
}

list<layer_randomness> dropout_of(const model_case& c, index_t tokens) {
  list<layer_randomness> random;
  if (!c.dropout) return random;
  const index_t rows = tokens * c.top_k;
  for (std::uint64_t l = 0; l < 2; ++l)
    random.push_back({matrix(rows, hidden, support::dropout_mask(rows * hidden, 7 + l, 0.2)), {}});
  return random;
}

constexpr double step = 2e-4;

void check_model(const model_case& c, const batch& b) {
  const list<layer_randomness> random = dropout_of(c, b.tokens.count());
  model m = safe_model(c, b, random);
  const loss_options options{0.1, 0.05, c.per_slot, 0};
  matrix x0 = embed(m, b.tokens);
  const auto loss = [&] { return model_loss(m, x0, b, options, random).total; };
  const model_gradients g = model_backward(m, model_loss(m, x0, b, options, random), b, options);
  CHECK(support::near(g.dx0, support::central_differences(x0, loss, step), 1e-7));
  index_t tensors = 0;
  visit_trainable(m, g, [&](const std::string& name, matrix& tensor, const matrix& gradient) {
    CAPTURE(name);
    ++tensors;
    // An expert without tokens has a zero gradient, to which differences add rounding.
    CHECK(support::near(gradient, support::central_differences(tensor, loss, step), 1e-7, 1e-5));
  });
  CHECK(tensors == 2 * 14 + (c.dense_first ? 1 : 2) * (1 + 2 * c.experts));
}

TEST_CASE("gradients through two layers agree with differences for expert counts, k and ranks") {
  check_model({4, 2, 3}, packed);
  check_model({3, 1, 1}, packed);
  check_model({5, 3, 2}, packed);
  check_model({8, 2, 5}, packed);
  check_model({3, 3, 4}, packed);
}

TEST_CASE("gradients through two layers agree with differences when gates are not renormalised") {
  model_case c{5, 2, 3};
  c.router.kind = router_kind::softmax_before_top_k;
  c.router.renormalise = false;
  check_model(c, packed);
}

TEST_CASE("gradients agree with differences with biases, tied head, dropout and a dense first layer") {
  model_case c;
  c.biases = c.tied = c.dropout = c.per_slot = true;
  check_model(c, packed);
  c.dense_first = true;
  check_model(c, packed);
}

TEST_CASE("gradients agree with differences for a padded batch whose padding counts nowhere") {
  batch padded = packed;
  padded.positions = {0, 1, 2, 3, 0, 1, 2};
  padded.documents = {0, 0, 0, 0, 1, 1, -1};
  padded.rows = {1, 1, 1, 1, 1, 1, 0};
  check_model({}, padded);
}

TEST_CASE("gradients of frozen tensors agree with differences, through the input and a tied head alike") {
  for (const bool tied : {false, true}) {
    model_case c;
    c.tied = tied;
    c.biases = true;
    model m = safe_model(c, packed);
    const loss_options options{0.1, 0.05, false, 0};
    const auto loss = [&] { return model_loss(m, embed(m, packed.tokens), packed, options).total; };
    const model_gradients g =
        model_backward(m, model_loss(m, embed(m, packed.tokens), packed, options), packed, options);
    visit_frozen(m, g, [&](const std::string& name, matrix& tensor, const matrix& gradient) {
      CAPTURE(name);
      CHECK(support::near(gradient, support::central_differences(tensor, loss, step), 1e-7, 1e-5));
    });
  }
}

TEST_CASE("a packed batch has the losses and gradients of its documents alone") {
  model m = builder({}, 1000).build();
  const loss_options options{0, 0, false, 5};
  const batch first{{3, 1, 4}, {1, 4, -1}, {}, {}, {}}, second{{1, 5, 2, 6}, {5, 2, 6, -1}, {}, {}, {}};
  const auto run = [&](const batch& b) { return model_loss(m, embed(m, b.tokens), b, options); };
  CHECK(std::fabs(run(packed).total - run(first).total - run(second).total) < 1e-14);
  matrix sum = model_backward(m, run(first), first, options).blocks[0].attend.q.a;
  add_to(sum, model_backward(m, run(second), second, options).blocks[0].attend.q.a);
  CHECK(support::near(model_backward(m, run(packed), packed, options).blocks[0].attend.q.a, sum, 1e-12));
}

TEST_CASE("later tokens do not change earlier logits") {
  const model m = builder({}, 1000).build();
  batch b{{3, 1, 4, 1}, {-1, -1, -1, -1}, {}, {}, {}};
  const matrix before = model_forward(m, embed(m, b.tokens), b).logits;
  b.tokens[3] = 8;
  const matrix after = model_forward(m, embed(m, b.tokens), b).logits;
  for (index_t i = 0; i < 3 * vocabulary; ++i) CHECK(before[i] == after[i]);
  CHECK_FALSE(support::near(after, before, 1e-3));
}

}  // namespace
