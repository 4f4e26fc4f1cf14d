// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pesc/io/safetensors_writer.hpp"
#include "pesc/model/low_rank.hpp"
#include "support/random.hpp"

namespace support {

/// \brief The bytes of a PEFT file with random updates of these modules, each with its rank.
inline std::vector<std::byte> adapter_bytes(const pesc::llama_config& c,
                                            const std::map<std::string, pesc::index_t>& ranks) {
  std::vector<std::vector<float>> values;
  values.reserve(2 * ranks.size());
  pesc::safetensors_writer writer;
  writer.set_metadata("format", "pt");
  std::uint64_t seed = 5;
  for (const auto& [module, rank] : ranks) {
    const auto [rows, cols] = pesc::detail::projection_size(c, module);
    values.push_back(normal_floats(rank * cols, ++seed, 0.3));
    writer.add(pesc::peft_name(module) + ".lora_A.weight", {rank, cols}, std::span{values.back()});
    values.push_back(normal_floats(rows * rank, ++seed, 0.3));
    writer.add(pesc::peft_name(module) + ".lora_B.weight", {rows, rank}, std::span{values.back()});
  }
  return writer.to_bytes();
}

/// \brief A PEFT folder of them: alpha 8, the rank of a module in `rank_pattern` where it is not 4.
inline void write_adapter(const std::string& folder, const pesc::llama_config& c,
                          const std::map<std::string, pesc::index_t>& ranks) {
  pesc::adapter_config config{4, 8.0};
  for (const auto& [module, rank] : ranks)
    if (rank != 4) config.rank_pattern.push_back({pesc::name_pattern::parse(module, ""), rank});
  std::filesystem::create_directories(folder);
  pesc::write_file(folder + "/adapter_config.json", pesc::to_string(pesc::to_json(config), 2));
  pesc::write_file(folder + "/adapter_model.safetensors", adapter_bytes(c, ranks));
}

}  // namespace support
