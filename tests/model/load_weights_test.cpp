// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/load_weights.hpp"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/model/save_weights.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

namespace {

using pesc::index_t;

struct read_weights {
  pesc::model_weights<pesc::any_format> weights;
  pesc::stored_forms forms;
  std::vector<std::string> warnings;
};

read_weights read(const std::string& path, const pesc::weight_options& options = {}) {
  auto files = pesc::model_files::open({.path = path});
  read_weights out;
  out.weights = pesc::load_weights<pesc::any_format>(files, options, out.forms, out.warnings);
  return out;
}

template <class Error = pesc::format_error>
std::string refusal(const std::string& path, const pesc::weight_options& options = {}) {
  return support::message_of<Error>([&] { static_cast<void>(read(path, options)); });
}

/// A folder with a dense model, and ways to damage it.
struct dense_folder {
  support::temporary_folder folder;
  pesc::model_config config{support::tiny_llama(), {}, {}, "float32"};
  support::tiny_tensors tensors = support::make_tensors(config);
  template <class T = float>
  std::string write() {
    support::write_folder<T>(folder.path("m"), config, tensors);
    return folder.path("m");
  }
};

pesc::format_info nf4_dq() { return pesc::nf4<64, pesc::double_quant<>>::info(); }

/// Writes the weights in the form that they have in memory, in the layout of bitsandbytes.
std::string write_stored(const support::temporary_folder& t, const pesc::model_config& config,
                         const read_weights& from) {
  std::filesystem::create_directories(t.path("q"));
  pesc::write_file(t.path("q/config.json"), to_string(to_json(config)));
  pesc::safetensors_writer out;
  pesc::store_weights(from.weights, from.forms, out);
  out.write(t.path("q/model.safetensors"));
  return t.path("q");
}

}  // namespace

TEST_SUITE("model/load_weights") {
  TEST_CASE("numbers keep their type and value, in folders of every float type") {
    dense_folder d;
    const auto check = [&]<class T>(T, const char* name) {
      const auto loaded = read(d.write<T>());
      CHECK(std::string{loaded.weights.format.name} == name);
      const auto& layer = loaded.weights.layers[1];
      std::vector<float> expected = d.tensors.at("model.layers.1.mlp.up_proj.weight").values;
      for (float& x : expected) x = pesc::to_float(pesc::from_float<T>(x));
      CHECK(support::values_of(layer.up.weight) == expected);
      CHECK(layer.q.bias.size() == 0);
      CHECK(loaded.weights.head.size() == 40 * 24);
      CHECK(loaded.weights.embedding[3] ==
            pesc::to_float(pesc::from_float<T>(d.tensors.at("model.embed_tokens.weight").values[3])));
    };
    check(float{}, "float");
    check(pesc::bf16{}, "bf16");
    check(pesc::f16{}, "f16");
  }

  TEST_CASE("projections are quantised as the quantiser alone does") {
    dense_folder d;
    const auto loaded = read(d.write(), {.format = nf4_dq()});
    CHECK(loaded.weights.format == nf4_dq());
    CHECK_FALSE(loaded.forms.contains("model.layers.0.mlp.down_proj.weight"));
    CHECK(loaded.forms.at("model.norm.weight").dtype == "float32");
    const auto& down = d.tensors.at("model.layers.0.mlp.down_proj.weight").values;
    const auto expected =
        pesc::quantize<pesc::any_format>(nf4_dq(), pesc::matrix_view<const float>{down.data(), 24, 36});
    const auto found = pesc::unpack(loaded.weights.layers[0].down.weight);
    CHECK(std::equal(expected.codes().begin(), expected.codes().end(), found.codes().begin()));
    CHECK(std::equal(expected.scale_codes().begin(), expected.scale_codes().end(),
                     found.scale_codes().begin()));
    CHECK(expected.offset() == found.offset());
    // A type that fixes the format loads the same.
    auto files = pesc::model_files::open({.path = d.folder.path("m")});
    pesc::stored_forms forms;
    std::vector<std::string> warnings;
    const auto fixed =
        pesc::load_weights<pesc::nf4<64, pesc::double_quant<>>>(files, {.format = nf4_dq()}, forms, warnings);
    CHECK(support::values_of(fixed.layers[0].down.weight) ==
          support::values_of(loaded.weights.layers[0].down.weight));
  }

  TEST_CASE("biases and tied heads") {
    dense_folder d;
    d.config.llama.attention_bias = d.config.llama.mlp_bias = d.config.llama.tie_embeddings = true;
    d.tensors = support::make_tensors(d.config);
    const auto loaded = read(d.write<pesc::bf16>());
    CHECK(loaded.weights.head.size() == 0);
    CHECK(loaded.weights.head_view().data == loaded.weights.embedding.data());
    CHECK(loaded.weights.layers[0].k.bias.size() == 12);
    CHECK(loaded.weights.layers[1].up.bias[7] ==
          pesc::to_float(pesc::to_bf16(d.tensors.at("model.layers.1.mlp.up_proj.bias").values[7])));
    // A second copy of the head, and rotary tables of old files, are no error.
    d.tensors["lm_head.weight"] = d.tensors.at("model.embed_tokens.weight");
    d.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {{3}, {1, 2, 3}};
    CHECK(read(d.write()).weights.head.size() == 0);
  }

  TEST_CASE("weights stored in 4 bits are kept to the bit, or decoded, but never quantised again") {
    dense_folder d;
    const support::temporary_folder t;
    auto first = read(d.write(), {.format = pesc::fp4<128>::info()});
    first.forms["model.layers.0.mlp.up_proj.weight"] = {"bfloat16", pesc::element_type::bf16};
    const std::string path = write_stored(t, d.config, first);
    const auto kept = read(path);
    CHECK(kept.warnings.empty());
    CHECK(kept.weights.format == pesc::fp4<128>::info());
    CHECK(kept.forms.at("model.layers.0.mlp.up_proj.weight") ==
          pesc::stored_form{"bfloat16", pesc::element_type::bf16});
    const auto bytes = pesc::read_file(path + "/model.safetensors");
    const support::temporary_folder again;
    CHECK(pesc::read_file(write_stored(again, d.config, kept) + "/model.safetensors") == bytes);

    const auto other = read(path, {.format = nf4_dq()});
    REQUIRE(other.warnings.size() == 1);
    CHECK(support::contains(other.warnings[0], "stored as fp4 in blocks of 128 and stay so"));
    CHECK(other.weights.format == pesc::fp4<128>::info());
    const auto decoded = read(path, {.format = pesc::unquantized<float>::info()});
    CHECK(support::values_of(decoded.weights.layers[1].gate.weight) ==
          support::values_of(first.weights.layers[1].gate.weight));
  }

  TEST_CASE("a missing tensor is named, with the nearest that is there") {
    dense_folder d;
    auto node = d.tensors.extract("model.layers.1.mlp.up_proj.weight");
    node.key() = "model.layers.1.mlp.up_prj.weight";
    d.tensors.insert(std::move(node));
    const auto text = refusal(d.write());
    CHECK(support::contains(text, "missing 1 of 21 tensors: \"model.layers.1.mlp.up_proj.weight\""));
    CHECK(support::contains(text, "\"model.layers.1.mlp.up_prj.weight\""));
  }

  TEST_CASE("tensors of no use, and those of experts that the configuration does not know, are refused") {
    dense_folder d;
    d.tensors["model.layers.0.self_attn.q_proj.bias"] = {{24}, std::vector<float>(24)};
    CHECK(support::contains(refusal(d.write()),
                            "1 tensors are not part of the model that config.json describes: "
                            "\"model.layers.0.self_attn.q_proj.bias\""));
    d.config.pesc = support::tiny_experts();
    d.tensors = support::make_tensors(d.config);
    d.config.pesc.reset();
    CHECK(support::contains(refusal(d.write()), "14 tensors"));
    CHECK(support::contains(refusal(d.write()), "config.json lacks adapter_dim"));
  }

  TEST_CASE("a dense model whose configuration speaks of experts is recognised") {
    dense_folder d;
    d.config.pesc = support::tiny_experts();
    const auto text = refusal(d.write());
    CHECK(support::contains(text,
                            "missing 14 of 35 tensors: \"model.layers.0.mlp.moe_adapter.router.weight\""));
    CHECK(support::contains(text, "This looks like a dense model"));
  }

  TEST_CASE("a shape that differs from the configuration is named with both") {
    dense_folder d;
    d.tensors["model.norm.weight"] = {{25}, std::vector<float>(25)};
    CHECK(support::contains(refusal(d.write()),
                            "tensor \"model.norm.weight\" is [25], expected [24] by config.json"));
    d.tensors = support::make_tensors(d.config);
    d.tensors["model.layers.0.mlp.down_proj.weight"].shape = {36, 24};
    CHECK(support::contains(refusal(d.write()),
                            "\"model.layers.0.mlp.down_proj.weight\" is [36, 24], expected [24, 36]"));
    d.tensors = support::make_tensors(d.config);
    d.config.llama.layers = 3;
    CHECK(support::contains(refusal(d.write()), "missing 9 of 30 tensors"));
  }

  TEST_CASE("a 4-bit weight whose own shape differs is refused before it is read") {
    dense_folder d;
    const support::temporary_folder t;
    const auto first = read(d.write(), {.format = nf4_dq()});
    d.config.llama.intermediate = 38;
    CHECK(support::contains(refusal(write_stored(t, d.config, first)),
                            "\"model.layers.0.mlp.gate_proj.weight\" is [36, 24], expected [38, 24]"));
  }

  TEST_CASE("weights that are not finite are named, in every format") {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()})
      for (const char* name :
           {"model.layers.1.mlp.down_proj.weight", "model.norm.weight", "model.embed_tokens.weight"}) {
        dense_folder d;
        d.tensors.at(name).values[17] = bad;
        const auto text = refusal<pesc::numeric_error>(d.write(), {.format = nf4_dq()});
        CHECK(support::contains(text, std::string("tensor \"") + name + "\" is " +
                                          (std::isnan(bad) ? "NaN" : "infinite") + " at entry 17"));
        CHECK(refusal<pesc::numeric_error>(d.write<pesc::bf16>()) == text);
      }
  }

  TEST_CASE("integers where weights should be are refused") {
    dense_folder d;
    d.write();
    pesc::safetensors_writer out;
    const std::vector<std::int32_t> numbers(24);
    for (const auto& [name, tensor] : d.tensors)
      if (name != "model.norm.weight") out.add(name, tensor.shape, std::span{tensor.values});
    out.add("model.norm.weight", {24}, std::span{numbers});
    out.write(d.folder.path("m/model.safetensors"));
    CHECK(support::contains(refusal(d.folder.path("m")),
                            "tensor \"model.norm.weight\" is I32, expected F32, F16, BF16 or F64"));
  }

// Sanitizers keep freed memory.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__clang__)
  /// Largest resident memory of this process in bytes since the last reset, or 0.
  static pesc::index_t peak_memory() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;)
      if (word == "VmHWM:") {
        pesc::index_t kib = 0;
        status >> kib;
        return kib * 1024;
      }
    return 0;
  }

  TEST_CASE("a load holds the packed weights, one source tensor and little else") {
    // 4 layers of 1024 x 4096: 128 MiB of zeros in bf16, which a sparse file holds in no space.
    pesc::model_config c;
    c.llama = support::tiny_llama();
    c.llama.hidden = 1024;
    c.llama.intermediate = 4096;
    c.llama.layers = 4;
    c.llama.heads = c.llama.kv_heads = 16;
    c.llama.head_dim = 64;
    const support::temporary_folder folder;
    pesc::write_file(folder.path("config.json"), pesc::to_string(pesc::to_json(c)));
    pesc::json header = pesc::json::object();
    pesc::index_t bytes = 0;
    pesc::for_each_frozen(c.llama, [&](const std::string& name, pesc::index_t rows, pesc::index_t cols) {
      const pesc::index_t begin = std::exchange(bytes, bytes + 2 * rows * std::max<pesc::index_t>(cols, 1));
      pesc::json shape = pesc::json::array(), place = pesc::json::array(), entry = pesc::json::object();
      shape.push_back(rows);
      if (cols > 0) shape.push_back(cols);
      place.push_back(begin).push_back(bytes);
      entry.set("dtype", "BF16").set("shape", std::move(shape)).set("data_offsets", std::move(place));
      header.set(name, std::move(entry));
    });
    const std::string text = to_string(header);
    const auto size = static_cast<std::uint64_t>(text.size());
    pesc::write_file(folder.path("model.safetensors"),
                     std::string{reinterpret_cast<const char*>(&size), 8} + text);
    std::filesystem::resize_file(folder.path("model.safetensors"),
                                 8 + text.size() + static_cast<std::uintmax_t>(bytes));
    std::ofstream("/proc/self/clear_refs") << "5";
    const pesc::index_t before = peak_memory();
    const auto loaded = pesc::load_model({.path = folder.path()}, {pesc::nf4<>::info()});
    const pesc::index_t used = peak_memory() - before;
    constexpr pesc::index_t source = 2 * 1024 * 4096;
    CAPTURE(used);
    CHECK(used <= loaded.weights.bytes() + source + (pesc::index_t{64} << 20));
    CHECK(used < bytes);
  }
#endif
}
