// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "support/reference_attention.hpp"
#include "support/reference_layer.hpp"

namespace reference {

struct block {
  matrix input_norm;  ///< [1, hidden]
  attention attend;
  matrix post_norm;  ///< [1, hidden]
  moe_layer mlp;     ///< without experts: a dense feed-forward network
};

/// \brief A Llama-like decoder; an absent `head` stands for the embedding (tied).
struct model {
  matrix embedding;  ///< [vocabulary, hidden]
  list<block> blocks;
  matrix final_norm;
  matrix head;  ///< [vocabulary, hidden]
  double norm_epsilon = 1e-5;

  const matrix& head_weight() const { return head.empty() ? embedding : head; }
};

/// \brief Rows of one batch, packed sequences told apart by document id.
struct batch {
  list<index_t> tokens;
  list<index_t> targets;    ///< token to predict, negative = not counted
  list<index_t> positions;  ///< empty = row number
  list<index_t> documents;  ///< empty = one document; negative = padding
  row_mask rows;            ///< rows that count in the auxiliary losses; empty = all
};

struct loss_options {
  double balance_factor = 0;
  double z_factor = 0;
  bool per_slot = false;
  double target_normaliser = 0;  ///< 0 = number of counted targets
};

struct block_state {
  matrix x;
  attention_state attend;
  matrix middle;  ///< after the attention residual
  layer_state mlp;
  matrix y;
};

struct model_state {
  list<index_t> positions, documents;
  list<block_state> blocks;
  matrix last;    ///< input of the final norm
  matrix normed;  ///< its output
  matrix logits;
  loss_result task;
  pooled_loss balance, z;
  double total = 0;
};

struct block_gradients {
  matrix input_norm;
  attention_gradients attend;
  matrix post_norm;
  layer_gradients mlp;
};

struct model_gradients {
  matrix dx0;        ///< of the input embeddings
  matrix embedding;  ///< through the input, and through the head when tied
  matrix head;       ///< untied only
  matrix final_norm;
  list<block_gradients> blocks;
};

inline matrix embed(const model& m, const list<index_t>& tokens) {
  matrix x(tokens.count(), m.embedding.cols);
  for (index_t n = 0; n < x.rows; ++n)
    for (index_t i = 0; i < x.cols; ++i) x(n, i) = m.embedding(tokens[n], i);
  return x;
}

/// \brief The routings of the sparse blocks, in order.
inline list<routing> routings_of(const model& m, const model_state& s) {
  list<routing> result;
  for (index_t l = 0; l < m.blocks.count(); ++l)
    if (m.blocks[l].mlp.sparse()) result.push_back(s.blocks[l].mlp.routed);
  return result;
}

/// \brief Everything up to the logits, from input embeddings; `random` is per block and may be empty.
inline model_state model_forward(const model& m, const matrix& x0, const batch& b,
                                 const list<layer_randomness>& random = {}) {
  model_state s;
  s.positions = b.positions;
  s.documents = b.documents;
  if (s.positions.empty())
    for (index_t n = 0; n < x0.rows; ++n) s.positions.push_back(n);
  if (s.documents.empty()) s.documents = list<index_t>(x0.rows, 0);

  matrix x = x0;
  for (index_t l = 0; l < m.blocks.count(); ++l) {
    const block& part = m.blocks[l];
    block_state state;
    state.x = x;
    state.attend = attention_forward(part.attend, rms_norm(x, part.input_norm, m.norm_epsilon), s.positions,
                                     s.documents);
    add_to(x, state.attend.out);
    state.middle = x;
    state.mlp = layer_forward(part.mlp, rms_norm(x, part.post_norm, m.norm_epsilon),
                              random.empty() ? layer_randomness{} : random[l]);
    add_to(x, state.mlp.y);
    state.y = x;
    s.blocks.push_back(state);
  }
  s.last = x;
  s.normed = rms_norm(x, m.final_norm, m.norm_epsilon);
  s.logits = product_transposed(s.normed, m.head_weight());
  return s;
}

/// \brief Forward pass and total = task + balance_factor * balance + z_factor * z.
inline model_state model_loss(const model& m, const matrix& x0, const batch& b, const loss_options& options,
                              const list<layer_randomness>& random = {}) {
  model_state s = model_forward(m, x0, b, random);
  s.task = cross_entropy(s.logits, b.targets, options.target_normaliser);
  const list<routing> routings = routings_of(m, s);
  if (!routings.empty()) {
    s.balance = balance_loss(routings, options.per_slot, b.rows);
    s.z = z_loss(routings, b.rows);
  }
  s.total = s.task.loss + options.balance_factor * s.balance.loss + options.z_factor * s.z.loss;
  return s;
}

/// \brief Gradients of the total of `model_loss`.
inline model_gradients model_backward(const model& m, const model_state& s, const batch& b,
                                      const loss_options& options) {
  model_gradients g;
  g.blocks = list<block_gradients>(m.blocks.count());
  const matrix dhead = transposed_product(s.task.dlogits, s.normed);
  norm_gradients norm =
      rms_norm_backward(s.last, m.final_norm, m.norm_epsilon, product(s.task.dlogits, m.head_weight()));
  g.final_norm = norm.weight;
  matrix dx = norm.dx;
  index_t sparse = s.balance.dlogits.count();
  for (index_t l = m.blocks.count() - 1; l >= 0; --l) {
    const block& part = m.blocks[l];
    const block_state& state = s.blocks[l];
    block_gradients& out = g.blocks[l];
    logit_gradients auxiliary;
    if (part.mlp.sparse()) {
      --sparse;
      add_to(auxiliary.logits, s.balance.dlogits[sparse], options.balance_factor);
      add_to(auxiliary.logits, s.z.dlogits[sparse], options.z_factor);
    }
    out.mlp = layer_backward(part.mlp, state.mlp, dx, auxiliary);
    norm = rms_norm_backward(state.middle, part.post_norm, m.norm_epsilon, out.mlp.dx);
    out.post_norm = norm.weight;
    add_to(dx, norm.dx);
    out.attend = attention_backward(part.attend, state.attend, s.positions, dx);
    norm = rms_norm_backward(state.x, part.input_norm, m.norm_epsilon, out.attend.dx);
    out.input_norm = norm.weight;
    add_to(dx, norm.dx);
  }
  g.dx0 = dx;
  g.embedding = matrix(m.embedding.rows, m.embedding.cols);
  for (index_t n = 0; n < dx.rows; ++n)
    for (index_t i = 0; i < dx.cols; ++i) g.embedding(b.tokens[n], i) += dx(n, i);
  if (m.head.empty())
    add_to(g.embedding, dhead);
  else
    g.head = dhead;
  return g;
}

/// \brief Calls visit(name, tensor, gradient) for the low-rank factors of a linear layer, if it has any.
template <class Visitor>
void visit_lora(const std::string& name, linear& layer, const linear_gradients& g, Visitor&& visit) {
  if (layer.adapter.a.empty()) return;
  visit(name + ".lora_A", layer.adapter.a, g.a);
  visit(name + ".lora_B", layer.adapter.b, g.b);
}

/// \brief Calls visit(name, tensor, gradient) for adapters, router and the shared network's low-rank factors.
template <class Visitor>
void visit_trainable(const std::string& name, moe_layer& layer, const layer_gradients& g, Visitor&& visit) {
  visit_lora(name + ".gate_proj", layer.ffn.gate, g.ffn.gate, visit);
  visit_lora(name + ".up_proj", layer.ffn.up, g.ffn.up, visit);
  visit_lora(name + ".down_proj", layer.ffn.down, g.ffn.down, visit);
  if (!layer.sparse()) return;
  visit(name + ".router", layer.router.weight, g.router.weight);
  if (!layer.router.noise_weight.empty())
    visit(name + ".router_noise", layer.router.noise_weight, g.router.noise_weight);
  for (index_t e = 0; e < layer.experts.count(); ++e) {
    const std::string expert = name + ".expert_" + std::to_string(e);
    visit(expert + ".adapter_down", layer.experts[e].down, g.experts[e].down);
    visit(expert + ".adapter_up", layer.experts[e].up, g.experts[e].up);
  }
}

/// \brief Calls visit(name, tensor, gradient) for every tensor that training moves.
template <class Visitor>
void visit_trainable(model& m, const model_gradients& g, Visitor&& visit) {
  for (index_t l = 0; l < m.blocks.count(); ++l) {
    const std::string name = "layers." + std::to_string(l);
    block& part = m.blocks[l];
    const block_gradients& gradient = g.blocks[l];
    visit_lora(name + ".q_proj", part.attend.q, gradient.attend.q, visit);
    visit_lora(name + ".k_proj", part.attend.k, gradient.attend.k, visit);
    visit_lora(name + ".v_proj", part.attend.v, gradient.attend.v, visit);
    visit_lora(name + ".o_proj", part.attend.o, gradient.attend.o, visit);
    visit_trainable(name + ".mlp", part.mlp, gradient.mlp, visit);
  }
}

/// \brief Calls visit(name, tensor, gradient) for what stays frozen and has a gradient all the same.
template <class Visitor>
void visit_frozen(model& m, const model_gradients& g, Visitor&& visit) {
  visit("embedding", m.embedding, g.embedding);
  if (!m.head.empty()) visit("head", m.head, g.head);
  visit("final_norm", m.final_norm, g.final_norm);
  const auto dense = [&](const std::string& name, linear& layer, const linear_gradients& d) {
    visit(name + ".weight", layer.weight, d.weight);
    if (!layer.bias.empty()) visit(name + ".bias", layer.bias, d.bias);
  };
  for (index_t l = 0; l < m.blocks.count(); ++l) {
    const std::string name = "layers." + std::to_string(l);
    block& part = m.blocks[l];
    const block_gradients& d = g.blocks[l];
    visit(name + ".input_norm", part.input_norm, d.input_norm);
    visit(name + ".post_norm", part.post_norm, d.post_norm);
    dense(name + ".q_proj", part.attend.q, d.attend.q);
    dense(name + ".k_proj", part.attend.k, d.attend.k);
    dense(name + ".v_proj", part.attend.v, d.attend.v);
    dense(name + ".o_proj", part.attend.o, d.attend.o);
    dense(name + ".gate_proj", part.mlp.ffn.gate, d.mlp.ffn.gate);
    dense(name + ".up_proj", part.mlp.ffn.up, d.mlp.ffn.up);
    dense(name + ".down_proj", part.mlp.ffn.down, d.mlp.ffn.down);
  }
}

}  // namespace reference
