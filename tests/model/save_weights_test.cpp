// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/save_weights.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/data.hpp"
#include "support/decoder.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

namespace {

const std::vector<std::int32_t> some_ids{1, 5, 9, 2, 30, 7};

pesc::loaded_model<> load_tiny(const support::temporary_folder& t, const pesc::weight_options& options,
                               bool tied = false) {
  pesc::model_config config{support::tiny_llama(), {}, {}, ""};
  config.llama.attention_bias = config.llama.mlp_bias = true;
  config.llama.tie_embeddings = tied;
  config.llama.rope.pairing = pesc::rope_pairing::neighbours;
  support::write_folder(t.path("base"), config, support::make_tensors(config));
  return pesc::load_model({.path = t.path("base")}, options);
}

pesc::moe_shape crafted_shape(const pesc::loaded_model<>& base, pesc::index_t lora_rank = 4) {
  pesc::moe_shape shape = base.ffn_shape();
  shape.experts = 3;
  shape.top_k = 2;
  shape.rank = 5;
  shape.lora_rank = lora_rank;
  return shape;
}

std::string bytes_of(const std::string& path) { return std::string{pesc::as_text(pesc::read_file(path))}; }

}  // namespace

TEST_SUITE("model/save_weights") {
  TEST_CASE("a crafted model in every weight format comes back to the bit, and saves to the same files") {
    for (const pesc::format_info& format :
         {pesc::nf4<64, pesc::double_quant<>>::info(), pesc::nf4<32>::info(), pesc::fp4<64>::info(),
          pesc::unquantized<pesc::bf16>::info(), pesc::unquantized<float>::info()}) {
      CAPTURE(format.name);
      const support::temporary_folder t;
      const auto base = load_tiny(t, {.format = format});
      support::decoder<support::sparse_layer> crafted(base.weights, crafted_shape(base),
                                                      {.expert_scale = 0.3f, .lora_alpha = 16.5f});
      crafted.randomize(3);
      pesc::model_description about{.llama = base.config.llama};
      about.extra.set("note", "kept");
      pesc::save_model(t.path("a"), crafted.model, about);

      const auto loaded = pesc::load_model({.path = t.path("a")});
      CHECK(loaded.warnings.empty());
      CHECK(loaded.weights.format == format);
      CHECK(*loaded.extra.find("note")->if_string() == "kept");
      CHECK(loaded.config.llama.rope.pairing == pesc::rope_pairing::neighbours);
      CHECK(loaded.config.quantization.has_value() == (format.element == pesc::element_kind::code4));
      CHECK(loaded.ffn_options().expert_scale == 0.3f);
      CHECK(loaded.ffn_options().lora_alpha == 16.5f);
      support::decoder<support::sparse_layer> again(loaded);
      CHECK(again.values() == crafted.values());
      CHECK(again.logits(some_ids) == crafted.logits(some_ids));

      pesc::save_model(t.path("b"), again.model,
                       {.llama = loaded.config.llama, .extra = loaded.extra, .forms = &loaded.forms});
      for (const auto& entry : std::filesystem::directory_iterator(t.path("a")))
        CHECK_MESSAGE(
            bytes_of(entry.path().string()) == bytes_of(t.path("b/" + entry.path().filename().string())),
            entry.path().string());
    }
  }

  TEST_CASE("an untrained crafted model computes what its dense parent computes, also after a save") {
    const support::temporary_folder t;
    const auto base = load_tiny(t, {}, true);
    support::decoder<support::dense_layer> dense(base);
    support::decoder<support::sparse_layer> crafted(base.weights, crafted_shape(base), {});
    CHECK(crafted.logits(some_ids) == dense.logits(some_ids));
    pesc::save_model(t.path("a"), crafted.model, {.llama = base.config.llama});
    const auto loaded = pesc::load_model({.path = t.path("a")});
    CHECK(loaded.config.llama.tie_embeddings);
    support::decoder<support::sparse_layer> again(loaded);
    CHECK(again.logits(some_ids) == dense.logits(some_ids));
  }

  TEST_CASE("a dense model with low-rank updates has no sparse part on disk") {
    const support::temporary_folder t;
    const auto base = load_tiny(t, {.format = pesc::nf4<>::info()});
    pesc::moe_shape shape = base.ffn_shape();
    shape.lora_rank = 3;
    support::decoder<support::dense_layer> twin(base.weights, shape, {.lora_alpha = 6});
    twin.randomize(8);
    pesc::save_model(t.path("a"), twin.model, {.llama = base.config.llama});
    const auto loaded = pesc::load_model({.path = t.path("a")});
    CHECK_FALSE(loaded.sparse());
    REQUIRE(loaded.lora);
    CHECK(loaded.lora->rank == 3);
    support::decoder<support::dense_layer> again(loaded);
    CHECK(again.logits(some_ids) == twin.logits(some_ids));
  }

  TEST_CASE("without updates there is no adapter, and a later save removes an earlier one") {
    const support::temporary_folder t;
    const auto base = load_tiny(t, {});
    support::decoder<support::sparse_layer> with(base.weights, crafted_shape(base), {});
    pesc::save_model(t.path("a"), with.model, {.llama = base.config.llama});
    CHECK(std::filesystem::exists(t.path("a/adapter_model.safetensors")));
    support::decoder<support::sparse_layer> without(base.weights, crafted_shape(base, 0), {});
    pesc::save_model(t.path("a"), without.model, {.llama = base.config.llama});
    CHECK_FALSE(std::filesystem::exists(t.path("a/adapter_model.safetensors")));
    CHECK_FALSE(pesc::load_model({.path = t.path("a")}).lora);
  }

  TEST_CASE("names and types in the files are those that other programs expect") {
    const support::temporary_folder t;
    const auto base = load_tiny(t, {.format = pesc::nf4<64, pesc::double_quant<>>::info()});
    support::decoder<support::sparse_layer> crafted(base.weights, crafted_shape(base), {});
    t.write("tokens.bin", "tokenizer");
    pesc::save_model(t.path("a"), crafted.model,
                     {.llama = base.config.llama, .tokenizer = t.path("tokens.bin")});
    CHECK(bytes_of(t.path("a/tokens.bin")) == "tokenizer");
    CHECK(pesc::load_model({.path = t.path("a")}).tokenizer == t.path("a/tokens.bin"));
    const auto file = pesc::safetensors_file::open(t.path("a/model.safetensors"));
    CHECK(file.get("model.layers.0.self_attn.q_proj.weight").dtype == pesc::element_type::u8);
    CHECK(file.get("model.layers.0.self_attn.q_proj.weight.nested_quant_map").count() == 256);
    CHECK(file.find("model.layers.0.self_attn.q_proj.weight.quant_state.bitsandbytes__nf4") != nullptr);
    CHECK(file.get("model.layers.1.mlp.moe_adapter.router.weight").shape ==
          std::vector<pesc::index_t>{3, 24});
    CHECK(file.get("model.layers.1.mlp.moe_adapter.experts.expert_2.adapter_up.weight").dtype ==
          pesc::element_type::f32);
    CHECK(file.get("model.embed_tokens.weight").dtype == pesc::element_type::f32);
    const auto adapter = pesc::safetensors_file::open(t.path("a/adapter_model.safetensors"));
    CHECK(adapter.get("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight").shape ==
          std::vector<pesc::index_t>{4, 24});
    const auto config = pesc::read_json(t.path("a/config.json"));
    for (const char* key :
         {"adapter_dim", "num_experts", "topk", "moe_scaling", "moe_dtype", "output_router_logits"})
      CHECK_MESSAGE(config.find(key) != nullptr, key);
    CHECK(config.find("quantization_config")->find("llm_int8_skip_modules")->items().size() == 2);
  }

  TEST_CASE("4-bit weights of a loaded checkpoint are saved in the bytes that they came in") {
    const auto folder = support::external_golden("bnb_checkpoint");
    if (!folder) PESC_SKIP("no golden folder bnb_checkpoint");
    for (const char* name : {"nf4_dq_bf16", "nf4_f32"}) {
      const support::temporary_folder t;
      const std::string source = (*folder / name).string();
      const auto loaded = pesc::load_model({.path = source});
      support::decoder<support::dense_layer> decoder(loaded);
      pesc::save_model(t.path("a"), decoder.model, {.llama = loaded.config.llama, .forms = &loaded.forms});
      const auto before = pesc::safetensors_file::open(source + "/model.safetensors");
      const auto after = pesc::safetensors_file::open(t.path("a/model.safetensors"));
      CHECK(after.names() == before.names());
      int compared = 0;
      for (const auto& tensor : before.tensors()) {
        if (tensor.name.find("_proj") == tensor.name.npos) continue;
        CHECK_MESSAGE(pesc::as_text(after.get(tensor.name).bytes) == pesc::as_text(tensor.bytes),
                      tensor.name);
        CHECK(after.get(tensor.name).shape == tensor.shape);
        ++compared;
      }
      CHECK(compared >= 2 * 7 * 4);
    }
  }

  TEST_CASE("files that belong to a tokenizer go along with it") {
    const support::temporary_folder t;
    const auto base = load_tiny(t, {});
    support::decoder<support::sparse_layer> crafted(base.weights, crafted_shape(base), {});
    std::filesystem::create_directory(t.path("from"));
    for (const char* name : {"vocab.json", "merges.txt", "tokenizer_config.json", "other.txt"})
      t.write(std::string("from/") + name, name);
    pesc::save_model(t.path("a"), crafted.model,
                     {.llama = base.config.llama, .tokenizer = t.path("from/vocab.json")});
    for (const char* name : {"vocab.json", "merges.txt", "tokenizer_config.json"})
      CHECK(bytes_of(t.path("a/") + name) == name);
    CHECK_FALSE(std::filesystem::exists(t.path("a/other.txt")));
    CHECK(pesc::load_model({.path = t.path("a")}).tokenizer == t.path("a/vocab.json"));
  }

  TEST_CASE("a tokenizer that is not there ends the save and leaves no folder of it") {
    const support::temporary_folder t;
    const auto base = load_tiny(t, {});
    support::decoder<support::sparse_layer> crafted(base.weights, crafted_shape(base), {});
    const auto text = support::message_of<pesc::io_error>([&] {
      pesc::save_model(t.path("a"), crafted.model, {.llama = base.config.llama, .tokenizer = t.path("none")});
    });
    CHECK(support::contains(text, "none: there is no such file"));
    CHECK(std::filesystem::is_empty(t.path("a")));
  }
}
