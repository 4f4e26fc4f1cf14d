// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "fuzz/mutation.hpp"
#include "pesc/model/low_rank.hpp"
#include "pesc/model/peft.hpp"

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  if (size > 0 && data[0] % 2 == 1) return fuzz::safetensors_mutator(data, size, max_size, seed, 1);
  return fuzz::json_mutator(data, size, max_size, seed);
}

// The first byte chooses: an adapter_config.json, or an adapter_model.safetensors for a small model.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  try {
    if (data[0] % 2 == 0) {
      const std::string_view text{reinterpret_cast<const char*>(data + 1), size - 1};
      const auto lora = pesc::parse_adapter_config(pesc::parse_json(text, "fuzz"), "fuzz");
      if (lora.rank < 1 || !std::isfinite(lora.alpha)) std::abort();
      if (lora.of("model.layers.0.self_attn.q_proj").rank < 1) std::abort();
      auto again = pesc::parse_adapter_config(to_json(lora), "again");
      if (lora.target_modules.empty()) again.target_modules.clear();
      if (!(again == lora)) std::abort();
    } else {
      pesc::llama_config c;
      c.hidden = 8, c.intermediate = 12, c.layers = 2, c.heads = 2, c.kv_heads = 1, c.head_dim = 4;
      const auto* bytes = reinterpret_cast<const std::byte*>(data + 1);
      const auto file =
          pesc::safetensors_file::from_bytes("fuzz", std::vector<std::byte>(bytes, bytes + size - 1));
      pesc::tensor_set out;
      pesc::read_adapter(file, {2, 4.0, 0.0, {}}, c, out);
      if (out.empty() || out.size() > static_cast<pesc::index_t>(file.tensors().size())) std::abort();
    }
  } catch (const pesc::error& error) {
    if (std::string_view{error.what()}.find('\n') != std::string_view::npos) std::abort();
  }
  return 0;
}
