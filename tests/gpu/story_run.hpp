// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "pesc/model/generate.hpp"
#include "pesc/model/placed_model.hpp"
#include "pesc/text/llama2c_tokenizer.hpp"
#include "pesc/train/evaluate.hpp"
#include "pesc/train/trainer.hpp"

namespace support {

/// \brief What a short life of stories260K on a backend gives: crafted, tuned for three steps, asked to tell.
struct story {
  std::vector<double> losses, balances, norms;  ///< of the steps
  double held_out = 0;                          ///< loss after them
  std::vector<std::int32_t> load;               ///< slots of the last step, layer by layer
  std::vector<std::int32_t> text;               ///< 16 greedy tokens
  std::vector<float> first_logits;              ///< after the prompt
  std::vector<float> trainables;
};

/// \brief Numbers 1, 2, 3, … of the vocabulary in records that differ: enough to learn from.
inline pesc::token_records counting_story(pesc::index_t records, std::int32_t first) {
  pesc::token_records out;
  for (pesc::index_t r = 0; r < records; ++r) {
    std::vector<std::int32_t> ids;
    for (std::int32_t i = 0; i < 20; ++i)
      ids.push_back((first + 7 * static_cast<std::int32_t>(r) + 3 * i) % 500 + 3);
    out.add(ids, 1);
  }
  return out;
}

/// \brief Runs it; the same numbers for every backend, up to rounding.
template <class X>
story tell_story(X& ctx, const std::string& data) {
  using layer = pesc::moe_layer<pesc::moe_dynamic<>, X>;
  using model = pesc::llama<layer>;
  pesc::loaded_model<> loaded =
      pesc::load_model({data + "/stories260K.bin"}, {pesc::nf4<64, pesc::double_quant<>>::info()});
  loaded.config.pesc = pesc::pesc_config{.experts = 4, .top_k = 2, .adapter_dim = 8, .moe_scaling = 1.0};
  loaded.lora = pesc::lora_config{4, 8.0, 0.0, {}};
  pesc::placed_model<layer> placed(ctx, loaded, 1);

  const pesc::token_records records = counting_story(8, 1), held_out = counting_story(2, 100);
  const pesc::batch_options batching{.layout = pesc::batch_layout::pack, .sequences = 2, .length = 24};
  pesc::batch_builder builder({&records}, pesc::mixture({{records.size(), 1.0}}, 8), batching);
  pesc::moe_options options = loaded.ffn_options();
  options.adapter_dropout = 0.1f;
  placed->set_options(options);
  pesc::trainer<model> training(ctx, *placed, placed.arena(),
                                {.balance = {.coefficient = 0.01f, .z_coefficient = 0.001f}, .seed = 7},
                                batching.sequences * batching.length);
  std::vector<pesc::token_batch> batches{pesc::token_batch(batching)};
  story out;
  for (int step = 0; step < 3; ++step) {
    builder.fill(batches[0]);
    const pesc::step_result result = training.step(batches, 1e-3);
    out.losses.push_back(result.loss);
    out.balances.push_back(result.balance);
    out.norms.push_back(result.grad_norm);
  }
  out.load.assign(training.load().begin(), training.load().end());
  pesc::evaluator<model> measure(ctx, *placed, 64);
  out.held_out = measure(held_out).loss;

  pesc::decoder<model> sequence(ctx, *placed, 32);
  std::vector<std::int32_t> prompt{1};
  const auto words = pesc::llama2c_tokenizer::load(data + "/tok512.bin");
  for (const std::int32_t id : words.encode("Once upon a time")) prompt.push_back(id);
  const auto logits = sequence.push(prompt);
  out.first_logits.assign(logits.begin(), logits.end());
  sequence.clear();
  pesc::generate(sequence, prompt, 16, {}, {}, [&](std::int32_t id) {
    out.text.push_back(id);
    return true;
  });
  placed.to_host(ctx);
  const auto& files = placed.files();
  pesc::for_each_trainable(files.parameters(), [&](const std::string&, pesc::trainable_kind, auto m) {
    out.trainables.insert(out.trainables.end(), m.data, m.data + m.size());
  });
  return out;
}

/// \brief The same on the CPU backend; compiled by the C++ compiler.
[[nodiscard]] story tell_story_on_cpu(const std::string& data);

}  // namespace support
