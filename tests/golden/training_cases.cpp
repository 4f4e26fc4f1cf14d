// SPDX-License-Identifier: Apache-2.0

// Kinds loss_mixtral_balance, cross_entropy, adamw, clip_grad_norm, lr_schedule.

#include "each_isa.hpp"
#include "on_backend.hpp"
#include "pesc/moe/balance.hpp"
#include "pesc/nn/adamw.hpp"
#include "pesc/nn/schedule.hpp"
#include "pesc/pesc.hpp"

namespace golden {

using pesc::as_const;

void run_loss_mixtral_balance(const golden_case& c, outcome& out) {
  const index_t layers = c.integer("layers");
  const index_t rows = c.integer("batch") * c.integer("seq");
  const index_t experts = c.integer("experts");
  const index_t k = c.integer("top_k");
  PESC_EXPECTS(k >= 1 && k <= experts && k <= pesc::max_top_k && layers >= 1, "top-k of ", k, ", ", layers,
               " layers");
  const std::vector<float> logits = c.floats("logits");
  PESC_EXPECTS(rows >= 1, rows, " rows");
  const auto all = view(logits, layers * rows, experts);
  std::vector<std::uint8_t> valid;
  if (c.flag("masked"))
    for (const std::int64_t m : c.integers("attention_mask")) valid.push_back(m != 0 ? 1 : 0);
  PESC_EXPECTS(valid.empty() || static_cast<index_t>(valid.size()) == rows, "mask of ", valid.size(),
               " rows");
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    pesc::balance_pool pool(experts, k);
    std::vector<std::int32_t> token(static_cast<std::size_t>(rows * k));
    std::vector<std::int32_t> expert(token.size());
    std::vector<float> gate(token.size());
    for (index_t l = 0; l < layers; ++l) {
      const auto z = all.row_range(l * rows, rows);
      top_k_softmax(ctx, z, static_cast<int>(k), pesc::gate_options{}, view(expert), view(gate));
      number_slots(ctx, static_cast<int>(k), view(token));
      with_workspace(ctx, [&](pesc::workspace<>& ws) {
        balance_accumulate(ctx, z, view(std::as_const(token)), view(std::as_const(expert)),
                           view(std::as_const(valid)), pool.sums(), ws);
      });
    }
    const pesc::balance_options options{.coefficient = 1.0f};
    out.near("loss" + where, std::vector<double>{pool.values(ctx, options).balance},
             c.floats("expected.loss"), 1e-6);
    const pesc::balance_gradient<> g = pool.gradient(ctx, options, view(std::as_const(valid)));
    std::vector<float> dlogits = zeros(layers * rows * experts);
    for (index_t l = 0; l < layers; ++l)
      balance_backward(ctx, all.row_range(l * rows, rows), g.valid, g.fractions, g.scale, g.z_scale,
                       view(dlogits, layers * rows, experts).row_range(l * rows, rows), g.rows);
    out.near("grad.logits" + where, dlogits, c.floats("expected.grad.logits"), 1e-6, balance_terms(ctx, g));
  });
}

void run_cross_entropy(const golden_case& c, outcome& out) {
  const index_t rows = c.integer("rows");
  const index_t vocabulary = c.integer("vocab");
  const std::int64_t ignore = c.integer("ignore_index");
  const std::vector<float> logits = c.floats("logits");
  const std::vector<std::int64_t> labels = c.integers("labels");
  std::vector<std::int32_t> targets;
  float counted = 0;
  for (const std::int64_t label : labels) {
    PESC_EXPECTS(label == ignore || (label >= 0 && label < vocabulary), "label ", label, " of ", vocabulary);
    targets.push_back(label == ignore ? -1 : static_cast<std::int32_t>(label));
    if (label != ignore) counted += 1;
  }
  PESC_EXPECTS(static_cast<index_t>(targets.size()) == rows && counted > 0, "labels of ", targets.size(),
               " rows");
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    std::vector<float> losses = zeros(rows);
    std::vector<float> dlogits = logits;  // in place, as the model does
    const auto z = view(dlogits, rows, vocabulary);
    cross_entropy(ctx, as_const(z), view(std::as_const(targets)), 1.0f / counted, view(losses), z);
    double sum = 0;
    for (const float loss : losses) sum += static_cast<double>(loss);
    out.near("loss" + where, std::vector<double>{sum / static_cast<double>(counted)},
             c.doubles("expected.loss"), 1e-6);
    out.near("grad.logits" + where, dlogits, c.floats("expected.grad.logits"), 1e-6);
    out.near("loss, double" + where, std::vector<double>{sum / static_cast<double>(counted)},
             c.doubles("expected64.loss"), 1e-6);
  });
}

namespace {

/// \brief The tensors `prefix0`, `prefix1`, ... one after another, and where each begins.
struct flat_tensors {
  std::vector<float> values;
  std::vector<index_t> begin{0};

  flat_tensors(const golden_case& c, const std::string& prefix) {
    const index_t count = c.integer("count");
    for (index_t i = 0; i < count; ++i) {
      const std::vector<float> part = c.floats(prefix + std::to_string(i));
      values.insert(values.end(), part.begin(), part.end());
      begin.push_back(static_cast<index_t>(values.size()));
    }
  }
  [[nodiscard]] index_t count() const { return static_cast<index_t>(begin.size()) - 1; }
};

/// \brief Step `s` of trajectories [steps, ...], flattened like the parameters.
std::vector<float> step_of(const flat_tensors& all, index_t s, index_t steps) {
  std::vector<float> out;
  for (index_t i = 0; i < all.count(); ++i) {
    const index_t first = all.begin[static_cast<std::size_t>(i)];
    const index_t size = (all.begin[static_cast<std::size_t>(i) + 1] - first) / steps;
    const float* from = all.values.data() + first + s * size;
    out.insert(out.end(), from, from + size);
  }
  return out;
}

}  // namespace

void run_adamw(const golden_case& c, outcome& out) {
  const index_t steps = c.integer("steps");
  PESC_EXPECTS(steps >= 1, "trajectory of ", steps, " steps");
  const flat_tensors start(c, "param");
  const flat_tensors gradients(c, "grad");
  const flat_tensors expected(c, "expected.param");
  const std::vector<double> rates = c.doubles("lr");
  PESC_EXPECTS(gradients.values.size() == start.values.size() * static_cast<std::size_t>(steps) &&
                   static_cast<index_t>(rates.size()) == steps,
               "gradients of ", gradients.values.size(), " values for ", steps, " steps");
  const pesc::adamw_options options{c.number("beta1"), c.number("beta2"), c.number("eps"),
                                    c.number("weight_decay")};
  const double max_norm = c.number("max_grad_norm");
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    std::vector<float> p = start.values;
    std::vector<float> m(p.size());
    std::vector<float> v(p.size());
    std::vector<float> norms;
    std::vector<float> trajectory, wanted;
    for (index_t s = 0; s < steps; ++s) {
      const std::vector<float> g = step_of(gradients, s, steps);
      double factor = 1.0;
      if (max_norm > 0) {
        const double norm = std::sqrt(squared_norm(ctx, view(g)));
        norms.push_back(static_cast<float>(norm));
        factor = pesc::clip_factor(norm, max_norm);
      }
      const auto coefficients =
          pesc::adamw_step_coefficients(options, rates[static_cast<std::size_t>(s)], s + 1, factor);
      adamw_step(ctx, view(p), view(g), view(m), view(v), coefficients);
      trajectory.insert(trajectory.end(), p.begin(), p.end());
      const std::vector<float> here = step_of(expected, s, steps);
      wanted.insert(wanted.end(), here.begin(), here.end());
    }
    out.near("param" + where, trajectory, wanted, 1e-5);
    out.near("m" + where, m, flat_tensors(c, "expected.m").values, 1e-5);
    out.near("v" + where, v, flat_tensors(c, "expected.v").values, 1e-5);
    if (c.has("expected.norm")) out.near("norm" + where, norms, c.floats("expected.norm"), 1e-5);
  });
}

void run_clip_grad_norm(const golden_case& c, outcome& out) {
  const flat_tensors gradients(c, "grad");
  const flat_tensors expected(c, "expected.grad");
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    const double norm = std::sqrt(squared_norm(ctx, view(gradients.values)));
    const double factor = pesc::clip_factor(norm, c.number("max_norm"));
    std::vector<double> clipped;
    for (const float g : gradients.values) clipped.push_back(static_cast<double>(g) * factor);
    out.near("norm" + where, std::vector<double>{norm}, c.floats("expected.norm"), 1e-5);
    out.near("grad" + where, clipped, expected.values, 1e-5);
  });
}

void run_lr_schedule(const golden_case& c, outcome& out) {
  pesc::schedule s;
  s.base_rate = c.number("base_lr");
  s.warmup = c.integer("warmup");
  // The configuration tells the kinds apart: only the cosine has waves, only the constant has no end.
  s.kind = c.has_text("num_cycles") ? pesc::schedule_kind::cosine
           : c.has_text("total")    ? pesc::schedule_kind::linear
                                    : pesc::schedule_kind::constant;
  if (c.has_text("total")) s.total = c.integer("total");
  if (c.has_text("num_cycles")) s.cycles = c.number("num_cycles");
  s.check();
  std::vector<double> rates;
  for (index_t step = 0; step < c.integer("steps"); ++step) rates.push_back(s(step));
  out.near("lr", rates, c.doubles("expected.lr"), 1e-15);
}

}  // namespace golden
