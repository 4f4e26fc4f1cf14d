// SPDX-License-Identifier: Apache-2.0

// Kinds llama and camelidae_model: a checkpoint folder beside a reference of logits, loss, gradients and
// greedy text.

#include <algorithm>
#include <map>

#include "golden.hpp"
#include "pesc/model/llama.hpp"
#include "pesc/model/load_model.hpp"
#include "pesc/pesc.hpp"
#include "rounding_backend.hpp"

namespace golden {
namespace {

using pesc::any_format;
using pesc::as_const;
using dense_model = pesc::llama<pesc::dense_layer<pesc::moe_dynamic<>, pesc::cpu_backend>>;
using sparse_model = pesc::llama<pesc::moe_layer<pesc::moe_dynamic<>, pesc::cpu_backend>>;
using rounding_model = pesc::llama<pesc::moe_layer<pesc::moe_dynamic<>, rounding_backend>>;

/// \brief How close results must be.
struct tolerances {
  double logits = 1e-4;
  double loss = 1e-5;
  double gradient = 1e-4;
  std::string note{};  ///< goes before the instruction set in the names of checks
  bool low = false;    ///< the reference computed in 16 bits: compare row by row, and no ids

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

  flat_batch(const golden_case& c, index_t vocabulary) {
    const std::vector<index_t>& shape = c.shape("input_ids");
    PESC_EXPECTS(shape.size() == 2 && shape[0] > 0 && shape[1] > 0, "input_ids must have two dimensions");
    rows = shape[0];
    length = shape[1];
    const std::vector<std::int64_t> tokens = c.integers("input_ids");
    const std::vector<std::int64_t> labels = c.integers("labels");
    const std::vector<std::int64_t> mask = c.integers("attention_mask");
    PESC_EXPECTS(labels.size() == tokens.size() && mask.size() == tokens.size(),
                 "labels and mask must fit input_ids");
    for (index_t r = 0; r < rows; ++r) {
      spans.push_back({r * length, (r + 1) * length, r * length, 0});
      for (index_t i = 0; i < length; ++i) {
        const auto t = static_cast<std::size_t>(r * length + i);
        PESC_EXPECTS(tokens[t] >= 0 && tokens[t] < vocabulary && labels[t] < vocabulary, "token ", tokens[t],
                     " of ", vocabulary);
        ids.push_back(static_cast<std::int32_t>(tokens[t]));
        positions.push_back(static_cast<std::int32_t>(i));
        valid.push_back(mask[t] != 0 ? 1 : 0);
        const std::int64_t target = i + 1 < length ? labels[t + 1] : -100;
        targets.push_back(target < 0 ? -1 : static_cast<std::int32_t>(target));
        if (target >= 0) counted += 1;
      }
    }
  }

  [[nodiscard]] index_t tokens() const { return rows * length; }
  [[nodiscard]] pesc::model_input<> view_of() const {
    return {view(ids), view(positions), view(spans), view(targets), view(valid)};
  }
};

/// \brief `values` [tokens, width] without the rows of padding, whose results are nobody's business.
template <class T>
std::vector<T> real_rows(const std::vector<T>& values, const std::vector<std::uint8_t>& valid,
                         index_t repeats = 1) {
  std::vector<T> out;
  const std::size_t width = values.size() / (valid.size() * static_cast<std::size_t>(repeats));
  for (std::size_t t = 0; t < valid.size() * static_cast<std::size_t>(repeats); ++t)
    if (valid[t % valid.size()] != 0)
      out.insert(out.end(), values.begin() + static_cast<std::ptrdiff_t>(t * width),
                 values.begin() + static_cast<std::ptrdiff_t>((t + 1) * width));
  return out;
}

/// \brief A decoder over loaded weights, with its trainable tensors and their gradients.
template <class Model>
struct decoder {
  const pesc::loaded_model<any_format>& loaded;
  pesc::moe_shape shape;
  pesc::buffer<float> arena, gradient_arena;
  Model model;

  /// \brief Adds low-rank updates that change nothing: with A the identity and B zero, the gradient of B is
  /// that of the frozen weight itself, as far as the rank reaches.
  decoder(const pesc::loaded_model<any_format>& source, index_t rank)
      : loaded{source},
        shape{with_rank(source.ffn_shape(), rank)},
        arena(Model::parameter_count(source.weights.shape, shape)),
        gradient_arena(arena.size()),
        model(source.weights, shape, with_alpha(source.ffn_options(), rank), arena.view()) {
    static_cast<void>(pesc::load_trainables(model, source));
    pesc::for_each_trainable(model.parameters(), [](const std::string& name, pesc::trainable_kind, auto m) {
      if (name.find("lora_A") == std::string::npos) return;
      for (index_t i = 0; i < std::min(m.rows, m.cols); ++i) m(i, i) = 1;
    });
  }

  static pesc::moe_shape with_rank(pesc::moe_shape s, index_t rank) {
    s.lora_rank = rank;
    return s;
  }
  static pesc::moe_options with_alpha(pesc::moe_options o, index_t rank) {
    o.lora_alpha = static_cast<float>(rank);
    return o;
  }
};

struct training_result {
  std::vector<float> logits, router_logits, embedding_gradient;
  double loss = 0;
  double aux_loss = 0;
  std::map<std::string, std::vector<float>> gradients;  ///< by the name of the weight
};

/// \brief The gradient of the embedding: rows of dx summed by token, and for a tied head dlogitsᵀ hidden.
template <class Model>
std::vector<float> embedding_gradient(typename Model::X& ctx, const decoder<Model>& d,
                                      const flat_batch& batch, const std::vector<float>& dx,
                                      const std::vector<float>& logits, pesc::matrix_view<const float> hidden,
                                      float scale) {
  const index_t vocabulary = d.model.shape().vocabulary;
  std::vector<float> out = zeros(vocabulary * hidden.cols);
  const auto g = view(out, vocabulary, hidden.cols);
  for (index_t t = 0; t < batch.tokens(); ++t)
    for (index_t j = 0; j < hidden.cols; ++j)
      g(batch.ids[static_cast<std::size_t>(t)], j) += dx[static_cast<std::size_t>(t * hidden.cols + j)];
  if (d.loaded.weights.head.size() != 0) return out;
  std::vector<float> losses = zeros(batch.tokens());
  std::vector<float> dlogits = logits;
  const auto z = view(dlogits, batch.tokens(), vocabulary);
  cross_entropy(ctx, as_const(z), view(batch.targets), scale, view(losses), z);
  with_workspace([&](pesc::workspace<>& ws) {
    matmul(ctx, as_const(z), hidden, g, {.transpose_a = true, .accumulate = !ws.counting()}, ws);
  });
  return out;
}

/// \brief Names of dense weights for the updates that reach all of their columns.
template <class Model>
void collect_gradients(decoder<Model>& d, training_result& r) {
  const auto views = d.model.views_over(d.gradient_arena.view());
  std::map<std::string, index_t> columns;
  pesc::for_each_trainable(views, [&](const std::string& name, pesc::trainable_kind, auto m) {
    const std::size_t at = name.find(".lora_");
    if (at == std::string::npos) {
      r.gradients[name] = {m.data, m.data + m.size()};
      return;
    }
    const std::string weight = name.substr(0, at) + ".weight";
    if (name.find("lora_A") != std::string::npos) {
      columns[weight] = m.cols;
    } else if (columns[weight] <= m.cols) {
      std::vector<float>& g = r.gradients[weight];
      for (index_t i = 0; i < m.rows; ++i) g.insert(g.end(), m.row(i), m.row(i) + columns[weight]);
    }
  });
}

template <class Model>
training_result run_training(typename Model::X& ctx, decoder<Model>& d, const flat_batch& batch) {
  const pesc::llama_shape& s = d.model.shape();
  const index_t tokens = batch.tokens();
  training_result r;
  r.logits = zeros(tokens * s.vocabulary);
  std::vector<float> losses = zeros(tokens);
  std::vector<float> dhidden = zeros(tokens * s.hidden);
  std::vector<float> dx = zeros(tokens * s.hidden);
  std::fill(d.gradient_arena.view().begin(), d.gradient_arena.view().end(), 0.0f);
  pesc::balance_pool pool(std::max<index_t>(d.shape.experts, 1), std::max<index_t>(d.shape.top_k, 1));
  const float scale = 1.0f / batch.counted;
  const auto gradients = d.model.views_over(d.gradient_arena.view());
  with_workspace([&](pesc::workspace<>& ws) {
    auto state = d.model.carve_state(ws, tokens, true);
    d.model.forward(ctx, batch.view_of(), state, {}, nullptr, &pool, ws, [&](index_t, const auto& layer) {
      if constexpr (Model::config_routed()) {
        const auto logits = layer.ffn.routing.logits;
        r.router_logits.insert(r.router_logits.end(), logits.data, logits.data + logits.size());
      }
    });
    d.model.logits(ctx, as_const(state.hidden), view(r.logits, tokens, s.vocabulary), ws);
    d.model.loss(ctx, batch.view_of(), state, scale, view(losses), view(dhidden, tokens, s.hidden), ws);
    d.model.backward(ctx, batch.view_of(), state, view(std::as_const(dhidden), tokens, s.hidden), gradients,
                     {}, {}, view(dx, tokens, s.hidden), ws);
    if (!ws.counting())
      r.embedding_gradient = embedding_gradient(ctx, d, batch, dx, r.logits, as_const(state.hidden), scale);
  });
  for (const float loss : losses) r.loss += static_cast<double>(loss * scale);
  r.aux_loss = pool.values(ctx, {.kind = pesc::balance_kind::camelidae_constant}).balance;
  collect_gradients(d, r);
  return r;
}

/// \brief Continues a sequence with a cache of keys and values: logits of every position, and the best next
/// ids.
///
/// \param forced  the ids to go on with; empty: the best ones
struct continuation {
  std::vector<std::int64_t> ids;
  std::vector<float> logits;

  template <class Model>
  continuation(typename Model::X& ctx, const decoder<Model>& d, const std::vector<std::int64_t>& prompt,
               index_t total, const std::vector<std::int64_t>& forced) {
    const pesc::llama_shape& s = d.model.shape();
    pesc::kv_cache cache(s, total);
    ids = prompt;
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

  template <class Model>
  void step(typename Model::X& ctx, const decoder<Model>& d, pesc::kv_cache<>& cache, std::size_t first) {
    std::vector<std::int32_t> tokens, positions;
    for (std::size_t i = first; i < ids.size(); ++i) {
      PESC_EXPECTS(ids[i] >= 0 && ids[i] < d.model.shape().vocabulary, "token ", ids[i]);
      tokens.push_back(static_cast<std::int32_t>(ids[i]));
      positions.push_back(static_cast<std::int32_t>(i));
    }
    const index_t count = static_cast<index_t>(tokens.size());
    const std::vector<pesc::attention_span> span{{0, count, 0, cache.size()}};
    const pesc::model_input<> batch{view(std::as_const(tokens)), view(std::as_const(positions)), view(span)};
    std::vector<float> out = zeros(count * d.model.shape().vocabulary);
    with_workspace([&](pesc::workspace<>& ws) {
      auto state = d.model.carve_state(ws, count, false);
      d.model.forward(ctx, batch, state, {}, &cache, nullptr, ws);
      d.model.logits(ctx, as_const(state.hidden), view(out, count, d.model.shape().vocabulary), ws);
    });
    logits.insert(logits.end(), out.begin(), out.end());
  }
};

void compare_gradients(const golden_case& c, outcome& out, const training_result& r, const tolerances& t,
                       const std::string& where) {
  const auto norm = [](const std::vector<float>& v) {
    double sum = 0;
    for (const float x : v) sum += static_cast<double>(x) * static_cast<double>(x);
    return std::vector<double>{std::sqrt(sum)};
  };
  // Of a reference in 16 bits, whose choices may differ in a row, all gradients together are one vector.
  std::vector<float> all, all_expected;
  const auto compare = [&](const std::string& name, const std::vector<float>& gradient) {
    if (c.has("expected.grad." + name) && t.low) {
      const std::vector<float> wanted = c.floats("expected.grad." + name);
      all.insert(all.end(), gradient.begin(), gradient.end());
      all_expected.insert(all_expected.end(), wanted.begin(), wanted.end());
    } else if (c.has("expected.grad." + name)) {
      out.near("grad." + name + where, gradient, c.floats("expected.grad." + name), t.gradient);
    }
    if (c.has("expected.gradnorm." + name) && !t.low)
      out.near("gradnorm." + name + where, norm(gradient), c.floats("expected.gradnorm." + name), t.gradient);
  };
  for (const auto& [name, gradient] : r.gradients) compare(name, gradient);
  compare("model.embed_tokens.weight", r.embedding_gradient);
  if (!all.empty()) out.near_by_rows("gradients" + where, all, all_expected, 1, t.gradient, t.gradient);
}

template <class Model>
void compare_generation(const golden_case& c, outcome& out, typename Model::X& ctx, const decoder<Model>& d,
                        const tolerances& t, const std::string& where) {
  const std::vector<std::int64_t> prompt = c.integers("gen.prompt");
  const std::vector<std::int64_t> expected = c.integers("expected.gen");
  const index_t total = static_cast<index_t>(expected.size());
  PESC_EXPECTS(!prompt.empty() && prompt.size() <= expected.size() && expected.size() < 1 << 16, "prompt of ",
               prompt.size(), " ids, expected ", expected.size());
  if (!t.low) out.exact("gen" + where, continuation(ctx, d, prompt, total, {}).ids, expected);
  // The reference's text, token by token: whatever is chosen, the logits must be its logits.
  const continuation forced(ctx, d, prompt, total, expected);
  if (c.has("expected.gen_logits"))
    t.check(out, "gen_logits" + where, forced.logits, c.floats("expected.gen_logits"),
            d.model.shape().vocabulary, t.logits);
  if (c.has("expected.gen_logits_last")) {
    const std::vector<float> last(
        forced.logits.end() - static_cast<std::ptrdiff_t>(d.model.shape().vocabulary), forced.logits.end());
    // Conversion of a 16-bit model to float leaves its rotary frequencies rounded in the run that generates.
    out.near("gen_logits_last" + where, last, c.floats("expected.gen_logits_last"),
             c.text("dtype") == "float32" ? t.logits : 3e-2);
  }
}

template <class Model>
void run_model(const golden_case& c, outcome& out, const pesc::loaded_model<any_format>& loaded, index_t rank,
               const tolerances& t) {
  decoder<Model> d(loaded, rank);
  const flat_batch batch(c, loaded.weights.shape.vocabulary);
  if (c.has("expected.inv_freq")) {
    std::vector<float> frequencies = zeros(loaded.weights.shape.head_dim / 2);
    pesc::rope_options rope = loaded.weights.shape.rope;
    // The old code divided positions instead of frequencies.
    if (rope.scaling == pesc::rope_scaling::linear && c.has_text("rope_scaling"))
      rope.scaling = pesc::rope_scaling::none;
    pesc::rope_frequencies(rope, loaded.weights.shape.head_dim, view(frequencies));
    out.near("inv_freq", frequencies, c.floats("expected.inv_freq"), 1e-6);
  }
  for_each_isa<typename Model::X>([&](typename Model::X& ctx, const std::string& isa) {
    const std::string where = t.note + isa;
    const training_result r = run_training(ctx, d, batch);
    const std::vector<float> logits = real_rows(r.logits, batch.valid);
    t.check(out, "logits" + where, logits, real_rows(c.floats("expected.logits"), batch.valid),
            loaded.weights.shape.vocabulary, t.logits);
    if (c.has("expected_low.logits"))
      tolerances{.low = true}.check(out, "low logits" + where, logits,
                                    real_rows(c.floats("expected_low.logits"), batch.valid),
                                    loaded.weights.shape.vocabulary, 3e-2);
    out.near("loss" + where, std::vector<double>{r.loss}, c.floats("expected.loss"), t.loss);
    if (c.has("expected.router_logits"))
      t.check(out, "router_logits" + where, real_rows(r.router_logits, batch.valid, d.model.shape().layers),
              real_rows(c.floats("expected.router_logits"), batch.valid, d.model.shape().layers),
              d.shape.experts, t.logits);
    if (c.has("expected.aux_loss")) {
      out.near("aux_loss" + where, std::vector<double>{r.aux_loss}, c.floats("expected.aux_loss"), 1e-5);
      constexpr double coefficient = 0.01;  // of the published configuration
      out.near("loss_with_aux" + where, std::vector<double>{r.loss + coefficient * r.aux_loss},
               c.floats("expected.loss_with_aux"), t.loss);
    }
    compare_gradients(c, out, r, t, where);
    compare_generation(c, out, ctx, d, t, where);
  });
}

}  // namespace

void run_llama(const golden_case& c, outcome& out) {
  const auto loaded = pesc::load_model<any_format>({.path = c.folder()});
  PESC_EXPECTS(!loaded.sparse(), c.folder(), " is a sparse model");
  const pesc::llama_shape& s = loaded.weights.shape;
  run_model<dense_model>(c, out, loaded, std::max({s.hidden, s.intermediate, s.query_width()}), {});
}

void run_camelidae_model(const golden_case& c, outcome& out) {
  const auto loaded = pesc::load_model<any_format>({.path = c.folder()});
  PESC_EXPECTS(loaded.sparse(), c.folder(), " is not a sparse model");
  // A reference that computes in bfloat16 rounds every tensor on its way.
  const bool low = c.text("dtype") != "float32";
  const tolerances t = low ? tolerances{3e-2, 3e-2, 0.2, "", true} : tolerances{};
  run_model<sparse_model>(c, out, loaded, loaded.weights.shape.hidden, t);
  if (low)
    run_model<rounding_model>(c, out, loaded, loaded.weights.shape.hidden, {3e-2, 3e-2, 6e-2, " rounding"});
}

}  // namespace golden
