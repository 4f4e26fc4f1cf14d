// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>

#include "on_backend.hpp"
#include "pesc/model/placed_model.hpp"

namespace golden {

/// \brief How close results must be.
struct tolerances {
  double logits = 1e-4;
  double loss = 1e-5;
  double gradient = 1e-4;
  bool low = false;  ///< the reference computed in 16 bits: compare row by row, and no ids
  const char* expected_logits = "expected.logits";

  /// \param width  values of a row
  template <class A, class B>
  void check(outcome& out, const std::string& name, const A& actual, const B& expected, index_t width,
             double tolerance) const {
    if (low)
      out.near_by_rows(name, actual, expected, static_cast<index_t>(expected.size()) / width, tolerance,
                       5 * tolerance);
    else
      out.near(name, actual, expected, tolerance);
  }
};

/// \brief Rows of `input_ids` as one flat batch.
struct flat_batch {
  index_t rows = 0;
  index_t length = 0;
  std::vector<std::int32_t> ids, positions, targets;
  std::vector<std::uint8_t> valid;
  std::vector<pesc::attention_span> spans;
  float counted = 0;  ///< targets

  flat_batch(const golden_case& c, index_t vocabulary);

  [[nodiscard]] index_t tokens() const { return rows * length; }
  [[nodiscard]] pesc::model_input<> view_of() const {
    return {view(ids), view(positions), view(spans), view(targets), view(valid)};
  }
};

struct training_result {
  index_t vocabulary = 0;
  index_t layers = 0;
  index_t experts = 0;
  std::vector<float> logits, router_logits, embedding_gradient;
  double loss = 0;
  double aux_loss = 0;
  std::map<std::string, std::vector<float>> gradients;  ///< by the name of the weight
};

// Models of cases get low-rank updates that change nothing: with A the identity and B zero, the gradient of B
// is that of the frozen weight itself, as far as the rank reaches.

[[nodiscard]] pesc::loaded_model<> load_llama(const golden_case& c);
[[nodiscard]] pesc::loaded_model<> load_camelidae(const golden_case& c);
[[nodiscard]] pesc::loaded_model<> load_bnb_checkpoint(const golden_case& c);

/// \brief The base of a case with its adapter, live or merged.
[[nodiscard]] pesc::loaded_model<> load_with_adapter(const golden_case& c, bool merge);

[[nodiscard]] tolerances camelidae_tolerances(const golden_case& c);

void compare_frequencies(const golden_case& c, outcome& out, const pesc::llama_shape& shape);
void compare_training(const golden_case& c, outcome& out, const training_result& r, const flat_batch& batch,
                      const tolerances& t, const std::string& where);
void compare_merged(const golden_case& c, outcome& out, const pesc::loaded_model<>& merged);
void compare_dequantized(const golden_case& c, outcome& out, const pesc::loaded_model<>& loaded);
void compare_gradients(const golden_case& c, outcome& out, const training_result& r, const tolerances& t,
                       const std::string& where);

/// \brief A model of a case on a backend, and memory for the gradients of its trainable tensors.
///
/// \tparam Layer  `moe_layer<Config, X>` or `dense_layer<Config, X>`
template <class Layer>
class decoder {
 public:
  using X = typename Layer::backend;
  using model_type = pesc::llama<Layer>;

  decoder(X& ctx, const pesc::loaded_model<>& loaded)
      : placed_(ctx, loaded, 0), gradients_(placed_.trainable_count()), own_updates_{has_updates(loaded)} {
    if (own_updates_) return;
    pesc::for_each_trainable(placed_.files().parameters(),
                             [](const std::string& name, pesc::trainable_kind, auto m) {
                               if (name.find("lora_A") == std::string::npos) return;
                               for (index_t i = 0; i < m.rows; ++i)
                                 for (index_t j = 0; j < m.cols; ++j) m(i, j) = i == j ? 1.0f : 0.0f;
                             });
    placed_.to_backend(ctx);
  }

  [[nodiscard]] const model_type& model() const { return *placed_; }
  [[nodiscard]] auto gradients() { return model().views_over(gradients_.view()); }

  /// \brief Gradients by the names of weights; of frozen ones from updates that reach all their columns, or of the
  /// updates that the case itself brings.
  [[nodiscard]] std::map<std::string, std::vector<float>> named_gradients(X& ctx) {
    pesc::buffer<float> values(gradients_.size());
    download(ctx, pesc::as_const(gradients_.view()), values.view());
    std::map<std::string, std::vector<float>> out;
    std::map<std::string, index_t> columns;
    pesc::for_each_trainable(placed_.files().views_over(values.view()),
                             [&](const std::string& name, pesc::trainable_kind, auto m) {
                               const std::size_t at = name.find(".lora_");
                               if (own_updates_ && at != std::string::npos) {
                                 out[pesc::peft_name(name)] = {m.data, m.data + m.size()};
                                 return;
                               }
                               if (at == std::string::npos) {
                                 out[name] = {m.data, m.data + m.size()};
                                 return;
                               }
                               const std::string weight = name.substr(0, at) + ".weight";
                               if (name.find("lora_A") != std::string::npos) {
                                 columns[weight] = m.cols;
                               } else if (columns[weight] <= m.cols) {
                                 std::vector<float>& g = out[weight];
                                 for (index_t i = 0; i < m.rows; ++i)
                                   g.insert(g.end(), m.row(i), m.row(i) + columns[weight]);
                               }
                             });
    return out;
  }

 private:
  static bool has_updates(const pesc::loaded_model<>& loaded) {
    for (const std::string& name : loaded.trainables.names())
      if (name.find(".lora_") != std::string::npos) return true;
    return false;
  }

  pesc::placed_model<Layer> placed_;
  pesc::buffer<float, pesc::resource_of<X>> gradients_;
  bool own_updates_;
};

/// \brief The gradient of the embedding: rows of dx summed by token, and for a tied head dlogitsᵀ hidden.
template <class Layer, class Space>
[[nodiscard]] std::vector<float> embedding_gradient(typename Layer::backend& ctx, const decoder<Layer>& d,
                                                    const flat_batch& batch, const std::vector<float>& dx,
                                                    const std::vector<float>& logits,
                                                    pesc::matrix_view<const float, Space> hidden,
                                                    float scale) {
  using X = typename Layer::backend;
  const index_t vocabulary = d.model().shape().vocabulary;
  std::vector<float> out = zeros(vocabulary * hidden.cols);
  const auto g = view(out, vocabulary, hidden.cols);
  for (index_t t = 0; t < batch.tokens(); ++t)
    for (index_t j = 0; j < hidden.cols; ++j)
      g(batch.ids[static_cast<std::size_t>(t)], j) += dx[static_cast<std::size_t>(t * hidden.cols + j)];
  if (d.model().weights().head.size() != 0) return out;
  placed<X, float> losses(ctx, batch.tokens());
  placed dlogits(ctx, logits), total(ctx, out);
  placed targets(ctx, batch.targets);
  const auto z = dlogits.matrix(batch.tokens(), vocabulary);
  cross_entropy(ctx, pesc::as_const(z), pesc::as_const(targets.list()), scale, losses.list(), z);
  with_workspace(ctx, [&](pesc::workspace<Space>& ws) {
    matmul(ctx, pesc::as_const(z), hidden, total.matrix(vocabulary, hidden.cols),
           {.transpose_a = true, .accumulate = true}, ws);
  });
  return total.values();
}

template <class Layer>
[[nodiscard]] training_result run_training(typename Layer::backend& ctx, decoder<Layer>& d,
                                           const flat_batch& batch) {
  using X = typename Layer::backend;
  using resource = pesc::resource_of<X>;
  using space = typename X::memory_space;
  const auto& model = d.model();
  const pesc::llama_shape& s = model.shape();
  const index_t tokens = batch.tokens();
  training_result r;
  r.vocabulary = s.vocabulary;
  r.layers = s.layers;
  r.experts = model.ffn_shape().experts;
  pesc::batch_memory<resource> memory(tokens);
  const pesc::model_input<space> input = memory.set(ctx, batch.view_of());
  placed<X, float> logits(ctx, tokens * s.vocabulary), losses(ctx, tokens);
  placed<X, float> dhidden(ctx, tokens * s.hidden), dx(ctx, tokens * s.hidden);
  const auto rows = [&](placed<X, float>& list) { return list.matrix(tokens, s.hidden); };
  pesc::balance_pool<resource> pool(std::max<index_t>(r.experts, 1),
                                    std::max<index_t>(model.ffn_shape().top_k, 1));
  const float scale = 1.0f / batch.counted;
  const auto gradients = d.gradients();
  with_workspace(ctx, [&](pesc::workspace<space>& ws) {
    auto state = model.carve_state(ws, tokens, true);
    model.forward(ctx, input, state, {}, nullptr, &pool, ws, [&](index_t, const auto& layer) {
      if constexpr (Layer::routed) {
        const std::vector<float> routed = values_of(ctx, layer.ffn.routing.logits);
        r.router_logits.insert(r.router_logits.end(), routed.begin(), routed.end());
      }
    });
    model.logits(ctx, pesc::as_const(state.hidden), logits.matrix(tokens, s.vocabulary), ws);
    model.loss(ctx, input, state, scale, losses.list(), rows(dhidden), ws);
    model.backward(ctx, input, state, pesc::as_const(rows(dhidden)), gradients, {}, {}, rows(dx), ws);
    if (ws.counting()) return;
    r.logits = logits.values();
    r.embedding_gradient =
        embedding_gradient(ctx, d, batch, dx.values(), r.logits, pesc::as_const(state.hidden), scale);
  });
  for (const float loss : losses.values()) r.loss += static_cast<double>(loss * scale);
  r.aux_loss = pool.values(ctx, {.kind = pesc::balance_kind::camelidae_constant}).balance;
  r.gradients = d.named_gradients(ctx);
  return r;
}

/// \brief Continues a sequence with a cache of keys and values: logits of every position, and the best next
/// ids.
class continuation {
 public:
  std::vector<std::int64_t> ids;
  std::vector<float> logits;

  /// \param forced  the ids to go on with; empty: the best ones
  template <class Layer>
  continuation(typename Layer::backend& ctx, const decoder<Layer>& d, const std::vector<std::int64_t>& prompt,
               index_t total, const std::vector<std::int64_t>& forced)
      : ids{prompt} {
    const pesc::llama_shape& s = d.model().shape();
    pesc::kv_cache<pesc::resource_of<typename Layer::backend>> cache(s, total);
    while (cache.size() < total) {
      const auto first = static_cast<std::size_t>(cache.size());
      if (first == ids.size()) ids.push_back(forced.empty() ? best(s.vocabulary) : forced.at(first));
      step(ctx, d, cache, first);
    }
  }

 private:
  [[nodiscard]] std::int64_t best(index_t vocabulary) const {
    const auto last = logits.end() - static_cast<std::ptrdiff_t>(vocabulary);
    return std::max_element(last, logits.end()) - last;
  }

  template <class X, class Layer, class Cache>
  void step(X& ctx, const decoder<Layer>& d, Cache& cache, std::size_t first) {
    using space = typename X::memory_space;
    const index_t vocabulary = d.model().shape().vocabulary;
    std::vector<std::int32_t> tokens, positions;
    for (std::size_t i = first; i < ids.size(); ++i) {
      PESC_EXPECTS(ids[i] >= 0 && ids[i] < vocabulary, "token ", ids[i]);
      tokens.push_back(static_cast<std::int32_t>(ids[i]));
      positions.push_back(static_cast<std::int32_t>(i));
    }
    const index_t count = static_cast<index_t>(tokens.size());
    const std::vector<pesc::attention_span> span{{0, count, 0, cache.size()}};
    pesc::batch_memory<pesc::resource_of<X>> memory(count);
    const auto batch =
        memory.set(ctx, {view(std::as_const(tokens)), view(std::as_const(positions)), view(span)});
    placed<X, float> out(ctx, count * vocabulary);
    with_workspace(ctx, [&](pesc::workspace<space>& ws) {
      auto state = d.model().carve_state(ws, count, false);
      d.model().forward(ctx, batch, state, {}, &cache, nullptr, ws);
      d.model().logits(ctx, pesc::as_const(state.hidden), out.matrix(count, vocabulary), ws);
    });
    const std::vector<float> values = out.values();
    logits.insert(logits.end(), values.begin(), values.end());
  }
};

template <class Layer>
void compare_generation(const golden_case& c, outcome& out, typename Layer::backend& ctx,
                        const decoder<Layer>& d, const tolerances& t, const std::string& where) {
  const index_t vocabulary = d.model().shape().vocabulary;
  if (!c.has("expected.gen")) return;
  const std::vector<std::int64_t> expected = c.integers("expected.gen");
  // Without a prompt of its own a text goes on from the first five ids of the input.
  std::vector<std::int64_t> prompt = c.integers(c.has("gen.prompt") ? "gen.prompt" : "input_ids");
  if (!c.has("gen.prompt")) prompt.resize(std::min<std::size_t>(prompt.size(), 5));
  const index_t total = static_cast<index_t>(expected.size());
  PESC_EXPECTS(!prompt.empty() && prompt.size() <= expected.size() && expected.size() < 1 << 16, "prompt of ",
               prompt.size(), " ids, expected ", expected.size());
  continuation made(ctx, d, prompt, total, t.low ? expected : std::vector<std::int64_t>{});
  if (!t.low) out.exact("gen" + where, made.ids, expected);
  // The reference's text, token by token: whatever is chosen, the logits must be its logits.
  if (made.ids != expected) made = continuation(ctx, d, prompt, total, expected);
  if (c.has("expected.gen_logits"))
    t.check(out, "gen_logits" + where, made.logits, c.floats("expected.gen_logits"), vocabulary, t.logits);
  if (c.has("expected.gen_logits_last")) {
    const std::vector<float> last(made.logits.end() - static_cast<std::ptrdiff_t>(vocabulary),
                                  made.logits.end());
    // Conversion of a 16-bit model to float leaves its rotary frequencies rounded in the run that generates.
    out.near("gen_logits_last" + where, last, c.floats("expected.gen_logits_last"),
             c.text("dtype") == "float32" ? t.logits : 3e-2);
  }
}

/// \brief Kinds with a checkpoint folder on a backend.
template <class Layer>
void compare_model(typename Layer::backend& ctx, const golden_case& c, outcome& out,
                   const pesc::loaded_model<>& loaded, const tolerances& t, const std::string& where) {
  decoder<Layer> d(ctx, loaded);
  const flat_batch batch(c, loaded.weights.shape.vocabulary);
  const training_result r = run_training(ctx, d, batch);
  compare_training(c, out, r, batch, t, where);
  compare_gradients(c, out, r, t, where);
  compare_generation(c, out, ctx, d, t, where);
}

}  // namespace golden
