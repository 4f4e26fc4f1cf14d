// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/model_files.hpp"

#include <string>

#include <doctest/doctest.h>

#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

namespace {

template <class Error = pesc::format_error>
std::string refusal(const std::string& path) {
  return support::message_of<Error>([&] { static_cast<void>(pesc::model_files::open({.path = path})); });
}

}  // namespace

TEST_SUITE("model/model_files") {
  TEST_CASE("a llama2.c file shows the tensors of a folder, and the tokenizer beside it") {
    const support::temporary_folder t;
    pesc::llama_config c = support::tiny_llama();
    const auto tensors = support::make_tensors({c, {}, {}, ""});
    pesc::write_file(t.path("m.bin"), support::llama2c_bytes(c, tensors));
    t.write("tok40.bin", "x");
    auto files = pesc::model_files::open({.path = t.path("m.bin")});
    CHECK(files.tokenizer() == t.path("tok40.bin"));
    CHECK(files.config().llama.rope.pairing == pesc::rope_pairing::neighbours);
    CHECK_FALSE(files.config().llama.tie_embeddings);
    for (const auto& entry : tensors) {
      const std::string& name = entry.first;
      const support::tiny_tensor& tensor = entry.second;
      CAPTURE(name);
      const auto* found = files.find(name);
      REQUIRE(found != nullptr);
      CHECK(found->shape == tensor.shape);
      CHECK(pesc::to_floats(*found, "m") == tensor.values);
    }
    CHECK(files.unused_names().empty());
  }

  TEST_CASE("a tied llama2.c file has no head") {
    const support::temporary_folder t;
    pesc::llama_config c = support::tiny_llama();
    c.tie_embeddings = true;
    pesc::write_file(t.path("m.bin"), support::llama2c_bytes(c, support::make_tensors({c, {}, {}, ""})));
    const auto files = pesc::model_files::open({.path = t.path("m.bin")});
    CHECK(files.config().llama.tie_embeddings);
    CHECK(files.tokenizer() == "");
    t.write("tok1.bin", "x");
    t.write("tok2.bin", "x");
    const auto more = pesc::model_files::open({.path = t.path("m.bin")});
    CHECK(more.tokenizer() == t.path("tok1.bin"));
    REQUIRE(more.warnings().size() == 1);
    CHECK(support::contains(more.warnings()[0], "holds 2 files tok*.bin"));
  }

  TEST_CASE("a folder tells its configuration, tensors and adapter") {
    const support::temporary_folder t;
    const pesc::model_config config{support::tiny_llama(), support::tiny_experts(), {}, "float32"};
    support::write_folder(t.path("m"), config, support::make_tensors(config));
    t.write("m/tokenizer.json", "{}");
    auto files = pesc::model_files::open({.path = t.path("m/")});
    CHECK(files.name() == t.path("m"));
    CHECK(files.config().pesc->experts == 3);
    CHECK(files.tokenizer() == t.path("m/tokenizer.json"));
    CHECK_FALSE(files.manifest());
    CHECK_FALSE(files.lora());
    CHECK(files.contains("lm_head.weight"));
    CHECK_FALSE(files.contains("lm_head"));
    const auto before = files.unused_names().size();
    CHECK(files.find("lm_head.weight") != nullptr);
    CHECK(files.find("lm_head") == nullptr);
    CHECK(files.unused_names().size() == before - 1);
    // Half an adapter beside the model is an error, not a dense model.
    pesc::safetensors_writer{}.write(t.path("m/adapter_model.safetensors"));
    CHECK(support::contains(refusal<pesc::io_error>(t.path("m")),
                            "adapter_config.json: there is no such file"));
  }

  TEST_CASE("paths that are no model say what they are") {
    const support::temporary_folder t;
    CHECK(support::contains(refusal<pesc::io_error>(t.path("x")), "there is no such file or folder"));
    CHECK(support::contains(refusal(t.path()), "there is no config.json in this folder"));
    t.write("a.safetensors", "x");
    CHECK(support::contains(refusal(t.path("a.safetensors")), "name the folder that holds it"));
    t.write("a.bin", "x");
    CHECK(support::contains(refusal(t.path("a.bin")), "a.bin: "));
  }
}
