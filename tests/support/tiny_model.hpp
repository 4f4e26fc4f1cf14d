// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pesc/io/safetensors_writer.hpp"
#include "pesc/model/config.hpp"
#include "pesc/model/load_model.hpp"
#include "pesc/model/tensor_names.hpp"
#include "support/random.hpp"

// Small models with random weights, in memory and on disk in every layout that can be read.

namespace support {

/// \brief Two layers whose rows do not divide into 64-wide quantisation blocks, with grouped queries.
inline pesc::llama_config tiny_llama() {
  pesc::llama_config c;
  c.vocab = 40;
  c.hidden = 24;
  c.intermediate = 36;
  c.layers = 2;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 6;
  c.rms_eps = 1e-5;
  c.max_positions = 64;
  return c;
}

inline pesc::pesc_config tiny_experts() {
  return {.experts = 3, .top_k = 2, .adapter_dim = 5, .moe_scaling = 0.5};
}

struct tiny_tensor {
  std::vector<pesc::index_t> shape;
  std::vector<float> values;
};
using tiny_tensors = std::map<std::string, tiny_tensor>;

/// \brief All tensors that a configuration asks for, random.
inline tiny_tensors make_tensors(const pesc::model_config& config, std::uint64_t seed = 1) {
  tiny_tensors out;
  const auto add = [&](const std::string& name, pesc::index_t rows, pesc::index_t cols) {
    const bool norm = name.find("norm") != name.npos;
    const pesc::index_t count = rows * (cols == 0 ? 1 : cols);
    auto values = normal_floats(count, ++seed, norm ? 0.1 : 0.2);
    if (norm)
      for (float& x : values) x += 1.0f;
    out[name] = {cols == 0 ? std::vector{rows} : std::vector{rows, cols}, std::move(values)};
  };
  pesc::for_each_frozen(config.llama, add);
  if (config.pesc) pesc::for_each_expert_path(config.llama, *config.pesc, add);
  return out;
}

/// \brief A file of these tensors, each stored as `T`.
template <class T = float>
pesc::safetensors_writer make_file(const tiny_tensors& tensors) {
  pesc::safetensors_writer out;
  out.set_metadata("format", "pt");
  for (const auto& [name, tensor] : tensors) {
    std::vector<T> stored;
    for (const float x : tensor.values) stored.push_back(pesc::from_float<T>(x));
    const auto bytes = std::as_bytes(std::span{stored});
    out.add(
        name, pesc::element_type_of<T>, tensor.shape,
        [copy = std::vector<std::byte>(bytes.begin(), bytes.end())](pesc::byte_sink sink) { sink(copy); });
  }
  return out;
}

/// \brief Writes config.json and model.safetensors as another program would.
template <class T = float>
void write_folder(const std::string& folder, const pesc::model_config& config, const tiny_tensors& tensors) {
  std::filesystem::create_directories(folder);
  pesc::write_file(folder + "/config.json", pesc::to_string(pesc::to_json(config), 2));
  make_file<T>(tensors).write(folder + "/model.safetensors");
}

/// \brief The bytes of a llama2.c file of these tensors.
inline std::vector<std::byte> llama2c_bytes(const pesc::llama_config& c, const tiny_tensors& tensors) {
  std::vector<std::byte> out;
  const auto append = [&](const void* data, std::size_t bytes) {
    const std::size_t at = out.size();
    out.resize(at + bytes);
    std::memcpy(out.data() + at, data, bytes);
  };
  const auto number = [](pesc::index_t n) { return static_cast<std::int32_t>(n); };
  const std::int32_t header[7] = {number(c.hidden),       number(c.intermediate),
                                  number(c.layers),       number(c.heads),
                                  number(c.kv_heads),     number(c.tie_embeddings ? c.vocab : -c.vocab),
                                  number(c.max_positions)};
  append(header, sizeof header);
  const auto tensor = [&](const std::string& name) {
    const auto& values = tensors.at(name).values;
    append(values.data(), values.size() * sizeof(float));
  };
  tensor("model.embed_tokens.weight");
  for (const char* name :
       {"input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj"})
    for (pesc::index_t l = 0; l < c.layers; ++l) tensor(pesc::layer_prefix(l) + name + ".weight");
  tensor("model.norm.weight");
  const std::vector<float> tables(static_cast<std::size_t>(c.max_positions * c.head_dim));
  append(tables.data(), tables.size() * sizeof(float));
  if (!c.tie_embeddings) tensor("lm_head.weight");
  return out;
}

/// \brief The values of a frozen projection in the order of files, as float.
template <class Format>
std::vector<float> values_of(const pesc::quantized_matrix<Format, pesc::panels>& weight) {
  std::vector<float> out(static_cast<std::size_t>(weight.rows() * weight.cols()));
  const auto rows = pesc::unpack(weight);
  pesc::dequantize(rows.view(), pesc::matrix_view<float>{out.data(), weight.rows(), weight.cols()});
  return out;
}

inline std::vector<float> values_of(const pesc::buffer<float>& values) {
  return {values.data(), values.data() + values.size()};
}

}  // namespace support
