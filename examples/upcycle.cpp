// SPDX-License-Identifier: Apache-2.0
//
// From a dense model file to a mixture of experts on disk: reads a small Llama, puts eight adapter experts behind every
// feed-forward network, shows that the text does not change by that, saves the sparse model and reads it again.

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "pesc/model.hpp"

namespace {

using backend = pesc::cpu_backend;
using config = pesc::moe_dynamic<>;  // sizes and weight format come from the files
using dense_model = pesc::llama<pesc::dense_layer<config, backend>>;
using sparse_model = pesc::llama<pesc::moe_layer<config, backend>>;

// A model over the weights of a loaded one, with the arena of its trainable parameters.
template <class Model>
struct runnable {
  pesc::buffer<float> arena;
  Model model;

  explicit runnable(const pesc::loaded_model<>& loaded)
      : arena(Model::parameter_count(loaded.weights.shape, loaded.ffn_shape())),
        model(loaded.weights, loaded.ffn_shape(), loaded.ffn_options(), arena.view()) {
    model.initialize(1);
    load_trainables(model, loaded);  // a dense file has none: they stay as they start
  }
};

template <class Model>
std::string tell(backend& ctx, const Model& model, const pesc::tokenizer& words) {
  pesc::decoder<Model> sequence(ctx, model, 80);
  std::vector<std::int32_t> prompt{1};  // the start token
  for (const std::int32_t id : words.encode("Once upon a time")) prompt.push_back(id);
  std::vector<std::int32_t> made;
  pesc::generate(sequence, prompt, 40, {}, {}, [&](std::int32_t id) {
    made.push_back(id);
    return true;
  });
  return words.decode(made);
}

int run(const std::string& data, const std::string& folder) {
  backend ctx;
  // The frozen projections are quantised to 4 bits while they are read.
  pesc::loaded_model<> loaded =
      pesc::load_model({data + "/stories260K.bin"}, {pesc::nf4<64, pesc::double_quant<>>::info()});
  const pesc::tokenizer words = pesc::load_tokenizer(data + "/tok512.bin");
  const runnable<dense_model> dense(loaded);
  const std::string before = tell(ctx, dense.model, words);

  loaded.config.pesc = pesc::pesc_config{.experts = 8, .top_k = 2, .adapter_dim = 16, .moe_scaling = 1.0};
  const runnable<sparse_model> sparse(loaded);
  const std::string crafted = tell(ctx, sparse.model, words);
  save_model(folder, sparse.model, {.llama = loaded.config.llama, .forms = &loaded.forms}, {.fresh = true});

  const pesc::loaded_model<> again = pesc::load_model({folder});
  const runnable<sparse_model> reloaded(again);
  const std::string after = tell(ctx, reloaded.model, words);

  std::printf("dense:    %s\nsparse:   %s\nreloaded: %s\n\n", before.c_str(), crafted.c_str(), after.c_str());
  std::printf("%d frozen bytes, %d trainable numbers in %s\n", static_cast<int>(loaded.weights.bytes()),
              static_cast<int>(sparse.arena.size()), folder.c_str());
  return !before.empty() && crafted == before && after == crafted && again.sparse() ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string data = count > 1 ? arguments[1] : PESC_EXAMPLE_DATA;
  const std::string folder = count > 2 ? arguments[2] : "upcycled";
  try {
    return run(data, folder);
  } catch (const pesc::error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
