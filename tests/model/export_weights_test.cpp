// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/export_weights.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/model/export_model.hpp"
#include "support/data.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_adapter.hpp"
#include "support/tiny_gguf.hpp"
#include "support/tiny_model.hpp"

namespace {

using pesc::index_t;
using enum pesc::export_target;

/// Rows of queries and keys are whole blocks.
pesc::llama_config wide_llama() {
  auto c = support::tiny_llama();
  c.hidden = 64;
  c.intermediate = 96;
  c.head_dim = 16;
  return c;
}

/// The same model in a folder and in a file of rotary neighbours.
struct two_orders {
  support::temporary_folder t;
  pesc::llama_config c;
  support::tiny_tensors tensors;

  explicit two_orders(const pesc::llama_config& config)
      : c{config}, tensors{support::make_tensors({c, {}, {}, ""})} {
    support::write_folder(t.path("folder"), {c, {}, {}, ""}, tensors);
    auto turned = tensors;
    for (auto& [name, tensor] : turned)
      if (pesc::has_head_rows(name)) tensor.values = support::neighbouring_rows(tensor, c.head_dim);
    pesc::write_file(t.path("m.bin"), support::llama2c_bytes(c, turned));
  }

  [[nodiscard]] pesc::loaded_model<> written(const pesc::loaded_model<>& model,
                                             const pesc::export_options& options,
                                             const std::string& name) const {
    pesc::export_model(t.path(name), model, options);
    return pesc::load_model({.path = t.path(name)});
  }
};

std::vector<float> query(const pesc::loaded_model<>& model) {
  return support::values_of(model.weights.layers[1].q.weight);
}
std::vector<float> up(const pesc::loaded_model<>& model) {
  return support::values_of(model.weights.layers[1].up.weight);
}

/// Rows of queries in the order of Hugging Face files.
std::vector<float> in_halves(const std::vector<float>& values, const pesc::llama_config& c) {
  const pesc::row_order order(c.head_dim, pesc::rope_pairing::neighbours, pesc::rope_pairing::halves);
  std::vector<float> out(values);
  for (index_t i = 0; i < static_cast<index_t>(out.size()); ++i)
    out[static_cast<std::size_t>(i)] =
        values[static_cast<std::size_t>(order.source(i / c.hidden) * c.hidden + i % c.hidden)];
  return out;
}

pesc::format_info nf4(pesc::scale_kind scales) {
  return pesc::make_code4_info(pesc::nf4<>::levels(), 64, scales, "nf4");
}

}  // namespace

TEST_SUITE("model/export_weights") {
  TEST_CASE("rows of queries and keys come back from the order of neighbours") {
    const two_orders m(wide_llama());
    const auto from_file = pesc::load_model({.path = m.t.path("m.bin")});
    const auto expected = pesc::load_model({.path = m.t.path("folder")});
    const auto read = m.written(from_file, {.target = hf}, "hf");
    CHECK(read.config.llama.rope.pairing == pesc::rope_pairing::halves);
    for (std::size_t l = 0; l < 2; ++l) {
      CHECK(support::values_of(read.weights.layers[l].q.weight) ==
            support::values_of(expected.weights.layers[l].q.weight));
      CHECK(support::values_of(read.weights.layers[l].k.weight) ==
            support::values_of(expected.weights.layers[l].k.weight));
      CHECK(support::values_of(read.weights.layers[l].v.weight) ==
            support::values_of(expected.weights.layers[l].v.weight));
    }
  }

  TEST_CASE("4-bit weights keep their values to the bit in the other order") {
    const two_orders m(wide_llama());
    for (const auto scales : {pesc::scale_kind::plain, pesc::scale_kind::double_quant}) {
      const auto kept = pesc::load_model({.path = m.t.path("m.bin")}, {.format = nf4(scales)});
      const auto read =
          m.written(kept, {.target = hf_4bit}, pesc::detail::concat("b", static_cast<int>(scales)));
      CHECK(query(read) == in_halves(query(kept), m.c));
      CHECK(up(read) == up(kept));
      CHECK(read.weights.layers[1].up.weight.format().scales == scales);
    }
  }

  TEST_CASE("rows that share scales cannot be put in order and are named; quantising again can") {
    const two_orders m(support::tiny_llama());
    const auto kept = pesc::load_model({.path = m.t.path("m.bin")}, {.format = nf4(pesc::scale_kind::plain)});
    CHECK(support::contains(
        support::message_of([&] { pesc::export_model(m.t.path("x"), kept, {.target = hf_4bit}); }),
        "\"model.layers.0.self_attn.q_proj.weight\" is kept in 4 bits, and its rows of 24 weights share "
        "scales, so "
        "that they cannot be put in order. Use hf, or quantise it again, which loses precision."));
    CHECK_FALSE(pesc::detail::exists(m.t.path("x")));
    const auto read = m.written(kept, {.target = hf_4bit, .requantize = true}, "again");
    CHECK(read.weights.format == kept.weights.format);
    CHECK(up(read) == up(kept));
    const auto numbers = m.written(kept, {.target = hf}, "hf");
    CHECK(query(numbers) == in_halves(query(kept), m.c));
  }

  TEST_CASE("low-rank updates are merged into what is written") {
    const two_orders m(wide_llama());
    const std::string module = "model.layers.1.mlp.up_proj";
    support::write_adapter(m.t.path("u"), m.c, {{module, 3}, {"model.layers.0.self_attn.q_proj", 4}});
    const pesc::model_source with{.path = m.t.path("m.bin"), .adapter = m.t.path("u")};
    const auto live = pesc::load_model(with);
    auto sum = up(live);
    // The quotient of the scales of the two modules is no power of two, which matters to training only.
    pesc::add_update(live.trainables, *live.lora, module, {sum.data(), m.c.intermediate, m.c.hidden}, "");
    const auto merged = m.written(live, {.target = hf}, "hf");
    CHECK(up(merged) == sum);
    CHECK_FALSE(merged.lora);
    // Numbers are quantised with their updates.
    const auto quantized = m.written(live, {.target = hf_4bit}, "q");
    const auto expected = pesc::quantize<pesc::any_format>(
        nf4(pesc::scale_kind::double_quant),
        pesc::matrix_view<const float>{sum.data(), m.c.intermediate, m.c.hidden});
    CHECK(up(quantized) == support::values_of(pesc::pack(expected)));
    // Kept 4-bit weights are decoded first, or refused.
    const auto kept = pesc::load_model(with, {.format = nf4(pesc::scale_kind::plain)});
    auto decoded = up(kept);
    pesc::add_update(kept.trainables, *kept.lora, module, {decoded.data(), m.c.intermediate, m.c.hidden}, "");
    CHECK(up(m.written(kept, {.target = hf}, "d")) == decoded);
    CHECK(support::contains(
        support::message_of([&] { pesc::export_model(m.t.path("x"), kept, {.target = hf_4bit}); }),
        "is kept in 4 bits, and a low-rank update cannot be merged into it. Use hf, or quantise it again"));
    CHECK(up(m.written(kept, {.target = hf_4bit, .requantize = true}, "r")) != up(kept));
  }

  TEST_CASE("numbers are written in the type that is asked for") {
    const two_orders m(wide_llama());
    const auto model = pesc::load_model({.path = m.t.path("folder")});
    const auto read = m.written(model, {.target = hf, .dtype = pesc::element_type::bf16}, "bf16");
    CHECK(read.config.dtype == "bfloat16");
    CHECK(read.weights.format == pesc::unquantized<pesc::bf16>::info());
    CHECK(read.forms.at("model.norm.weight").dtype == "bfloat16");
    const auto values = up(model);
    CHECK(up(read)[5] == pesc::to_float(pesc::to_bf16(values[5])));
    const auto four = m.written(model, {.target = hf_4bit, .dtype = pesc::element_type::f16}, "f16");
    CHECK(four.forms.at("model.layers.0.mlp.up_proj.weight").dtype == "float16");
    CHECK(four.config.quantization->compute_dtype == "float16");
  }

  TEST_CASE("4-bit weights are decoded in the type that they had before") {
    const support::temporary_folder t;
    const auto folder = support::test_data("golden/bnb_checkpoint/nf4_dq_bf16");
    const auto reference = pesc::safetensors_file::open((folder / "reference.safetensors").string());
    pesc::export_model(t.path("a"), pesc::load_model({.path = folder.string()}), {.target = hf});
    const auto written = pesc::safetensors_file::open(t.path("a/model.safetensors"));
    CHECK(written.read<pesc::bf16>("model.layers.0.self_attn.k_proj.weight") ==
          reference.read<pesc::bf16>("expected.dequant.layers.0.k_proj"));
  }
}
