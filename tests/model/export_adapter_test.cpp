// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/export_adapter.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/model/export_model.hpp"
#include "support/data.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_adapter.hpp"
#include "support/tiny_gguf.hpp"
#include "support/tiny_model.hpp"

namespace {

using pesc::index_t;
using enum pesc::export_target;

std::vector<std::byte> file_of(const std::string& folder) {
  return pesc::read_file(folder + "/adapter_model.safetensors");
}

pesc::adapter_config config_of(const std::string& folder) {
  const std::string file = folder + "/adapter_config.json";
  return pesc::parse_adapter_config(pesc::read_json(file), file);
}

}  // namespace

TEST_SUITE("model/export_adapter") {
  TEST_CASE("files of PEFT are written again to the byte") {
    const support::temporary_folder t;
    const std::string folder = support::test_data("golden/lora_model/qv_rslora").string();
    const auto model = pesc::load_model({.path = folder + "/base", .adapter = folder + "/adapter"});
    pesc::export_model(t.path("a"), model, {.target = peft});
    CHECK(file_of(t.path("a")) == file_of(folder + "/adapter"));
    const auto before = config_of(folder + "/adapter"), after = config_of(t.path("a"));
    CHECK(after.target_modules == std::vector<std::string>{"q_proj", "v_proj"});
    CHECK(after.base_model == folder + "/base");
    CHECK(after.of("model.layers.0.self_attn.q_proj").scale() ==
          doctest::Approx(before.of("model.layers.0.self_attn.q_proj").scale()).epsilon(1e-15));
  }

  TEST_CASE("modules of a part of the layers are listed by path, ranks of their own by pattern") {
    const support::temporary_folder t;
    const auto c = support::tiny_llama();
    support::write_folder(t.path("m"), {c, {}, {}, ""}, support::make_tensors({c, {}, {}, ""}));
    const std::string q0 = "model.layers.0.self_attn.q_proj", q1 = "model.layers.1.self_attn.q_proj";
    const std::string up = "model.layers.1.mlp.up_proj";
    support::write_adapter(t.path("u"), c, {{q0, 4}, {q1, 2}, {up, 4}});
    const auto model = pesc::load_model({.path = t.path("m"), .adapter = t.path("u")});
    pesc::export_model(t.path("a"), model, {.target = peft});
    CHECK(file_of(t.path("a")) == file_of(t.path("u")));
    const auto config = config_of(t.path("a"));
    CHECK(config.target_modules == std::vector<std::string>{"q_proj", up});
    for (const std::string& module : {q0, q1, up})
      CHECK(config.of(module) == config_of(t.path("u")).of(module));
    const auto again = pesc::load_model({.path = t.path("m"), .adapter = t.path("a")});
    CHECK(again.lora->modules == model.lora->modules);
    CHECK(again.lora->rank == 4);
  }

  TEST_CASE("updates of a model of rotary neighbours go out in the order of Hugging Face files") {
    const support::temporary_folder t;
    const auto c = support::tiny_llama();
    auto tensors = support::make_tensors({c, {}, {}, ""});
    pesc::write_file(t.path("m.bin"), support::llama2c_bytes(c, tensors));
    support::write_adapter(t.path("u"), c,
                           {{"model.layers.0.self_attn.k_proj", 4}, {"model.layers.1.mlp.down_proj", 4}});
    const auto model = pesc::load_model({.path = t.path("m.bin"), .adapter = t.path("u")});
    pesc::export_model(t.path("a"), model, {.target = peft});
    CHECK(file_of(t.path("a")) == file_of(t.path("u")));
  }

  TEST_CASE("another type can be asked for") {
    const support::temporary_folder t;
    const auto c = support::tiny_llama();
    support::write_folder(t.path("m"), {c, {}, {}, ""}, support::make_tensors({c, {}, {}, ""}));
    support::write_adapter(t.path("u"), c, {{"model.layers.0.self_attn.k_proj", 4}});
    const auto model = pesc::load_model({.path = t.path("m"), .adapter = t.path("u")});
    pesc::export_model(t.path("a"), model, {.target = peft, .dtype = pesc::element_type::bf16});
    const auto file = pesc::safetensors_file::open(t.path("a/adapter_model.safetensors"));
    CHECK(file.tensors()[0].dtype == pesc::element_type::bf16);
    CHECK(file.tensors()[0].name == "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight");
  }
}
