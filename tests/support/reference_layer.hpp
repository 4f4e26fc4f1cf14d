// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "support/reference_balance.hpp"
#include "support/reference_router.hpp"

namespace reference {

/// \brief What multiplies the output of the shared network in y = rho h + sum of gate * adapter.
enum class residual { one, gate_sum };

/// \brief Two-layer bottleneck of one expert: scale * up act(down (mask (.) h)).
struct adapter {
  matrix down;  ///< [rank, hidden]
  matrix up;    ///< [hidden, rank]
};

/// \brief A mixture of adapters around one feed-forward network; without experts it is that network alone.
struct moe_layer {
  gated_ffn ffn;
  router_parameters router;
  list<adapter> experts;
  router_options routing;
  activation expert_activation = activation::gelu;
  double expert_scale = 1;
  residual shared = residual::one;

  bool sparse() const { return experts.count() > 0; }
};

/// \brief Random numbers of one pass, given from outside.
struct layer_randomness {
  matrix adapter_masks;  ///< [tokens * top_k, hidden], row token * top_k + slot, 0 or 1/(1-p); absent = all 1
  matrix router_noise;   ///< [tokens, experts], standard normal; absent = none
};

struct layer_state {
  ffn_state ffn;
  routing routed;
  matrix masks;
  matrix narrow;  ///< [assignments, rank], before the activation
  matrix output;  ///< [assignments, hidden], adapter outputs with `expert_scale`
  matrix y;
};

struct layer_gradients {
  matrix dx;
  ffn_gradients ffn;
  router_gradients router;
  list<adapter> experts;
  logit_gradients logits;  ///< all that reached the logits
  list<double> gates;      ///< per assignment
};

inline layer_state layer_forward(const moe_layer& layer, const matrix& x,
                                 const layer_randomness& random = {}) {
  layer_state s;
  s.ffn = ffn_forward(layer.ffn, x);
  const matrix& h = s.ffn.out;
  s.y = h;
  if (!layer.sparse()) return s;

  s.routed = route(layer.routing, layer.router, x, random.router_noise);
  s.masks = random.adapter_masks;
  const list<assignment>& assignments = s.routed.assignments;
  const index_t rank = layer.experts[0].down.rows;
  s.narrow = matrix(assignments.count(), rank);
  s.output = matrix(assignments.count(), h.cols);
  if (layer.shared == residual::gate_sum) s.y = matrix(h.rows, h.cols);
  for (index_t n = 0; n < assignments.count(); ++n) {
    const assignment& a = assignments[n];
    if (!a.kept) continue;
    const adapter& expert = layer.experts[a.expert];
    for (index_t r = 0; r < rank; ++r)
      for (index_t i = 0; i < h.cols; ++i)
        s.narrow(n, r) += expert.down(r, i) * h(a.token, i) * (s.masks.empty() ? 1 : s.masks(n, i));
    for (index_t i = 0; i < h.cols; ++i) {
      for (index_t r = 0; r < rank; ++r)
        s.output(n, i) +=
            layer.expert_scale * expert.up(i, r) * activate(layer.expert_activation, s.narrow(n, r));
      const double shared = layer.shared == residual::gate_sum ? h(a.token, i) : 0;
      s.y(a.token, i) += a.gate * (shared + s.output(n, i));
    }
  }
  return s;
}

/// \brief Gradients of one adapter, and what it sends to its gate and to the shared output.
inline void expert_backward(const moe_layer& layer, const layer_state& s, index_t n, const matrix& dy,
                            matrix& dh, layer_gradients& g) {
  const assignment& a = s.routed.assignments[n];
  const adapter& expert = layer.experts[a.expert];
  const index_t hidden = dy.cols;
  for (index_t i = 0; i < hidden; ++i) {
    const double shared = layer.shared == residual::gate_sum ? s.ffn.out(a.token, i) : 0;
    g.gates[n] += dy(a.token, i) * (shared + s.output(n, i));
    if (layer.shared == residual::gate_sum) dh(a.token, i) += a.gate * dy(a.token, i);
  }
  for (index_t r = 0; r < expert.down.rows; ++r) {
    const double z = s.narrow(n, r);
    double dc = 0;
    for (index_t i = 0; i < hidden; ++i) {
      const double dout = layer.expert_scale * a.gate * dy(a.token, i);
      g.experts[a.expert].up(i, r) += dout * activate(layer.expert_activation, z);
      dc += dout * expert.up(i, r);
    }
    const double dz = dc * activation_derivative(layer.expert_activation, z);
    for (index_t i = 0; i < hidden; ++i) {
      const double mask = s.masks.empty() ? 1 : s.masks(n, i);
      g.experts[a.expert].down(r, i) += dz * mask * s.ffn.out(a.token, i);
      dh(a.token, i) += dz * mask * expert.down(r, i);
    }
  }
}

/// \brief `auxiliary` are gradients of auxiliary losses for the logits (and noise inputs); may be absent.
inline layer_gradients layer_backward(const moe_layer& layer, const layer_state& s, const matrix& dy,
                                      const logit_gradients& auxiliary = {}) {
  layer_gradients g;
  if (!layer.sparse()) {
    g.ffn = ffn_backward(layer.ffn, s.ffn, dy);
    g.dx = g.ffn.dx;
    return g;
  }
  for (const adapter& expert : layer.experts)
    g.experts.push_back({matrix(expert.down.rows, expert.down.cols), matrix(expert.up.rows, expert.up.cols)});
  g.gates = list<double>(s.routed.assignments.count(), 0);
  matrix dh = layer.shared == residual::one ? dy : matrix(dy.rows, dy.cols);
  for (index_t n = 0; n < s.routed.assignments.count(); ++n)
    if (s.routed.assignments[n].kept) expert_backward(layer, s, n, dy, dh, g);

  g.logits = gates_backward(s.routed, g.gates);
  add_to(g.logits.logits, auxiliary.logits);
  add_to(g.logits.deviation_raw, auxiliary.deviation_raw);
  g.router = router_backward(layer.router, s.routed, g.logits);
  g.ffn = ffn_backward(layer.ffn, s.ffn, dh);
  g.dx = g.ffn.dx;
  add_to(g.dx, g.router.dx);
  return g;
}

/// \brief Kept assignments per expert.
inline list<index_t> expert_load(const routing& r) {
  list<index_t> load(r.experts(), 0);
  for (const assignment& a : r.assignments) load[a.expert] += a.kept;
  return load;
}

}  // namespace reference
