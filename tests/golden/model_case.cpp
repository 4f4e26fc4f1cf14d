// SPDX-License-Identifier: Apache-2.0

#include "model_case.hpp"

#include <algorithm>

namespace golden {
namespace {

/// \brief `values` [tokens, width] without the rows of padding, whose results are nobody's business.
std::vector<float> real_rows(const std::vector<float>& values, const std::vector<std::uint8_t>& valid,
                             index_t repeats = 1) {
  std::vector<float> out;
  const std::size_t width = values.size() / (valid.size() * static_cast<std::size_t>(repeats));
  for (std::size_t t = 0; t < valid.size() * static_cast<std::size_t>(repeats); ++t)
    if (valid[t % valid.size()] != 0)
      out.insert(out.end(), values.begin() + static_cast<std::ptrdiff_t>(t * width),
                 values.begin() + static_cast<std::ptrdiff_t>((t + 1) * width));
  return out;
}

/// \brief Low-rank updates of this rank on every projection.
void add_updates(pesc::loaded_model<>& loaded, index_t rank) {
  loaded.lora = pesc::lora_config{rank, static_cast<double>(rank), 0.0, {}};
}

}  // namespace

flat_batch::flat_batch(const golden_case& c, index_t vocabulary) {
  const std::vector<index_t>& shape = c.shape("input_ids");
  PESC_EXPECTS(shape.size() == 2 && shape[0] > 0 && shape[1] > 0, "input_ids must have two dimensions");
  rows = shape[0];
  length = shape[1];
  const std::vector<std::int64_t> tokens = c.integers("input_ids");
  const std::vector<std::int64_t> labels = c.integers("labels");
  const std::vector<std::int64_t> mask =
      c.has("attention_mask") ? c.integers("attention_mask") : std::vector<std::int64_t>(tokens.size(), 1);
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

pesc::loaded_model<> load_llama(const golden_case& c) {
  pesc::loaded_model<> out = pesc::load_model({.path = c.folder()});
  PESC_EXPECTS(!out.sparse(), c.folder(), " is a sparse model");
  const pesc::llama_shape& s = out.weights.shape;
  add_updates(out, std::max({s.hidden, s.intermediate, s.query_width()}));
  return out;
}

pesc::loaded_model<> load_camelidae(const golden_case& c) {
  pesc::loaded_model<> out = pesc::load_model({.path = c.folder()});
  PESC_EXPECTS(out.sparse(), c.folder(), " is not a sparse model");
  add_updates(out, out.weights.shape.hidden);
  return out;
}

pesc::loaded_model<> load_bnb_checkpoint(const golden_case& c) {
  pesc::loaded_model<> out = pesc::load_model({.path = c.folder()});
  PESC_EXPECTS(out.weights.format.element == pesc::element_kind::code4, c.folder(),
               " is not stored in 4 bits");
  return out;
}

pesc::loaded_model<> load_with_adapter(const golden_case& c, bool merge) {
  return pesc::load_model({.path = c.folder() + "/base", .adapter = c.folder() + "/adapter", .merge = merge});
}

tolerances camelidae_tolerances(const golden_case& c) {
  // A reference that computes in bfloat16 rounds every tensor on its way.
  return c.text("dtype") == "float32" ? tolerances{} : tolerances{3e-2, 3e-2, 0.2, true};
}

void compare_frequencies(const golden_case& c, outcome& out, const pesc::llama_shape& shape) {
  if (!c.has("expected.inv_freq")) return;
  std::vector<float> frequencies = zeros(shape.head_dim / 2);
  pesc::rope_options rope = shape.rope;
  // The old code divided positions instead of frequencies.
  if (rope.scaling == pesc::rope_scaling::linear && c.has_text("rope_scaling"))
    rope.scaling = pesc::rope_scaling::none;
  pesc::rope_frequencies(rope, shape.head_dim, view(frequencies));
  out.near("inv_freq", frequencies, c.floats("expected.inv_freq"), 1e-6);
}

void compare_training(const golden_case& c, outcome& out, const training_result& r, const flat_batch& batch,
                      const tolerances& t, const std::string& where) {
  const std::vector<float> logits = real_rows(r.logits, batch.valid);
  t.check(out, "logits" + where, logits, real_rows(c.floats(t.expected_logits), batch.valid), r.vocabulary,
          t.logits);
  if (c.has("expected_low.logits"))
    tolerances{.low = true}.check(out, "low logits" + where, logits,
                                  real_rows(c.floats("expected_low.logits"), batch.valid), r.vocabulary,
                                  3e-2);
  out.near("loss" + where, std::vector<double>{r.loss}, c.floats("expected.loss"), t.loss);
  if (c.has("expected.router_logits"))
    t.check(out, "router_logits" + where, real_rows(r.router_logits, batch.valid, r.layers),
            real_rows(c.floats("expected.router_logits"), batch.valid, r.layers), r.experts, t.logits);
  if (c.has("expected.aux_loss")) {
    out.near("aux_loss" + where, std::vector<double>{r.aux_loss}, c.floats("expected.aux_loss"), 1e-5);
    constexpr double coefficient = 0.01;  // of the published configuration
    out.near("loss_with_aux" + where, std::vector<double>{r.loss + coefficient * r.aux_loss},
             c.floats("expected.loss_with_aux"), t.loss);
  }
}

namespace {

/// \brief Values of a projection of the first layer in the order of files.
template <class T>
std::vector<T> values_of_weight(const pesc::quantized_matrix<pesc::any_format, pesc::panels>& weight) {
  std::vector<T> out(static_cast<std::size_t>(weight.rows() * weight.cols()));
  pesc::dequantize(pesc::unpack(weight).view(),
                   pesc::matrix_view<T>{out.data(), weight.rows(), weight.cols()});
  return out;
}

}  // namespace

void compare_merged(const golden_case& c, outcome& out, const pesc::loaded_model<>& merged) {
  PESC_EXPECTS(!merged.lora && merged.trainables.empty(), c.folder(), ": updates are left after the merge");
  out.near("merged q_proj", values_of_weight<float>(merged.weights.layers[0].q.weight),
           c.floats("expected.merged.layers.0.q_proj"), 1e-6);
}

void compare_dequantized(const golden_case& c, outcome& out, const pesc::loaded_model<>& loaded) {
  const char* name = "expected.dequant.layers.0.k_proj";
  if (c.text("weight_dtype") == "bfloat16")
    out.exact("dequantised k_proj", values_of_weight<pesc::bf16>(loaded.weights.layers[0].k.weight),
              c.file().read<pesc::bf16>(name));
  else
    out.exact("dequantised k_proj", values_of_weight<float>(loaded.weights.layers[0].k.weight),
              c.floats(name));
}

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

}  // namespace golden
