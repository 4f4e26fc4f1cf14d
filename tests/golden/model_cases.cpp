// SPDX-License-Identifier: Apache-2.0

// Kinds llama, camelidae_model, bnb_checkpoint and lora_model: a checkpoint folder beside a reference of logits, loss,
// gradients and greedy text.

#include "each_isa.hpp"
#include "model_case.hpp"
#include "pesc/pesc.hpp"
#include "rounding_backend.hpp"

namespace golden {
namespace {

template <class Layer>
void run_model(const golden_case& c, outcome& out, const pesc::loaded_model<>& loaded, const tolerances& t,
               const std::string& note = "") {
  using X = typename Layer::backend;
  for_each_isa<X>(
      [&](X& ctx, const std::string& isa) { compare_model<Layer>(ctx, c, out, loaded, t, note + isa); });
}

}  // namespace

void run_llama(const golden_case& c, outcome& out) {
  const auto loaded = load_llama(c);
  compare_frequencies(c, out, loaded.weights.shape);
  run_model<pesc::dense_layer<pesc::moe_dynamic<>, pesc::cpu_backend>>(c, out, loaded, {});
}

void run_camelidae_model(const golden_case& c, outcome& out) {
  const auto loaded = load_camelidae(c);
  compare_frequencies(c, out, loaded.weights.shape);
  const tolerances t = camelidae_tolerances(c);
  run_model<pesc::moe_layer<pesc::moe_dynamic<>, pesc::cpu_backend>>(c, out, loaded, t);
  if (t.low)
    run_model<pesc::moe_layer<pesc::moe_dynamic<>, rounding_backend>>(c, out, loaded, {3e-2, 3e-2, 6e-2},
                                                                      " rounding");
}

void run_bnb_checkpoint(const golden_case& c, outcome& out) {
  const auto loaded = load_bnb_checkpoint(c);
  compare_dequantized(c, out, loaded);
  run_model<pesc::dense_layer<pesc::moe_dynamic<>, pesc::cpu_backend>>(c, out, loaded, {});
}

void run_lora_model(const golden_case& c, outcome& out) {
  using layer = pesc::dense_layer<pesc::moe_dynamic<>, pesc::cpu_backend>;
  run_model<layer>(c, out, load_with_adapter(c, false), {}, " live");
  const auto merged = load_with_adapter(c, true);
  compare_merged(c, out, merged);
  run_model<layer>(c, out, merged, {.expected_logits = "expected.logits_merged"}, " merged");
}

}  // namespace golden
